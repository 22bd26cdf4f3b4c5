//! What is served, and what is answered to whoever asks for a path: names that are served, below a secret,
//! and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use hyper::{Method, StatusCode};

use super::answer::Answer;
use crate::launch::bases::Base;

/// Most names that were asked for in vain and are kept.
pub(super) const MOST_MISSED: usize = 100;

/// What is served.
#[derive(Debug)]
pub(super) struct Site {
    /// 128 bits at random, in hexadecimal: a dot would make Kaniko take it for a registry.
    secret: String,
    /// Registries, in the order of their numbers in paths.
    registries: Vec<String>,
    /// Images by number of the registry and repository, as in paths.
    images: BTreeMap<(usize, String), Vec<Arc<Base>>>,
    missed: Mutex<BTreeSet<String>>,
}

impl Site {
    /// One of these images.
    ///
    /// # Errors
    /// The system's, where it has nothing at random.
    pub(super) fn new(images: &[Arc<Base>]) -> Result<Self> {
        let registries: BTreeSet<_> = images
            .iter()
            .map(|i| i.reference.registry.clone())
            .collect();
        let registries: Vec<_> = registries.into_iter().collect();
        let mut by_path = BTreeMap::<_, Vec<_>>::new();
        for image in images {
            let reference = &image.reference;
            let number = registries.binary_search(&reference.registry);
            let number = number.unwrap_or_default();
            let path = (number, reference.repository.clone());
            by_path.entry(path).or_default().push(image.clone());
        }
        Ok(Self {
            secret: secret()?,
            registries,
            images: by_path,
            missed: Mutex::default(),
        })
    }

    /// What has to be in paths.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// Registries, in the order of their numbers in paths.
    pub(super) fn registries(&self) -> &[String] {
        &self.registries
    }

    /// Names that were asked for in vain: `registry/repository:tag`. At most some.
    pub(super) fn missed(&self) -> Vec<String> {
        let missed = self.missed.lock();
        let missed = missed.unwrap_or_else(PoisonError::into_inner);
        missed.iter().cloned().collect()
    }

    /// What is answered to a request.
    pub(super) fn answer(&self, method: &Method, path: &str) -> Answer {
        const UNKNOWN: Answer = Answer::No(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
        let whole = match *method {
            Method::GET => true,
            Method::HEAD => false,
            _ => return Answer::No(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        };
        let Some(path) = path.strip_prefix("/v2") else {
            return UNKNOWN;
        };
        if matches!(path, "" | "/") {
            return Answer::Here;
        }
        let known = path.strip_prefix('/').and_then(|path| {
            let (secret, path) = path.split_once('/')?;
            same(secret, &self.secret).then_some(path)
        });
        let asked = known.and_then(|path| {
            let (number, path) = path.split_once('/')?;
            let (path, identifier) = path.rsplit_once('/')?;
            let (repository, kind) = path.rsplit_once('/')?;
            let number: usize = number.parse().ok()?;
            let registry = self.registries.get(number)?;
            Some((number, registry, repository, kind, identifier))
        });
        let Some((number, registry, repository, kind, identifier)) = asked else {
            return UNKNOWN;
        };
        let images = self.images.get(&(number, repository.to_owned()));
        let mut images = images.into_iter().flatten();
        let found = match kind {
            "manifests" => images.find_map(|image| image.manifest(identifier, whole)),
            "blobs" => images.find_map(|image| image.blob(identifier, whole)),
            _ => return UNKNOWN,
        };
        if found.is_none() && kind == "manifests" {
            let sign = if identifier.contains(':') { '@' } else { ':' };
            let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
            if missed.len() < MOST_MISSED {
                missed.insert(format!("{registry}/{repository}{sign}{identifier}"));
            }
        }
        let no = match kind {
            "manifests" => "MANIFEST_UNKNOWN",
            _ => "BLOB_UNKNOWN",
        };
        found.unwrap_or(Answer::No(StatusCode::NOT_FOUND, no))
    }
}

impl Base {
    fn manifest(&self, identifier: &str, whole: bool) -> Option<Answer> {
        let digest = match identifier {
            tag if tag == self.reference.identifier => &self.top,
            digest if digest == self.top || digest == self.kept.image => digest,
            _ => return None,
        };
        Some(Answer::Manifest {
            digest: digest.to_owned(),
            // What was damaged meanwhile is fetched elsewhere.
            bytes: self.kept.manifest(digest).ok()?,
            whole,
        })
    }

    fn blob(&self, digest: &str, whole: bool) -> Option<Answer> {
        let blob = self.kept.blobs.iter().find(|blob| blob.digest == digest)?;
        let file = File::open(self.kept.path(digest)?).ok()?;
        let size = file.metadata().ok()?.len();
        // Half a layer is worse than none.
        (size == blob.size).then(|| Answer::Blob {
            digest: digest.to_owned(),
            file,
            size,
            whole,
        })
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    let differences = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && differences == 0
}

/// 128 bits at random, in hexadecimal.
fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

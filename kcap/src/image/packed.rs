//! An image in an OCI layout (a folder, or a tar of one) or a docker archive: which documents and
//! layers are its own.

use std::{
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{Store, arch, blob, digest_of, root::Root, store::parse, tarball::shown};

/// Most indexes within each other.
const NESTED: usize = 8;

/// An image that was found: nothing of its layers is read yet.
#[derive(Debug)]
pub struct Packed {
    /// Where its files are.
    pub store: Store,
    /// Name of its configuration in the store.
    pub name: PathBuf,
    /// Names of its layers in the store, lowest first.
    pub layers: Vec<PathBuf>,
    /// Digest of its configuration, `sha256:` and 64 digits: what docker calls the image's id.
    pub id: String,
    /// Digest of its manifest, where there is one: what registries know it by.
    pub manifest: Option<String>,
    /// Its configuration, a JSON document.
    pub config: Vec<u8>,
}

/// Which image is meant, where an index names several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The one for this processor.
    Host,
    /// The only one; of several, the one for this processor.
    Only,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// An image in a docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    layers: Vec<PathBuf>,
}

impl Packed {
    /// Finds the image in a folder or archive. Digests of its documents are checked where they are
    /// given.
    ///
    /// # Errors
    /// Where it is neither, or damaged, or it is not clear which image is meant.
    pub fn open(path: &Path, pick: Pick) -> Result<Self> {
        let store = if path.is_dir() {
            Store::Folder(Root::open(path)?)
        } else {
            Store::archive(File::open(path)?)?
        };
        if store.has("index.json") {
            Self::in_layout(store, pick)
        } else if store.has("manifest.json") {
            Self::in_docker_archive(store)
        } else {
            bail!(
                "it has neither index.json nor manifest.json: give an OCI layout, or an archive of \
                 `docker save`"
            )
        }
    }

    fn in_layout(store: Store, pick: Pick) -> Result<Self> {
        let mut index: Index = store.document(Path::new("index.json"), None)?;
        for _ in 0..NESTED {
            let chosen = choose(&index.manifests, pick)?;
            let blob = blob(&chosen.digest)?;
            if chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list") {
                index = store.document(&blob, Some(&chosen.digest))?;
                continue;
            }
            let manifest: Manifest = store.document(&blob, Some(&chosen.digest))?;
            let config: PathBuf = self::blob(&manifest.config.digest)?;
            let layers = manifest
                .layers
                .iter()
                .map(|layer| self::blob(&layer.digest))
                .collect::<Result<_>>()?;
            let mut packed = Self::with(store, &config, Some(&manifest.config.digest), layers)?;
            packed.manifest = Some(chosen.digest.clone());
            return Ok(packed);
        }
        bail!("it has indexes within each other, more than {NESTED}")
    }

    fn in_docker_archive(store: Store) -> Result<Self> {
        let images: Vec<Saved> = store.document(Path::new("manifest.json"), None)?;
        let count = images.len();
        let Ok([image]) = <[Saved; 1]>::try_from(images) else {
            bail!("it holds {count} images: save the one alone");
        };
        // docker names the configuration by its digest, in one of two ways.
        let name = image
            .config
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let hex = name.strip_suffix(".json").unwrap_or(&name);
        let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
        let digest = format!("sha256:{hex}");
        let digest = blob(&digest).is_ok().then_some(digest);
        Self::with(store, &image.config, digest.as_deref(), image.layers)
    }

    fn with(store: Store, name: &Path, digest: Option<&str>, layers: Vec<PathBuf>) -> Result<Self> {
        let config = store.bytes(name, digest)?;
        Ok(Self {
            store,
            name: name.to_owned(),
            layers,
            id: digest_of(&config),
            manifest: None,
            config,
        })
    }

    /// The configuration as what the caller knows of it.
    ///
    /// # Errors
    /// Where it is no such document.
    pub fn config<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        parse(&self.name, &self.config)
    }

    /// Checks that the configuration names as many layers as there are.
    ///
    /// # Errors
    /// Where it does not.
    pub fn agrees_on(&self, ids: usize) -> Result<()> {
        ensure!(
            ids == self.layers.len(),
            "its manifest and its configuration do not agree on the number of layers: {} and {ids}",
            self.layers.len()
        );
        Ok(())
    }
}

/// The manifest that is meant, which is one alone.
fn choose(manifests: &[Descriptor], pick: Pick) -> Result<&Descriptor> {
    let host = |d: &Descriptor| {
        d.platform
            .as_ref()
            .is_none_or(|p| p.os == "linux" && p.architecture == arch())
    };
    // What builders say of an image lies beside it, as an image for no platform.
    let image = |d: &Descriptor| {
        d.platform
            .as_ref()
            .is_none_or(|p| p.architecture != "unknown")
    };
    if pick == Pick::Only
        && let Some(only) = alone(manifests.iter().filter(|d| image(d)))
    {
        return Ok(only);
    }
    if manifests.iter().any(host) {
        return alone(manifests.iter().filter(|d| host(d))).with_context(|| {
            format!("it has several images for linux/{}: keep one in it", arch())
        });
    }
    let others: Vec<String> = manifests
        .iter()
        .filter_map(|d| d.platform.as_ref())
        .map(|p| shown(format!("{}/{}", p.os, p.architecture).as_bytes()))
        .take(NESTED)
        .collect();
    bail!(
        "it has no image for linux/{}, only for: {}",
        arch(),
        others.join(", ")
    )
}

/// The first, if no other has another digest.
fn alone<'a>(mut fit: impl Iterator<Item = &'a Descriptor>) -> Option<&'a Descriptor> {
    let first = fit.next()?;
    fit.all(|other| other.digest == first.digest)
        .then_some(first)
}

/// A file's name, safe to show.
pub(super) fn name_shown(name: &Path) -> String {
    shown(name.as_os_str().as_bytes())
}

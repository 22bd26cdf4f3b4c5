//! Base images for many builds of the same Dockerfiles: each is fetched once, kept, and handed to
//! Kaniko by a registry of kcap's own, so that no build asks the network for bytes that are here.
//!
//! - [`external`] says which images a Dockerfile takes from elsewhere (`expand`, `flags`,
//!   `reference`).
//! - [`fetch`] brings them, as Kaniko would find them, into kcap's cache (`skopeo`, `manifest`,
//!   `store`).
//! - [`Bases::serve`] hands them out (`serve`) where the container of a build reaches it and as few
//!   others as can be (`place`); [`Served::flags`] sends Kaniko there.
//!
//! What Kaniko finds is what it would find at the registry: the same manifest or list under the same
//! name, with the same digest. What is not kept it still fetches by itself: images that an image's own
//! `ONBUILD` takes, and those of places that a variable of the executor names (`KANIKO_REGISTRY_MAP`).
//! Where a proxy is set for the executor, it is asked for a bridge's address as well, unless `NO_PROXY`
//! names that; Kaniko then goes on to the registry. [`Served::requests`] tells whether a build came.

mod expand;
mod external;
mod flags;
mod manifest;
mod place;
mod reference;
mod serve;
mod skopeo;
mod store;

use std::{collections::BTreeMap, ffi::OsString, sync::Arc};

use anyhow::{Context as _, Result, anyhow, ensure};
use sha2::{Digest as _, Sha256};

pub use self::external::{External, external};
pub use self::serve::Served;
use self::{
    flags::Flags,
    manifest::{Manifest, Platform},
    reference::Reference,
    skopeo::Skopeo,
    store::{Kept, MOST, Meant, Store},
};
use super::oci::image;
use crate::render::escape;

/// Most columns of a name in a note.
const SHOWN: usize = 100;

/// Base images that are kept. As long as this is, none of them is removed.
#[derive(Debug)]
pub struct Bases {
    images: Vec<Arc<Base>>,
    digests: BTreeMap<String, String>,
}

/// One of them.
#[derive(Debug)]
struct Base {
    reference: Reference,
    /// Digest of what the name means: of a list, or of the image.
    top: String,
    kept: Kept,
}

/// Fetches images, or finds that they are kept and still what their names mean: then registries are
/// asked for a manifest only, and for a name with a digest nothing. Where a registry does not answer,
/// what the name meant last is used, and that is said; an image that cannot be had at all is left out,
/// and that is said too.
///
/// `names` are those of [`external`], `flags` Kaniko's, which say where it would ask, and for which
/// platform.
///
/// # Errors
/// Where skopeo is missing, there is no place to keep images, or the platform is none.
pub fn fetch(
    names: &[String],
    flags: &[OsString],
    on_note: &mut dyn FnMut(String),
) -> Result<Bases> {
    let mut bases = Bases {
        images: Vec::new(),
        digests: BTreeMap::new(),
    };
    if names.is_empty() {
        return Ok(bases);
    }
    let flags = Flags::read(flags);
    let platform = match &flags.platform {
        Some(text) => Platform::parse(text)?,
        None => Platform::host(),
    };
    let (skopeo, store) = (Skopeo::find()?, Store::open()?);
    for name in names {
        let fetcher = Fetcher {
            flags: &flags,
            platform: &platform,
            skopeo: &skopeo,
            store: &store,
        };
        match fetcher.fetch(name, on_note) {
            Ok(base) => {
                bases.digests.insert(name.clone(), base.kept.image.clone());
                bases.images.push(Arc::new(base));
            }
            Err(why) => on_note(format!(
                "the base image {} is not kept: {why:#}; each build pulls it by itself",
                escape::head(name, SHOWN)
            )),
        }
    }
    store.shrink(MOST);
    Ok(bases)
}

struct Fetcher<'a> {
    flags: &'a Flags,
    platform: &'a Platform,
    skopeo: &'a Skopeo,
    store: &'a Store,
}

impl Fetcher<'_> {
    fn fetch(&self, name: &str, on_note: &mut dyn FnMut(String)) -> Result<Base> {
        let reference = Reference::parse(name).context("it is no name of an image")?;
        let key = self.key(&reference);
        let known = self.store.meant(&key);
        let base = |(meant, kept): (Meant, Kept)| Base {
            reference: reference.clone(),
            top: meant.top,
            kept,
        };
        // A digest can mean nothing else, and needs no registry.
        if reference.digest().is_some()
            && let Some(known) = known
        {
            return Ok(base(known));
        }
        match (self.newest(&reference, &key, known.as_ref()), known) {
            (Ok(Some(newer)), _) | (Ok(None), Some(newer)) => Ok(base(newer)),
            (Ok(None), None) => Err(anyhow!("nothing was found")),
            (Err(why), None) => Err(why),
            (Err(why), Some(known)) => {
                on_note(format!(
                    "{}: {why:#}; what it meant last is used ({})",
                    escape::head(name, SHOWN),
                    known.0.image
                ));
                Ok(base(known))
            }
        }
    }

    /// What a name means now, where that is another thing than is known.
    fn newest(
        &self,
        reference: &Reference,
        key: &str,
        known: Option<&(Meant, Kept)>,
    ) -> Result<Option<(Meant, Kept)>> {
        let mut asked = Vec::new();
        for source in self.flags.sources(reference) {
            let sign = if reference.digest().is_some() {
                '@'
            } else {
                ':'
            };
            let identifier = format!("{sign}{}", reference.identifier);
            let top = match self.skopeo.manifest(&source, &identifier) {
                Ok(top) => top,
                Err(why) => {
                    asked.push(format!("{why:#}"));
                    continue;
                }
            };
            let digest = image::written(&Sha256::digest(&top));
            ensure!(
                reference.digest().is_none_or(|asked| asked == digest),
                "{} answers with {digest}",
                source.registry
            );
            if known.is_some_and(|(meant, _)| meant.top == digest) {
                return Ok(None);
            }
            let image = match Manifest::read(&top)? {
                Manifest::Image(_) => digest.clone(),
                Manifest::List(list) => {
                    let chosen = self.platform.choose(&list);
                    let chosen =
                        chosen.with_context(|| format!("it has no image for {}", self.platform))?;
                    image::blob(&chosen.digest)?;
                    chosen.digest.clone()
                }
            };
            let making = self.store.making()?;
            let kept = match self.store.kept(&image) {
                Some(kept) => {
                    self.store.add(&kept, &top, &making)?;
                    kept
                }
                None => {
                    let folder = making.path.join("fetched");
                    self.skopeo.copy(&source, &image, &folder)?;
                    self.store.keep(&image, &top, &folder, &making)?
                }
            };
            let meant = Meant {
                key: key.to_owned(),
                top: digest,
                image,
            };
            self.store.know(&meant, &making)?;
            return Ok(Some((meant, kept)));
        }
        ensure!(!asked.is_empty(), "there is no registry to ask");
        Err(anyhow!(asked.join("; ")))
    }

    /// All that decides what a name means.
    fn key(&self, reference: &Reference) -> String {
        let sources = self.flags.sources(reference);
        let places: Vec<String> = sources
            .iter()
            .map(|source| format!("{}/{}", source.registry, source.repository))
            .collect();
        format!(
            "{} {}/{} from {}",
            self.platform,
            reference.registry,
            reference.within(),
            places.join(" ")
        )
    }
}

impl Bases {
    /// The digest of each image's manifest, by its name as [`external`] gave it. Of a list it is that
    /// of the image which was chosen, as Kaniko calls it.
    pub fn digests(&self) -> &BTreeMap<String, String> {
        &self.digests
    }

    /// Serves them to the containers of an engine (`docker`, `podman` or `oci`) on a network, as
    /// `--network` names it, until what is returned is dropped. `None` where nothing is kept.
    ///
    /// # Errors
    /// Where there is no address that those containers reach and other machines do not: why. Builds
    /// then pull by themselves.
    pub fn serve(&self, engine: &str, network: Option<&str>) -> Result<Option<Served>> {
        if self.images.is_empty() {
            return Ok(None);
        }
        let place = place::find(engine, network)
            .context("base images are not served, and each build pulls them by itself")?;
        Served::start(&self.images, place).map(Some)
    }
}

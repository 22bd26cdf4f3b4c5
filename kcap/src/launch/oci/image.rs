//! An executor image on this host: an OCI layout (a folder, or a tar of one) or a docker archive.
//!
//! Only what is needed is read: the image for this processor, its configuration and its layers.
//! The configuration's digest is checked where one is given, and each layer against the
//! configuration's `diff_ids`, so that a damaged or mixed-up image is found in either form.

mod save;

use std::{
    io::{self, Read},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{layer, root::Root};
use crate::image::{Packed, Pick, arch, decompressed, tarball::shown};
pub use crate::image::{blob, written};

/// Most bytes that an executor image may have unpacked.
const UNPACKED: u64 = 8 << 30;

/// An image that was found, not unpacked yet.
#[derive(Debug)]
pub struct Image {
    packed: Packed,
    /// Digest of its configuration, `sha256:` and 64 digits: what docker calls the image's id.
    pub id: String,
    /// Its configuration.
    pub config: Config,
}

/// What an image says of itself.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    rootfs: RootFs,
    #[serde(default)]
    config: Option<Process>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// What an image says of the process that it is run as.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Process {
    /// The program, with its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The environment, `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// Whom it runs as.
    pub user: String,
    /// Where it runs.
    pub working_dir: String,
}

impl Image {
    /// Finds the image for this processor in a folder or archive.
    ///
    /// # Errors
    /// Where it is neither, or damaged, or has no image for this processor.
    pub fn open(path: &Path) -> Result<Self> {
        let packed = Packed::open(path, Pick::Host)?;
        let config: Config = packed.config()?;
        let (os, its) = (config.os.as_str(), config.architecture.as_str());
        ensure!(
            matches!(os, "" | "linux") && (its.is_empty() || its == arch()),
            "the image is for {}, this host is linux/{}: give the image for it",
            shown(format!("{os}/{its}").as_bytes()),
            arch()
        );
        packed.agrees_on(config.rootfs.diff_ids.len())?;
        ensure!(!packed.layers.is_empty(), "the image has no layers");
        Ok(Self {
            id: packed.id.clone(),
            packed,
            config,
        })
    }

    /// The process that it is run as.
    pub fn process(&self) -> Process {
        self.config.config.clone().unwrap_or_default()
    }

    /// Unpacks its layers into an empty folder.
    ///
    /// # Errors
    /// Where a layer is damaged, hostile or not the one that the configuration names.
    pub fn unpack(&self, root: &Path) -> Result<()> {
        let root = Root::open(root)?;
        let mut left = UNPACKED;
        for (layer, expected) in self.packed.layers.iter().zip(&self.config.rootfs.diff_ids) {
            let name = || shown(layer.as_os_str().as_encoded_bytes());
            let content = decompressed(self.packed.store.open(layer)?.1)
                .with_context(|| format!("cannot read layer {}", name()))?;
            let mut content = Hashing {
                inner: content,
                hash: Sha256::new(),
                left: &mut left,
            };
            layer::apply(&root, &mut content)
                // What is behind the archive's end is part of the digest.
                .and_then(|()| Ok(io::copy(&mut content, &mut io::sink())?))
                .with_context(|| format!("layer {}", name()))?;
            let found = written(&content.hash.finalize());
            ensure!(
                found == *expected,
                "layer {} is damaged: its content has digest {found}, not {}",
                name(),
                shown(expected.as_bytes())
            );
        }
        Ok(())
    }
}

/// Hashes what is read through it, which can be no more than is left.
struct Hashing<'a, R> {
    inner: R,
    hash: Sha256,
    left: &'a mut u64,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        *self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("the image unpacks to more than {UNPACKED} bytes"))
        })?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;

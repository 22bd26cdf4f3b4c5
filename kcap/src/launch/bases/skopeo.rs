//! skopeo, which asks registries for manifests and brings images as they are there, byte for byte.
//!
//! docker and podman are not asked: what they hand out again is another manifest over other layers,
//! with another digest than the one that Kaniko would see.

use std::{ffi::OsStr, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::flags::Source;
use crate::launch::{
    call::Call,
    oci::{pull, runtime},
};

/// It.
#[derive(Debug)]
pub struct Skopeo {
    program: String,
}

impl Skopeo {
    /// Finds it.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn find() -> Result<Self> {
        let found = runtime::program(OsStr::new("skopeo"));
        let program = found.and_then(|path| path.to_str().map(str::to_owned));
        Ok(Self {
            program: program.context(
                "base images are kept by skopeo, which is not installed, so that each build pulls \
                 them again: apt install skopeo",
            )?,
        })
    }

    /// The manifest or list that a tag or digest (`:tag`, `@sha256:…`) names.
    ///
    /// # Errors
    /// What the registry says, in one line.
    pub fn manifest(&self, source: &Source, identifier: &str) -> Result<Vec<u8>> {
        let insecure = source.insecure.then_some("--tls-verify=false");
        let words = ["inspect", "--raw"].into_iter().chain(insecure);
        let address = address(source, identifier);
        let call = Call::new(&self.program, words.chain([address.as_str()]));
        Ok(done(call.interruptible(), source)?.into_bytes())
    }

    /// Copies an image into a folder, in containers' `dir:` layout, which changes nothing.
    ///
    /// # Errors
    /// What the registry says, in one line; a path that skopeo cannot be told.
    pub fn copy(&self, source: &Source, digest: &str, to: &Path) -> Result<()> {
        let to = to
            .to_str()
            .filter(|to| !to.contains([':', ',']))
            .context("the cache's path is not plain text: set XDG_CACHE_HOME to one that is")?;
        let insecure = source.insecure.then_some("--src-tls-verify=false");
        let words = pull::policy().into_iter().chain(["copy", "--quiet"]);
        let (from, to) = (address(source, &format!("@{digest}")), format!("dir:{to}"));
        let words = words.chain(insecure).chain([from.as_str(), to.as_str()]);
        done(Call::new(&self.program, words).lengthy(), source)?;
        Ok(())
    }
}

fn address(source: &Source, identifier: &str) -> String {
    format!(
        "docker://{}/{}{identifier}",
        source.registry, source.repository
    )
}

fn done(call: Call<'_>, source: &Source) -> Result<String> {
    let answer = call.run()?;
    ensure!(answer.success, "{}: {}", source.registry, answer.complaint);
    Ok(answer.output)
}

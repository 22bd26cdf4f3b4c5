//! Builds on this machine's kernel, in the same container and network as those of `cargo xtask truth`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::plan::Given;
use crate::corpus::Subject;
use crate::lab::capabilities::Set;
use crate::lab::kaniko::Kaniko;

/// Builds once, traced, and returns the capture. The build may fail, but not to start.
///
/// # Errors
/// Where kcap fails, or the container cannot be made.
pub fn record(lab: &Kaniko, kcap: &Path, subject: &Subject, given: Given) -> Result<Vec<u8>> {
    let scratch = lab.folder()?;
    let recipe = subject.recipe(&scratch.path().join("context"))?;
    let prepared = lab.prepare(&recipe, given.set(subject.start, Set::bounding()?))?;
    let capture = scratch.path().join("capture");
    let build = prepared.command();
    let output = Command::new(kcap)
        .args(["run", "--quiet", "--capture"])
        .arg(&capture)
        .arg("--dockerfile")
        .arg(Path::new("corpus").join(&subject.name).join("Dockerfile"))
        .arg("--")
        .arg(build.get_program())
        .args(build.get_args())
        .current_dir(subject.folder.join("../.."))
        .stdin(Stdio::null())
        .output()
        .context("cannot run kcap")?;
    // Its status says little: 125 may be the build's own.
    if !capture.exists() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "kcap ended with {} and left no capture: {}",
            output.status,
            said.lines().last().unwrap_or_default()
        );
    }
    fs::read(&capture).context("cannot read the capture")
}

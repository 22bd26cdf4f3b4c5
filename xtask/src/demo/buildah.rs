//! A build by buildah, which needs neither a daemon nor a container runtime.

use anyhow::Result;

use super::{Job, base};

/// Builds under kcap and returns its status.
///
/// # Errors
/// Where the base image cannot be made, or kcap does not start.
pub fn build(job: &Job) -> Result<u8> {
    base::make(job)?;
    let mut build = base::buildah(job);
    build
        .args(["bud", "--isolation", "chroot", "--layers=false", "--file"])
        .arg(&job.dockerfile);
    if job.is_example {
        build.arg("--pull-never");
    }
    build.arg(&job.context);
    job.traced(&build)
}

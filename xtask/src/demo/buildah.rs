//! A build by buildah, which needs neither a daemon nor a container runtime.

use anyhow::Result;

use super::Job;
use crate::lab::{self, busybox};

/// Builds under kcap and returns its status.
///
/// # Errors
/// Where the base image cannot be made, or kcap does not start.
pub fn build(job: &Job) -> Result<u8> {
    busybox::make(&job.scratch)?;
    let mut build = lab::buildah(&job.scratch);
    build
        .args(["bud", "--isolation", "chroot", "--layers=false", "--file"])
        .arg(&job.dockerfile);
    if job.is_example {
        build.arg("--pull-never");
    }
    build.arg(&job.context);
    job.traced(&build)
}

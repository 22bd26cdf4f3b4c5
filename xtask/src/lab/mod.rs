//! What real builds need: base images, a registry that serves them, and Kaniko's executor in a
//! container made from nothing but the executor. Knows nothing of kcap.

pub mod bases;
pub mod bundle;
pub mod busybox;
pub mod capabilities;
mod debian;
pub mod kaniko;
pub mod netns;
pub mod registry;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::sh;

/// A buildah command on storage of its own in `scratch`.
pub fn buildah(scratch: &Path) -> Command {
    let mut command = Command::new("buildah");
    command
        .arg("--root")
        .arg(scratch.join("storage"))
        .arg("--runroot")
        .arg(scratch.join("runroot"))
        .args(["--storage-driver", "vfs"]);
    command
}

/// Makes an image of a context folder that has a Dockerfile which runs nothing. The same context
/// gives the same image: no time goes into it.
///
/// # Errors
/// Where buildah fails.
pub fn image(scratch: &Path, context: &Path, name: &str) -> Result<()> {
    sh::output(
        buildah(scratch)
            .args(["bud", "--quiet", "--isolation", "chroot"])
            .args(["--format", "docker", "--timestamp", "0"])
            .args(["--layers=false", "--tag", name, "--file"])
            .arg(context.join("Dockerfile"))
            .arg(context),
    )?;
    Ok(())
}

/// Pushes an image to the registry at `address`, and returns the digest of its manifest.
///
/// # Errors
/// Where buildah fails, or does not say the digest.
pub fn push(scratch: &Path, name: &str, address: &str, repository: &str) -> Result<String> {
    let digest = scratch.join("digest");
    let place = format!("docker://{address}/{repository}");
    sh::output(
        buildah(scratch)
            .args(["push", "--quiet", "--tls-verify=false", "--format", "v2s2"])
            .arg("--digestfile")
            .arg(&digest)
            .args([name, &place]),
    )?;
    Ok(std::fs::read_to_string(digest)?.trim().to_owned())
}

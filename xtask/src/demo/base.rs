//! The example's base image: BusyBox, and what a small Linux system has around it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Job;
use crate::setup;
use crate::sh;

/// The image's name, as `FROM busybox` means it.
pub const NAME: &str = "docker.io/library/busybox:latest";

/// A buildah command on storage of the job's own.
pub fn buildah(job: &Job) -> Command {
    let mut command = Command::new("buildah");
    command
        .arg("--root")
        .arg(job.scratch.join("storage"))
        .arg("--runroot")
        .arg(job.scratch.join("runroot"))
        .args(["--storage-driver", "vfs"]);
    command
}

/// Makes the image in the job's storage.
///
/// # Errors
/// Where a file cannot be written, or buildah fails.
pub fn make(job: &Job) -> Result<()> {
    let context = job.scratch.join("base");
    root(&context.join("root")).context("cannot lay out the base image")?;
    let dockerfile = context.join("Dockerfile");
    fs::write(&dockerfile, "FROM scratch\nCOPY root/ /\nCMD [\"sh\"]\n")
        .context("cannot write the base image's Dockerfile")?;
    sh::output(
        buildah(job)
            .args([
                "bud",
                "--quiet",
                "--isolation",
                "chroot",
                "--format",
                "docker",
            ])
            .args(["--layers=false", "--tag", NAME, "--file"])
            .arg(&dockerfile)
            .arg(&context),
    )?;
    Ok(())
}

fn root(root: &Path) -> Result<()> {
    for folder in [
        "bin", "dev", "etc", "home", "proc", "root", "srv", "sys", "tmp", "var",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(setup::BUSYBOX, root.join("bin/busybox"))?;
    for name in sh::output(Command::new(setup::BUSYBOX).arg("--list"))?.lines() {
        if name != "busybox" {
            symlink("busybox", root.join("bin").join(name))?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/shadow"), "root:*:::::::\n")?;
    fs::set_permissions(root.join("etc/shadow"), fs::Permissions::from_mode(0o600))?;
    Ok(())
}

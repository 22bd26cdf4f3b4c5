//! The base image `debian:bookworm`: a minimal Debian, set up as Debian's images are, with the
//! packages that the corpus installs in an apt repository inside the image. So builds on it need
//! no network, and find the same packages each time.
//!
//! apt takes them by its `copy` method: like a download, as its own user into `partial`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::sh;

/// The image's name, as `FROM debian:bookworm` means it.
pub const NAME: &str = "docker.io/library/debian:bookworm";

const MIRROR: &str = "http://deb.debian.org/debian";

/// What Debian's images put into apt's and dpkg's settings; without documentation, as the slim
/// ones, since every build unpacks and reads all of it.
const SETTINGS: [(&str, &str); 8] = [
    (
        "etc/dpkg/dpkg.cfg.d/docker",
        "path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\n\
         path-exclude /usr/share/info/*\npath-exclude /usr/share/locale/*\n\
         path-exclude /usr/share/man/*\n",
    ),
    (
        "etc/dpkg/dpkg.cfg.d/docker-apt-speedup",
        "force-unsafe-io\n",
    ),
    (
        "etc/apt/apt.conf.d/docker-clean",
        "DPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb \
         /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true\"; };\n\
         APT::Update::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb \
         /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true\"; };\n\
         Dir::Cache::pkgcache \"\"; Dir::Cache::srcpkgcache \"\";\n",
    ),
    (
        "etc/apt/apt.conf.d/docker-no-languages",
        "Acquire::Languages \"none\";\n",
    ),
    (
        "etc/apt/apt.conf.d/docker-gzip-indexes",
        "Acquire::GzipIndexes \"true\";\n",
    ),
    (
        "etc/apt/apt.conf.d/docker-autoremove-suggests",
        "Apt::AutoRemove::SuggestsImportant \"false\";\n",
    ),
    (
        "etc/apt/sources.list",
        "deb [trusted=yes] copy:/srv/apt ./\n",
    ),
    ("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n"),
];

/// What a fresh installation leaves behind that an image does not have.
const LEFT_OVER: [&str; 17] = [
    "usr/share/doc/*/changelog*",
    "usr/share/doc/*/[!c]*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/cache/apt/archives/*.deb",
    "var/cache/apt/*.bin",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/*-old",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/log/*.log",
    "var/log/apt/*",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/machine-id",
    "debootstrap",
];

/// Makes the image in buildah's storage in `scratch`, with `packages` and what they depend on to
/// be installed offline.
///
/// # Errors
/// Where debootstrap, apt or buildah fail.
pub fn make(scratch: &Path, packages: &[String]) -> Result<()> {
    let context = scratch.join("debian");
    fs::create_dir(&context)?;
    let root = context.join("root");
    sh::output(
        // It mounts /proc in the new root: in a mount namespace that goes with it.
        Command::new("unshare")
            .args(["--mount", "debootstrap"])
            .args(["--variant=minbase", "bookworm"])
            .arg(&root)
            .arg(MIRROR),
    )
    .context("cannot make the base image debian:bookworm")?;
    let repository = root.join("srv/apt");
    fs::create_dir_all(&repository)?;
    download(&root, &repository, packages).context("cannot fetch the corpus' packages")?;
    let index = sh::output(
        Command::new("dpkg-scanpackages")
            .args(["--multiversion", "."])
            .current_dir(&repository),
    )?;
    fs::write(repository.join("Packages"), index + "\n")?;
    for (path, content) in SETTINGS {
        fs::write(root.join(path), content).with_context(|| format!("cannot write {path}"))?;
    }
    let policy = root.join("usr/sbin/policy-rc.d");
    fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
    // The patterns are constants of ours, and the folder is the first argument.
    let sweep = format!("cd \"$1\" && rm -rf {}", LEFT_OVER.join(" "));
    sh::output(Command::new("sh").args(["-c", &sweep, "sh"]).arg(&root))?;
    fs::write(
        context.join("Dockerfile"),
        // An archive keeps owners and modes as they are.
        "FROM scratch\nADD root.tar /\n\
         ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         CMD [\"bash\"]\n",
    )?;
    sh::output(
        Command::new("tar")
            .args(["--create", "--numeric-owner", "--sort=name", "--mtime=@0"])
            .args(["--xattrs", "--xattrs-include=security.capability"])
            .args([
                "--exclude=./dev/*",
                "--exclude=./proc/*",
                "--exclude=./sys/*",
            ])
            .arg("--file")
            .arg(context.join("root.tar"))
            .arg("--directory")
            .arg(&root)
            .arg("."),
    )?;
    fs::remove_dir_all(&root)?;
    super::image(scratch, &context, NAME)?;
    fs::remove_dir_all(&context)?;
    Ok(())
}

/// Has the new system's own apt fetch the packages into `repository`.
fn download(root: &Path, repository: &Path, packages: &[String]) -> Result<()> {
    fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"))?;
    fs::write(
        root.join("etc/apt/sources.list"),
        format!("deb {MIRROR} bookworm main\n"),
    )?;
    let apt = || {
        let mut command = Command::new("chroot");
        command.arg(root).args(["apt-get", "-qq"]);
        command
    };
    sh::output(apt().arg("update"))?;
    if !packages.is_empty() {
        sh::output(
            apt()
                .args(["install", "-y", "--no-install-recommends"])
                .args(["--download-only", "--"])
                .args(packages),
        )?;
    }
    for entry in fs::read_dir(root.join("var/cache/apt/archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let name = path.file_name().context("a package without a name")?;
            fs::rename(&path, repository.join(name))?;
        }
    }
    Ok(())
}

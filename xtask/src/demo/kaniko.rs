//! A build by Kaniko's executor, in a container made from nothing but the executor.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::registry::Registry;
use super::{Job, base, bundle};
use crate::sh;

/// Where the executor's own image has it.
const DEFAULT: &str = "/kaniko/executor";

/// The executor to build with: `$KCAP_KANIKO_EXECUTOR`, else where its image has it.
pub fn executor() -> Option<PathBuf> {
    let named = env::var_os("KCAP_KANIKO_EXECUTOR").filter(|value| !value.is_empty());
    let path = named.map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from);
    fs::canonicalize(path).ok().filter(|path| path.is_file())
}

/// Builds under kcap and returns its status.
///
/// # Errors
/// Where the base image, the registry or the container cannot be made, or kcap does not start.
pub fn build(job: &Job, executor: &Path) -> Result<u8> {
    let mut flags: Vec<String> = [
        "--dockerfile=/Dockerfile",
        "--context=dir:///context",
        "--no-push",
    ]
    .map(str::to_owned)
    .into();
    let registry = job.is_example.then(|| serve_base(job)).transpose()?;
    if let Some(registry) = &registry {
        let map = format!("--registry-map=index.docker.io={}", registry.address());
        flags.extend([map, "--insecure".into(), "--insecure-pull".into()]);
    }
    let bundle = job.scratch.join("bundle");
    lay_out(&bundle, executor).context("cannot lay out Kaniko's container")?;
    let name = format!("kcap-demo-{}", std::process::id());
    let config = bundle::config(&name, &job.dockerfile, &job.context, &bundle, &flags);
    fs::write(bundle.join("config.json"), config.to_string())
        .context("cannot write the container's configuration")?;
    let container = Container {
        state: job.scratch.join("runc"),
        name,
    };
    let mut run = container.runc();
    run.args(["run", "--bundle"])
        .arg(&bundle)
        .arg(&container.name);
    job.traced(&run)
}

/// Starts a registry that has the example's base image.
fn serve_base(job: &Job) -> Result<Registry> {
    base::make(job)?;
    let registry = Registry::start(&job.scratch.join("registry"))?;
    let place = format!("docker://{}/library/busybox:latest", registry.address());
    sh::output(
        base::buildah(job)
            .args(["push", "--quiet", "--tls-verify=false", "--format", "v2s2"])
            .args([base::NAME, &place]),
    )?;
    Ok(registry)
}

/// The files of the executor's image, and those that an engine adds to every container.
fn lay_out(bundle: &Path, executor: &Path) -> Result<()> {
    let root = bundle.join("rootfs");
    for folder in ["kaniko/ssl/certs", "kaniko/.docker", "etc", "workspace"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("kaniko"), fs::Permissions::from_mode(0o777))?;
    fs::copy(executor, root.join("kaniko/executor"))?;
    let certificates = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if certificates.exists() {
        fs::copy(
            certificates,
            root.join("kaniko/ssl/certs/ca-certificates.crt"),
        )?;
    }
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    // By this file Kaniko knows that it is in a container and may overwrite the root.
    fs::write(root.join(".dockerenv"), "")?;
    let resolver = fs::read("/etc/resolv.conf").unwrap_or_default();
    fs::write(bundle.join("resolv.conf"), resolver)?;
    fs::write(bundle.join("hosts"), "127.0.0.1\tlocalhost kcap-demo\n")?;
    fs::write(bundle.join("hostname"), "kcap-demo\n")?;
    Ok(())
}

/// A container of runc's, removed when dropped.
struct Container {
    state: PathBuf,
    name: String,
}

impl Container {
    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state);
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // After a build that ended by itself there is none left, which is as it should be.
        let _ = sh::output(self.runc().args(["delete", "--force", &self.name]));
    }
}

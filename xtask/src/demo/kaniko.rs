//! A build by Kaniko's executor, in a container made from nothing but the executor.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Job;
use crate::lab::bundle::Bundle;
use crate::lab::capabilities::Set;
use crate::lab::kaniko::{self, Container};
use crate::lab::registry::Registry;
use crate::lab::{self, busybox};

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
    kaniko::lay_out(&bundle, executor).context("cannot lay out Kaniko's container")?;
    let name = format!("kcap-demo-{}", std::process::id());
    let config = Bundle {
        name: &name,
        folder: &bundle,
        dockerfile: &job.dockerfile,
        context: &job.context,
        output: None,
        flags: &flags,
        variables: &[],
        capabilities: Set::DOCKER_DEFAULT,
        network: None,
    }
    .config();
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
    busybox::make(&job.scratch)?;
    let registry = Registry::start(&job.scratch.join("registry"))?;
    let repository = busybox::NAME.trim_start_matches("docker.io/");
    lab::push(&job.scratch, busybox::NAME, registry.address(), repository)?;
    Ok(registry)
}

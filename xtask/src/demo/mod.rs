//! `cargo xtask demo`: a real build of a Dockerfile, traced to its report.
//!
//! By Kaniko in a container of runc's where there is an executor, else by buildah. The example
//! needs no network: its base image is made here from BusyBox.

mod buildah;
mod kaniko;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::bpf;
use crate::lab;
use crate::setup::{self, Need};
use crate::sh::{self, Exit};

const EXAMPLE: &str = include_str!("example/Dockerfile");
const EXAMPLE_CONTEXT: [(&str, &str); 1] = [("greet", include_str!("example/greet"))];

/// What `cargo xtask demo` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Dockerfile of your own, in place of the example
    #[arg(short = 'f', long, value_name = "FILE")]
    dockerfile: Option<PathBuf>,
    /// The folder that its COPY and ADD read from; by default the Dockerfile's own
    #[arg(short = 'c', long, value_name = "FOLDER", requires = "dockerfile")]
    context: Option<PathBuf>,
    /// A built kcap, in place of building one
    #[arg(long, value_name = "PROGRAM")]
    kcap: Option<PathBuf>,
}

/// What is built, and with what.
pub struct Job {
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// The build context.
    pub context: PathBuf,
    /// Whether it is the example, whose base image is ours.
    pub is_example: bool,
    /// The kcap that traces.
    pub kcap: PathBuf,
    /// A folder for everything that does not outlive the demo.
    pub scratch: PathBuf,
}

/// Builds and traces.
///
/// # Errors
/// [`Exit`] with kcap's status where that is not 0. Any other error where it cannot come to that.
pub fn run(args: &Args) -> Result<()> {
    if !sh::is_root() {
        bail!("tracing needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask demo`");
    }
    let executor = lab::kaniko::executor();
    let engine = if executor.is_some() {
        Need::Kaniko
    } else {
        Need::Demo
    };
    setup::ensure(&[engine])?;
    let scratch = tempfile::Builder::new()
        .prefix("kcap-demo-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    // What was asked for is looked at before anything is built for it.
    let (dockerfile, context) = subject(args, scratch.path())?;
    let executor = lab::kaniko::executor();
    let engine = if executor.is_some() {
        Need::Kaniko
    } else {
        Need::Demo
    };
    setup::ensure(&[engine])?;
    let kcap = match &args.kcap {
        Some(path) => absolute(path)?,
        None => build_kcap()?,
    };
    let job = Job {
        dockerfile,
        context,
        is_example: args.dockerfile.is_none(),
        kcap,
        scratch: scratch.path().to_owned(),
    };
    // An interrupt is for the build: this process stays to clean up after it.
    sh::outlive_signals();
    let status = match executor {
        Some(executor) => kaniko::build(&job, &executor),
        None => buildah::build(&job),
    }?;
    scratch.close().context("cannot remove the demo's folder")?;
    match status {
        0 => Ok(()),
        status => Err(Exit(status).into()),
    }
}

fn build_kcap() -> Result<PathBuf> {
    if !bpf::is_buildable() {
        setup::ensure(&[Need::Bpf])?;
    }
    sh::run(sh::cargo().args(["build", "--release", "--package", "kcap", "--bin", "kcap"]))?;
    Ok(sh::target().join("release/kcap"))
}

/// The Dockerfile and its context.
fn subject(args: &Args, scratch: &Path) -> Result<(PathBuf, PathBuf)> {
    let Some(file) = &args.dockerfile else {
        return example(scratch);
    };
    let file = absolute(file)?;
    let context = match &args.context {
        Some(folder) => absolute(folder)?,
        None => file.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    Ok((file, context))
}

fn example(scratch: &Path) -> Result<(PathBuf, PathBuf)> {
    let context = scratch.join("example");
    fs::create_dir(&context).context("cannot make the example's folder")?;
    let dockerfile = context.join("Dockerfile");
    fs::write(&dockerfile, EXAMPLE).context("cannot write the example")?;
    for (name, content) in EXAMPLE_CONTEXT {
        fs::write(context.join(name), content).context("cannot write the example")?;
    }
    Ok((dockerfile, context))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))
}

impl Job {
    /// Runs a build under kcap and returns kcap's status.
    fn traced(&self, build: &Command) -> Result<u8> {
        let mut command = Command::new(&self.kcap);
        command.arg("run").arg("--dockerfile").arg(&self.dockerfile);
        command
            .arg("--")
            .arg(build.get_program())
            .args(build.get_args());
        let status = command
            .status()
            .with_context(|| format!("cannot run {}", self.kcap.display()))?;
        // As a shell has it: a signal's number above 128.
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().or_else(|| Some(128 + status.signal()?));
        Ok(u8::try_from(code.unwrap_or(1)).unwrap_or(1))
    }
}

//! `cargo xtask captures`: records with kcap one build of each Dockerfile of the corpus by the real
//! Kaniko, and keeps what was recorded beside it: the tests interpret it where there is no Kaniko. In
//! the same container and network as the builds of `cargo xtask truth`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::corpus::{self, Expect, Subject};
use crate::lab::kaniko::{self, Kaniko};
use crate::setup::{self, Need};
use crate::sh;

/// What `cargo xtask captures` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of the corpus; by default all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The kcap to record with; a build of this copy otherwise
    #[arg(long, value_name = "FILE")]
    kcap: Option<PathBuf>,
    /// Another folder of Dockerfiles than the workspace's corpus
    #[arg(long, value_name = "FOLDER")]
    corpus: Option<PathBuf>,
}

/// Records.
///
/// # Errors
/// Where a build does not come to what its folder expects, or something was lost.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        sh::is_root(),
        "tracing needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask captures`"
    );
    ensure!(
        kaniko::executor().is_some(),
        "no Kaniko executor: set KCAP_KANIKO_EXECUTOR to its path"
    );
    let folder = match &args.corpus {
        Some(folder) => folder.clone(),
        None => sh::workspace().join("corpus"),
    };
    let subjects = corpus::subjects(&folder, &args.names)?;
    let kcap = match &args.kcap {
        Some(path) => path.clone(),
        None => {
            sh::run(sh::cargo().args(["build", "--quiet", "--package", "kcap", "--bin", "kcap"]))?;
            sh::target().join("debug/kcap")
        }
    };
    setup::ensure(&[Need::Corpus])?;
    let lab = Kaniko::open()?;
    let recorded = subjects.iter().enumerate().try_for_each(|(at, subject)| {
        eprintln!(
            "captures: {} of {}: {}",
            at + 1,
            subjects.len(),
            subject.name
        );
        record(&lab, &kcap, subject).with_context(|| subject.name.clone())
    });
    lab.close()?;
    recorded
}

fn record(lab: &Kaniko, kcap: &Path, subject: &Subject) -> Result<()> {
    let scratch = lab.folder()?;
    let recipe = subject.recipe(&scratch.path().join("context"))?;
    let prepared = lab.prepare(&recipe, subject.start)?;
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
    let as_expected = match subject.expect {
        Expect::Success => output.status.code() == Some(0),
        // 3 is a success of which something was lost, and 125 a failure of kcap's own.
        Expect::Fail => !matches!(output.status.code(), Some(0 | 3 | 125) | None),
    };
    if !as_expected {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        bail!(
            "the build ended with {}: {}",
            output.status,
            last.into_iter().rev().collect::<Vec<_>>().join(" / ")
        );
    }
    // A file of its own mode: kcap's is for its owner only, and git keeps no such thing.
    fs::write(subject.capture(), fs::read(&capture)?)
        .with_context(|| format!("cannot write {}", subject.capture().display()))
}

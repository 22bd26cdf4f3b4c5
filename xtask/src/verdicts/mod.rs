//! `cargo xtask verdicts`: how right kcap's verdicts are. Interprets what was recorded of each
//! Dockerfile of the corpus, one run each, and holds it against what replays found it to need
//! (`cargo xtask truth`, which knows nothing of kcap). Needs neither root nor Kaniko.

mod measure;
mod page;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kcap::{capture, interpret};

use crate::corpus;
use crate::sh::{self, Exit};
use crate::truth::record::Truth;
use measure::Measured;

/// What `cargo xtask verdicts` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write docs/verdicts.md
    #[arg(long)]
    write: bool,
    /// Another folder of Dockerfiles, with captures and truths, than the workspace's corpus
    #[arg(long, value_name = "FOLDER", conflicts_with = "write")]
    corpus: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// [`Exit`] 1 where a need is left out. Any other error where something cannot be read.
pub fn run(args: &Args) -> Result<()> {
    let folder = match &args.corpus {
        Some(folder) => folder.clone(),
        None => sh::workspace().join("corpus"),
    };
    let measured = measure(&folder)?;
    let text = page::page(&measured);
    if args.write {
        let path = sh::workspace().join("docs/verdicts.md");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("verdicts: wrote {}", path.display());
    } else {
        print!("{text}");
    }
    let missed: Vec<String> = (measured.iter())
        .flat_map(|one| {
            one.missed
                .iter()
                .map(|what| format!("{}: {what}", one.name))
        })
        .collect();
    if missed.is_empty() {
        return Ok(());
    }
    eprintln!("verdicts: left out although needed: {}", missed.join(", "));
    Err(Exit(1).into())
}

/// Interprets every capture of a corpus, and holds it against its truth.
fn measure(folder: &Path) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for subject in corpus::subjects(folder, &[])? {
        let name = &subject.name;
        let missing = |what: &str, task: &str| {
            format!("{name}: cannot read its {what}: run `cargo xtask {task} {name}`")
        };
        let file = File::open(subject.capture()).with_context(|| missing("capture", "captures"))?;
        let capture = capture::read(file).with_context(|| name.clone())?;
        let truth = fs::read(subject.truth()).with_context(|| missing("truth", "truth"))?;
        let truth: Truth = serde_json::from_slice(&truth).with_context(|| name.clone())?;
        measured.push(Measured::of(name, &interpret::interpret(&capture), &truth));
    }
    ensure!(
        !measured.is_empty(),
        "{} has no Dockerfiles",
        folder.display()
    );
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_captures_say() {
        let measured = measure(&sh::workspace().join("corpus")).unwrap();
        let written = fs::read_to_string(sh::workspace().join("docs/verdicts.md")).unwrap();
        assert!(
            written == page::page(&measured),
            "docs/verdicts.md is old: run `cargo xtask verdicts --write`"
        );
    }
}

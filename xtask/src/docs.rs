//! `cargo xtask docs`: the man pages, completions and JSON Schemas below `docs/`, which kcap generates
//! from its own definitions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::sh::{self, Exit};

/// What is generated, below `docs/`.
const FOLDERS: [&str; 3] = ["man", "completions", "schemas"];

/// What `cargo xtask docs` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write them, and remove what is no longer generated
    #[arg(long)]
    write: bool,
}

/// Holds the files against what kcap generates, or writes them.
///
/// # Errors
/// [`Exit`] 1 where they differ and are not to be written. Any other error where kcap cannot be built
/// or a file not be read or written.
pub fn run(args: &Args) -> Result<()> {
    let docs = sh::workspace().join("docs");
    let new = tempfile::tempdir()?;
    // Not by the library: this program has one without what traces.
    let kcap = [
        "run",
        "--quiet",
        "--package",
        "kcap",
        "--",
        "generate",
        "all",
    ];
    sh::run(sh::cargo().args(kcap).arg(new.path()))?;
    let mut stale = Vec::new();
    for folder in FOLDERS {
        let (old, new) = (docs.join(folder), new.path().join(folder));
        let names: BTreeSet<PathBuf> = files(&old)?.union(&files(&new)?).cloned().collect();
        for name in names {
            let (old, new) = (old.join(&name), new.join(&name));
            let text = fs::read(&new).ok();
            if fs::read(&old).ok() == text {
                continue;
            }
            stale.push(old.clone());
            match text {
                _ if !args.write => continue,
                Some(text) => {
                    fs::create_dir_all(docs.join(folder)).and_then(|()| fs::write(&old, text))
                }
                None => fs::remove_file(&old),
            }
            .with_context(|| format!("cannot write {}", old.display()))?;
        }
    }
    let what = if args.write { "wrote" } else { "stale" };
    for path in &stale {
        eprintln!("docs: {what} {}", path.display());
    }
    if stale.is_empty() || args.write {
        return Ok(());
    }
    eprintln!("docs: run `cargo xtask docs --write`");
    Err(Exit(1).into())
}

/// The names of a folder's files; none where it is not there.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut names = BTreeSet::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            names.insert(PathBuf::from(entry?.file_name()));
        }
    }
    Ok(names)
}

//! `cargo xtask bpf`: makes the committed BPF object and its note, or checks them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use crate::sh::{self, Exit};

#[allow(dead_code, reason = "the rest is for kcap's build script")]
#[path = "../../kcap/build/object.rs"]
pub mod object;
#[path = "../../kcap/build/strip.rs"]
mod strip;
#[allow(dead_code, reason = "the rest is for kcap's build script")]
#[path = "../../kcap/build/toolchain.rs"]
pub mod toolchain;

use object::Note;

/// What `cargo xtask bpf` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Change nothing: exit 1 where the committed object is stale or cannot be reproduced
    #[arg(long)]
    check: bool,
}

/// Makes or checks the object.
///
/// # Errors
/// Where there is no toolchain, the sources do not compile, or, with `--check`, the committed
/// object is not what the sources give.
pub fn run(args: &Args) -> Result<()> {
    if args.check {
        return check().and_then(|outcome| match outcome {
            Outcome::Reproduced(what) | Outcome::Fresh(what) => {
                println!("{what}");
                Ok(())
            }
            Outcome::Stale(why) => {
                eprintln!("{why}");
                Err(Exit(1).into())
            }
        });
    }
    let note = build()?;
    println!("{}  {}\n{}", note.object, object::OBJECT, note.toolchain);
    Ok(())
}

fn package() -> PathBuf {
    sh::workspace().join("kcap")
}

fn sources() -> Result<String> {
    object::sources(&sh::workspace(), &toolchain::FLAGS)
        .context("cannot read the BPF sources")?
        .context("no BPF sources: kcap-ebpf/src is not there; take a complete copy of kcap")
}

fn toolchain() -> Result<toolchain::Toolchain> {
    toolchain::discover().context(
        "no BPF toolchain: run `cargo xtask setup --for bpf` (Debian, Ubuntu), or install \
         rustup's nightly with rust-src, and `cargo install bpf-linker`",
    )
}

fn compile(found: &toolchain::Toolchain, folder: &str) -> Result<Vec<u8>> {
    found
        .compile(&sh::workspace(), &sh::target().join(folder))
        .map_err(|why| anyhow!(why))
}

/// Compiles, writes object and note, and returns the note.
fn build() -> Result<Note> {
    let found = toolchain()?;
    let bytes = compile(&found, "bpf")?;
    let note = Note {
        sources: sources()?,
        object: object::sha256(&bytes),
        toolchain: found.id().map_err(|why| anyhow!(why))?,
    };
    let package = package();
    fs::create_dir_all(package.join("bpf")).context("cannot make kcap/bpf")?;
    for (name, bytes) in [
        (object::OBJECT, bytes.as_slice()),
        (object::NOTE, note.render().as_bytes()),
    ] {
        // Unchanged files keep their time, so that cargo builds nothing anew.
        let path = package.join(name);
        if fs::read(&path).ok().as_deref() != Some(bytes) {
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(note)
}

/// What a check found.
pub enum Outcome {
    /// Fresh, and made again byte for byte.
    Reproduced(String),
    /// Fresh by its hash; the toolchain that made it is not here.
    Fresh(String),
    /// Not what the sources give.
    Stale(String),
}

/// Compares the committed object with its note and its sources and, where the toolchain that made
/// it is here, with a build of now.
///
/// # Errors
/// Where something cannot be read, or does not compile.
pub fn check() -> Result<Outcome> {
    let stale = |why: &str| {
        Ok(Outcome::Stale(format!(
            "kcap/{} {why}: run `cargo xtask bpf`",
            object::OBJECT
        )))
    };
    let package = package();
    let Ok(text) = fs::read_to_string(package.join(object::NOTE)) else {
        return stale("has no readable note beside it");
    };
    let Some(note) = Note::parse(&text) else {
        return stale("has a note beside it that lacks a key");
    };
    let Ok(bytes) = fs::read(package.join(object::OBJECT)) else {
        return stale("is missing");
    };
    if object::sha256(&bytes) != note.object {
        return stale("is not the object that its note describes");
    }
    if sources()? != note.sources {
        return stale("is older than the BPF sources");
    }
    let Some(found) = toolchain::discover() else {
        return Ok(Outcome::Fresh(
            "fresh by its hash; not rebuilt: no BPF toolchain here".into(),
        ));
    };
    let here = found.id().map_err(|why| anyhow!(why))?;
    if here != note.toolchain {
        return Ok(Outcome::Fresh(format!(
            "fresh by its hash; not rebuilt: made with {}, here is {here}",
            note.toolchain
        )));
    }
    // In another folder than that of the build: what comes from there shows nothing.
    if compile(&found, "bpf-check")? != bytes {
        return stale("differs from what the same toolchain makes of the same sources");
    }
    Ok(Outcome::Reproduced(format!(
        "fresh, and reproduced byte for byte with {here}"
    )))
}

/// Whether kcap can be built without a BPF toolchain: the committed object is fresh.
pub fn is_buildable() -> bool {
    let note = fs::read_to_string(package().join(object::NOTE))
        .ok()
        .and_then(|text| Note::parse(&text));
    note.is_some_and(|note| sources().is_ok_and(|sum| sum == note.sources))
}

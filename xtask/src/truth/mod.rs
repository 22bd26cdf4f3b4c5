//! `cargo xtask truth`: which capabilities each Dockerfile of the corpus needs, by replays of the
//! real Kaniko. What kcap thinks plays no part in it: kcap is measured against this.
//!
//! Docker's default set is the start. Each of its capabilities is left out once; where the build
//! then fails, or gives another image, it is needed. Then the needed ones alone must do.

mod image;
pub mod judge;
mod noise;
pub mod record;
pub mod search;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::corpus::{self, Subject};
use crate::lab::capabilities::Set;
use crate::lab::kaniko::{self, Kaniko};
use crate::lab::netns;
use crate::setup::{self, Need};
use crate::sh::{self, Exit};
use judge::Judge;
use record::{Environment, SCHEMA, Truth};

/// What `cargo xtask truth` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of the corpus; by default all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Dockerfiles worked on side by side
    #[arg(short = 'j', long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Find out whether what is written down still holds, and write nothing
    #[arg(long)]
    check: bool,
    /// Only where there is no truth yet, or an old one
    #[arg(long, conflicts_with = "check")]
    stale: bool,
    /// Another folder of Dockerfiles than the workspace's corpus
    #[arg(long, value_name = "FOLDER")]
    corpus: Option<std::path::PathBuf>,
}

/// Finds the truth, or checks it.
///
/// # Errors
/// [`Exit`] 1 where a Dockerfile has no truth, or another one than was written down. Any other
/// error where it cannot come to that.
pub fn run(args: &Args) -> Result<()> {
    if !sh::is_root() {
        bail!("containers need root: run `sudo -E env \"PATH=$PATH\" cargo xtask truth`");
    }
    if kaniko::executor().is_none() {
        bail!("no Kaniko executor: set KCAP_KANIKO_EXECUTOR to its path");
    }
    let folder = match &args.corpus {
        Some(folder) => folder.clone(),
        None => sh::workspace().join("corpus"),
    };
    let mut subjects = corpus::subjects(&folder, &args.names)?;
    if subjects.is_empty() {
        bail!("{} has no Dockerfiles", folder.display());
    }
    if args.stale {
        subjects.retain(|subject| !is_current(subject));
    }
    if subjects.is_empty() {
        say("nothing to do: all truths are current");
        return Ok(());
    }
    setup::ensure(&[Need::Corpus])?;
    // From here on there are containers to clean up.
    sh::outlive_signals();
    let kaniko = Kaniko::open()?;
    let total = subjects.len();
    let queue = Mutex::new(VecDeque::from(subjects));
    let failed = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..args.jobs.clamp(1, total.max(1)) {
            scope.spawn(|| {
                while let Some(subject) = next(&queue) {
                    // Another process may have been at it meanwhile.
                    if args.stale && is_current(&subject) {
                        continue;
                    }
                    let result = work(&kaniko, &subject, args.check);
                    if let (Err(why), false) = (result, sh::interrupted()) {
                        say(&format!("{:<28} FAILED: {why:#}", subject.name));
                        *failed.lock().unwrap_or_else(|e| e.into_inner()) += 1;
                    }
                }
            });
        }
    });
    kaniko.close()?;
    if sh::interrupted() {
        return Err(Exit(130).into());
    }
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        0 => Ok(()),
        failed => {
            say(&format!("{failed} of {total} failed"));
            Err(Exit(1).into())
        }
    }
}

fn next(queue: &Mutex<VecDeque<Subject>>) -> Option<Subject> {
    if sh::interrupted() {
        return None;
    }
    queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front()
}

/// Whether what is written down was found from what is there.
fn is_current(subject: &Subject) -> bool {
    let known = read(&subject.truth())
        .ok()
        .filter(|known| known.schema == SCHEMA);
    known.is_some_and(|known| subject.inputs().is_ok_and(|inputs| inputs == known.inputs))
}

fn say(line: &str) {
    // In one write, so that lines of several threads stay apart. Where there is nobody to read
    // it, the work goes on.
    let _ = std::io::stderr().write_all(format!("truth: {line}\n").as_bytes());
}

fn work(kaniko: &Kaniko, subject: &Subject, check: bool) -> Result<()> {
    let start = Instant::now();
    let known = if check {
        Some(read(&subject.truth())?)
    } else {
        None
    };
    let truth = find(kaniko, subject)?;
    if let Some(known) = known {
        let (was, is) = (known.essence(), truth.essence());
        let changes: Vec<String> = was
            .iter()
            .zip(&is)
            .filter(|(was, is)| was != is)
            .map(|(was, is)| format!("written down is `{was}`, found `{is}`"))
            .collect();
        if !changes.is_empty() {
            bail!("{}", changes.join("; "));
        }
    } else {
        write(&subject.truth(), &truth)?;
    }
    let names: Vec<&str> = truth
        .needed
        .iter()
        .map(|need| need.capability.as_str())
        .collect();
    let needs = if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(" ")
    };
    let groups: String = truth
        .any_of
        .iter()
        .map(|group| format!(" {}", group.join("|")))
        .collect();
    say(&format!(
        "{:<28} {needs}{groups} ({} builds, {:.1} s)",
        subject.name,
        truth.builds,
        start.elapsed().as_secs_f64()
    ));
    for note in &truth.notes {
        say(&format!("{:<28} note: {note}", subject.name));
    }
    Ok(())
}

fn find(kaniko: &Kaniko, subject: &Subject) -> Result<Truth> {
    let folder = kaniko.folder()?;
    // Before the copy: should somebody write to the folder now, it is an old truth at once.
    let inputs = subject.inputs()?;
    let recipe = subject.recipe(&folder.path().join("context"))?;
    let bases = bases(kaniko, &recipe.dockerfile)?;
    let mut judge = Judge::new(kaniko, recipe, subject.expect, subject.start)?;
    let found = search::search(subject.start, |set: Set| judge.judge(set))?;
    let mut notes = subject.notes.clone();
    notes.append(&mut judge.notes);
    let mut truth = Truth {
        schema: SCHEMA.into(),
        inputs,
        executor: kaniko.version().into(),
        bases,
        environment: Environment {
            seccomp: "none".into(),
            network: "loopback only".into(),
            ip_unprivileged_port_start: netns::UNPRIVILEGED_PORT,
            ping_group_range: netns::PING_GROUPS.into(),
        },
        expect: subject.expect,
        start: Vec::new(),
        needed: Vec::new(),
        unneeded: Vec::new(),
        any_of: Vec::new(),
        sufficient: Vec::new(),
        spare: Vec::new(),
        reference: judge.reference(),
        builds: judge.builds(),
        notes,
    };
    truth.record(subject.start, found);
    Ok(truth)
}

/// The base images that a Dockerfile names, with their digests.
fn bases(kaniko: &Kaniko, dockerfile: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(dockerfile)
        .with_context(|| format!("cannot read {}", dockerfile.display()))?;
    // The repository alone, since the tag may be an ARG's.
    let repository = |name: &str| name.split(':').next().map(str::to_owned);
    let is_named = |name: &str| repository(name).is_some_and(|name| text.contains(&name));
    let named = kaniko.digests().iter().filter(|(name, _)| is_named(name));
    Ok(named
        .map(|(name, digest)| (name.clone(), digest.clone()))
        .collect())
}

fn read(path: &Path) -> Result<Truth> {
    let text = fs::read(path)
        .with_context(|| format!("cannot read {}: run `cargo xtask truth`", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no truth", path.display()))
}

fn write(path: &Path, truth: &Truth) -> Result<()> {
    let mut text = serde_json::to_string_pretty(truth)?;
    text.push('\n');
    // What is there is always complete.
    let folder = path.parent().unwrap_or(Path::new("/"));
    let place = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(place)?;
    file.write_all(text.as_bytes()).with_context(place)?;
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(mode).with_context(place)?;
    file.persist(path).with_context(place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_truths_are_of_what_is_there() {
        let subjects = corpus::subjects(&sh::workspace().join("corpus"), &[]).unwrap();
        for subject in subjects.iter().filter(|subject| subject.truth().exists()) {
            let truth = read(&subject.truth()).unwrap();
            assert_eq!(
                truth.inputs,
                subject.inputs().unwrap(),
                "{0} has changed since its truth was found: run `cargo xtask truth {0}`",
                subject.name
            );
        }
    }
}

//! `cargo xtask kernels`: whether kcap says the same on other kernels, by other hooks, and where a
//! build was given more or less. Builds Dockerfiles of the corpus with the real Kaniko here and in
//! virtual machines, and writes what the reports say into `corpus/runs.jsonl` and docs/kernels.md.

mod compare;
mod guest;
mod here;
mod page;
mod plan;
mod reasons;
mod row;

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kcap::{capture, interpret};

use crate::corpus::{self, Subject};
use crate::lab::kaniko::{self, Kaniko};
use crate::setup::{self, Need};
use crate::sh;
use crate::truth::record::Truth;
use compare::Needs;
use plan::{Place, Run};
use row::Row;

/// What reports say, a build a line.
const DATA: &str = "corpus/runs.jsonl";
/// What they come to.
const PAGE: &str = "docs/kernels.md";

/// What `cargo xtask kernels` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of the corpus; by default all, and in guests a selection
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Which builds to make: all, none or five (capabilities), 6.1-voluntary, 6.12-full, …
    #[arg(long = "run", value_name = "RUN", value_parser = named)]
    runs: Vec<Run>,
    /// Build nothing that an earlier call has left a capture of
    #[arg(long)]
    keep: bool,
    /// Write corpus/runs.jsonl and docs/kernels.md
    #[arg(long)]
    write: bool,
}

fn named(name: &str) -> Result<Run, String> {
    plan::run(name).ok_or_else(|| "there is no such run".to_owned())
}

/// Measures.
///
/// # Errors
/// Where a build cannot be made or traced.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        sh::is_root(),
        "tracing needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask kernels`"
    );
    ensure!(
        kaniko::executor().is_some(),
        "no Kaniko executor: set KCAP_KANIKO_EXECUTOR to its path"
    );
    setup::ensure(&[Need::Corpus, Need::Test])?;
    let subjects = corpus::subjects(&sh::workspace().join("corpus"), &args.names)?;
    let runs = if args.runs.is_empty() {
        plan::RUNS.to_vec()
    } else {
        args.runs.clone()
    };
    let missing = |run: &Run| !(wanted(args, *run, &subjects).is_empty());
    if runs.iter().any(missing) {
        let lab = Kaniko::open()?;
        for run in &runs {
            record(&lab, args, *run, &subjects).with_context(|| run.to_string())?;
        }
        lab.close()?;
    }
    let data = sh::workspace().join(DATA);
    let mut rows = row::read(&data)?;
    for run in &runs {
        for subject in &subjects {
            let path = if *run == plan::BASE {
                subject.capture()
            } else {
                place(*run, subject)
            };
            if let Ok(file) = File::open(&path) {
                let said = || format!("{}: run it again without --keep", path.display());
                let capture = capture::read(file).with_context(said)?;
                let report = interpret::interpret(&capture);
                ensure!(
                    report.subject.executor.is_some(),
                    "{}: no executor was seen: the container did not start",
                    path.display()
                );
                let row = Row::of(run.name, &subject.name, &report);
                rows.insert((row.run.clone(), row.name.clone()), row);
            }
        }
    }
    let page = page::page(&rows, &needs()?);
    if !args.write {
        print!("{page}");
        return Ok(());
    }
    for (path, text) in [(DATA, row::text(&rows)?), (PAGE, page)] {
        let path = sh::workspace().join(path);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("kernels: wrote {}", path.display());
    }
    Ok(())
}

/// What replays found each Dockerfile of the corpus to need.
fn needs() -> Result<Needs> {
    let mut all = Needs::new();
    for subject in corpus::subjects(&sh::workspace().join("corpus"), &[])? {
        let truth = fs::read(subject.truth())
            .with_context(|| format!("{}: cannot read its truth", subject.name))?;
        let truth: Truth = serde_json::from_slice(&truth).with_context(|| subject.name.clone())?;
        let single = truth.needed.into_iter().map(|need| vec![need.capability]);
        all.insert(subject.name, single.chain(truth.any_of).collect());
    }
    Ok(all)
}

/// Where a capture is kept.
fn place(run: Run, subject: &Subject) -> PathBuf {
    let name = format!("{}.kcap", subject.name);
    sh::target().join("kernels").join(run.name).join(name)
}

/// What a run is still to build.
fn wanted<'a>(args: &Args, run: Run, subjects: &'a [Subject]) -> Vec<&'a Subject> {
    if run == plan::BASE {
        return Vec::new();
    }
    let in_guest = |subject: &&Subject| !args.names.is_empty() || plan::is_for_guests(subject);
    (subjects.iter())
        .filter(|subject| run.place == Place::Here || in_guest(subject))
        .filter(|subject| !args.keep || !place(run, subject).exists())
        .collect()
}

fn record(lab: &Kaniko, args: &Args, run: Run, subjects: &[Subject]) -> Result<()> {
    let wanted = wanted(args, run, subjects);
    if wanted.is_empty() {
        return Ok(());
    }
    let folder = sh::target().join("kernels").join(run.name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kcap = sh::static_kcap()?;
    match run.place {
        Place::Here => {
            for (at, subject) in wanted.iter().enumerate() {
                eprintln!(
                    "kernels: {run}: {} of {}: {}",
                    at + 1,
                    wanted.len(),
                    subject.name
                );
                let capture = here::record(lab, &kcap, subject, run.given)
                    .with_context(|| subject.name.clone())?;
                fs::write(place(run, subject), capture)?;
            }
        }
        Place::Guest(guest) => {
            let disk = guest::Disk::make(lab, &kcap, &wanted)?;
            disk.record(guest, |name, capture| {
                let subject = wanted.iter().find(|subject| subject.name == name);
                let subject = subject.with_context(|| format!("{name} was not asked for"))?;
                Ok(fs::write(place(run, subject), capture)?)
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> row::Rows {
        row::read(&sh::workspace().join(DATA)).unwrap()
    }

    #[test]
    fn the_page_is_what_the_data_say() {
        let written = fs::read_to_string(sh::workspace().join(PAGE)).unwrap();
        let page = page::page(&committed(), &needs().unwrap());
        assert!(
            written == page,
            "docs/kernels.md is old: run `cargo xtask kernels --keep --write`"
        );
    }

    #[test]
    fn every_difference_has_a_reason() {
        let page = page::page(&committed(), &needs().unwrap());
        let open = page.lines().find(|line| line.contains(page::UNEXPLAINED));
        assert_eq!(open, None);
    }

    /// What the others are held against is what kcap says today.
    #[test]
    fn the_base_is_what_the_captures_say() {
        let corpus = sh::workspace().join("corpus");
        let base = (committed().into_values()).filter(|row| row.run == plan::BASE.name);
        let mut seen = 0;
        for row in base {
            let subject = &corpus::subjects(&corpus, std::slice::from_ref(&row.name)).unwrap()[0];
            let capture = capture::read(File::open(subject.capture()).unwrap()).unwrap();
            let today = Row::of(&row.run, &row.name, &interpret::interpret(&capture));
            assert_eq!(
                (&today.required, &today.unsure),
                (&row.required, &row.unsure),
                "{}: corpus/runs.jsonl is old: run `cargo xtask kernels --write`",
                row.name
            );
            seen += 1;
        }
        assert!(seen > 0);
    }

    #[test]
    fn every_run_was_measured() {
        let rows = committed();
        for run in plan::RUNS {
            assert!(!compare::of(&rows, run.name).is_empty(), "{run}");
        }
    }
}

//! `cargo xtask proofs`: what `kcap prove` makes of the corpus with the real Kaniko, held against what
//! other replays, compared by another program, found each Dockerfile to need (`cargo xtask truth`).
//!
//! In a network namespace like those builds'; where a set is not the one that was found then, the truth's
//! own judge builds with it, and without each of its members.

mod page;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use kcap::report::{Cap, Report};
use serde::{Deserialize, Serialize};

use crate::corpus::{self, Expect, Subject};
use crate::lab::capabilities::Set;
use crate::lab::kaniko::{self, Kaniko};
use crate::lab::netns::{self, Namespace};
use crate::setup::{self, Need};
use crate::sh::{self, Exit};
use crate::truth::judge::Judge;
use crate::truth::record::Truth;
use crate::truth::search::Verdict;

/// What `cargo xtask proofs` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of the corpus; by default all in which a build succeeds
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The kcap to prove with; a build of this copy otherwise
    #[arg(long, value_name = "FILE")]
    kcap: Option<PathBuf>,
    /// Prove nothing: write docs/proofs.md from corpus/proofs.jsonl
    #[arg(long, conflicts_with_all = ["names", "kcap"])]
    page: bool,
    /// Write corpus/proofs.jsonl, anew for those that are proved now, and docs/proofs.md
    #[arg(long)]
    write: bool,
}

/// What one proof came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The folder's name.
    name: String,
    /// How far it came.
    state: String,
    /// What was proved.
    proved: Vec<String>,
    /// Whether it is the set that the truth found, or else whether its judge agrees: empty where it does,
    /// else what is wrong.
    wrong: Vec<String>,
    /// It is another minimal set than the truth's.
    another: bool,
    /// What one traced run required, unsure ones included.
    members: Vec<String>,
    /// What the run was not sure of.
    unsure: Vec<String>,
    /// What was known to be needed after the one replay with what the trace is sure of.
    after_one: Vec<String>,
    /// Whether that replay gave the same image.
    sure_does: bool,
    /// Builds made.
    builds: u32,
    /// Wall time of the whole proof, in seconds.
    seconds: f64,
    /// What sixteen builds with the starting set would take, one after the other, each with what a build
    /// of the proof costs beside itself.
    sweep: f64,
}

/// Proves.
///
/// # Errors
/// [`Exit`] 1 where a proof is wrong. Any other error where it cannot come to that.
pub fn run(args: &Args) -> Result<()> {
    let (data, shown) = (
        sh::workspace().join("corpus/proofs.jsonl"),
        sh::workspace().join("docs/proofs.md"),
    );
    let mut rows = read(&data)?;
    if args.page {
        fs::write(&shown, page::page(&rows)).context("cannot write docs/proofs.md")?;
        return Ok(());
    }
    ensure!(
        sh::is_root(),
        "tracing needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask proofs`"
    );
    ensure!(
        kaniko::executor().is_some(),
        "no Kaniko executor: set KCAP_KANIKO_EXECUTOR to its path"
    );
    let mut subjects = corpus::subjects(&sh::workspace().join("corpus"), &args.names)?;
    subjects.retain(|subject| subject.expect == Expect::Success);
    let kcap = match &args.kcap {
        Some(path) => path.clone(),
        None => {
            sh::run(sh::cargo().args(["build", "--quiet", "--release", "--package", "kcap"]))?;
            sh::target().join("release/kcap")
        }
    };
    setup::ensure(&[Need::Corpus])?;
    sh::outlive_signals();
    let lab = Kaniko::open()?;
    let cache = lab.folder()?;
    let mut wrong = 0;
    for (at, subject) in subjects.iter().enumerate() {
        if sh::interrupted() {
            break;
        }
        let row = match prove(&lab, &kcap, subject, cache.path()) {
            Ok(row) => row,
            Err(why) => {
                wrong += 1;
                eprintln!("proofs: {}: FAILED: {why:#}", subject.name);
                continue;
            }
        };
        wrong += usize::from(!row.wrong.is_empty());
        eprintln!(
            "proofs: {} of {}: {}: {} {} ({} builds, {:.1} s, {:.2} of a sweep){}",
            at + 1,
            subjects.len(),
            row.name,
            row.state,
            row.proved.join(" "),
            row.builds,
            row.seconds,
            row.seconds / row.sweep,
            if row.wrong.is_empty() {
                String::new()
            } else {
                format!(" WRONG: {}", row.wrong.join("; "))
            }
        );
        rows.retain(|known| known.name != row.name);
        rows.push(row);
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        if args.write {
            write(&data, &rows)?;
        }
    }
    drop(cache);
    lab.close()?;
    if args.write {
        fs::write(&shown, page::page(&rows)).context("cannot write docs/proofs.md")?;
    } else {
        print!("{}", page::page(&rows));
    }
    if wrong > 0 {
        eprintln!("proofs: {wrong} are wrong or failed");
        return Err(Exit(1).into());
    }
    Ok(())
}

fn prove(lab: &Kaniko, kcap: &Path, subject: &Subject, cache: &Path) -> Result<Row> {
    let scratch = lab.folder()?;
    let recipe = subject.recipe(&scratch.path().join("context"))?;
    let network = Namespace::new(lab.registry())?;
    let (report, capture) = (
        scratch.path().join("report"),
        scratch.path().join("capture"),
    );
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", network.path().display()))
        .arg(kcap)
        .args([
            "prove",
            "--quiet",
            "--engine",
            "oci",
            "--seccomp",
            "none",
            "--fresh",
        ])
        .arg("--executor")
        .arg(lab.executor())
        .arg("-f")
        .arg(&recipe.dockerfile)
        .arg("-c")
        .arg(&recipe.context)
        .arg("--report")
        .arg(&report)
        .arg("--capture")
        .arg(&capture);
    for number in subject.start.iter() {
        if !Set::DOCKER_DEFAULT.has(number) {
            command.arg(format!("--cap-add={number}"));
        }
    }
    for variable in &recipe.variables {
        command.arg("--env").arg(variable);
    }
    command
        .arg("--")
        .arg(format!(
            "--registry-map=index.docker.io={}",
            netns::REGISTRY
        ))
        .args(["--insecure", "--insecure-pull"])
        .args(&recipe.flags)
        .env("XDG_CACHE_HOME", cache)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let output = command.output().context("cannot run kcap")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let text = fs::read(&report).with_context(|| format!("kcap wrote no report: {said}"))?;
    let report = kcap::report::from_json(&text).context("its report is none")?;
    let capture = fs::File::open(&capture).context("kcap wrote no capture")?;
    let observed =
        kcap::interpret::interpret(&kcap::capture::read(std::io::BufReader::new(capture))?);
    let mut row = row(subject, &report, &observed)?;
    if row.state == "proved" {
        check(lab, subject, &mut row)?;
    } else {
        row.wrong = vec![format!("not proved: {said}")];
    }
    Ok(row)
}

fn row(subject: &Subject, report: &Report, observed: &Report) -> Result<Row> {
    let Some(proof) = &report.proof else {
        bail!("there is no proof in its report");
    };
    let names = |caps: &[Cap]| caps.iter().map(Cap::to_string).collect::<Vec<_>>();
    let sure = report.trials.iter().find(|trial| trial.purpose == "sure");
    let grown = report.trials.iter().find(|trial| trial.purpose == "grow");
    let sure_does = sure.is_none_or(|trial| trial.outcome == "same");
    let after_one = match (sure, grown) {
        (Some(_), Some(grown)) if !sure_does => &grown.set,
        (Some(sure), _) => &sure.set,
        // It is the starting set, which the first builds had.
        (None, _) => &report.subject.capabilities,
    };
    let references = report
        .trials
        .iter()
        .filter(|trial| trial.purpose == "reference");
    let times: Vec<f64> = references.map(|trial| trial.seconds).collect();
    let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
    let beside = (proof.seconds - proof.build_seconds).max(0.0) / f64::from(proof.builds.max(1));
    Ok(Row {
        name: subject.name.clone(),
        state: proof.state.to_string(),
        proved: names(&report.required),
        wrong: vec![],
        another: false,
        members: names(&observed.required),
        unsure: names(&observed.unsure),
        after_one: names(after_one),
        sure_does,
        builds: proof.builds,
        seconds: proof.seconds,
        sweep: ((mean + beside) * 16.0 * 1000.0).round() / 1000.0,
    })
}

/// Holds a proved set against the truth.
fn check(lab: &Kaniko, subject: &Subject, row: &mut Row) -> Result<()> {
    let text = fs::read(subject.truth()).context("cannot read its truth")?;
    let truth: Truth = serde_json::from_slice(&text).context("its truth is none")?;
    let mut known = truth.sufficient.clone();
    let mut proved = row.proved.clone();
    known.sort();
    proved.sort();
    if known == proved {
        return Ok(());
    }
    row.another = true;
    let numbers = |name: &String| -> Result<usize> {
        let cap: Cap = name.parse().map_err(|e| anyhow::anyhow!("{name}: {e}"))?;
        Ok(cap.0.into())
    };
    let set: Set = row.proved.iter().map(numbers).collect::<Result<_>>()?;
    let scratch = lab.folder()?;
    let recipe = subject.recipe(&scratch.path().join("context"))?;
    let mut judge = Judge::new(lab, recipe, subject.expect, subject.start)?;
    if judge.judge(set)? != Verdict::Same {
        row.wrong.push("the set is not enough".into());
    }
    for number in set.iter() {
        if judge.judge(set.without(number))? == Verdict::Same {
            row.wrong
                .push(format!("{} is not needed", Cap(number as u8)));
        }
    }
    Ok(())
}

fn read(data: &Path) -> Result<Vec<Row>> {
    let text = match fs::read_to_string(data) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", data.display())),
    };
    text.lines()
        .map(|line| serde_json::from_str(line).context("a line of corpus/proofs.jsonl is no row"))
        .collect()
}

fn write(data: &Path, rows: &[Row]) -> Result<()> {
    let mut text = vec![];
    for row in rows {
        serde_json::to_writer(&mut text, row)?;
        writeln!(text)?;
    }
    fs::write(data, text).with_context(|| format!("cannot write {}", data.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_of_the_data() {
        let rows = read(&sh::workspace().join("corpus/proofs.jsonl")).unwrap();
        let page = fs::read_to_string(sh::workspace().join("docs/proofs.md")).unwrap();
        assert!(
            page == page::page(&rows),
            "run `cargo xtask proofs --page` and commit docs/proofs.md"
        );
        for row in &rows {
            assert!(row.wrong.is_empty(), "{}: {:?}", row.name, row.wrong);
        }
    }
}

//! How long `kcap report` takes for thousands of reports, and how much memory; and how long others
//! take to read the same bytes: `sha256sum`, which looks at each once, and a JSON parser.
//!
//! The reports are those of the corpus' captures, each many times: of other Dockerfiles, on other days.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{io, path::PathBuf, thread};

use anyhow::{Context, Result, ensure};
use kcap::capture;
use kcap::interpret::interpret;
use kcap::render::{self, Format, Style};
use kcap::report::Report;
use tempfile::TempDir;

use super::setups::reap;
use super::stats::Spread;
use crate::corpus;
use crate::sh::{self, Exit};

/// Seconds that the goal allows for the whole.
const SECONDS: f64 = 2.0;
/// Memory that the goal allows, in kB.
const MEMORY: i64 = 200 << 10;
/// Folders that they are in.
const TEAMS: usize = 97;
/// One in so many is another run of a Dockerfile.
const AGAIN: usize = 5;
/// What a run of reading alone is called on the command line.
const PARSE: &str = "--parse";

/// What `cargo xtask bench report` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Reports
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    reports: usize,
    /// Rounds, in each of which everything is run once
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The kcap to measure; a release build of this copy otherwise
    #[arg(long, value_name = "FILE")]
    kcap: Option<PathBuf>,
    /// Write the figures to docs/benchmarks-report.md as well
    #[arg(long)]
    write: bool,
    /// Exit 1 where it takes more memory than 200 MiB
    #[arg(long)]
    gate: bool,
    /// Be the JSON parser, for the files of this folder
    #[arg(long, value_name = "DIR", hide = true)]
    parse: Option<PathBuf>,
}

/// Something that is run over the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Table,
    Json,
    Profiles,
    Check,
    Sums,
    Parser,
}

const ALL: [Run; 6] = [
    Run::Table,
    Run::Json,
    Run::Profiles,
    Run::Check,
    Run::Sums,
    Run::Parser,
];

impl Run {
    fn name(self) -> &'static str {
        match self {
            Self::Table => "`kcap report DIR`",
            Self::Json => "`kcap report DIR --format json`",
            Self::Profiles => "`kcap report DIR --profiles 3`",
            Self::Check => "`kcap check --policy docker-default DIR`",
            Self::Sums => "`sha256sum`, a process a CPU",
            Self::Parser => "serde_json to values, a thread a CPU",
        }
    }

    fn is_kcap(self) -> bool {
        !matches!(self, Self::Sums | Self::Parser)
    }

    fn command(self, kcap: &Path, reports: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Sums => {
                let cpus = thread::available_parallelism().map_or(1, usize::from);
                let mut command = Command::new("sh");
                let script = "find \"$1\" -type f -print0 | xargs -0 -n 500 -P \"$2\" sha256sum";
                command.args(["-c", script, "sh"]).arg(reports);
                command.arg(cpus.to_string());
                command
            }
            Self::Parser => {
                let xtask = std::env::current_exe().context("cannot find cargo xtask itself")?;
                let mut command = Command::new(xtask);
                command.args(["bench", "report", PARSE]).arg(reports);
                command
            }
            _ => Command::new(kcap),
        };
        match self {
            Self::Table => command.arg("report").arg(reports),
            Self::Json => command.args(["report", "--format", "json"]).arg(reports),
            Self::Profiles => command.args(["report", "--profiles", "3"]).arg(reports),
            Self::Check => command
                .args(["check", "--policy", "docker-default"])
                .arg(reports),
            Self::Sums | Self::Parser => &mut command,
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }
}

/// Measures, and prints what was found.
///
/// # Errors
/// Where the reports cannot be made or read, or with `--gate`, the limit is exceeded.
pub fn run(args: &Args) -> Result<()> {
    if let Some(folder) = &args.parse {
        return parse(folder);
    }
    let kcap = match &args.kcap {
        Some(path) => path.clone(),
        None => super::release()?,
    };
    let dir = TempDir::new().context("cannot make a folder")?;
    let bytes = reports(dir.path(), args.reports)?;
    let mut times: Vec<Vec<f64>> = vec![vec![]; ALL.len()];
    let mut memory = vec![0i64; ALL.len()];
    for round in 0..usize::from(args.rounds) {
        for step in 0..ALL.len() {
            let at = (round + step) % ALL.len();
            let mut command = ALL[at].command(&kcap, dir.path())?;
            let started = Instant::now();
            let child = command
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot run `{}`", sh::shown(&command)))?;
            let (status, most) = reap(&child)?;
            times[at].push(started.elapsed().as_secs_f64());
            memory[at] = memory[at].max(most);
            // What a policy does not allow is an answer.
            let answered = status.success() || (ALL[at] == Run::Check && status.code() == Some(1));
            ensure!(answered, "`{}` fails: {status}", sh::shown(&command));
        }
    }
    let text = markdown(args, bytes, &times, &memory)?;
    print!("{text}");
    if args.write {
        let path = sh::workspace().join("docs/benchmarks-report.md");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let most = (ALL.iter().zip(&memory))
        .filter(|(run, _)| run.is_kcap())
        .map(|(_, most)| *most);
    if args.gate && most.max() > Some(MEMORY) {
        eprintln!("xtask: kcap takes more memory than {} MiB", MEMORY >> 10);
        return Err(Exit(1).into());
    }
    Ok(())
}

/// Writes reports; gives their bytes.
fn reports(to: &Path, count: usize) -> Result<u64> {
    let subjects = corpus::subjects(&sh::workspace().join("corpus"), &[])?;
    let mut all: Vec<Report> = Vec::new();
    for subject in &subjects {
        let file = File::open(subject.capture())
            .with_context(|| format!("{}: no capture", subject.name))?;
        let report = interpret(&capture::read(file)?);
        // Those in which something was lost are refused.
        if report.complete {
            all.push(report);
        }
    }
    ensure!(!all.is_empty(), "the corpus has no captures");
    let mut bytes = 0;
    for number in 0..count {
        let mut report = all[number % all.len()].clone();
        // The one that had this build before.
        let dockerfile = match number.checked_sub(all.len()) {
            Some(before) if number % AGAIN == 0 => before,
            _ => number,
        };
        let folder = to.join(format!("team-{}", number % TEAMS));
        fs::create_dir_all(&folder).context("cannot make a folder")?;
        let name = format!("team-{}/{dockerfile}/Dockerfile", dockerfile % TEAMS);
        report.subject.dockerfile = Some(name);
        report.subject.dockerfile_sha256 = Some(format!("{dockerfile:064x}"));
        report.subject.started = format!("2026-11-{:02}T12:00:00.000Z", 1 + number % 28);
        let path = folder.join(format!("{number}.json"));
        let mut file = io::BufWriter::new(File::create(&path)?);
        render::write(&report, Format::Json, Style::default(), &mut file)?;
        io::Write::flush(&mut file)?;
        bytes += file.get_ref().metadata()?.len();
    }
    Ok(bytes)
}

/// Reads every file of a folder of folders to JSON values, and drops them.
fn parse(folder: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in fs::read_dir(folder)? {
        for file in fs::read_dir(folder?.path())? {
            files.push(file?.path());
        }
    }
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let parts = files.chunks(files.len().div_ceil(cpus).max(1));
    thread::scope(|scope| {
        let parts: Vec<_> = parts
            .map(|files| {
                scope.spawn(move || -> Result<()> {
                    for file in files {
                        let _: serde_json::Value = serde_json::from_slice(&fs::read(file)?)?;
                    }
                    Ok(())
                })
            })
            .collect();
        for part in parts {
            part.join().expect("it returns errors")?;
        }
        Ok(())
    })
}

fn markdown(args: &Args, bytes: u64, times: &[Vec<f64>], memory: &[i64]) -> Result<String> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let column = |run: Run| {
        let at = ALL.iter().position(|other| *other == run);
        at.map(|at| &times[at][..]).unwrap_or_default()
    };
    let ratio = |of: &[f64], to: Run| -> Result<String> {
        let ratios = of.iter().zip(column(to)).map(|(of, to)| of / to);
        Ok(Spread::of(ratios).context("no round")?.show(2))
    };
    let mut text = format!(
        "# Thousands of reports at once\n\nMade by `cargo xtask bench report --write`; do not edit.\n\n\
         {}\n\n{} reports of the corpus' builds, {:.0} MB, in the page cache. {} rounds, in each of which \
         everything is run once, in\nturn. Median (quartiles); ratios are taken within a round.\n\n\
         | | seconds | × sha256sum | × parser | peak memory, MB |\n|---|---|---|---|---|\n",
        super::host(cpus)?,
        args.reports,
        bytes as f64 / 1e6,
        args.rounds
    );
    for (at, run) in ALL.iter().enumerate() {
        let time = Spread::of(times[at].iter().copied()).context("no round")?;
        let memory = match run {
            Run::Sums => String::new(),
            _ => format!("{:.0}", memory[at] as f64 * 1024.0 / 1e6),
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {memory} |",
            run.name(),
            time.show(2),
            ratio(&times[at], Run::Sums)?,
            ratio(&times[at], Run::Parser)?
        )?;
    }
    let time = Spread::of(column(Run::Table).iter().copied()).context("no round")?;
    let most = (ALL.iter().zip(memory))
        .filter(|(run, _)| run.is_kcap())
        .map(|(_, most)| *most)
        .max()
        .unwrap_or_default();
    let met = |yes| if yes { "met" } else { "missed" };
    writeln!(
        text,
        "\nGoals for 10000: a table in {SECONDS} s ({}); all within {} MB ({}).",
        met(time.mid <= SECONDS),
        MEMORY >> 10,
        met(most <= MEMORY)
    )?;
    Ok(text)
}

//! `cargo xtask bench`: what tracing adds to one capability check, beside what programs that do
//! nothing and bpftrace add to it in the same run; how long loading takes and how much memory; and
//! how many instructions the verifier walks.
//!
//! `cargo xtask bench build` measures what tracing adds to whole builds by the real Kaniko.
//!
//! `cargo xtask bench compare` measures `kcap compare` on images of gigabytes, beside `sha256sum`.
//!
//! `cargo xtask bench report` measures `kcap report` on thousands of reports.
//!
//! `cargo xtask bench report` measures thousands of reports merged, `cargo xtask bench watch` builds that
//! are watched.
//!
//! Times differ between machines and from minute to minute, so that nothing but the last is a gate.

mod bpf;
mod build;
mod compare;
mod limits;
mod many;
mod probe;
mod report;
mod setups;
mod stats;
mod watch;

use std::path::PathBuf;
use std::process::Command;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};

use self::report::Figures;
use self::setups::{Bench, Setup};
use crate::sh::{self, Exit};

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Rounds, in each of which everything is measured once, and loads
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The CPU to measure on; the last one otherwise
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// The kcap to measure; a release build of this copy otherwise
    #[arg(long, value_name = "FILE")]
    kcap: Option<PathBuf>,
    /// Leave out what a check costs, which takes most of the time
    #[arg(long, conflicts_with = "write")]
    quick: bool,
    /// Write the figures to docs/benchmarks.md as well
    #[arg(long)]
    write: bool,
    /// Exit 1 where the verifier walks more instructions than the limit allows
    #[arg(long)]
    gate: bool,
    /// Be the process that is measured, on this CPU
    #[arg(long, value_name = "CPU", hide = true)]
    probe: Option<usize>,
}

/// What else can be measured.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Whole builds by the real Kaniko, traced and not, in turn
    Build(build::Args),
    /// Two large images compared: bytes a second, beside sha256sum, and memory
    Compare(compare::Args),
    /// Thousands of reports merged: time and memory, beside sha256sum and a JSON parser
    Report(many::Args),
    /// Builds watched: one and hundreds at once, thousands in a row, none
    Watch(watch::Args),
    /// Run a command, and write how long it took
    #[command(hide = true)]
    Timed(build::Timed),
}

/// Measures, and prints what was found.
///
/// # Errors
/// Where this is not the superuser, something cannot be attached, or, with `--gate`, a limit is
/// exceeded.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        Some(What::Build(args)) => return build::run(args),
        Some(What::Compare(args)) => return compare::run(args),
        Some(What::Report(args)) => return many::run(args),
        Some(What::Watch(args)) => return watch::run(args),
        Some(What::Timed(args)) => return build::timed(args),
        None => {}
    }
    if let Some(cpu) = args.probe {
        return probe::run(cpu);
    }
    ensure!(
        sh::is_root(),
        "attaching programs needs root: run `sudo cargo xtask bench`"
    );
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let bench = Bench {
        cpu: args.cpu.unwrap_or(cpus - 1),
        kcap: match &args.kcap {
            Some(path) => path.clone(),
            None => release()?,
        },
    };
    probe::prefer();
    let programs = bench.programs()?;
    let (loads, memory) = (0..args.rounds)
        .map(|_| bench.load())
        .collect::<Result<(Vec<_>, Vec<_>)>>()?;
    let setups = if args.quick { vec![] } else { setups() };
    let figures = Figures {
        host: host(cpus)?,
        rounds: rounds(&bench, &setups, args.rounds)?,
        setups,
        loads,
        memory,
        programs,
    };
    let text = figures.markdown();
    print!("{text}");
    if args.write {
        let path = sh::workspace().join("docs/benchmarks.md");
        fs::create_dir_all(sh::workspace().join("docs")).context("cannot make docs")?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.gate {
        gate(&figures)?;
    }
    Ok(())
}

/// A release build of this copy.
fn release() -> Result<PathBuf> {
    let mut cargo = sh::cargo();
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "kcap",
        "--bin",
        "kcap",
    ]);
    sh::run(&mut cargo)?;
    Ok(sh::target().join("release/kcap"))
}

/// What can be measured here.
fn setups() -> Vec<Setup> {
    let has_bpftrace = sh::find("bpftrace").is_some();
    if !has_bpftrace {
        eprintln!("xtask: not compared with bpftrace, which is not here: `cargo xtask setup`");
    }
    Setup::ALL
        .into_iter()
        .filter(|setup| has_bpftrace || setup.script().is_none())
        .collect()
}

/// Measures every setup once a round, each round starting with another.
fn rounds(bench: &Bench, setups: &[Setup], rounds: u16) -> Result<Vec<Vec<f64>>> {
    if setups.is_empty() {
        return Ok(vec![]);
    }
    let mut all = vec![];
    for round in 0..usize::from(rounds) {
        eprint!("\rround {} of {rounds}", round + 1);
        let mut times = vec![0.0; setups.len()];
        for step in 0..setups.len() {
            let at = (round + step) % setups.len();
            times[at] = bench.measure(setups[at]).inspect_err(|_| eprintln!())?;
        }
        all.push(times);
    }
    eprintln!();
    Ok(all)
}

fn host(cpus: usize) -> Result<String> {
    let kernel = sh::output(Command::new("uname").args(["-sr"]))?;
    let info = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown CPU", |(_, model)| model);
    let tool = match sh::output(Command::new("bpftrace").arg("--version")) {
        Ok(version) => version,
        Err(_) => "no bpftrace".into(),
    };
    Ok(format!("{kernel}, {cpus} × {model}, {tool}."))
}

/// Holds the counts against their limits.
fn gate(figures: &Figures) -> Result<()> {
    if figures.programs.is_empty() {
        bail!("kcap holds no programs: nothing can be held against a limit");
    }
    let mut over = 0;
    for program in &figures.programs {
        let limit = limits::limit(&program.name).unwrap_or(0);
        if program.verified > limit {
            over += 1;
            eprintln!(
                "xtask: the verifier walks {} instructions for {}; the limit is {limit}: make it \
                 smaller, or raise the limit in xtask/src/bench/limits.rs and say why",
                program.verified, program.name
            );
        }
    }
    if over > 0 {
        return Err(Exit(1).into());
    }
    Ok(())
}

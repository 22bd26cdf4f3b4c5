//! What tracing adds to a whole build by the real Kaniko: each round builds the same Dockerfile once
//! traced and once not, one right after the other, and swaps the order. Then what `kcap build` itself
//! takes around a build.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, mem};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::stats::Spread;
use crate::lab::capabilities::Set;
use crate::lab::kaniko::{Kaniko, Recipe};
use crate::setup::{self, Need};
use crate::sh::{self, Exit};

/// Dockerfiles of the corpus that are built where none is named: one that installs packages, and one
/// that copies and changes files.
const DOCKERFILES: [&str; 2] = ["apt-file-capability", "x-database-init"];
/// Longer than any of these builds takes.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What `cargo xtask bench build` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds, in each of which a Dockerfile is built once traced and once not
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The kcap to measure; a release build of this copy otherwise
    #[arg(long, value_name = "FILE")]
    kcap: Option<PathBuf>,
    /// Write the figures to docs/benchmarks-build.md as well
    #[arg(long)]
    write: bool,
    /// Folders of the corpus to build
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Arguments of the process that runs a build and takes the time.
#[derive(Debug, clap::Args)]
pub struct Timed {
    /// Where to write wall and CPU time, in microseconds
    file: PathBuf,
    /// The command
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// One build.
#[derive(Clone, Copy, Debug)]
struct Time {
    /// Seconds.
    wall: f64,
    /// Seconds of CPU time, of all processes of the build.
    cpu: f64,
}

/// The rounds of one Dockerfile.
struct Rounds {
    name: String,
    bare: Vec<Time>,
    traced: Vec<Time>,
    /// CPU time of kcap itself, seconds.
    own: Vec<f64>,
    /// What `kcap build` takes beside the build until its report is written, seconds of wall time.
    around: Vec<f64>,
    /// What it takes from there on to remove the build's files.
    removal: Vec<f64>,
}

/// Measures, and prints what was found.
///
/// # Errors
/// Where this is not the superuser, there is no Kaniko, or a build fails.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        sh::is_root(),
        "building in containers needs root: run `sudo cargo xtask bench build`"
    );
    setup::ensure(&[Need::Corpus])?;
    let kcap = match &args.kcap {
        Some(path) => path.clone(),
        None => super::release()?,
    };
    let names = match args.names.as_slice() {
        [] => DOCKERFILES.map(str::to_owned).into(),
        names => names.to_vec(),
    };
    let lab = Kaniko::open()?;
    let measured = (names.iter())
        .map(|name| rounds(&lab, &kcap, name, args.rounds))
        .collect::<Result<Vec<_>>>();
    let version = lab.version().to_owned();
    lab.close()?;
    let text = markdown(&measured?, &version, args.rounds)?;
    print!("{text}");
    if args.write {
        let path = sh::workspace().join("docs/benchmarks-build.md");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn rounds(lab: &Kaniko, kcap: &Path, name: &str, rounds: u16) -> Result<Rounds> {
    let context = sh::workspace().join("corpus").join(name);
    let recipe = Recipe {
        dockerfile: context.join("Dockerfile"),
        context,
        flags: vec![],
        variables: vec![],
        timeout: TIMEOUT,
    };
    let mut all = Rounds {
        name: name.to_owned(),
        bare: vec![],
        traced: vec![],
        own: vec![],
        around: vec![],
        removal: vec![],
    };
    // The first build of a series finds cold caches.
    build(lab, &recipe, None)?;
    for round in 0..rounds {
        eprint!("\r{name}: round {} of {rounds}", round + 1);
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                all.bare.push(build(lab, &recipe, None)?.0);
            } else {
                let (time, own) = build(lab, &recipe, Some(kcap))?;
                all.traced.push(time);
                all.own.push(own);
            }
        }
        let (around, removal) = around(lab, kcap, &recipe)?;
        all.around.push(around);
        all.removal.push(removal);
    }
    eprintln!();
    Ok(all)
}

/// Builds once, traced by `kcap` or not; gives what the build took, and the CPU time of kcap itself.
fn build(lab: &Kaniko, recipe: &Recipe, kcap: Option<&Path>) -> Result<(Time, f64)> {
    let prepared = lab.prepare(recipe, Set::DOCKER_DEFAULT)?;
    let file = prepared.folder().join("time");
    let xtask = std::env::current_exe().context("cannot find cargo xtask itself")?;
    let build = prepared.command();
    let mut command = match kcap {
        None => Command::new(&xtask),
        Some(kcap) => {
            let mut command = Command::new(kcap);
            command.args(["run", "--quiet", "--report"]);
            command.arg(prepared.folder().join("report.json"));
            command.arg("--dockerfile").arg(&recipe.dockerfile);
            command.arg("--").arg(&xtask);
            command
        }
    };
    command
        .args(["bench", "timed"])
        .arg(&file)
        .arg(build.get_program())
        .args(build.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let before = children();
    let status = command.status().context("cannot run the build")?;
    let all = children() - before;
    ensure!(status.success(), "the build failed: {status}");
    let text = fs::read_to_string(&file).context("the build's time was not written")?;
    let numbers: Vec<f64> = (text.split_whitespace())
        .map(|number| Ok(number.parse::<f64>()? / 1e6))
        .collect::<Result<_>>()?;
    let [wall, cpu] = numbers[..] else {
        bail!("the build's time is {text:?}");
    };
    Ok((Time { wall, cpu }, all - cpu))
}

/// What `kcap build` takes beside the container until its report is written, and then until it ends.
fn around(lab: &Kaniko, kcap: &Path, recipe: &Recipe) -> Result<(f64, f64)> {
    let folder = lab.folder()?;
    let report = folder.path().join("report.json");
    let start = SystemTime::now();
    let output = Command::new(kcap)
        .args(["build", "--quiet", "--engine", "oci", "--executor"])
        .arg(lab.executor())
        .arg("-f")
        .arg(&recipe.dockerfile)
        .arg("--report")
        .arg(&report)
        .arg("--")
        .args(lab.pull_flags())
        .stdin(Stdio::null())
        .output()
        .context("cannot run kcap")?;
    let end = SystemTime::now();
    ensure!(
        output.status.success(),
        "kcap build failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let written = fs::metadata(&report)
        .and_then(|file| file.modified())
        .context("kcap build wrote no report")?;
    let text = fs::read(&report).context("kcap build wrote no report")?;
    let report: Value = serde_json::from_slice(&text)?;
    let build = report["subject"]["duration_ms"]
        .as_f64()
        .context("the report has no duration")?;
    let to_report = written.duration_since(start)?.as_secs_f64();
    let after = end.duration_since(written)?.as_secs_f64();
    Ok((to_report - build / 1000.0, after))
}

/// CPU time of this process's children that have ended and were waited for, and of theirs, seconds.
fn children() -> f64 {
    // SAFETY: integers only, for which zero is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the struct is ours to write to.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Runs a command, and writes how long it and all that it waited for took.
///
/// # Errors
/// Where it does not start; the command's own status otherwise.
pub fn timed(args: &Timed) -> Result<()> {
    let (program, rest) = args.command.split_first().context("no command")?;
    let start = Instant::now();
    let status = Command::new(program)
        .args(rest)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    let wall = start.elapsed().as_micros();
    let cpu = (children() * 1e6) as u64;
    fs::write(&args.file, format!("{wall} {cpu}\n"))
        .with_context(|| format!("cannot write {}", args.file.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        code => Err(Exit(code.unwrap_or(128 + status.signal().unwrap_or(0)) as u8).into()),
    }
}

fn markdown(measured: &[Rounds], kaniko: &str, rounds: u16) -> Result<String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut out = String::from(
        "# What tracing adds to a build\n\n\
         Made by `cargo xtask bench build --write`; do not edit.\n\n",
    );
    writeln!(out, "{}\n", super::host(cpus)?)?;
    writeln!(
        out,
        "Kaniko {kaniko}, {rounds} rounds of pairs, one build traced and one not, right after each \
         other, in turn. Median and quartiles: of the pairs for what is added, of the builds for the \
         rest. `kcap` is the CPU time of kcap itself: loading, collecting, reporting. `around` is \
         what `kcap build` takes beside the container until its report is written; then it \
         removes the files of the build, which takes `removal`.\n"
    )?;
    writeln!(
        out,
        "| Dockerfile | build, s | wall time added, % | CPU time added, % | kcap, s | around, s | removal, s |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for one in measured {
        let added = |part: fn(&Time) -> f64| {
            let pairs = one.bare.iter().zip(&one.traced);
            Spread::of(pairs.map(|(bare, traced)| 100.0 * (part(traced) / part(bare) - 1.0)))
                .map_or(String::new(), |spread| spread.show(1))
        };
        let show =
            |values: Vec<f64>| Spread::of(values).map_or(String::new(), |spread| spread.show(2));
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            one.name,
            show(one.bare.iter().map(|time| time.wall).collect()),
            added(|time| time.wall),
            added(|time| time.cpu),
            show(one.own.clone()),
            show(one.around.clone()),
            show(one.removal.clone()),
        )?;
    }
    Ok(out)
}

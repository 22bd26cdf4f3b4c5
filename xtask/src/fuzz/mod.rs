//! `cargo xtask fuzz`: libFuzzer over what kcap reads from strangers. `kcap/fuzz/` holds what is
//! asserted; this builds it on stable Rust, gathers seeds, and runs it within bounds.
//!
//! What `cargo fuzz` needs a nightly compiler for is the sanitizer alone. kcap has next to no unsafe
//! code in these parts, so that coverage, which stable Rust gives too, is enough.

mod seeds;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::setup::{self, Need};
use crate::sh::{self, Exit};

/// Most seconds that one input may take.
const SECONDS: u32 = 10;
/// Most memory that a fuzzer may hold, in MB: itself, its corpus and one input.
const MEMORY: u32 = 1024;
/// How coverage is built in: as `cargo fuzz` does.
const FLAGS: [&str; 7] = [
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// What `cargo xtask fuzz` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which; all otherwise
    #[arg(value_enum)]
    targets: Vec<Target>,
    /// Seconds for each
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Run these inputs alone, as what a fuzzer kept of a failure
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "seconds")]
    input: Vec<PathBuf>,
}

/// What is fuzzed: a kind of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Captures: read, interpreted, rendered in every format
    Capture,
    /// Reports and matrices: read, merged, checked, rendered in every format
    Report,
    /// Dockerfiles
    Dockerfile,
    /// Policy files
    Policy,
    /// Image archives and their layers
    Image,
    /// Command lines of executors and engines
    Arguments,
}

impl Target {
    /// Its program, and its folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Report => "report",
            Self::Dockerfile => "dockerfile",
            Self::Policy => "policy",
            Self::Image => "image",
            Self::Arguments => "arguments",
        }
    }

    /// Longest input in bytes: what is longer is slow, and seldom says more.
    fn longest(self) -> usize {
        match self {
            Self::Capture | Self::Report | Self::Image => 64 << 10,
            Self::Dockerfile | Self::Policy => 16 << 10,
            Self::Arguments => 4 << 10,
        }
    }
}

/// Builds, and runs each target for its time.
///
/// # Errors
/// [`Exit`] 1 where an input fails: its path has been printed. Others where something cannot be built.
pub fn run(args: &Args) -> Result<()> {
    let targets = match &args.targets[..] {
        [] => Target::value_variants(),
        some => some,
    };
    let fuzzers = Fuzzers::build()?;
    let mut failed = false;
    for target in targets {
        let result = if args.input.is_empty() {
            fuzzers.fuzz(*target, args.seconds, Keep::Corpus)
        } else {
            fuzzers.replay(*target, &args.input)
        };
        if let Err(why) = result {
            eprintln!("xtask: {why:#}");
            failed = true;
        }
    }
    if failed {
        return Err(Exit(1).into());
    }
    Ok(())
}

/// What becomes of inputs that reach something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They are kept in `kcap/fuzz/corpus/`, and the next run starts with them.
    Corpus,
    /// Nothing: each run starts from the seeds, and takes the same time.
    Nothing,
}

/// The programs.
#[derive(Debug)]
pub struct Fuzzers {
    programs: PathBuf,
    seeds: tempfile::TempDir,
}

impl Fuzzers {
    /// Builds them, and gathers their seeds.
    ///
    /// # Errors
    /// Where something is missing, or does not compile.
    pub fn build() -> Result<Self> {
        setup::ensure(&[Need::Fuzz])?;
        // A target that is named keeps the flags from build scripts.
        let host = sh::output(Command::new("rustc").args(["--print", "host-tuple"]))?;
        let folder = sh::target().join("fuzz");
        sh::run(
            sh::cargo()
                .args(["build", "--release", "--locked", "--quiet", "--bins"])
                .arg("--manifest-path")
                .arg(fuzz().join("Cargo.toml"))
                .args(["--target", &host])
                .env("CARGO_TARGET_DIR", &folder)
                .env("RUSTFLAGS", FLAGS.join(" ")),
        )?;
        let seeds = tempfile::Builder::new()
            .prefix("kcap-fuzz-")
            .tempdir()
            .context("cannot make a folder for seeds")?;
        seeds::write(seeds.path()).context("cannot gather seeds")?;
        Ok(Self {
            programs: folder.join(host).join("release"),
            seeds,
        })
    }

    /// Runs one for its time, from all seeds.
    ///
    /// # Errors
    /// Where an input fails: with its path. It is kept.
    pub fn fuzz(&self, target: Target, seconds: u32, keep: Keep) -> Result<()> {
        let kept = fuzz().join("artifacts").join(target.name());
        fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
        let mut command = self.command(target);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={}", target.longest()))
            .arg(format!("-artifact_prefix={}/", kept.display()))
            .arg("-print_final_stats=1");
        let dictionary = fuzz().join("dictionaries").join(target.name());
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        // It writes what it finds into the first folder.
        let scratch;
        let corpus = match keep {
            Keep::Corpus => fuzz().join("corpus").join(target.name()),
            Keep::Nothing => {
                scratch = tempfile::tempdir().context("cannot make a folder")?;
                scratch.path().to_owned()
            }
        };
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        command.arg(&corpus);
        for seeds in [self.seeds.path(), &fuzz().join("seeds")] {
            let seeds = seeds.join(target.name());
            if seeds.is_dir() {
                command.arg(seeds);
            }
        }
        let before = inputs(&kept);
        println!("--- {}, {seconds} s", target.name());
        let output = command
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("cannot run `{}`", sh::shown(&command)))?;
        let told = String::from_utf8_lossy(&output.stderr);
        let figures = told.lines().filter(|line| line.starts_with("stat::"));
        let done = told.lines().rfind(|line| line.contains("\tDONE "));
        for line in done.into_iter().chain(figures) {
            println!("{line}");
        }
        if output.status.success() {
            return Ok(());
        }
        let is_told = |line: &&str| !line.starts_with(['#', '"']) && !line.contains("NEW_FUNC[");
        let last: Vec<&str> = told.lines().filter(is_told).collect();
        for line in &last[last.len().saturating_sub(40)..] {
            eprintln!("{line}");
        }
        let found: Vec<String> = (inputs(&kept).into_iter())
            .filter(|path| !before.contains(path))
            .map(|path| path.display().to_string())
            .collect();
        match &found[..] {
            [] => bail!("the fuzzer {} failed: {}", target.name(), output.status),
            found => bail!(
                "{} fails on {}; see it with `cargo xtask fuzz {} --input FILE`",
                target.name(),
                found.join(" "),
                target.name()
            ),
        }
    }

    /// Runs one on these inputs.
    fn replay(&self, target: Target, inputs: &[PathBuf]) -> Result<()> {
        let here = std::env::current_dir().context("no working folder")?;
        let inputs = inputs.iter().map(|input| here.join(input));
        sh::run(self.command(target).args(inputs))
    }

    fn command(&self, target: Target) -> Command {
        let mut command = Command::new(self.programs.join(target.name()));
        command
            .arg(format!("-timeout={SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY}"));
        command
    }
}

/// The folder of the fuzz targets.
fn fuzz() -> PathBuf {
    sh::workspace().join("kcap/fuzz")
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

//! `kcap run -- COMMAND`: trace a command to a report.

mod output;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use self::output::Outputs;
use super::{complain, exit, report::Color, say};
use crate::{
    capture::Capture,
    interpret::interpret,
    record::{self, Failure, Options, Run, Signals, kernel::Choice},
    render::{self, Format},
    report::Report,
};

/// Where Kaniko's images have the executor.
const EXECUTOR: &str = "/kaniko/executor";
/// Largest Dockerfile read, in bytes.
const DOCKERFILE_LIMIT: u64 = 4 << 20;

/// Arguments of `kcap run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kcap run --dockerfile Dockerfile -- runc run --bundle BUNDLE build
  kcap run --report r.json --capture c.gz -- buildah bud --isolation chroot .

Ctrl-C and SIGTERM end the command; what was seen until then is still written.

Exit code: the command's own, 128 and the number of the signal that ended it; 125 where kcap failed,
126 and 127 where the command could not be started, 3 where the command succeeded and the report is
incomplete.")]
pub struct Args {
    /// The Dockerfile that the command builds, for the report
    #[arg(long, value_name = "FILE")]
    dockerfile: Option<PathBuf>,
    /// Write the JSON report; - is standard output
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the capture, from which the report can be made again; - is standard output
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// What goes to standard output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// How checks are seen: auto, tp_btf, fexit or kprobe
    #[arg(long, value_name = "HOOK", default_value = "auto")]
    hook: Choice,
    /// Path of the executor inside its container; several can be given
    #[arg(long = "match", value_name = "PATH", default_value = EXECUTOR)]
    matches: Vec<String>,
    /// Record arguments of executed programs: they can hold secrets
    #[arg(long)]
    argv: bool,
    /// Do not follow system calls to their end: cheaper for the host, and more is unsure
    #[arg(long)]
    no_outcome: bool,
    /// No report on standard output
    #[arg(short, long)]
    quiet: bool,
    /// Say how the trace is made; -vv adds the log of the kernel side
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// Seconds that the command may take to end after a signal, before it is killed
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, hide_short_help = true)]
    grace: Duration,
    /// Bytes of the ring buffer, a power of two of at least 4096
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, value_parser = ring_size)]
    ring_size: u32,
    /// Buckets of each CPU's tally table, a power of two of at least 2
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = buckets, hide_short_help = true)]
    table_size: u32,
    /// System calls whose outcome can be open at once, a power of two
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = power_of_two, hide_short_help = true)]
    slots: u32,
    /// Compute every result as well, and fail where it is not the kernel's
    #[arg(long, hide_short_help = true)]
    verify: bool,
    /// The command to trace, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn power_of_two(text: &str) -> Result<u32, String> {
    let n: u32 = text.parse().map_err(|e| format!("{e}"))?;
    if n.is_power_of_two() {
        Ok(n)
    } else {
        Err("it is no power of two".into())
    }
}

fn buckets(text: &str) -> Result<u32, String> {
    match power_of_two(text)? {
        0..2 => Err("at least 2 are needed".into()),
        n => Ok(n),
    }
}

fn ring_size(text: &str) -> Result<u32, String> {
    match power_of_two(text)? {
        0..4096 => Err("at least a page is needed".into()),
        n => Ok(n),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    // A year is enough, and no time in the event loop overflows.
    if (0.0..=31_536_000.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it is no number of seconds".into())
    }
}

/// Runs it; gives the exit code. Errors go to standard error, one line each.
pub fn run(args: &Args, out: &mut dyn Write) -> u8 {
    match trace(args, out) {
        Ok(code) => code,
        Err(Failure::Command(code, e)) => {
            complain(&e);
            code
        }
        Err(Failure::Kcap(e)) => {
            complain(&e);
            exit::RUN_FAILED
        }
    }
}

fn trace(args: &Args, out: &mut dyn Write) -> Result<u8, Failure> {
    let outputs = Outputs::open(args.report.as_deref(), args.capture.as_deref())?;
    let (what, options) = options(args)?;
    let signals = Signals::block().context("cannot listen for signals")?;
    let capture = record::run(&what, &options, &signals, &mut |line| say(&line))?;
    let report = interpret(&capture);
    let mut written = outputs.write(&capture, &report, out);
    // The files are whole; from here on a signal ends kcap as it ends any program.
    drop(signals);
    if !args.quiet && !args.stdout_is_taken() {
        written.push(show(args, &report, out));
    }
    let mut code = exit_code(&capture, &report);
    for error in written.into_iter().filter_map(Result::err) {
        if !super::is_broken_pipe(&error) {
            complain(&error);
            code = exit::RUN_FAILED;
        }
    }
    Ok(code)
}

impl Args {
    /// Whether the report or the capture goes to standard output.
    fn stdout_is_taken(&self) -> bool {
        [&self.report, &self.capture]
            .into_iter()
            .flatten()
            .any(|path| output::is_stdout(path))
    }
}

/// The command's own, unless it succeeded and the result is incomplete.
fn exit_code(capture: &Capture, report: &Report) -> u8 {
    match capture.subject.exit_status {
        Some(0) if !report.complete => exit::INCOMPLETE,
        Some(status) => (status & 0xff) as u8,
        None => exit::RUN_FAILED,
    }
}

fn options(args: &Args) -> Result<(Run, Options)> {
    let dockerfile = match &args.dockerfile {
        Some(path) => Some((path.clone(), read_dockerfile(path)?)),
        None => None,
    };
    let run = Run {
        command: args.command.clone(),
        dockerfile,
        context: None,
    };
    let options = Options {
        hook: args.hook,
        matches: args.matches.clone(),
        argv: args.argv,
        outcomes: !args.no_outcome,
        verify: args.verify,
        ring_bytes: args.ring_size,
        tally_buckets: args.table_size,
        slots: args.slots,
        grace: args.grace,
        verbosity: args.verbose,
    };
    Ok((run, options))
}

fn read_dockerfile(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let what = || {
        format!(
            "cannot read the Dockerfile {} (--dockerfile takes a readable file)",
            path.display()
        )
    };
    let mut text = vec![];
    File::open(path)
        .with_context(what)?
        .take(DOCKERFILE_LIMIT + 1)
        .read_to_end(&mut text)
        .with_context(what)?;
    if text.len() as u64 > DOCKERFILE_LIMIT {
        bail!(
            "{} is larger than {} MiB: is it a Dockerfile?",
            path.display(),
            DOCKERFILE_LIMIT >> 20
        );
    }
    Ok(text)
}

fn show(args: &Args, report: &Report, out: &mut dyn Write) -> Result<()> {
    let mut out = io::BufWriter::new(out);
    render::write(report, args.format, args.color.style(), &mut out)
        .and_then(|()| out.flush())
        .context("cannot write the report to standard output (--report writes it to a file)")
}

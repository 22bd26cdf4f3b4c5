//! `kcap run -- COMMAND`: trace a command to a report.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use super::{
    complain, dockerfile, exit,
    options::Tracing,
    output::{self, Outputs},
    report::Color,
    say,
};
use crate::{
    capture::Capture,
    interpret::interpret,
    record::{self, Failure, Options, Run, Running, Signals},
    render::{self, Format},
    report::Report,
};

/// Arguments of `kcap run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kcap run --dockerfile Dockerfile -- runc run --bundle BUNDLE build
  kcap run -- docker run -v .:/workspace EXECUTOR-IMAGE --no-push
  kcap run --report r.json --capture c.gz -- buildah bud --isolation chroot .
  kcap run --container NAME

Ctrl-C and SIGTERM end the command; what was seen until then is still written. They leave alone what \
--container, --pid or --cgroup attached to.

Exit code: the command's own, 128 and the number of the signal that ended it; 125 where kcap failed, \
126 and 127 where the command could not be started, 3 where the command succeeded and the report is \
incomplete.")]
pub struct Args {
    /// The Dockerfile that the command builds; else what the executor's command line names is read
    /// inside its container
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
    /// No report on standard output
    #[arg(short, long)]
    quiet: bool,
    /// Say how the trace is made; -vv adds the log of the kernel side
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    #[command(flatten)]
    running: Target,
    #[command(flatten)]
    tracing: Tracing,
    /// The command to trace, and its arguments
    #[arg(
        required_unless_present = "running",
        trailing_var_arg = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

/// What already runs, to attach to in place of starting a command.
#[derive(Debug, clap::Args)]
#[group(id = "running", multiple = false, conflicts_with = "command")]
struct Target {
    /// Attach to a container that already runs, by its id or name
    #[arg(long, value_name = "ID|NAME")]
    container: Option<String>,
    /// Attach to the cgroup of a process
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Attach to a cgroup, by its folder or its path in /proc/PID/cgroup
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
}

impl Target {
    fn running(&self) -> Option<Running> {
        (self.container.clone().map(Running::Container))
            .or_else(|| self.pid.map(Running::Pid))
            .or_else(|| self.cgroup.clone().map(Running::Cgroup))
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
    let note = &mut |line: String| say(&line);
    let capture = match args.running.running() {
        Some(running) => record::attach(&running, what.dockerfile, &options, &signals, note),
        None => record::run(&what, &options, &signals, note),
    }?;
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
        // What was attached to goes on: that it was not seen to end is no failure.
        None if capture.subject.late && report.complete => 0,
        None if capture.subject.late => exit::INCOMPLETE,
        None => exit::RUN_FAILED,
    }
}

fn options(args: &Args) -> Result<(Run, Options)> {
    let dockerfile = match &args.dockerfile {
        Some(path) => Some((path.clone(), dockerfile::read(path)?)),
        None => None,
    };
    let run = Run {
        command: args.command.clone(),
        dockerfile,
        context: None,
    };
    Ok((run, args.tracing.options(args.verbose)))
}

fn show(args: &Args, report: &Report, out: &mut dyn Write) -> Result<()> {
    let mut out = io::BufWriter::new(out);
    render::write(report, args.format, args.color.style(), &mut out)
        .and_then(|()| out.flush())
        .context("cannot write the report to standard output (--report writes it to a file)")
}

//! The command line: one file a subcommand, none with logic that a stage could own.

#[cfg(feature = "trace")]
pub mod build;
pub mod check;
pub mod compare;
#[cfg(feature = "trace")]
mod dockerfile;
pub mod doctor;
pub mod generate;
#[cfg(feature = "trace")]
mod options;
#[cfg(feature = "trace")]
mod output;
#[cfg(feature = "trace")]
pub mod prove;
pub mod report;
#[cfg(feature = "trace")]
pub mod run;
#[cfg(feature = "trace")]
pub mod watch;

use std::io::{self, Write};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::render::escape::head;

/// Most columns of a line to standard error: some lines hold text from outside.
const LONGEST_LINE: usize = 1000;

/// Exit codes other than the traced command's own.
pub mod exit {
    /// The answer is no.
    pub const NO: u8 = 1;
    /// Bad usage, input or environment.
    pub const USAGE: u8 = 2;
    /// The result is incomplete.
    pub const INCOMPLETE: u8 = 3;
    /// `kcap run` itself failed.
    pub const RUN_FAILED: u8 = 125;
}

/// Finds the Linux capabilities that a container image build needs, with evidence
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 80,
    after_help = "\
Examples:
  kcap doctor
  kcap build -f services/api/Dockerfile
  kcap prove -f services/api/Dockerfile
  kcap report --why SETUID reports/
  kcap check --policy pss-baseline reports/

Results go to standard output, everything else to standard error; - is standard output, or input. \
kcap help COMMAND says more of each.

Exit code: 0 success, 1 the answer is no, 2 bad usage, input or environment, 3 the result is \
incomplete; of kcap run, the command's own."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace a command, and say which capabilities it needs
    #[cfg(feature = "trace")]
    Run(Box<run::Args>),
    /// Build Dockerfiles, traced, and say which capabilities they need
    #[cfg(feature = "trace")]
    Build(Box<build::Args>),
    /// Build Dockerfiles again with less, until the smallest set is found that gives the same image
    #[cfg(feature = "trace")]
    Prove(Box<prove::Args>),
    /// Trace every build that others start on this host, and write a report of each
    #[cfg(feature = "trace")]
    Watch(Box<watch::Args>),
    /// Render saved captures or reports: one as it is, several as one answer
    Report(report::Args),
    /// Hold reports against what is allowed, or against earlier ones
    Check(check::Args),
    /// Say what differs between two built images; exit 1 where they differ
    Compare(compare::Args),
    /// Say what this host can trace, and what to do where it cannot
    Doctor(doctor::Args),
    /// Write man pages, shell completions and JSON Schemas
    Generate(generate::Args),
}

impl Cli {
    /// Does what was asked; gives the exit code. Errors go to standard error, one line each.
    pub fn run(self) -> u8 {
        #[cfg(feature = "trace")]
        warnings::heed();
        #[cfg(feature = "trace")]
        if let Command::Watch(args) = &self.command {
            // Its threads write lines themselves.
            return watch::run(args).unwrap_or_else(|e| {
                complain(&e);
                exit::USAGE
            });
        }
        let out = &mut io::stdout().lock();
        let result = match self.command {
            #[cfg(feature = "trace")]
            Command::Watch(_) => return exit::USAGE,
            #[cfg(feature = "trace")]
            Command::Run(args) => return run::run(&args, out),
            #[cfg(feature = "trace")]
            Command::Build(args) => build::run(&args, out),
            #[cfg(feature = "trace")]
            Command::Prove(args) => prove::run(&args, out),
            Command::Report(args) => report::run(&args, out),
            Command::Check(args) => check::run(&args, out),
            Command::Compare(args) => compare::run(&args, out),
            Command::Doctor(args) => doctor::run(&args, hook_probes(), out),
            Command::Generate(args) => generate::run(&args, out),
        };
        let result = result.and_then(|code| match out.flush() {
            // What the answer is does not depend on whether all of it was read.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(code),
        });
        match result {
            Ok(code) => code,
            Err(e) if is_broken_pipe(&e) => 0,
            Err(e) => {
                complain(&e);
                exit::USAGE
            }
        }
    }
}

#[cfg(feature = "trace")]
fn hook_probes() -> Vec<doctor::HookProbe> {
    crate::record::probe_hooks()
        .into_iter()
        .map(|(name, result)| doctor::HookProbe {
            name: name.into(),
            result,
        })
        .collect()
}

#[cfg(not(feature = "trace"))]
fn hook_probes() -> Vec<doctor::HookProbe> {
    vec![]
}

/// Warnings of parts that have nobody to return an error to, as when something cannot be removed.
#[cfg(feature = "trace")]
mod warnings {
    use log::{LevelFilter, Log, Metadata, Record};

    struct ToStandardError;

    impl Log for ToStandardError {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            // What libraries have to say is for whoever mends them.
            metadata.target().starts_with("kcap")
        }

        fn log(&self, record: &Record<'_>) {
            if self.enabled(record.metadata()) {
                super::say(&record.args().to_string());
            }
        }

        fn flush(&self) {}
    }

    /// Has them told on standard error.
    pub fn heed() {
        // A program around this library may have a logger of its own.
        if log::set_logger(&ToStandardError).is_ok() {
            log::set_max_level(LevelFilter::Warn);
        }
    }
}

/// What came of writing a result: that its reader went away is no error, and changes no exit code.
fn written(result: io::Result<()>, what: &str) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).with_context(|| format!("cannot write {what}"))
        }
        _ => Ok(()),
    }
}

/// A reader that went away is no error.
fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// Says what went wrong, on one line, whatever is in it.
pub fn complain(e: &anyhow::Error) {
    say(&format!("{e:#}"));
}

/// One line to standard error, escaped and bounded. Nothing can be done where that is closed.
pub fn say(text: &str) {
    let line = head(&text.replace('\n', " "), LONGEST_LINE);
    let _ = writeln!(io::stderr(), "kcap: {line}");
}

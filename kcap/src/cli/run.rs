//! `kcap run -- COMMAND`: trace a command to a report.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{complain, exit, report::Color, say};
use crate::{
    capture::{self, Capture},
    interpret::interpret,
    record::{self, Failure, Options, kernel::Choice},
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
  kcap run -- docker run --rm -v $PWD:/workspace EXECUTOR-IMAGE --no-push
  kcap run --report r.json --capture c.gz -- buildah bud --isolation chroot .

Exit code: the command's own; 125 where kcap failed, 126 and 127 where the command could not be
started, 3 where the command succeeded and the report is incomplete.")]
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
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// Bytes of the ring buffer, a power of two
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, value_parser = power_of_two)]
    ring_size: u32,
    /// Buckets of each CPU's tally table, a power of two
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = power_of_two, hide_short_help = true)]
    table_size: u32,
    /// System calls whose outcome can be open at once, a power of two
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = power_of_two, hide_short_help = true)]
    slots: u32,
    /// Compute every result as well, and fail where it is not the kernel's
    #[arg(long, hide_short_help = true)]
    verify: bool,
    /// The command to trace, and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
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

/// Runs it; gives the exit code.
pub fn run(args: &Args, out: &mut dyn Write) -> u8 {
    let outputs = match Outputs::open(args) {
        Ok(outputs) => outputs,
        Err(e) => {
            complain(&e);
            return exit::RUN_FAILED;
        }
    };
    let traced = options(args)
        .map_err(Failure::Kcap)
        .and_then(|options| record::run(&options, &mut |line| say(&line)));
    let (capture, report) = match traced {
        Ok(capture) => {
            let report = interpret(&capture);
            (capture, report)
        }
        Err(Failure::Command(code, e)) => {
            complain(&e);
            return code;
        }
        Err(Failure::Kcap(e)) => {
            complain(&e);
            return exit::RUN_FAILED;
        }
    };
    let mut code = exit_code(&capture, &report);
    for result in [
        outputs.write(&capture, &report, out),
        show(args, &report, out),
    ] {
        match result {
            Ok(()) => {}
            Err(e) if super::is_broken_pipe(&e) => {}
            Err(e) => {
                complain(&e);
                code = exit::RUN_FAILED;
            }
        }
    }
    code
}

/// The command's own, unless it succeeded and the result is incomplete.
fn exit_code(capture: &Capture, report: &Report) -> u8 {
    match capture.subject.exit_status {
        Some(0) if !report.complete => exit::INCOMPLETE,
        Some(status) => (status & 0xff) as u8,
        None => exit::RUN_FAILED,
    }
}

fn options(args: &Args) -> Result<Options> {
    let dockerfile = match &args.dockerfile {
        Some(path) => Some((path.clone(), read_dockerfile(path)?)),
        None => None,
    };
    Ok(Options {
        command: args.command.clone(),
        hook: args.hook,
        matches: args.matches.clone(),
        argv: args.argv,
        outcomes: !args.no_outcome,
        verify: args.verify,
        ring_bytes: args.ring_size,
        tally_buckets: args.table_size,
        slots: args.slots,
        dockerfile,
        context: None,
    })
}

fn read_dockerfile(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let what = || format!("cannot read the Dockerfile {}", path.display());
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
    let to_stdout = |p: &Option<PathBuf>| p.as_deref() == Some(Path::new("-"));
    if args.quiet || to_stdout(&args.report) || to_stdout(&args.capture) {
        return Ok(());
    }
    let mut out = io::BufWriter::new(out);
    render::write(report, args.format, args.color.style(), &mut out)
        .and_then(|()| out.flush())
        .context("cannot write the report")
}

/// Files that the result goes to, opened before the build starts: a path that cannot be written is
/// found out then.
struct Outputs {
    report: Option<Output>,
    capture: Option<Output>,
}

enum Output {
    Stdout,
    /// Written beside the path first, so that a result is there whole or not at all.
    File {
        path: PathBuf,
        partial: PathBuf,
        file: File,
    },
}

impl Outputs {
    fn open(args: &Args) -> Result<Self> {
        if args.report.is_some() && args.report == args.capture {
            bail!("--report and --capture name the same file: give each its own");
        }
        Ok(Self {
            report: args.report.as_deref().map(Output::open).transpose()?,
            capture: args.capture.as_deref().map(Output::open).transpose()?,
        })
    }

    fn write(self, capture: &Capture, report: &Report, out: &mut dyn Write) -> Result<()> {
        if let Some(to) = self.capture {
            to.write(out, |w| capture::write(capture, w))?;
        }
        if let Some(to) = self.report {
            to.write(out, |mut w| {
                render::write(report, Format::Json, render::Style { color: false }, &mut w)
            })?;
        }
        Ok(())
    }
}

impl Output {
    fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        // Devices and pipes are written in place.
        let special = path.metadata().is_ok_and(|m| !m.is_file());
        let partial = if special {
            path.to_owned()
        } else {
            let mut name = path.file_name().map(OsString::from).unwrap_or_default();
            name.push(format!(".{}.partial", std::process::id()));
            path.with_file_name(name)
        };
        let file = OpenOptions::new()
            .write(true)
            .create(!special)
            .truncate(!special)
            .open(&partial)
            .with_context(|| {
                format!(
                    "cannot write {}: choose a file in a folder that exists and is writable",
                    path.display()
                )
            })?;
        Ok(Self::File {
            path: path.to_owned(),
            partial,
            file,
        })
    }

    fn write(
        mut self,
        out: &mut dyn Write,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        match &mut self {
            Self::Stdout => fill(out)
                .and_then(|()| out.flush())
                .context("cannot write to standard output"),
            Self::File {
                path,
                partial,
                file,
            } => {
                let mut w = io::BufWriter::new(&*file);
                let filled = fill(&mut w).and_then(|()| w.flush());
                drop(w);
                let result = match filled {
                    Ok(()) if path == partial => Ok(()),
                    Ok(()) => file
                        .sync_all()
                        .and_then(|()| std::fs::rename(&*partial, &*path)),
                    Err(e) => Err(e),
                };
                result.with_context(|| format!("cannot write {}", path.display()))
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        if let Self::File { path, partial, .. } = self
            && path != partial
        {
            let _ = std::fs::remove_file(partial);
        }
    }
}

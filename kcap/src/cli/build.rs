//! `kcap build -f DOCKERFILE...`: build each in a container of its own, traced, one report each.

pub(super) mod capabilities;
pub(super) mod engine;
pub(super) mod find;
pub(super) mod flags;
pub(super) mod log;
pub(super) mod names;
pub(super) mod plan;
pub(super) mod progress;
pub(super) mod request;
pub(super) mod results;
pub(super) mod summary;

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    vec,
};

use anyhow::{Context as _, Result};

use self::{
    capabilities::Named,
    plan::Planned,
    progress::{Progress, Show},
    results::Results,
};
use super::{exit, options::Tracing, output, report::Color};
use crate::{
    capture::Capture,
    combine::{Build, Matrix, Status},
    interpret::interpret,
    launch::{Engine, Request},
    record::{self, Event, Failure, Job, Signals},
    render::{self, Format, Wrap},
    report::Report,
};

/// Exit code of success.
const OK: u8 = 0;

/// Arguments of `kcap build`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kcap build -f services/api/Dockerfile
  kcap build -f . -o reports --jobs 4
  kcap build -f Dockerfile --cap-drop all --cap-add CHOWN -- --build-arg=V=3
  kcap build -f Dockerfile --push -- --destination=registry.example/app:1

One Dockerfile gives its report on standard output; several give a matrix of who needs what, and the \
set that is enough for all. A build that fails does not stop the others, and has its report too. \
Nothing is pushed without --push.

Ctrl-C and SIGTERM end the builds that run and start no more; what was seen until then is still \
written, marked as interrupted.

Exit code: 0 all were built and every report is complete, 1 one did not build or was interrupted, \
2 bad usage, input or environment, 3 all were built and a report is incomplete.")]
pub struct Args {
    /// A Dockerfile; or a folder, for every Dockerfile below it; or a pattern such as
    /// '*/Dockerfile'
    #[arg(short, long = "file", value_name = "DOCKERFILE", num_args = 1..)]
    pub(super) files: Vec<PathBuf>,
    /// The build context, a folder; without it, each Dockerfile's own
    #[arg(short, long, value_name = "CONTEXT")]
    pub(super) context: Option<PathBuf>,
    /// What runs the containers
    #[arg(long, value_enum, default_value_t, value_name = "ENGINE")]
    pub(super) engine: engine::Kind,
    /// The executor: an image's name, or the path of an OCI layout, a docker archive or a Kaniko
    /// binary
    #[arg(long, value_name = "IMAGE|PATH", default_value = engine::EXECUTOR)]
    pub(super) executor: OsString,
    /// Capabilities that the container does not get, of Docker's default ones: names, or all
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) cap_drop: Vec<Named>,
    /// Capabilities that it gets beside: names, or all
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) cap_add: Vec<Named>,
    /// The container's seccomp profile: docker's, or none
    #[arg(long, value_enum, default_value_t, value_name = "PROFILE")]
    pub(super) seccomp: SeccompKind,
    /// The container's network, as the engine calls it
    #[arg(long, value_name = "NETWORK")]
    pub(super) network: Option<String>,
    /// A variable of the executor; without a value, kcap's own is passed on
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<OsString>,
    /// A flag for docker or podman, such as --engine-flag=--memory=4g; several can be given
    #[arg(long = "engine-flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub(super) engine_flags: Vec<OsString>,
    /// How many builds run side by side
    #[arg(short, long, value_name = "N", default_value = "1")]
    pub(super) jobs: NonZeroUsize,
    /// Push the images to Kaniko's --destination
    #[arg(long)]
    pub(super) push: bool,
    /// Write a JSON report of each into this folder, named after its Dockerfile's path
    #[arg(short, long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Write the JSON report of the only one; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Write the capture, from which the report can be made again; a folder where there are several
    #[arg(long, value_name = "FILE|DIR")]
    pub(super) capture: Option<PathBuf>,
    /// What goes to standard output
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    /// With --format kubernetes: what to put the securityContext into
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(super) wrap: Option<Wrap>,
    /// No progress on standard error: only what went wrong
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Show the builds' output and say how the trace is made; -vv adds the log of the kernel side
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(super) verbose: u8,
    /// When to use colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(super) color: Color,
    #[command(flatten)]
    pub(super) tracing: Tracing,
    /// Flags for Kaniko
    #[arg(last = true, value_name = "KANIKO-FLAG")]
    pub(super) kaniko: Vec<OsString>,
}

/// The seccomp profile of the containers.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum SeccompKind {
    /// As docker's: system calls are let through by the capabilities held
    #[default]
    Docker,
    /// None, as Kubernetes has it by default
    None,
}

/// Runs it; gives the exit code.
///
/// # Errors
/// Bad usage, input or environment that was found before the first build: exit code 2.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    args.format()?;
    flags::check(&args.kaniko, args.push)?;
    let request = request::request(args)?;
    let found = find::find(&args.files)?;
    let planned = plan::plan(args.context.as_deref(), &found.paths)?;
    let results = Results::open(
        names::of(&found.paths, &env::current_dir().unwrap_or_default()),
        args.out.as_deref(),
        args.report.as_deref(),
        args.capture.as_deref(),
    )?;
    let (engine, _, notes) = engine::open(args.engine)?;
    let signals = Signals::block().context("cannot listen for signals")?;

    let watched = planned.iter().map(Planned::watched).collect();
    let mut builds = Builds {
        progress: Progress::new(args.show(), watched),
        builds: planned.iter().map(|_| None).collect(),
        results,
        trouble: false,
    };
    for note in found.notes.iter().chain(&notes) {
        builds.progress.note(note);
    }
    builds.build(planned, args, &request, engine.into(), &signals, out)?;
    // The files are whole; from here on a signal ends kcap as it ends any program.
    drop(signals);

    let (builds, trouble): (Vec<Build>, bool) = (
        builds.builds.into_iter().flatten().collect(),
        builds.trouble,
    );
    let code = exit_code(&builds, trouble);
    if args.stdout_is_taken() {
        return Ok(code);
    }
    match show(args, builds, out) {
        Err(e) if !super::is_broken_pipe(&e) => Err(e),
        _ => Ok(code),
    }
}

impl Args {
    /// What goes to standard output.
    ///
    /// # Errors
    /// Where `--wrap` does not go with it.
    pub(super) fn format(&self) -> Result<Format> {
        (self.format.wrapped(self.wrap)).context("--wrap is for --format kubernetes")
    }

    pub(super) fn show(&self) -> Show {
        match (self.quiet, self.verbose) {
            (true, _) => Show::Errors,
            (false, 0) => Show::Progress,
            (false, _) => Show::Output,
        }
    }

    /// Whether the report or the capture goes to standard output.
    pub(super) fn stdout_is_taken(&self) -> bool {
        [&self.report, &self.capture]
            .into_iter()
            .flatten()
            .any(|path| output::is_stdout(path))
    }
}

/// Builds while they run, and what became of them.
struct Builds {
    progress: Progress,
    /// By position; `None` as long as a build has not ended.
    builds: Vec<Option<Build>>,
    results: Results,
    /// Something was wrong that is no build's fault.
    trouble: bool,
}

impl Builds {
    /// Builds all that can be.
    ///
    /// # Errors
    /// Where none could be started, for want of what tracing needs.
    fn build(
        &mut self,
        planned: Vec<Planned>,
        args: &Args,
        request: &Request,
        engine: Arc<dyn Engine>,
        signals: &Signals,
        out: &mut dyn Write,
    ) -> Result<()> {
        let names: Vec<String> = planned.iter().map(|p| p.shown.clone()).collect();
        let mut jobs = vec![];
        // By a job's position, that of its Dockerfile.
        let mut positions = vec![];
        for (position, planned) in planned.into_iter().enumerate() {
            let job =
                (planned.ready).and_then(|ready| plan::job(&planned.path, ready, request, &engine));
            match job {
                Ok(job) => {
                    jobs.push(job);
                    positions.push(position);
                }
                Err(why) => {
                    let why = format!("{why:#}");
                    self.progress.say(&why);
                    self.builds[position] = Some(Build::unseen(planned.shown, Status::Error, why));
                }
            }
        }
        let options = args.tracing.options(args.verbose);
        let mut queue = Queue {
            jobs: jobs.into_iter(),
            positions: &positions,
            names: &names,
            builds: self,
            out,
        };
        let traced = record::build(&mut queue, args.jobs, &options, signals);
        let Err(Failure::Command(_, why) | Failure::Kcap(why)) = traced else {
            return Ok(());
        };
        if positions.iter().all(|at| self.builds[*at].is_none()) {
            return Err(why);
        }
        // What has ended has its result.
        self.trouble = true;
        let why = format!("{why:#}");
        for at in positions {
            if self.builds[at].is_none() {
                self.progress.ended(at, &why, true);
                let name = names[at].clone();
                self.builds[at] = Some(Build::unseen(name, Status::Error, why.clone()));
            }
        }
        Ok(())
    }

    /// Writes and says what came of a build.
    fn ended(
        &mut self,
        position: usize,
        name: String,
        ended: Result<Capture, Failure>,
        out: &mut dyn Write,
    ) -> Build {
        let capture = match ended {
            Ok(capture) => capture,
            Err(failure) => {
                let (status, why) = match failure {
                    // As a shell says it, ended by a signal.
                    Failure::Command(code, why) if code > 128 => (Status::NotStarted, why),
                    Failure::Command(_, why) | Failure::Kcap(why) => {
                        self.trouble = true;
                        (Status::Error, why)
                    }
                };
                let why = format!("{why:#}");
                (self.progress).ended(position, &why, status == Status::Error);
                return Build::unseen(name, status, why);
            }
        };
        let report = interpret(&capture);
        if report.subject.executor.is_none() {
            // What was seen then is the engine's own work, and no build.
            let (status, why) = unstarted(&report);
            self.trouble |= status == Status::Error;
            (self.progress).ended(position, &why, status == Status::Error);
            return Build::unseen(name, status, why);
        }
        let written = self.results.write(position, Some(&capture), &report, out);
        for error in written.into_iter().filter_map(Result::err) {
            if !super::is_broken_pipe(&error) {
                self.trouble = true;
                self.progress.say(&format!("{error:#}"));
            }
        }
        let build = Build::traced(name, report);
        let line = summary::line(&build);
        (self.progress).ended(position, &line, build.status == Status::Failed);
        build
    }
}

/// Builds that wait for their turn.
struct Queue<'a> {
    jobs: vec::IntoIter<Job>,
    /// By a job's position, that of its Dockerfile.
    positions: &'a [usize],
    names: &'a [String],
    builds: &'a mut Builds,
    out: &'a mut dyn Write,
}

impl record::Builds for Queue<'_> {
    fn next(&mut self) -> Option<Job> {
        self.jobs.next()
    }

    fn on(&mut self, job: usize, event: Event) {
        let position = self.positions[job];
        match event {
            Event::Ended(ended) => {
                let name = self.names[position].clone();
                let build = (self.builds).ended(position, name, *ended, self.out);
                self.builds.builds[position] = Some(build);
            }
            event => self.builds.progress.event(position, &event),
        }
    }
}

/// Why no executor was seen in a container that was to have one.
fn unstarted(report: &Report) -> (Status, String) {
    match (report.interrupted, report.subject.exit_status) {
        (true, _) => (
            Status::NotStarted,
            "interrupted before the executor was started".to_owned(),
        ),
        (false, Some(0)) => (
            Status::Error,
            "the container ended well, and no executor was seen in it: give its path there with \
             --match"
                .to_owned(),
        ),
        (false, status) => {
            let status = status.map_or("?".to_owned(), |status| status.to_string());
            let why = format!(
                "the container did not start its executor (exit code {status}): see what the \
                 engine says, or give the executor's path there with --match"
            );
            (Status::Error, why)
        }
    }
}

fn exit_code(builds: &[Build], trouble: bool) -> u8 {
    let incomplete = |build: &Build| build.report.as_ref().is_some_and(|r| !r.complete);
    if trouble {
        exit::USAGE
    } else if builds.iter().any(|build| build.status != Status::Built) {
        exit::NO
    } else if builds.iter().any(incomplete) {
        exit::INCOMPLETE
    } else {
        OK
    }
}

/// The report of one Dockerfile, the matrix of several.
pub(super) fn show(args: &Args, mut builds: Vec<Build>, out: &mut dyn Write) -> Result<()> {
    let format = args.format()?;
    let mut out = io::BufWriter::new(out);
    let style = args.color.style();
    let written = if builds.len() > 1 {
        render::write_matrix(&Matrix::of(builds), format, style, &mut out)
    } else if let Some(report) = builds.pop().and_then(|build| build.report) {
        render::write(&report, format, style, &mut out)
    } else {
        Ok(())
    };
    (written.and_then(|()| out.flush()))
        .context("cannot write to standard output (-o and --report write to files)")
}

#[cfg(test)]
#[path = "build/tests.rs"]
mod tests;

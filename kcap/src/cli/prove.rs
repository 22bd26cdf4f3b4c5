//! `kcap prove -f DOCKERFILE...`: build again with less, until the smallest set is found that gives the
//! same image.

mod bases;
mod budget;
mod kubernetes;
mod progress;

use std::{
    env, fs,
    io::Write,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use self::{
    bases::Bases,
    progress::{Outcomes, Progress},
};
use super::{
    build::{
        self, engine, find, flags, names,
        plan::{self, Planned, Ready},
        request,
        results::Results,
    },
    exit,
};
use crate::{
    combine::{Build, Status},
    launch::{Engine, Request, arguments, oci::cache::Cache},
    prove::{
        context,
        driver::{self, Subject},
        proof::{Budget, Proof},
        store::{FRESH, Inputs, Store},
    },
    record::{Failure, Signals, masked},
    report::{Proven, Repeat},
};

/// Exit code of success.
const OK: u8 = 0;

/// Arguments of `kcap prove`.
#[derive(Debug, clap::Args)]
// Those of `build` are a group of that name already.
#[group(skip)]
#[command(after_help = "\
Examples:
  kcap prove -f services/api/Dockerfile
  kcap prove -f services/api/Dockerfile --jobs 2 --report proof.json
  kcap prove -f Dockerfile --budget 1
  kcap prove -f . -o proofs --budget 30m

The first build is traced with the starting set: Docker's default, or what --cap-drop and \
--cap-add say. It is built again with what the trace is sure of, and without each member of \
that: a set is proved where the build gives the same image with it, and without any one member \
fails or gives another. What equal builds differ in is found by building with the starting set \
twice. Nothing is pushed.

Replays are kept: an interrupted proof goes on where it was, and one that is made again builds \
only what is not known.

Exit code: 0 every set was proved (with --budget: was seen to be enough), 1 a build fails with \
its starting set or is unstable, 2 bad usage, input or environment, 3 not all was proved, for \
want of time or for a signal, or a report is incomplete.")]
pub struct Args {
    /// Most builds beside the first, or how long to go on: 5, 90s, 30m, 2h
    #[arg(long, value_name = "N|TIME", value_parser = budget::parse)]
    budget: Option<Budget>,
    /// Build all anew, whatever was kept of earlier proofs
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    build: build::Args,
    #[command(flatten)]
    cluster: kubernetes::Args,
}

/// Runs it; gives the exit code.
///
/// # Errors
/// Bad usage, input or environment that was found before the first build: exit code 2.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let given = &args.build;
    given.format()?;
    if given.engine == engine::Kind::Kubernetes {
        return kubernetes::run(args, out);
    }
    args.cluster.none()?;
    flags::check(&given.kaniko, false)?;
    flags::check_replayed(&given.kaniko)?;
    if given.push {
        bail!("--push: a proof builds many times and pushes nothing; push with kcap build");
    }
    let request = request::request(given)?;
    let found = find::find(&given.files)?;
    let planned = plan::plan(given.context.as_deref(), &found.paths)?;
    let results = Results::open(
        names::of(&found.paths, &env::current_dir().unwrap_or_default()),
        given.out.as_deref(),
        given.report.as_deref(),
        given.capture.as_deref(),
    )?;
    let (engine, engine_name, notes) = engine::open(given.engine)?;
    let engine: Arc<dyn Engine> = engine.into();
    let signals = Signals::block().context("cannot listen for signals")?;

    let mut progress = Progress::new(given.show());
    for note in found.notes.iter().chain(&notes) {
        progress.note(note);
    }
    let mut builds: Vec<Option<Build>> = planned.iter().map(|_| None).collect();
    let mut subjects = vec![];
    // By a subject's position, that of its Dockerfile, and the path as shown.
    let mut shown = vec![];
    let ready = (planned.iter()).filter_map(|planned| planned.ready.as_ref().ok());
    let bases = Bases::fetch(ready, &request, engine_name, &mut |line| {
        progress.note(&line)
    });
    // A pull that a signal ended is no reason to go on without what it was to bring.
    if signals.pending().is_some() {
        bail!("interrupted before the first build");
    }
    let setting = Setting {
        args,
        request: Request {
            unshown: bases.flags(),
            secrets: bases.secrets(),
            ..request.clone()
        },
        cache: Cache::find().context("a proof needs a place for replays")?,
        engine: engine_name,
        executor: engine.identify(&request.executor)?,
        command: masked(&env::args_os().collect::<Vec<_>>()).0,
        bases: &bases,
    };
    for (at, planned) in planned.into_iter().enumerate() {
        let Planned {
            path,
            shown: name,
            ready,
        } = planned;
        match ready.and_then(|ready| setting.subject(&path, ready)) {
            Ok(subject) => {
                subjects.push(subject);
                shown.push((at, name));
            }
            Err(why) => {
                let why = format!("{why:#}");
                progress.say(&format!("{name}: {why}"));
                builds[at] = Some(Build::unseen(name, Status::Error, why));
            }
        }
    }
    let mut outcomes = Outcomes {
        progress,
        shown,
        builds,
        results,
        out,
        trouble: false,
        keep_hint: &|subject, set| setting.keep_hint(subject, set),
    };
    outcomes.begin(&subjects);
    let options = given.tracing.options(given.verbose);
    let proved = driver::prove(
        &mut subjects,
        &engine,
        given.jobs,
        &options,
        &signals,
        &mut outcomes,
    );
    // The files are whole; from here on a signal ends kcap as it ends any program.
    drop(signals);
    conclude(args, outcomes, proved, true)
}

/// Shows what became of all proofs; gives the exit code.
///
/// # Errors
/// Why nothing could be built, or what standard output says.
fn conclude(
    args: &Args,
    mut outcomes: Outcomes<'_>,
    proved: Result<(), Failure>,
    traced: bool,
) -> Result<u8> {
    if let Err(Failure::Command(_, why) | Failure::Kcap(why)) = proved {
        if outcomes.builds.iter().flatten().all(|b| b.report.is_none()) {
            return Err(why);
        }
        outcomes.trouble = true;
    }
    let builds: Vec<Build> = outcomes.builds.into_iter().flatten().collect();
    let code = exit_code(&builds, outcomes.trouble, args.budget.is_some(), traced);
    if args.build.stdout_is_taken() {
        return Ok(code);
    }
    match build::show(&args.build, builds, outcomes.out) {
        Err(e) if !super::is_broken_pipe(&e) => Err(e),
        _ => Ok(code),
    }
}

/// The exit code; where builds were not traced, nothing can be lost of a trace.
fn exit_code(builds: &[Build], trouble: bool, limited: bool, traced: bool) -> u8 {
    let state = |build: &Build| {
        let proof = build
            .report
            .as_ref()
            .and_then(|report| report.proof.as_ref());
        proof.map(|proof| proof.state)
    };
    let is_no = |build: &Build| {
        build.status == Status::Failed
            || matches!(state(build), Some(Proven::Failed | Proven::Unstable))
    };
    let is_less = |build: &Build| match state(build) {
        Some(Proven::Proved) => {
            traced && build.report.as_ref().is_none_or(|report| !report.complete)
        }
        Some(Proven::Sufficient) => !limited,
        _ => true,
    };
    if trouble || builds.iter().any(|build| build.status == Status::Error) {
        exit::USAGE
    } else if builds.iter().any(is_no) {
        exit::NO
    } else if builds.iter().any(is_less) {
        exit::INCOMPLETE
    } else {
        OK
    }
}

/// What all proofs of a run have in common.
struct Setting<'a> {
    args: &'a Args,
    request: Request,
    cache: Cache,
    engine: &'static str,
    executor: String,
    /// The command line, without secrets.
    command: Vec<String>,
    bases: &'a Bases,
}

impl Setting<'_> {
    fn subject(&self, path: &Path, ready: Ready) -> Result<Subject> {
        let request = ready.request(path, &self.request)?;
        let mut hash = Sha256::new();
        hash.update(request.dockerfile.as_os_str().as_bytes());
        hash.update([0]);
        hash.update(ready.text());
        // Kaniko looks for it beside the Dockerfile, and it may be outside the context.
        let mut ignored = request.dockerfile.clone().into_os_string();
        ignored.push(".dockerignore");
        if let Ok(ignored) = fs::read(ignored) {
            hash.update([0]);
            hash.update(ignored);
        }
        let dockerfile = hex(&hash.finalize());
        let context = context::digest(&request.context)?;
        let (bases, all_known) = self.bases.of(&ready, &request);
        let inputs = Inputs {
            dockerfile: &dockerfile,
            context: &context,
            engine: self.engine,
            executor: &self.executor,
            bases: &bases,
            given: &given(&request, &self.args.build),
            start: request.capabilities,
        };
        let mut store = Store::open(&self.cache.proofs(), &inputs)?;
        if self.args.fresh {
            store.clear();
        }
        let hint = self.hint(&request).unwrap_or(0);
        let budget = self.args.budget.unwrap_or_default();
        // What a name means can change at any time, where kcap does not know it.
        let fresh = if all_known { FRESH } else { Duration::ZERO };
        let mut proof = Proof::new(request.capabilities, budget, store, hint, fresh);
        proof.secrets = secrets(&request);
        proof.repeat = Repeat {
            command: self.command.clone(),
            executor: Some(self.executor.clone()),
            context_sha256: Some(context),
            bases,
            bases_from: if self.bases.are_served() {
                "kept"
            } else {
                "registry"
            }
            .into(),
            cache: "off".into(),
            ..Repeat::default()
        };
        Ok(Subject {
            dockerfile: (path.to_owned(), ready.text().to_owned()),
            context: ready.context(),
            request,
            proof,
        })
    }

    /// Where what was proved last of a Dockerfile is kept: a proof of a changed one begins with it.
    fn hint_file(&self, request: &Request) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(request.dockerfile.as_os_str().as_bytes());
        hash.update([0]);
        hash.update(request.context.as_os_str().as_bytes());
        let name = hex(&hash.finalize()[..16]);
        self.cache.proofs().join(format!("last-{name}"))
    }

    fn hint(&self, request: &Request) -> Option<u64> {
        let text = fs::read_to_string(self.hint_file(request)).ok()?;
        u64::from_str_radix(text.trim(), 16).ok()
    }

    fn keep_hint(&self, request: &Request, set: u64) {
        // Without it, a later proof may take a build or two more.
        let _ = fs::write(self.hint_file(request), format!("{set:x}\n"));
    }
}

/// Values that must not be shown: those of build arguments and variables.
fn secrets(request: &Request) -> Vec<String> {
    let mut secrets = arguments::kaniko_secrets(&request.flags);
    let values = request.environment.iter();
    secrets.extend(values.map(|(_, value)| value.to_string_lossy().into_owned()));
    secrets.retain(|secret| secret.len() >= arguments::LEAST);
    secrets
}

/// All that was given and bears on what a build does, values of variables included.
fn given(request: &Request, args: &build::Args) -> Vec<String> {
    let lossy = |text: &std::ffi::OsString| text.to_string_lossy().into_owned();
    let mut all: Vec<String> = request.flags.iter().map(lossy).collect();
    all.push("--".into());
    all.extend(request.engine_flags.iter().map(lossy));
    all.push("--".into());
    let variables = request.environment.iter();
    all.extend(variables.map(|(name, value)| format!("{name}={}", value.to_string_lossy())));
    all.push(format!("{:?} {:?}", args.seccomp, request.network));
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

//! `kcap prove --engine kubernetes`: replays as Jobs of a cluster, made from the user's own pod. Nothing is
//! traced: what is expected comes from reports that others made of the same builds.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    io::Write,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::{
    conclude, hex,
    progress::{Outcomes, Progress},
};
use crate::{
    cli::build::{self, capabilities, find, flags, names, plan, results::Results},
    combine::{Build, Status, merge},
    input::{self, Keep},
    launch::{
        Executor, Request, arguments,
        kubernetes::{Cluster, Files, Pod, ROOM, Real, pack, small},
    },
    prove::{
        context,
        driver::Subject,
        jobs::{self, Patience},
        proof::Proof,
        store::{self, Inputs, Store},
    },
    record::{Signals, masked},
    report::{Repeat, Report},
};

/// What is said of the cluster.
#[derive(Debug, clap::Args)]
// Those of `prove` are a group of that name already.
#[group(skip)]
#[command(next_help_heading = "With --engine kubernetes")]
pub struct Args {
    /// The pod that runs Kaniko: a Pod, Job, CronJob or PodTemplate, in YAML or JSON
    #[arg(long, value_name = "FILE")]
    pod: Option<PathBuf>,
    /// Which of its containers runs Kaniko, where that cannot be told
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Where the images of replays are pushed to, and read from: a repository
    #[arg(long, value_name = "REPOSITORY")]
    results: Option<String>,
    /// What a trace of these builds says, from kcap watch, build or run: reports, or folders of them
    #[arg(long, value_name = "REPORT")]
    seen: Vec<PathBuf>,
    /// The cluster, as kubectl's configuration calls it
    #[arg(long, value_name = "CONTEXT")]
    kube_context: Option<String>,
    /// The namespace of the Jobs; without it, the pod's, else kubectl's
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

impl Args {
    /// Checks that nothing of it is given, for engines that are no cluster.
    ///
    /// # Errors
    /// Where something is.
    pub fn none(&self) -> Result<()> {
        let given = [
            ("pod", self.pod.is_some()),
            ("container", self.container.is_some()),
            ("results", self.results.is_some()),
            ("seen", !self.seen.is_empty()),
            ("kube-context", self.kube_context.is_some()),
            ("namespace", self.namespace.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => bail!("--{flag} is for --engine kubernetes"),
            None => Ok(()),
        }
    }
}

/// Runs it; gives the exit code.
///
/// # Errors
/// Bad usage, input or environment that was found before the first build: exit code 2.
pub fn run(args: &super::Args, out: &mut dyn Write) -> Result<u8> {
    let given = &args.build;
    check(given)?;
    let read = |path: &Path| -> Result<Pod> {
        let text = small(path)?;
        let text = str::from_utf8(&text).context("it is not UTF-8");
        text.and_then(|text| Pod::read(text, args.cluster.container.as_deref()))
            .with_context(|| format!("--pod {}", path.display()))
    };
    let path = args.cluster.pod.as_deref().context(
        "--engine kubernetes takes --pod FILE, the pod that runs Kaniko, and --results REPOSITORY, where \
         its images go",
    )?;
    let pod = read(path)?;
    let repository = args.cluster.results.as_deref().context(
        "--engine kubernetes takes --results REPOSITORY: where the images of replays are pushed to",
    )?;
    let own = pod.builds();
    let found = match given.files[..] {
        [] => find::Found::default(),
        _ => find::find(&given.files)?,
    };
    let paths = match found.paths[..] {
        [] => vec![
            own.0
                .as_ref()
                .map_or_else(|| "Dockerfile".into(), PathBuf::from),
        ],
        _ => found.paths.clone(),
    };
    let results = Results::open(
        names::of(&paths, &env::current_dir().unwrap_or_default()),
        given.out.as_deref(),
        given.report.as_deref(),
        None,
    )?;
    let start = if given.cap_drop.is_empty() && given.cap_add.is_empty() {
        pod.capabilities()
    } else {
        capabilities::mask(&given.cap_drop, &given.cap_add)?
    };
    let flags: Vec<String> = (given.kaniko.iter())
        .map(|flag| flag.to_str().map(str::to_owned))
        .collect::<Option<_>>()
        .context("a flag for Kaniko is not UTF-8")?;
    let seen = Seen::read(&args.cluster.seen)?;
    let mut progress = Progress::new(given.show());
    for note in found.notes.iter().chain(&pod.notes) {
        progress.note(note);
    }
    let real = Arc::new(Real::open(
        pod,
        repository,
        args.cluster.kube_context.as_deref(),
        args.cluster.namespace.as_deref(),
        flags,
    )?);
    let setting = Setting {
        args,
        cluster: &real,
        proofs: store::own_place().context("a proof needs a place for replays")?,
        start,
        command: masked(&env::args_os().collect::<Vec<_>>()).0,
        seen,
    };
    let signals = Signals::block().context("cannot listen for signals")?;
    let mut builds: Vec<Option<Build>> = paths.iter().map(|_| None).collect();
    let (mut subjects, mut files, mut shown) = (vec![], vec![], vec![]);
    if found.paths.is_empty() {
        subjects.push(setting.own(path, &paths[0], own.1, &mut progress)?);
        shown.push((0, paths[0].display().to_string()));
    } else {
        let planned = plan::plan(given.context.as_deref(), &found.paths)?;
        for (at, planned) in planned.into_iter().enumerate() {
            let has_context = own.1.is_some() && given.context.is_none();
            let made = (planned.ready)
                .and_then(|ready| setting.given(&planned.path, &ready, has_context, &mut progress));
            match made {
                Ok((subject, own)) => {
                    subjects.push(subject);
                    files.push(own);
                    shown.push((at, planned.shown));
                }
                Err(why) => {
                    let why = format!("{why:#}");
                    progress.say(&format!("{}: {why}", planned.shown));
                    builds[at] = Some(Build::unseen(planned.shown, Status::Error, why));
                }
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
        // What is to be expected comes from reports.
        keep_hint: &|_, _| {},
    };
    outcomes.begin(&subjects);
    let cluster: Arc<dyn Cluster> = Arc::clone(&real) as _;
    let proved = jobs::prove(
        &mut subjects,
        &cluster,
        &files,
        given.jobs,
        Patience::default(),
        &signals,
        &mut outcomes,
    );
    // The files are whole; from here on a signal ends kcap as it ends any program.
    drop(signals);
    conclude(args, outcomes, proved, false)
}

/// Checks what goes with a cluster of what other engines take.
fn check(given: &build::Args) -> Result<()> {
    flags::check(&given.kaniko, false)?;
    flags::check_replayed(&given.kaniko)?;
    for flag in ["destination", "no-push", "digest-file"] {
        let is_this =
            |given: &OsString| flags::is(given, flag, (flag == "destination").then_some(b'd'));
        ensure!(
            !given.kaniko.iter().any(is_this),
            "Kaniko's --{flag} is set by kcap: images of replays go to --results"
        );
    }
    for (flag, is_given) in [
        ("push", given.push),
        ("env", !given.env.is_empty()),
        ("engine-flag", !given.engine_flags.is_empty()),
        ("network", given.network.is_some()),
        ("capture", given.capture.is_some()),
    ] {
        ensure!(
            !is_given,
            "--{flag} does not go with --engine kubernetes: nothing is traced there, and all else is said \
             by the pod of --pod"
        );
    }
    ensure!(
        given.context.is_none() || !given.files.is_empty(),
        "-c goes with -f: without a Dockerfile from here, the pod has its own context"
    );
    Ok(())
}

/// What all proofs of a run have in common.
struct Setting<'a> {
    args: &'a super::Args,
    cluster: &'a Real,
    /// Where replays are kept.
    proofs: PathBuf,
    start: u64,
    /// The command line, without secrets.
    command: Vec<String>,
    seen: Seen,
}

impl Setting<'_> {
    /// The build of a Dockerfile that the pod itself has.
    fn own(
        &self,
        pod: &Path,
        dockerfile: &Path,
        context: Option<String>,
        progress: &mut Progress,
    ) -> Result<Subject> {
        // What is in an address before the host lets one in.
        let context = arguments::masked(&[&context.unwrap_or_default()], &[])
            .shown
            .concat();
        let seen = self.seen.of(dockerfile, None, progress);
        let place = fs::canonicalize(pod).unwrap_or_else(|_| pod.to_owned());
        // What the pod brings can be another each time: kept replays count once a build of now agrees.
        let proof = self.proof("", "", seen, Duration::ZERO)?;
        Ok(self.subject((dockerfile.to_owned(), vec![]), context, &place, proof))
    }

    /// The build of a Dockerfile from here, and its files.
    fn given(
        &self,
        path: &Path,
        ready: &plan::Ready,
        pod_has_context: bool,
        progress: &mut Progress,
    ) -> Result<(Subject, Files)> {
        let place = fs::canonicalize(path)
            .with_context(|| format!("cannot read the Dockerfile {}", path.display()))?;
        let mut ignored = place.clone().into_os_string();
        ignored.push(".dockerignore");
        let ignored = PathBuf::from(ignored);
        let files = Files {
            dockerfile: ready.text().to_vec(),
            ignore: ignored.exists().then(|| small(&ignored)).transpose()?,
            context: (!pod_has_context)
                .then(|| pack(ready.folder()))
                .transpose()?,
        };
        ensure!(
            files.size() <= ROOM,
            "its Dockerfile and context have no room in a ConfigMap, which holds {} KB: put the context where \
             the pod can read it, and name it by --context in the pod's args",
            ROOM / 1000
        );
        let mut hash = Sha256::new();
        hash.update(place.as_os_str().as_bytes());
        for file in [Some(&files.dockerfile), files.ignore.as_ref()] {
            hash.update([0]);
            hash.update(file.map_or(&[][..], Vec::as_slice));
        }
        let context = match &files.context {
            None => String::new(),
            Some(_) => context::digest(ready.folder())?,
        };
        let sha256 = hex(&Sha256::digest(ready.text()));
        let seen = self.seen.of(path, Some(&sha256), progress);
        let proof = self.proof(&hex(&hash.finalize()), &context, seen, Duration::ZERO)?;
        let text = (path.to_owned(), ready.text().to_owned());
        Ok((self.subject(text, ready.context(), &place, proof), files))
    }

    fn proof(
        &self,
        dockerfile: &str,
        context: &str,
        seen: Option<Report>,
        fresh: Duration,
    ) -> Result<Proof> {
        let executor = self.cluster.pod.image();
        let inputs = Inputs {
            dockerfile,
            context,
            engine: "kubernetes",
            executor,
            bases: &BTreeMap::new(),
            given: &self.cluster.identity(),
            start: self.start,
        };
        let mut store = Store::open(&self.proofs, &inputs)?;
        if self.args.fresh {
            store.clear();
        }
        let budget = self.args.budget.unwrap_or_default();
        let mut proof = Proof::new(self.start, budget, store, 0, fresh).untraced(seen);
        proof.secrets = self.cluster.secrets();
        proof.repeat = Repeat {
            command: self.command.clone(),
            executor: Some(executor.to_owned()),
            context_sha256: Some(context.to_owned()).filter(|digest| !digest.is_empty()),
            bases_from: "registry".into(),
            cache: "off".into(),
            ..Repeat::default()
        };
        Ok(proof)
    }

    fn subject(
        &self,
        dockerfile: (PathBuf, Vec<u8>),
        context: String,
        place: &Path,
        proof: Proof,
    ) -> Subject {
        Subject {
            dockerfile,
            context,
            request: Request {
                dockerfile: place.to_owned(),
                flags: self.args.build.kaniko.clone(),
                ..Request::new(
                    Executor::Image(self.cluster.pod.image().to_owned()),
                    self.start,
                )
            },
            proof,
        }
    }
}

/// Reports of the same builds, made where they were traced.
struct Seen(Vec<Build>);

impl Seen {
    fn read(paths: &[PathBuf]) -> Result<Self> {
        if paths.is_empty() {
            return Ok(Self(vec![]));
        }
        let many = input::builds(paths, Keep::Reports).context("--seen")?;
        Ok(Self(merge(many.builds)))
    }

    /// The report of a Dockerfile: of these bytes, else at this path, else the only one where the pod has
    /// its own.
    fn of(&self, path: &Path, sha256: Option<&str>, progress: &mut Progress) -> Option<Report> {
        let reports = || self.0.iter().filter_map(|build| build.report.as_ref());
        let digest = |report: &Report| report.subject.dockerfile_sha256.clone();
        let same = reports().find(|report| sha256.is_some() && digest(report).as_deref() == sha256);
        let mut named = reports().filter(|report| {
            let given = report.subject.dockerfile.as_deref().map(Path::new);
            given.is_some_and(|given| given == path || given.ends_with(path))
        });
        // Of several it cannot be told which is meant.
        let named = match (named.next(), named.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        };
        let only = (sha256.is_none() && reports().count() == 1)
            .then(|| reports().next())
            .flatten();
        let found = match same.or(named).or(only) {
            Some(report)
                if sha256.is_some() && digest(report).is_some_and(|of| Some(&*of) != sha256) =>
            {
                progress.note(&format!(
                    "{}: the report of --seen is of another version of it: its capabilities are tried first, \
                     and nothing is said of its lines",
                    path.display()
                ));
                Some(without_places(report.clone()))
            }
            found => found.cloned(),
        };
        if found.is_none() {
            progress.note(&format!(
                "{}: no report of --seen says what it asks for, so that every member of the starting set \
                 is tried: this takes many builds",
                path.display()
            ));
        }
        found
    }
}

/// What a report says of capabilities, and not where.
fn without_places(mut report: Report) -> Report {
    report.steps.clear();
    report.coverage = Default::default();
    for capability in &mut report.capabilities {
        capability.steps.clear();
        capability.evidence.clear();
    }
    for decision in &mut report.decisions {
        decision.steps.clear();
    }
    report
}

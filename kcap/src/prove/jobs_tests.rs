//! A cluster of known truth: a build fails without what its Dockerfile says it needs, and gives another image
//! without what it says changes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Mutex,
    thread,
};

use anyhow::bail;
use tempfile::TempDir;

use super::*;
use crate::{
    capture::Capture,
    compare::made::{self, Packed},
    interpret::interpret,
    launch::{
        Executor as Runs, Request,
        kubernetes::{End, Job, Seen},
    },
    prove::{
        judge::Came,
        planner::Set,
        proof::{Budget, Proof},
        store::{Inputs, Store},
    },
    record::Event,
    report::{Cap, Proven, Report},
};

/// What happens to builds of one Dockerfile.
#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    /// Without these it fails.
    needs: Set,
    /// Without these its image is another.
    changes: Set,
    /// This many of its pods are removed while they build.
    removed: usize,
}

/// What happened so far.
#[derive(Default)]
struct History {
    /// By Job: what its builds come to, and how often it was looked at.
    jobs: BTreeMap<String, (Vec<Fate>, usize)>,
    removed: usize,
    /// How many builds each Job has.
    sizes: Vec<usize>,
    ended: BTreeSet<String>,
    images: BTreeSet<String>,
    cleared: bool,
}

/// What a pod comes to.
#[derive(Clone)]
enum Fate {
    Ends(End),
    Vanishes,
}

struct Known {
    truth: Vec<Truth>,
    /// No pod starts, for this reason.
    refuses: Option<&'static str>,
    state: Mutex<History>,
}

impl Known {
    fn new(truth: &[Truth]) -> Self {
        Self {
            truth: truth.to_vec(),
            refuses: None,
            state: Mutex::default(),
        }
    }
}

fn digest(same: bool) -> String {
    format!("sha256:{}", if same { "a" } else { "b" }.repeat(64))
}

impl Cluster for Known {
    fn run(&self) -> &str {
        "kcap-test"
    }

    fn repository(&self) -> &str {
        "r/t"
    }

    fn flags(&self) -> &[String] {
        &[]
    }

    fn image(&self) -> &str {
        "kaniko"
    }

    fn start(&self, job: &Job<'_>) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let builds = job.files.iter().map(|files| {
            let text = str::from_utf8(&files.dockerfile).unwrap();
            let truth = self.truth[text.trim_start_matches("FROM ").parse::<usize>().unwrap()];
            if state.removed < truth.removed {
                state.removed += 1;
                return Fate::Vanishes;
            }
            let fails = job.set & truth.needs != truth.needs;
            let same = job.set & truth.changes == truth.changes;
            Fate::Ends(End {
                exit_status: i32::from(fails),
                started: "2026-11-28T10:00:00Z".into(),
                seconds: 1.0,
                digest: (!fails).then(|| digest(same)),
                log: if fails {
                    vec!["chown: Operation not permitted".into()]
                } else {
                    vec![]
                },
                ..End::default()
            })
        });
        let builds: Vec<Fate> = builds.collect();
        state.sizes.push(builds.len());
        state.jobs.insert(job.name.to_owned(), (builds, 0));
        Ok(())
    }

    fn look(&self) -> Result<Vec<Seen>> {
        use crate::launch::kubernetes::State as Pod;
        let mut state = self.state.lock().unwrap();
        let mut all = vec![];
        for (name, (builds, looks)) in &mut state.jobs {
            *looks += 1;
            for (index, build) in builds.iter().enumerate() {
                let state = match (build, self.refuses, *looks) {
                    (_, Some(_), _) => continue,
                    (_, None, 1) => Pod::Waiting(None),
                    (_, None, 2) => Pod::Running,
                    (Fate::Vanishes, None, _) => continue,
                    (Fate::Ends(end), None, _) => Pod::Ended(end.clone()),
                };
                all.push(Seen {
                    job: name.clone(),
                    index,
                    state,
                });
            }
        }
        Ok(all)
    }

    fn obstacle(&self, _: &str) -> Option<String> {
        self.refuses.map(str::to_owned)
    }

    fn fetch(&self, image: &str, archive: &Path) -> Result<()> {
        let mode = if image == digest(true) { 0o755 } else { 0o644 };
        let layer = Packed::default().mode("f", mode).finish();
        let config = made::config(std::slice::from_ref(&layer));
        let dir = TempDir::new()?;
        fs::copy(made::saved(&dir, "image.tar", &config, &[layer]), archive)?;
        self.state.lock().unwrap().images.insert(image.to_owned());
        Ok(())
    }

    fn forget(&self, image: &str) -> Result<()> {
        if !self.state.lock().unwrap().images.remove(image) {
            bail!("there is no image {image}");
        }
        Ok(())
    }

    fn end(&self, job: &str) -> Result<()> {
        self.state.lock().unwrap().ended.insert(job.to_owned());
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        self.state.lock().unwrap().cleared = true;
        Ok(())
    }
}

#[derive(Default)]
struct Heard {
    reports: BTreeMap<usize, Option<Report>>,
    void: usize,
    notes: Vec<String>,
}

impl Watch for Heard {
    fn started(&mut self, _: usize, _: &Trial) {}

    fn ended(&mut self, _: usize, _: &Trial, came: &Came, _: &str, _: &Proof) {
        self.void += usize::from(*came == Came::Void);
    }

    fn event(&mut self, _: usize, _: &Trial, _: &Event) {}

    fn over(&mut self, subject: usize, _: &Request, proof: &mut Proof) {
        self.reports.insert(subject, proof.report());
    }

    fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }
}

const START: Set = Cap::DOCKER_DEFAULT;

/// What a trace says that was made elsewhere.
fn trace(required: Set) -> Report {
    let mut report = interpret(&Capture::default());
    report.required = Cap::of_mask(required).collect();
    report
}

/// Proves builds of these truths; `seen` is what traces say.
fn proved(known: Known, seen: &[Option<Set>], parallel: usize) -> (Known, Heard) {
    let place = TempDir::new().unwrap();
    let (mut subjects, mut files) = (vec![], vec![]);
    for (at, seen) in seen.iter().enumerate() {
        let text = format!("FROM {at}").into_bytes();
        let inputs = Inputs {
            dockerfile: &at.to_string(),
            context: "",
            engine: "kubernetes",
            executor: "kaniko",
            bases: &BTreeMap::new(),
            given: &[],
            start: START,
        };
        let store = Store::open(place.path(), &inputs).unwrap();
        let proof = Proof::new(START, Budget::All, store, 0, Duration::ZERO);
        subjects.push(Subject {
            dockerfile: ("Dockerfile".into(), text.clone()),
            context: String::new(),
            request: Request::new(Runs::Image("kaniko".into()), START),
            proof: proof.untraced(seen.map(trace)),
        });
        files.push(Files {
            dockerfile: text,
            ..Files::default()
        });
    }
    let patience = Patience {
        look: Duration::from_millis(2),
        quiet: Duration::from_millis(10),
        stuck: Duration::from_millis(60),
        gone: Duration::from_millis(10),
    };
    let cluster = Arc::new(known);
    let asked: Arc<dyn Cluster> = Arc::clone(&cluster) as _;
    let mut heard = Heard::default();
    let signals = Signals::block().unwrap();
    let parallel = NonZeroUsize::new(parallel).unwrap();
    prove(
        &mut subjects,
        &asked,
        &files,
        parallel,
        patience,
        &signals,
        &mut heard,
    )
    .unwrap_or_else(|why| {
        let (Failure::Command(_, why) | Failure::Kcap(why)) = why;
        panic!("{why:#}")
    });
    drop(asked);
    // Threads that read images are over once their results were taken.
    let mut cluster = cluster;
    let known = loop {
        match Arc::try_unwrap(cluster) {
            Ok(known) => break known,
            Err(shared) => cluster = shared,
        }
        thread::yield_now();
    };
    (known, heard)
}

fn state_of(heard: &Heard, subject: usize) -> (Option<Proven>, Set) {
    let report = heard.reports[&subject].as_ref();
    let required = report.iter().flat_map(|report| &report.required);
    (
        report.and_then(|report| Some(report.proof.as_ref()?.state)),
        required.fold(0, |all, cap| all | cap.bit()),
    )
}

const NEEDS: Truth = Truth {
    needs: 1 << Cap::CHOWN.0,
    changes: 1 << Cap::FSETID.0,
    removed: 0,
};

#[test]
fn builds_of_several_are_jobs_together_and_their_sets_are_proved() {
    let truths = [NEEDS, Truth::default(), NEEDS];
    let both = NEEDS.needs | NEEDS.changes;
    let (known, heard) = proved(Known::new(&truths), &[Some(both), Some(0), Some(both)], 2);
    assert_eq!(state_of(&heard, 0), (Some(Proven::Proved), both));
    assert_eq!(state_of(&heard, 1), (Some(Proven::Proved), 0));
    assert_eq!(state_of(&heard, 2), (Some(Proven::Proved), both));
    // Of each, the first with the starting set: those that there is room for are one Job.
    let state = known.state.into_inner().unwrap();
    assert!(
        state.sizes[0] == 2 && state.sizes.iter().all(|size| *size <= 2),
        "{:?}",
        state.sizes
    );
    assert!(state.cleared && state.images.is_empty());
    assert_eq!(state.ended.len(), state.jobs.len());
    // What a trace explains is not made again: two with the starting set, the set twice, and one without
    // each of its members.
    let builds = heard.reports[&0]
        .as_ref()
        .unwrap()
        .proof
        .as_ref()
        .unwrap()
        .builds;
    assert_eq!(builds, 6);
    assert_eq!(heard.notes, [""; 0]);
}

#[test]
fn without_a_trace_each_member_is_tried_and_failures_are_made_again() {
    let (_, heard) = proved(Known::new(&[NEEDS]), &[None], 4);
    assert_eq!(
        state_of(&heard, 0),
        (Some(Proven::Proved), NEEDS.needs | NEEDS.changes)
    );
    let report = heard.reports[&0].as_ref().unwrap();
    assert!(
        report.complete,
        "a set that replays have shown lacks nothing"
    );
    assert!(report.proof.as_ref().unwrap().builds > 12);
}

#[test]
fn a_trace_that_names_too_much_is_corrected_by_replays() {
    let seen = NEEDS.needs | NEEDS.changes | Cap::SETUID.bit();
    let (_, heard) = proved(Known::new(&[NEEDS]), &[Some(seen)], 1);
    assert_eq!(
        state_of(&heard, 0),
        (Some(Proven::Proved), NEEDS.needs | NEEDS.changes)
    );
}

#[test]
fn a_pod_that_is_removed_tells_nothing_and_is_made_again() {
    let truth = Truth {
        removed: 1,
        ..NEEDS
    };
    let both = NEEDS.needs | NEEDS.changes;
    let (_, heard) = proved(Known::new(&[truth]), &[Some(both)], 1);
    assert_eq!(heard.void, 1);
    assert_eq!(state_of(&heard, 0), (Some(Proven::Proved), both));
}

#[test]
fn what_a_policy_forbids_is_said_and_ends_it() {
    for (why, times) in [
        ("pods \"x\" is forbidden: violates PodSecurity", 0),
        ("0/1 nodes", 1),
    ] {
        let known = Known {
            refuses: Some(why),
            ..Known::new(&[NEEDS])
        };
        let (known, heard) = proved(known, &[Some(NEEDS.needs)], 1);
        assert!(heard.reports[&0].is_none());
        assert!(heard.void >= 1);
        // What may mend itself is told, and waited for.
        let told = heard.notes.iter().filter(|line| line.contains(why));
        assert!(told.count() >= times);
        assert!(known.state.into_inner().unwrap().cleared);
    }
}

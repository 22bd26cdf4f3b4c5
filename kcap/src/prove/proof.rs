//! The proof of one Dockerfile, as it goes on: builds are wanted, come in, are judged and kept.

mod budget;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;

pub use self::budget::Budget;
use super::{
    account::{self, Circumstances, End},
    judge::{Came, Content, Given, Replay},
    planner::{Next, Outcome, Planner, Purpose, Set, Stuck, Trial},
    store::Store,
    untraced::{self, Trace},
};
use crate::{
    capture::Capture,
    compare::{self, Image, Layers, Noise, differences},
    interpret::interpret,
    record::Failure,
    report::{Cap, Proven, Repeat, Report},
};

/// Builds with the starting set, at most: those whose images still differ in new ways by then are
/// unstable.
const REFERENCES: usize = 4;
/// With how many of them a difference in content alone is taken for one.
const CONTENT: usize = 3;

/// The proof of one Dockerfile.
pub struct Proof {
    start: Set,
    planner: Planner,
    budget: Budget,
    began: Instant,
    /// Replays in the order in which they ended.
    replays: Vec<Replay>,
    /// What equal builds differ in.
    noise: Noise,
    /// The first image of a build with the starting set.
    reference: Option<Image>,
    /// Its layers' files, which other images share.
    layers: Layers,
    /// What was seen of that build.
    observed: Option<Report>,
    /// Sets that are being built with.
    running: Vec<Set>,
    /// Sets whose replays wait for another build with the starting set to be judged.
    undecided: Vec<Set>,
    /// How many builds with the starting set are wanted.
    references: usize,
    /// The kept replays are of another day: they count once a build of today agrees with them.
    stale: bool,
    /// Needed in an earlier proof, although no trace said so for sure.
    hint: Set,
    started: usize,
    /// Builds that the budget does not count: the first, which is traced in any case.
    free: usize,
    store: Store,
    end: Option<End>,
    /// Whether its builds are traced.
    trace: Trace,
    /// Texts that must not be shown.
    pub secrets: Vec<String>,
    /// What was seen of the build whose report is the proof's.
    pub capture: Option<Capture>,
    /// What it takes to make these builds again.
    pub repeat: Repeat,
}

/// What became of a build.
pub enum Ended {
    /// It was carried out: what was seen of it.
    Built(Box<Capture>),
    /// It was carried out, and nothing was traced.
    Untraced(Box<Report>),
    /// It was not.
    Failed(Failure),
}

impl Proof {
    /// Begins, with what is kept in the store.
    /// Those that are older than `fresh` count once a build of now agrees with them.
    pub fn new(start: Set, budget: Budget, store: Store, hint: Set, fresh: Duration) -> Self {
        let mut proof = Self {
            start,
            planner: Planner::new(start),
            budget,
            began: Instant::now(),
            replays: vec![],
            noise: Noise::default(),
            reference: None,
            layers: Layers::default(),
            observed: None,
            running: vec![],
            undecided: vec![],
            // A second one tells what equal builds differ in; for less than that there is no use.
            references: if matches!(budget, Budget::Builds(..3)) {
                1
            } else {
                2
            },
            stale: false,
            hint,
            started: 0,
            free: 1,
            store,
            end: None,
            trace: Trace::Each,
            secrets: vec![],
            capture: None,
            repeat: Repeat::default(),
        };
        proof.resume(fresh);
        proof.judge();
        proof
    }

    /// Its builds are not traced. What a trace of the same build says that was made elsewhere, where there
    /// is one: what it is sure of is tried first, and explains what fails without it.
    pub fn untraced(mut self, elsewhere: Option<Report>) -> Self {
        self.trace = Trace::Elsewhere(elsewhere.map(Box::new));
        for replay in &mut self.replays {
            replay.supposed = self.trace.supposed(replay.mask());
        }
        if let Some(first) = self.observed.take() {
            self.observe(first);
        }
        self.judge();
        self
    }

    /// What the first build that ended well is known to ask for, by its own trace or another's.
    fn observe(&mut self, own: Report) {
        let report = self.trace.of(own);
        if self.trace.is_none() {
            // Any member may be needed.
            self.planner.expect(self.hint, self.start);
        } else {
            self.expect(&report);
        }
        self.observed = Some(report);
    }

    /// Takes up what is kept.
    fn resume(&mut self, fresh: Duration) {
        let Some((reference, replays)) = self.store.read() else {
            self.store.clear();
            return;
        };
        let first = replays
            .iter()
            .find(|r| r.mask() == self.start && r.image.is_some())
            .and_then(|r| r.report.clone());
        let Some(first) = first else {
            self.store.clear();
            return;
        };
        self.stale = self.store.age() > fresh;
        self.reference = Some(reference);
        self.replays = replays;
        self.capture = self.store.read_capture();
        let kept = self.references_done();
        for at in 0..self.replays.len() {
            self.learn(at);
        }
        self.references = self.references.max(kept + usize::from(self.stale));
        self.observe(first);
        self.free = 0;
    }

    /// What the first build's trace says.
    fn expect(&mut self, report: &Report) {
        let mask = |caps: &[Cap]| caps.iter().fold(0, |all, cap| all | cap.bit());
        let asked: Vec<Cap> = report.capabilities.iter().map(|c| c.name).collect();
        let (required, unsure) = (mask(&report.required), mask(&report.unsure));
        let candidates = mask(&asked) | required;
        let sure = (required & !unsure) | (self.hint & candidates);
        self.planner.expect(sure, candidates);
    }

    /// Builds with the starting set that ended well.
    fn references_done(&self) -> usize {
        let with = self.replays.iter().filter(|r| r.mask() == self.start);
        with.filter(|r| r.image.is_some()).count()
    }

    /// Learns what equal builds differ in from one of them; says whether there was anything new that is
    /// not content alone.
    fn learn(&mut self, at: usize) -> bool {
        let replay = &self.replays[at];
        let (true, Some(image)) = (replay.mask() == self.start, &replay.image) else {
            return false;
        };
        let before = &self.replays[..at];
        let is_first = |replay: &Replay| replay.mask() == self.start && replay.image.is_some();
        if !before.iter().any(is_first) {
            // What the others are compared with: of itself there is nothing to learn.
            return false;
        }
        let new = image.decisive(&self.noise);
        self.noise.learn(&image.differences);
        new.iter().any(|difference| !difference.is_content())
    }

    /// Judges all replays anew.
    fn judge(&mut self) {
        let content = self.content();
        self.planner.forget();
        self.undecided.clear();
        for replay in &self.replays {
            let came = if replay.mask() == self.start && replay.image.is_some() {
                Came::Same
            } else {
                replay.came(&self.noise, content)
            };
            match replay.outcome(&came) {
                Some(outcome) => self.planner.observe(replay.mask(), outcome),
                None => self.undecided.push(replay.mask()),
            }
        }
        if !self.undecided.is_empty() && !self.limited() {
            self.references = self.references.max(self.references_done() + 1);
        }
        self.planner.references(self.references);
    }

    /// What a difference in content alone says by now.
    fn content(&self) -> Content {
        if self.references_done() >= CONTENT {
            Content::Decides
        } else if self.limited() {
            Content::Unknown
        } else {
            Content::Waits
        }
    }

    /// The next build that is wanted now, where there is one.
    pub fn wanted(&mut self) -> Option<Trial> {
        if self.end.is_some() {
            return None;
        }
        let busy: Vec<Set> = self
            .running
            .iter()
            .chain(&self.undecided)
            .copied()
            .collect();
        let why = match self.planner.next(&busy, 1) {
            Next::Build(trials) => match (trials.first(), self.spent()) {
                (None, _) if self.running.is_empty() => {
                    // What is not decided stays so.
                    "there is no time to find out what equal builds differ in".to_owned()
                }
                (None, _) => return None,
                (Some(_), Some(why)) => why,
                (Some(trial), None) => {
                    self.running.push(trial.set);
                    self.started += 1;
                    return Some(*trial);
                }
            },
            Next::Found(found) => {
                self.end = Some(End::Found(found));
                return None;
            }
            Next::Stuck(why) => {
                if matches!(why, Stuck::Unstable(_)) {
                    // The next time it may be another.
                    self.store.clear();
                }
                self.end = Some(End::Stuck(why));
                return None;
            }
        };
        // Those that run may still tell something.
        if self.running.is_empty() {
            self.give_up(&why);
        }
        None
    }

    /// Ends it with what is known.
    pub fn give_up(&mut self, why: &str) {
        if self.end.is_none() {
            let (set, held) = self.planner.known();
            self.end = Some(End::Early {
                why: why.to_owned(),
                set,
                held,
            });
        }
    }

    /// Nothing more is to come.
    pub fn is_over(&self) -> bool {
        self.end.is_some() && self.running.is_empty()
    }

    /// Something is kept of an earlier one.
    pub fn is_begun(&self) -> bool {
        self.kept() > 0
    }

    /// How many replays were kept from an earlier one.
    pub fn kept(&self) -> usize {
        self.replays.iter().filter(|replay| replay.kept).count()
    }

    /// Why there is no report.
    pub fn why_nothing(&self) -> String {
        let void = self
            .replays
            .iter()
            .rev()
            .find_map(|replay| replay.void.clone());
        void.unwrap_or_else(|| match &self.end {
            Some(End::Early { why, .. }) => why.clone(),
            _ => "nothing was built".into(),
        })
    }

    /// Where a build can write its image.
    pub fn archive(&self, number: usize) -> PathBuf {
        self.store.archive(number)
    }

    /// Takes what became of a build, whose image is in `archive`, and says it in a line.
    pub fn ended(&mut self, trial: &Trial, ended: Ended, archive: &Path) -> (Came, String) {
        if let Some(at) = self.running.iter().position(|set| *set == trial.set) {
            self.running.swap_remove(at);
        }
        let (mut replay, capture) = replay(trial, ended);
        replay.supposed = self.trace.supposed(trial.set);
        let succeeded = (replay.report.as_ref()).is_some_and(|r| r.subject.exit_status == Some(0));
        if replay.void.is_none() && succeeded {
            match compare::read_with(archive, &self.layers) {
                Ok(image) => replay.image = Some(self.compared(trial.set, image)),
                Err(why) => replay.void = Some(format!("its image cannot be read: {why:#}")),
            }
        }
        if trial.set == self.start && replay.image.is_some() && self.observed.is_none() {
            let report = replay
                .report
                .clone()
                .unwrap_or_else(|| unreachable!("it has an image"));
            self.observe(report);
            if let Some(capture) = &capture {
                let _ = self.store.keep_capture(capture);
            }
            self.capture = capture;
        } else if self.capture.is_none() && self.observed.is_none() {
            // Better than nothing, where none ends well.
            self.capture = capture;
        }
        self.replays.push(replay);
        let at = self.replays.len() - 1;
        if self.learn(at) {
            let done = self.references_done();
            if done >= REFERENCES {
                self.end = Some(End::Stuck(Stuck::Unstable(self.start)));
            } else if done > 1 {
                self.references = self.references.max(done + 1);
            }
        }
        self.judge();
        let replay = &self.replays[at];
        let came = if replay.mask() == self.start && replay.image.is_some() {
            Came::Same
        } else {
            replay.came(&self.noise, self.content())
        };
        // What may have been chance is made again.
        let is_sure = match replay.outcome(&came) {
            Some(Outcome::Same) | None => true,
            Some(Outcome::Differs { refused }) => refused & !trial.set != 0,
            Some(Outcome::Endless | Outcome::Void) => false,
        };
        if is_sure {
            // What cannot be kept is made again, too.
            let _ = self.store.keep(replay);
        }
        let missing = match trial.purpose {
            Purpose::Without(cap) => Some(cap),
            _ => None,
        };
        let (mut detail, _) = replay.detail(missing, &came);
        for secret in &self.secrets {
            detail = detail.replace(secret.as_str(), account::HIDDEN);
        }
        (came, detail)
    }

    /// What an image differs in from the first one, which it may be itself.
    fn compared(&mut self, set: Set, image: Image) -> Given {
        if let Some(reference) = &self.reference {
            let id = image.id.clone();
            let differences = differences(reference, &image);
            if !(self.stale && set == self.start) {
                return Given { id, differences };
            }
            self.stale = false;
            let given = Given { id, differences };
            if given.decisive(&self.noise).is_empty() {
                return given;
            }
            self.start_over();
        }
        // What is not kept is made again.
        let _ = self.store.keep_reference(&image);
        let given = Given {
            id: image.id.clone(),
            differences: vec![],
        };
        self.reference = Some(image);
        given
    }

    /// Forgets kept replays of another day: what the build takes from outside has changed meanwhile, as
    /// a build of today shows.
    fn start_over(&mut self) {
        self.replays.clear();
        self.noise = Noise::default();
        self.references = if self.limited() { 1 } else { 2 };
        self.observed = None;
        self.capture = None;
        self.store.clear();
    }

    /// The report, where anything was seen.
    pub fn report(&self) -> Option<Report> {
        let observed = self.observed.clone().or_else(|| {
            // A build that never ended well has its trace all the same.
            self.replays.iter().find_map(|replay| replay.report.clone())
        })?;
        let end = self.end.clone().unwrap_or(End::Early {
            why: "it was ended".into(),
            set: self.start,
            held: 0,
        });
        let about = Circumstances {
            start: self.start,
            seconds: self.began.elapsed().as_secs_f64(),
            flaky: self.planner.flaky(),
            content: self.content(),
            repeat: self.repeat.clone(),
        };
        let mut report = account::report(observed, &self.replays, &self.noise, &end, &about);
        let state = report.proof.as_ref().map(|proof| proof.state);
        let is_enough = matches!(state, Some(Proven::Proved | Proven::Sufficient));
        if is_enough && self.trace.is_none() {
            untraced::by_replays_alone(&mut report);
        }
        account::hide(&mut report, &self.secrets);
        Some(report)
    }

    /// The set that was proved.
    pub fn proved(&self) -> Option<Set> {
        match &self.end {
            Some(End::Found(found)) => Some(found.set),
            _ => None,
        }
    }
}

fn replay(trial: &Trial, ended: Ended) -> (Replay, Option<Capture>) {
    let mut replay = Replay {
        set: Cap::of_mask(trial.set).collect(),
        purpose: purpose(trial.purpose),
        seconds: 0.0,
        report: None,
        image: None,
        void: None,
        supposed: vec![],
        kept: false,
    };
    let capture = match ended {
        Ended::Untraced(report) => {
            carried_out(&mut replay, *report);
            return (replay, None);
        }
        Ended::Failed(Failure::Command(_, why) | Failure::Kcap(why)) => {
            replay.void = Some(format!("{why:#}"));
            return (replay, None);
        }
        Ended::Built(capture) => *capture,
    };
    carried_out(&mut replay, interpret(&capture));
    (replay, Some(capture))
}

/// Notes what a build came to.
fn carried_out(replay: &mut Replay, report: Report) {
    replay.seconds = report.subject.duration_ms as f64 / 1000.0;
    if report.interrupted {
        replay.void = Some("it was interrupted".into());
    } else if report.subject.executor.is_none() {
        replay.void = Some("the container did not start its executor".into());
    } else if report.subject.out_of_memory {
        replay.void = Some("it was killed for want of memory".into());
    }
    replay.report = Some(report);
}

/// As reports have it.
pub fn purpose(purpose: Purpose) -> String {
    match purpose {
        Purpose::Reference => "reference".into(),
        Purpose::Sure => "sure".into(),
        Purpose::Grow => "grow".into(),
        Purpose::Without(cap) => format!("without {cap}"),
        Purpose::Last => "last".into(),
    }
}

/// Removes a build's image, where there is one.
pub fn remove(archive: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(archive) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", archive.display()))
        }
        _ => Ok(()),
    }
}

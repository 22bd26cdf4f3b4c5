//! Carries the proofs of several Dockerfiles out, side by side, by traced builds.

use std::{collections::HashMap, num::NonZeroUsize, path::PathBuf, sync::Arc};

use super::{
    judge::Came,
    planner::Trial,
    proof::{self, Ended, Proof},
};
use crate::{
    launch::{Engine, Request},
    record::{self, Builds, Event, Failure, Job, Options, Signals},
};

/// A Dockerfile to prove.
pub struct Subject {
    /// Its path as given, and its bytes.
    pub dockerfile: (PathBuf, Vec<u8>),
    /// The context as given.
    pub context: String,
    /// What to build, but for the capabilities and the image's place.
    pub request: Request,
    /// How far it is.
    pub proof: Proof,
}

/// What happens, for people; subjects are known by their position.
pub trait Watch {
    /// A build for a subject begins.
    fn started(&mut self, subject: usize, trial: &Trial);
    /// It ended: what it came to, in words.
    fn ended(&mut self, subject: usize, trial: &Trial, came: &Came, detail: &str, proof: &Proof);
    /// Something happened in a build of a subject.
    fn event(&mut self, subject: usize, trial: &Trial, event: &Event);
    /// A subject's proof has come to its end.
    fn over(&mut self, subject: usize, request: &Request, proof: &mut Proof);
    /// A line about no subject in particular.
    fn note(&mut self, line: &str);
}

/// Builds until all is known, or nothing more can be.
///
/// # Errors
/// Where nothing can be traced.
pub fn prove(
    subjects: &mut [Subject],
    engine: &Arc<dyn Engine>,
    parallel: NonZeroUsize,
    options: &Options,
    signals: &Signals,
    watch: &mut dyn Watch,
) -> Result<(), Failure> {
    let over = subjects.iter().map(|_| false).collect();
    let mut driver = Driver {
        subjects,
        engine,
        watch,
        builds: HashMap::new(),
        base: 0,
        count: 0,
        turn: 0,
        idle: false,
        interrupted: false,
        over,
        archives: 0,
    };
    let mut result = Ok(());
    loop {
        driver.look();
        if driver.over.iter().all(|over| *over) {
            break;
        }
        let before = driver.count;
        // With most hooks once is enough; with some, what builds came to is known when all have ended,
        // and only then what to build next.
        driver.base = driver.count;
        driver.idle = false;
        result = record::build(&mut driver, parallel, options, signals);
        if result.is_err() || driver.interrupted || driver.count == before {
            break;
        }
    }
    let why = match (&result, driver.interrupted) {
        (_, true) => "interrupted: the same command goes on from here".to_owned(),
        (Err(Failure::Command(_, why) | Failure::Kcap(why)), _) => format!("{why:#}"),
        (Ok(()), false) => "nothing more could be built".to_owned(),
    };
    driver.abandon(&why);
    result
}

struct Driver<'a> {
    subjects: &'a mut [Subject],
    engine: &'a Arc<dyn Engine>,
    watch: &'a mut dyn Watch,
    /// By number: of which subject, what for, and where its image is.
    builds: HashMap<usize, (usize, Trial, PathBuf)>,
    /// The number of the first build since tracing was last begun.
    base: usize,
    count: usize,
    /// Whose turn it is.
    turn: usize,
    /// No subject wants a build before another one has ended.
    idle: bool,
    interrupted: bool,
    over: Vec<bool>,
    archives: usize,
}

impl Driver<'_> {
    /// Tells of proofs that are over by now.
    fn look(&mut self) {
        for (at, subject) in self.subjects.iter_mut().enumerate() {
            // Whether more is wanted is known by asking; what it wants is asked for again.
            if !self.over[at] && subject.proof.is_over() {
                self.over[at] = true;
                self.watch.over(at, &subject.request, &mut subject.proof);
            }
        }
    }

    /// Ends what is not over.
    fn abandon(&mut self, why: &str) {
        for (_, _, archive) in self.builds.values() {
            let _ = proof::remove(archive);
        }
        for (at, subject) in self.subjects.iter_mut().enumerate() {
            if !self.over[at] {
                subject.proof.give_up(why);
                self.over[at] = true;
                self.watch.over(at, &subject.request, &mut subject.proof);
            }
        }
    }

    fn job(&mut self, at: usize, trial: Trial) -> Job {
        let subject = &self.subjects[at];
        let number = self.archives;
        self.archives += 1;
        let archive = subject.proof.archive(number);
        let request = Request {
            capabilities: trial.set,
            archive: Some(archive.clone()),
            ..subject.request.clone()
        };
        let engine = Arc::clone(self.engine);
        self.builds.insert(self.count, (at, trial, archive));
        self.count += 1;
        Job {
            dockerfile: subject.dockerfile.clone(),
            context: Some(subject.context.clone()),
            launch: Box::new(move || engine.prepare(&request)),
            timeout: subject.proof.timeout(),
        }
    }
}

impl Builds for Driver<'_> {
    fn next(&mut self) -> Option<Job> {
        if self.interrupted || self.idle {
            return None;
        }
        for _ in 0..self.subjects.len() {
            let at = self.turn % self.subjects.len();
            self.turn += 1;
            if let Some(trial) = self.subjects[at].proof.wanted() {
                return Some(self.job(at, trial));
            }
        }
        self.idle = true;
        self.look();
        None
    }

    fn on(&mut self, build: usize, event: Event) {
        let number = self.base + build;
        let ended = match event {
            Event::Note(line) => return self.watch.note(&line),
            Event::Ended(ended) => *ended,
            event => {
                if let Some((at, trial, _)) = self.builds.get(&number) {
                    if matches!(event, Event::Started) {
                        self.watch.started(*at, trial);
                    }
                    self.watch.event(*at, trial, &event);
                }
                return;
            }
        };
        self.idle = false;
        let Some((at, trial, archive)) = self.builds.remove(&number) else {
            return;
        };
        let ended = match ended {
            Ok(capture) => {
                self.interrupted |= capture.interrupted;
                Ended::Built(Box::new(capture))
            }
            Err(failure) => {
                // As a shell says it: kcap was told to end before its turn came.
                self.interrupted |= matches!(failure, Failure::Command(code, _) if code > 128);
                Ended::Failed(failure)
            }
        };
        let proof = &mut self.subjects[at].proof;
        let (came, detail) = proof.ended(&trial, ended, &archive);
        if let Err(why) = proof::remove(&archive) {
            self.watch.note(&format!("{why:#}"));
        }
        self.watch.ended(at, &trial, &came, &detail, proof);
        self.look();
    }
}

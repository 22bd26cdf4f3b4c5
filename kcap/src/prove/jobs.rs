//! Carries the proofs of several Dockerfiles out in a cluster: builds with the same set are one Job.

mod plan;
mod pods;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::Result;

use self::pods::Fetched;
use super::{
    driver::{Subject, Watch},
    planner::Trial,
    proof::{self, Ended},
};
use crate::{
    launch::kubernetes::{Cluster, Files},
    record::{Failure, Signals},
};

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two looks at the cluster.
    pub look: Duration,
    /// How long nothing of a Job may run before it is asked why.
    pub quiet: Duration,
    /// How long a pod may take to begin, where something is wrong with it: most such things mend
    /// themselves.
    pub stuck: Duration,
    /// How long a pod that built may be missing: what the cluster lists can be old.
    pub gone: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(1),
            quiet: Duration::from_secs(10),
            stuck: Duration::from_secs(5 * 60),
            gone: Duration::from_secs(15),
        }
    }
}

/// Looks in a row that may fail.
const BLIND: u32 = 10;

/// Builds until all is known, or nothing more can be. `files` has those of each subject, where the pod does
/// not have its own.
///
/// # Errors
/// Where the cluster cannot be asked any more.
pub fn prove(
    subjects: &mut [Subject],
    cluster: &Arc<dyn Cluster>,
    files: &[Files],
    parallel: NonZeroUsize,
    patience: Patience,
    signals: &Signals,
    watch: &mut dyn Watch,
) -> Result<(), Failure> {
    let (send, fetched) = mpsc::channel();
    let over = subjects.iter().map(|_| false).collect();
    let mut driver = Driver {
        subjects,
        cluster,
        files,
        parallel: parallel.get(),
        patience,
        watch,
        jobs: BTreeMap::new(),
        waiting: vec![],
        send,
        fetched,
        fetching: 0,
        stopped: false,
        images: vec![],
        over,
        count: 0,
        archives: 0,
        told: vec![],
    };
    let came = driver.run(signals);
    let why = match &came {
        Ok(true) => "nothing more could be built".to_owned(),
        Ok(false) => "interrupted: the same command goes on from here".to_owned(),
        Err(why) => format!("{why:#}"),
    };
    driver.abandon(&why);
    driver.clear();
    came.map(|_| ()).map_err(Failure::Kcap)
}

/// A build of a Job.
struct Build {
    subject: usize,
    trial: Trial,
    /// It has had a pod.
    seen: bool,
    /// It was seen to run.
    started: bool,
    /// Since when something is in its way.
    stuck: Option<Instant>,
    /// Its container has ended; its image may still be read.
    ended: bool,
    /// Its proof knows of it.
    done: bool,
    /// Since when its pod is gone.
    gone: Option<Instant>,
}

/// A Job that was started.
struct Started {
    builds: Vec<Build>,
    since: Instant,
    /// When it was asked last why nothing runs.
    asked: Option<Instant>,
}

struct Driver<'a> {
    subjects: &'a mut [Subject],
    cluster: &'a Arc<dyn Cluster>,
    files: &'a [Files],
    parallel: usize,
    patience: Patience,
    watch: &'a mut dyn Watch,
    jobs: BTreeMap<String, Started>,
    /// Builds that wait for room.
    waiting: Vec<(usize, Trial)>,
    send: mpsc::Sender<Fetched>,
    fetched: mpsc::Receiver<Fetched>,
    fetching: usize,
    /// A signal came.
    stopped: bool,
    /// Digests of all images that were pushed.
    images: Vec<String>,
    over: Vec<bool>,
    count: usize,
    archives: usize,
    /// What was said of the cluster.
    told: Vec<String>,
}

impl Driver<'_> {
    /// Until all is over; whether it is, or a signal came.
    fn run(&mut self, signals: &Signals) -> Result<bool> {
        let mut blind = 0;
        loop {
            self.look_over();
            if self.over.iter().all(|over| *over) {
                return Ok(true);
            }
            if self.is_stopped(signals) {
                return Ok(false);
            }
            self.plan();
            if self.jobs.is_empty() && self.fetching == 0 && self.waiting.is_empty() {
                return Ok(true);
            }
            let asked = self.start().and_then(|()| self.look());
            if self.is_stopped(signals) {
                return Ok(false);
            }
            match asked {
                Ok(()) => blind = 0,
                Err(why) if blind + 1 >= BLIND => return Err(why),
                Err(why) => {
                    blind += 1;
                    self.tell(&format!(
                        "the cluster cannot be asked, which is tried again: {why:#}"
                    ));
                }
            }
            let until = Instant::now() + self.patience.look;
            while let Ok(fetched) = self
                .fetched
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                self.take(fetched);
                if self.is_stopped(signals) {
                    return Ok(false);
                }
            }
        }
    }

    fn is_stopped(&mut self, signals: &Signals) -> bool {
        self.stopped |= signals.pending().is_some();
        self.stopped
    }

    /// A line, once.
    fn tell(&mut self, line: &str) {
        if !self.told.iter().any(|told| told == line) {
            self.told.push(line.to_owned());
            self.watch.note(line);
        }
    }

    fn look_over(&mut self) {
        for (at, subject) in self.subjects.iter_mut().enumerate() {
            if !self.over[at] && subject.proof.is_over() {
                self.over[at] = true;
                self.watch.over(at, &subject.request, &mut subject.proof);
            }
        }
    }

    fn ended(&mut self, name: &str, index: usize, ended: Ended, archive: &Path) {
        let Some(job) = self.jobs.get_mut(name) else {
            return;
        };
        let Some(build) = job.builds.get_mut(index).filter(|build| !build.done) else {
            return;
        };
        (build.ended, build.done) = (true, true);
        let (subject, trial) = (build.subject, build.trial);
        let is_last = job.builds.iter().all(|build| build.done);
        let proof = &mut self.subjects[subject].proof;
        let (came, detail) = proof.ended(&trial, ended, archive);
        if !archive.as_os_str().is_empty()
            && let Err(why) = proof::remove(archive)
        {
            self.watch.note(&format!("{why:#}"));
        }
        self.watch.ended(subject, &trial, &came, &detail, proof);
        if is_last {
            self.jobs.remove(name);
            // All that is left is removed at the end.
            let _ = self.cluster.end(name);
        }
        self.look_over();
    }

    /// Ends what is not over.
    fn abandon(&mut self, why: &str) {
        for (at, subject) in self.subjects.iter_mut().enumerate() {
            if !self.over[at] {
                subject.proof.give_up(why);
                self.over[at] = true;
                self.watch.over(at, &subject.request, &mut subject.proof);
            }
        }
    }

    /// Leaves nothing behind, as far as it is allowed.
    fn clear(&mut self) {
        // First what others can see: reading images may take a while.
        if let Err(why) = self.cluster.clear() {
            self.watch.note(&format!(
                "{}: Jobs of this proof may be left: {why:#}",
                self.cluster.run()
            ));
        }
        // Images that are read now are of no use any more, and their archives are removed by the next
        // proof at the latest.
        while self.fetching > 0 {
            let Ok(fetched) = self.fetched.recv() else {
                break;
            };
            self.fetching -= 1;
            let _ = proof::remove(&fetched.archive);
        }
        self.images.sort();
        self.images.dedup();
        let mut left = self
            .images
            .iter()
            .filter_map(|digest| self.cluster.forget(digest).err());
        if let Some(why) = left.next() {
            let count = 1 + left.count();
            self.watch.note(&format!(
                "{count} images stay in {} under tags that begin with {}: {why:#}",
                self.cluster.repository(),
                self.cluster.run()
            ));
        }
    }
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;

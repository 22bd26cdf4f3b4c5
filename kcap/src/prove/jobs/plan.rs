//! Which builds are made next, and which of them are one Job.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Build, Driver, Started};
use crate::{
    launch::kubernetes::{Files, Job, ROOM},
    prove::planner::{Set, Trial},
};

/// Most builds of a Job.
const MOST: usize = 200;
/// What a pod may take beside its build: for its images, its volumes and its init containers.
const AROUND: Duration = Duration::from_secs(5 * 60);

impl Driver<'_> {
    /// Takes from each subject what it wants: one build in any case, so that those of a corpus come
    /// together, and more as far as there is room for them.
    pub(super) fn plan(&mut self) {
        let under_way = |jobs: &BTreeMap<String, Started>, waiting: &[(usize, Trial)]| {
            waiting.len()
                + jobs
                    .values()
                    .flat_map(|j| &j.builds)
                    .filter(|b| !b.done)
                    .count()
        };
        let has_one = |jobs: &BTreeMap<String, Started>, waiting: &[(usize, Trial)], at: usize| {
            waiting.iter().any(|(subject, _)| *subject == at)
                || (jobs.values().flat_map(|j| &j.builds)).any(|b| b.subject == at && !b.done)
        };
        let mut more = true;
        while more {
            more = false;
            for at in 0..self.subjects.len() {
                let room = under_way(&self.jobs, &self.waiting) < self.parallel;
                if (room || !has_one(&self.jobs, &self.waiting, at))
                    && let Some(trial) = self.subjects[at].proof.wanted()
                {
                    self.waiting.push((at, trial));
                    more = true;
                }
            }
        }
    }

    /// Starts Jobs, as far as there is room for their pods.
    pub(super) fn start(&mut self) -> Result<()> {
        loop {
            let taken = |job: &Started| {
                // One whose image is read takes a place as well: that of an archive.
                job.builds.iter().filter(|build| !build.done).count()
            };
            let room = self
                .parallel
                .saturating_sub(self.jobs.values().map(taken).sum());
            let Some(set) = self
                .waiting
                .first()
                .map(|(_, trial)| trial.set)
                .filter(|_| room > 0)
            else {
                return Ok(());
            };
            let builds = self.group(set, room);
            self.start_job(set, builds)?;
        }
    }

    /// Takes those that wait for a build with this set and fit into one Job. All of it runs at once: a pod
    /// that does not end would keep others from their turn.
    fn group(&mut self, set: Set, room: usize) -> Vec<(usize, Trial)> {
        let mut size = 0;
        let mut taken = vec![];
        let mut left = vec![];
        for (at, trial) in std::mem::take(&mut self.waiting) {
            let own = self.files.get(at).map_or(0, Files::size);
            // What the pod itself has is built by a Job of its own.
            let fits = taken.is_empty()
                || taken.len() < MOST.min(room) && !self.files.is_empty() && size + own <= ROOM;
            if trial.set == set && fits {
                size += own;
                taken.push((at, trial));
            } else {
                left.push((at, trial));
            }
        }
        self.waiting = left;
        taken
    }

    fn start_job(&mut self, set: Set, builds: Vec<(usize, Trial)>) -> Result<()> {
        let name = format!("{}-{}", self.cluster.run(), self.count);
        self.count += 1;
        let files: Vec<&Files> = builds
            .iter()
            .filter_map(|(at, _)| self.files.get(*at))
            .collect();
        let times = builds
            .iter()
            .map(|(at, _)| self.subjects[*at].proof.timeout());
        // Before it is known how long one takes, it may take as long as it likes.
        let longest = times
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max());
        let job = Job {
            name: &name,
            run: self.cluster.run(),
            set,
            repository: self.cluster.repository(),
            files: &files,
            builds: builds.len(),
            flags: self.cluster.flags(),
            deadline: longest.map(|longest| (longest + AROUND).as_secs()),
        };
        if let Err(why) = self.cluster.start(&job) {
            // It may be another time.
            self.waiting.splice(0..0, builds);
            return Err(why);
        }
        let builds = builds.into_iter().map(|(subject, trial)| Build {
            subject,
            trial,
            seen: false,
            started: false,
            stuck: None,
            ended: false,
            done: false,
            gone: None,
        });
        let started = Started {
            builds: builds.collect(),
            since: Instant::now(),
            asked: None,
        };
        self.jobs.insert(name, started);
        Ok(())
    }
}

//! Carries the proofs of several Dockerfiles out in a cluster: builds with the same set are one Job.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use sha2::{Digest as _, Sha256};

use super::{
    driver::{Subject, Watch},
    planner::{Set, Trial},
    proof::{self, Ended},
};
use crate::{
    capture::{self, Capture},
    interpret::{interpret, steps::line::without_ansi},
    launch::kubernetes::{Cluster, End, Files, Job, ROOM, State},
    record::{Failure, Signals},
    report::{Cap, Executor, Report},
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
/// Most builds of a Job.
const MOST: usize = 200;
/// What a pod may take beside its build: for its images, its volumes and its init containers.
const AROUND: Duration = Duration::from_secs(5 * 60);

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

/// An image that was read, or why not.
struct Fetched {
    job: String,
    index: usize,
    end: End,
    archive: PathBuf,
    came: Result<()>,
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

    /// Takes from each subject what it wants: one build in any case, so that those of a corpus come
    /// together, and more as far as there is room for them.
    fn plan(&mut self) {
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
    fn start(&mut self) -> Result<()> {
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

    /// Looks how far the pods are.
    fn look(&mut self) -> Result<()> {
        let pods = self.cluster.look()?;
        let patience = self.patience;
        let mut over = vec![];
        for (name, job) in &mut self.jobs {
            for (index, build) in job.builds.iter_mut().enumerate() {
                let is_there = (pods.iter()).any(|pod| pod.job == *name && pod.index == index);
                build.seen |= is_there;
                if !build.seen || build.ended || is_there {
                    build.gone = None;
                } else if build.gone.get_or_insert_with(Instant::now).elapsed() >= patience.gone {
                    over.push((name.clone(), index, Err("its pod was removed".to_owned())));
                }
            }
        }
        for seen in pods {
            let Some(job) = self.jobs.get_mut(&seen.job) else {
                continue;
            };
            let Some(build) = job.builds.get_mut(seen.index).filter(|build| !build.ended) else {
                continue;
            };
            let (subject, trial) = (build.subject, build.trial);
            match seen.state {
                State::Waiting(None) => build.stuck = None,
                State::Waiting(Some(why)) => {
                    let since = *build.stuck.get_or_insert_with(Instant::now);
                    if since.elapsed() >= patience.stuck {
                        over.push((
                            seen.job,
                            seen.index,
                            Err(format!("its pod does not start: {why}")),
                        ));
                    } else {
                        self.tell(&format!("a pod waits: {why}"));
                    }
                }
                State::Running => {
                    build.stuck = None;
                    if !std::mem::replace(&mut build.started, true) {
                        self.watch.started(subject, &trial);
                    }
                }
                State::Ended(end) => over.push((seen.job, seen.index, Ok(end))),
                State::Lost(why) => over.push((seen.job, seen.index, Err(why))),
            }
        }
        self.ask(&mut over);
        for (job, index, came) in over {
            match came {
                Ok(end) => self.fetch(job, index, end),
                Err(why) => {
                    let failure = Failure::Kcap(anyhow!(why));
                    self.ended(&job, index, Ended::Failed(failure), Path::new(""));
                }
            }
        }
        Ok(())
    }

    /// Asks about Jobs of which nothing has run for a while.
    fn ask(&mut self, over: &mut Vec<(String, usize, Result<End, String>)>) {
        let patience = self.patience;
        let mut lines = vec![];
        for (name, job) in &mut self.jobs {
            let is_quiet = job.asked.unwrap_or(job.since).elapsed() >= patience.quiet;
            if !is_quiet || job.builds.iter().any(|build| build.started || build.ended) {
                continue;
            }
            job.asked = Some(Instant::now());
            let is_podless = !job.builds.iter().any(|build| build.seen);
            let why = match self.cluster.obstacle(name) {
                Some(why) => why,
                // A large image can take long. That there is no pod at all is no matter of time.
                None if is_podless && job.since.elapsed() >= patience.stuck => {
                    format!("the cluster makes none: see kubectl describe job {name}")
                }
                None => continue,
            };
            // A policy does not change by itself, as a quota's use does.
            let is_final = why.contains("is forbidden") && !why.contains("exceeded quota");
            if is_final || job.since.elapsed() >= patience.stuck {
                let all = 0..job.builds.len();
                let why = format!("its pod does not start: {why}");
                over.extend(all.map(|index| (name.clone(), index, Err(why.clone()))));
            } else {
                lines.push(format!("{name} waits: {why}"));
            }
        }
        for line in lines {
            self.tell(&line);
        }
    }

    /// Has the image of a build read, where there is one.
    fn fetch(&mut self, job: String, index: usize, end: End) {
        let Some(build) = self
            .jobs
            .get_mut(&job)
            .and_then(|j| j.builds.get_mut(index))
        else {
            return;
        };
        if std::mem::replace(&mut build.ended, true) {
            return;
        }
        let number = self.archives;
        self.archives += 1;
        let archive = self.subjects[build.subject].proof.archive(number);
        let mut fetched = Fetched {
            job,
            index,
            archive,
            came: Ok(()),
            end,
        };
        if fetched.end.exit_status != 0 {
            self.fetching += 1;
            return self.take(fetched);
        }
        self.images.extend(fetched.end.digest.clone());
        let (cluster, send) = (Arc::clone(self.cluster), self.send.clone());
        self.fetching += 1;
        thread::spawn(move || {
            let read = || {
                (fetched.end.digest.as_deref())
                    .context("Kaniko said no digest of its image: its version has no --digest-file")
                    .and_then(|digest| cluster.fetch(digest, &fetched.archive))
            };
            // Without word of it, nobody would stop waiting.
            let came = panic::catch_unwind(AssertUnwindSafe(read));
            fetched.came = came.unwrap_or_else(|_| Err(anyhow!("its image cannot be read")));
            // Where nobody listens any more, there is nobody to tell.
            let _ = send.send(fetched);
        });
    }

    fn take(&mut self, fetched: Fetched) {
        self.fetching -= 1;
        let Some(build) = self
            .jobs
            .get(&fetched.job)
            .and_then(|j| j.builds.get(fetched.index))
        else {
            return;
        };
        let ended = match fetched.came {
            Ok(()) => {
                let subject = &self.subjects[build.subject];
                let set = build.trial.set;
                let report = untraced(subject, self.cluster.as_ref(), set, &fetched.end);
                Ended::Untraced(Box::new(report))
            }
            Err(why) => Ended::Failed(Failure::Kcap(why)),
        };
        self.ended(&fetched.job, fetched.index, ended, &fetched.archive);
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

/// The report of a build of which nothing but its end is known.
fn untraced(subject: &Subject, cluster: &dyn Cluster, set: Set, end: &End) -> Report {
    let (path, text) = &subject.dockerfile;
    // Where the pod has its own, its bytes are not known.
    let text = Some(text).filter(|text| !text.is_empty());
    let sha256 = |text: &Vec<u8>| {
        Sha256::digest(text)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    let capture = Capture {
        subject: capture::Subject {
            dockerfile: Some(path.display().to_string()),
            dockerfile_text: text.map(|text| String::from_utf8_lossy(text).into_owned()),
            dockerfile_sha256: text.map(sha256),
            context: Some(subject.context.clone()),
            exit_status: Some(end.exit_status),
            started: end.started.clone(),
            duration_ms: (end.seconds * 1000.0) as u64,
            engine: Some("kubernetes".into()),
            out_of_memory: end.out_of_memory,
            timed_out: end.timed_out,
            ..capture::Subject::default()
        },
        loss: capture::Loss {
            unproven: Some("nothing was traced: what is said comes of replays alone".into()),
            ..capture::Loss::default()
        },
        ..Capture::default()
    };
    let mut report = interpret(&capture);
    report.subject.executor = Some(Executor {
        path: String::new(),
        given: Some(cluster.image().to_owned()),
    });
    report.subject.capabilities = Cap::of_mask(set).collect();
    // Nothing could be seen.
    report.notes.clear();
    report.subject.log = end.log.iter().map(|line| without_ansi(line)).collect();
    report
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;

//! What the pods tell: how far they are, why they are no further, and the images of those that ended.

use std::{
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow};

use super::Driver;
use crate::{
    launch::kubernetes::{End, State},
    prove::{proof::Ended, untraced},
    record::Failure,
};

/// An image that was read, or why not.
pub(super) struct Fetched {
    job: String,
    index: usize,
    end: End,
    pub(super) archive: PathBuf,
    came: Result<()>,
}

impl Driver<'_> {
    /// Looks how far the pods are.
    pub(super) fn look(&mut self) -> Result<()> {
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

    pub(super) fn take(&mut self, fetched: Fetched) {
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
                let (dockerfile, context) = (&subject.dockerfile, &subject.context);
                let image = self.cluster.image();
                let report = untraced::report(dockerfile, context, image, set, &fetched.end);
                Ended::Untraced(Box::new(report))
            }
            Err(why) => Ended::Failed(Failure::Kcap(why)),
        };
        self.ended(&fetched.job, fetched.index, ended, &fetched.archive);
    }
}

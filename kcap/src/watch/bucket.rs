//! Reports in an object store: below a prefix of a bucket.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Error, Result, bail};

use super::{
    Destination,
    retention::{Keep, Pruned, doomed},
};
use crate::remote::{Location, NotLent, Refused, Store};

/// How often a listing is worth what it costs; the queue asks more often.
const PRUNE: Duration = Duration::from_secs(3600);
/// Most reports that are listed to see which go.
const MOST: usize = 200_000;
/// Most that go at once, during which others wait.
const AT_ONCE: usize = 10_000;
/// Requests side by side.
const THREADS: usize = 8;
/// Written and removed to see whether anything can be.
const PROBE: &str = ".kcap";

/// The names in a bucket that begin alike.
pub struct Prefix {
    store: Store,
    /// Empty, or with a slash at its end.
    prefix: String,
    pruned: Option<(Instant, Keep)>,
}

impl Prefix {
    /// Opens `s3://BUCKET/PREFIX`, and sees whether it can be written. A store that does not answer may
    /// do so later: that is only told.
    ///
    /// # Errors
    /// Where the store refuses, or there are no credentials for it.
    pub fn open(place: &str, say: fn(&str)) -> Result<Self> {
        let location = Location::parse(place)?;
        let prefix = Self::of(Store::from_env(&location.bucket)?, location.prefix());
        let probe = format!("{}{PROBE}", prefix.prefix);
        match prefix.store.put(&probe, b"") {
            // Who may only write leaves it there.
            Ok(()) => _ = prefix.store.delete(&probe),
            Err(why) if why.is::<Refused>() || why.is::<NotLent>() => return Err(why),
            Err(why) => say(&format!("{why:#}; reports will wait for it")),
        }
        Ok(prefix)
    }

    /// One in this store.
    pub fn of(store: Store, prefix: String) -> Self {
        Self {
            store,
            prefix,
            pruned: None,
        }
    }

    fn remove(&self, keys: &[(&str, u64)]) -> Result<Pruned> {
        let next = AtomicUsize::new(0);
        let work = || -> (Pruned, Option<Error>) {
            let mut pruned = Pruned::default();
            while let Some((key, size)) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(why) = self.store.delete(key) {
                    // What others were about to remove, they still do.
                    next.store(keys.len(), Ordering::Relaxed);
                    return (pruned, Some(why));
                }
                pruned.reports += 1;
                pruned.bytes += size;
            }
            (pruned, None)
        };
        let done: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS.min(keys.len()))
                .map(|_| scope.spawn(work))
                .collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let mut all = Pruned::default();
        let mut failed = None;
        for done in done {
            let (pruned, why) = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.reports += pruned.reports;
            all.bytes += pruned.bytes;
            failed = failed.or(why);
        }
        match failed {
            // Some went: the next time tells of what cannot.
            Some(why) if all == Pruned::default() => Err(why),
            _ => Ok(all),
        }
    }
}

impl Destination for Prefix {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.store.put(&format!("{}{name}", self.prefix), bytes)
    }

    fn prune(&mut self, keep: &Keep, now: u64) -> Result<Pruned> {
        if (self.pruned.as_ref()).is_some_and(|(at, same)| same == keep && at.elapsed() < PRUNE) {
            return Ok(Pruned::default());
        }
        self.pruned = Some((Instant::now(), keep.clone()));
        let mut keys = vec![];
        let mut reports = vec![];
        let mut more = false;
        self.store.list(&self.prefix, &mut |object| {
            if is_report(&object.key) {
                reports.push((object.modified, object.size));
                keys.push(object.key);
            }
            more = keys.len() > MOST;
            !more
        })?;
        let doomed = doomed(&reports, keep, now);
        let doomed: Vec<(&str, u64)> = (doomed.iter().take(AT_ONCE))
            .map(|&at| (keys[at].as_str(), reports[at].1))
            .collect();
        let pruned = self.remove(&doomed)?;
        if more && pruned == Pruned::default() {
            bail!(
                "more than {MOST} reports in {}: have the store itself remove old ones (a lifecycle rule)",
                self.shown()
            );
        }
        if doomed.len() == AT_ONCE {
            // The others at the next.
            self.pruned = None;
        }
        Ok(pruned)
    }

    fn shown(&self) -> String {
        self.store.shown(&self.prefix)
    }
}

/// The key is one that kcap gives: a bucket may hold other things, which are not kcap's to remove.
/// `…/20261128T063731.123Z-COMMIT-CONTAINER-SESSION.json`
fn is_report(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default().as_bytes();
    let time = name.iter().zip(b"00000000T000000").filter(|(c, like)| {
        if like.is_ascii_digit() {
            c.is_ascii_digit()
        } else {
            c == like
        }
    });
    time.count() == 15 && (name.ends_with(b".json") || name.ends_with(b".kcap"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reports_are_kcap_s_to_remove() {
        for key in [
            "team/p/Dockerfile/20261128T063731.123Z-abc-def-1.json",
            "20261128T063731.123Z-nocommit-nocontainer-2a.kcap",
        ] {
            assert!(is_report(key), "{key}");
        }
        for key in [
            "team/state.json",
            "20261128T063731.123Z-a-b-1.json/other",
            "20261128-063731.123Z-a-b-1.json",
            "2026",
            "x.kcap",
            "",
        ] {
            assert!(!is_report(key), "{key}");
        }
    }
}

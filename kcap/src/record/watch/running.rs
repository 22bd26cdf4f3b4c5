//! A session that is open, and when it is over: once none of its processes is left, nor any in its
//! container.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kcap_common::abi::record::TREE;

use crate::{
    host::cgroup::{Layout, pids},
    record::{
        Opened,
        kernel::Finish,
        subject::{monotonic_ns, wall_ns},
    },
};

/// How long a process that ended may be about to.
const DYING: Duration = Duration::from_secs(5);

/// A session that is open.
pub(super) struct Running {
    pub(super) opened: Opened,
    /// What was lost before it began.
    pub(super) before: Finish,
    /// `CLOCK_REALTIME` nanoseconds when it began.
    pub(super) started_ns: u64,
    /// Where its container's processes are, where it has a cgroup of its own.
    cgroup: Option<PathBuf>,
    /// Processes that ended last, once none was left, and when that was.
    last: Option<(Vec<u32>, Instant)>,
    /// Seen to be over.
    over: Option<Instant>,
}

impl Running {
    /// One that was just opened.
    pub(super) fn new(id: u64, opened: Opened, before: Finish, layout: &Layout) -> Self {
        let behind = monotonic_ns().saturating_sub(opened.time_ns);
        let cgroup = (id & TREE == 0)
            .then(|| folder(id, &opened, layout))
            .flatten();
        Self {
            before,
            started_ns: wall_ns().saturating_sub(behind),
            cgroup,
            last: None,
            over: None,
            opened,
        }
    }

    /// Its last process ended, or is about to: that one, and those before it.
    pub(super) fn idle(&mut self, last: Vec<u32>) {
        self.last = Some((last, Instant::now()));
    }

    /// Whether it is over. Once it was, it stays so: since when is noted, the first time.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        if self.over.is_none() && self.has_ended() {
            self.over = Some(now);
        }
        self.over.is_some()
    }

    /// How long it has been seen to be over.
    pub(super) fn waited(&self) -> Duration {
        self.over.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// It may be over any moment.
    pub(super) fn is_ending(&self) -> bool {
        (self.last.as_ref()).is_some_and(|(_, since)| since.elapsed() < DYING)
    }

    /// None of its processes is left, nor any in its container.
    fn has_ended(&mut self) -> bool {
        match (&self.cgroup, &mut self.last) {
            (Some(cgroup), _) => is_empty(cgroup),
            (None, Some((last, since))) => {
                // Their ids may be others' by then.
                last.retain(|&pid| since.elapsed() < DYING && !is_gone(pid));
                last.is_empty()
            }
            (None, None) => false,
        }
    }
}

/// Where the processes of a container are.
fn folder(id: u64, opened: &Opened, layout: &Layout) -> Option<PathBuf> {
    layout.folder(id).or_else(|| {
        let place = layout.place(&opened.cgroups)?;
        let path = layout.mount.join(place.strip_prefix("/").unwrap_or(&place));
        // As a cgroup namespace shows it, it can be another's.
        (path.metadata().ok()?.ino() == id).then_some(path)
    })
}

/// Whether a group has no process any more, nor one below it, or is no more. What cannot be told is taken
/// for no.
fn is_empty(cgroup: &Path) -> bool {
    // Version 2 says so itself, once the last thread is gone.
    match fs::read_to_string(cgroup.join("cgroup.events")) {
        Ok(events) => events.lines().any(|line| line == "populated 0"),
        Err(_) => match pids(cgroup) {
            Ok(pids) => pids.is_empty(),
            Err(e) => matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)),
        },
    }
}

/// Whether a process does nothing any more: there is none, or only what its parent has not read yet.
fn is_gone(pid: u32) -> bool {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(e) => return matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
    };
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use super::*;

    fn running(cgroup: Option<PathBuf>) -> Running {
        Running {
            opened: Opened::default(),
            before: Finish::default(),
            started_ns: 0,
            cgroup,
            last: None,
            over: None,
        }
    }

    #[test]
    fn a_group_says_whether_it_is_empty_and_one_that_is_no_more_is() {
        let dir = tempfile::TempDir::new().unwrap();
        let cgroup = dir.path().join("build");
        assert!(is_empty(&cgroup));
        fs::create_dir(&cgroup).unwrap();
        for (events, empty) in [
            ("populated 1\nfrozen 0\n", false),
            ("populated 0\nfrozen 0\n", true),
        ] {
            fs::write(cgroup.join("cgroup.events"), events).unwrap();
            assert_eq!(is_empty(&cgroup), empty);
        }
        // Version 1 has no such file.
        fs::remove_file(cgroup.join("cgroup.events")).unwrap();
        for (procs, empty) in [("1\n", false), ("", true)] {
            fs::write(cgroup.join("cgroup.procs"), procs).unwrap();
            assert_eq!(is_empty(&cgroup), empty);
        }
    }

    #[test]
    fn without_a_group_a_session_is_over_once_its_last_processes_are_gone() {
        let mut session = running(None);
        assert!(!session.is_over(Instant::now()) && !session.is_ending());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        session.idle(vec![child.id()]);
        assert!(!session.is_over(Instant::now()) && session.is_ending());
        assert_eq!(session.waited(), Duration::ZERO);
        child.kill().unwrap();
        // It is not read yet, and does nothing any more.
        let until = Instant::now() + DYING / 2;
        while !session.is_over(Instant::now()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(session.is_over(Instant::now()));
        child.wait().unwrap();
    }

    #[test]
    fn what_was_over_once_stays_so() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut session = running(Some(dir.path().join("gone")));
        let first = Instant::now();
        assert!(session.is_over(first));
        fs::create_dir(dir.path().join("gone")).unwrap();
        fs::write(dir.path().join("gone/cgroup.events"), "populated 1\n").unwrap();
        assert!(session.is_over(first + DYING));
        assert_eq!(session.over, Some(first));
    }
}

//! A group of kcap's own: made, entered by the traced command, emptied and removed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::{Layout, stale};

/// Between two looks at a group that is becoming empty.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a dropped group is waited for: its processes may be just dying.
const DROP_PATIENCE: Duration = Duration::from_millis(200);

/// A control group that kcap made. Dropped, it is removed if it is empty by then.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    id: u64,
    hierarchy: u32,
    procs: File,
    /// Locked while this kcap lives, so that another does not take the group for left behind.
    _lock: File,
    removed: bool,
}

impl Cgroup {
    /// Makes a group `kcap-<pid>-<n>` below kcap's own, or where that cannot be, below the root of
    /// the hierarchy.
    ///
    /// # Errors
    /// Where neither works: what failed, and what to do.
    pub fn create(layout: &Layout) -> Result<Self> {
        let first = match Self::create_in(layout, &layout.own) {
            Ok(group) => return Ok(group),
            Err(e) => e,
        };
        if layout.mount != layout.own
            && let Ok(group) = Self::create_in(layout, &layout.mount)
        {
            return Ok(group);
        }
        Err(first)
    }

    fn create_in(layout: &Layout, parent: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{}{}-{n}", stale::PREFIX, std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // Left behind by a namesake, and not empty.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && n < 1000 => {}
                Err(e) => {
                    let remedy = remedy(&e);
                    return Err(anyhow!(
                        "cannot make a cgroup in {}: {e}: {remedy}",
                        parent.display()
                    ));
                }
            }
        };
        let opened = Self::open(layout, &path);
        if opened.is_err() {
            // It is of no use; the error that matters is the one that is returned.
            let _ = fs::remove_dir(&path);
        }
        opened
    }

    fn open(layout: &Layout, path: &Path) -> Result<Self> {
        let lock = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        stale::lock(&lock).with_context(|| format!("cannot lock {}", path.display()))?;
        // Below a threaded group no new group takes processes.
        if let Ok(kind) = fs::read_to_string(path.join("cgroup.type"))
            && !kind.starts_with("domain\n")
        {
            bail!(
                "cannot use a cgroup below {}, which is threaded: start kcap from another cgroup",
                path.parent().unwrap_or(path).display()
            );
        }
        let procs = OpenOptions::new()
            .write(true)
            .open(path.join("cgroup.procs"))
            .map_err(|e| {
                anyhow!(
                    "cannot open {}/cgroup.procs: {e}: {}",
                    path.display(),
                    remedy(&e)
                )
            })?;
        let id = lock
            .metadata()
            .with_context(|| format!("cannot read {}", path.display()))?
            .ino();
        Ok(Self {
            path: path.to_owned(),
            id,
            hierarchy: layout.hierarchy,
            procs,
            _lock: lock,
            removed: false,
        })
    }

    /// The id by which the kernel knows the group: the inode number of its folder.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Number of its hierarchy, 0 for the unified one.
    pub fn hierarchy(&self) -> u32 {
        self.hierarchy
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its `cgroup.procs`, for [`enter`].
    pub fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    /// Processes in it and in the groups below it. 0 stands for one of another pid namespace.
    ///
    /// # Errors
    /// The system's.
    pub fn pids(&self) -> io::Result<Vec<i32>> {
        pids(&self.path)
    }

    /// Ends every process in it and below it, and waits until none is left. Blocks.
    ///
    /// # Errors
    /// `TimedOut` where some are left after `patience`.
    pub fn kill(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        // Version 2 since Linux 5.14: nothing can fork out of it.
        let whole = fs::write(self.path.join("cgroup.kill"), "1").is_ok();
        loop {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} processes do not end: {}", pids.len(), few(&pids)),
                ));
            }
            if !whole {
                for pid in pids.into_iter().filter(|&pid| pid > 1) {
                    // SAFETY: kill(2) takes two numbers. The pid was in our group a moment ago; it
                    // cannot be kcap's own, which never enters it.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
            }
            thread::sleep(PAUSE);
        }
    }

    /// Removes it, with the empty groups that the command left below it; waits up to `patience`
    /// for processes that are ending. Blocks.
    ///
    /// # Errors
    /// What is left, and where.
    pub fn remove(mut self, patience: Duration) -> Result<()> {
        let result = self.try_remove(patience);
        // Whatever came of it, Drop need not wait once more.
        self.removed = true;
        result.map_err(|e| {
            let left = self.pids().unwrap_or_default();
            if left.is_empty() {
                anyhow!("cannot remove the cgroup {}: {e}", self.path.display())
            } else {
                anyhow!(
                    "cannot remove the cgroup {}: {} processes are left in it ({}): end them, then \
                     rmdir it",
                    self.path.display(),
                    left.len(),
                    few(&left)
                )
            }
        })
    }

    fn try_remove(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            match remove_tree(&self.path) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.removed {
            // Nobody is left to tell; the next kcap removes what is left behind.
            let _ = self.try_remove(DROP_PATIENCE);
        }
    }
}

/// Moves the calling process into the group whose `cgroup.procs` is given. For a forked child
/// before it execs: makes one system call and nothing else.
///
/// # Errors
/// The system's, by errno alone.
pub fn enter(procs: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is live, and the buffer is one byte long.
    let written = unsafe { libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) };
    if written == 1 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The folder and all below it, each before those below it.
fn tree(top: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(dir) = found.get(next) {
        match fs::read_dir(dir) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        found.push(entry.path());
                    }
                }
            }
            // It went away as we looked.
            Err(e) if next > 0 && e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        next += 1;
    }
    Ok(found)
}

/// Processes in a group and below it. 0 stands for one of another pid namespace.
///
/// # Errors
/// The system's: `NotFound` where it is gone.
pub fn pids(top: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for dir in tree(top)? {
        match fs::read_to_string(dir.join("cgroup.procs")) {
            Ok(text) => pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // A threaded group lists its processes in the group above.
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            // It was removed between opening and reading.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(pids)
}

/// Removes a group and all below it, the lowest first.
pub(super) fn remove_tree(top: &Path) -> io::Result<()> {
    let dirs = match tree(top) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        dirs => dirs?,
    };
    for dir in dirs.iter().rev() {
        match fs::remove_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The first few of many.
fn few(pids: &[i32]) -> String {
    let shown: Vec<String> = pids.iter().take(5).map(ToString::to_string).collect();
    let more = if pids.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    shown.join(", ") + more
}

/// What to do where a group cannot be made.
fn remedy(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EROFS) => {
            "run kcap on the host, or give its container a writable /sys/fs/cgroup (--privileged)"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "run kcap as root, on the host or in a --privileged container"
        }
        Some(libc::EAGAIN) => {
            "raise cgroup.max.descendants and cgroup.max.depth of the cgroups above it"
        }
        Some(libc::ENOSPC | libc::ENOMEM) => "remove cgroups that are not in use",
        Some(libc::ENOENT | libc::ENODEV) => "start kcap from a cgroup that still exists",
        _ => "see cgroups(7) for this error",
    }
}

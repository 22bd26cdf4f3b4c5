//! Groups that a killed kcap left behind.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::Layout;
use super::group::{pids, remove_tree};

/// What the names of kcap's groups start with; `<pid>-<n>` follows.
pub(super) const PREFIX: &str = "kcap-";

impl Layout {
    /// Removes the groups of kcap processes that are gone, where they are empty, and says which.
    /// What cannot be looked at or removed is left alone.
    pub fn remove_stale(&self) -> Vec<PathBuf> {
        let mut parents = vec![&self.own];
        if self.mount != self.own {
            parents.push(&self.mount);
        }
        parents
            .into_iter()
            .filter_map(|parent| fs::read_dir(parent).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(|path| is_stale(path) && remove_tree(path).is_ok())
            .collect()
    }
}

fn is_stale(path: &Path) -> bool {
    let owner = path.file_name().and_then(|name| owner(name.to_str()?));
    owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        // A kcap in another pid namespace has a pid that means nothing here, but holds the lock.
        && File::open(path).is_ok_and(|dir| lock(&dir).is_ok())
        && pids(path).is_ok_and(|pids| pids.is_empty())
}

/// The process that made a group of that name.
fn owner(name: &str) -> Option<u32> {
    let (pid, n) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits(pid) && digits(n))
        .then(|| pid.parse().ok())
        .flatten()
}

/// Locks a group's folder, as long as the file stays open, or fails at once.
pub(super) fn lock(dir: &File) -> io::Result<()> {
    // SAFETY: flock(2) takes a descriptor, which is live, and a word of flags.
    match unsafe { libc::flock(dir.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_our_groups() {
        assert_eq!(owner("kcap-12-0"), Some(12));
        for name in [
            "kcap-",
            "kcap-12",
            "kcap-12-",
            "kcap--1",
            "kcap-+1-1",
            "xkcap-1-1",
            "kcap-1-a",
            "kcap-99999999999-1",
        ] {
            assert_eq!(owner(name), None, "{name}");
        }
    }
}

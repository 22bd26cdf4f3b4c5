//! Reads the capabilities of executed files while the build runs. A program can be over before its
//! record is read, but the file it executed is mostly still there, and some other process of the
//! same mount namespace leads to it.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
};

use super::assemble::Executed;
use crate::{
    capture::FileCaps,
    host::filecaps::{Identity, of_path, of_program},
};

/// Processes remembered for each mount namespace, besides the first.
const RECENT: usize = 16;
/// Mount namespaces and files remembered.
const MOST: usize = 1 << 16;

/// A reader with the memory that it needs for short-lived programs.
#[derive(Default)]
pub struct Reader {
    /// Processes by mount namespace: the first seen, which is the longest-lived, then the latest.
    ways: HashMap<u64, (u32, VecDeque<u32>)>,
    /// What each file had when last read.
    known: HashMap<(u32, u64), FileCaps>,
}

impl Reader {
    /// The capabilities of an executed file; [`FileCaps::Unread`] where no way leads to it.
    pub fn read(&mut self, file: &Executed<'_>) -> FileCaps {
        if file.inode == 0 {
            return of_path(file.pid, Path::new(file.path));
        }
        let identity = Identity::from_kernel(file.dev, file.inode);
        let path = Path::new(file.path);
        let mut caps = of_program(file.pid, path, identity);
        if let Some((first, recent)) = self.ways.get(&file.mnt_ns) {
            // A relative path means nothing in another process.
            let others = recent
                .iter()
                .rev()
                .chain([first])
                .filter(|_| path.is_absolute());
            for &pid in others {
                if caps != FileCaps::Unread {
                    break;
                }
                caps = of_program(pid, path, identity);
            }
        }
        if caps == FileCaps::Unread {
            // A command that made no mount namespace shares kcap's.
            caps = of_program(std::process::id(), path, identity);
        }
        let key = (file.dev, file.inode);
        if caps == FileCaps::Unread {
            // What it was when last executed: files rarely change between two executions.
            caps = self.known.get(&key).cloned().unwrap_or(caps);
        } else if self.known.len() < MOST {
            self.known.insert(key, caps.clone());
        }
        self.remember(file);
        caps
    }

    fn remember(&mut self, file: &Executed<'_>) {
        if self.ways.len() >= MOST && !self.ways.contains_key(&file.mnt_ns) {
            return;
        }
        let (_, recent) = self
            .ways
            .entry(file.mnt_ns)
            .or_insert_with(|| (file.pid, VecDeque::new()));
        if recent.back() != Some(&file.pid) {
            recent.push_back(file.pid);
            if recent.len() > RECENT {
                recent.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn executed<'a>(pid: u32, path: &'a str, dev: u64, inode: u64) -> Executed<'a> {
        let dev = (libc::major(dev) << 20) | libc::minor(dev);
        Executed {
            pid,
            path,
            dev,
            inode,
            mnt_ns: 1,
        }
    }

    #[test]
    fn a_program_that_is_over_is_found_through_another() {
        let exe = std::env::current_exe().unwrap();
        let meta = std::fs::metadata(&exe).unwrap();
        let path = exe.to_str().unwrap();
        let mut gone = std::process::Command::new("/bin/true").spawn().unwrap();
        gone.wait().unwrap();
        let mut reader = Reader::default();
        let dead = executed(gone.id(), path, meta.dev(), meta.ino());
        let alive = executed(std::process::id(), path, meta.dev(), meta.ino());
        assert_eq!(reader.read(&alive), FileCaps::None);
        // Another file's identity is not taken for it, however it is reached.
        let other = executed(gone.id(), path, meta.dev(), meta.ino() + 1);
        assert_eq!(reader.read(&other), FileCaps::Unread);
        assert_eq!(reader.read(&dead), FileCaps::None);
    }
}

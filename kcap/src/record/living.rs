//! A session's processes: when the last one has ended, the session may be over.

use std::collections::{HashSet, VecDeque};

use super::kernel::Raw;

/// How many of the processes that ended last may still be about to.
const DYING: usize = 64;

/// A session's processes.
#[derive(Default)]
pub struct Living {
    /// Those that run.
    pub alive: HashSet<u32>,
    /// Those that ended last: a process makes checks after it has said so.
    dying: VecDeque<u32>,
}

impl Living {
    /// Takes account of a record; true where it ends the last one.
    pub fn take(&mut self, raw: &Raw) -> bool {
        match raw {
            Raw::Enter(e) => _ = self.alive.insert(e.tgid),
            Raw::Fork(f) => _ = self.alive.insert(f.tgid),
            Raw::Exec(e) => _ = self.alive.insert(e.tgid),
            Raw::Exit(e) => return self.end(e.tgid),
            _ => {}
        }
        false
    }

    /// Takes one for ended; true where it was the last.
    pub fn end(&mut self, pid: u32) -> bool {
        if !self.alive.remove(&pid) {
            return false;
        }
        self.dying.push_back(pid);
        if self.dying.len() > DYING {
            self.dying.pop_front();
        }
        self.alive.is_empty()
    }

    /// Those that ended last.
    pub fn last(&self) -> Vec<u32> {
        self.dying.iter().copied().collect()
    }
}

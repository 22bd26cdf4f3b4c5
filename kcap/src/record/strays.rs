//! What came from the kernel side and belongs to no session that is known: its announcement was lost.

use super::kernel::Raw;

/// What belongs to one session or another, and cannot be told whose it is: counts since the trace
/// began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// Checks of programs that nobody announced.
    pub checks: u64,
    /// Records of such programs.
    pub programs: u64,
    /// Their samples, and records that are none of ours.
    pub samples: u64,
}

impl Strays {
    /// Counts a record of a program that nobody announced.
    pub fn take(&mut self, raw: &Raw) {
        match raw {
            // Outcomes count the same checks again.
            Raw::Tally(key, n) if key.outcome == 0 && key.unasked == 0 => self.checks += n,
            Raw::Tally(..) | Raw::Executor(_) => {}
            Raw::Evidence(_) | Raw::Unasked(_) | Raw::Argv { .. } => self.samples += 1,
            Raw::Fork(_) | Raw::Enter(_) | Raw::Exec(_) | Raw::Exit(_) | Raw::Phase(_) => {
                self.programs += 1;
            }
        }
    }

    /// What came since it was `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            checks: self.checks - before.checks,
            programs: self.programs - before.programs,
            samples: self.samples - before.samples,
        }
    }
}

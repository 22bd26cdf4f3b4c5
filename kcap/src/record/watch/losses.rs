//! What was lost until when: of a trace that sees many sessions, each is told only of what it may have
//! lost itself.

use std::collections::VecDeque;

use crate::record::kernel::Finish;

/// Changes of what was lost that are kept.
const SNAPSHOTS: usize = 64;

/// What was lost until when, the oldest first.
#[derive(Default)]
pub(super) struct Losses(VecDeque<(u64, Finish)>);

impl Losses {
    /// Notes a change of what was lost, and when it was seen: later than it was. `now_ns`:
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn keep(&mut self, now_ns: u64, so_far: Finish) {
        let same = |(_, before): &(u64, Finish)| !so_far.since(before).is_loss();
        if self.0.back().is_some_and(same) {
            return;
        }
        self.0.push_back((now_ns, so_far));
        if self.0.len() > SNAPSHOTS {
            self.0.pop_front();
        }
    }

    /// What was lost before a moment, at least: what cannot be told apart counts for a session.
    pub(super) fn before(&self, time_ns: u64) -> Finish {
        let at = (self.0.iter().rev()).find(|(when, _)| *when <= time_ns);
        at.map(|(_, lost)| lost.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(checks: u64) -> Finish {
        Finish {
            loss: vec![checks],
            ..Finish::default()
        }
    }

    #[test]
    fn what_was_lost_before_a_session_is_known_by_when_it_was_seen() {
        let mut losses = Losses::default();
        for (at, checks) in [(10, 0), (20, 3), (30, 3), (40, 5)] {
            losses.keep(at, lost(checks));
        }
        assert_eq!(losses.0.len(), 3, "changes only");
        let before = |at| losses.before(at).loss;
        assert_eq!(before(9), [0; 0], "all counts");
        assert_eq!(before(19), [0]);
        assert_eq!(before(20), [3]);
        assert_eq!(before(39), [3]);
        assert_eq!(before(99), [5]);
    }

    #[test]
    fn old_changes_are_forgotten_and_then_count_for_a_session() {
        let mut losses = Losses::default();
        for n in 1..=2 * SNAPSHOTS as u64 {
            losses.keep(n, lost(n));
        }
        assert_eq!(losses.0.len(), SNAPSHOTS);
        assert_eq!(losses.before(SNAPSHOTS as u64).loss, [0; 0]);
        assert_eq!(losses.before(SNAPSHOTS as u64 + 1).loss, [65]);
    }
}

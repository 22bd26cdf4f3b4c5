//! How much is spent on a proof: builds and time, of all of it and of one build, and what is left to do.

use std::time::Duration;

use super::Proof;

/// Builds of one proof, at most.
const MOST: usize = 120;
/// How many times as long as the first build another may take, and how much longer at least.
const PATIENCE: (u32, Duration) = (10, Duration::from_secs(30));

/// How much may be spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Budget {
    /// As much as it takes.
    #[default]
    All,
    /// So many builds beside the first.
    Builds(usize),
    /// So much time; builds that run then come to their end.
    Time(Duration),
}

impl Proof {
    /// There are too few builds to make one more with the starting set for certainty.
    pub(super) fn limited(&self) -> bool {
        matches!(self.budget, Budget::Builds(..3))
    }

    /// Why no further build is made, where the budget is spent.
    pub(super) fn spent(&self) -> Option<String> {
        match self.budget {
            // The first one is needed to know anything at all.
            _ if self.started == 0 && self.observed.is_none() => None,
            _ if self.started >= MOST => Some(format!(
                "{MOST} builds did not tell: nothing explains why builds with less fail"
            )),
            Budget::All => None,
            Budget::Builds(count) => (self.started >= count + self.free)
                .then(|| format!("the budget of {count} builds is spent")),
            Budget::Time(time) => (self.began.elapsed() >= time)
                .then(|| format!("the budget of {} s is spent", time.as_secs())),
        }
    }

    /// How long a build may take.
    pub fn timeout(&self) -> Option<Duration> {
        let whole = self.replays.iter().filter(|replay| {
            // One that failed at once says nothing of how long it takes.
            replay.mask() == self.start && replay.image.is_some()
        });
        let longest = whole.map(|replay| replay.seconds).max_by(f64::total_cmp)?;
        let (times, more) = PATIENCE;
        Some(Duration::from_secs_f64(longest) * times + more)
    }

    /// How many builds were made, and how many more are expected.
    pub fn progress(&self) -> (usize, usize) {
        let made = self.replays.iter().filter(|replay| !replay.kept).count();
        let left = if self.end.is_some() {
            0
        } else {
            self.planner.expected()
        };
        let limit = match self.budget {
            Budget::Builds(count) => {
                (count + self.free).saturating_sub(self.started) + self.running.len()
            }
            _ => usize::MAX,
        };
        (made, left.min(limit))
    }

    /// How long it still takes, if what is expected comes true and builds follow one another as before.
    pub fn time_left(&self) -> Option<Duration> {
        let (made, left) = self.progress();
        let each = self.began.elapsed().div_f64(made.max(1) as f64);
        (made > 0).then(|| each.mul_f64(left as f64))
    }
}

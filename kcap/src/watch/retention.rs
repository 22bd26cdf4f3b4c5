//! What is kept, and for how long.

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Seconds; all where `None`.
    pub age: Option<u64>,
    /// Bytes in all; any number where `None`.
    pub bytes: Option<u64>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Reports.
    pub reports: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which reports to remove: those that are too old, and of the others the oldest, until the rest is
/// within bounds. Each has a time in seconds since the epoch, and a size. Gives their positions.
pub fn doomed(reports: &[(u64, u64)], keep: &Keep, now: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..reports.len()).collect();
    // The newest first.
    order.sort_by_key(|&at| std::cmp::Reverse(reports[at].0));
    let mut kept = 0u64;
    let mut doomed = vec![];
    for at in order {
        let (time, size) = reports[at];
        let old = keep.age.is_some_and(|age| now.saturating_sub(time) > age);
        let full = (keep.bytes).is_some_and(|bytes| kept.saturating_add(size) > bytes);
        if old || full {
            doomed.push(at);
        } else {
            kept += size;
        }
    }
    doomed.sort_unstable();
    doomed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_and_then_the_oldest_go() {
        let reports = [(100, 10), (300, 10), (200, 10), (400, 10)];
        let all = Keep::default();
        assert!(doomed(&reports, &all, 1_000).is_empty());
        let young = Keep {
            age: Some(750),
            bytes: None,
        };
        assert_eq!(doomed(&reports, &young, 1_000), [0, 2]);
        let few = Keep {
            age: None,
            bytes: Some(25),
        };
        assert_eq!(doomed(&reports, &few, 1_000), [0, 2]);
        let nothing = Keep {
            age: Some(0),
            bytes: Some(0),
        };
        assert_eq!(doomed(&reports, &nothing, 1_000), [0, 1, 2, 3]);
    }
}

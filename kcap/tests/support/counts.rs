//! Counts of the known executor's operations (`tests/executor/ops.rs`): as a test expects them, and as
//! a capture has them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use kcap::capture::{Capture, Program, Tally};
use kcap_common::abi::key::creds;

/// Memory is asked about by every program, as often as it happens to take some.
const SYS_ADMIN: u8 = 21;
/// Operations, and the capability and system call by which each is seen; one check each time.
const OPS: [(&str, u8, i64); 8] = [
    ("chown", 0, libc::SYS_fchown),
    ("setuid", 7, libc::SYS_setuid),
    ("setgid", 6, libc::SYS_setgid),
    ("setgroups", 6, libc::SYS_setgroups),
    ("noatime", 3, libc::SYS_openat),
    ("fowner", 3, libc::SYS_fchmod),
    ("settime", 25, libc::SYS_settimeofday),
    // What the executor does once, before it writes anything.
    ("prepare", 0, libc::SYS_fchownat),
];

/// Checks by capability and system call.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counts(BTreeMap<(u8, Option<u16>), u64>);

impl Counts {
    /// What a list of operations comes to, in the executor's words: `chown:7 noatime:4@3`.
    pub fn of(text: &str) -> Self {
        let mut counts = Self::default();
        for word in text.split_whitespace() {
            let (name, count) = word.split_once(':').expect("NAME:COUNT");
            let (count, threads) = count.split_once('@').unwrap_or((count, "1"));
            let number = |text: &str| text.parse::<u64>().expect("a number");
            let (_, cap, syscall) = OPS
                .into_iter()
                .find(|(other, ..)| *other == name)
                .expect("an operation");
            let at = counts.0.entry((cap, Some(syscall as u16))).or_default();
            *at += number(count) * number(threads);
        }
        counts
    }

    /// Adds a tally. What overlay file systems ask with credentials of their own is left out.
    pub fn add(&mut self, tally: &Tally) {
        if let Some(cap) = tally.cap.filter(|cap| *cap != SYS_ADMIN)
            && tally.unasked == 0
            && tally.creds == creds::OWN
        {
            *self.0.entry((cap, tally.syscall)).or_default() += tally.count;
        }
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for ((cap, syscall), count) in &self.0 {
            let same = |op: &&(&str, u8, i64)| op.1 == *cap && *syscall == Some(op.2 as u16);
            match OPS.iter().find(same) {
                Some((name, ..)) => list.entry(&format_args!("{name}:{count}")),
                None => list.entry(&format_args!("capability {cap} in {syscall:?}:{count}")),
            };
        }
        list.finish()
    }
}

/// What an executor did between two of its log lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    /// The line that it began with, without its colours, level and time; empty for what came before
    /// the first.
    pub line: String,
    /// Checks of its own.
    pub own: Counts,
    /// Those of its children, and of theirs.
    pub children: Counts,
}

impl Phase {
    /// One as a test expects it.
    pub fn new(line: &str, own: &str, children: &str) -> Self {
        Self {
            line: line.to_owned(),
            own: Counts::of(own),
            children: Counts::of(children),
        }
    }
}

/// What the executors of a capture did, each from its first instruction on, by phase; in order of
/// their starts.
pub fn executors(capture: &Capture) -> Vec<Vec<Phase>> {
    let by_id: HashMap<u32, &Program> = capture.programs.iter().map(|p| (p.id, p)).collect();
    let mut starts: Vec<&Program> = capture
        .programs
        .iter()
        .filter(|p| p.executor && p.exec.is_some())
        .collect();
    starts.sort_by_key(|p| p.start_ns);
    // Phase generations by the log lines that began them: executor, and place among its phases.
    let mut places: HashMap<u32, (usize, usize)> = HashMap::new();
    let mut all: Vec<Vec<Phase>> = vec![];
    for (i, start) in starts.iter().enumerate() {
        places.insert(start.id, (i, 0));
        all.push(vec![Phase::default()]);
    }
    for line in &capture.log {
        let phase = by_id[&line.program];
        let (executor, _) = places[&phase.parent.expect("a phase follows another")];
        places.insert(phase.id, (executor, all[executor].len()));
        all[executor].push(Phase {
            line: plain(&line.text),
            ..Phase::default()
        });
    }
    for tally in &capture.tallies {
        if let Some((executor, phase)) = places.get(&tally.program) {
            all[*executor][*phase].own.add(tally);
            continue;
        }
        // The nearest generation above that is a phase.
        let above = std::iter::successors(by_id.get(&tally.program), |program| {
            by_id.get(&program.parent?)
        });
        if let Some((executor, phase)) = above.filter_map(|p| places.get(&p.id)).next() {
            all[*executor][*phase].children.add(tally);
        }
    }
    all
}

/// A line of logrus' without what it puts around the message.
pub fn plain(line: &str) -> String {
    let message = line.split_once("] ").map_or(line, |(_, message)| message);
    message.trim_end().to_owned()
}

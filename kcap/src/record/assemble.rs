//! Puts a capture together from what the kernel side sent, in whatever order it arrives: records of
//! different CPUs interleave, a record can be lost, counts of one key come in parts.

use std::collections::{BTreeMap, HashMap, btree_map::Entry};

use kcap_common::abi::{
    Key,
    key::{NO_CAP, NO_SYSCALL, unasked},
    loss,
    record::{self, exec_flag},
};

use super::{
    kernel::{Finish, Raw},
    mask::Mask,
    strays::Strays,
};
use crate::capture::{
    Argv, Capture, Evidence, Exec, FileCaps, Frame, LogLine, Loss, Origin, Program, Sets, Tally,
    Unasked,
};

/// Names addresses of kernel functions.
pub type Symbolize<'a> = dyn FnMut(&[u64]) -> HashMap<u64, (String, u64)> + 'a;

/// Samples and needs kept in one capture at most; what is beyond counts as lost evidence.
const MAX_SAMPLES: usize = 1 << 18;
/// Log lines kept in one capture at most. What follows is counted under the last one's generation
/// all the same, and its lines as lost evidence.
const MAX_LINES: usize = 1 << 16;

/// What entries take in memory, roughly, in bytes: of a session that may take only so much.
mod cost {
    pub const PROGRAM: usize = 640;
    pub const TALLY: usize = 96;
    pub const SAMPLE: usize = 384;
    pub const UNASKED: usize = 512;
    pub const LINE: usize = 96;
}

/// A capture under construction.
pub struct Assembler {
    clock_base: u64,
    /// Bytes that it may still take.
    room: usize,
    /// It wanted more than that.
    full: bool,
    programs: BTreeMap<u32, Program>,
    tallies: HashMap<Key, u64>,
    evidence: Vec<record::Evidence>,
    unasked: Vec<(record::Unasked, Option<FileCaps>)>,
    log: Vec<LogLine>,
    arguments: HashMap<u32, Argv>,
    dropped: u64,
    unread: u64,
    unknown: u64,
    checks: u64,
    /// Checks that are nobody's for certain, or that there was no room for.
    strays: u64,
    /// Programs of the same kind.
    strayed: u64,
    /// Outcomes that there was no room for.
    lost_outcomes: u64,
}

impl Assembler {
    /// Starts one whose times count from `clock_base`, `CLOCK_MONOTONIC` nanoseconds.
    pub fn new(clock_base: u64) -> Self {
        Self::bounded(clock_base, usize::MAX)
    }

    /// Starts one that keeps no more than some `room` bytes: what is beyond counts as lost.
    pub fn bounded(clock_base: u64, room: usize) -> Self {
        Self {
            clock_base,
            room,
            full: false,
            programs: BTreeMap::new(),
            tallies: HashMap::new(),
            evidence: vec![],
            unasked: vec![],
            log: vec![],
            arguments: HashMap::new(),
            dropped: 0,
            unread: 0,
            unknown: 0,
            checks: 0,
            strays: 0,
            lost_outcomes: 0,
            strayed: 0,
        }
    }

    /// Bytes that it takes, roughly.
    pub fn size(&self) -> usize {
        self.programs.len() * cost::PROGRAM
            + self.tallies.len() * cost::TALLY
            + self.evidence.len() * cost::SAMPLE
            + self.unasked.len() * cost::UNASKED
            + self.log.len() * (cost::LINE + record::LINE_LEN / 4)
    }

    /// It had no room for all.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Counts bytes that belong to it and are kept elsewhere.
    pub fn charge(&mut self, bytes: usize) {
        self.fits(bytes);
    }

    fn fits(&mut self, bytes: usize) -> bool {
        match self.room.checked_sub(bytes) {
            Some(left) => {
                self.room = left;
                true
            }
            None => {
                self.full = true;
                false
            }
        }
    }

    /// Takes one record. `read_caps` is asked for the capabilities of an executed file (process id,
    /// path, device, inode) at once, while the file is there.
    pub fn take(&mut self, raw: Raw, read_caps: &mut dyn FnMut(&Executed<'_>) -> FileCaps) {
        match raw {
            Raw::Tally(key, n) => self.count(key, n),
            Raw::Evidence(e) => {
                if self.evidence.len() < MAX_SAMPLES && self.fits(cost::SAMPLE) {
                    self.evidence.push(*e);
                } else {
                    self.dropped += 1;
                }
            }
            Raw::Fork(f) => self.fork(&f),
            Raw::Enter(e) => self.enter(&e),
            Raw::Exec(e) => self.exec(&e, read_caps),
            Raw::Argv {
                program,
                full,
                bytes,
            } => {
                if !self.fits(2 * bytes.len()) {
                    self.dropped += 1;
                    return;
                }
                let cut = full as usize > bytes.len();
                let args = bytes
                    .strip_suffix(b"\0")
                    .unwrap_or(&bytes)
                    .split(|&b| b == 0)
                    .map(|a| String::from_utf8_lossy(a).into_owned())
                    .collect();
                self.arguments.insert(program, Argv { args, cut });
            }
            Raw::Exit(e) => self.exit(&e),
            Raw::Unasked(u) => self.unasked(u, read_caps),
            Raw::Phase(p) => self.phase(&p),
        }
    }

    /// Checks counted until now.
    pub fn checks(&self) -> u64 {
        self.checks
    }

    /// Takes in another session's share of the same trace.
    pub fn absorb(&mut self, other: Self) {
        self.programs.extend(other.programs);
        for (key, n) in other.tallies {
            *self.tallies.entry(key).or_default() += n;
        }
        self.evidence.extend(other.evidence);
        self.unasked.extend(other.unasked);
        self.log.extend(other.log);
        self.arguments.extend(other.arguments);
        self.checks += other.checks;
        self.dropped += other.dropped;
        self.unread += other.unread;
        self.unknown += other.unknown;
        self.strays += other.strays;
        self.lost_outcomes += other.lost_outcomes;
        self.strayed += other.strayed;
        self.full |= other.full;
    }

    /// Counts as lost what belongs to one session or another, and cannot be told whose it is.
    pub fn suffer(&mut self, strays: Strays) {
        self.strays += strays.checks;
        self.strayed += strays.programs;
        self.unknown += strays.samples;
    }

    fn count(&mut self, key: Key, n: u64) {
        let is_check = key.outcome == 0 && key.unasked == 0;
        if !self.tallies.contains_key(&key) && !self.fits(cost::TALLY) {
            if is_check {
                self.strays += n;
            } else {
                // Without it, a failure would be read as success.
                self.lost_outcomes += n;
            }
            return;
        }
        if is_check {
            self.checks += n;
        }
        *self.tallies.entry(key).or_default() += n;
    }

    fn since(&self, time: u64) -> u64 {
        time.saturating_sub(self.clock_base)
    }

    /// The generation, made as [`Origin::Lost`] where its own record has not come (yet); `None`
    /// where there is no room for it.
    fn program(&mut self, id: u32) -> Option<&mut Program> {
        if !self.programs.contains_key(&id) && !self.fits(cost::PROGRAM) {
            self.strayed += 1;
            return None;
        }
        Some(self.known(id))
    }

    fn known(&mut self, id: u32) -> &mut Program {
        self.programs.entry(id).or_insert_with(|| Program {
            id,
            origin: Origin::Lost,
            ..Program::default()
        })
    }

    /// The process goes on elsewhere: what it executes next is another session's.
    pub fn left(&mut self, program: u32, time: u64) {
        let time = self.since(time);
        if let Some(p) = self.programs.get_mut(&program) {
            p.end_ns.get_or_insert(time);
        }
    }

    fn fork(&mut self, f: &record::Fork) {
        let start_ns = self.since(f.time);
        let Some(p) = self.program(f.program) else {
            return;
        };
        p.origin = Origin::Fork;
        p.parent = Some(f.parent);
        p.pid = f.tgid;
        p.start_ns = start_ns;
    }

    fn enter(&mut self, e: &record::Enter) {
        let start_ns = self.since(e.time);
        let Some(p) = self.program(e.program) else {
            return;
        };
        p.origin = Origin::Enter;
        p.pid = e.tgid;
        p.start_ns = start_ns;
        p.comm = text(&e.comm);
    }

    fn exec(&mut self, e: &record::Exec, read_caps: &mut dyn FnMut(&Executed<'_>) -> FileCaps) {
        let time = self.since(e.time);
        if e.previous != 0
            && let Some(before) = self.program(e.previous)
        {
            before.end_ns.get_or_insert(time);
        }
        let path = text(&e.path);
        let interpreter = Some(text(&e.interp)).filter(|i| !i.is_empty());
        let file = read_caps(&Executed {
            pid: e.tgid,
            path: interpreter.as_deref().unwrap_or(&path),
            dev: e.dev,
            inode: e.inode,
            mnt_ns: e.mnt_ns.into(),
        });
        if file == FileCaps::Unread {
            self.unread += 1;
        }
        let Some(p) = self.program(e.program) else {
            return;
        };
        p.origin = Origin::Exec;
        p.parent = (e.previous != 0).then_some(e.previous);
        p.pid = e.tgid;
        p.start_ns = time;
        p.path = path;
        p.path_cut = e.flags & exec_flag::PATH_CUT != 0;
        p.interpreter = interpreter;
        p.executor = e.flags & exec_flag::EXECUTOR != 0;
        let [inheritable, permitted, effective, bounding, ambient] = e.caps;
        p.exec = Some(Exec {
            euid: e.euid,
            caps: Sets {
                inheritable,
                permitted,
                effective,
                bounding,
                ambient,
            },
            user_ns: e.user_ns.into(),
            ns_level: e.ns_level,
            mnt_ns: e.mnt_ns.into(),
            cgroup: e.cgroup,
            dev: format!("{}:{}", e.dev >> 20, e.dev & 0xf_ffff),
            inode: e.inode,
            seccomp: e.flags & exec_flag::SECCOMP != 0,
            file,
        });
    }

    fn phase(&mut self, phase: &record::Phase) {
        let time_ns = self.since(phase.time);
        if let Some(before) = self.program(phase.previous) {
            before.end_ns.get_or_insert(time_ns);
        }
        let Some(p) = self.program(phase.program) else {
            return;
        };
        p.origin = Origin::Phase;
        p.parent = Some(phase.previous);
        p.pid = phase.tgid;
        p.start_ns = time_ns;
        let text = line(phase);
        if self.log.len() < MAX_LINES && self.fits(cost::LINE + text.len()) {
            self.log.push(LogLine {
                time_ns,
                program: phase.program,
                text,
                cut: phase.full > phase.len,
            });
        } else {
            self.dropped += 1;
        }
    }

    fn exit(&mut self, e: &record::Exit) {
        let time = self.since(e.time);
        let Some(p) = self.program(e.program) else {
            return;
        };
        // Two last threads may both say it; the first is kept.
        if p.wait_status.is_none() {
            p.wait_status = Some(e.status);
            p.end_ns = Some(time);
            p.reaper = (e.parent != 0).then_some(e.parent);
            p.pid = e.tgid;
        }
    }

    fn unasked(
        &mut self,
        u: Box<record::Unasked>,
        read_caps: &mut dyn FnMut(&Executed<'_>) -> FileCaps,
    ) {
        if self.unasked.len() >= MAX_SAMPLES || !self.fits(cost::UNASKED) {
            self.dropped += 1;
            return;
        }
        let file = (u.key.unasked == unasked::EXEC).then(|| {
            let path = text(&u.detail[..(u.len as usize).min(u.detail.len())]);
            read_caps(&Executed {
                pid: u.tgid,
                path: &path,
                dev: 0,
                inode: 0,
                mnt_ns: 0,
            })
        });
        self.unasked.push((*u, file));
    }

    /// Gives the programs, tallies, samples, log and losses, sorted, without what `mask` hides; the
    /// caller fills in the rest. Counts left in the kernel were taken before.
    pub fn finish(mut self, end: &Finish, mask: &Mask, symbolize: &mut Symbolize<'_>) -> Capture {
        let named: Vec<u32> = self.tallies.keys().map(|k| k.program).collect();
        for id in named {
            self.known(id);
        }
        self.inherit_paths();

        let mut merged: BTreeMap<Key, Tally> = BTreeMap::new();
        for (key, n) in &self.tallies {
            let bare = Key { outcome: 0, ..*key };
            let tally = match merged.entry(bare) {
                Entry::Occupied(o) => o.into_mut(),
                Entry::Vacant(v) => v.insert(tally(&bare)),
            };
            if key.outcome == 0 {
                tally.count += n;
            } else {
                *tally.failed.entry(key.outcome).or_default() += n;
            }
        }
        let index: HashMap<Key, u32> = merged
            .keys()
            .enumerate()
            .map(|(i, k)| (*k, i as u32))
            .collect();

        let mut wanted: Vec<u64> = self
            .evidence
            .iter()
            .flat_map(|e| {
                e.stack[..(e.depth as usize).min(e.stack.len())]
                    .iter()
                    .copied()
            })
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let symbols = symbolize(&wanted);

        let mut evidence: Vec<Evidence> = self
            .evidence
            .iter()
            .filter_map(|e| {
                Some(Evidence {
                    tally: *index.get(&Key {
                        outcome: 0,
                        ..e.key
                    })?,
                    time_ns: self.since(e.time),
                    tid: e.tid,
                    comm: text(&e.comm),
                    args: e.args,
                    target_ns: e.target_ns.into(),
                    path: frames(e, &symbols),
                })
            })
            .collect();
        evidence.sort_by_key(|e| (e.time_ns, e.tally));

        let mut needs: Vec<Unasked> = self
            .unasked
            .iter()
            .filter_map(|(u, file)| {
                let mut lacking = u.lacking;
                if let Some(FileCaps::Has { permitted, .. }) = file {
                    lacking |= permitted & !u.bounding;
                }
                let len = (u.len as usize).min(u.detail.len());
                Some(Unasked {
                    tally: *index.get(&Key {
                        outcome: 0,
                        ..u.key
                    })?,
                    time_ns: self.since(u.time),
                    pid: u.tgid,
                    args: u.args,
                    lacking,
                    bounding: u.bounding,
                    detail: text(&u.detail[..len]),
                    file: file.clone(),
                })
            })
            .collect();
        needs.sort_by_key(|u| (u.time_ns, u.tally));

        for (id, mut argv) in std::mem::take(&mut self.arguments) {
            for arg in &mut argv.args {
                mask.hide(arg);
            }
            self.known(id).argv = Some(argv);
        }
        for line in &mut self.log {
            mask.hide(&mut line.text);
            mask.hide_assignment(&mut line.text);
        }
        self.log.sort_by_key(|line| (line.time_ns, line.program));
        let loss = self.loss(end);
        Capture {
            programs: self.programs.into_values().collect(),
            tallies: merged.into_values().collect(),
            evidence,
            unasked: needs,
            log: self.log,
            loss,
            ..Capture::default()
        }
    }

    /// A forked child runs its parent's program until it executes another.
    fn inherit_paths(&mut self) {
        let ids: Vec<u32> = self.programs.keys().copied().collect();
        for id in ids {
            let mut at = id;
            // Bounded: parents could name each other in a hostile or damaged trace.
            for _ in 0..self.programs.len() {
                let p = &self.programs[&at];
                if !matches!(p.origin, Origin::Fork | Origin::Phase) || !p.path.is_empty() {
                    break;
                }
                match p.parent.filter(|parent| self.programs.contains_key(parent)) {
                    Some(parent) => at = parent,
                    None => break,
                }
            }
            if at != id {
                let from = &self.programs[&at];
                let (path, cut, comm, executor) = (
                    from.path.clone(),
                    from.path_cut,
                    from.comm.clone(),
                    from.executor,
                );
                let p = self.known(id);
                p.path = path;
                p.path_cut = cut;
                p.executor = executor;
                if p.comm.is_empty() {
                    p.comm = comm;
                }
            }
        }
    }

    fn loss(&self, end: &Finish) -> Loss {
        let counter = |what: u32| end.loss.get(what as usize).copied().unwrap_or(0);
        let lost_programs = self
            .programs
            .values()
            .filter(|p| p.origin == Origin::Lost)
            .count() as u64;
        Loss {
            checks: counter(loss::CHECKS) + self.strays,
            outcomes: counter(loss::OUTCOMES) + self.lost_outcomes,
            evidence: counter(loss::EVIDENCE) + self.dropped + self.unknown,
            execs: (counter(loss::EXECS) + counter(loss::SCOPE)).max(lost_programs + self.strayed),
            skipped: end.skipped.clone(),
            file_caps: self.unread,
            unasked: counter(loss::UNASKED),
            unproven: end.unproven.clone(),
        }
    }
}

/// An executed file, as the kernel saw it.
#[derive(Debug)]
pub struct Executed<'a> {
    /// Process id.
    pub pid: u32,
    /// Path as named by the caller, in the process's root.
    pub path: &'a str,
    /// Device, kernel encoding; 0 where unknown.
    pub dev: u32,
    /// Inode; 0 where unknown.
    pub inode: u64,
    /// Inode number of the process's mount namespace; 0 where unknown.
    pub mnt_ns: u64,
}

/// What the executor wrote, without the end of the line.
pub fn line(phase: &record::Phase) -> String {
    let len = (phase.len as usize).min(phase.text.len());
    let text = String::from_utf8_lossy(&phase.text[..len]);
    text.trim_end_matches(['\n', '\r']).to_owned()
}

/// Bytes up to the first NUL, lossily decoded.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn tally(key: &Key) -> Tally {
    Tally {
        program: key.program,
        slice: key.slice,
        cap: (key.cap != NO_CAP).then_some(key.cap),
        result: key.result,
        syscall: (key.syscall != NO_SYSCALL).then_some(key.syscall),
        abi: key.abi,
        class: key.class,
        flags: key.flags,
        creds: key.creds,
        target_level: key.target_level,
        creds_level: key.creds_level,
        site: key.site,
        unasked: key.unasked,
        count: 0,
        failed: BTreeMap::new(),
    }
}

/// The call path without the frames of BPF itself.
fn frames(e: &record::Evidence, symbols: &HashMap<u64, (String, u64)>) -> Vec<Frame> {
    let depth = (e.depth as usize).min(e.stack.len());
    let all = e.stack[..depth].iter().map(|&address| {
        let (symbol, offset) = match symbols.get(&address) {
            Some((s, o)) => (Some(s.clone()), *o),
            None => (None, 0),
        };
        Frame {
            address,
            symbol,
            offset,
        }
    });
    all.skip_while(|f| {
        f.symbol.as_deref().is_some_and(|s| {
            s.starts_with("bpf_") || s.starts_with("__bpf_") || s.contains("_bpf_trace_run")
        })
    })
    .collect()
}

#[cfg(test)]
mod tests;

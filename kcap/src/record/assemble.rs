//! Takes what the kernel side sent, for one capture, in whatever order it arrives: records of different
//! CPUs interleave, a record can be lost, counts of one key come in parts. What there is no room for is
//! counted as lost.

mod finish;

use std::collections::{BTreeMap, HashMap};

use kcap_common::abi::{
    Key,
    key::unasked,
    record::{self, exec_flag},
};

use super::{kernel::Raw, room::Room, strays::Strays};
use crate::capture::{Argv, Exec, FileCaps, LogLine, Origin, Program, Sets};

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
    /// Bytes that it takes.
    room: Room,
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
        Self::bounded(clock_base, Room::of(usize::MAX))
    }

    /// Starts one that keeps no more than there is `room` for: what is beyond counts as lost.
    pub fn bounded(clock_base: u64, room: Room) -> Self {
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

    /// Counts bytes that belong to it and are kept elsewhere; false where there is no room for them, which
    /// loses nothing that was recorded.
    pub fn charge(&mut self, bytes: usize) -> bool {
        self.room.take(bytes)
    }

    /// Nothing more comes: from now on its memory is somebody else's to account for.
    pub fn close(&mut self) {
        self.room = Room::of(0);
    }

    fn fits(&mut self, bytes: usize) -> bool {
        let fits = self.room.take(bytes);
        self.full |= !fits;
        fits
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
            // For whoever sorts them.
            Raw::Executor(_) => {}
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

#[cfg(test)]
mod tests;

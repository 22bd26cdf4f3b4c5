//! One session's share of what the kernel side sends: its records put together, and what is read on this
//! host while its processes are there.

use kcap_common::abi::{
    Key,
    key::{NO_SYSCALL, creds},
    record::{Evidence, Exec, Phase, exec_flag},
};

use super::{
    assemble::{Assembler, line, text},
    filecaps::Reader,
    inside,
    kernel::{Raw, Starting},
    living::Living,
    opened::Opened,
    reading::Reading,
    room::Room,
    strays::Strays,
};

/// Commands that have a daemon start a container, with what runs in it at the end of their own
/// command line.
const ENGINES: [&[u8]; 8] = [
    b"docker",
    b"docker-compose",
    b"podman",
    b"nerdctl",
    b"ctr",
    b"crictl",
    b"kubectl",
    b"buildctl",
];
/// Most command lines of clients that are kept for one session.
const CLIENTS: usize = 256;

/// A refusal as it happens: what it comes to is known when the build has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Number of the capability.
    pub cap: u8,
    /// Name of the task.
    pub comm: String,
    /// Number of the system call; none outside any.
    pub syscall: Option<u16>,
    /// The last line of the executor's log by then.
    pub line: String,
}

/// One session's share.
pub struct Session {
    /// What was recorded.
    pub assembler: Assembler,
    /// Set where an executor opened it.
    pub opened: Option<Opened>,
    /// What its first executor builds.
    pub dockerfile: Reading,
    /// Command lines of the engines' clients that it ran.
    pub clients: Vec<Vec<String>>,
    /// Its processes, and those that ended.
    pub living: Living,
    /// An executor ran in it.
    built: bool,
    looked: bool,
    told: u64,
    /// What its first executor could have at most.
    bounding: Option<u64>,
    /// Refusals that were told, as a mask.
    denied: u64,
    /// The last line of the executor's log.
    line: String,
    /// Files that its programs executed.
    files: Reader,
    /// What was nobody's before it began.
    before: Strays,
}

impl Session {
    /// Starts one whose times count from `base`, `CLOCK_MONOTONIC` nanoseconds, and that keeps no more
    /// than there is `room` for. `before`: what was nobody's until now.
    pub fn new(base: u64, room: Room, before: Strays) -> Self {
        Self {
            assembler: Assembler::bounded(base, room),
            opened: None,
            dockerfile: Reading::default(),
            clients: vec![],
            living: Living::default(),
            built: false,
            looked: false,
            told: 0,
            bounding: None,
            denied: 0,
            line: String::new(),
            files: Reader::default(),
            before,
        }
    }

    /// Takes one record.
    pub fn take(&mut self, raw: Raw) {
        let files = &mut self.files;
        self.assembler.take(raw, &mut |file| files.read(file));
    }

    /// An executor ran in it.
    pub fn is_built(&self) -> bool {
        self.built
    }

    /// The line that its executor wrote.
    pub fn logged(&mut self, phase: &Phase) -> String {
        self.line = line(phase);
        self.line.clone()
    }

    /// The refusal that a sample shows, where it is news: of what the build's own programs asked for and
    /// its container does not hold.
    pub fn denied(&mut self, e: &Evidence) -> Option<Denied> {
        let Key {
            cap,
            result,
            creds,
            syscall,
            ..
        } = e.key;
        let bit = 1u64.checked_shl(cap.into()).unwrap_or(0);
        let lacks = self.bounding.is_some_and(|bounding| bounding & bit == 0);
        if result == 0 || creds != creds::OWN || !lacks || bit == 0 || self.denied & bit != 0 {
            return None;
        }
        self.denied |= bit;
        Some(Denied {
            cap,
            comm: text(&e.comm),
            syscall: (syscall != NO_SYSCALL).then_some(syscall),
            line: self.line.clone(),
        })
    }

    /// Looks at what is executed while it is there; at `clients` of engines where these are wanted. `told`:
    /// what the kernel side told of it, where it is an executor.
    pub fn meet(&mut self, e: &Exec, told: Option<Starting>, clients: bool) {
        if e.flags & exec_flag::EXECUTOR != 0 {
            self.built = true;
            self.bounding.get_or_insert(e.caps[3]);
            if !std::mem::replace(&mut self.looked, true) {
                let command = told
                    .and_then(|told| told.command())
                    .unwrap_or_else(|| inside::command(e.tgid));
                self.dockerfile = Reading::begin(e.tgid, command);
            }
        }
        if clients && is_client(&e.path) && self.clients.len() < CLIENTS {
            self.clients.push(inside::command(e.tgid));
        }
    }

    /// It was opened, like this.
    pub fn open(&mut self, opened: Opened) {
        // Whoever is told that it was opened has another.
        self.assembler.charge(2 * inside::size(&opened.command));
        self.opened = Some(opened);
    }

    /// Counts what was read of its Dockerfile by now; where there is no room for that, it goes.
    pub fn settle(&mut self) {
        if let Some(bytes) = self.dockerfile.poll()
            && !self.assembler.charge(bytes)
        {
            self.dockerfile = Reading::default();
        }
    }

    /// Bytes that it takes, roughly.
    pub fn size(&self) -> usize {
        let command = (self.opened.as_ref()).map_or(0, |opened| inside::size(&opened.command));
        self.assembler.size() + self.dockerfile.size() + 2 * command
    }

    /// How many checks were counted, where that has changed since it was asked last.
    pub fn progress(&mut self) -> Option<u64> {
        let now = self.assembler.checks();
        (std::mem::replace(&mut self.told, now) != now).then_some(now)
    }

    /// Takes in another one; how this one came to be stays, where that is known.
    pub fn absorb(&mut self, other: Self) {
        self.assembler.absorb(other.assembler);
        self.opened = self.opened.take().or(other.opened);
        if !self.looked {
            self.dockerfile = other.dockerfile;
            self.looked = other.looked;
        }
    }

    /// Counts as lost what was nobody's since it began; `now`: what was since the trace did.
    pub fn suffer(&mut self, now: Strays) {
        self.assembler.suffer(now.since(self.before));
    }
}

/// Whether a path, as the kernel side gives it, is that of an engine's client.
fn is_client(path: &[u8]) -> bool {
    let path = path.split(|&b| b == 0).next().unwrap_or_default();
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    ENGINES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_name() {
        assert!(is_client(b"/usr/bin/docker\0rest") && is_client(b"podman"));
        assert!(!is_client(b"/usr/bin/dockerd\0") && !is_client(b"\0"));
    }
}

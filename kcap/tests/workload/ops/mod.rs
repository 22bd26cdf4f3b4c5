//! The operations, and what each asks of the kernel.

mod capsets;
mod exec;
mod files;
mod ids;
mod lives;
mod memory;
mod network;
mod permissions;
mod signals;
mod system;
mod unasked;

use std::ffi::CString;
use std::path::PathBuf;

use crate::sys::Res;
use crate::truth::Expect;

/// Performs the operation once.
pub type Step = Box<dyn FnMut() -> Res>;

/// Where one worker works.
pub struct Worker {
    /// Unique among all workers of a run.
    pub index: usize,
    /// The run's own folder.
    pub dir: PathBuf,
    /// This program.
    pub exe: CString,
    /// The operation's capabilities are given up before the first step.
    pub refused: bool,
}

impl Worker {
    /// A path in the run's folder that no other worker uses.
    pub fn path(&self, name: &str) -> Res<CString> {
        crate::sys::c_path(&self.dir.join(format!(
            "{name}-{}-{}",
            self.index,
            crate::sys::getpid()
        )))
    }
}

/// An operation.
pub struct Op {
    /// Its name on the command line.
    pub name: &'static str,
    /// Given up for `--refused`; empty where the operation cannot be refused.
    pub caps: &'static [u8],
    /// Needs a process with one thread.
    pub alone: bool,
    /// Makes ready what one worker needs. Nothing in it may make a check that the operation claims.
    pub prepare: fn(&Worker) -> Res<Step>,
    /// What one step asks, refused or not. An error says why this host cannot do it at all.
    pub truth: fn(refused: bool) -> Res<Vec<Expect>>,
}

pub use exec::inner;

/// Every operation, by area.
pub fn all() -> impl Iterator<Item = &'static Op> {
    [
        ids::OPS,
        files::OPS,
        permissions::OPS,
        system::OPS,
        signals::OPS,
        network::OPS,
        capsets::OPS,
        memory::OPS,
        exec::OPS,
        lives::OPS,
        unasked::OPS,
    ]
    .into_iter()
    .flatten()
}

/// Capability numbers, as in `linux/capability.h`.
pub mod cap {
    pub const CHOWN: u8 = 0;
    pub const DAC_OVERRIDE: u8 = 1;
    pub const DAC_READ_SEARCH: u8 = 2;
    pub const FOWNER: u8 = 3;
    pub const FSETID: u8 = 4;
    pub const KILL: u8 = 5;
    pub const SETGID: u8 = 6;
    pub const SETUID: u8 = 7;
    pub const SETPCAP: u8 = 8;
    pub const LINUX_IMMUTABLE: u8 = 9;
    pub const NET_BIND_SERVICE: u8 = 10;
    pub const NET_RAW: u8 = 13;
    pub const SYS_RAWIO: u8 = 17;
    pub const SYS_CHROOT: u8 = 18;
    pub const SYS_ADMIN: u8 = 21;
    pub const SYS_BOOT: u8 = 22;
    pub const SYS_NICE: u8 = 23;
    pub const SYS_TIME: u8 = 25;
    pub const MKNOD: u8 = 27;
    pub const SETFCAP: u8 = 31;
    pub const WAKE_ALARM: u8 = 35;
}

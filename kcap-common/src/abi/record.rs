//! What travels through the ring buffer. Every record starts with its [`kind`].

use super::Key;

/// Values of the first word of a record.
pub mod kind {
    /// A [`super::Tally`].
    pub const TALLY: u32 = 1;
    /// A [`super::Evidence`].
    pub const EVIDENCE: u32 = 2;
    /// A [`super::Fork`].
    pub const FORK: u32 = 3;
    /// An [`super::Exec`].
    pub const EXEC: u32 = 4;
    /// An [`super::Exit`].
    pub const EXIT: u32 = 5;
    /// An [`super::Argv`].
    pub const ARGV: u32 = 6;
    /// An [`super::Enter`].
    pub const ENTER: u32 = 7;
    /// An [`super::Unasked`].
    pub const UNASKED: u32 = 8;
    /// A [`super::Phase`].
    pub const PHASE: u32 = 9;
    /// An [`super::Executor`].
    pub const EXECUTOR: u32 = 10;
}

/// Deepest call path sampled.
pub const STACK_DEPTH: usize = 24;
/// Longest program path carried; longer ones are cut and marked.
pub const PATH_LEN: usize = 256;
/// Most bytes of an argument vector carried; longer ones are cut and marked.
pub const ARGV_LEN: usize = 4096;
/// Most bytes of a log line carried with a [`Phase`]; longer ones are cut and marked.
pub const LINE_LEN: usize = 512;
/// Most bytes of the names in a cgroup's path carried with an [`Executor`].
pub const GROUPS_LEN: usize = 2048;
/// Longest name in a cgroup's path, with its NUL.
pub const GROUP_LEN: usize = 256;
/// Most bytes of an executor's arguments carried with an [`Executor`].
pub const ARGUMENTS_LEN: usize = 8192;
/// Most bytes of an executor's environment carried with an [`Executor`].
pub const ENVIRONMENT_LEN: usize = 16384;
/// Bytes of a user buffer or path carried with an [`Unasked`].
pub const DETAIL_LEN: usize = 256;

/// Checks of one key counted on one CPU, handed over because the table had to make room.
/// Userspace adds them to what is left in the table at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// [`kind::TALLY`].
    pub kind: u32,
    /// Always zero.
    pub reserved: u32,
    /// What was counted.
    pub key: Key,
    /// How often.
    pub count: u64,
}

/// One sampled check: explains a tally, never decides.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// [`kind::EVIDENCE`].
    pub kind: u32,
    /// Frames in `stack`.
    pub depth: u32,
    /// The tally it is a sample of.
    pub key: Key,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Saved registers of the system call's arguments.
    pub args: [u64; 6],
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Inode number of the target user namespace.
    pub target_ns: u32,
    /// Task name.
    pub comm: [u8; 16],
    /// Return addresses, innermost first.
    pub stack: [u64; STACK_DEPTH],
}

/// A process was made by one in scope. It runs its parent's program until it executes another,
/// and is a generation of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Fork {
    /// [`kind::FORK`].
    pub kind: u32,
    /// The child's generation.
    pub program: u32,
    /// The parent's generation.
    pub parent: u32,
    /// The child's process id.
    pub tgid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// `clone` flags.
    pub flags: u64,
}

/// Values of [`Enter::how`].
pub mod how {
    /// Moved, or made, into a cgroup that defines a session.
    pub const CGROUP: u32 = 0;
    /// It is about to execute the executor, and opened the session.
    pub const OPENED: u32 = 1;
    /// It was there before the session, in the same cgroup: an ancestor of what opened it.
    pub const ANCESTOR: u32 = 2;
    /// It runs the executor, and has before the trace began: said by userspace only.
    pub const LATE: u32 = 3;
}

/// Who hands out generations: four programs of the kernel side, and userspace for processes that were
/// there before the trace. Each has numbers of its own, see [`generation`].
pub const GIVERS: u32 = 5;
/// Userspace among [`GIVERS`].
pub const LATE: u32 = 4;

/// The `n`th generation, from 1, that a giver hands out on a CPU.
pub const fn generation(n: u32, giver: u32, cpus: u32, cpu: u32) -> u32 {
    ((n.wrapping_mul(GIVERS).wrapping_add(giver))
        .wrapping_mul(cpus)
        .wrapping_add(cpu))
        & 0x7fff_ffff
}

/// Bit of [`Enter::session`] for a session that is no cgroup's: only the processes that descend
/// from the one that opened it. The other bits are the generation of that one.
pub const TREE: u64 = 1 << 63;

/// A process entered the scope from outside.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Enter {
    /// [`kind::ENTER`].
    pub kind: u32,
    /// Its generation.
    pub program: u32,
    /// Its process id.
    pub tgid: u32,
    /// One of [`how`].
    pub how: u32,
    /// The session: the id of the cgroup that defines it, or [`TREE`].
    pub session: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Its name.
    pub comm: [u8; 16],
}

/// Bits of [`Exec::flags`].
pub mod exec_flag {
    /// `path` was cut.
    pub const PATH_CUT: u32 = 1;
    /// The path is one of the executor's.
    pub const EXECUTOR: u32 = 1 << 1;
    /// An [`super::Argv`] follows.
    pub const ARGV: u32 = 1 << 2;
    /// The program has a seccomp filter.
    pub const SECCOMP: u32 = 1 << 3;
}

/// A process in scope executed a program: a new generation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exec {
    /// [`kind::EXEC`].
    pub kind: u32,
    /// The new generation.
    pub program: u32,
    /// The generation that ended by this.
    pub previous: u32,
    /// Process id.
    pub tgid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Inode of the binary.
    pub inode: u64,
    /// Cgroup id (of the hierarchy that defines the scope).
    pub cgroup: u64,
    /// Sets after the call: inheritable, permitted, effective, bounding, ambient.
    pub caps: [u64; 5],
    /// Device of the binary, kernel encoding (`major << 20 | minor`).
    pub dev: u32,
    /// Effective user id (initial namespace).
    pub euid: u32,
    /// Inode number of its user namespace.
    pub user_ns: u32,
    /// Inode number of its mount namespace.
    pub mnt_ns: u32,
    /// Depth of its user namespace.
    pub ns_level: u32,
    /// Bits of [`exec_flag`].
    pub flags: u32,
    /// What the caller named, NUL-terminated unless cut.
    pub path: [u8; PATH_LEN],
    /// The interpreter where it differs, NUL-terminated unless cut.
    pub interp: [u8; 64],
}

/// A process is about to run the executor: where, and what it was given. Comes before the [`Enter`] and the
/// [`Exec`] that say so, because the process may be over by the time that they are read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Executor {
    /// [`kind::EXECUTOR`].
    pub kind: u32,
    /// Process id.
    pub tgid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Bytes used in `groups`; 0 where they do not fit, or its cgroup is not below
    /// [`super::Settings::root`].
    pub groups_len: u32,
    /// Bytes used in `arguments`; 0 where they do not fit.
    pub arguments_len: u32,
    /// Bytes used in `environment`.
    pub environment_len: u32,
    /// Bytes that the environment has; more than `environment_len` where it was cut.
    pub environment_full: u32,
    /// Names of its cgroup, of the hierarchy that defines the scope, and of those above it but
    /// [`super::Settings::root`]: each with its NUL, the innermost first.
    pub groups: [u8; GROUPS_LEN],
    /// NUL-separated arguments.
    pub arguments: [u8; ARGUMENTS_LEN],
    /// NUL-separated variables, where these are wanted.
    pub environment: [u8; ENVIRONMENT_LEN],
}

/// The executor wrote to its standard output or error: what it does from here on is counted under
/// a generation of its own, so that it can be told from what came before.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// [`kind::PHASE`].
    pub kind: u32,
    /// The new generation.
    pub program: u32,
    /// The generation that ended by this.
    pub previous: u32,
    /// Process id.
    pub tgid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds, at the end of the write.
    pub time: u64,
    /// Bytes used in `text`.
    pub len: u32,
    /// Bytes written; more than `len` where the text was cut.
    pub full: u32,
    /// What was written.
    pub text: [u8; LINE_LEN],
}

/// The argument vector of the [`Exec`] with the same generation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Argv {
    /// [`kind::ARGV`].
    pub kind: u32,
    /// Its generation.
    pub program: u32,
    /// Bytes used in `bytes`.
    pub len: u32,
    /// Bytes the vector has; more than `len` where it was cut.
    pub full: u32,
    /// NUL-separated arguments.
    pub bytes: [u8; ARGV_LEN],
}

/// The last thread of a process in scope ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// [`kind::EXIT`].
    pub kind: u32,
    /// The generation that ended.
    pub program: u32,
    /// Process id.
    pub tgid: u32,
    /// Wait status, as a parent would read it.
    pub status: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Generation of the parent, 0 where it is out of scope.
    pub parent: u32,
    /// Process id of the parent.
    pub ptgid: u32,
}

/// A need that the kernel decided without a check; its count is a tally of the same key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Unasked {
    /// [`kind::UNASKED`].
    pub kind: u32,
    /// Bytes used in `detail`.
    pub len: u32,
    /// The tally it belongs to.
    pub key: Key,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Saved registers of the system call's arguments.
    pub args: [u64; 6],
    /// The set that lacked (capset), or the set held.
    pub lacking: u64,
    /// Bounding set.
    pub bounding: u64,
    /// Thread id.
    pub tid: u32,
    /// Process id.
    pub tgid: u32,
    /// Path executed, or bytes written to the map.
    pub detail: [u8; DETAIL_LEN],
}

const _: () = {
    assert!(size_of::<Tally>() == 40);
    assert!(size_of::<Evidence>() == 8 + 24 + 8 + 48 + 8 + 16 + 8 * STACK_DEPTH);
    assert!(size_of::<Fork>() == 32);
    assert!(size_of::<Enter>() == 48);
    assert!(size_of::<Phase>() == 32 + LINE_LEN);
    assert!(size_of::<Exec>() == 16 + 24 + 40 + 24 + PATH_LEN + 64);
    assert!(size_of::<Argv>() == 16 + ARGV_LEN);
    assert!(size_of::<Executor>() == 32 + GROUPS_LEN + ARGUMENTS_LEN + ENVIRONMENT_LEN);
    assert!(size_of::<Exit>() == 32);
    assert!(size_of::<Unasked>() == 8 + 24 + 8 + 48 + 16 + 8 + DETAIL_LEN);
};

/// One entry of the per-CPU tally table: empty where `count` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// [`Key::words`].
    pub key: [u64; 3],
    /// Checks counted on this CPU and not handed over yet.
    pub count: u64,
}

/// Entries to a bucket. Two: with one, two busy keys that collide would push each other out at every
/// check; more cost a comparison each, and the verifier's time.
pub const WAYS: usize = 2;

/// A bucket: what one lookup fetches.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Its entries.
    pub entries: [Entry; WAYS],
}

/// Buckets that one request hands over, see `flush` on the kernel side.
pub const FLUSHED: u32 = 2;

/// Buckets of each program that sees an inlined check.
pub const INLINED_BUCKETS: u32 = 64;

/// Distinct keys of one system call whose outcome can be open at the same time.
pub const OPEN: usize = 6;

/// One open check of a system call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// [`Key::words`] of the tally.
    pub key: [u64; 3],
    /// How often in this system call.
    pub count: u64,
}

/// The open checks of one thread's system call, owned by the address of its saved registers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Address of the owner's `pt_regs`, 0 where free.
    pub owner: u64,
    /// The owner's thread id: its stack may be another's after it ended.
    pub tid: u32,
    /// Entries in use.
    pub used: u32,
    /// The open checks.
    pub open: [Open; OPEN],
}

const _: () = {
    assert!(size_of::<Entry>() == 32);
    assert!(size_of::<Bucket>() == 32 * WAYS);
    assert!(size_of::<Slot>() == 16 + 32 * OPEN);
};

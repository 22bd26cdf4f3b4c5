//! What a tally is keyed by: everything that a rule may read, computed at every check.

/// `Key::syscall` of a check made outside any system call: a page fault, an io_uring worker, a
/// kernel thread.
pub const NO_SYSCALL: u16 = u16::MAX;

/// `Key::cap` of a record about a need that the kernel decided without asking.
pub const NO_CAP: u8 = u8::MAX;

/// The key of a tally: how often this happened is counted per key, exactly.
///
/// Fixed width, 24 bytes, compared as three words in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The program generation that asked: see [`super::record::Fork`] and [`super::record::Exec`].
    pub program: u32,
    /// Time slice of 2^20 ns (about 1 ms) since the session's clock base, plus one, for programs
    /// that are cut into steps by time; 0 for all others.
    pub slice: u32,
    /// Argument class: what the saved registers say of the system call, laid out per system call
    /// by [`crate::decide::argclass`].
    pub class: u32,
    /// System call number of `abi`, or [`NO_SYSCALL`].
    pub syscall: u16,
    /// One of [`abi`].
    pub abi: u8,
    /// Capability number, 0 to 63, or [`NO_CAP`].
    pub cap: u8,
    /// 0 granted, else the positive errno (`cap_capable` knows only EPERM, 1).
    pub result: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Whose credentials were asked: one of [`creds`].
    pub creds: u8,
    /// 0 for a check itself. Otherwise this counts checks of the key (with `outcome` 0) whose
    /// system call ended so: an errno (1 to 253), or one of [`outcome`].
    pub outcome: u8,
    /// Depth of the target user namespace, 0 for the initial one.
    pub target_level: u8,
    /// Depth of the user namespace of the credentials that were asked.
    pub creds_level: u8,
    /// Where it was seen: one of [`site`].
    pub site: u8,
    /// One of [`unasked`]; 0 for a check.
    pub unasked: u8,
}

/// System call ABIs.
pub mod abi {
    /// No system call.
    pub const NONE: u8 = 0;
    /// The machine's own 64-bit ABI.
    pub const NATIVE: u8 = 1;
    /// i386 on x86_64 (`int 0x80`, `sysenter`): its own numbers; arguments are not classed.
    pub const COMPAT: u8 = 2;
    /// x32 on x86_64: its own numbers above 512; arguments are not classed.
    pub const X32: u8 = 3;
}

/// Bits of `Key::flags`.
pub mod flag {
    /// The target namespace is that of the credentials asked.
    pub const TARGET_IS_CREDS: u8 = 1;
    /// Granted although the capability is not raised in the credentials: they own the target
    /// namespace (`cap_capable_helper`: the owner's euid in the parent namespace has all).
    pub const BY_OWNER: u8 = 1 << 1;
    /// The check was made with `CAP_OPT_NOAUDIT` (only where the hook sees options).
    pub const NOAUDIT: u8 = 1 << 2;
    /// The check was made with `CAP_OPT_INSETID` (only where the hook sees options).
    pub const INSETID: u8 = 1 << 3;
    /// The task has a seccomp filter.
    pub const SECCOMP: u8 = 1 << 4;
    /// The credentials asked differ from the task's own in user namespace, effective user or
    /// effective capabilities. Never set for [`super::creds::OWN`].
    pub const CREDS_DIFFER: u8 = 1 << 5;
}

/// Values of `Key::creds`.
pub mod creds {
    /// The task's own, not overridden.
    pub const OWN: u8 = 0;
    /// `task->cred` while it differs from `task->real_cred`: `access(2)`, an overlay mounter,
    /// an io_uring personality.
    pub const OVERRIDDEN: u8 = 1;
    /// Neither of the task's: a file's opener, another task's.
    pub const FOREIGN: u8 = 2;
    /// The task's real credentials, while others are in force.
    pub const REAL: u8 = 3;
}

/// Values of `Key::outcome` that are no errno.
pub mod outcome {
    /// The outcome was not seen: never to be read as success.
    pub const UNKNOWN: u8 = 254;
    /// The kernel restarts the call after a signal: the check happens again.
    pub const RESTARTED: u8 = 255;
}

/// Values of `Key::site`.
pub mod site {
    /// `cap_capable` itself.
    pub const CAPABLE: u8 = 0;
    /// Inlined into `cap_capset` on this kernel: accounted there.
    pub const CAPSET: u8 = 1;
    /// Inlined into `cap_task_prctl`.
    pub const PRCTL: u8 = 2;
    /// Inlined into `cap_mmap_addr`.
    pub const MMAP_ADDR: u8 = 3;
    /// `sys_exit`: a need that the kernel decided without a check.
    pub const EXIT: u8 = 4;
}

/// Values of `Key::unasked`: needs that the kernel decides without asking `cap_capable`.
/// `Key::class` then holds what the kind says, `Key::result` the errno the call ended with.
pub mod unasked {
    /// `execve` refused with EPERM without any check: the file's permitted set is above the
    /// bounding set (`bprm_caps_from_vfs_caps`). Userspace reads the file's set by itself.
    pub const EXEC: u8 = 1;
    /// `capset` refused above what is held; `class` has the low 32 bits of what lacked.
    pub const CAPSET: u8 = 2;
    /// `PR_CAP_AMBIENT_RAISE` refused; `class` is the capability.
    pub const AMBIENT: u8 = 3;
    /// A write to `uid_map` or `gid_map` (see [`crate::decide::unasked::idmap`]).
    pub const IDMAP: u8 = 4;
    /// A system call that container profiles open by capability ended in EPERM or ENOSYS without
    /// a check, under a seccomp filter.
    pub const SECCOMP: u8 = 5;
    /// The program read its own sets: `capget`, `PR_CAPBSET_READ`, `PR_CAP_AMBIENT_IS_SET`.
    pub const READS_OWN: u8 = 6;
    /// `bind` to an internet port below 1024, granted without a check: the host's
    /// `ip_unprivileged_port_start` lets anyone. `class` is that of `bind`.
    pub const PORT: u8 = 7;
    /// `socket` for ICMP echoes, granted without a check: the host's `ping_group_range` lets the
    /// caller's group. `class` is that of `socket`.
    pub const PING: u8 = 8;
}

impl Key {
    /// The key as the three words it is compared by.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 3] {
        [
            (self.program as u64) | ((self.slice as u64) << 32),
            (self.class as u64)
                | ((self.syscall as u64) << 32)
                | ((self.abi as u64) << 48)
                | ((self.cap as u64) << 56),
            (self.result as u64)
                | ((self.flags as u64) << 8)
                | ((self.creds as u64) << 16)
                | ((self.outcome as u64) << 24)
                | ((self.target_level as u64) << 32)
                | ((self.creds_level as u64) << 40)
                | ((self.site as u64) << 48)
                | ((self.unasked as u64) << 56),
        ]
    }

    /// The key that [`Key::words`] gives these words for.
    #[inline(always)]
    pub const fn from_words(w: [u64; 3]) -> Self {
        Self {
            program: w[0] as u32,
            slice: (w[0] >> 32) as u32,
            class: w[1] as u32,
            syscall: (w[1] >> 32) as u16,
            abi: (w[1] >> 48) as u8,
            cap: (w[1] >> 56) as u8,
            result: w[2] as u8,
            flags: (w[2] >> 8) as u8,
            creds: (w[2] >> 16) as u8,
            outcome: (w[2] >> 24) as u8,
            target_level: (w[2] >> 32) as u8,
            creds_level: (w[2] >> 40) as u8,
            site: (w[2] >> 48) as u8,
            unasked: (w[2] >> 56) as u8,
        }
    }
}

const _: () = assert!(size_of::<Key>() == 24 && align_of::<Key>() == 4);

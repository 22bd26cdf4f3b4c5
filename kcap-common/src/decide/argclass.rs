//! The argument class: what the saved registers of a system call say about whether a check made
//! in it decides anything. `fchmod(0600)` and `fchmod(02755)` ask for FSETID alike; only the class
//! tells them apart, and it is computed at every check and part of the key.
//!
//! A class is 32 bits whose layout depends on the (native, x86_64) system call; see [`Kind`]. Bit
//! 31, [`OPAQUE`], says that the arguments could not be read: rules then answer `unsure`.

/// The arguments could not be classed: memory not readable, a foreign ABI.
pub const OPAQUE: u32 = 1 << 31;

/// How the class of a system call is laid out.
///
/// The kinds up to [`Kind::LAST_MASKED`] are one argument under a mask, all others are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// No argument bears on a rule: the class is 0.
    Plain = 0,
    /// `mode & 07777` of the file mode asked for.
    Mode = 1,
    /// Open flags (access mode, O_CREAT, O_TRUNC, O_NOATIME, …; 24 bits).
    Open = 2,
    /// An argument's low 31 bits: `prctl` option, `bpf` command, `keyctl` operation, `fcntl`
    /// command, `ioctl` request, `mount` flags.
    Word = 3,
    /// Directory-relative flags (`AT_*`), bits 0 to 16.
    AtFlags = 4,
    /// Resource number in bits 0 to 7.
    Resource = 5,
    /// `access` mode in bits 0 to 2.
    Access = 6,
    /// [`CLONE_NEW`] flags asked for, compacted by [`namespaces`].
    Clone = 7,
    /// [`id`] bits: how the ids asked for relate to those held, see [`ids`].
    Ids = 8,
    /// [`signal`] bits: kind of target and whether any signal is sent.
    Signal = 9,
    /// [`capset_bits`].
    Capset = 10,
    /// Address family in bits 0 to 7, port class (see [`port`]) in bits 8 to 15.
    Bind = 11,
    /// Address family in bits 0 to 7, socket type (flags stripped) in bits 8 to 15, protocol in
    /// bits 16 to 23.
    Socket = 12,
    /// Level in bits 0 to 15, option in bits 16 to 30.
    SockOpt = 13,
    /// File type (`mode & S_IFMT`) and bits in 0 to 15; bit 16: device 0:0 (a whiteout).
    Mknod = 14,
    /// [`xattr`]: class of the attribute's name.
    Xattr = 15,
    /// Bit 0: explicit times (not NULL).
    Times = 16,
    /// Open flags in user memory (`openat2`), as [`Kind::Open`].
    Open2 = 17,
    /// Namespace flags in user memory (`clone3`), as [`Kind::Clone`].
    Clone3 = 18,
}

impl Kind {
    /// The last kind whose class is one argument under [`Kind::mask`].
    pub const LAST_MASKED: u8 = Self::Access as u8;

    /// The mask of a masked kind; 0 of any other.
    pub const fn mask(self) -> u32 {
        match self {
            Self::Mode => 0o7777,
            Self::Open => 0xff_ffff,
            Self::Word => 0x7fff_ffff,
            Self::AtFlags => 0x1_ffff,
            Self::Resource => 0xff,
            Self::Access => 7,
            _ => 0,
        }
    }
}

/// Flags of `clone`, `clone3`, `unshare` and `setns` that make or enter namespaces.
pub const CLONE_NEW: u64 = 0x7e02_0080;

/// How a system call's class is laid out, and where its arguments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The layout.
    pub kind: Kind,
    /// Index of the argument that carries it.
    pub arg: u8,
}

const fn plan(kind: Kind, arg: u8) -> Plan {
    Plan { kind, arg }
}

/// The plan of a native x86_64 system call.
#[inline(always)]
pub const fn plan_of(nr: u64) -> Plan {
    match nr {
        90 | 91 | 83 | 85 => plan(Kind::Mode, 1), // chmod fchmod mkdir creat
        268 | 452 | 258 => plan(Kind::Mode, 2),   // fchmodat fchmodat2 mkdirat
        95 => plan(Kind::Mode, 0),                // umask
        2 => plan(Kind::Open, 1),                 // open
        257 => plan(Kind::Open, 2),               // openat
        437 => plan(Kind::Open2, 2),              // openat2
        304 => plan(Kind::Open, 2),               // open_by_handle_at
        56 | 272 => plan(Kind::Clone, 0),         // clone unshare
        435 => plan(Kind::Clone3, 0),             // clone3
        308 => plan(Kind::Clone, 1),              // setns
        105 | 106 | 113 | 114 | 117 | 119 | 122 | 123 => plan(Kind::Ids, 0), // set*id
        92..=94 => plan(Kind::Ids, 1),            // chown fchown lchown
        260 => plan(Kind::Ids, 2),                // fchownat
        62 | 129 | 200 | 234 | 297 | 424 => plan(Kind::Signal, 0), // kill tkill tgkill rt_*sigqueueinfo pidfd
        157 | 250 | 321 | 101 | 103 | 175 | 317 => plan(Kind::Word, 0), // prctl keyctl bpf ptrace syslog …
        16 | 72 => plan(Kind::Word, 1),                                 // ioctl fcntl
        126 => plan(Kind::Capset, 1),                                   // capset
        49 => plan(Kind::Bind, 1),                                      // bind
        41 | 53 => plan(Kind::Socket, 0),                               // socket socketpair
        54 | 55 => plan(Kind::SockOpt, 1),                              // setsockopt getsockopt
        133 => plan(Kind::Mknod, 1),                                    // mknod
        259 => plan(Kind::Mknod, 2),                                    // mknodat
        188..=193 | 197..=199 => plan(Kind::Xattr, 1),                  // set-, get-, removexattr
        165 => plan(Kind::Word, 3),                                     // mount
        166 => plan(Kind::Word, 1),                                     // umount2
        132 | 235 => plan(Kind::Times, 1),                              // utime utimes
        261 | 280 => plan(Kind::Times, 2),                              // futimesat utimensat
        21 => plan(Kind::Access, 1),                                    // access
        269 => plan(Kind::Access, 2),                                   // faccessat
        439 => plan(Kind::Access, 2),                                   // faccessat2
        265 => plan(Kind::AtFlags, 4),                                  // linkat
        160 => plan(Kind::Resource, 0),                                 // setrlimit
        302 => plan(Kind::Resource, 1),                                 // prlimit64
        141 | 144 | 203 | 314 | 251 => plan(Kind::Resource, 0),         // priorities
        _ => plan(Kind::Plain, 0),
    }
}

/// System calls in [`TABLE`].
pub const TABLE_LEN: usize = 512;

/// Bit of [`TABLE`]: [`gated_by_seccomp`](super::unasked::gated_by_seccomp).
pub const GATED: u64 = 1 << 16;

/// [`plan_of`] for numbers below [`TABLE_LEN`], packed: kind in bits 0 to 7, argument in 8 to 15,
/// [`GATED`] in 16, mask in 32 to 63. A load where the kernel side would otherwise search.
pub const TABLE: [u64; TABLE_LEN] = {
    let mut table = [0; TABLE_LEN];
    let mut nr = 0;
    while nr < TABLE_LEN {
        let p = plan_of(nr as u64);
        let gated = if super::unasked::gated_by_seccomp(nr as u64) {
            GATED
        } else {
            0
        };
        table[nr] =
            (p.kind as u64) | ((p.arg as u64) << 8) | gated | ((p.kind.mask() as u64) << 32);
        nr += 1;
    }
    table
};

/// The namespace flags of [`CLONE_NEW`], compacted: bit 0 time, 1 mount, 2 cgroup, 3 UTS, 4 IPC,
/// 5 user, 6 PID, 7 network.
#[inline(always)]
pub const fn namespaces(flags: u64) -> u32 {
    (((flags >> 7) & 1)          // CLONE_NEWTIME 0x80
        | (((flags >> 17) & 1) << 1)   // CLONE_NEWNS
        | (((flags >> 25) & 1) << 2)   // CLONE_NEWCGROUP
        | (((flags >> 26) & 1) << 3)   // CLONE_NEWUTS
        | (((flags >> 27) & 1) << 4)   // CLONE_NEWIPC
        | (((flags >> 28) & 1) << 5)   // CLONE_NEWUSER
        | (((flags >> 29) & 1) << 6)   // CLONE_NEWPID
        | (((flags >> 30) & 1) << 7)) as u32 // CLONE_NEWNET
}

/// Bits of [`Kind::Ids`].
pub mod id {
    /// Every id asked for (-1 apart) is the real, effective or saved one held.
    pub const HELD: u32 = 1;
    /// Every id asked for equals real, effective and saved alike: nothing would change.
    pub const SAME: u32 = 1 << 1;
    /// A user id is asked for.
    pub const USER: u32 = 1 << 2;
    /// A group id is asked for.
    pub const GROUP: u32 = 1 << 3;
    /// The credentials live in a child user namespace, so ids cannot be compared.
    pub const MAPPED: u32 = 1 << 4;
    /// Id 0 is asked for.
    pub const ROOT: u32 = 1 << 5;
}

/// Real, effective and saved id.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
}

/// 0 where `asked` is unchanged (-1) or one of the ids held; else anything. Arithmetic in place of
/// branches: a verifier follows every combination of branches.
#[inline(always)]
const fn missing(asked: u32, held: Held) -> u32 {
    let a = (asked ^ held.real) as u64 * (asked ^ held.effective) as u64;
    let b = (a | (a >> 32)) as u32 as u64 * (asked ^ held.saved) as u64;
    let c = (b | (b >> 32)) as u32 as u64 * asked.wrapping_add(1) as u64;
    (c | (c >> 32)) as u32
}

/// 0 where `asked` is unchanged (-1) or equals all ids held; else anything.
#[inline(always)]
const fn changing(asked: u32, held: Held) -> u32 {
    let any = (asked ^ held.real) | (asked ^ held.effective) | (asked ^ held.saved);
    let a = any as u64 * asked.wrapping_add(1) as u64;
    (a | (a >> 32)) as u32
}

/// The class of a system call that asks for up to three ids of one sort (`u32::MAX`: unchanged or
/// absent). `sort` is [`id::USER`] or [`id::GROUP`]; `mapped`: the ids cannot be compared.
#[inline(always)]
pub const fn ids(asked: [u32; 3], held: Held, sort: u32, mapped: bool) -> u32 {
    let [a, b, c] = asked;
    let mut bits = sort;
    if a == 0 || b == 0 || c == 0 {
        bits |= id::ROOT;
    }
    if mapped {
        return bits | id::MAPPED;
    }
    if missing(a, held) | missing(b, held) | missing(c, held) == 0 {
        bits |= id::HELD;
    }
    if changing(a, held) | changing(b, held) | changing(c, held) == 0 {
        bits |= id::SAME;
    }
    bits
}

/// The class of a `chown`: an owner and a group, either of which may be -1.
#[inline(always)]
pub const fn owner(user: u32, group: u32, u: Held, g: Held, mapped: bool) -> u32 {
    let mut bits = 0;
    if user != u32::MAX {
        bits |= id::USER;
    }
    if group != u32::MAX {
        bits |= id::GROUP;
    }
    if user == 0 || group == 0 {
        bits |= id::ROOT;
    }
    if mapped {
        return bits | id::MAPPED;
    }
    if missing(user, u) | missing(group, g) == 0 {
        bits |= id::HELD;
    }
    if changing(user, u) | changing(group, g) == 0 {
        bits |= id::SAME;
    }
    bits
}

/// Bits of [`Kind::Signal`].
pub mod signal {
    /// One process or thread.
    pub const ONE: u32 = 0;
    /// The caller's process group (`kill(0)`).
    pub const OWN_GROUP: u32 = 1;
    /// A process group (`kill(-n)`).
    pub const GROUP: u32 = 2;
    /// Every process (`kill(-1)`).
    pub const ALL: u32 = 3;
    /// Signal 0: only asks whether it could.
    pub const ASK: u32 = 1 << 2;
    /// Where the signal number starts.
    pub const SHIFT: u32 = 8;
}

/// The class of `kill(pid, sig)` and of its like.
#[inline(always)]
pub const fn signals(nr: u64, a0: u64, a1: u64, a2: u64) -> u32 {
    let (target, sig) = match nr {
        62 => (
            match a0 as u32 as i32 {
                0 => signal::OWN_GROUP,
                -1 => signal::ALL,
                i32::MIN..0 => signal::GROUP,
                _ => signal::ONE,
            },
            a1,
        ),
        234 | 297 => (signal::ONE, a2),
        _ => (signal::ONE, a1),
    };
    let sig = (sig & 0x7f) as u32;
    target | (sig << signal::SHIFT) | if sig == 0 { signal::ASK } else { 0 }
}

/// Bits of [`Kind::Capset`].
pub mod capset_bits {
    /// The inheritable set asked for is not within old inheritable ∪ old permitted:
    /// `cap_capset` then needs SETPCAP.
    pub const INHERITABLE: u32 = 1;
    /// The permitted set asked for is above the old one: refused whatever one holds.
    pub const PERMITTED: u32 = 1 << 1;
    /// The effective set asked for is above the permitted one asked for.
    pub const EFFECTIVE: u32 = 1 << 2;
    /// The inheritable set asked for is above old inheritable ∪ bounding.
    pub const BOUNDING: u32 = 1 << 3;
}

/// Capability sets asked for, or held.
#[derive(Clone, Copy, Debug)]
pub struct Sets {
    /// Inheritable.
    pub inheritable: u64,
    /// Permitted.
    pub permitted: u64,
    /// Effective; unused of what is held.
    pub effective: u64,
    /// Bounding; unused of what is asked for.
    pub bounding: u64,
}

/// The class of `capset`.
#[inline(always)]
pub const fn capset(new: Sets, old: Sets) -> u32 {
    let mut bits = 0;
    if new.inheritable & !(old.inheritable | old.permitted) != 0 {
        bits |= capset_bits::INHERITABLE;
    }
    if new.permitted & !old.permitted != 0 {
        bits |= capset_bits::PERMITTED;
    }
    if new.effective & !new.permitted != 0 {
        bits |= capset_bits::EFFECTIVE;
    }
    if new.inheritable & !(old.inheritable | old.bounding) != 0 {
        bits |= capset_bits::BOUNDING;
    }
    bits
}

/// Port classes of [`Kind::Bind`], bits 8 to 15.
pub mod port {
    /// Not an internet address.
    pub const NONE: u32 = 0;
    /// Port 0: the kernel chooses.
    pub const ANY: u32 = 1;
    /// Below 1024.
    pub const LOW: u32 = 2;
    /// 1024 and above.
    pub const HIGH: u32 = 3;
}

/// The class of `bind` from the first four bytes of the address: family (host order), then the
/// port (network order) of AF_INET (2) and AF_INET6 (10).
#[inline(always)]
pub const fn bind(address: [u8; 4]) -> u32 {
    let family = address[0] as u32;
    let class = if address[1] == 0 && (family == 2 || family == 10) {
        match ((address[2] as u32) << 8) | address[3] as u32 {
            0 => port::ANY,
            1..=1023 => port::LOW,
            _ => port::HIGH,
        }
    } else {
        port::NONE
    };
    family | (class << 8)
}

/// Name classes of [`Kind::Xattr`].
pub mod xattr {
    /// Any other name.
    pub const OTHER: u32 = 0;
    /// `security.capability`.
    pub const CAPABILITY: u32 = 1;
    /// Another `security.*`.
    pub const SECURITY: u32 = 2;
    /// `trusted.overlay.*`.
    pub const OVERLAY: u32 = 3;
    /// Another `trusted.*`.
    pub const TRUSTED: u32 = 4;
    /// `user.*`.
    pub const USER: u32 = 5;
    /// `system.posix_acl_access` or `_default`.
    pub const ACL: u32 = 6;
}

/// The class of an extended attribute's name, from its first 20 bytes (zero-padded), as little-endian
/// words.
#[inline(always)]
pub const fn xattr_name(name: [u64; 3]) -> u32 {
    const fn word(text: &[u8; 8]) -> u64 {
        u64::from_le_bytes(*text)
    }
    let [a, b, c] = name;
    if a == word(b"security") {
        if b == word(b".capabil") && c as u32 == u32::from_le_bytes(*b"ity\0") {
            xattr::CAPABILITY
        } else if b as u8 == b'.' {
            xattr::SECURITY
        } else {
            xattr::OTHER
        }
    } else if a == word(b"trusted.") {
        if b == word(b"overlay.") {
            xattr::OVERLAY
        } else {
            xattr::TRUSTED
        }
    } else if a & 0xff_ffff_ffff == word(b"user.\0\0\0") {
        xattr::USER
    } else if a == word(b"system.p") && b == word(b"osix_acl") && c as u8 == b'_' {
        xattr::ACL
    } else {
        xattr::OTHER
    }
}

/// The class of the kinds that are computed from registers alone; [`OPAQUE`] for all others.
#[inline(always)]
pub const fn computed(kind: u8, nr: u64, a: &[u64; 6]) -> u32 {
    const CLONE: u8 = Kind::Clone as u8;
    const SIGNAL: u8 = Kind::Signal as u8;
    const SOCKET: u8 = Kind::Socket as u8;
    const SOCK_OPT: u8 = Kind::SockOpt as u8;
    const MKNOD: u8 = Kind::Mknod as u8;
    const TIMES: u8 = Kind::Times as u8;
    match kind {
        CLONE => namespaces(if nr == 308 { a[1] } else { a[0] }),
        SIGNAL => signals(nr, a[0], a[1], a[2]),
        SOCKET => ((a[0] & 0xff) | ((a[1] & 0xf) << 8) | ((a[2] & 0xff) << 16)) as u32,
        SOCK_OPT => ((a[1] & 0xffff) | ((a[2] & 0x7fff) << 16)) as u32,
        MKNOD => {
            let (mode, dev) = if nr == 133 {
                (a[1], a[2])
            } else {
                (a[2], a[3])
            };
            (mode & 0xffff) as u32 | if dev == 0 { 1 << 16 } else { 0 }
        }
        TIMES => {
            let times = if nr == 261 || nr == 280 { a[2] } else { a[1] };
            (times != 0) as u32
        }
        _ => OPAQUE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel side does with registers and the table.
    fn class(nr: u64, a: [u64; 6]) -> Option<u32> {
        let packed = TABLE[nr as usize];
        let (kind, arg, mask) = (packed as u8, (packed >> 8) as u8, (packed >> 32) as u32);
        if kind <= Kind::LAST_MASKED {
            return Some(a[usize::from(arg)] as u32 & mask);
        }
        Some(computed(kind, nr, &a)).filter(|c| c & OPAQUE == 0)
    }

    #[test]
    fn a_chmod_is_told_from_a_chmod_with_setgid() {
        assert_eq!(class(91, [3, 0o600, 0, 0, 0, 0]), Some(0o600));
        assert_eq!(class(91, [3, 0o2755, 0, 0, 0, 0]), Some(0o2755));
        assert_eq!(class(268, [3, 9, 0o106_755, 0, 0, 0]), Some(0o6755));
    }

    #[test]
    fn a_fork_is_told_from_a_new_namespace() {
        assert_eq!(class(56, [0x0120_0011, 0, 0, 0, 0, 0]), Some(0));
        assert_eq!(class(56, [0x0002_0011, 0, 0, 0, 0, 0]), Some(2));
        assert_eq!(class(272, [0x1000_0000, 0, 0, 0, 0, 0]), Some(1 << 5));
        assert_eq!(class(435, [0; 6]), None, "clone3 keeps its flags in memory");
    }

    #[test]
    fn ids_held_and_asked() {
        const NONE: u32 = u32::MAX;
        let root = Held {
            real: 0,
            effective: 0,
            saved: 0,
        };
        let mixed = Held {
            real: 0,
            effective: 1000,
            saved: 7,
        };
        let user = |asked, held| ids(asked, held, id::USER, false);
        assert_eq!(
            user([0, NONE, NONE], root),
            id::HELD | id::SAME | id::USER | id::ROOT
        );
        assert_eq!(user([1000, NONE, NONE], root), id::USER);
        for held in [0, 1000, 7] {
            let bits = user([held, NONE, NONE], mixed) & !id::ROOT;
            assert_eq!(bits, id::HELD | id::USER, "{held}");
        }
        assert_eq!(user([1000, 8, NONE], mixed), id::USER);
        // 2^32 - 2 differs from the ids by large numbers, whose products must not wrap to 0.
        assert_eq!(user([NONE - 1, NONE, NONE], mixed), id::USER);
        assert_eq!(user([0x8000_0000, NONE, NONE], root), id::USER);
        assert_eq!(
            ids([5, NONE, NONE], root, id::USER, true),
            id::MAPPED | id::USER
        );
        assert_eq!(owner(NONE, 7, root, root, false), id::GROUP);
        assert_eq!(owner(NONE, NONE, root, root, false), id::HELD | id::SAME);
        assert_eq!(
            owner(5, 0, root, root, false),
            id::USER | id::GROUP | id::ROOT
        );
    }

    #[test]
    fn signals_by_target() {
        assert_eq!(signals(62, 5, 9, 0), signal::ONE | (9 << 8));
        assert_eq!(signals(62, 0, 9, 0), signal::OWN_GROUP | (9 << 8));
        assert_eq!(signals(62, -1i64 as u64, 9, 0), signal::ALL | (9 << 8));
        assert_eq!(
            signals(62, u64::from(-5i32 as u32), 9, 0),
            signal::GROUP | (9 << 8)
        );
        assert_eq!(signals(62, 5, 0, 0), signal::ONE | signal::ASK);
        assert_eq!(signals(234, 5, 5, 15), signal::ONE | (15 << 8));
    }

    #[test]
    fn capset_within_and_above() {
        let old = Sets {
            inheritable: 0,
            permitted: 0b111,
            effective: 0,
            bounding: 0b1111,
        };
        let within = Sets {
            inheritable: 0b001,
            permitted: 0b011,
            effective: 0b001,
            bounding: 0,
        };
        assert_eq!(capset(within, old), 0);
        let above = Sets {
            inheritable: 0b1000,
            ..within
        };
        assert_eq!(capset(above, old), capset_bits::INHERITABLE);
        let more = Sets {
            permitted: 0b1000,
            inheritable: 0,
            effective: 0b1,
            bounding: 0,
        };
        assert_eq!(
            capset(more, old),
            capset_bits::PERMITTED | capset_bits::EFFECTIVE
        );
    }

    #[test]
    fn binds_by_port() {
        assert_eq!(bind([2, 0, 0, 80]), 2 | (port::LOW << 8));
        assert_eq!(bind([10, 0, 31, 144]), 10 | (port::HIGH << 8));
        assert_eq!(bind([2, 0, 0, 0]), 2 | (port::ANY << 8));
        assert_eq!(bind([1, 0, b'/', b'r']), 1);
    }

    #[test]
    fn attribute_names() {
        let name = |s: &[u8]| {
            let mut b = [0; 24];
            b[..s.len().min(20)].copy_from_slice(&s[..s.len().min(20)]);
            let word = |i: usize| u64::from_le_bytes(b[8 * i..8 * i + 8].try_into().unwrap());
            xattr_name([word(0), word(1), word(2)])
        };
        assert_eq!(name(b"security.capability"), xattr::CAPABILITY);
        assert_eq!(name(b"security.capability2"), xattr::SECURITY);
        assert_eq!(name(b"trusted.overlay.opaque"), xattr::OVERLAY);
        assert_eq!(name(b"trusted.x"), xattr::TRUSTED);
        assert_eq!(name(b"user.x"), xattr::USER);
        assert_eq!(name(b"system.posix_acl_access"), xattr::ACL);
        assert_eq!(name(b"x"), xattr::OTHER);
    }

    #[test]
    fn a_whiteout_is_told_from_a_device() {
        assert_eq!(
            class(133, [0, 0o020_000, 0, 0, 0, 0]),
            Some(0o020_000 | 1 << 16)
        );
        assert_eq!(class(133, [0, 0o020_644, 0x103, 0, 0, 0]), Some(0o020_644));
    }
}

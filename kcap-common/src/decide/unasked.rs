//! Needs that the kernel decides without a check: which ends of a system call tell of one.

use super::argclass;
use crate::abi::key::unasked::{AMBIENT, CAPSET, EXEC, PING, PORT, READS_OWN, SECCOMP};

/// EPERM.
const EPERM: i64 = -1;
/// ENOSYS, which container profiles answer for `clone3`.
const ENOSYS: i64 = -38;

const PR_CAPBSET_READ: u64 = 23;
const PR_CAP_AMBIENT: u64 = 47;
const PR_CAP_AMBIENT_IS_SET: u64 = 1;
const PR_CAP_AMBIENT_RAISE: u64 = 2;

/// x86_64 system calls that Docker's, Podman's and containerd's seccomp profiles open by
/// capability. Their end in EPERM or ENOSYS without any check is the profile's work.
#[inline(always)]
pub const fn gated_by_seccomp(nr: u64) -> bool {
    matches!(
        nr,
        161 // chroot
        | 165 | 166 // mount, umount2
        | 272 | 308 // unshare, setns
        | 56 | 435 // clone, clone3
        | 155 // pivot_root
        | 428
            ..=433 | 442 // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr
        | 237 | 238 | 239 // mbind, set_mempolicy, get_mempolicy
        | 279 | 256 // move_pages, migrate_pages
        | 321 | 298 // bpf, perf_event_open
        | 101 | 310 | 311 | 312 // ptrace, process_vm_readv, process_vm_writev, kcmp
        | 304 // open_by_handle_at
        | 175 | 313 | 176 // init_module, finit_module, delete_module
        | 163 | 169 // acct, reboot
        | 172 | 173 // iopl, ioperm
        | 103 // syslog
        | 153 // vhangup
        | 170 | 171 // sethostname, setdomainname
        | 164 | 227 | 159 | 305 // settimeofday, clock_settime, adjtimex, clock_adjtime
        | 212 | 179 | 443 // lookup_dcookie, quotactl, quotactl_fd
        | 300 | 303 // fanotify_init, name_to_handle_at
        | 246 | 320 // kexec_load, kexec_file_load
        | 167 | 168 // swapon, swapoff
    )
}

/// The end of a system call, as far as it bears on a need that asks nothing.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// x86_64 number.
    pub nr: u64,
    /// First argument.
    pub a0: u64,
    /// Second argument.
    pub a1: u64,
    /// Return value.
    pub ret: i64,
    /// [`gated_by_seccomp`] of the number, the task has a seccomp filter, and no capability was
    /// asked for in the call.
    pub gated: bool,
}

/// `socket` and `bind`, which other hosts' settings ask NET_RAW and NET_BIND_SERVICE for.
#[inline(always)]
pub const fn opens_network(nr: u64) -> bool {
    nr == 41 || nr == 49
}

/// A class of `socket` is that of one for ICMP echoes, over IPv4 or IPv6: datagrams, no raw socket.
const fn is_ping(class: u32) -> bool {
    const DGRAM: u32 = 2;
    matches!(
        (class & 0xff, class >> 8 & 0xff, class >> 16 & 0xff),
        (2, DGRAM, 1) | (10, DGRAM, 58)
    )
}

/// What a `bind` or `socket` of this class tells, which succeeded and asked nothing: one of
/// [`crate::abi::key::unasked`], or 0.
#[inline(always)]
pub const fn of_network(nr: u64, class: u32) -> u8 {
    match nr {
        49 if class >> 8 == argclass::port::LOW => PORT,
        41 if is_ping(class) => PING,
        _ => 0,
    }
}

/// What the end of a system call tells: one of [`crate::abi::key::unasked`], or 0.
#[inline(always)]
pub const fn at_exit(end: End) -> u8 {
    let End {
        nr,
        a0,
        a1,
        ret,
        gated,
    } = end;
    match nr {
        59 | 322 if ret == EPERM => EXEC,
        126 if ret == EPERM => CAPSET,
        157 if a0 == PR_CAP_AMBIENT && a1 == PR_CAP_AMBIENT_RAISE && ret == EPERM => AMBIENT,
        157 if a0 == PR_CAP_AMBIENT && a1 == PR_CAP_AMBIENT_IS_SET => READS_OWN,
        157 if a0 == PR_CAPBSET_READ => READS_OWN,
        125 if ret == 0 => READS_OWN,
        _ if gated && (ret == EPERM || ret == ENOSYS) => SECCOMP,
        _ => 0,
    }
}

/// Whether `name` is a user namespace's id map; the class of the tally is 1 for `uid_map`, 2 for
/// `gid_map`, 0 for neither. `verify_root_map` (kernel/user_namespace.c, 5.12 on) refuses a map of
/// the parent's id 0 where the parent lacked SETFCAP when the namespace was made, and asks nothing.
#[inline(always)]
pub const fn idmap(name: &[u8; 8]) -> u32 {
    match name {
        b"uid_map\0" => 1,
        b"gid_map\0" => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nr: u64, a0: u64, a1: u64, ret: i64, filtered: bool) -> u8 {
        at_exit(End {
            nr,
            a0,
            a1,
            ret,
            gated: filtered && gated_by_seccomp(nr),
        })
    }

    #[test]
    fn what_settings_allow_tells_of_a_need_elsewhere() {
        let low = argclass::bind([2, 0, 0, 80]);
        assert_eq!(of_network(49, low), PORT);
        assert_eq!(of_network(49, argclass::bind([10, 0, 3, 255])), PORT);
        for other in [[2, 0, 4, 0], [2, 0, 0, 0], [1, 0, b'/', b'r']] {
            assert_eq!(of_network(49, argclass::bind(other)), 0);
        }
        assert_eq!(of_network(49, argclass::OPAQUE), 0);
        let socket = |family: u32, kind: u32, protocol: u32| family | kind << 8 | protocol << 16;
        assert_eq!(of_network(41, socket(2, 2, 1)), PING);
        assert_eq!(of_network(41, socket(10, 2, 58)), PING);
        for other in [socket(2, 3, 1), socket(2, 2, 17), socket(1, 2, 1), 0] {
            assert_eq!(of_network(41, other), 0);
        }
        assert_eq!(of_network(2, low), 0);
    }

    #[test]
    fn ends_that_tell() {
        assert_eq!(at(59, 0, 0, -1, false), EXEC);
        assert_eq!(at(59, 0, 0, -13, false), 0);
        assert_eq!(at(126, 0, 0, -1, false), CAPSET);
        assert_eq!(at(157, 47, 2, -1, false), AMBIENT);
        assert_eq!(at(157, 47, 2, 0, false), 0);
        assert_eq!(at(157, 23, 0, 1, false), READS_OWN);
        assert_eq!(at(165, 0, 0, -1, true), SECCOMP);
        assert_eq!(at(165, 0, 0, -1, false), 0, "no filter");
        assert_eq!(at(435, 0, 0, -38, true), SECCOMP);
        assert_eq!(at(435, 0, 0, -22, true), 0);
        assert_eq!(at(2, 0, 0, -1, true), 0);
    }

    #[test]
    fn maps_by_name() {
        assert_eq!(idmap(b"uid_map\0"), 1);
        assert_eq!(idmap(b"gid_map\0"), 2);
        assert_eq!(idmap(b"projid_m"), 0);
    }
}

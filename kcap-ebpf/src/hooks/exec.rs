//! A process in scope executed a program: `sched:sched_process_exec`, after the new credentials are
//! in force and before the program's first instruction.

use aya_ebpf::{
    helpers::generated::{
        bpf_ktime_get_ns, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_strncmp,
    },
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use kcap_common::abi::{
    loss,
    record::{
        ARGUMENTS_LEN, ARGV_LEN, Argv, Exec, Executor, GROUP_LEN, GROUPS_LEN, PATH_LEN, TREE,
        exec_flag, how, kind,
    },
    settings::{MATCH_LEN, MATCHES},
};

use super::attach;
use crate::{
    evidence,
    globals::{self, SETTINGS, field, setting},
    mem::{Mem, Probed, Ptr, Typed, apart, opaque},
    scope, tally,
};

/// Giver of generations, see [`scope::generation`].
const GIVER: u32 = 2;

/// `(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`. The generation changes here;
/// a thread that executes has taken over its leader's ids by now.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn kcap_exec(ctx: BtfTracePointContext) -> i32 {
    let task: Ptr = ctx.arg(0);
    let bprm: Ptr = ctx.arg(2);
    let tgid = Typed::u32(task, field!(task_tgid));
    let mut before = scope::of(tgid);
    if before == 0 && setting!(open) == 0 {
        return 0;
    }
    let executor = is_executor(bprm);
    if apart(executor) != 0 && setting!(open) > 1 {
        tell(task, tgid);
    }
    if before == 0 {
        before = open(task, tgid, apart(executor));
        if before == 0 {
            return 0;
        }
    }
    let program = scope::generation(GIVER);
    debug!(&ctx, "process {} becomes program {}", tgid, program);
    let Some(mut entry) = tally::RING.reserve::<Exec>(0) else {
        globals::count(loss::EXECS, 1);
        scope::set(tgid, program);
        return 0;
    };
    let e = entry.as_mut_ptr();
    let cred = Probed::ptr(task, field!(task_cred));
    let ns = Probed::ptr(cred, field!(cred_user_ns));
    let inode = Probed::ptr(Probed::ptr(bprm, field!(bprm_file)), field!(file_inode));
    let mut flags = 0;
    // SAFETY: `e` is the reserved record; its texts are written up to their NUL. The helpers check
    // their sources and write no more than the sizes given.
    unsafe {
        (*e).kind = kind::EXEC;
        (*e).program = program;
        (*e).previous = scope::program(before);
        (*e).tgid = tgid;
        (*e).time = bpf_ktime_get_ns();
        (*e).inode = Probed::u64(inode, field!(inode_ino));
        (*e).cgroup = scope::id(scope::cgroup(task));
        (*e).caps = [
            Probed::u64(cred, field!(cred_inheritable)),
            Probed::u64(cred, field!(cred_permitted)),
            Probed::u64(cred, field!(cred_effective)),
            Probed::u64(cred, field!(cred_bset)),
            Probed::u64(cred, field!(cred_ambient)),
        ];
        (*e).dev = Probed::u32(Probed::ptr(inode, field!(inode_sb)), field!(sb_dev));
        (*e).euid = Probed::u32(cred, field!(cred_euid));
        (*e).user_ns = Probed::u32(ns, field!(ns_inum));
        (*e).mnt_ns = scope::mount_namespace(task);
        (*e).ns_level = Probed::u32(ns, field!(ns_level));
        (*e).interp[0] = 0;
        let filename = Probed::ptr(bprm, field!(bprm_filename));
        let interp = Probed::ptr(bprm, field!(bprm_interp));
        let n = bpf_probe_read_kernel_str(
            (&raw mut (*e).path).cast(),
            PATH_LEN as u32,
            filename.cast(),
        );
        if n >= PATH_LEN as i64 {
            flags |= exec_flag::PATH_CUT;
        }
        if interp != filename {
            bpf_probe_read_kernel_str((&raw mut (*e).interp).cast(), 64, interp.cast());
        }
        if Probed::u32(task, field!(task_seccomp_mode)) == 2 {
            flags |= exec_flag::SECCOMP;
        }
        if setting!(argv) != 0 {
            flags |= exec_flag::ARGV;
        }
        // Arithmetic, because a verifier follows each branch.
        (*e).flags = flags | exec_flag::EXECUTOR * executor as u32;
        scope::set(tgid, program | scope::SLICED * executor as u32);
    }
    // Userspace reads the file's capabilities while the file is there.
    entry.submit(tally::FORCE_WAKEUP);
    if setting!(argv) != 0 {
        argv(task, program);
    }
    0
}

/// Sends where a process is that runs the executor, and what it was given. Best effort: userspace looks
/// itself where this is missing, and nothing that counts is lost for it.
#[inline(never)]
fn tell(task: Ptr, tgid: u32) {
    if !tally::has_room(size_of::<Executor>()) {
        return;
    }
    let Some(mut entry) = tally::RING.reserve::<Executor>(0) else {
        return;
    };
    let e = entry.as_mut_ptr();
    let mm = Probed::ptr(task, field!(task_mm));
    // SAFETY: the reserved record, of which the lengths say what is written.
    unsafe {
        (*e).kind = kind::EXECUTOR;
        (*e).tgid = tgid;
        (*e).time = bpf_ktime_get_ns();
        (*e).groups_len = names(scope::cgroup(task), &mut (*e).groups);
        let start = Probed::u64(mm, field!(mm_arg_start));
        let len = Probed::u64(mm, field!(mm_arg_end)).wrapping_sub(start);
        (*e).arguments_len = if len > ARGUMENTS_LEN as u64 {
            0
        } else {
            range(start, len, &mut (*e).arguments)
        };
        (*e).environment_len = 0;
        (*e).environment_full = 0;
        if setting!(environment) != 0 {
            let start = Probed::u64(mm, field!(mm_env_start));
            let len = Probed::u64(mm, field!(mm_env_end)).wrapping_sub(start);
            (*e).environment_full = len as u32;
            (*e).environment_len = range(start, len, &mut (*e).environment);
        }
    }
    entry.submit(tally::wakeup());
}

/// Most cgroups in each other whose names are sent, and the root.
const NESTED: u32 = 21;

/// Writes the names of a cgroup and of those above it, up to the one that is the root of what userspace
/// sees; gives how many bytes they take, 0 where they do not fit, or do not lead there.
#[inline(always)]
fn names(cgroup: Ptr, to: &mut [u8; GROUPS_LEN]) -> u32 {
    // By their folders, which takes fewer steps than by the groups themselves.
    let mut at = Probed::ptr(cgroup, field!(cgroup_kn));
    let mut len = 0u64;
    let mut i = 0;
    while i < NESTED {
        if Probed::u64(at, field!(kn_id)) == setting!(root) {
            return len as u32;
        }
        len = opaque(len);
        if len > (GROUPS_LEN - GROUP_LEN) as u64 {
            return 0;
        }
        let name = Probed::ptr(at, field!(kn_name));
        // SAFETY: GROUP_LEN bytes are left from there, as was just seen; the helper checks its source.
        let n = unsafe {
            bpf_probe_read_kernel_str(
                to.as_mut_ptr().add(len as usize).cast(),
                GROUP_LEN as u32,
                name.cast(),
            )
        };
        if n <= 1 {
            return 0;
        }
        len += n as u64;
        at = Probed::ptr(at, field!(kn_parent));
        i += 1;
    }
    0
}

/// Copies bytes of the process, as many as there is room for; gives how many, 0 where they cannot be had.
#[inline(always)]
fn range<const N: usize>(start: u64, len: u64, to: &mut [u8; N]) -> u32 {
    let mut len = opaque(len);
    if len > N as u64 {
        len = N as u64;
    }
    // SAFETY: no more than the array has; the helper checks its source.
    let r = unsafe { bpf_probe_read_user(to.as_mut_ptr().cast(), len as u32, start as *const _) };
    if r == 0 { len as u32 } else { 0 }
}

/// Most ancestors that are looked at when a session opens.
const ANCESTORS: u32 = 4;

/// Where a path is read to before it is known whether anybody wants it.
#[map]
static PATH: PerCpuArray<[u8; PATH_LEN]> = PerCpuArray::with_max_entries(1, 0);

/// Takes a process out of scope that executes a program into the session of its cgroup; where the
/// program is the executor, opens one. Gives its scope entry, 0 where it stays out.
///
/// The cgroup of a container is its own, so that all that runs there belongs to the session. One that
/// runs in the host's mount namespace, or in the root cgroup, shares it with others: there only the
/// executor's own descendants do.
#[inline(never)]
fn open(task: Ptr, tgid: u32, executor: u64) -> u32 {
    let cgroup = scope::cgroup(task);
    if let Some(session) = scope::session(cgroup) {
        return attach::enter(task, tgid, session, how::CGROUP, GIVER);
    }
    if setting!(open) < 2 || executor == 0 {
        return 0;
    }
    evidence::begin();
    let id = scope::id(cgroup);
    let shared = scope::parent(cgroup).is_null()
        || scope::mount_namespace(task) == setting!(host_mnt)
        || !scope::define(id);
    let session = if shared { TREE } else { id };
    if !shared {
        let mut at = task;
        let mut i = 0;
        while i < ANCESTORS {
            at = Probed::ptr(at, field!(task_real_parent));
            if scope::cgroup(at) != cgroup {
                break;
            }
            let above = Probed::u32(at, field!(task_tgid));
            if scope::of(above) == 0 {
                attach::enter(at, above, session, how::ANCESTOR, GIVER);
            }
            i += 1;
        }
    }
    attach::enter(task, tgid, session, how::OPENED, GIVER)
}

/// 1 where the path that is executed is one of the executor's, else 0. Arithmetic, because a verifier would
/// walk all that follows once for each.
#[inline(always)]
fn is_executor(bprm: Ptr) -> u64 {
    let Some(path) = PATH.get_ptr_mut(0) else {
        return 0;
    };
    let filename = Probed::ptr(bprm, field!(bprm_filename));
    // SAFETY: a map value of this CPU, which this program alone uses; the helper checks its source.
    unsafe { bpf_probe_read_kernel_str(path.cast(), PATH_LEN as u32, filename.cast()) };
    let mut is = 0;
    let mut i = 0;
    while i < MATCHES {
        if (i as u32) < setting!(matches) {
            // SAFETY: both are MATCH_LEN readable bytes, the second NUL-terminated and read-only.
            let r = unsafe {
                bpf_strncmp(
                    path.cast(),
                    MATCH_LEN as u32,
                    (&raw const SETTINGS.paths[i]).cast(),
                )
            } as u64;
            // The highest bit is set unless it is 0.
            is |= 1 - (opaque(r | r.wrapping_neg()) >> 63);
        }
        i += 1;
    }
    is
}

/// Sends the argument vector.
#[inline(always)]
fn argv(task: Ptr, program: u32) {
    let mm = Probed::ptr(task, field!(task_mm));
    let start = Probed::u64(mm, field!(mm_arg_start));
    let end = Probed::u64(mm, field!(mm_arg_end));
    let full = end.wrapping_sub(start) as u32;
    let Some(mut entry) = tally::RING.reserve::<Argv>(0) else {
        globals::count(loss::EVIDENCE, 1);
        return;
    };
    let a = entry.as_mut_ptr();
    let len = if full > ARGV_LEN as u32 {
        ARGV_LEN as u32
    } else {
        full
    };
    // SAFETY: the reserved record; the helper zeroes the destination where it fails, and what is
    // beyond `len` was zeroed before.
    unsafe {
        (*a).kind = kind::ARGV;
        (*a).program = program;
        (*a).full = full;
        let r = bpf_probe_read_user((&raw mut (*a).bytes).cast(), len, start as *const _);
        (*a).len = if r == 0 { len } else { 0 };
    }
    entry.submit(tally::wakeup());
}

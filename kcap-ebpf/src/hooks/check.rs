//! One capability check, whichever hook saw it: in scope? then its key, its count, its open outcome
//! and, now and then, a sample.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task_btf, bpf_ktime_get_ns},
    maps::PerCpuArray,
};
use kcap_common::{
    abi::{
        key::{Key, abi, creds, flag, outcome},
        loss,
        record::Bucket,
    },
    decide::relation::{self, At, Step},
};

use crate::{
    evidence,
    globals::{self, field, setting},
    mem::{Mem, Ptr, Typed},
    scope, slots, syscall, tally,
};

/// Namespaces nest at most 32 deep, and the initial one.
const LEVELS: u32 = 33;

/// The current task, where it is in scope.
#[derive(Clone, Copy)]
pub struct Subject {
    pub task: Ptr,
    pub entry: u32,
}

impl Subject {
    #[inline(always)]
    pub fn current() -> Option<Self> {
        // SAFETY: no arguments; never null.
        let task = unsafe { bpf_get_current_task_btf() } as Ptr;
        let entry = scope::of(Typed::u32(task, field!(task_tgid)));
        (entry != 0).then_some(Self { task, entry })
    }
}

/// What the hook knows of the check.
pub struct Check {
    /// `struct cred *`
    pub cred: Ptr,
    /// `struct user_namespace *`
    pub target: Ptr,
    /// Capability.
    pub cap: u8,
    /// 0 or the positive errno; `None` where the hook is at entry.
    pub result: Option<u8>,
    /// `CAP_OPT_*`, 0 where the hook does not see them.
    pub options: u32,
    /// One of `kcap_common::abi::key::site`.
    pub site: u8,
}

const CAP_OPT_NOAUDIT: u32 = 1 << 1;
const CAP_OPT_INSETID: u32 = 1 << 2;

/// Where a hook's counts go.
pub struct Table {
    pub map: &'static PerCpuArray<Bucket>,
    pub base: u32,
    pub mask: u32,
}

/// The result as `cap_capable` computes it.
#[inline(always)]
pub fn result<M: Mem>(cred: Ptr, target: Ptr, cap: u8) -> u8 {
    let own = M::ptr(cred, field!(cred_user_ns));
    let raised = M::u64(cred, field!(cred_effective)) >> (cap & 63) & 1 != 0;
    let level = M::u32(own, field!(ns_level));
    let euid = M::u32(cred, field!(cred_euid));
    let mut ns = target;
    let mut i = 0;
    while i < LEVELS {
        let parent = M::ptr(ns, field!(ns_parent));
        let at = At {
            is_creds: ns == own,
            level: M::u32(ns, field!(ns_level)),
            parent_is_creds: parent == own,
            owner: M::u32(ns, field!(ns_owner)),
        };
        match relation::step(at, raised, level, euid) {
            Step::Answer(errno) => return errno,
            Step::Up => ns = parent,
        }
        i += 1;
    }
    1
}

/// Records a check of a subject in scope.
#[inline(always)]
pub fn record<M: Mem>(ctx: *mut c_void, subject: Subject, check: &Check, table: &Table) {
    let Subject { task, entry } = subject;
    let call = syscall::current(task);
    let cred = check.cred;

    let creds_ns = M::ptr(cred, field!(cred_user_ns));
    let effective = M::u64(cred, field!(cred_effective));
    let raised = effective >> (check.cap & 63) & 1 != 0;
    let result = match check.result {
        Some(r) => r,
        None => result::<M>(cred, check.target, check.cap),
    };

    let subjective = Typed::ptr(task, field!(task_cred));
    let objective = Typed::ptr(task, field!(task_real_cred));
    let whose = if cred == subjective && cred == objective {
        creds::OWN
    } else if cred == subjective {
        creds::OVERRIDDEN
    } else if cred == objective {
        creds::REAL
    } else {
        creds::FOREIGN
    };

    let mut flags = 0;
    if check.target == creds_ns {
        flags |= flag::TARGET_IS_CREDS;
    }
    if result == 0 && !raised {
        flags |= flag::BY_OWNER;
    }
    if check.options & CAP_OPT_NOAUDIT != 0 {
        flags |= flag::NOAUDIT;
    }
    if check.options & CAP_OPT_INSETID != 0 {
        flags |= flag::INSETID;
    }
    if Typed::u32(task, field!(task_seccomp_mode)) == 2 {
        flags |= flag::SECCOMP;
    }
    if whose != creds::OWN && differ::<M>(cred, objective) {
        flags |= flag::CREDS_DIFFER;
    }

    let slice = if entry & scope::SLICED != 0 {
        slice()
    } else {
        0
    };
    let key = Key {
        program: scope::program(entry),
        slice,
        class: call.class(task),
        syscall: call.nr,
        abi: call.abi,
        cap: check.cap,
        result,
        flags,
        creds: whose,
        outcome: 0,
        target_level: M::u32(check.target, field!(ns_level)) as u8,
        creds_level: M::u32(creds_ns, field!(ns_level)) as u8,
        site: check.site,
        unasked: 0,
    }
    .words();

    let bucket = table.base + (tally::hash(&key) & table.mask);
    let n = tally::add(table.map, bucket, &key, 1, loss::CHECKS);

    if setting!(outcomes) != 0 && call.abi != abi::NONE {
        let tid = Typed::u32(task, field!(task_pid));
        // exit and exit_group end in no sys_exit.
        let ends = call.abi == abi::NATIVE && (call.nr == 60 || call.nr == 231);
        if ends || !slots::open(slots::owner(call.regs), tid, &key) {
            if !ends {
                globals::count(loss::SLOTS, 1);
            }
            let unknown = [key[0], key[1], key[2] | ((outcome::UNKNOWN as u64) << 24)];
            let bucket = table.base + (tally::hash(&unknown) & table.mask);
            tally::add(table.map, bucket, &unknown, 1, loss::OUTCOMES);
        }
    }

    if n & (n.wrapping_sub(1)) == 0 {
        let args = syscall::args(call.regs);
        let tid = Typed::u32(task, field!(task_pid));
        let target_ns = M::u32(check.target, field!(ns_inum));
        evidence::sample(ctx, &key, &args, tid, target_ns);
    }
}

/// The time slice now.
#[inline(always)]
pub fn slice() -> u32 {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    (now.wrapping_sub(setting!(clock_base)) >> setting!(slice_shift)) as u32 + 1
}

/// Whether credentials differ from the task's own in anything that a capability check looks at.
#[inline(always)]
fn differ<M: Mem>(cred: Ptr, own: Ptr) -> bool {
    M::ptr(cred, field!(cred_user_ns)) != Typed::ptr(own, field!(cred_user_ns))
        || M::u32(cred, field!(cred_euid)) != Typed::u32(own, field!(cred_euid))
        || M::u64(cred, field!(cred_effective)) != Typed::u64(own, field!(cred_effective))
}

/// Counts what is counted for the whole host, and compares results where asked to.
#[inline(always)]
pub fn host_total() {
    if setting!(host_total) != 0 {
        globals::count(loss::HOST, 1);
    }
}

/// Compares the kernel's result with the recomputed one, where asked to.
#[inline(always)]
pub fn verify<M: Mem>(check: &Check) {
    if setting!(verify) != 0
        && let Some(seen) = check.result
    {
        globals::count(loss::COMPARED, 1);
        if result::<M>(check.cred, check.target, check.cap) != seen {
            globals::count(loss::DISAGREE, 1);
        }
    }
}

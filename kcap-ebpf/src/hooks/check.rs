//! One capability check, whichever hook saw it: in scope? then its key, its count, its open outcome
//! and, now and then, a sample.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task_btf, bpf_ktime_get_ns},
    macros::map,
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

/// The current task; in scope where its entry is not 0.
#[derive(Clone, Copy)]
pub struct Subject {
    pub task: Ptr,
    pub entry: u32,
}

impl Subject {
    /// The current task, in scope or not, and its process id.
    #[inline(always)]
    pub fn of_current() -> (Self, u32) {
        // SAFETY: no arguments; never null.
        let task = unsafe { bpf_get_current_task_btf() } as Ptr;
        let tgid = Typed::u32(task, field!(task_tgid));
        let entry = scope::of(tgid);
        (Self { task, entry }, tgid)
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

/// Where each program puts a key together: one place a site, see [`record`].
#[map]
static SCRATCH: PerCpuArray<Key> = PerCpuArray::with_max_entries(4, 0);

/// A key under construction. Every field is stored as soon as it is known: a verifier that follows
/// each combination of branches forgets what is in a map, so that the combinations do not multiply.
#[derive(Clone, Copy)]
struct Draft(*mut Key);

macro_rules! store {
    ($draft:expr, $field:ident, $value:expr) => {{
        let value = $value;
        // SAFETY: a map value of this CPU; the kernel never runs a program twice on one CPU at a
        // time, and each has its own.
        unsafe { (&raw mut (*$draft.0).$field).write_volatile(value) }
    }};
}

impl Draft {
    /// Sets a bit of the flags.
    #[inline(always)]
    fn flag(self, bit: u8) {
        // SAFETY: as for `store`.
        unsafe {
            let flags = &raw mut (*self.0).flags;
            flags.write_volatile(flags.read_volatile() | bit);
        }
    }

    /// The finished key.
    #[inline(always)]
    fn words(self) -> [u64; 3] {
        // SAFETY: as for `store`; a map value is aligned to 8 bytes.
        unsafe {
            let words = self.0.cast::<u64>();
            [
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
            ]
        }
    }
}

/// Records a check of a subject in scope.
#[inline(always)]
pub fn record<M: Mem>(ctx: *mut c_void, subject: Subject, check: &Check, table: &Table) {
    let Subject { task, entry } = subject;
    let Some(draft) = SCRATCH.get_ptr_mut(u32::from(check.site)) else {
        globals::count(loss::CHECKS, 1);
        return;
    };
    let draft = Draft(draft);
    let call = syscall::current(task);
    let regs = call.regs;
    store!(draft, syscall, call.nr);
    store!(draft, abi, call.abi);
    store!(draft, class, call.class(task));
    let target_ns = describe::<M>(draft, task, check);
    store!(draft, program, scope::program(entry));
    let slice = if entry & scope::SLICED != 0 {
        slice()
    } else {
        0
    };
    store!(draft, slice, slice);

    let key = draft.words();
    let bucket = table.base + (tally::hash(&key) & table.mask);
    let n = tally::add(table.map, bucket, &key, 1, loss::CHECKS);

    if setting!(outcomes) != 0 {
        outcome(task, regs, &key, table);
    }
    if n & (n.wrapping_sub(1)) == 0 {
        let tid = Typed::u32(task, field!(task_pid));
        evidence::sample(ctx, &key, regs, tid, target_ns);
    }
}

/// Fills in whose credentials were asked, for what, of which namespace, and the answer; gives the
/// inode number of the namespace.
#[inline(always)]
fn describe<M: Mem>(draft: Draft, task: Ptr, check: &Check) -> u32 {
    let cred = check.cred;
    let creds_ns = M::ptr(cred, field!(cred_user_ns));
    let raised = M::u64(cred, field!(cred_effective)) >> (check.cap & 63) & 1 != 0;
    store!(draft, cap, check.cap);
    store!(draft, site, check.site);
    store!(draft, flags, 0);
    store!(draft, outcome, 0);
    store!(draft, unasked, 0);
    store!(
        draft,
        target_level,
        M::u32(check.target, field!(ns_level)) as u8
    );
    store!(draft, creds_level, M::u32(creds_ns, field!(ns_level)) as u8);
    let result = match check.result {
        Some(r) => r,
        None => result::<M>(cred, check.target, check.cap),
    };
    store!(draft, result, result);

    let subjective = Typed::ptr(task, field!(task_cred));
    let objective = Typed::ptr(task, field!(task_real_cred));
    if cred == subjective && cred == objective {
        store!(draft, creds, creds::OWN);
    } else {
        if cred == subjective {
            store!(draft, creds, creds::OVERRIDDEN);
        } else if cred == objective {
            store!(draft, creds, creds::REAL);
        } else {
            store!(draft, creds, creds::FOREIGN);
        }
        if differ::<M>(cred, objective) {
            draft.flag(flag::CREDS_DIFFER);
        }
    }
    if check.target == creds_ns {
        draft.flag(flag::TARGET_IS_CREDS);
    }
    if result == 0 && !raised {
        draft.flag(flag::BY_OWNER);
    }
    if check.options & CAP_OPT_NOAUDIT != 0 {
        draft.flag(flag::NOAUDIT);
    }
    if check.options & CAP_OPT_INSETID != 0 {
        draft.flag(flag::INSETID);
    }
    if Typed::u32(task, field!(task_seccomp_mode)) == 2 {
        draft.flag(flag::SECCOMP);
    }
    M::u32(check.target, field!(ns_inum))
}

/// Leaves the check open until its system call ends, or counts its outcome as unknown.
#[inline(always)]
fn outcome(task: Ptr, regs: Ptr, key: &[u64; 3], table: &Table) {
    let Key { syscall, abi, .. } = Key::from_words(*key);
    if abi == abi::NONE {
        return;
    }
    // exit and exit_group end in no sys_exit.
    let ends = abi == abi::NATIVE && (syscall == 60 || syscall == 231);
    if !ends {
        let tid = Typed::u32(task, field!(task_pid));
        if slots::open(slots::owner(regs), tid, key) {
            return;
        }
        globals::count(loss::SLOTS, 1);
    }
    let unknown = [key[0], key[1], key[2] | ((outcome::UNKNOWN as u64) << 24)];
    let bucket = table.base + (tally::hash(&unknown) & table.mask);
    tally::add(table.map, bucket, &unknown, 1, loss::OUTCOMES);
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

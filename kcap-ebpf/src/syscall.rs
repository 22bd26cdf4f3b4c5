//! The system call that the current task is in, and the class of its arguments.

use aya_ebpf::helpers::generated::{
    bpf_probe_read_user, bpf_probe_read_user_str, bpf_task_pt_regs,
};
use kcap_common::{
    abi::key::{NO_SYSCALL, abi},
    decide::argclass::{self, CLONE_NEW, Held, Kind, OPAQUE, Sets, id},
};

use crate::{
    globals::{self, field},
    mem::{Mem, Ptr, Typed, opaque},
};

/// The system call under way.
pub struct Call {
    /// The saved registers.
    pub regs: Ptr,
    /// Number, or [`NO_SYSCALL`].
    pub nr: u16,
    /// One of [`abi`].
    pub abi: u8,
}

const PF_IO_WORKER: u32 = 0x10;
const PF_USER_WORKER: u32 = 0x4000;
const PF_KTHREAD: u32 = 0x20_0000;
const TS_COMPAT: u32 = 2;
const X32_BIT: u64 = 0x4000_0000;

/// What the task is in. Exceptions leave -1 as the number; kernel threads and io_uring workers have
/// no registers worth the name.
#[inline(always)]
pub fn current(task: Ptr) -> Call {
    // SAFETY: the helper takes any task.
    let regs = unsafe { bpf_task_pt_regs(task as *mut _) } as Ptr;
    let none = Call {
        regs,
        nr: NO_SYSCALL,
        abi: abi::NONE,
    };
    let flags = Typed::u32(task, field!(task_flags));
    if flags & (PF_IO_WORKER | PF_USER_WORKER | PF_KTHREAD) != 0 {
        return none;
    }
    let raw = Typed::u64(regs, field!(regs_nr));
    if raw as i64 == -1 {
        return none;
    }
    let abi = if Typed::u32(task, field!(task_status)) & TS_COMPAT != 0 {
        abi::COMPAT
    } else if raw & X32_BIT != 0 {
        abi::X32
    } else {
        abi::NATIVE
    };
    Call {
        regs,
        nr: (raw & 0x3fff) as u16,
        abi,
    }
}

impl Call {
    /// The class of the arguments; see [`argclass`].
    #[inline(always)]
    pub fn class(&self, task: Ptr) -> u32 {
        if self.abi != abi::NATIVE {
            return if self.abi == abi::NONE { 0 } else { OPAQUE };
        }
        let plan = plan(u64::from(self.nr));
        if plan as u8 == Kind::Plain as u8 {
            return 0;
        }
        if plan as u8 <= Kind::LAST_MASKED {
            let argument = match (plan >> 8) as u8 {
                0 => Typed::u64(self.regs, field!(regs_a0)),
                1 => Typed::u64(self.regs, field!(regs_a1)),
                2 => Typed::u64(self.regs, field!(regs_a2)),
                3 => Typed::u64(self.regs, field!(regs_a3)),
                _ => Typed::u64(self.regs, field!(regs_a4)),
            };
            return argument as u32 & (plan >> 32) as u32;
        }
        deep(task, self.regs, u64::from(self.nr), plan as u8)
    }
}

/// The class of `bind` or `socket`, in native calls.
#[inline(always)]
pub fn of_network(nr: u64, regs: Ptr) -> u32 {
    if nr == 49 {
        let address = Typed::u64(regs, field!(regs_a1));
        return read_user::<[u8; 4]>(address).map_or(OPAQUE, argclass::bind);
    }
    argclass::computed(Kind::Socket as u8, nr, &args(regs))
}

/// Whether container profiles open a system call by capability.
#[inline(always)]
pub fn gated(nr: u64) -> bool {
    plan(nr) & argclass::GATED != 0
}

/// The entry of [`PLANS`] for a system call.
#[inline(always)]
fn plan(nr: u64) -> u64 {
    if nr >= PLANS.len() as u64 {
        return 0;
    }
    // Verifiers before 6.5 or so lose what the comparison says once the number was spilled; the
    // compiler, which does not, would drop the mask.
    let index = opaque(nr) as usize & (argclass::TABLE_LEN - 1);
    globals::read(&PLANS[index])
}

const _: () = assert!(argclass::TABLE_LEN.is_power_of_two());

/// The layout of each system call's class.
#[unsafe(link_section = ".rodata")]
static PLANS: [u64; argclass::TABLE_LEN] = argclass::TABLE;

/// Classes that are more than a mask. Out of the hot path's registers.
#[inline(never)]
fn deep(task: Ptr, regs: Ptr, nr: u64, kind: u8) -> u32 {
    const IDS: u8 = Kind::Ids as u8;
    const CAPSET: u8 = Kind::Capset as u8;
    const BIND: u8 = Kind::Bind as u8;
    const XATTR: u8 = Kind::Xattr as u8;
    const OPEN2: u8 = Kind::Open2 as u8;
    const CLONE3: u8 = Kind::Clone3 as u8;
    let args = args(regs);
    match kind {
        IDS => ids(task, nr, &args),
        CAPSET => capset(task, args[1]),
        BIND => read_user::<[u8; 4]>(args[1]).map_or(OPAQUE, argclass::bind),
        XATTR => xattr(args[1]),
        OPEN2 => read_user::<u64>(args[2]).map_or(OPAQUE, |f| f as u32 & Kind::Open.mask()),
        CLONE3 => read_user::<u64>(args[0]).map_or(OPAQUE, |f| argclass::namespaces(f & CLONE_NEW)),
        _ => argclass::computed(kind, nr, &args),
    }
}

/// The arguments of a system call, as saved at entry.
#[inline(always)]
pub fn args(regs: Ptr) -> [u64; 6] {
    [
        Typed::u64(regs, field!(regs_a0)),
        Typed::u64(regs, field!(regs_a1)),
        Typed::u64(regs, field!(regs_a2)),
        Typed::u64(regs, field!(regs_a3)),
        Typed::u64(regs, field!(regs_a4)),
        Typed::u64(regs, field!(regs_a5)),
    ]
}

#[inline(always)]
fn read_user<T: Copy + Default>(address: u64) -> Option<T> {
    let mut v = T::default();
    // SAFETY: the helper checks the source; the destination is our stack, of the size given.
    let r = unsafe {
        bpf_probe_read_user(
            (&raw mut v).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    (r == 0).then_some(v)
}

#[inline(always)]
fn ids(task: Ptr, nr: u64, a: &[u64; 6]) -> u32 {
    let cred = Typed::ptr(task, field!(task_cred));
    let ns = Typed::ptr(cred, field!(cred_user_ns));
    let mapped = Typed::u32(ns, field!(ns_level)) != 0;
    let user = Held {
        real: Typed::u32(cred, field!(cred_uid)),
        effective: Typed::u32(cred, field!(cred_euid)),
        saved: Typed::u32(cred, field!(cred_suid)),
    };
    let group = Held {
        real: Typed::u32(cred, field!(cred_gid)),
        effective: Typed::u32(cred, field!(cred_egid)),
        saved: Typed::u32(cred, field!(cred_sgid)),
    };
    const NONE: u32 = u32::MAX;
    let [a0, a1, a2] = [a[0] as u32, a[1] as u32, a[2] as u32];
    match nr {
        260 => argclass::owner(a2, a[3] as u32, user, group, mapped), // fchownat
        92..=94 => argclass::owner(a1, a2, user, group, mapped),      // chown, fchown, lchown
        _ => {
            let asked = match nr {
                117 | 119 => [a0, a1, a2],   // setresuid, setresgid
                113 | 114 => [a0, a1, NONE], // setreuid, setregid
                _ => [a0, NONE, NONE],       // setuid, setgid, setfsuid, setfsgid
            };
            let groups = matches!(nr, 106 | 114 | 119 | 123);
            let (held, sort) = if groups {
                (group, id::GROUP)
            } else {
                (user, id::USER)
            };
            argclass::ids(asked, held, sort, mapped)
        }
    }
}

#[inline(always)]
fn capset(task: Ptr, data: u64) -> u32 {
    // struct __user_cap_data_struct [2]: effective, permitted, inheritable, low words first.
    let Some(d) = read_user::<[u32; 6]>(data) else {
        return OPAQUE;
    };
    argclass::capset(asked(&d), held::<Typed>(task))
}

/// The sets that a `capset` asks for.
#[inline(always)]
fn asked(d: &[u32; 6]) -> Sets {
    let wide = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    Sets {
        effective: wide(d[0], d[3]),
        permitted: wide(d[1], d[4]),
        inheritable: wide(d[2], d[5]),
        bounding: 0,
    }
}

/// The sets that the task holds.
#[inline(always)]
fn held<M: Mem>(task: Ptr) -> Sets {
    let cred = M::ptr(task, field!(task_cred));
    Sets {
        inheritable: M::u64(cred, field!(cred_inheritable)),
        permitted: M::u64(cred, field!(cred_permitted)),
        effective: M::u64(cred, field!(cred_effective)),
        bounding: M::u64(cred, field!(cred_bset)),
    }
}

/// What a `capset` asks for above the permitted set held: refused without a question.
#[inline(always)]
pub fn capset_above<M: Mem>(task: Ptr, data: u64) -> u64 {
    match read_user::<[u32; 6]>(data) {
        Some(d) => {
            let (new, old) = (asked(&d), held::<M>(task));
            (new.permitted & !old.permitted)
                | (new.inheritable & !(old.inheritable | old.bounding))
                | (new.effective & !new.permitted)
        }
        None => 0,
    }
}

#[inline(always)]
fn xattr(name: u64) -> u32 {
    let mut words = [0u64; 3];
    // SAFETY: the helper checks the source and writes at most the 20 bytes given.
    let r = unsafe { bpf_probe_read_user_str((&raw mut words).cast(), 20, name as *const _) };
    if r < 0 {
        OPAQUE
    } else {
        argclass::xattr_name(words)
    }
}

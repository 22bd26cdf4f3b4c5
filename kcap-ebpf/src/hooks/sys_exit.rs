//! The end of a system call: `raw_syscalls:sys_exit`. Settles the checks that were made in it, and
//! recognises needs that the kernel decided without asking.
//!
//! The slow paths load through the helper: a verifier looks each pointer's type up in all of the
//! kernel's BTF, which takes longer than all else that it does here.
//!
//! Runs for every system call of the host while attached, so what most of them meet is: one slot
//! that is not theirs, and a few comparisons.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
        bpf_probe_read_user, bpf_probe_read_user_str,
    },
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use kcap_common::{
    abi::{
        key::{Key, NO_CAP, abi, flag, site, unasked},
        loss,
        record::{DETAIL_LEN, LINE_LEN, OPEN, Phase, Slot, Unasked, kind},
    },
    decide::{
        outcome,
        unasked::{self as needs, End},
    },
};

use super::check;
use crate::{
    flush,
    globals::{self, field, setting},
    mem::{Mem, Probed, Ptr, Typed, opaque},
    scope, slots, syscall,
    tally::{self, OUTCOMES},
};

const EPERM: i64 = -1;
const ENOSYS: i64 = -38;
const CAP_SYS_ADMIN: u8 = 21;

/// What a call's end came to. In a map, where a verifier does not follow each combination of values.
#[repr(C)]
struct Told {
    /// One of [`unasked`], 0 for none.
    what: u64,
    class: u64,
    lacking: u64,
    /// [`outcome::class`] of the return value.
    outcome: u64,
}

#[map]
static TOLD: PerCpuArray<Told> = PerCpuArray::with_max_entries(1, 0);

/// `(struct pt_regs *regs, long ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn kcap_sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: Ptr = ctx.arg(0);
    let ret: i64 = ctx.arg(1);
    let owner = slots::owner(regs);
    let Some(slot) = slots::of(owner) else {
        return 0;
    };
    // SAFETY: a map value; see `slots` for who touches what.
    let slot = unsafe { &mut *slot };
    // SAFETY: a plain load.
    let checked = unsafe { (&raw const slot.owner).read_volatile() } == owner;
    if checked {
        settle(slot, regs, ret);
    }
    let nr = Typed::u64(regs, field!(regs_nr));
    // Of these only some tell of a need: see decide::unasked.
    if ret == EPERM || ret == ENOSYS || nr == 125 || nr == 157 {
        tell(regs, ret, checked);
    } else if needs::opens_network(nr) && ret >= 0 && !checked {
        opened(regs, nr);
    }
    if nr == WRITE && ret > 0 && matches!(Typed::u64(regs, field!(regs_a0)), 1 | 2) {
        written(regs, ret);
    }
    if nr == flush::SETHOSTNAME && setting!(flusher) != 0 {
        hand_over(regs);
    }
    0
}

/// Hands over a part of this program's table, where it is kcap that asks.
#[inline(never)]
fn hand_over(regs: Ptr) -> u64 {
    // SAFETY: no arguments; never null.
    let task = unsafe { bpf_get_current_task() } as Ptr;
    if Probed::u32(task, field!(task_tgid)) != setting!(flusher) {
        return 0;
    }
    flush::part(&OUTCOMES, Typed::u64(regs, field!(regs_a0)) as u32)
}

/// `write`, on x86-64.
const WRITE: u64 = 1;
/// Giver of generations, see [`scope::generation`].
const GIVER: u32 = 3;

/// The executor wrote to its log: what it does from here on gets a generation of its own. Its log
/// says what it does next, so that this cuts its work into steps, exactly.
#[inline(never)]
fn written(regs: Ptr, ret: i64) -> u64 {
    // SAFETY: no arguments; never null.
    let task = unsafe { bpf_get_current_task() } as Ptr;
    let tgid = Probed::u32(task, field!(task_tgid));
    let before = scope::of(tgid);
    // Of the 32-bit calls, number 1 is exit.
    if before & scope::SLICED == 0 || Probed::u32(task, field!(task_status)) & 2 != 0 {
        return 0;
    }
    let Some(mut entry) = tally::RING.reserve::<Phase>(0) else {
        globals::count(loss::EXECS, 1);
        return 0;
    };
    let p = entry.as_mut_ptr();
    let program = scope::generation(GIVER);
    // Masked although it is bounded: verifiers up to 6.12 do not carry the bound over to a copy.
    const MOST: u64 = LINE_LEN as u64 - 1;
    const _: () = assert!(LINE_LEN.is_power_of_two());
    let len = if ret as u64 > MOST { MOST } else { ret as u64 };
    let len = opaque(len) & MOST;
    // SAFETY: the reserved record; the helper zeroes the destination where it fails, and what is
    // beyond `len` is not read.
    unsafe {
        (*p).kind = kind::PHASE;
        (*p).program = program;
        (*p).previous = scope::program(before);
        (*p).tgid = tgid;
        (*p).time = bpf_ktime_get_ns();
        (*p).full = ret as u32;
        let from = Typed::u64(regs, field!(regs_a1));
        let r = bpf_probe_read_user((&raw mut (*p).text).cast(), len as u32, from as *const _);
        (*p).len = if r == 0 { len as u32 } else { 0 };
    }
    scope::set(tgid, program | scope::SLICED);
    entry.submit(tally::wakeup());
    1
}

/// Where this program notes what it found.
#[inline(always)]
fn told(ret: i64) -> Option<&'static mut Told> {
    let told = TOLD.get_ptr_mut(0)?;
    // SAFETY: a map value of this CPU, which this program alone uses.
    let told = unsafe { &mut *told };
    *told = Told {
        what: 0,
        class: 0,
        lacking: 0,
        outcome: outcome::class(ret).into(),
    };
    Some(told)
}

/// Counts the failures of what was open, and frees the slot.
#[inline(always)]
fn settle(slot: &mut Slot, regs: Ptr, ret: i64) {
    if ret < 0
        && let Some(told) = told(ret)
    {
        // SAFETY: a map value; volatile, so that what is known of it is forgotten.
        let class = unsafe { (&raw const told.outcome).read_volatile() };
        let used = slot.used;
        let mut i = 0;
        while i < OPEN && class != 0 {
            if i as u32 >= used {
                break;
            }
            failed(&slot.open[i].key, class, slot.open[i].count);
            i += 1;
        }
    }
    // write, pwrite64, writev, pwritev of a user namespace's map ask for SYS_ADMIN first.
    let nr = Typed::u64(regs, field!(regs_nr));
    if matches!(nr, 1 | 18 | 20 | 296) && Key::from_words(slot.open[0].key).cap == CAP_SYS_ADMIN {
        idmap(regs, ret);
    }
    slots::release(slot);
}

#[inline(never)]
fn failed(key: &[u64; 3], class: u64, n: u64) -> u64 {
    let key = [key[0], key[1], key[2] | ((class & 0xff) << 24)];
    let index = tally::hash(&key) & setting!(outcome_mask);
    tally::add(&OUTCOMES, index, &key, n, loss::OUTCOMES)
}

/// Recognises needs that were decided without a check.
#[inline(never)]
fn tell(regs: Ptr, ret: i64, checked: bool) -> u64 {
    // SAFETY: no arguments; never null.
    let task = unsafe { bpf_get_current_task() } as Ptr;
    let entry = scope::of(Probed::u32(task, field!(task_tgid)));
    if entry == 0 || Probed::u32(task, field!(task_status)) & 2 != 0 {
        return 0;
    }
    let nr = Typed::u64(regs, field!(regs_nr));
    let a0 = Typed::u64(regs, field!(regs_a0));
    let a1 = Typed::u64(regs, field!(regs_a1));
    let filtered = Probed::u32(task, field!(task_seccomp_mode)) == 2;
    let gated = filtered && !checked && syscall::gated(nr);
    let Some(told) = told(ret) else {
        return 0;
    };
    match needs::at_exit(End {
        nr,
        a0,
        a1,
        ret,
        gated,
    }) {
        0 => return 0,
        unasked::CAPSET => {
            let above = syscall::capset_above::<Probed>(task, a1);
            if above == 0 {
                // Refused for another reason: the check of SETPCAP tells.
                return 0;
            }
            told.class = above & 0xffff_ffff;
            told.lacking = above;
            told.what = unasked::CAPSET.into();
        }
        unasked::AMBIENT => {
            let cap = Typed::u64(regs, field!(regs_a2));
            told.class = cap & 0xffff_ffff;
            told.lacking = 1u64 << (cap & 63);
            told.what = unasked::AMBIENT.into();
        }
        what => told.what = what.into(),
    }
    write(regs, told)
}

/// A `bind` or `socket` that succeeded and asked nothing.
#[inline(never)]
fn opened(regs: Ptr, nr: u64) -> u64 {
    // SAFETY: no arguments; never null.
    let task = unsafe { bpf_get_current_task() } as Ptr;
    let entry = scope::of(Probed::u32(task, field!(task_tgid)));
    if entry == 0 || Probed::u32(task, field!(task_status)) & 2 != 0 {
        return 0;
    }
    let class = syscall::of_network(nr, regs);
    let what = needs::of_network(nr, class);
    if what == 0 {
        return 0;
    }
    let Some(told) = told(0) else {
        return 0;
    };
    told.class = class.into();
    told.what = what.into();
    write(regs, told)
}

/// A write to an id map: whatever came of it, userspace reads what was asked for.
#[inline(never)]
fn idmap(regs: Ptr, ret: i64) -> u64 {
    // SAFETY: no arguments; never null.
    let task = unsafe { bpf_get_current_task() } as Ptr;
    let entry = scope::of(Probed::u32(task, field!(task_tgid)));
    if entry == 0 {
        return 0;
    }
    let fd = Typed::u64(regs, field!(regs_a0)) as u32;
    let files = Probed::ptr(task, field!(task_files));
    let fdt = Probed::ptr(files, field!(files_fdt));
    if fd >= Probed::u32(fdt, field!(fdt_max)) {
        return 0;
    }
    let mut name = [0u8; 8];
    let array = Probed::u64(fdt, field!(fdt_fd));
    // SAFETY: the helper checks each source; the destinations are ours.
    unsafe {
        let mut file = 0u64;
        bpf_probe_read_kernel(
            (&raw mut file).cast(),
            8,
            (array + 8 * u64::from(fd)) as *const _,
        );
        let mut dentry = 0u64;
        bpf_probe_read_kernel(
            (&raw mut dentry).cast(),
            8,
            (file + field!(file_dentry) as u64) as *const _,
        );
        let mut text = 0u64;
        bpf_probe_read_kernel(
            (&raw mut text).cast(),
            8,
            (dentry + field!(dentry_name) as u64) as *const _,
        );
        bpf_probe_read_kernel_str((&raw mut name).cast(), 8, text as *const _);
    }
    let class = needs::idmap(&name);
    if class != 0
        && let Some(told) = told(ret)
    {
        told.what = unasked::IDMAP.into();
        told.class = class.into();
        write(regs, told);
    }
    0
}

/// Counts it, and sends what explains it.
#[inline(never)]
fn write(regs: Ptr, told: &Told) -> u64 {
    // SAFETY: no arguments; never null.
    let task = unsafe { bpf_get_current_task() } as Ptr;
    let entry = scope::of(Probed::u32(task, field!(task_tgid)));
    if entry == 0 {
        return 0;
    }
    let nr = Typed::u64(regs, field!(regs_nr));
    let cred = Probed::ptr(task, field!(task_cred));
    let level = Probed::u32(Probed::ptr(cred, field!(cred_user_ns)), field!(ns_level)) as u8;
    let filtered = Probed::u32(task, field!(task_seccomp_mode)) == 2;
    let slice = if entry & scope::SLICED != 0 {
        check::slice()
    } else {
        0
    };
    let key = Key {
        program: scope::program(entry),
        slice,
        class: told.class as u32,
        syscall: (nr & 0x3fff) as u16,
        abi: abi::NATIVE,
        cap: NO_CAP,
        result: told.outcome as u8,
        flags: if filtered { flag::SECCOMP } else { 0 },
        creds: 0,
        outcome: 0,
        target_level: level,
        creds_level: level,
        site: site::EXIT,
        unasked: told.what as u8,
    };
    let words = key.words();
    let index = tally::hash(&words) & setting!(outcome_mask);
    let n = tally::add(&OUTCOMES, index, &words, 1, loss::UNASKED);
    // A program that probes its own sets, or opens sockets, does so in a loop; the first of a key says
    // it all.
    if told.what >= u64::from(unasked::READS_OWN) && n != 1 {
        return 0;
    }
    let Some(mut record) = tally::RING.reserve::<Unasked>(0) else {
        globals::count(loss::UNASKED, 1);
        return 0;
    };
    let u = record.as_mut_ptr();
    // SAFETY: the reserved record; `len` says how much of `detail` is written. The helpers check
    // their sources and write at most the sizes given.
    unsafe {
        (*u).kind = kind::UNASKED;
        (*u).key = key;
        (*u).time = bpf_ktime_get_ns();
        let args = syscall::args(regs);
        (*u).args = args;
        (*u).lacking = told.lacking;
        (*u).bounding = Probed::u64(cred, field!(cred_bset));
        (*u).tid = Probed::u32(task, field!(task_pid));
        (*u).tgid = Probed::u32(task, field!(task_tgid));
        let detail = (&raw mut (*u).detail).cast();
        let len = match told.what as u8 {
            unasked::EXEC => {
                let path = if nr == 59 { args[0] } else { args[1] };
                bpf_probe_read_user_str(detail, DETAIL_LEN as u32, path as *const _)
            }
            unasked::IDMAP if nr == 1 || nr == 18 => {
                let len = if args[2] > 128 { 128 } else { args[2] as u32 };
                if bpf_probe_read_user(detail, len, args[1] as *const _) == 0 {
                    i64::from(len)
                } else {
                    0
                }
            }
            _ => 0,
        };
        (*u).len = if len > 0 { len as u32 } else { 0 };
    }
    // Userspace reads a refused file's capabilities while the file is there.
    record.submit(tally::FORCE_WAKEUP);
    0
}

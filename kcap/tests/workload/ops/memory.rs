//! Memory: page zero, and the question about overcommitted memory that every mapping asks.
//!
//! Starting any program asks the latter, too. The operations here give up SYS_ADMIN first, so that
//! theirs are the refused ones; the refusal decides nothing.

use libc::{EPERM, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, c_int};

use super::{Op, cap};
use crate::sys::{self, Res, must_end};
use crate::truth::{Expect, check};

const PAGE: usize = 4096;

/// Maps anonymous memory; the address, or the errno.
fn map(at: usize, length: usize, protection: c_int, flags: c_int) -> Result<usize, sys::Errno> {
    // SAFETY: only this module uses the addresses it gets; a fixed one is page zero or lies in a
    // region that this module mapped before.
    let got = unsafe {
        libc::mmap(
            at as *mut _,
            length,
            protection,
            flags | MAP_PRIVATE | MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if got == libc::MAP_FAILED {
        Err(sys::errno())
    } else {
        Ok(got as usize)
    }
}

fn unmap(at: usize, length: usize) {
    // SAFETY: only regions that this module mapped, or page zero, and nothing points into them.
    unsafe { libc::munmap(at as *mut _, length) };
}

fn protect(at: usize, length: usize, protection: c_int) -> Result<c_int, sys::Errno> {
    // SAFETY: only regions that this module mapped.
    match unsafe { libc::mprotect(at as *mut _, length, protection) } {
        0 => Ok(0),
        _ => Err(sys::errno()),
    }
}

fn brk(to: usize) -> usize {
    // SAFETY: called alone in the process, to ask for the end of the heap, to move it up by a page,
    // and to move it back before anything allocates.
    unsafe { libc::syscall(libc::SYS_brk, to) as usize }
}

/// Overcommit is asked for, and the refusal changes nothing.
fn overcommit(syscall: i64) -> Expect {
    check(cap::SYS_ADMIN, syscall, "cap_vm_enough_memory")
        .refused(0)
        .class(0)
        .narrow()
        .unless_blind("cap_vm_enough_memory")
}

/// How many mappings of this process are accounted. Its forked workers have the same ones: what they
/// share with it is not accounted, and the heap is one mapping however large.
fn accounted() -> Res<u64> {
    let path = "/proc/self/smaps";
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let flags = text
        .lines()
        .filter_map(|line| line.strip_prefix("VmFlags:"));
    Ok(flags
        .filter(|flags| flags.split_whitespace().any(|flag| flag == "ac"))
        .count() as u64)
}

/// Pages that a growing stack may take before it is made anew.
const STACK: usize = 256;
/// Pages that a stack has to keep free below itself, and one.
const GAP: usize = 257;

/// A mapping that the kernel makes grow downwards, page by page, as it is touched.
#[derive(Default)]
struct Stack {
    /// The reserved region, 0 before the first.
    region: usize,
    /// Lowest page of the stack.
    low: usize,
}

impl Stack {
    const LENGTH: usize = (STACK + GAP) * PAGE;

    fn renew(&mut self) -> Res {
        if self.region != 0 {
            unmap(self.region, Self::LENGTH);
        }
        let told = |e| format!("mmap of a stack: errno {e}");
        self.region = map(0, Self::LENGTH, PROT_NONE, 0).map_err(told)?;
        self.low = self.region + Self::LENGTH - PAGE;
        unmap(self.region, Self::LENGTH);
        let flags = libc::MAP_GROWSDOWN | libc::MAP_FIXED_NOREPLACE;
        map(self.low, PAGE, PROT_READ | PROT_WRITE, flags).map_err(told)?;
        Ok(())
    }

    fn grow(&mut self) -> Res {
        if self.region == 0 || self.low - PAGE < self.region + GAP * PAGE {
            self.renew()?;
        }
        self.low -= PAGE;
        // SAFETY: the page below a MAP_GROWSDOWN mapping, with the gap below it unmapped: touching
        // it grows the mapping. Nothing else lives there.
        unsafe { (self.low as *mut u8).write_volatile(1) };
        Ok(())
    }
}

pub const OPS: &[Op] = &[
    Op {
        name: "map-zero",
        caps: &[cap::SYS_RAWIO],
        alone: false,
        prepare: |w| {
            let want = if w.refused { EPERM } else { 0 };
            Ok(Box::new(move || {
                let got = map(0, PAGE, PROT_NONE, MAP_FIXED);
                if got.is_ok() {
                    unmap(0, PAGE);
                }
                must_end("mmap of page zero", got, want)
            }))
        },
        truth: |refused| {
            let path = "/proc/sys/vm/mmap_min_addr";
            match std::fs::read_to_string(path) {
                Ok(text) if text.trim() != "0" => Ok(vec![
                    check(cap::SYS_RAWIO, libc::SYS_mmap, "cap_mmap_addr").either(refused, EPERM),
                ]),
                Ok(_) => Err(format!("{path} is 0: nothing is asked for page zero")),
                Err(e) => Err(format!("{path}: {e}")),
            }
        },
    },
    Op {
        name: "mmap",
        caps: &[],
        alone: false,
        prepare: |_| {
            sys::give_up(&[cap::SYS_ADMIN])?;
            Ok(Box::new(|| {
                let at = map(0, PAGE, PROT_READ | PROT_WRITE, 0)
                    .map_err(|e| format!("mmap: errno {e}"))?;
                unmap(at, PAGE);
                Ok(())
            }))
        },
        truth: |_| Ok(vec![overcommit(libc::SYS_mmap)]),
    },
    // Memory that becomes writable is accounted then.
    Op {
        name: "mprotect",
        caps: &[],
        alone: false,
        prepare: |_| {
            sys::give_up(&[cap::SYS_ADMIN])?;
            Ok(Box::new(|| {
                let at = map(0, PAGE, PROT_READ, 0).map_err(|e| format!("mmap: errno {e}"))?;
                let got = protect(at, PAGE, PROT_READ | PROT_WRITE);
                unmap(at, PAGE);
                must_end("mprotect", got, 0)
            }))
        },
        truth: |_| Ok(vec![overcommit(libc::SYS_mprotect)]),
    },
    Op {
        name: "brk",
        caps: &[],
        alone: true,
        prepare: |_| {
            sys::give_up(&[cap::SYS_ADMIN])?;
            Ok(Box::new(|| {
                let end = brk(0);
                let grown = brk(end + PAGE);
                let back = brk(end);
                if grown == end + PAGE && back == end {
                    Ok(())
                } else {
                    Err(format!("brk: {end:#x} became {grown:#x}, then {back:#x}"))
                }
            }))
        },
        truth: |_| Ok(vec![overcommit(libc::SYS_brk)]),
    },
    // Outside of any system call: a stack that grows in a page fault.
    Op {
        name: "stack",
        caps: &[],
        alone: true,
        prepare: |_| {
            sys::give_up(&[cap::SYS_ADMIN])?;
            let mut stack = Stack::default();
            Ok(Box::new(move || stack.grow()))
        },
        truth: |_| Ok(vec![overcommit(0).in_page_fault()]),
    },
    // A copied address space: once for each mapping that is accounted.
    Op {
        name: "fork",
        caps: &[],
        alone: true,
        prepare: |_| {
            sys::give_up(&[cap::SYS_ADMIN])?;
            Ok(Box::new(|| sys::wait_ok(sys::fork(|| Ok(()))?)))
        },
        truth: |_| {
            let times = accounted()?;
            Ok(vec![overcommit(libc::SYS_clone).times(times)])
        },
    },
];

//! Loads from kernel structures: direct where the verifier knows the pointer's type (its fault
//! handling makes a bad address read as zero), else through the helper.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// An address in the kernel.
pub type Ptr = *const u8;

/// How to load from kernel memory.
pub trait Mem {
    /// The 32-bit value at `p + offset`.
    fn u32(p: Ptr, offset: usize) -> u32;
    /// The 64-bit value at `p + offset`.
    fn u64(p: Ptr, offset: usize) -> u64;
    /// The pointer at `p + offset`.
    fn ptr(p: Ptr, offset: usize) -> Ptr;
}

/// Loads through pointers whose type the verifier knows: arguments of `tp_btf`, `fentry` and
/// `fexit` programs, `bpf_get_current_task_btf`, and what they point to.
pub struct Typed;

impl Mem for Typed {
    #[inline(always)]
    fn u32(p: Ptr, offset: usize) -> u32 {
        // SAFETY: the verifier has proven that the offset is a 4-byte member of the pointer's type.
        unsafe { p.byte_add(offset).cast::<u32>().read_volatile() }
    }
    #[inline(always)]
    fn u64(p: Ptr, offset: usize) -> u64 {
        // SAFETY: as above, for 8 bytes.
        unsafe { p.byte_add(offset).cast::<u64>().read_volatile() }
    }
    #[inline(always)]
    fn ptr(p: Ptr, offset: usize) -> Ptr {
        // SAFETY: as above, for a pointer.
        unsafe { p.byte_add(offset).cast::<Ptr>().read_volatile() }
    }
}

/// Loads through addresses that are plain numbers to the verifier: arguments of kprobes.
pub struct Probed;

impl Mem for Probed {
    #[inline(always)]
    fn u32(p: Ptr, offset: usize) -> u32 {
        let mut v = 0u32;
        // SAFETY: the helper checks the source; the destination is 4 bytes of our stack.
        unsafe {
            bpf_probe_read_kernel((&raw mut v).cast(), 4, p.wrapping_byte_add(offset).cast());
        }
        v
    }
    #[inline(always)]
    fn u64(p: Ptr, offset: usize) -> u64 {
        let mut v = 0u64;
        // SAFETY: as above, 8 bytes.
        unsafe {
            bpf_probe_read_kernel((&raw mut v).cast(), 8, p.wrapping_byte_add(offset).cast());
        }
        v
    }
    #[inline(always)]
    fn ptr(p: Ptr, offset: usize) -> Ptr {
        Self::u64(p, offset) as Ptr
    }
}

/// The same number, of which the verifier does not know that it is: what a comparison says of the one it does
/// not carry over to the other, and so walks what follows once for both.
#[inline(always)]
pub fn apart(mut n: u64) -> u64 {
    // SAFETY: changes nothing.
    unsafe { core::arch::asm!("{n} ^= 0", n = inout(reg) n, options(nomem, nostack)) };
    n
}

/// The same number, of which the compiler knows nothing: it then compares the very register that it
/// goes on to index with. Verifiers before 6.5 or so do not carry over what a comparison said to a
/// copy on the stack.
#[inline(always)]
pub fn opaque(mut n: u64) -> u64 {
    // SAFETY: changes nothing. An instruction all the same: without one, the line information of
    // what follows names the same offset twice, which the kernel refuses.
    unsafe { core::arch::asm!("{n} += 0", n = inout(reg) n, options(nomem, nostack)) };
    n
}

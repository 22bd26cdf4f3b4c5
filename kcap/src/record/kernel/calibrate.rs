//! The checks that a compiler may inline into their callers, made on purpose: the loader looks whether
//! its hook saw them, and accounts those that it did not at their callers.

use std::io;

use kcap_common::abi::key::site;

/// Makes each check that compilers inline once, harmlessly: setting this thread's own capability
/// sets and securebits to what they are, and mapping a page at address 0 for a moment. Gives the
/// sites that a check must have been made at.
pub fn make_inlined_checks() -> io::Result<Vec<u8>> {
    let mut made = vec![];
    capset()?;
    made.push(site::CAPSET);
    if securebits() {
        made.push(site::PRCTL);
    }
    let min = std::fs::read_to_string("/proc/sys/vm/mmap_min_addr").unwrap_or_default();
    map_low();
    // An ordinary writable mapping: asks through cap_vm_enough_memory.
    map(0);
    if min.trim().parse::<u64>().is_ok_and(|n| n > 0) {
        made.push(site::MMAP_ADDR);
    }
    Ok(made)
}

/// Sets this thread's capability sets to what they are.
pub fn capset() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let mut data = [0u32; 6];
    // SAFETY: version 3 takes a header and two data structs of three words.
    unsafe {
        if libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) != 0
            || libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Sets this thread's securebits to what they are, or is refused; false where they cannot be read.
pub fn securebits() -> bool {
    // SAFETY: integers only. Setting what is set changes nothing.
    unsafe {
        let bits = libc::prctl(libc::PR_GET_SECUREBITS);
        if bits >= 0 {
            libc::prctl(libc::PR_SET_SECUREBITS, bits);
        }
        bits >= 0
    }
}

/// Maps a page at address 0 for a moment, or is refused.
pub fn map_low() {
    map(libc::MAP_FIXED_NOREPLACE);
}

fn map(flags: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new private page, at an address that nothing of ours uses, unmapped at once.
    unsafe {
        let p = libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0);
        if p != libc::MAP_FAILED {
            libc::munmap(p, 4096);
        }
    }
}

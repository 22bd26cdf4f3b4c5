//! Calls of `bpf(2)` that aya has no accessor for.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};

const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// Head of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info` of Linux 5.16 and later; every padding is a field.
#[repr(C)]
#[derive(Default)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    gpl_compatible: u32,
    netns_dev: u64,
    netns_ino: u64,
    nr_jited_ksyms: u32,
    nr_jited_func_lens: u32,
    jited_ksyms: u64,
    jited_func_lens: u64,
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: u64,
    jited_line_info: u64,
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    nr_prog_tags: u32,
    prog_tags: u64,
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    attach_btf_obj_id: u32,
    attach_btf_id: u32,
    padding: u32,
}

const _: () = assert!(offset_of!(RawProgramInfo, run_time_ns) == 192);
const _: () = assert!(offset_of!(RawProgramInfo, verified_insns) == 216);
const _: () = assert!(size_of::<RawProgramInfo>() == 232);

/// What the kernel knows of a loaded program. A member that the kernel does not report is `None`:
/// never a zero that would read as "nothing lost".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Kernel-wide id.
    pub id: u32,
    /// Times that the kernel did not run the program because it, or for some hooks any other
    /// program, was active on that CPU. Linux 5.12 on; complete for kprobes from 6.7 on only.
    pub recursion_misses: Option<u64>,
    /// Runs, counted only while `kernel.bpf_stats_enabled` is 1.
    pub run_cnt: Option<u64>,
    /// Nanoseconds spent in those runs.
    pub run_time_ns: Option<u64>,
    /// Instructions that the verifier walked. Linux 5.16 on.
    pub verified_insns: Option<u32>,
}

/// Asks the kernel about the loaded program behind `program`.
///
/// # Errors
/// The call's own, for instance `EBADF` or, where seccomp forbids `bpf(2)`, `EPERM`; `EINVAL` where
/// the descriptor is not a BPF object's.
pub fn program_info(program: impl AsFd) -> io::Result<ProgramInfo> {
    // All pointers and lengths are zero: no array is asked for.
    let mut raw = RawProgramInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: program.as_fd().as_raw_fd() as u32,
        info_len: size_of::<RawProgramInfo>() as u32,
        info: &raw mut raw as u64,
    };
    // SAFETY: `attr` and `raw` are live and exclusively borrowed for the call; the kernel writes at
    // most `info_len` bytes to `raw`, plain integers all, and the length written to `attr`.
    let r = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attr,
            size_of::<InfoAttr>() as libc::c_uint,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(reported(&raw, attr.info_len as usize))
}

/// Has the kernel keep account of the time spent in BPF programs, as long as the descriptor is open
/// (`BPF_ENABLE_STATS`, Linux 5.8 on).
///
/// # Errors
/// The call's own: `EPERM` without SYS_ADMIN.
pub fn enable_run_times() -> io::Result<OwnedFd> {
    const BPF_ENABLE_STATS: libc::c_int = 32;
    // `BPF_STATS_RUN_TIME`.
    let mut attr = [0u32; 1];
    // SAFETY: the attribute is live and of the length given.
    let r = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_ENABLE_STATS,
            attr.as_mut_ptr(),
            size_of_val(&attr),
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(r as i32) })
}

/// Keeps what lies within the `len` bytes that the kernel reported.
fn reported(raw: &RawProgramInfo, len: usize) -> ProgramInfo {
    let within = |offset: usize, size: usize| offset + size <= len;
    ProgramInfo {
        id: raw.id,
        recursion_misses: within(offset_of!(RawProgramInfo, recursion_misses), 8)
            .then_some(raw.recursion_misses),
        run_cnt: within(offset_of!(RawProgramInfo, run_cnt), 8).then_some(raw.run_cnt),
        run_time_ns: within(offset_of!(RawProgramInfo, run_time_ns), 8).then_some(raw.run_time_ns),
        verified_insns: within(offset_of!(RawProgramInfo, verified_insns), 4)
            .then_some(raw.verified_insns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::{FromRawFd, OwnedFd};

    #[test]
    fn members_beyond_what_the_kernel_wrote_are_unknown() {
        let raw = RawProgramInfo {
            id: 7,
            run_cnt: 1,
            recursion_misses: 2,
            ..Default::default()
        };
        let old = reported(&raw, 208);
        assert_eq!(
            (old.run_cnt, old.recursion_misses, old.verified_insns),
            (Some(1), None, None)
        );
        let partly = reported(&raw, 215);
        assert_eq!(partly.recursion_misses, None);
        let new = reported(&raw, 232);
        assert_eq!(
            (new.recursion_misses, new.verified_insns),
            (Some(2), Some(0))
        );
    }

    #[test]
    fn a_descriptor_of_something_else_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        assert!(program_info(&file).is_err());
    }

    /// Loads `r0 = 0; exit` as a socket filter.
    fn trivial_program() -> io::Result<OwnedFd> {
        let insns: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
        let mut attr = [0u64; 6];
        attr[0] = 1 | (insns.len() as u64) << 32;
        attr[1] = insns.as_ptr() as u64;
        attr[2] = c"GPL".as_ptr() as u64;
        // SAFETY: `attr` is BPF_PROG_LOAD's (type and length, instructions, licence), and both
        // pointers outlive the call.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, 5, attr.as_ptr(), size_of_val(&attr)) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    #[test]
    fn a_loaded_program_reports_its_counters() {
        let program = match trivial_program() {
            Ok(program) => program,
            Err(e) => {
                eprintln!("SKIPPED a_loaded_program_reports_its_counters: cannot load BPF: {e}");
                return;
            }
        };
        let info = program_info(&program).unwrap();
        assert_ne!(info.id, 0);
        assert_eq!(info.recursion_misses, Some(0));
        assert_eq!(info.verified_insns, Some(2));
    }
}

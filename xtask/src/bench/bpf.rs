//! The raw `bpf(2)` calls of the benchmark: programs that do nothing, as the floor to compare with,
//! and what the kernel knows of kcap's programs. No library, so that xtask builds without kcap.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

const PROG_LOAD: libc::c_int = 5;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;

const TYPE_RAW_TRACEPOINT: u32 = 17;
const TYPE_TRACING: u32 = 26;
const ATTACH_RAW_TP: u32 = 23;

/// `union bpf_attr` for `BPF_PROG_LOAD`, up to the last member used.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    infos: [u64; 4],
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_fd: u64,
}

const _: () = assert!(std::mem::offset_of!(Load, expected_attach_type) == 68);
const _: () = assert!(std::mem::offset_of!(Load, attach_btf_id) == 108);

/// `union bpf_attr` for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct Open {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// One call of `bpf(2)`.
///
/// # Safety
/// `attr` must be what the command takes, and the pointers in it valid as the command needs them.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is live for the call and of the length given; the caller vouches for the rest.
    let r = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(r as libc::c_int)
}

/// A descriptor that the kernel has just given.
fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the caller has it from a successful call, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// An attached program that does nothing. Detached when dropped.
pub struct Empty {
    _link: OwnedFd,
}

impl Empty {
    /// An empty `tp_btf` program on the tracepoint `capability:cap_capable`.
    ///
    /// # Errors
    /// Where the kernel has no such tracepoint, or refuses the program.
    pub fn on_cap_capable() -> Result<Self> {
        const BTF: &str = "/sys/kernel/btf/vmlinux";
        let image = fs::read(BTF).with_context(|| format!("cannot read {BTF}"))?;
        let id = typedef(&image, c"btf_trace_cap_capable")
            .context("this kernel has no tracepoint capability:cap_capable (6.14 on)")?;
        Self::attach(TYPE_TRACING, ATTACH_RAW_TP, id, None)
            .context("cannot attach an empty program to cap_capable")
    }

    /// An empty `raw_tp` program on `raw_syscalls:sys_exit`.
    ///
    /// # Errors
    /// Where the kernel refuses the program.
    pub fn on_sys_exit() -> Result<Self> {
        Self::attach(TYPE_RAW_TRACEPOINT, 0, 0, Some(c"sys_exit"))
            .context("cannot attach an empty program to sys_exit")
    }

    fn attach(
        prog_type: u32,
        expected_attach_type: u32,
        attach_btf_id: u32,
        name: Option<&CStr>,
    ) -> io::Result<Self> {
        // r0 = 0; exit
        const INSNS: [u64; 2] = [0xb7, 0x95];
        let mut load = Load {
            prog_type,
            insn_cnt: INSNS.len() as u32,
            insns: INSNS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            prog_name: *b"bench_empty\0\0\0\0\0",
            expected_attach_type,
            attach_btf_id,
            ..Load::default()
        };
        // SAFETY: instructions and licence are static; the rest are integers.
        let program = owned(unsafe { bpf(PROG_LOAD, &mut load) }?);
        let mut open = Open {
            name: name.map_or(0, |name| name.as_ptr() as u64),
            prog_fd: program.as_raw_fd() as u32,
            padding: 0,
        };
        // SAFETY: the name, where there is one, is a string that outlives the call.
        let link = owned(unsafe { bpf(RAW_TRACEPOINT_OPEN, &mut open) }?);
        Ok(Self { _link: link })
    }
}

/// The type id of a typedef in a BTF image.
fn typedef(image: &[u8], name: &CStr) -> Option<u32> {
    const TYPEDEF: u32 = 8;
    let word = |at: usize| {
        let bytes = image.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?) as usize)
    };
    let header = word(4)?;
    let types = header.checked_add(word(8)?)?;
    let end = types.checked_add(word(12)?)?;
    let strings = header.checked_add(word(16)?)?;
    let (mut at, mut id) = (types, 1);
    while at < end {
        let (text, info) = (word(at)?, word(at + 4)? as u32);
        let kind = (info >> 24) & 0x1f;
        let len = (info & 0xffff) as usize;
        if kind == TYPEDEF {
            let tail = image.get(strings.checked_add(text)?..)?;
            if tail.starts_with(name.to_bytes_with_nul()) {
                return Some(id);
            }
        }
        at += 12
            + match kind {
                1 | 14 | 17 => 4,            // INT, VAR, DECL_TAG
                3 => 12,                     // ARRAY
                4 | 5 | 15 | 19 => 12 * len, // STRUCT, UNION, DATASEC, ENUM64
                6 | 13 => 8 * len,           // ENUM, FUNC_PROTO
                _ => 0,
            };
        id += 1;
    }
    None
}

/// A loaded program, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// Its name, of at most 15 bytes.
    pub name: String,
    /// Instructions that the verifier walked.
    pub verified: u32,
    /// Instructions after verification, eight bytes each.
    pub translated: u32,
}

/// The programs that a process holds, by name.
///
/// # Errors
/// Where the process is gone, or the kernel does not tell (before 5.16).
pub fn programs_of(pid: u32) -> Result<Vec<Program>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let mut programs = vec![];
    for entry in entries {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        // A program's own entry: a link's has its program's id as well.
        let is_program = text.lines().any(|line| line.starts_with("prog_type:"));
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        if let (true, Some(id)) = (is_program, id) {
            let id = id.trim().parse().context("an unexpected prog_id")?;
            programs.push(describe(id).with_context(|| format!("BPF program {id}"))?);
        }
    }
    programs.sort();
    programs.dedup();
    Ok(programs)
}

fn describe(id: u32) -> Result<Program> {
    // Offsets in `struct bpf_prog_info`.
    const TRANSLATED: usize = 20;
    const NAME: usize = 64;
    const VERIFIED: usize = 216;
    const LEN: usize = 232;
    let mut by_id = [id, 0, 0];
    // SAFETY: three integers: id, next id, flags.
    let program = owned(unsafe { bpf(PROG_GET_FD_BY_ID, &mut by_id) }?);
    let mut raw = [0u8; LEN];
    let mut attr = Info {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: LEN as u32,
        info: raw.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `raw`, which is zero and so asks for no
    // arrays.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    ensure!(
        attr.info_len as usize >= VERIFIED + 4,
        "this kernel does not count verified instructions: 5.16 on does"
    );
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&raw[at..at + 4]);
        u32::from_ne_bytes(bytes)
    };
    let name: Vec<u8> = raw[NAME..NAME + 16]
        .iter()
        .copied()
        .take_while(|&b| b != 0)
        .collect();
    Ok(Program {
        name: String::from_utf8_lossy(&name).into_owned(),
        verified: word(VERIFIED),
        translated: word(TRANSLATED) / 8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `int`, an array, and a typedef: the ids of C's first three types.
    fn image() -> Vec<u8> {
        let types: [u32; 4 + 6 + 3] = [
            1,
            1 << 24,
            4,
            32, // int
            0,
            3 << 24,
            0,
            1,
            1,
            4, // array: its body must be skipped
            5,
            8 << 24,
            1, // typedef
        ];
        let strings = b"\0int\0word\0";
        let header = [
            0x0001_eb9f,
            24,
            0,
            4 * types.len() as u32,
            4 * types.len() as u32,
            strings.len() as u32,
        ];
        let words = header.iter().chain(&types).flat_map(|w| w.to_ne_bytes());
        words.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn a_typedef_is_found_by_its_whole_name() {
        let image = image();
        assert_eq!(typedef(&image, c"word"), Some(3));
        assert_eq!(typedef(&image, c"wor"), None);
        assert_eq!(typedef(&image, c"int"), None, "no typedef");
    }

    #[test]
    fn a_cut_image_has_nothing() {
        let image = image();
        for len in 0..image.len() {
            assert_eq!(typedef(&image[..len], c"word"), None, "{len}");
        }
    }
}

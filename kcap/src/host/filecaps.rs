//! `security.capability` of executed files: parsed as the kernel parses it, and read from the file
//! that was executed or from none.
//!
//! The build is not to be trusted: it can replace its files and links while they are looked at.
//! So a file is opened without effects (`O_PATH`), found only below the process's own root, and
//! believed only if it is the file whose device and inode the kernel recorded.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::capture::FileCaps;

const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const EFFECTIVE: u32 = 1;
const ATTRIBUTE: &std::ffi::CStr = c"security.capability";

/// An attribute that the kernel refuses, and with it the execution (`EINVAL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCaps {
    /// Length of the attribute in bytes.
    pub len: usize,
}

impl fmt::Display for InvalidCaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "security.capability of {} bytes is in no known version",
            self.len
        )
    }
}

impl std::error::Error for InvalidCaps {}

/// Parses the attribute's value: version 1, 2 or 3, little-endian whatever the machine.
///
/// # Errors
/// Where the kernel would not take it, either: an unknown version, or another length than its.
pub fn parse(value: &[u8]) -> Result<FileCaps, InvalidCaps> {
    let invalid = InvalidCaps { len: value.len() };
    let (chunks, []) = value.as_chunks::<4>() else {
        return Err(invalid);
    };
    let words: Vec<u32> = chunks
        .iter()
        .take(7)
        .map(|c| u32::from_le_bytes(*c))
        .collect();
    let wide = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let (magic, permitted, inheritable, rootid) = match *words {
        [m, p, i] if m & REVISION_MASK == REVISION_1 => (m, p.into(), i.into(), None),
        [m, p, i, p2, i2] if m & REVISION_MASK == REVISION_2 => (m, wide(p, p2), wide(i, i2), None),
        [m, p, i, p2, i2, root] if m & REVISION_MASK == REVISION_3 => {
            (m, wide(p, p2), wide(i, i2), Some(root))
        }
        _ => return Err(invalid),
    };
    Ok(FileCaps::Has {
        permitted,
        inheritable,
        effective: magic & EFFECTIVE != 0,
        rootid,
    })
}

/// A file as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Major device number of its file system.
    pub major: u32,
    /// Minor device number of its file system.
    pub minor: u32,
    /// Inode number.
    pub inode: u64,
}

impl Identity {
    /// From `super_block.s_dev`, which has the minor number in its lower 20 bits, and `i_ino`.
    pub const fn from_kernel(s_dev: u32, inode: u64) -> Self {
        Self {
            major: s_dev >> 20,
            minor: s_dev & 0xf_ffff,
            inode,
        }
    }

    /// Whether `file`, found by way of process `pid`, is this one.
    ///
    /// `stat` is asked first. Overlay and btrfs answer it with other numbers than the kernel's own,
    /// so where it disagrees the descriptor's inode and its mount's device decide.
    fn is(self, file: &OwnedFd, pid: u32) -> io::Result<bool> {
        let meta = File::from(file.try_clone()?).metadata()?;
        let dev = meta.dev();
        if (libc::major(dev), libc::minor(dev), meta.ino()) == (self.major, self.minor, self.inode)
        {
            return Ok(true);
        }
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let field = |name: &str| {
            info.lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        // Kernels before 5.14 do not show the inode.
        let (Some(inode), Some(mount)) = (field("ino"), field("mnt_id")) else {
            return Ok(false);
        };
        if inode.parse() != Ok(self.inode) {
            return Ok(false);
        }
        // Paths in it may be anything, but never hold a newline or a blank that is not escaped.
        let mounts = fs::read(format!("/proc/{pid}/mountinfo"))?;
        let device = format!("{}:{}", self.major, self.minor);
        Ok(mounts.split(|&b| b == b'\n').any(|line| {
            let mut words = line.split(|&b| b == b' ');
            words.next() == Some(mount.as_bytes()) && words.nth(1) == Some(device.as_bytes())
        }))
    }
}

/// Reads the capabilities of an open file; `O_PATH` descriptors will do.
///
/// # Errors
/// The system's, and `InvalidData` for an attribute that does not parse.
pub fn of_file(file: impl AsFd) -> io::Result<FileCaps> {
    // By the descriptor's link, as fgetxattr(2) refuses O_PATH.
    let link = format!("/proc/self/fd/{}\0", file.as_fd().as_raw_fd());
    let mut value = [0u8; 64];
    // SAFETY: both strings end in NUL, and the buffer is as long as is said.
    let len = unsafe {
        libc::getxattr(
            link.as_ptr().cast(),
            ATTRIBUTE.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    if let Ok(len) = usize::try_from(len) {
        return parse(&value[..len.min(value.len())])
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP) => Ok(FileCaps::None),
        _ => Err(error),
    }
}

/// Reads the capabilities of the file that process `pid` executes, or failed to execute by
/// `path`: whichever of `/proc/<pid>/exe` and `path` below the process's root is the file meant.
/// [`FileCaps::Unread`] where neither is any more, or where the attribute cannot be read: a loss.
pub fn of_program(pid: u32, path: &Path, meant: Identity) -> FileCaps {
    let read = |file: io::Result<OwnedFd>| {
        let file = file.ok()?;
        meant
            .is(&file, pid)
            .ok()?
            .then(|| of_file(&file).ok())
            .flatten()
    };
    read(open_path(Path::new(&format!("/proc/{pid}/exe"))))
        .or_else(|| read(open_in_process(pid, path)))
        .unwrap_or(FileCaps::Unread)
}

/// Reads the capabilities of whatever file `path` names for process `pid`: of one that it failed to
/// execute, so that no identity is known. [`FileCaps::Unread`] where it cannot be read.
pub fn of_path(pid: u32, path: &Path) -> FileCaps {
    open_in_process(pid, path)
        .and_then(of_file)
        .unwrap_or(FileCaps::Unread)
}

/// Whether files can be looked at as another process sees them: a filter may forbid `openat2(2)` whole, as
/// systemd's `RestrictSUIDSGID=` does.
///
/// # Errors
/// The system's.
pub fn can_look() -> io::Result<()> {
    open_in_process(std::process::id(), Path::new("/")).map(drop)
}

/// Opens without effects: no device is touched, no FIFO waits.
fn open_path(path: &Path) -> io::Result<OwnedFd> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .map(OwnedFd::from)
}

/// Opens `path` as process `pid` sees it, and nothing outside of its root.
fn open_in_process(pid: u32, path: &Path) -> io::Result<OwnedFd> {
    let resolve = libc::RESOLVE_NO_MAGICLINKS;
    if path.is_absolute() {
        let root = open_path(Path::new(&format!("/proc/{pid}/root")))?;
        openat2(root.as_fd(), path, resolve | libc::RESOLVE_IN_ROOT)
    } else {
        // From the working directory there is no way to say "in that root": stay below.
        let dir = open_path(Path::new(&format!("/proc/{pid}/cwd")))?;
        openat2(dir.as_fd(), path, resolve | libc::RESOLVE_BENEATH)
    }
}

fn openat2(dir: BorrowedFd<'_>, path: &Path, resolve: u64) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: open_how is three integers, for which all zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    // SAFETY: the descriptor is live, the path ends in NUL, and `how` is as long as is said.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests;

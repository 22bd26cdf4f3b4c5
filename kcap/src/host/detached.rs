//! Reads kernel file systems that are not mounted, through a mount that is attached nowhere: no
//! path appears, and it ends with the descriptor.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
/// Read-only, nosuid, nodev, noexec.
const ATTRIBUTES: libc::c_uint = 0xf;
/// Far more than any file read here holds.
const LIMIT: u64 = 64 * 1024;

/// A kernel file system, mounted nowhere.
pub struct Detached(OwnedFd);

impl Detached {
    /// Opens the kernel file system of that type, `debugfs` for instance. Needs `CAP_SYS_ADMIN`.
    pub fn open(kind: &CStr) -> io::Result<Self> {
        // SAFETY: fsopen(2) takes a NUL-terminated name and flags; both are valid.
        let context =
            descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
        let none = ptr::null::<libc::c_char>();
        // SAFETY: FSCONFIG_CMD_CREATE takes no key, value or auxiliary argument.
        let created = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                FSCONFIG_CMD_CREATE,
                none,
                none,
                0 as libc::c_int,
            )
        };
        if created < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fsmount(2) takes a descriptor, which is live, and two words of flags.
        descriptor(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                context.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                ATTRIBUTES,
            )
        })
        .map(Self)
    }

    /// Reads a file by its path from the file system's root.
    pub fn read(&self, path: &CStr) -> io::Result<String> {
        // SAFETY: openat(2) takes a live descriptor and a NUL-terminated path.
        let file = descriptor(i64::from(unsafe {
            libc::openat(
                self.0.as_raw_fd(),
                path.as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC,
            )
        }))?;
        let mut text = String::new();
        File::from(file).take(LIMIT).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// Owns the descriptor that a system call returned.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

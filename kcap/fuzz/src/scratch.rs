//! A file in memory, for what kcap reads by its path.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::path::PathBuf;

/// The file; gone when it is dropped.
pub struct Scratch(File);

impl Scratch {
    /// With this content.
    pub fn new(content: &[u8]) -> Self {
        // SAFETY: the name ends with NUL, and is not kept.
        let fd = unsafe { libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(
            fd >= 0,
            "no memory file: {}",
            std::io::Error::last_os_error()
        );
        // SAFETY: the kernel just gave us this descriptor.
        let mut file = unsafe { File::from_raw_fd(fd) };
        file.write_all(content).expect("there is memory");
        Self(file)
    }

    /// Where it can be opened anew.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

//! Files below a root that holds what strangers packed: every path is resolved by the kernel inside
//! that root (`RESOLVE_IN_ROOT`), so that no symlink and no `..` leads out of it.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Most components of a path: each holds a descriptor while a tree is removed.
const DEPTH: usize = 128;

/// A folder that is `/` to all that is done through it.
#[derive(Debug)]
pub struct Root {
    pub(crate) dir: OwnedFd,
}

impl Root {
    /// Takes a folder of the host as root.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { dir })
    }

    /// Opens a path with flags. Symlinks are followed, inside the root.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The kernel asks to be asked again where a rename elsewhere raced with `..`.
        loop {
            match rustix::fs::openat2(
                &self.dir,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Opens a file to read it. Symlinks are followed, inside the root.
    ///
    /// # Errors
    /// The system's; `InvalidInput` where it is no regular file.
    pub fn read(&self, path: &Path) -> io::Result<File> {
        let file = File::from(self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"))
        }
    }
}

/// A path from a root, without `/` at its start and without `.`.
///
/// # Errors
/// `InvalidInput` where it contains `..` or is too deep.
pub fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    let mut depth = 0;
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                clean.push(name);
                depth += 1;
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => depth = DEPTH + 1,
        }
        if depth > DEPTH {
            let why = "it contains `..`, or is too deep";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    }
    Ok(clean)
}

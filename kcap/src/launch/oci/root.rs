//! Files below a root that holds what strangers packed: every path is resolved by the kernel inside
//! that root (`RESOLVE_IN_ROOT`), so that no symlink and no `..` leads out of it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RawMode, ResolveFlags, Uid};

/// Most components of a path: each holds a descriptor while a tree is removed.
const DEPTH: usize = 128;

/// A folder that is `/` to all that is done through it.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
}

/// The folder that an entry is in, and the entry's name there.
#[derive(Debug)]
pub struct Place {
    dir: OwnedFd,
    name: OsString,
}

/// Owner, group and mode of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permissions, with the setuid, setgid and sticky bits.
    pub mode: u32,
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

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
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

    /// The folder of an entry, made where it is not there (by root, mode 0755), and its name.
    /// Symlinks in the folder's path are followed, inside the root.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for a path that [`clean`] refuses, or for the root itself.
    pub fn place(&self, path: &Path) -> io::Result<Place> {
        let path = clean(path)?;
        let name = path
            .file_name()
            .ok_or(io::ErrorKind::InvalidInput)?
            .to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = match self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_folders(parent)?;
                self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY)?
            }
            result => result?,
        };
        Ok(Place { dir, name })
    }

    fn make_folders(&self, path: &Path) -> io::Result<()> {
        let mut so_far = PathBuf::new();
        for part in path.components() {
            let parent = self.resolve(&so_far, OFlags::PATH | OFlags::DIRECTORY)?;
            so_far.push(part);
            match rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Makes a folder with all above it, where it is not there. A symlink to one will do.
    ///
    /// # Errors
    /// The system's.
    pub fn ensure_folder(&self, path: &Path) -> io::Result<()> {
        let path = clean(path)?;
        if self
            .resolve(&path, OFlags::PATH | OFlags::DIRECTORY)
            .is_err()
        {
            self.place(&path)?.folder()?;
        }
        Ok(())
    }

    /// Makes an empty file, unless something of that name is there.
    ///
    /// # Errors
    /// The system's.
    pub fn touch(&self, path: &Path, mode: u32) -> io::Result<()> {
        let place = self.place(path)?;
        if place.exists()? {
            return Ok(());
        }
        let file = place.file()?;
        Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?)
    }

    /// Names in a folder; none where it is no folder.
    ///
    /// # Errors
    /// The system's.
    pub fn children(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let folder = if path.as_os_str().is_empty() {
            self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)?
                .into()
        } else {
            match self.place(path)?.open_folder()? {
                Some(folder) => folder,
                None => return Ok(Vec::new()),
            }
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }
}

impl Place {
    /// Something of that name is there, be it a symlink that leads nowhere.
    ///
    /// # Errors
    /// The system's.
    pub fn exists(&self) -> io::Result<bool> {
        Ok(self.kind()?.is_some())
    }

    fn kind(&self) -> io::Result<Option<rustix::fs::FileType>> {
        match rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(rustix::fs::FileType::from_raw_mode(stat.st_mode))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a file that is not there yet, and opens it for writing.
    ///
    /// # Errors
    /// The system's.
    pub fn file(&self) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(rustix::fs::openat(&self.dir, &self.name, flags, mode)?.into())
    }

    /// Makes it a folder, whatever else it was, and opens it. A folder that is there stays.
    ///
    /// # Errors
    /// The system's.
    pub fn folder(&self) -> io::Result<File> {
        match self.kind()? {
            Some(rustix::fs::FileType::Directory) => {}
            found => {
                if found.is_some() {
                    self.remove()?;
                }
                rustix::fs::mkdirat(&self.dir, &self.name, Mode::from_raw_mode(0o755))?;
            }
        }
        self.open_folder()?
            .ok_or(io::ErrorKind::NotADirectory.into())
    }

    /// Opens it, if it is a folder.
    ///
    /// # Errors
    /// The system's.
    pub fn open_folder(&self) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty()) {
            Ok(folder) => Ok(Some(folder.into())),
            // A symlink is no folder.
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP | rustix::io::Errno::NOENT) => {
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a symlink. Where it leads is not looked at.
    ///
    /// # Errors
    /// The system's.
    pub fn symlink(&self, target: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        rustix::fs::symlinkat(target, &self.dir, &self.name)?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(
            &self.dir,
            &self.name,
            Some(uid),
            Some(gid),
            nofollow,
        )?)
    }

    /// Makes a hard link to another entry, which may be a symlink, and is not followed then.
    ///
    /// # Errors
    /// The system's.
    pub fn link_to(&self, other: &Self) -> io::Result<()> {
        let none = AtFlags::empty();
        Ok(rustix::fs::linkat(
            &other.dir,
            &other.name,
            &self.dir,
            &self.name,
            none,
        )?)
    }

    /// Both are the same entry of the same folder.
    ///
    /// # Errors
    /// The system's.
    pub fn is(&self, other: &Self) -> io::Result<bool> {
        let (a, b) = (
            rustix::fs::fstat(&self.dir)?,
            rustix::fs::fstat(&other.dir)?,
        );
        Ok(self.name == other.name && (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }

    /// Removes it, with all below it. It is no error where nothing is there.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self) -> io::Result<()> {
        let flags = match self.kind()? {
            None => return Ok(()),
            Some(rustix::fs::FileType::Directory) => {
                // The way to it leads through a descriptor that is held; below it, symlinks are not
                // followed.
                let dir = format!("/proc/self/fd/{}", self.dir.as_fd().as_raw_fd());
                return fs::remove_dir_all(Path::new(&dir).join(&self.name));
            }
            Some(_) => AtFlags::empty(),
        };
        Ok(rustix::fs::unlinkat(&self.dir, &self.name, flags)?)
    }
}

impl Owner {
    /// Gives them to an open file or folder: the owner first, which takes setuid bits away.
    ///
    /// # Errors
    /// The system's.
    pub fn give(self, file: &File) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
        let mode = Mode::from_raw_mode((self.mode & 0o7777) as RawMode);
        Ok(rustix::fs::fchmod(file, mode)?)
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

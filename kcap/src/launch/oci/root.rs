//! What layers put below a root: entries are made and removed in the folder that the kernel found for
//! them inside it ([`Root`]).

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RawMode, Uid};

pub use crate::image::root::{Root, clean};

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

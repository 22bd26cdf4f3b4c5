//! A layer of an image onto a root file system.
//!
//! Layers are strangers' archives. Paths are resolved inside the root ([`Root`]), `..` is refused,
//! and members are bounded; bytes are, by who gives the archive. Device nodes and pipes are left
//! out: an executor gets its devices from the runtime.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Timespec, Timestamps, XattrFlags};
use tar::{Archive, Entry, EntryType};

use super::root::{Owner, Root, clean};
use crate::image::tarball::{Member, members, shown};

/// What a name starts with that takes away what a lower layer has.
const WHITEOUT: &[u8] = b".wh.";
/// Names of a union file system of old for its own use; one of them is [`OPAQUE`].
const RESERVED: &[u8] = b".wh..wh.";
/// Its folder shows nothing of lower layers.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks an archive over what is there.
///
/// # Errors
/// Where the archive is damaged or hostile; the system's.
pub fn apply(root: &Root, archive: impl Read) -> Result<()> {
    let mut layer = Layer {
        root,
        unpacked: HashSet::new(),
        folders: Vec::new(),
    };
    let mut archive = Archive::new(archive);
    let entries = archive.entries().context("the archive is damaged")?;
    members(entries, &mut |member, content| {
        layer.member(member, content).with_context(|| {
            format!(
                "cannot unpack {}",
                shown(member.path.as_os_str().as_bytes())
            )
        })
    })?;
    // Last, as what is put into a folder changes its time.
    for (folder, mtime) in layer.folders {
        if let Some(folder) = root.place(&folder)?.open_folder()? {
            set_mtime(&folder, mtime).context("cannot set a folder's time")?;
        }
    }
    Ok(())
}

struct Layer<'a> {
    root: &'a Root,
    /// Paths of this layer and what is above them: an opaque folder keeps them.
    unpacked: HashSet<PathBuf>,
    folders: Vec<(PathBuf, i64)>,
}

impl Layer<'_> {
    fn member<R: Read>(&mut self, member: &Member, content: &mut Entry<'_, R>) -> Result<()> {
        let path = clean(&member.path)?;
        let Some(name) = path.file_name().map(|name| name.as_bytes()) else {
            // The root itself: the container's is kcap's to own.
            return Ok(());
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            return self.empty(parent);
        }
        if name.starts_with(RESERVED) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            ensure!(!matches!(hidden, b"" | b"." | b".."), "it hides nothing");
            let hidden = parent.join(std::ffi::OsStr::from_bytes(hidden));
            return Ok(self.root.place(&hidden)?.remove()?);
        }
        let place = self.root.place(&path)?;
        let owner = Owner {
            uid: member.uid,
            gid: member.gid,
            mode: member.mode,
        };
        match member.kind {
            EntryType::Directory => {
                let folder = place.folder()?;
                owner.give(&folder)?;
                set_xattrs(&folder, member)?;
                self.folders.push((path.clone(), member.mtime));
            }
            EntryType::Regular | EntryType::Continuous => {
                place.remove()?;
                let mut file = place.file()?;
                let copied = io::copy(content, &mut file)?;
                ensure!(copied == member.size, "the archive ends within it");
                owner.give(&file)?;
                set_xattrs(&file, member)?;
                set_mtime(&file, member.mtime)?;
            }
            EntryType::Symlink => {
                place.remove()?;
                place.symlink(member.link.as_os_str(), member.uid, member.gid)?;
            }
            EntryType::Link => {
                let target = self.root.place(&clean(&member.link)?)?;
                if !target.is(&place)? {
                    ensure!(target.exists()?, "it is a link to what is not there");
                    place.remove()?;
                    place.link_to(&target)?;
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => return Ok(()),
            other => bail!(
                "it is of a kind that layers have not: {:?}",
                other.as_byte()
            ),
        }
        self.keep(&path);
        Ok(())
    }

    /// Removes from a folder what lower layers put there.
    fn empty(&mut self, folder: &Path) -> Result<()> {
        for name in self.root.children(folder)? {
            let path = folder.join(name);
            if self.unpacked.contains(&path) {
                self.empty(&path)?;
            } else {
                self.root.place(&path)?.remove()?;
            }
        }
        Ok(())
    }

    /// Notes that this layer has the path, and so all that is above it.
    fn keep(&mut self, path: &Path) {
        for path in path.ancestors() {
            if !self.unpacked.insert(path.to_owned()) {
                break;
            }
        }
    }
}

fn set_mtime(file: &File, mtime: i64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::futimens(file, &times)?)
}

/// Attributes that the file system has no room for are left out, as docker does.
fn set_xattrs(file: &File, member: &Member) -> io::Result<()> {
    for (name, value) in &member.xattrs {
        match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! One layer of an image: its members, as changes to what is below it. Contents are hashed as they
//! pass, and never kept.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};

use super::{
    noise,
    tree::{Change, HELD, Kind, Node, OVERHEAD, PATH},
    values::{ByteString, Digest, Mode, Pair},
};
use crate::image::tarball::{Member, members, shown};

/// What a name starts with that takes away what a lower layer has.
const WHITEOUT: &[u8] = b".wh.";
/// Names of a union file system of old for its own use; one of them is [`OPAQUE`].
const RESERVED: &[u8] = b".wh..wh.";
/// Its folder shows nothing of lower layers.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Bytes that are hashed at once.
const CHUNK: usize = 1 << 16;
/// Most bytes of a file that is kept while a rule of noise reduces it.
const REDUCED: u64 = 1 << 20;

/// The members of a layer, in order.
#[derive(Debug)]
pub struct Layer {
    /// The members.
    pub changes: Vec<Change>,
    /// Bytes of memory that they take, about.
    pub held: u64,
}

/// What is left of the memory and the unpacked bytes that an image may have.
#[derive(Debug)]
pub struct Budget {
    held: AtomicU64,
    unpacked: AtomicU64,
}

/// Most bytes that an image may have unpacked.
const UNPACKED: u64 = 256 << 30;

impl Default for Budget {
    fn default() -> Self {
        Self {
            held: HELD.into(),
            unpacked: UNPACKED.into(),
        }
    }
}

impl Budget {
    /// Takes memory for entries.
    ///
    /// # Errors
    /// Where none is left.
    pub fn hold(&self, bytes: u64) -> Result<()> {
        ensure!(
            take(&self.held, bytes),
            "the image has too many entries: {HELD} bytes of memory do not hold them"
        );
        Ok(())
    }
}

fn take(left: &AtomicU64, bytes: u64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(bytes)
    })
    .is_ok()
}

/// Reads a layer, unpacked already, and its digest.
///
/// # Errors
/// Where it is damaged, hostile or out of bounds.
pub fn read(archive: impl Read, budget: &Budget) -> Result<(Layer, Digest)> {
    let mut archive = Hashing {
        inner: archive,
        hash: Sha256::new(),
        budget,
    };
    let mut reader = Reader {
        layer: Layer {
            changes: Vec::new(),
            held: 0,
        },
        buffer: vec![0; CHUNK],
        last: None,
    };
    let mut tar = Archive::new(&mut archive);
    let entries = tar.entries().context("the archive is damaged")?;
    members(entries, &mut |member, content| {
        let held = reader.layer.held;
        reader.member(member, content).with_context(|| {
            format!("cannot read {}", shown(member.path.as_os_str().as_bytes()))
        })?;
        budget.hold(reader.layer.held - held)
    })?;
    // What is behind the archive's end is part of the digest.
    loop {
        match archive.read(&mut reader.buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("the archive is damaged"),
        }
    }
    reader.layer.changes.shrink_to_fit();
    Ok((reader.layer, Digest(archive.hash.finalize().into())))
}

struct Reader {
    layer: Layer,
    buffer: Vec<u8>,
    /// The attributes of the last member that had some, which many have alike.
    last: Option<BTreeMap<ByteString, ByteString>>,
}

impl Reader {
    fn member<R: Read>(&mut self, member: &Member, content: &mut Entry<'_, R>) -> Result<()> {
        let written = member.path.as_os_str().as_bytes();
        let path = clean(written)?;
        let (folder, name) = super::tree::split(&path);
        if name == OPAQUE {
            return self.note(Change::Opaque(folder.into()));
        }
        if name.starts_with(RESERVED) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            ensure!(!matches!(hidden, b"" | b"." | b".."), "it hides nothing");
            let hidden = super::tree::joined(folder, hidden);
            return self.note(Change::Whiteout(hidden.into()));
        }
        let regular = matches!(member.kind, EntryType::Regular | EntryType::Continuous)
            && !written.ends_with(b"/");
        // Readers do not agree on whether bytes follow then.
        ensure!(
            regular || member.size == 0,
            "it has content, which only a file can have"
        );
        let kind = match member.kind {
            _ if regular => self.file(&path, member.size, content)?,
            EntryType::Directory | EntryType::Regular | EntryType::Continuous => Kind::Folder,
            EntryType::Symlink => Kind::Symlink {
                target: target(member)?.into(),
            },
            EntryType::Link => {
                let target = clean(target(member)?)?;
                return self.note(Change::Link(path.into(), target.into()));
            }
            EntryType::Char => Kind::Character {
                device: Pair(member.device.0, member.device.1),
            },
            EntryType::Block => Kind::Block {
                device: Pair(member.device.0, member.device.1),
            },
            EntryType::Fifo => Kind::Pipe,
            other => bail!(
                "it is of a kind that layers have not: {:?}",
                char::from(other.as_byte())
            ),
        };
        let mode = match kind {
            Kind::Symlink { .. } => 0o777,
            // It is masked already.
            _ => member.mode as u16,
        };
        let node = Node {
            kind,
            mode: Mode(mode),
            owner: Pair(member.uid, member.gid),
            xattrs: self.xattrs(member),
        };
        self.note(Change::Put(path.into(), Arc::new(node)))
    }

    fn note(&mut self, change: Change) -> Result<()> {
        let bytes = match &change {
            Change::Whiteout(path) | Change::Opaque(path) => path.len(),
            Change::Link(path, target) => path.len() + target.len(),
            Change::Put(path, node) => {
                let target = match &node.kind {
                    Kind::Symlink { target } => target.len(),
                    _ => 0,
                };
                let xattrs = node.xattrs.iter();
                let xattrs: usize = xattrs.map(|(k, v)| k.len() + v.len() + 64).sum();
                path.len() + target + xattrs
            }
        };
        self.layer.held += bytes as u64 + OVERHEAD;
        self.layer.changes.push(change);
        Ok(())
    }

    fn xattrs(&mut self, member: &Member) -> BTreeMap<ByteString, ByteString> {
        if member.xattrs.is_empty() {
            return BTreeMap::new();
        }
        let mut xattrs = BTreeMap::new();
        for (name, value) in &member.xattrs {
            xattrs.insert(name.as_slice().into(), value.as_slice().into());
        }
        match &self.last {
            // Clones share their memory.
            Some(last) if *last == xattrs => last.clone(),
            _ => self.last.insert(xattrs).clone(),
        }
    }

    fn file<R: Read>(
        &mut self,
        path: &[u8],
        size: u64,
        content: &mut Entry<'_, R>,
    ) -> Result<Kind> {
        let reduce = noise::reduce(path).filter(|_| size <= REDUCED);
        let mut kept = Vec::new();
        let mut hash = Sha256::new();
        let mut left = size;
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => {
                    let chunk = &self.buffer[..read];
                    hash.update(chunk);
                    left = left.saturating_sub(read as u64);
                    if reduce.is_some() {
                        kept.extend_from_slice(chunk);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("the archive is damaged"),
            }
        }
        ensure!(left == 0, "the archive ends within it");
        let reduced = reduce.map(|rule| {
            let reduced = (rule.without)(&kept);
            Box::new(Digest(Sha256::digest(reduced).into()))
        });
        Ok(Kind::File {
            size,
            sha256: Digest(hash.finalize().into()),
            reduced,
        })
    }
}

fn target(member: &Member) -> Result<&[u8]> {
    let target = member.link.as_os_str().as_bytes();
    ensure!(
        !target.is_empty() && target.len() <= PATH && !target.contains(&0),
        "it is a link to no path"
    );
    Ok(target)
}

/// A path from the root, without a slash at either end.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    ensure!(path.len() <= PATH, "its path is longer than {PATH} bytes");
    let mut clean = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => bail!("its path contains `..`"),
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(name);
    }
    Ok(clean)
}

/// Hashes what is read through it, which can be no more than is left.
struct Hashing<'a, R> {
    inner: R,
    hash: Sha256,
    budget: &'a Budget,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if !take(&self.budget.unpacked, read as u64) {
            let why = format!("the image unpacks to more than {UNPACKED} bytes");
            return Err(io::Error::other(why));
        }
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;

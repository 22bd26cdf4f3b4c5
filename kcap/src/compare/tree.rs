//! Layers applied to one another: the files that a container of the image would find.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{ByteString, Digest, Mode, Pair};
use crate::image::tarball::shown;

/// Symbolic links followed on the way to one entry, at most; as in the kernel.
const LINKS: usize = 40;
/// Most bytes of a path, as in the kernel.
pub const PATH: usize = 4096;
/// Most bytes that the entries of an image may take in memory.
pub const HELD: u64 = 384 << 20;
/// Bytes that an entry takes beside those of its path.
pub const OVERHEAD: u64 = 160;
/// What a folder is that no layer speaks of, but of something in it.
const UNSAID: Mode = Mode(0o755);

/// What kind of entry it is, and what goes with that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Bytes of its content.
        size: u64,
        /// Digest of its content.
        sha256: Digest,
        /// Digest of its content without what a rule of noise is about, where one has a way to
        /// leave it out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reduced: Option<Box<Digest>>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: ByteString,
    },
    /// A character device.
    Character {
        /// Its major and minor number.
        device: Pair,
    },
    /// A block device.
    Block {
        /// Its major and minor number.
        device: Pair,
    },
    /// A named pipe.
    Pipe,
}

impl Kind {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::File { .. } => "file",
            Self::Symlink { .. } => "symlink",
            Self::Character { .. } => "character device",
            Self::Block { .. } => "block device",
            Self::Pipe => "pipe",
        }
    }
}

/// What all names of an entry share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// Its kind.
    #[serde(flatten)]
    pub kind: Kind,
    /// Permissions. Those of a symlink are 0777 and mean nothing.
    pub mode: Mode,
    /// User and group id.
    pub owner: Pair,
    /// Extended attributes: values by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<ByteString, ByteString>,
}

impl Node {
    fn folder() -> Self {
        Self {
            kind: Kind::Folder,
            mode: UNSAID,
            owner: Pair(0, 0),
            xattrs: BTreeMap::new(),
        }
    }

    fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    /// The same but for the content of a file.
    pub fn same_metadata(&self, other: &Self) -> bool {
        let kind = match (&self.kind, &other.kind) {
            (Kind::File { .. }, Kind::File { .. }) => true,
            (one, other) => one == other,
        };
        kind && (self.mode, self.owner, &self.xattrs) == (other.mode, other.owner, &other.xattrs)
    }
}

/// One member of a layer.
#[derive(Clone, Debug)]
pub enum Change {
    /// What lower layers have there is gone.
    Whiteout(ByteString),
    /// What lower layers have in this folder is gone.
    Opaque(ByteString),
    /// A new entry, or a folder's new attributes.
    Put(ByteString, Arc<Node>),
    /// Another name of an entry: the name, and one that it has.
    Link(ByteString, ByteString),
}

/// An entry of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path from the root, without a slash at either end; empty for the root itself.
    pub path: ByteString,
    /// What it is.
    #[serde(flatten)]
    pub node: Arc<Node>,
    /// Entries with the same number are names of one file (hard links); 0 has no other name.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The entries of an image, sorted by path. The root is the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
}

impl Tree {
    /// Applies layers, lowest first.
    ///
    /// # Errors
    /// Where an entry links to nothing, or its path leads in circles or through a file.
    pub fn flatten<'a>(layers: impl IntoIterator<Item = &'a [Change]>) -> Result<Self> {
        let mut flat = Flat::default();
        for layer in layers {
            flat.apply(layer)?;
        }
        Ok(flat.finish())
    }

    /// From entries that are sorted already.
    ///
    /// # Errors
    /// Where they are not, or one is twice.
    pub(super) fn sorted(entries: Vec<Entry>) -> Result<Self> {
        ensure!(
            entries.is_sorted_by(|a, b| a.path < b.path),
            "its entries are not sorted"
        );
        Ok(Self { entries })
    }

    /// All entries, by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at a path without slashes at its ends.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        let found = self
            .entries
            .binary_search_by(|entry| entry.path.as_bytes().cmp(path));
        found.ok().map(|index| &self.entries[index])
    }
}

/// A tree as it grows.
struct Flat {
    root: Arc<Node>,
    /// Number of the entry, by path: names of one file have the same.
    paths: BTreeMap<ByteString, u32>,
    nodes: Vec<Arc<Node>>,
    /// A folder as the last member wrote it, and where it is. Members come folder by folder.
    last: Option<(Vec<u8>, Vec<u8>)>,
    /// Bytes that its entries took, those that are gone included.
    held: u64,
}

impl Default for Flat {
    fn default() -> Self {
        Self {
            root: Arc::new(Node::folder()),
            paths: BTreeMap::new(),
            nodes: Vec::new(),
            last: None,
            held: 0,
        }
    }
}

impl Flat {
    fn apply(&mut self, layer: &[Change]) -> Result<()> {
        // They are about lower layers, wherever in the layer they stand.
        for change in layer {
            match change {
                Change::Whiteout(path) => {
                    let path = self.resolve(path)?;
                    self.remove(&path);
                }
                Change::Opaque(path) => {
                    let path = self.resolve(path)?;
                    self.remove_below(&path);
                }
                Change::Put(..) | Change::Link(..) => {}
            }
        }
        for change in layer {
            match change {
                Change::Put(path, node) => self
                    .put(path, node)
                    .with_context(|| format!("cannot apply {}", shown(path)))?,
                Change::Link(path, target) => self
                    .link(path, target)
                    .with_context(|| format!("cannot apply {}", shown(path)))?,
                Change::Whiteout(_) | Change::Opaque(_) => {}
            }
        }
        Ok(())
    }

    fn finish(self) -> Tree {
        let mut names = vec![0u32; self.nodes.len()];
        for &number in self.paths.values() {
            names[number as usize] += 1;
        }
        let mut groups = vec![0u32; self.nodes.len()];
        let mut count = 0;
        let mut entries = Vec::with_capacity(self.paths.len() + 1);
        entries.push(Entry {
            path: b""[..].into(),
            node: self.root,
            links: 0,
        });
        for (path, number) in self.paths {
            let number = number as usize;
            if names[number] > 1 && groups[number] == 0 {
                count += 1;
                groups[number] = count;
            }
            entries.push(Entry {
                path,
                node: Arc::clone(&self.nodes[number]),
                links: groups[number],
            });
        }
        Tree { entries }
    }

    fn get(&self, path: &[u8]) -> Option<&Arc<Node>> {
        if path.is_empty() {
            return Some(&self.root);
        }
        let number = *self.paths.get(path)?;
        Some(&self.nodes[number as usize])
    }

    fn insert(&mut self, path: ByteString, node: &Arc<Node>) -> Result<()> {
        // Folders that no layer speaks of are many where paths are deep.
        self.held += path.len() as u64 + OVERHEAD;
        ensure!(self.held <= HELD, "the image has too many entries");
        let number = u32::try_from(self.nodes.len())?;
        self.nodes.push(Arc::clone(node));
        self.paths.insert(path, number);
        Ok(())
    }

    fn put(&mut self, path: &ByteString, node: &Arc<Node>) -> Result<()> {
        if path.is_empty() {
            ensure!(node.is_folder(), "the root is no folder in it");
            self.root = Arc::clone(node);
            return Ok(());
        }
        let place = self.place(path)?;
        match self.get(&place) {
            Some(old) if old.is_folder() && node.is_folder() => {}
            Some(_) => self.remove(&place),
            None => {}
        }
        if matches!(node.kind, Kind::Symlink { .. }) {
            self.last = None;
        }
        // The layer's own memory, where the path leads to itself.
        let place = if place == path[..] {
            path.clone()
        } else {
            place.into()
        };
        self.insert(place, node)
    }

    fn link(&mut self, path: &ByteString, target: &[u8]) -> Result<()> {
        let target = self.resolve(target)?;
        let Some(&number) = self.paths.get(target.as_slice()) else {
            bail!("it is a link to {}, which is not there", shown(&target));
        };
        ensure!(
            !self.nodes[number as usize].is_folder(),
            "it is a hard link to a folder"
        );
        ensure!(!path.is_empty(), "the root is no folder in it");
        let place = self.place(path)?;
        if self.paths.get(place.as_slice()) != Some(&number) {
            self.remove(&place);
            self.last = None;
            self.paths.insert(place.into(), number);
        }
        Ok(())
    }

    /// Where an entry goes, its folders made where they are missing.
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (folder, name) = split(path);
        if let Some((written, place)) = &self.last
            && written == folder
        {
            return Ok(joined(place, name));
        }
        let place = self.resolve(path)?;
        ensure!(place.len() <= PATH, "its path is longer than {PATH} bytes");
        let mut missing = None;
        for (at, _) in place.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let above = &place[..at];
            match self.get(above) {
                Some(node) if node.is_folder() => {}
                Some(_) => bail!("{} is no folder", shown(above)),
                None => {
                    let node = missing.get_or_insert_with(|| Arc::new(Node::folder()));
                    let node = Arc::clone(node);
                    self.insert(above.into(), &node)?;
                }
            }
        }
        let (above, _) = split(&place);
        self.last = Some((folder.to_owned(), above.to_owned()));
        Ok(place)
    }

    /// The path without symbolic links in its folders. The last component is not followed.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut done: Vec<u8> = Vec::with_capacity(path.len());
        let mut ahead: Vec<&[u8]> = components(path).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                // As in the kernel: only a folder has one above it.
                ensure!(
                    self.get(&done).is_some_and(|node| node.is_folder()),
                    "{} leads through {}, which is no folder",
                    shown(path),
                    shown(&done)
                );
                done.truncate(done.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let parent = done.len();
            if parent > 0 {
                done.push(b'/');
            }
            done.extend_from_slice(name);
            if ahead.is_empty() {
                break;
            }
            let Some(&number) = self.paths.get(done.as_slice()) else {
                continue;
            };
            if let Kind::Symlink { target } = &self.nodes[number as usize].kind {
                links += 1;
                ensure!(links <= LINKS, "{} leads in circles", shown(path));
                done.truncate(if target.starts_with(b"/") { 0 } else { parent });
                ahead.extend(components(target));
            }
        }
        Ok(done)
    }

    fn remove(&mut self, path: &[u8]) {
        let Some(number) = self.paths.remove(path) else {
            return;
        };
        match self.nodes[number as usize].kind {
            Kind::Folder => self.remove_below(path),
            Kind::Symlink { .. } => self.last = None,
            _ => {}
        }
    }

    fn remove_below(&mut self, folder: &[u8]) {
        self.last = None;
        if folder.is_empty() {
            self.paths.clear();
            return;
        }
        let from = joined(folder, b"");
        // Up to the byte after the slash: all that starts with the folder and a slash.
        let mut to = from.clone();
        to.pop();
        to.push(b'/' + 1);
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let below: Vec<ByteString> = self
            .paths
            .range::<[u8], _>(range)
            .map(|(path, _)| path.clone())
            .collect();
        for path in below {
            self.paths.remove(&path);
        }
    }
}

/// The components of a path, the last one first.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.rsplit(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// A path's folder and name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// A path from its folder and name.
pub(super) fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        name.to_owned()
    } else {
        [folder, b"/", name].concat()
    }
}

#[cfg(test)]
mod tests;

//! Layers applied to one another, as an engine does when it lays out a container's root.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

/// A path inside an image, relative to its root, without a leading or trailing slash.
pub type Path = Vec<u8>;

/// Symbolic links followed on the way to one file, at most; as in the kernel.
const LINKS: usize = 40;

/// What kind of file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// A regular file, by the SHA-256 digest of its content.
    File([u8; 32]),
    /// A symbolic link, by its target.
    Symlink(Vec<u8>),
    /// A device, by its numbers.
    Character(u32, u32),
    /// A device, by its numbers.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// What names of one file share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its kind, and what goes with that.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One entry of a layer.
#[derive(Clone, Debug)]
pub enum Change {
    /// The file of that name in lower layers is gone.
    Whiteout(Path),
    /// Nothing in this folder is left from lower layers.
    Opaque(Path),
    /// A new file, or a folder's new attributes.
    Put(Path, Node),
    /// Another name of a file.
    Link(Path, Path),
}

/// Files by path.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
    paths: BTreeMap<Path, usize>,
}

impl Tree {
    /// Applies a layer.
    ///
    /// # Errors
    /// Where an entry links to nothing, or its path leads in circles or through a file.
    pub fn apply(&mut self, layer: &[Change]) -> Result<()> {
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
                Change::Put(path, node) => self.put(path, node)?,
                Change::Link(path, target) => self.link(path, target)?,
                Change::Whiteout(_) | Change::Opaque(_) => {}
            }
        }
        Ok(())
    }

    /// All paths with their files, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.paths.iter().map(|(path, &id)| (path, &self.nodes[id]))
    }

    /// The file at a path.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        self.paths.get(path).map(|&id| &self.nodes[id])
    }

    /// Of each file that has several names, the names.
    pub fn groups(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut by_node: BTreeMap<usize, BTreeSet<&Path>> = BTreeMap::new();
        for (path, &id) in &self.paths {
            by_node.entry(id).or_default().insert(path);
        }
        let mut groups = BTreeMap::new();
        for names in by_node.values().filter(|names| names.len() > 1) {
            for name in names {
                groups.insert(*name, names.clone());
            }
        }
        groups
    }

    fn put(&mut self, path: &[u8], node: &Node) -> Result<()> {
        if path.is_empty() {
            // The root itself: not an entry of any folder, and made by the engine.
            return Ok(());
        }
        let path = self.place(path)?;
        let is_directory = |node: &Node| node.kind == Kind::Directory;
        if !(is_directory(node) && self.get(&path).is_some_and(is_directory)) {
            self.remove(&path);
        }
        self.nodes.push(node.clone());
        self.paths.insert(path, self.nodes.len() - 1);
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let target = self.resolve(target)?;
        let Some(&id) = self.paths.get(&target) else {
            bail!("{} is a link to nothing", path.escape_ascii());
        };
        let path = self.place(path)?;
        if path != target {
            self.remove(&path);
            self.paths.insert(path, id);
        }
        Ok(())
    }

    /// Where an entry goes, its folders made where they are missing.
    fn place(&mut self, path: &[u8]) -> Result<Path> {
        let path = self.resolve(path)?;
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let folder = &path[..at];
            match self.get(folder).map(|node| &node.kind) {
                Some(Kind::Directory) => {}
                Some(_) => bail!("{} is no folder", folder.escape_ascii()),
                None => {
                    self.nodes.push(Node {
                        kind: Kind::Directory,
                        mode: 0o755,
                        uid: 0,
                        gid: 0,
                        xattrs: BTreeMap::new(),
                    });
                    self.paths.insert(folder.to_owned(), self.nodes.len() - 1);
                }
            }
        }
        Ok(path)
    }

    /// The path without symbolic links in its folders. The last component is not followed.
    fn resolve(&self, path: &[u8]) -> Result<Path> {
        let mut done: Path = Vec::new();
        let mut ahead: Vec<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                done.truncate(done.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let parent = done.len();
            if parent > 0 {
                done.push(b'/');
            }
            done.extend_from_slice(&name);
            if ahead.is_empty() {
                break;
            }
            if let Some(Kind::Symlink(target)) = self.get(&done).map(|node| &node.kind) {
                links += 1;
                if links > LINKS {
                    bail!("{} leads in circles", path.escape_ascii());
                }
                done.truncate(if target.starts_with(b"/") { 0 } else { parent });
                ahead.extend(components(target));
            }
        }
        Ok(done)
    }

    fn remove(&mut self, path: &[u8]) {
        self.paths.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, folder: &[u8]) {
        let mut first = folder.to_owned();
        first.push(b'/');
        let below: Vec<Path> = self
            .paths
            .range(first.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&first))
            .cloned()
            .collect();
        for path in below {
            self.paths.remove(&path);
        }
    }
}

/// The components of a path, last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .rev()
        .map(<[u8]>::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: Kind) -> Node {
        Node {
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            xattrs: BTreeMap::new(),
        }
    }

    fn put(path: &str, kind: Kind) -> Change {
        Change::Put(path.into(), node(kind))
    }

    fn file(path: &str) -> Change {
        put(path, Kind::File([path.len() as u8; 32]))
    }

    fn paths(layers: &[&[Change]]) -> Vec<String> {
        let mut tree = Tree::default();
        for layer in layers {
            tree.apply(layer).unwrap();
        }
        tree.iter()
            .map(|(path, _)| String::from_utf8(path.clone()).unwrap())
            .collect()
    }

    #[test]
    fn whiteouts_are_about_lower_layers_only() {
        let lower = [file("a/x"), file("a/y"), file("ab")];
        let upper = [file("a/x"), Change::Whiteout(b"a".to_vec())];
        assert_eq!(paths(&[&lower, &upper]), ["a", "a/x", "ab"]);
        let opaque = [Change::Opaque(b"a".to_vec()), file("a/z")];
        assert_eq!(paths(&[&lower, &opaque]), ["a", "a/z", "ab"]);
    }

    #[test]
    fn a_folder_keeps_its_files_unless_something_else_takes_its_place() {
        let lower = [file("a/x")];
        assert_eq!(paths(&[&lower, &[put("a", Kind::Directory)]]), ["a", "a/x"]);
        assert_eq!(paths(&[&lower, &[file("a")]]), ["a"]);
        let mut tree = Tree::default();
        tree.apply(&lower).unwrap();
        assert!(tree.apply(&[file("a/x/y")]).is_err());
    }

    #[test]
    fn folders_that_are_links_are_followed_within_the_image() {
        let lower = [
            put("usr/bin", Kind::Directory),
            put("bin", Kind::Symlink(b"../../usr/bin".to_vec())),
            put("sbin", Kind::Symlink(b"/bin".to_vec())),
        ];
        assert_eq!(
            paths(&[
                &lower,
                &[file("sbin/x"), Change::Link(b"y".into(), b"bin/x".into())]
            ]),
            ["bin", "sbin", "usr", "usr/bin", "usr/bin/x", "y"]
        );
        let mut tree = Tree::default();
        tree.apply(&[put("o", Kind::Symlink(b"o".to_vec()))])
            .unwrap();
        assert!(tree.apply(&[file("o/x")]).is_err());
    }

    #[test]
    fn names_of_one_file_are_a_group_until_one_is_replaced() {
        let layer = [
            file("a"),
            Change::Link(b"b".to_vec(), b"a".to_vec()),
            Change::Link(b"c".to_vec(), b"b".to_vec()),
        ];
        let mut tree = Tree::default();
        tree.apply(&layer).unwrap();
        assert_eq!(tree.groups()[&b"a".to_vec()].len(), 3);
        tree.apply(&[file("b")]).unwrap();
        let groups = tree.groups();
        assert_eq!(groups[&b"c".to_vec()].len(), 2);
        assert!(!groups.contains_key(&b"b".to_vec()));
        let broken = [Change::Link(b"d".to_vec(), b"nothing".to_vec())];
        assert!(tree.apply(&broken).is_err());
    }
}

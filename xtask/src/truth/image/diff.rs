//! How two images differ.

use std::collections::BTreeSet;
use std::fmt;

use super::Image;
use super::tree::{Kind, Node};

/// One way in which a file, or the configuration, is not the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Only the first image has it.
    Missing,
    /// Only the second image has it.
    Added,
    /// A regular file has other bytes.
    Content,
    /// Something else that the text says.
    Other(String),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Added => f.write_str("added"),
            Self::Content => f.write_str("content"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What differs between two images at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// A path with a leading slash, or `config NAME`; printable.
    pub place: String,
    /// All that is not the same there.
    pub how: Vec<How>,
}

/// Bytes as printable text.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// What differs between `old` and `new`, by place.
pub fn diff(old: &Image, new: &Image) -> Vec<Difference> {
    let mut found = Vec::new();
    let names: BTreeSet<&String> = old.config.keys().chain(new.config.keys()).collect();
    for name in names {
        let value = |image: &Image| image.config.get(name).map(ToString::to_string);
        let (was, is) = (value(old), value(new));
        if was != is {
            let text = |value: Option<String>| value.unwrap_or_else(|| "nothing".into());
            found.push(Difference {
                place: format!("config {}", shown(name.as_bytes())),
                how: vec![How::Other(format!("{} → {}", text(was), text(is)))],
            });
        }
    }
    let (groups, new_groups) = (old.tree.groups(), new.tree.groups());
    for (path, node) in old.tree.iter() {
        let mut how = match new.tree.get(path) {
            Some(other) => nodes(node, other),
            None => vec![How::Missing],
        };
        if how != [How::Missing] && groups.get(path) != new_groups.get(path) {
            how.push(How::Other("hard links".into()));
        }
        if !how.is_empty() {
            found.push(Difference {
                place: format!("/{}", shown(path)),
                how,
            });
        }
    }
    for (path, _) in new.tree.iter() {
        if old.tree.get(path).is_none() {
            found.push(Difference {
                place: format!("/{}", shown(path)),
                how: vec![How::Added],
            });
        }
    }
    found.sort();
    found
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory => "folder",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "link",
        Kind::Character(..) => "character device",
        Kind::Block(..) => "block device",
        Kind::Fifo => "pipe",
    }
}

fn nodes(old: &Node, new: &Node) -> Vec<How> {
    let mut how = Vec::new();
    let mut note = |text: String| how.push(How::Other(text));
    if old.mode != new.mode {
        note(format!("mode {:04o} → {:04o}", old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        note(format!(
            "owner {}:{} → {}:{}",
            old.uid, old.gid, new.uid, new.gid
        ));
    }
    let names: BTreeSet<&Vec<u8>> = old.xattrs.keys().chain(new.xattrs.keys()).collect();
    for name in names {
        let change = match (old.xattrs.get(name), new.xattrs.get(name)) {
            (Some(was), Some(is)) if was == is => continue,
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "missing",
            (None, _) => "added",
        };
        note(format!("xattr {} {change}", shown(name)));
    }
    match (&old.kind, &new.kind) {
        (was, is) if was == is => {}
        (Kind::File(_), Kind::File(_)) => how.push(How::Content),
        (Kind::Symlink(was), Kind::Symlink(is)) => {
            how.push(How::Other(format!("target {} → {}", shown(was), shown(is))));
        }
        (was, is) if kind(was) == kind(is) => how.push(How::Other("device numbers".into())),
        (was, is) => how.push(How::Other(format!("{} → {}", kind(was), kind(is)))),
    }
    how
}

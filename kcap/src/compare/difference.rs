//! How two images differ, place by place.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Image, Step,
    noise::Rule,
    tree::{Entry, Kind, Node},
    values::{ByteString, Digest, Mode, Pair},
};

/// Most names of a hard link in a difference.
const KEPT: usize = 16;

/// One way in which two images differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// How.
    #[serde(flatten)]
    pub what: What,
}

/// Where images differ. What concerns the whole image comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A value of the configuration, by its name.
    Config(String),
    /// A step of the history, from 0.
    History(u32),
    /// An entry, by its path, which starts with a slash.
    Path(ByteString),
}

/// How images differ at a place: `from` is the first image's, `to` the second's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// Only the first image has the entry.
    Missing {
        /// The entry.
        entry: Arc<Node>,
    },
    /// Only the second image has the entry.
    Added {
        /// The entry.
        entry: Arc<Node>,
    },
    /// It is of another kind. What goes with a kind is not compared then.
    Type {
        /// Its kind.
        from: Kind,
        /// Its kind.
        to: Kind,
    },
    /// Its permissions.
    Mode {
        /// Its permissions.
        from: Mode,
        /// Its permissions.
        to: Mode,
    },
    /// Its user or group id.
    Owner {
        /// User and group id.
        from: Pair,
        /// User and group id.
        to: Pair,
    },
    /// A symlink leads elsewhere.
    Link {
        /// Where it leads.
        from: ByteString,
        /// Where it leads.
        to: ByteString,
    },
    /// Other names share its inode, of those that both images have.
    HardLink {
        /// The first of the names that it had and has not.
        from: Vec<ByteString>,
        /// The first of the names that it has and had not.
        to: Vec<ByteString>,
    },
    /// The numbers of a device.
    Device {
        /// Major and minor number.
        from: Pair,
        /// Major and minor number.
        to: Pair,
    },
    /// An extended attribute.
    Xattr {
        /// Its name.
        name: ByteString,
        /// Its value.
        from: Option<ByteString>,
        /// Its value.
        to: Option<ByteString>,
    },
    /// The content of a regular file.
    Content {
        /// What it holds.
        from: Content,
        /// What it holds.
        to: Content,
        /// The rule of noise that it comes down to: without what that rule is about, the contents
        /// are the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<Rule>,
    },
    /// A value of the configuration.
    Config {
        /// The value, where there is one.
        from: Option<ConfigValue>,
        /// The value, where there is one.
        to: Option<ConfigValue>,
    },
    /// A step of the history.
    History {
        /// The step, where there is one.
        from: Option<Step>,
        /// The step, where there is one.
        to: Option<Step>,
    },
}

/// The content of a file.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct Content {
    /// Its digest.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A value of the configuration. Ordered by its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ConfigValue(pub Value);

impl PartialOrd for ConfigValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ConfigValue {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.to_string().cmp(&other.0.to_string())
    }
}

impl What {
    /// What kind of difference it is, as JSON calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Added { .. } => "added",
            Self::Type { .. } => "type",
            Self::Mode { .. } => "mode",
            Self::Owner { .. } => "owner",
            Self::Link { .. } => "link",
            Self::HardLink { .. } => "hard-link",
            Self::Device { .. } => "device",
            Self::Xattr { .. } => "xattr",
            Self::Content { .. } => "content",
            Self::Config { .. } => "config",
            Self::History { .. } => "history",
        }
    }
}

impl Difference {
    fn at(entry: &Entry, what: What) -> Self {
        Self {
            place: Place::Path([b"/", entry.path.as_bytes()].concat().into()),
            what,
        }
    }

    /// Whether nothing but the content of a file differs.
    pub fn is_content(&self) -> bool {
        matches!(self.what, What::Content { .. })
    }

    /// The path, with a slash before it, where it is about an entry.
    pub fn path(&self) -> Option<&ByteString> {
        match &self.place {
            Place::Path(path) => Some(path),
            _ => None,
        }
    }
}

/// All in which `b` differs from `a`, sorted by place. What goes into a layer and in which order,
/// times and compression are no differences.
pub fn differences(a: &Image, b: &Image) -> Vec<Difference> {
    let mut found = Vec::new();
    configs(a, b, &mut found);
    histories(&a.history, &b.history, &mut found);
    let mut both: Vec<(&Entry, &Entry)> = Vec::new();
    let (mut ours, mut theirs) = (a.tree.entries().iter(), b.tree.entries().iter());
    let (mut our, mut their) = (ours.next(), theirs.next());
    loop {
        let order = match (our, their) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(our), Some(their)) => our.path.cmp(&their.path),
        };
        match (order, our, their) {
            (Ordering::Less, Some(entry), _) => {
                let node = Arc::clone(&entry.node);
                found.push(Difference::at(entry, What::Missing { entry: node }));
                our = ours.next();
            }
            (Ordering::Greater, _, Some(entry)) => {
                let node = Arc::clone(&entry.node);
                found.push(Difference::at(entry, What::Added { entry: node }));
                their = theirs.next();
            }
            (_, Some(one), Some(other)) => {
                if !Arc::ptr_eq(&one.node, &other.node) {
                    nodes(one, other, &mut found);
                }
                if one.links != 0 || other.links != 0 {
                    both.push((one, other));
                }
                (our, their) = (ours.next(), theirs.next());
            }
            (_, None, _) | (_, _, None) => break,
        }
    }
    hard_links(&both, &mut found);
    found.sort();
    found
}

fn configs(a: &Image, b: &Image, found: &mut Vec<Difference>) {
    for (name, value) in &a.config {
        let other = b.config.get(name);
        if other != Some(value) {
            let (from, to) = (Some(ConfigValue(value.clone())), other.cloned());
            let to = to.map(ConfigValue);
            found.push(Difference {
                place: Place::Config(name.clone()),
                what: What::Config { from, to },
            });
        }
    }
    for (name, value) in &b.config {
        if !a.config.contains_key(name) {
            let to = Some(ConfigValue(value.clone()));
            found.push(Difference {
                place: Place::Config(name.clone()),
                what: What::Config { from: None, to },
            });
        }
    }
}

/// Steps between those that both have at the start and at the end.
fn histories(a: &[Step], b: &[Step], found: &mut Vec<Difference>) {
    let start = a.iter().zip(b).take_while(|(one, other)| one == other);
    let start = start.count();
    let (a, b) = (&a[start..], &b[start..]);
    let end = a.iter().rev().zip(b.iter().rev());
    let end = end.take_while(|(one, other)| one == other).count();
    let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    for n in 0..a.len().max(b.len()) {
        let (from, to) = (a.get(n).cloned(), b.get(n).cloned());
        if from != to {
            found.push(Difference {
                // Histories are bounded.
                place: Place::History((start + n) as u32),
                what: What::History { from, to },
            });
        }
    }
}

fn nodes(a: &Entry, b: &Entry, found: &mut Vec<Difference>) {
    let mut note = |what| found.push(Difference::at(a, what));
    let (from, to) = (&a.node, &b.node);
    let mut symlink = false;
    match (&from.kind, &to.kind) {
        (
            Kind::File {
                size,
                sha256,
                reduced,
            },
            Kind::File {
                size: to_size,
                sha256: to_sha256,
                reduced: to_reduced,
            },
        ) => {
            if sha256 != to_sha256 {
                let only =
                    Rule::reducing(&a.path).filter(|_| reduced.is_some() && reduced == to_reduced);
                note(What::Content {
                    from: Content {
                        sha256: *sha256,
                        size: *size,
                    },
                    to: Content {
                        sha256: *to_sha256,
                        size: *to_size,
                    },
                    only,
                });
            }
        }
        (Kind::Symlink { target: from }, Kind::Symlink { target: to }) => {
            if from != to {
                let (from, to) = (from.clone(), to.clone());
                note(What::Link { from, to });
            }
        }
        (Kind::Character { device: from }, Kind::Character { device: to })
        | (Kind::Block { device: from }, Kind::Block { device: to }) => {
            if from != to {
                let (from, to) = (*from, *to);
                note(What::Device { from, to });
            }
        }
        (Kind::Folder, Kind::Folder) | (Kind::Pipe, Kind::Pipe) => {}
        (from, to) => {
            symlink = [from, to]
                .iter()
                .any(|kind| matches!(kind, Kind::Symlink { .. }));
            let (from, to) = (from.clone(), to.clone());
            note(What::Type { from, to });
        }
    }
    if from.mode != to.mode && !symlink {
        let (from, to) = (from.mode, to.mode);
        note(What::Mode { from, to });
    }
    if from.owner != to.owner {
        let (from, to) = (from.owner, to.owner);
        note(What::Owner { from, to });
    }
    for (name, value) in &from.xattrs {
        let other = to.xattrs.get(name);
        if other != Some(value) {
            note(What::Xattr {
                name: name.clone(),
                from: Some(value.clone()),
                to: other.cloned(),
            });
        }
    }
    for (name, value) in &to.xattrs {
        if !from.xattrs.contains_key(name) {
            note(What::Xattr {
                name: name.clone(),
                from: None,
                to: Some(value.clone()),
            });
        }
    }
}

/// Names that share an inode in one image and not in the other, of those that both have: the others
/// are missing, which is said once.
fn hard_links(both: &[(&Entry, &Entry)], found: &mut Vec<Difference>) {
    // How many names each group has, and each pair of groups together.
    let mut sizes: [BTreeMap<u32, usize>; 2] = [BTreeMap::new(), BTreeMap::new()];
    let mut together: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for (one, other) in both {
        *sizes[0].entry(one.links).or_default() += 1;
        *sizes[1].entry(other.links).or_default() += 1;
        *together.entry((one.links, other.links)).or_default() += 1;
    }
    let size = |side: usize, group: u32| match group {
        0 => 1,
        group => sizes[side].get(&group).copied().unwrap_or(1),
    };
    let differ = |(ours, theirs): (u32, u32)| {
        let shared = match (ours, theirs) {
            (0, _) | (_, 0) => 1,
            pair => together.get(&pair).copied().unwrap_or(1),
        };
        size(0, ours) != shared || size(1, theirs) != shared
    };
    // Of those that differ, the first names that only the one group of a pair has. One more than is
    // kept: an entry is not a name beside itself.
    let mut gone: BTreeMap<(u32, u32), Vec<&ByteString>> = BTreeMap::new();
    let mut new = gone.clone();
    let mut partners: [BTreeMap<u32, Vec<(u32, u32)>>; 2] = [BTreeMap::new(), BTreeMap::new()];
    for &pair in together.keys().filter(|pair| differ(**pair)) {
        partners[0].entry(pair.0).or_default().push(pair);
        partners[1].entry(pair.1).or_default().push(pair);
    }
    for (one, other) in both {
        let its = (one.links, other.links);
        for (side, group, lists) in [(0, its.0, &mut gone), (1, its.1, &mut new)] {
            if group == 0 {
                continue;
            }
            let pairs = partners[side].get(&group).into_iter().flatten();
            // A pair with no group on the other side is of entries that are alone there.
            for pair in pairs.filter(|pair| **pair != its || pair.0 == 0 || pair.1 == 0) {
                let list = lists.entry(*pair).or_default();
                if list.len() <= KEPT {
                    list.push(&one.path);
                }
            }
        }
    }
    for (one, other) in both {
        let pair = (one.links, other.links);
        if differ(pair) {
            let names = |lists: &BTreeMap<(u32, u32), Vec<&ByteString>>| {
                let names = lists.get(&pair).into_iter().flatten();
                let names = names.filter(|name| ***name != one.path).take(KEPT);
                names
                    .map(|name| [b"/", name.as_bytes()].concat().into())
                    .collect()
            };
            let (from, to) = (names(&gone), names(&new));
            found.push(Difference::at(one, What::HardLink { from, to }));
        }
    }
}

mod shown;
#[cfg(test)]
mod tests;

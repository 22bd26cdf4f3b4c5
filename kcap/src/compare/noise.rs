//! What differs between equal builds: named rules, each with its reason, and what pairs of
//! reference builds show.
//!
//! The rules hold even where reference builds agree, which they may by chance. They are about the
//! content of files alone: that a file is there, its owner, mode, links and attributes always count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    difference::{Difference, Place, What},
    tree::split,
    values::ByteString,
};

/// A class of noise.
#[derive(Debug)]
pub struct Class {
    /// Its name.
    pub name: &'static str,
    /// Why content there says when or where something ran, and not what it did.
    pub reason: &'static str,
    /// Whether it is about a path, which has no slash before it.
    about: fn(&[u8]) -> bool,
    /// What of the content it is about, where not all of it.
    reduction: Option<Reduction>,
}

/// How content loses what a class of noise is about.
#[derive(Clone, Copy, Debug)]
pub struct Reduction {
    /// The content without it.
    pub without: fn(&[u8]) -> Vec<u8>,
}

/// A class of noise, by its name.
#[derive(Clone, Copy, Debug)]
pub struct Rule(&'static Class);

/// The classes; of those that are about a path, the first.
pub static CLASSES: &[Class] = &[
    Class {
        name: "log",
        reason: "logs say when something ran",
        about: |path| path.starts_with(b"var/log/"),
        reduction: None,
    },
    Class {
        name: "apt-cache",
        reason: "package lists and apt's own index of them change with the archive and hold times",
        about: |path| {
            path.starts_with(b"var/lib/apt/lists/") || path.starts_with(b"var/cache/apt/")
        },
        reduction: None,
    },
    Class {
        name: "apk-cache",
        reason: "Alpine's index of packages changes with the archive; the archive of scripts holds times",
        about: |path| {
            path.starts_with(b"var/cache/apk/")
                || path.starts_with(b"etc/apk/cache/")
                || path == b"lib/apk/db/scripts.tar"
                || path == b"lib/apk/db/scripts.tar.gz"
        },
        reduction: None,
    },
    Class {
        name: "dnf-cache",
        reason: "metadata of repositories changes with them; the history says when something ran",
        about: |path| {
            [
                &b"var/cache/dnf/"[..],
                b"var/cache/yum/",
                b"var/lib/dnf/history",
            ]
            .iter()
            .any(|start| path.starts_with(start))
        },
        reduction: None,
    },
    Class {
        name: "rpm-database",
        reason: "rpm's database records when each package was installed",
        about: |path| {
            path.starts_with(b"var/lib/rpm/") || path.starts_with(b"usr/lib/sysimage/rpm/")
        },
        reduction: None,
    },
    Class {
        name: "ldconfig-cache",
        reason: "ldconfig's auxiliary cache holds inode numbers and times; what it leads to is in ld.so.cache",
        about: |path| path == b"var/cache/ldconfig/aux-cache",
        reduction: None,
    },
    Class {
        name: "font-cache",
        reason: "fontconfig's caches hold times of folders",
        about: |path| path.starts_with(b"var/cache/fontconfig/"),
        reduction: None,
    },
    Class {
        name: "python-bytecode",
        reason: "compiled Python holds its source's time, and its order depends on memory",
        about: |path| path.ends_with(b".pyc"),
        reduction: None,
    },
    Class {
        name: "ssh-host-key",
        reason: "keys are random",
        about: |path| path.starts_with(b"etc/ssh/ssh_host_"),
        reduction: None,
    },
    Class {
        name: "self-signed-certificate",
        reason: "the key of Debian's self-signed certificate is random",
        about: |path| {
            path.starts_with(b"etc/ssl/") && split(path).1.starts_with(b"ssl-cert-snakeoil.")
        },
        reduction: None,
    },
    Class {
        name: "java-keystore",
        reason: "a keystore holds the time of each certificate's import, and a random salt",
        about: |path| path == b"etc/ssl/certs/java/cacerts",
        reduction: None,
    },
    Class {
        name: "machine-id",
        reason: "it is random, and made by whatever asks for it first",
        about: |path| path == b"etc/machine-id" || path == b"var/lib/dbus/machine-id",
        reduction: None,
    },
    Class {
        name: "random-seed",
        reason: "a seed is random",
        about: |path| path == b"var/lib/systemd/random-seed" || split(path).1 == b"random_seed",
        reduction: None,
    },
    Class {
        name: "shadow-day",
        reason: "a password's entry says on which day it was last changed",
        about: |path| path == b"etc/shadow" || path == b"etc/shadow-",
        reduction: Some(Reduction {
            without: without_days,
        }),
    },
];

impl Rule {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        CLASSES.iter().map(Self)
    }

    /// The rule that all content at a path falls under; the path may have a slash before it.
    pub fn of(path: &[u8]) -> Option<Self> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        Self::all().find(|rule| rule.0.reduction.is_none() && (rule.0.about)(path))
    }

    /// The rule that a part of the content at a path falls under.
    pub(super) fn reducing(path: &[u8]) -> Option<Self> {
        Self::all().find(|rule| rule.0.reduction.is_some() && (rule.0.about)(path))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Why it holds.
    pub fn reason(self) -> &'static str {
        self.0.reason
    }
}

/// How a rule reduces the content of the file at a path, where one does.
pub fn reduce(path: &[u8]) -> Option<Reduction> {
    Rule::reducing(path)?.0.reduction
}

/// Lines of `shadow(5)` without their third field.
fn without_days(shadow: &[u8]) -> Vec<u8> {
    let mut reduced = Vec::with_capacity(shadow.len());
    for line in shadow.split_inclusive(|byte| *byte == b'\n') {
        for (n, field) in line.splitn(4, |byte| *byte == b':').enumerate() {
            if n > 0 {
                reduced.push(b':');
            }
            if n != 2 {
                reduced.extend_from_slice(field);
            }
        }
    }
    reduced
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Rule {}

impl PartialOrd for Rule {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rule {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.name.cmp(other.0.name)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl JsonSchema for Rule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rule".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // No list of them: classes may be added.
        json_schema!({"type": "string", "description": "A class of noise, by its name."})
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::all()
            .find(|rule| rule.0.name == name)
            .ok_or_else(|| de::Error::custom("there is no such rule of noise"))
    }
}

/// What pairs of reference builds have shown to differ between equal builds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Noise {
    /// Pairs that were learned from.
    pub pairs: u32,
    /// Paths whose content differed, each with a slash before it.
    pub content: BTreeSet<ByteString>,
    /// Paths that only one of two builds had, and under no name that takes their place.
    pub presence: BTreeSet<ByteString>,
    /// Names that are another in each build.
    pub names: BTreeSet<RandomName>,
    /// Whatever else differed, by place and kind of difference ([`What::name`]): such a build has no
    /// one image.
    pub metadata: BTreeSet<(Place, String)>,
}

/// Names in a folder that a build chooses at random.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RandomName {
    /// The folder, with a slash before it.
    pub folder: ByteString,
    /// What the names start with.
    pub prefix: ByteString,
    /// What they end with.
    pub suffix: ByteString,
    /// Bytes between those, all letters, digits and `_`; `None` stands for digits, however many.
    pub length: Option<u32>,
}

impl RandomName {
    fn fits(&self, name: &[u8]) -> bool {
        let middle = name
            .strip_prefix(self.prefix.as_bytes())
            .and_then(|rest| rest.strip_suffix(self.suffix.as_bytes()));
        let Some(middle) = middle else {
            return false;
        };
        match self.length {
            Some(length) => middle.len() == length as usize && middle.iter().all(is_word),
            None => !middle.is_empty() && middle.iter().all(u8::is_ascii_digit),
        }
    }

    /// The pattern that two names of a folder have in common, if their difference looks chosen at
    /// random.
    fn of(folder: &[u8], one: &[u8], other: &[u8]) -> Option<Self> {
        let same = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        // Up to a sign that ends a word: letters that agree by chance belong to the random part.
        let start = same(one, other);
        let start = one[..start]
            .iter()
            .rposition(|b| !is_word(b))
            .map_or(0, |at| at + 1);
        let reversed = |name: &[u8]| name[start..].iter().rev().copied().collect::<Vec<u8>>();
        let (back, other_back) = (reversed(one), reversed(other));
        let end = same(&back, &other_back);
        let end = back[..end]
            .iter()
            .rposition(|b| !is_word(b))
            .map_or(0, |at| at + 1);
        let middle = &one[start..one.len() - end];
        let other_middle = &other[start..other.len() - end];
        let digits = |middle: &[u8]| !middle.is_empty() && middle.iter().all(u8::is_ascii_digit);
        let length = if digits(middle) && digits(other_middle) {
            None
        } else if middle.len() == other_middle.len()
            && middle.len() >= RANDOM
            && middle.iter().chain(other_middle).all(is_word)
        {
            Some(middle.len() as u32)
        } else {
            return None;
        };
        Some(Self {
            folder: folder.into(),
            prefix: one[..start].into(),
            suffix: one[one.len() - end..].into(),
            length,
        })
    }
}

/// Fewest letters that are taken for a random name.
const RANDOM: usize = 4;

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

impl Noise {
    /// Takes up what differs between two builds that should be the same.
    pub fn learn(&mut self, differences: &[Difference]) {
        self.pairs += 1;
        // By folder, what only the one or only the other has there.
        let mut alone: BTreeMap<&[u8], [Vec<&Difference>; 2]> = BTreeMap::new();
        let absent: BTreeSet<&[u8]> = differences
            .iter()
            .filter(|d| matches!(d.what, What::Missing { .. } | What::Added { .. }))
            .filter_map(|d| Some(d.path()?.as_bytes()))
            .collect();
        for difference in differences {
            match (&difference.place, &difference.what) {
                (Place::Path(path), What::Content { .. }) => {
                    self.content.insert(path.clone());
                }
                (Place::Path(path), What::Missing { .. } | What::Added { .. }) => {
                    let side = usize::from(matches!(difference.what, What::Added { .. }));
                    let (folder, _) = split(path);
                    if !absent.contains(folder) {
                        alone.entry(folder).or_default()[side].push(difference);
                    }
                }
                (_, What::History { .. }) => {}
                (place, what) => {
                    self.metadata.insert((place.clone(), what.name().into()));
                }
            }
        }
        let mut unpaired = BTreeSet::new();
        for (folder, [missing, mut added]) in alone {
            for one in missing {
                let pair = added.iter().position(|other| replaced(one, other));
                let name = |d: &Difference| d.path().map(|path| split(path).1.to_owned());
                let pattern = pair.and_then(|at| {
                    let other = added.swap_remove(at);
                    RandomName::of(folder, &name(one)?, &name(other)?)
                });
                match pattern {
                    Some(pattern) => {
                        self.names.insert(pattern);
                    }
                    None => unpaired.extend(one.path().map(ByteString::as_bytes)),
                }
            }
            unpaired.extend(added.iter().filter_map(|d| Some(d.path()?.as_bytes())));
        }
        // With all that was in them.
        for path in absent {
            let mut above = path;
            while !above.is_empty() && !unpaired.contains(above) {
                above = split(above).0;
            }
            if !above.is_empty() {
                self.presence.insert(path.into());
            }
        }
    }

    /// Whether equal builds differ in nothing that decides, as far as is known.
    pub fn is_steady(&self) -> bool {
        self.metadata.is_empty() && self.presence.is_empty()
    }

    /// The path with each random name in it replaced, where there is one.
    pub(super) fn without_names(&self, path: &[u8]) -> Option<Vec<u8>> {
        if self.names.is_empty() {
            return None;
        }
        let mut found = false;
        let mut done = Vec::new();
        for name in path.split(|byte| *byte == b'/').skip(1) {
            let pattern = self
                .names
                .iter()
                .find(|pattern| pattern.folder.as_bytes() == done && pattern.fits(name));
            done.push(b'/');
            match pattern {
                Some(pattern) => {
                    found = true;
                    done.extend_from_slice(&pattern.prefix);
                    // A byte that no name has.
                    done.push(0);
                    done.extend_from_slice(&pattern.suffix);
                }
                None => done.extend_from_slice(name),
            }
        }
        found.then_some(done)
    }
}

/// Whether what only one build has can be what only the other has, under another name.
fn replaced(missing: &Difference, added: &Difference) -> bool {
    let (What::Missing { entry: one }, What::Added { entry: other }) = (&missing.what, &added.what)
    else {
        return false;
    };
    let (Some(path), Some(other_path)) = (missing.path(), added.path()) else {
        return false;
    };
    let (folder, name) = split(path);
    one.same_metadata(other) && RandomName::of(folder, name, split(other_path).1).is_some()
}

#[cfg(test)]
mod tests;

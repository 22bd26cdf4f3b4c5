//! Which differences between a reference and an image decide that they are not the same.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Image,
    difference::{Difference, What, differences},
    noise::{Noise, Rule},
    tree::{Kind, Node},
    values::Digest,
};

/// The differences between a reference and an image, by what they count for. Each is sorted, and
/// each difference in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Judged {
    /// The images are not the same: metadata, and content on which reference builds agree.
    pub decisive: Vec<Difference>,
    /// Content of which it is not known whether reference builds agree on it, since there is one.
    pub undecided: Vec<Difference>,
    /// Reference builds disagree there as well.
    pub unstable: Vec<Difference>,
    /// Content that a named rule of noise is about.
    pub noise: Vec<(Rule, Difference)>,
    /// How the images came about. A container sees nothing of it.
    pub history: Vec<Difference>,
}

impl Judged {
    /// Nothing is known to make the images another.
    pub fn same(&self) -> bool {
        self.decisive.is_empty() && self.undecided.is_empty()
    }
}

/// Compares an image with a reference, given what is known to differ between equal builds.
/// Metadata always decides, content where reference builds agree on it.
pub fn judge(reference: &Image, image: &Image, noise: &Noise) -> Judged {
    sort_out(differences(reference, image), noise)
}

/// [`judge`], from the differences.
pub fn sort_out(differences: Vec<Difference>, noise: &Noise) -> Judged {
    let mut judged = Judged::default();
    let mut renamed = Renamed::of(&differences, noise);
    for difference in differences {
        let Some(path) = difference.path() else {
            match difference.what {
                What::History { .. } => judged.history.push(difference),
                _ if is_unsteady(&difference, noise) => judged.unstable.push(difference),
                _ => judged.decisive.push(difference),
            }
            continue;
        };
        match &difference.what {
            What::Content { only, .. } => {
                if let Some(rule) = only.or_else(|| Rule::of(path)) {
                    judged.noise.push((rule, difference));
                } else if noise.content.contains(path) {
                    judged.unstable.push(difference);
                } else if noise.pairs == 0 {
                    judged.undecided.push(difference);
                } else {
                    judged.decisive.push(difference);
                }
            }
            What::Missing { .. } | What::Added { .. } => {
                if noise.presence.contains(path) || renamed.take(&difference, noise) {
                    judged.unstable.push(difference);
                } else {
                    judged.decisive.push(difference);
                }
            }
            _ if is_unsteady(&difference, noise) => judged.unstable.push(difference),
            _ => judged.decisive.push(difference),
        }
    }
    judged
}

/// Reference builds disagree in the same way at the same place.
fn is_unsteady(difference: &Difference, noise: &Noise) -> bool {
    let key = (difference.place.clone(), difference.what.name().into());
    noise.metadata.contains(&key)
}

/// Entries under random names: how many of each kind can stand for one that is missing.
struct Renamed {
    left: BTreeMap<(Vec<u8>, Node), [usize; 2]>,
}

impl Renamed {
    fn of(differences: &[Difference], noise: &Noise) -> Self {
        let mut left: BTreeMap<_, [usize; 2]> = BTreeMap::new();
        for difference in differences {
            if let Some((key, side)) = key(difference, noise) {
                left.entry(key).or_default()[side] += 1;
            }
        }
        // As many as the other image has.
        for counts in left.values_mut() {
            *counts = [counts[0].min(counts[1]); 2];
        }
        Self { left }
    }

    fn take(&mut self, difference: &Difference, noise: &Noise) -> bool {
        let Some((key, side)) = key(difference, noise) else {
            return false;
        };
        match self.left.get_mut(&key) {
            Some(counts) if counts[side] > 0 => {
                counts[side] -= 1;
                true
            }
            _ => false,
        }
    }
}

/// What an entry has in common with those that can stand for it: its path without random names, and
/// its metadata.
fn key(difference: &Difference, noise: &Noise) -> Option<((Vec<u8>, Node), usize)> {
    let (entry, side): (&Arc<Node>, _) = match &difference.what {
        What::Missing { entry } => (entry, 0),
        What::Added { entry } => (entry, 1),
        _ => return None,
    };
    let path = noise.without_names(difference.path()?)?;
    let mut node = Node::clone(entry);
    if let Kind::File { .. } = node.kind {
        node.kind = Kind::File {
            size: 0,
            sha256: Digest([0; 32]),
            reduced: None,
        };
    }
    Some(((path, node), side))
}

#[cfg(test)]
mod tests;

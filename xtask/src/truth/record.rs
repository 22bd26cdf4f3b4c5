//! `truth.json`: what is written down about a Dockerfile. Sorted, and without dates, so that the
//! same truth is the same file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::search::Found;
use crate::corpus::Expect;
use crate::lab::capabilities::{ALL, Set};

/// The format's name and version.
pub const SCHEMA: &str = "kcap.truth/v1";

/// Differing places written down for one capability, at most.
pub const PLACES: usize = 5;

/// A Dockerfile's truth.
#[derive(Debug, Serialize, Deserialize)]
pub struct Truth {
    /// [`SCHEMA`].
    pub schema: String,
    /// A digest of context and settings, see [`crate::corpus::Subject::inputs`].
    pub inputs: String,
    /// The executor's version.
    pub executor: String,
    /// Digests of the base images that the Dockerfile names.
    pub bases: BTreeMap<String, String>,
    /// What else the needs could depend on.
    pub environment: Environment,
    /// What the build comes to with the whole starting set.
    pub expect: Expect,
    /// The starting set.
    pub start: Vec<String>,
    /// Where the starting set without it does not do.
    pub needed: Vec<Need>,
    /// Where the starting set without it does.
    pub unneeded: Vec<String>,
    /// Groups of which any one is needed beside `needed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any_of: Vec<Vec<String>>,
    /// A set that does, none of which can be left out.
    pub sufficient: Vec<String>,
    /// Of `needed` those that are not in `sufficient`: the build does otherwise without the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare: Vec<String>,
    /// What all was compared with.
    pub reference: Reference,
    /// How many builds it took.
    pub builds: u32,
    /// What a reader should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The conditions of all builds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Environment {
    /// The seccomp profile.
    pub seccomp: String,
    /// The network that builds see.
    pub network: String,
    /// The sysctl of that name in it.
    pub ip_unprivileged_port_start: u16,
    /// The sysctl of that name in it.
    pub ping_group_range: String,
}

/// A needed capability.
#[derive(Debug, Serialize, Deserialize)]
pub struct Need {
    /// Its name.
    pub capability: String,
    /// What becomes of the build without it.
    #[serde(flatten)]
    pub without: Consequence,
}

/// What became of a build that had less.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Consequence {
    /// In a word.
    pub outcome: Outcome,
    /// What shows it.
    pub witness: Witness,
}

/// What became of a build, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It failed; where a failure is expected: it failed otherwise.
    #[default]
    Failed,
    /// It succeeded with another image; where a failure is expected: it succeeded.
    Changed,
}

/// What shows that a build did not do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    /// The executor's last line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The last line before it that is not the executor's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// What differs, up to [`PLACES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Place>,
    /// How many more places differ.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

/// A place that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// A path, or a part of the configuration.
    pub path: String,
    /// All that is not the same there.
    pub how: Vec<String>,
}

/// What all was compared with: builds with the whole starting set.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reference {
    /// Whether two of them gave the same image, down to the bytes of every file.
    pub stable: bool,
    /// Files whose content they do not agree on, and which is not compared therefore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unstable: Vec<Unstable>,
    /// The failure, where one is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Witness>,
}

/// A file whose content differs between equal builds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unstable {
    /// Its path.
    pub path: String,
    /// The known reason, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers
        .into_iter()
        .map(|number| ALL[number].to_owned())
        .collect()
}

impl Truth {
    /// Writes down what a search from `start` has found.
    pub fn record(&mut self, start: Set, found: Found) {
        self.start = names(start.iter());
        self.needed = found
            .needed
            .into_iter()
            .map(|(number, without)| Need {
                capability: ALL[number].to_owned(),
                without,
            })
            .collect();
        self.unneeded = names(found.unneeded.iter());
        self.any_of = found.any_of.into_iter().map(names).collect();
        self.sufficient = names(found.sufficient.iter());
        self.spare = names(found.spare.iter());
    }

    /// What the truth is, apart from what may differ between machines and days: one line each.
    pub fn essence(&self) -> Vec<String> {
        let needed: Vec<String> = self
            .needed
            .iter()
            .map(|need| format!("{} ({:?})", need.capability, need.without.outcome))
            .collect();
        let groups: Vec<String> = self.any_of.iter().map(|group| group.join("|")).collect();
        vec![
            format!("schema: {}", self.schema),
            format!("expect: {:?}", self.expect),
            format!("start: {}", self.start.join(" ")),
            format!("needed: {}", needed.join(" ")),
            format!("unneeded: {}", self.unneeded.join(" ")),
            format!("any of: {}", groups.join(" ")),
            format!("sufficient: {}", self.sufficient.join(" ")),
            format!("spare: {}", self.spare.join(" ")),
        ]
    }
}

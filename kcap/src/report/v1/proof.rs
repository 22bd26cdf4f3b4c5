//! What replays add to a report.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::report::Cap;

/// What replays came to, all in all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proving {
    /// How far they came.
    pub state: Proven,
    /// Why they came no further, where they did not prove the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Members of `required` without which no build was tried: not known to be needed.
    pub untried: Vec<Cap>,
    /// Builds made for it, the first one included.
    pub builds: u32,
    /// Further ones that were kept from an earlier proof.
    pub kept: u32,
    /// How many of these were with the starting set: what equal builds differ in is known from them.
    pub references: u32,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Time that all builds took in seconds, one after the other: kept ones as well.
    pub build_seconds: f64,
    /// Equal builds were seen to come to different things.
    pub flaky: bool,
    /// Differences that are no capability's doing, by the rule that says so.
    pub noise: Vec<Noise>,
    /// The image that the build gives, by the digest of its configuration; null where it gave none.
    pub image: Option<String>,
    /// What it takes to make these builds again.
    pub repeat: Repeat,
}

/// How far replays came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Proven {
    /// `required` was seen to be enough, and to be too little without any one of its members.
    Proved,
    /// `required` was seen to be enough; not all members were tried.
    Sufficient,
    /// Nothing less than the starting set was seen to be enough.
    Unfinished,
    /// The build fails with the starting set: there is nothing to prove.
    Failed,
    /// Equal builds come to different things: no set can be said to be enough.
    Unstable,
}

/// Differences between builds that decide nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Noise {
    /// Name of the rule; `unstable` for content that differs between builds with the
    /// starting set, `unstable-metadata` for what else does, `undecided`
    /// for content of which it is not known, since there was but one.
    pub rule: String,
    /// How many places.
    pub places: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// What it takes to make builds again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repeat {
    /// The command that proves it again, without secrets.
    pub command: Vec<String>,
    /// What ran the container of the last build, without secrets.
    pub container: Vec<String>,
    /// Digest of the executor, where it is known.
    pub executor: Option<String>,
    /// SHA-256 over the build context: paths, types, modes, owners, contents.
    pub context_sha256: Option<String>,
    /// Digests of base images, by their names in the Dockerfile.
    pub bases: BTreeMap<String, String>,
    /// Where base images came from: `kept` (by kcap, served to each build) or `registry`.
    pub bases_from: String,
    /// Kaniko's layer cache: `off`, or the flag that says otherwise.
    pub cache: String,
}

/// How a replay without the capability ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// What came of it.
    pub outcome: ProofOutcome,
    /// The decisive difference.
    pub detail: String,
    /// Index of the step where it shows.
    pub step: Option<u32>,
    /// What the build shrugged off.
    pub tolerated: Vec<String>,
}

/// What came of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProofOutcome {
    /// The build failed.
    Failed,
    /// The image changed.
    Changed,
    /// The same image.
    Same,
}

/// One replay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// The set it ran with.
    pub set: Vec<Cap>,
    /// What came of it.
    pub outcome: String,
    /// How long it took.
    pub seconds: f64,
    /// What differed: of the image, or the last lines of a build that failed.
    pub differs: Vec<String>,
    /// What it was for: `reference`, `sure`, `grow`, `without NAME`, `last`.
    #[serde(default)]
    pub purpose: String,
    /// It was kept from an earlier proof.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// Index of the step that failed, or that shows what made the difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
}

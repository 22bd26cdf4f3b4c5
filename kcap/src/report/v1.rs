//! The types of `kcap.report/v1`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cap;
pub use crate::capture::Identity;

mod proof;

pub use proof::{Noise, Proof, ProofOutcome, Proven, Proving, Repeat, Trial};

/// A whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Name and major version of this format: `kcap.report/v1`.
    pub schema: String,
    /// What made it.
    pub tool: Tool,
    /// Where the session was traced.
    pub host: Host,
    /// What was traced.
    pub subject: Subject,
    /// Nothing was lost. Where false, no capability can be said not to be required.
    pub complete: bool,
    /// The trace was ended by a signal before the build ended by itself.
    pub interrupted: bool,
    /// What was lost.
    pub loss: Loss,
    /// Instructions seen and not seen.
    pub coverage: Coverage,
    /// What the verdicts rest on.
    pub basis: Basis,
    /// What to add after dropping all: needed and unsure, by capability number.
    pub required: Vec<Cap>,
    /// The part of `required` that one run cannot settle.
    pub unsure: Vec<Cap>,
    /// What the build depended on, so that reports can be merged.
    pub decisions: Vec<Decision>,
    /// All checks seen in the session.
    pub checks: u64,
    /// Every capability that was asked for, or needed without being asked for, by number.
    pub capabilities: Vec<Capability>,
    /// Parts of the build, by index.
    pub steps: Vec<Step>,
    /// Replays, in the order in which they ended; only where some were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Trial>,
    /// Programs that their files gave more than the ones that executed them had, which
    /// `no_new_privs` (a pod's `allowPrivilegeEscalation: false`) would have kept from them;
    /// bounded. Set-group-ID bits are not seen. Null where it was not looked at.
    #[serde(default)]
    pub privilege_gains: Option<Vec<Gain>>,
    /// What the replays came to, all in all; only where some were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proving>,
    /// What this host's settings allow without asking, and others ask a capability for: needs that the
    /// trace cannot show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed: Vec<Suppressed>,
    /// What a reader must know beside the verdicts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Report {
    /// The instruction that was worked on last; where the build failed, the one that failed, unless
    /// the executor failed between two.
    pub fn last_step(&self) -> Option<&Step> {
        let index = self.subject.last_step?;
        self.steps.iter().find(|step| step.index == index)
    }
}

/// What made a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// `kcap`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The traced host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// The hook that saw the checks.
    pub hook: String,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup: String,
    /// What the hook cannot see on this kernel.
    pub blind: Vec<String>,
    /// `full`, `lazy`, `voluntary`, `none` or `unknown`.
    pub preemption: String,
    /// Active security modules, in order.
    pub lsm: Vec<String>,
    /// Seccomp mode of the build.
    pub seccomp: String,
    /// Settings that change what the kernel asks.
    pub sysctl: BTreeMap<String, Setting>,
}

/// A kernel setting: a number where it is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Setting {
    /// A whole number.
    Number(i64),
    /// Anything else.
    Text(String),
}

/// What was traced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// Path of the Dockerfile as given, if known.
    pub dockerfile: Option<String>,
    /// SHA-256 of its bytes, hex.
    pub dockerfile_sha256: Option<String>,
    /// The build context as given, if known.
    pub context: Option<String>,
    /// The build's executor, where one was recognised.
    pub executor: Option<Executor>,
    /// The command as given.
    pub command: Vec<String>,
    /// As a shell gives it (128 + n for signal n); null where the end was not seen.
    pub exit_status: Option<i32>,
    /// RFC 3339.
    pub started: String,
    /// Wall time in milliseconds.
    pub duration_ms: u64,
    /// The bounding set that the build ran with.
    pub capabilities: Vec<Cap>,
    /// The engine that ran the container: `docker`, `podman`, `oci/runc`; null where kcap started
    /// none.
    #[serde(default)]
    pub engine: Option<String>,
    /// The trace began when the build was already running: what came before was not seen.
    #[serde(default)]
    pub late: bool,
    /// The container was killed for want of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// kcap killed it, since it took longer than it may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// Index of the step of the instruction that was worked on last; where the build failed, it is
    /// the one that failed, unless the executor failed between two.
    #[serde(default)]
    pub last_step: Option<u32>,
    /// Index of the step that the executor was in when it ended without success: an instruction, or
    /// a phase of its own such as unpacking; null where it succeeded, or where that is not known.
    #[serde(default)]
    pub failed_step: Option<u32>,
    /// The last lines of the executor's log; only where the build did not succeed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Whose build it is; only where others started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// The program that performs a Dockerfile's instructions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Executor {
    /// Its path as executed.
    pub path: String,
    /// As given to the engine: an image's name, or a path; null where kcap started none.
    #[serde(default)]
    pub given: Option<String>,
}

/// What was lost; all zero and `unproven` null where `complete`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Checks seen and not kept.
    pub checks: u64,
    /// Samples dropped.
    pub evidence: u64,
    /// Fork, exec and exit records dropped, and processes not followed.
    pub execs: u64,
    /// Runs of the tracing programs that the kernel skipped.
    pub skipped: u64,
    /// Outcomes of system calls not kept.
    #[serde(default)]
    pub outcomes: u64,
    /// Executed files whose capabilities could not be read.
    #[serde(default)]
    pub file_caps: u64,
    /// Needs decided without a check that could not be kept.
    #[serde(default)]
    pub unasked: u64,
    /// Why completeness cannot be proven although nothing is counted as lost.
    #[serde(default)]
    pub unproven: Option<String>,
}

/// How many instructions were seen.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Coverage {
    /// Performed.
    pub ran: u64,
    /// Answered from a cache, so that their needs were not seen.
    pub cached: u64,
    /// Left out by the executor.
    pub skipped: u64,
    /// Not reached.
    pub unreached: u64,
}

/// What the verdicts rest on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// One traced run.
    Observed,
    /// Replays.
    Proved,
}

/// What a capability, or a group of checks, is to the build. Ordered by weight.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Known not to be needed.
    Unneeded,
    /// One run cannot settle it; counted as required.
    Unsure,
    /// The build depends on it.
    Needed,
}

/// The mechanism behind a verdict.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// Needed: granted, and the operation depended on it.
    Used,
    /// Needed: refused, and the operation failed for it.
    Refused,
    /// Needed: the kernel decides it without a check.
    Unasked,
    /// Unsure: nobody waited for the process.
    NobodyWaited,
    /// Unsure: the answer is a message that may be ignored.
    OutOfBand,
    /// Unsure: the program is known to go on after this refusal.
    ShruggedOff,
    /// Unsure: refused, yet the system call reported success.
    Silent,
    /// Unsure: what decides was not seen.
    Unseen,
    /// Unneeded: the answer changes nothing.
    NoEffect,
    /// Unneeded: another capability answered the same decision.
    OtherAnswer,
    /// Unneeded: another's authority was asked.
    Borrowed,
    /// Unneeded: asked of a user namespace that the build made.
    OwnNamespace,
    /// Unneeded: the runtime's work outside the container.
    ContainerStart,
    /// Unneeded: refused, and the program went another way with the same outcome.
    Tolerated,
}

macro_rules! as_serde_name {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(f)
            }
        }
    )*};
}

as_serde_name!(
    Verdict,
    Because,
    Basis,
    State,
    By,
    Sharp,
    ProofOutcome,
    Proven
);

/// One point where any of several capabilities would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// The capabilities, by number.
    pub any_of: Vec<Cap>,
    /// The one in `required`.
    pub chosen: Cap,
    /// Where it was met.
    pub steps: Vec<u32>,
    /// `needed` or `unsure`.
    #[serde(default = "needed")]
    pub verdict: Verdict,
}

/// A decision that does not say what it is, as the first reports had it, counts in full.
fn needed() -> Verdict {
    Verdict::Needed
}

/// What is known of one capability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capability {
    /// Its name.
    pub name: Cap,
    /// Its number.
    pub number: u8,
    /// What it is to the build.
    pub verdict: Verdict,
    /// The mechanism.
    pub because: Because,
    /// One sentence for people.
    pub reason: String,
    /// Capabilities that would do in its place.
    pub alternatives: Vec<Cap>,
    /// How often it was asked for.
    pub checks: u64,
    /// Of these, granted.
    pub granted: u64,
    /// Of these, refused.
    pub denied: u64,
    /// How often the kernel decided by it without a check.
    #[serde(default)]
    pub unasked: u64,
    /// The checks by step.
    pub steps: Vec<CapabilityStep>,
    /// The checks by where they were made, weightiest first; bounded, the rest is one last entry.
    pub evidence: Vec<Evidence>,
    /// Which replay settles it, as something to do; only where the verdict is `unsure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<String>,
    /// How a replay answered; only where `basis` is `proved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// A need that the settings of the traced host hide: under others the same build would need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suppressed {
    /// What it needs elsewhere.
    pub name: Cap,
    /// The kernel setting.
    pub setting: String,
    /// Its value where the build ran; empty where that is not known, since a network namespace can have
    /// one of its own.
    pub value: String,
    /// Index of the step in which the build did it; null where that cannot be seen, so that the
    /// need *would be* hidden.
    pub step: Option<u32>,
    /// One sentence for people.
    pub reason: String,
}

/// A capability's checks in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapabilityStep {
    /// Index of the step.
    pub step: u32,
    /// Checks in it.
    pub checks: u64,
    /// Of these, granted.
    pub granted: u64,
    /// Of these, refused.
    pub denied: u64,
}

/// Checks of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// How many checks; 0 for a need that the kernel decided without one.
    pub count: u64,
    /// How often the kernel decided without a check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unasked: u64,
    /// Granted or refused; null for the rest entry and without a check.
    pub granted: Option<bool>,
    /// What these checks are to the build; null for the rest entry.
    pub verdict: Option<Verdict>,
    /// The mechanism; null for the rest entry.
    pub because: Option<Because>,
    /// The system call; null outside any.
    pub syscall: Option<String>,
    /// How the system call ended: `ok`, an error's name, `restarted` or `unknown`; null outside
    /// any.
    #[serde(default)]
    pub outcome: Option<String>,
    /// Path of the program as executed; `other` for the rest entry.
    pub program: String,
    /// Call path in the kernel, innermost first.
    pub path: Vec<String>,
    /// Index of the step; null for the rest entry.
    pub step: Option<u32>,
    /// One sentence for people.
    pub reason: String,
    /// Name of the rule that decided; null for the entry `other`.
    #[serde(default)]
    pub rule: Option<String>,
    /// This is the rest that the bound on the list left over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A part of the build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Position, and the name that evidence uses.
    pub index: u32,
    /// Build stage, where it is an instruction.
    pub stage: Option<u32>,
    /// Line in the Dockerfile, where it is an instruction.
    pub line: Option<u32>,
    /// Lower-case instruction, executor phase, `job` or `other`.
    pub kind: String,
    /// The instruction's text, or what the step stands for.
    pub text: String,
    /// What became of it.
    pub state: State,
    /// How it was told from others.
    pub by: By,
    /// How sharply.
    #[serde(default)]
    pub sharp: Sharp,
    /// What else its checks hold, where `sharp` is `mixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// Checks in it.
    pub checks: u64,
    /// What it requires.
    pub required: Vec<Cap>,
}

/// What became of a step.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Performed.
    Ran,
    /// Answered from a cache.
    Cached,
    /// Left out.
    Skipped,
    /// Not reached.
    Unreached,
}

/// How a step's checks were told from others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// By the program that the instruction executed.
    Exec,
    /// By the executor's spans.
    Span,
    /// By the executor's log.
    Log,
    /// By nothing finer.
    Unknown,
}

/// How sharply a step's checks are cut from those of its neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sharp {
    /// By lines of the log that name it, or by the programs that it executed.
    Exact,
    /// It is the one whose turn it was: nothing names it.
    Order,
    /// Its checks hold other work too, which nothing tells from it.
    Mixed,
    /// Not at all.
    #[default]
    Unknown,
}

/// A program that its file gave more than the one that executed it had.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Gain {
    /// Index of the step.
    pub step: u32,
    /// Path of the program as executed.
    pub program: String,
    /// What of the file gave it.
    pub by: GainBy,
}

/// What of a file gives a program more.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum GainBy {
    /// Its capabilities.
    FileCapabilities,
    /// Its set-user-ID bit.
    SetUserId,
}

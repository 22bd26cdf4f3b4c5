//! What a build without the capability would come to, as far as one run, or a replay, can know it.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::seen::Seen;
use crate::report::{Because, Cap, Capability, ProofOutcome, Report, Verdict};

/// From the least to the most that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Without {
    /// Nothing: the set does not require it.
    Nothing,
    /// One run cannot know.
    Unknown,
    /// It was refused here, and the build ended with success all the same.
    WentOn,
    /// A replay gave another image.
    ImageChanges,
    /// The kernel drops a setgid bit and reports success.
    MayLoseBits,
    /// A system call of a RUN's program fails; whether the RUN then fails is that program's choice.
    LikelyFails,
    /// It was refused in the instruction that the build ended in.
    FailedHere,
    /// The executor's own call fails, which it takes as fatal; or a replay failed.
    BuildFails,
}

impl Without {
    /// In a few words.
    pub fn brief(self) -> &'static str {
        match self {
            Self::Nothing => "same image",
            Self::Unknown => "unknown",
            Self::WentOn => "went on here",
            Self::ImageChanges => "image changes",
            Self::MayLoseBits => "may lose setgid",
            Self::LikelyFails => "likely fails",
            Self::FailedHere => "failed here",
            Self::BuildFails => "build fails",
        }
    }

    /// In a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Nothing => "the build does not depend on it",
            Self::Unknown => "unknown: one run cannot tell whether anything depends on it",
            Self::WentOn => {
                "it was refused in this run, and the build succeeded; whether the image lacks something was not seen"
            }
            Self::ImageChanges => "a replay without it succeeded, and gave another image",
            Self::MayLoseBits => {
                "the build succeeds all the same; the kernel drops a setgid or setuid bit without an error, so the image may differ"
            }
            Self::LikelyFails => {
                "a system call of the RUN's program fails; whether the build fails depends on what the program makes of that"
            }
            Self::FailedHere => {
                "it was refused in this run, in the instruction that the build ended in"
            }
            Self::BuildFails => {
                "the build fails: the executor takes the failure of its own call as fatal"
            }
        }
    }

    /// What building again would settle.
    pub fn replay(self) -> &'static str {
        match self {
            Self::Nothing => "nothing that is open",
            Self::Unknown | Self::WentOn => {
                "built again with all that it held but this: where that succeeds and gives the same image, it is not needed"
            }
            Self::ImageChanges => "nothing that is open: it was replayed",
            Self::MayLoseBits => {
                "built again without it, the exit status says nothing: only the modes in the two images, compared, do"
            }
            Self::LikelyFails => {
                "built again without it: whether the program stops at the failure, or goes on with the same image or another"
            }
            Self::FailedHere => "built again with it: whether the build then gets further",
            Self::BuildFails => "nothing that is open",
        }
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.brief())
    }
}

/// Steps in which the executor gives up where a call of its own is refused.
const FATAL_STEPS: [&str; 8] = [
    "unpack",
    "copy",
    "add",
    "workdir",
    "run",
    "snapshot",
    "stage-end",
    "volume",
];
/// What it asks for with calls whose failure ends the build: replays of kcap's corpus bear out each.
const FATAL: [Cap; 8] = [
    Cap::CHOWN,
    Cap::DAC_OVERRIDE,
    Cap::DAC_READ_SEARCH,
    Cap::FOWNER,
    Cap::KILL,
    Cap::SETGID,
    Cap::SETUID,
    Cap::SETFCAP,
];

/// Of a capability: what is known best.
pub fn of(report: &Report, capability: &Capability) -> Without {
    if let Some(proof) = &capability.proof {
        return match proof.outcome {
            ProofOutcome::Failed => Without::BuildFails,
            ProofOutcome::Changed => Without::ImageChanges,
            ProofOutcome::Same => Without::Nothing,
        };
    }
    if capability.verdict == Verdict::Unneeded {
        return if report.complete {
            Without::Nothing
        } else {
            Without::Unknown
        };
    }
    Seen::decisive(report, capability)
        .map(|seen| of_evidence(capability.name, &seen))
        .max()
        .unwrap_or(Without::Unknown)
}

/// Of one piece of evidence.
pub fn of_evidence(cap: Cap, seen: &Seen<'_>) -> Without {
    let evidence = seen.evidence;
    if evidence.verdict != Some(Verdict::Needed) {
        return Without::Unknown;
    }
    let subject = &seen.report.subject;
    let stopped = subject.failed_step.or(subject.last_step);
    let refused = match evidence.because {
        Some(Because::Refused) => true,
        // An exec that the kernel let pass has no system call of its own in the report.
        Some(Because::Unasked) => !seen.executed_file(),
        _ => false,
    };
    match () {
        () if refused && subject.exit_status == Some(0) => Without::WentOn,
        () if refused && evidence.step.is_some() && evidence.step == stopped => Without::FailedHere,
        () if refused => Without::Unknown,
        () if cap == Cap::FSETID => Without::MayLoseBits,
        () if FATAL.contains(&cap) && seen.executor_in(&FATAL_STEPS) => Without::BuildFails,
        () => Without::LikelyFails,
    }
}

//! One run of one Dockerfile, reduced to what many of them are asked: what it needed, where, and
//! how much of the Dockerfile was seen. A report is read, reduced and dropped, so that thousands
//! of them fit into memory.

mod lean;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Status;
use crate::report::{Basis, Because, Cap, Coverage, ParseError, Report, State, Verdict};
use lean::Lean;

/// Most places that a need keeps, and most instructions not seen that a run keeps.
const PLACES: usize = 32;
/// Most characters of an instruction, a program's path or a kind of step.
const TEXT: usize = 200;
/// Most kinds of decisions in a report or matrix: far more than the kernel can make, and a bound on hostile
/// input, since choosing a set looks at each pair.
const DECISIONS: usize = 2000;

/// One run, reduced. Fields may be added; within v1 of the matrix none is renamed or removed.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Brief {
    /// When it was started, RFC 3339.
    pub started: String,
    /// Path of the Dockerfile as given, if known.
    pub dockerfile: Option<String>,
    /// SHA-256 of its bytes, hex.
    pub dockerfile_sha256: Option<String>,
    /// What became of it.
    pub status: Status,
    /// As a shell gives it; null where the end was not seen.
    #[serde(default)]
    pub exit_status: Option<i32>,
    /// Line of the instruction that was worked on last; where it failed, of the one that failed.
    #[serde(default)]
    pub last_line: Option<u32>,
    /// The container was killed for want of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// Nothing was lost.
    pub complete: bool,
    /// The trace began when the build was already running.
    #[serde(default)]
    pub late: bool,
    /// What the verdicts rest on.
    pub basis: Basis,
    /// How many instructions were seen.
    pub coverage: Coverage,
    /// Instructions whose needs were not seen; bounded, `coverage` counts all.
    pub unseen: Vec<Unseen>,
    /// The bounding set that it ran with.
    pub held: Vec<Cap>,
    /// Every capability that was asked for, or needed without being asked for, by number.
    pub asked: Vec<Cap>,
    /// What its own report requires.
    pub required: Vec<Cap>,
    /// The part of `required` that one run cannot settle.
    pub unsure: Vec<Cap>,
    /// What it depended on, each kind of decision once.
    pub needs: Vec<Need>,
    /// The steps that `needs` name, by index.
    pub steps: Vec<Place>,
    /// What it did that settings of its host allowed without asking, and others ask a capability
    /// for; by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed: Vec<Cap>,
    /// Seccomp mode of the build: `none`, `strict`, `filter` or `unknown`.
    #[serde(default)]
    pub seccomp: String,
    /// Programs that gained from a file's set-user-ID, set-group-ID bit or capabilities, which
    /// `no_new_privs` would have kept from them; bounded. Null where it was not looked at.
    #[serde(default)]
    pub gains: Option<Vec<Site>>,
}

/// One kind of decision: any of several capabilities would do.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Need {
    /// The capabilities.
    pub any_of: BTreeSet<Cap>,
    /// `needed` or `unsure`.
    pub verdict: Verdict,
    /// Where it was met, by step; bounded.
    pub at: Vec<Site>,
}

/// Where in a build, by step.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Site {
    /// Index of the step.
    pub step: u32,
    /// Path of the program, where known.
    pub program: Option<String>,
    /// The mechanism, where known.
    pub because: Option<Because>,
}

/// A step that needs something.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Place {
    /// Its index in the report.
    pub index: u32,
    /// Build stage, where it is an instruction.
    pub stage: Option<u32>,
    /// Line in the Dockerfile, where it is an instruction or belongs to one.
    pub line: Option<u32>,
    /// Lower-case instruction, executor phase, `job` or `other`.
    pub kind: String,
    /// The instruction's text, bounded.
    pub text: String,
}

/// An instruction whose needs were not seen.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Unseen {
    /// Line in the Dockerfile.
    pub line: Option<u32>,
    /// `cached` or `unreached`.
    pub state: State,
}

impl Brief {
    /// Reduces a report.
    pub fn of(report: &Report) -> Self {
        Self::reduced(Lean::of(report))
    }

    /// Reduces a report in JSON, reading only the fields that it wants. The same as reading it
    /// whole and reducing it.
    ///
    /// # Errors
    /// Where it is no report that this kcap reads.
    pub fn from_json(text: &[u8]) -> Result<Self, ParseError> {
        let lean = Lean::from_json(text)?;
        let reduced = Self::reduced(lean);
        are_few([&reduced])?;
        Ok(reduced)
    }

    /// The step of that index, if something is needed there.
    pub fn place(&self, step: u32) -> Option<&Place> {
        let at = self.steps.binary_search_by_key(&step, |place| place.index);
        at.ok().map(|at| &self.steps[at])
    }

    /// It succeeded.
    pub fn built(&self) -> bool {
        self.status == Status::Built
    }

    /// The day it was started on, as `2026-11-28`.
    pub fn day(&self) -> &str {
        self.started.get(..10).unwrap_or(&self.started)
    }

    fn reduced(lean: Lean<'_>) -> Self {
        let needs = needs(&lean);
        let named: BTreeSet<u32> = (needs.iter().flat_map(|need| &need.at))
            .chain(lean.gains.iter().flatten())
            .map(|site| site.step)
            .collect();
        let mut steps: Vec<Place> = (lean.steps.iter())
            .filter(|step| named.contains(&step.index))
            .map(|step| Place {
                index: step.index,
                stage: step.stage,
                line: step.line,
                kind: bounded(&step.kind),
                text: bounded(&step.text),
            })
            .collect();
        steps.sort_unstable();
        steps.dedup_by_key(|place| place.index);
        let unseen = (lean.steps.iter())
            .filter(|step| matches!(step.state, State::Cached | State::Unreached))
            .map(|step| Unseen {
                line: step.line,
                state: step.state,
            });
        // Without a step it is not known that the build did it.
        let suppressed: BTreeSet<Cap> = (lean.suppressed.iter())
            .filter(|hidden| hidden.step.is_some())
            .map(|hidden| hidden.name)
            .collect();
        let subject = lean.subject;
        let last = (subject.last_step)
            .and_then(|index| lean.steps.iter().find(|step| step.index == index));
        Self {
            started: bounded(&subject.started),
            // Those of a host's builds are all called the same inside their containers.
            dockerfile: match (subject.identity.and_then(|i| i.project), subject.dockerfile) {
                (Some(project), Some(name)) => Some(format!("{}:{name}", bounded(&project))),
                (_, name) => name.map(|name| name.into_owned()),
            },
            dockerfile_sha256: subject.dockerfile_sha256.map(|sha| bounded(&sha)),
            status: Status::of(lean.interrupted, subject.exit_status),
            exit_status: subject.exit_status,
            last_line: last.and_then(|step| step.line),
            out_of_memory: subject.out_of_memory,
            complete: lean.complete,
            late: subject.late,
            basis: lean.basis,
            coverage: lean.coverage,
            unseen: unseen.take(PLACES).collect(),
            held: subject.capabilities,
            asked: lean.capabilities.iter().map(|c| c.name).collect(),
            required: lean.required,
            unsure: lean.unsure,
            needs,
            steps,
            suppressed: suppressed.into_iter().collect(),
            seccomp: bounded(&lean.host.seccomp),
            gains: lean.gains,
        }
    }
}

/// Whether runs of one file have no more kinds of decisions than a set is chosen for.
///
/// # Errors
/// Where they have.
pub fn are_few<'a>(runs: impl IntoIterator<Item = &'a Brief>) -> Result<(), ParseError> {
    let needs = runs.into_iter().flat_map(|run| &run.needs);
    let kinds: BTreeSet<&BTreeSet<Cap>> = needs.map(|need| &need.any_of).collect();
    if kinds.len() > DECISIONS {
        return Err(ParseError::Excessive {
            what: "kinds of decisions",
            most: DECISIONS,
        });
    }
    Ok(())
}

/// Each kind of decision once. A requirement that no decision explains, as a report from elsewhere
/// may have it, is a decision of its own, in the steps that name it.
fn needs(lean: &Lean<'_>) -> Vec<Need> {
    let mut kinds: BTreeMap<BTreeSet<Cap>, (Verdict, BTreeSet<u32>)> = BTreeMap::new();
    let mut explained = BTreeSet::new();
    for decision in &lean.decisions {
        let mut any_of: BTreeSet<Cap> = decision.any_of.iter().copied().collect();
        any_of.insert(decision.chosen);
        explained.extend(any_of.iter().copied());
        let (verdict, steps) = kinds
            .entry(any_of)
            .or_insert((decision.verdict, BTreeSet::new()));
        *verdict = decision.verdict.max(*verdict);
        steps.extend(&decision.steps);
    }
    for cap in lean.required.iter().filter(|c| !explained.contains(c)) {
        let verdict = if lean.unsure.contains(cap) {
            Verdict::Unsure
        } else {
            Verdict::Needed
        };
        let steps = (lean.steps.iter())
            .filter(|step| step.required.contains(cap))
            .map(|step| step.index);
        kinds.insert(BTreeSet::from([*cap]), (verdict, steps.collect()));
    }
    (kinds.into_iter())
        .map(|(any_of, (verdict, steps))| Need {
            at: (steps.into_iter().take(PLACES))
                .map(|step| site(lean, &any_of, step))
                .collect(),
            any_of,
            verdict,
        })
        .collect()
}

/// The weightiest evidence of a decision in a step. Evidence of a capability that another answers
/// for is no need, and comes last.
fn site(lean: &Lean<'_>, any_of: &BTreeSet<Cap>, step: u32) -> Site {
    let evidence = (lean.capabilities.iter())
        .filter(|c| any_of.contains(&c.name))
        .flat_map(|c| &c.evidence)
        .filter(|e| e.step == Some(step));
    // Of equals the first, which has most checks.
    let found = evidence.reduce(|best, e| if e.verdict > best.verdict { e } else { best });
    Site {
        step,
        program: found
            .filter(|e| !e.program.is_empty())
            .map(|e| bounded(&e.program)),
        because: found.and_then(|e| e.because),
    }
}

/// At most [`TEXT`] characters; a longer text is cut and marked.
pub(crate) fn bounded(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::interpret::{arbitrary, interpret};
    use crate::report::SCHEMA;

    #[test]
    fn the_oldest_v1_still_reads() {
        // The fields that v1 began with, and no more.
        let text = format!(
            r#"{{"schema": "{SCHEMA}", "tool": {{"name": "kcap", "version": "0.0.1"}},
            "host": {{"kernel": "6.18", "arch": "x86_64", "hook": "tp_btf", "cgroup": "v2", "blind": [],
                "preemption": "none", "lsm": [], "seccomp": "filter", "sysctl": {{}}}},
            "subject": {{"dockerfile": "a/Dockerfile", "dockerfile_sha256": null, "context": null,
                "executor": null, "command": [], "exit_status": 0, "started": "2026-11-01T00:00:00Z",
                "duration_ms": 1, "capabilities": ["CHOWN", "KILL"]}},
            "complete": true, "interrupted": false,
            "loss": {{"checks": 0, "evidence": 0, "execs": 0, "skipped": 0}},
            "coverage": {{"ran": 1, "cached": 0, "skipped": 0, "unreached": 0}}, "basis": "observed",
            "required": ["CHOWN", "KILL"], "unsure": ["KILL"],
            "decisions": [{{"any_of": ["CHOWN"], "chosen": "CHOWN", "steps": [0]}}], "checks": 0,
            "capabilities": [],
            "steps": [{{"index": 0, "stage": 0, "line": 2, "kind": "run", "text": "RUN x",
                "state": "ran", "by": "exec", "checks": 0, "required": ["CHOWN"]}}]}}"#
        );
        let brief = Brief::from_json(text.as_bytes()).unwrap();
        assert_eq!(brief.required, [Cap::CHOWN, Cap::KILL]);
        let verdicts: Vec<_> = brief.needs.iter().map(|n| n.verdict).collect();
        assert_eq!(verdicts, [Verdict::Needed, Verdict::Unsure]);
        assert_eq!(brief.place(0).unwrap().line, Some(2));
        let whole = crate::report::from_json(text.as_bytes()).unwrap();
        assert_eq!(Brief::of(&whole), brief);
    }

    #[test]
    fn foreign_and_hostile_input_is_refused_as_such() {
        let error = |text: &str| Brief::from_json(text.as_bytes()).unwrap_err();
        assert!(matches!(error("{"), ParseError::Malformed(_)));
        assert!(matches!(error("{}"), ParseError::NotAReport));
        assert!(matches!(
            error(r#"{"schema":"x/v1"}"#),
            ParseError::NotAReport
        ));
        let later = r#"{"schema":"kcap.report/v2","required":7}"#;
        assert!(matches!(error(later), ParseError::Version(v) if v == "kcap.report/v2"));
        let mut report = interpret(&crate::capture::Capture::default());
        for a in 0..64u8 {
            for b in 0..a {
                report.decisions.push(crate::report::Decision {
                    any_of: vec![Cap(a), Cap(b)],
                    chosen: Cap(a),
                    steps: vec![],
                    verdict: Verdict::Needed,
                });
            }
        }
        let text = serde_json::to_string(&report).unwrap();
        assert!(matches!(error(&text), ParseError::Excessive { .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_report_is_an_error_or_a_report(
            capture in arbitrary::capture(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let mut text = serde_json::to_vec(&interpret(&capture)).unwrap();
            for (at, byte) in damage {
                let at = at.index(text.len());
                text[at] = byte;
            }
            if let Some(cut) = cut {
                text.truncate(cut.index(text.len()));
            }
            // What reads whole reads lean too, and to the same.
            if let Ok(report) = crate::report::from_json(&text) {
                prop_assert_eq!(Brief::from_json(&text).unwrap(), Brief::of(&report));
            } else if let Err(error) = Brief::from_json(&text) {
                let control = error.to_string().contains('\u{1b}');
                prop_assert!(!control, "{error:?}");
            }
        }

        #[test]
        fn read_lean_is_read_whole(capture in arbitrary::capture(), pretty in any::<bool>()) {
            let report = interpret(&capture);
            let text = if pretty {
                serde_json::to_vec_pretty(&report)
            } else {
                serde_json::to_vec(&report)
            };
            let brief = Brief::from_json(&text.unwrap()).unwrap();
            prop_assert_eq!(&brief, &Brief::of(&report));
            // And survives itself.
            let again = serde_json::to_vec(&brief).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Brief>(&again).unwrap(), brief);
        }
    }
}

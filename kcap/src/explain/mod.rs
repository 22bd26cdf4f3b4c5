//! Why a build asked for a capability, in plain words: a report and a capability to an
//! [`Explanation`]. Pure; what is known of capabilities, situations and public cases is data, in
//! tables of their own.

mod advice;
mod cases;
mod entries;
mod many;
mod name;
mod seen;
mod without;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

pub use cases::Case;
pub use many::{Explanations, Kept, Part, Spot, explain_many};
pub use name::{UnknownName, named};
pub(crate) use seen::Seen;
pub use without::Without;

use crate::report::{Because, Cap, Capability, Report, State, Verdict};

/// The schema of an explanation.
pub const SCHEMA: &str = "kcap.explanation/v1";
/// What a capability allows that is in no table.
const UNKNOWN: &str = "Not known to this kcap: a newer kernel added it.";
/// Most places, and kinds of checks in one.
const PLACES: (usize, usize) = (12, 4);
/// Most lines that an advice names.
const LINES: usize = 4;

/// One capability and one build.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Explanation {
    /// Name and major version of this format: `kcap.explanation/v1`.
    pub schema: &'static str,
    /// The Dockerfile's path as given, if known.
    pub dockerfile: Option<String>,
    /// The capability.
    pub name: Cap,
    /// Its number.
    pub number: u8,
    /// What the kernel lets its holder do.
    pub allows: &'static str,
    /// What it is to the build; null where nothing asked for it.
    pub verdict: Option<Verdict>,
    /// The mechanism.
    pub because: Option<Because>,
    /// It is in the set to allow.
    pub required: bool,
    /// The verdict in one sentence.
    pub summary: String,
    /// How often it was asked for.
    pub checks: u64,
    /// Of these, granted.
    pub granted: u64,
    /// Of these, refused.
    pub denied: u64,
    /// How often the kernel decided by it without a check.
    pub unasked: u64,
    /// The checks by what they are to the build, weightiest first.
    pub reasons: Vec<Reason>,
    /// Where, weightiest first; bounded.
    pub places: Vec<Place>,
    /// Places left out.
    pub more_places: usize,
    /// What a build without it would come to.
    pub without: Without,
    /// The same in a sentence.
    pub without_detail: &'static str,
    /// What is known to break without an error.
    pub silent: Option<&'static str>,
    /// What would avoid it.
    pub avoid: Vec<String>,
    /// Capabilities that would do in its place.
    pub alternatives: Vec<Cap>,
    /// What building again would settle.
    pub replay: &'static str,
    /// What it is in a pod with `hostUsers: false`.
    pub user_namespace: String,
    /// Public cases of the same.
    pub known: Vec<Case>,
    /// What limits all this.
    pub notes: Vec<String>,
}

/// Checks that are the same to the build.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Reason {
    /// What they are.
    pub verdict: Option<Verdict>,
    /// The mechanism.
    pub because: Option<Because>,
    /// In a sentence.
    pub reason: String,
    /// Checks, and decisions without one.
    pub count: u64,
}

/// A part of the build that asked.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Place {
    /// Index of the step.
    pub step: Option<u32>,
    /// Its kind.
    pub kind: String,
    /// Line of the Dockerfile.
    pub line: Option<u32>,
    /// The instruction's text, or what the step stands for.
    pub text: String,
    /// What asks there, in a few words.
    pub cause: Option<String>,
    /// The checks, weightiest first; bounded.
    pub asked: Vec<Asked>,
    /// Kinds of checks left out.
    pub more: usize,
}

/// Checks of one kind in a place.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Asked {
    /// Checks, and decisions without one.
    pub count: u64,
    /// Granted or refused; null without a check.
    pub granted: Option<bool>,
    /// The mechanism.
    pub because: Option<Because>,
    /// The system call.
    pub syscall: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Path of the program.
    pub program: String,
    /// A sample of the call path in the kernel, innermost first.
    pub path: Vec<String>,
}

/// What would avoid capabilities, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Avoid {
    /// The capabilities.
    pub(crate) caps: BTreeSet<Cap>,
    /// What to do.
    pub(crate) text: String,
}

/// Explains a capability to the reader of a report.
pub fn explain(report: &Report, cap: Cap) -> Explanation {
    let entry = entries::entry(cap);
    let capability = report.capabilities.iter().find(|c| c.name == cap);
    let without = capability.map_or_else(
        || {
            if report.complete {
                Without::Nothing
            } else {
                Without::Unknown
            }
        },
        |capability| without::of(report, capability),
    );
    let (places, more_places) = capability.map_or_else(Default::default, |c| places(report, c));
    Explanation {
        schema: SCHEMA,
        dockerfile: report.subject.dockerfile.clone(),
        name: cap,
        number: cap.0,
        allows: entry.map_or(UNKNOWN, |entry| entry.allows),
        verdict: capability.map(|c| c.verdict),
        because: capability.map(|c| c.because),
        required: report.required.contains(&cap),
        summary: summary(report, capability),
        checks: capability.map_or(0, |c| c.checks),
        granted: capability.map_or(0, |c| c.granted),
        denied: capability.map_or(0, |c| c.denied),
        unasked: capability.map_or(0, |c| c.unasked),
        reasons: capability.map_or_else(Vec::new, reasons),
        places,
        more_places,
        without,
        without_detail: without.sentence(),
        silent: entry.and_then(|entry| entry.silent),
        avoid: capability.map_or_else(Vec::new, |c| avoid_one(report, c)),
        alternatives: capability.map_or_else(Vec::new, |c| c.alternatives.clone()),
        replay: without.replay(),
        user_namespace: user_namespace(entry, report, capability),
        known: capability.map_or_else(Vec::new, |c| known(report, c)),
        notes: limits(report, cap),
    }
}

/// The JSON Schema of an explanation, with one trailing newline.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Explanation);
    schema.insert("$id".to_owned(), SCHEMA.into());
    format!("{:#}\n", schema.to_value())
}

/// The JSON Schema of an explanation of several builds, with one trailing newline.
pub fn schema_many() -> String {
    let mut schema = schemars::schema_for!(Explanations);
    schema.insert("$id".to_owned(), many::SCHEMA.into());
    format!("{:#}\n", schema.to_value())
}

/// The verdict in a sentence.
fn summary(report: &Report, capability: Option<&Capability>) -> String {
    let Some(capability) = capability else {
        return if report.complete {
            "nothing in this build asked for it".to_owned()
        } else {
            "as far as was seen, nothing in this build asked for it".to_owned()
        };
    };
    match capability.verdict {
        Verdict::Needed => format!("the build needs it: {}", capability.reason),
        Verdict::Unsure => format!("the build may need it: {}", capability.reason),
        Verdict::Unneeded => format!(
            "the build asked for it and does not need it: {}",
            capability.reason
        ),
    }
}

fn reasons(capability: &Capability) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = Vec::new();
    for evidence in &capability.evidence {
        let count = evidence.count.saturating_add(evidence.unasked);
        let same = reasons.iter_mut().find(|reason| {
            (reason.verdict, reason.because, reason.reason.as_str())
                == (evidence.verdict, evidence.because, &evidence.reason)
        });
        match same {
            Some(reason) => reason.count = reason.count.saturating_add(count),
            None => reasons.push(Reason {
                verdict: evidence.verdict,
                because: evidence.because,
                reason: evidence.reason.clone(),
                count,
            }),
        }
    }
    // Stable: what ties stays in the report's order.
    reasons.sort_by_key(|reason| std::cmp::Reverse((reason.verdict, reason.count)));
    reasons
}

/// The places that the verdict rests on; where nothing depends on it, all in the container.
fn places(report: &Report, capability: &Capability) -> (Vec<Place>, usize) {
    let mut by_step: BTreeMap<Option<u32>, Vec<Seen<'_>>> = BTreeMap::new();
    let needless = capability.verdict == Verdict::Unneeded;
    for seen in Seen::decisive(report, capability) {
        // The runtime's work is no part of the build.
        if needless && seen.kind() == "container-start" {
            continue;
        }
        by_step.entry(seen.evidence.step).or_default().push(seen);
    }
    let mut groups: Vec<Vec<Seen<'_>>> = by_step.into_values().collect();
    for group in &mut groups {
        group.sort_by_key(|seen| std::cmp::Reverse(rank(capability.name, seen)));
    }
    groups.sort_by_key(|group| {
        let best = group.first().map(|seen| rank(capability.name, seen));
        std::cmp::Reverse(best)
    });
    let more = groups.len().saturating_sub(PLACES.0);
    groups.truncate(PLACES.0);
    let place = |group: &Vec<Seen<'_>>| {
        let first = group.first()?;
        let step = first.step;
        Some(Place {
            step: first.evidence.step,
            kind: first.kind().to_owned(),
            line: first.line(),
            text: step.map_or_else(String::new, |step| step.text.clone()),
            cause: cause(capability.name, first).filter(|_| !needless),
            asked: group.iter().take(PLACES.1).map(asked).collect(),
            more: group.len().saturating_sub(PLACES.1),
        })
    };
    (groups.iter().filter_map(place).collect(), more)
}

fn asked(seen: &Seen<'_>) -> Asked {
    let evidence = seen.evidence;
    Asked {
        count: evidence.count.saturating_add(evidence.unasked),
        granted: evidence.granted,
        because: evidence.because,
        syscall: evidence.syscall.clone(),
        outcome: evidence.outcome.clone(),
        program: evidence.program.clone(),
        path: evidence.path.clone(),
    }
}

/// First what is known best to fail, then what says most to a reader.
fn rank(cap: Cap, seen: &Seen<'_>) -> (Without, (bool, u64, std::cmp::Reverse<u32>)) {
    (without::of_evidence(cap, seen), seen.weight())
}

/// The piece of evidence that stands for a capability on one line.
pub(crate) fn strongest<'a>(report: &'a Report, capability: &'a Capability) -> Option<Seen<'a>> {
    Seen::decisive(report, capability).max_by_key(|seen| rank(capability.name, seen))
}

/// What a build without it would come to.
pub(crate) fn without(report: &Report, capability: &Capability) -> Without {
    without::of(report, capability)
}

/// What asks, in a few words, where a row of advice knows.
pub(crate) fn cause(cap: Cap, seen: &Seen<'_>) -> Option<String> {
    let cause = advice::find(cap, seen)?.cause?;
    let user = seen
        .user_line()
        .map_or_else(String::new, |line| line.to_string());
    Some(cause.replace("{user}", &user))
}

/// `line 5`, `lines 5, 7`; `the build` where none is known.
fn line_list(lines: &BTreeSet<u32>) -> String {
    let mut shown: Vec<String> = lines.iter().take(LINES).map(u32::to_string).collect();
    if lines.len() > LINES {
        shown.push("…".to_owned());
    }
    match lines.len() {
        0 => "the build".to_owned(),
        1 => format!("line {}", shown[0]),
        _ => format!("lines {}", shown.join(", ")),
    }
}

/// The advice that a capability's evidence gets.
#[derive(Default)]
struct Rows {
    /// Each with the lines that it is about, weightiest first.
    list: Vec<(&'static advice::Advice, BTreeSet<u32>)>,
    /// Some of the evidence gets none.
    gaps: bool,
}

fn rows(report: &Report, capability: &Capability) -> Rows {
    let mut rows = Rows::default();
    if capability.verdict == Verdict::Unneeded {
        return rows;
    }
    for seen in Seen::decisive(report, capability) {
        let Some(row) = advice::find(capability.name, &seen) else {
            rows.gaps = true;
            continue;
        };
        let known = (rows.list.iter_mut()).find(|(known, _)| std::ptr::eq(*known, row));
        match known {
            Some((_, lines)) => lines.extend(seen.line()),
            None => rows.list.push((row, seen.line().into_iter().collect())),
        }
    }
    rows
}

fn avoid_one(report: &Report, capability: &Capability) -> Vec<String> {
    rows(report, capability)
        .list
        .into_iter()
        .map(|(row, lines)| row.long.replace("{lines}", &line_list(&lines)))
        .map(capitalised)
        .collect()
}

fn capitalised(mut text: String) -> String {
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// What would avoid capabilities of the set, a line each. Only where the line is enough: a
/// capability that other instructions need as well would stay.
pub(crate) fn avoid(report: &Report) -> Vec<Avoid> {
    let mut all: Vec<(&'static str, BTreeSet<Cap>, BTreeSet<u32>)> = Vec::new();
    let required = report
        .capabilities
        .iter()
        .filter(|c| report.required.contains(&c.name));
    for capability in required {
        let rows = rows(report, capability);
        let short = |(row, lines): (&advice::Advice, _)| Some((row.short?, lines));
        let list: Option<Vec<_>> = rows.list.into_iter().map(short).collect();
        for (text, lines) in list.filter(|_| !rows.gaps).into_iter().flatten() {
            match all.iter_mut().find(|(known, ..)| *known == text) {
                Some((_, caps, known)) => {
                    caps.insert(capability.name);
                    known.extend(lines);
                }
                None => all.push((text, BTreeSet::from([capability.name]), lines)),
            }
        }
    }
    let avoid = |(text, caps, lines): (&str, _, _)| Avoid {
        caps,
        text: text.replace("{lines}", &line_list(&lines)),
    };
    all.into_iter().map(avoid).collect()
}

fn user_namespace(
    entry: Option<&entries::Entry>,
    report: &Report,
    capability: Option<&Capability>,
) -> String {
    let mut text = entry.map_or_else(
        || "not known".to_owned(),
        |entry| entry.namespace.sentence().to_owned(),
    );
    if let Some(capability) = capability {
        let sampled = Seen::decisive(report, capability)
            .filter(|seen| !seen.evidence.path.is_empty())
            .map(|seen| seen.asked_host());
        let (host, all) = sampled.fold((0u32, 0u32), |(host, all), is| {
            (host + u32::from(is), all + 1)
        });
        if host > 0 && capability.verdict != Verdict::Unneeded {
            text += &format!("; here {host} of {all} sampled call paths ask the host's");
        }
    }
    text
}

fn known(report: &Report, capability: &Capability) -> Vec<Case> {
    if capability.verdict == Verdict::Unneeded {
        return Vec::new();
    }
    let mut known = Vec::new();
    for seen in Seen::decisive(report, capability) {
        for case in cases::of(capability.name, &seen) {
            if !known.contains(&case) {
                known.push(case);
            }
        }
    }
    known
}

/// What of the set a container in a user namespace of its own cannot have.
pub(crate) fn host_only(report: &Report) -> Vec<Cap> {
    let host = |cap: &Cap| {
        entries::entry(*cap).is_some_and(|entry| entry.namespace == entries::Namespace::Host)
    };
    report.required.iter().copied().filter(host).collect()
}

/// Security modules that may refuse what a capability grants.
const REFUSING: [&str; 4] = ["selinux", "apparmor", "smack", "tomoyo"];
/// Capabilities by which the default seccomp profiles of Docker, Podman and containerd open system
/// calls.
const OPENS_CALLS: [u8; 15] = [2, 16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 34, 38, 39, 40];

/// What keeps the report from saying more of a capability.
fn limits(report: &Report, cap: Cap) -> Vec<String> {
    let mut notes = Vec::new();
    if report.host.seccomp == "none" && OPENS_CALLS.contains(&cap.0) {
        notes.push(
            "no seccomp profile held in this build: under the default one of a runtime, system calls that nothing was asked for here may be refused without this capability"
                .to_owned(),
        );
    }
    let refusing: Vec<&str> = (report.host.lsm.iter().map(String::as_str))
        .filter(|lsm| REFUSING.contains(lsm))
        .collect();
    if !refusing.is_empty() {
        notes.push(format!(
            "security modules of the traced host ({}) may refuse what a capability grants; another host's may differ",
            refusing.join(", ")
        ));
    }
    if !report.complete {
        notes.push("not all was seen: what is missing may have asked for it too".to_owned());
    }
    let unseen = |state: State, what: &str| {
        let lines: BTreeSet<u32> = (report.steps.iter())
            .filter(|step| step.state == state)
            .filter_map(|step| step.line)
            .collect();
        (!lines.is_empty()).then(|| format!("{} {what}", line_list(&lines)))
    };
    notes.extend(
        unseen(
            State::Cached,
            "came from a cache: what it asks for was not seen",
        )
        .map(capitalised),
    );
    notes.extend(
        unseen(
            State::Unreached,
            "was not reached: what it asks for was not seen",
        )
        .map(capitalised),
    );
    notes.extend(report.notes.iter().cloned());
    notes
}

/// What a capability lets its holder do, and what is known to break without an error, whatever the
/// build.
pub(crate) fn allows(cap: Cap) -> (&'static str, Option<&'static str>) {
    entries::entry(cap).map_or((UNKNOWN, None), |entry| (entry.allows, entry.silent))
}

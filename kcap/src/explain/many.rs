//! One capability and several builds: what each Dockerfile needs it for, in which lines, and what
//! would avoid it there.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Case, Explanation, Place, Without, entries, explain, limits};
use crate::combine::{Brief, Build, Matrix, Saving, Status};
use crate::report::{Because, Cap, Report, Tool, Verdict};

/// The schema of an explanation of several builds.
pub const SCHEMA: &str = "kcap.explanations/v1";
/// Most places of a Dockerfile that are kept.
const PLACES: usize = 6;
/// Most lines of a Dockerfile that are kept.
const LINES: usize = 64;
/// Most notes.
const NOTES: usize = 8;

/// One capability and several builds. Fields may be added; within v1 none is renamed or removed.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Explanations {
    /// Name and major version of this format: `kcap.explanations/v1`.
    pub schema: &'static str,
    /// What made it.
    pub tool: Tool,
    /// The capability.
    pub name: Cap,
    /// Its number.
    pub number: u8,
    /// What the kernel lets its holder do.
    pub allows: &'static str,
    /// It is in the set that is enough for all.
    pub required: bool,
    /// The weightiest of the Dockerfiles' verdicts; null where none asked for it.
    pub verdict: Option<Verdict>,
    /// How many Dockerfiles there are.
    pub all: usize,
    /// Those that depend on it, those where one run cannot settle it, and those that asked for it
    /// without need, each in the order of the builds.
    pub dockerfiles: Vec<Part>,
    /// Without which Dockerfiles the set would not hold it; null where it is not in the set, or
    /// nothing is known to need less.
    pub saving: Option<Saving>,
    /// What is known to break without an error.
    pub silent: Option<&'static str>,
    /// What it is in a pod with `hostUsers: false`.
    pub user_namespace: String,
    /// Public cases of the same.
    pub known: Vec<Case>,
    /// What limits all this.
    pub notes: Vec<String>,
}

/// One Dockerfile that asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Part {
    /// What it is called in the matrix: its path as given, where that tells it apart.
    pub dockerfile: String,
    /// What became of its build.
    pub status: Status,
    /// How many runs of it there are.
    pub runs: usize,
    /// In how many of them it was required.
    pub required_in: usize,
    /// What it is to the Dockerfile once the set that is enough for all is allowed.
    pub verdict: Verdict,
    /// What of that set does in its place, where it is not needed for that reason.
    pub instead: Vec<Cap>,
    /// Lines that need it; bounded.
    pub lines: Vec<u32>,
    /// Where, weightiest first; bounded.
    pub places: Vec<Spot>,
    /// Places left out.
    pub more_places: usize,
    /// What a build without it would come to.
    pub without: Without,
    /// What would avoid it.
    pub avoid: Vec<String>,
}

/// A part of a build that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Spot {
    /// Line of the Dockerfile.
    pub line: Option<u32>,
    /// Its kind.
    pub kind: String,
    /// The instruction's text, or what the step stands for; bounded.
    pub text: String,
    /// What asks there, in a few words.
    pub cause: Option<String>,
    /// Path of the program, where known.
    pub program: Option<String>,
    /// The system call, where known.
    pub syscall: Option<String>,
    /// The mechanism, where known.
    pub because: Option<Because>,
}

/// What is kept of one report, so that thousands of them fit into memory.
#[derive(Clone, Debug)]
pub struct Kept {
    verdict: Option<Verdict>,
    spots: Vec<Spot>,
    more: usize,
    without: Without,
    avoid: Vec<String>,
    known: Vec<Case>,
    notes: Vec<String>,
}

impl Kept {
    /// Of a whole report.
    pub fn of(report: &Report, cap: Cap) -> Self {
        let explained = explain(report, cap);
        let Explanation { places, .. } = explained;
        let kept = places.len().min(PLACES);
        Self {
            verdict: explained.verdict,
            more: explained.more_places + places.len() - kept,
            spots: places.into_iter().take(PLACES).map(spot).collect(),
            without: explained.without,
            avoid: explained.avoid,
            known: explained.known,
            // Those of the whole report are for whoever reads it.
            notes: limits(report, cap)
                .into_iter()
                .filter(|note| !report.notes.contains(note))
                .collect(),
        }
    }
}

fn spot(place: Place) -> Spot {
    let first = place.asked.into_iter().next();
    let (program, syscall, because) = first.map_or((None, None, None), |a| {
        (Some(a.program), a.syscall, a.because)
    });
    Spot {
        line: place.line,
        kind: place.kind,
        text: bounded(place.text),
        cause: place.cause,
        program: program.filter(|program| !program.is_empty()).map(bounded),
        syscall,
        because,
    }
}

/// As a brief bounds it.
fn bounded(text: String) -> String {
    crate::combine::bounded(&text)
}

/// Explains a capability to the reader of several reports; `kept` is what is known of each run
/// beyond its brief, where its report was whole.
pub fn explain_many(matrix: &Matrix, kept: &BTreeMap<Brief, Kept>, cap: Cap) -> Explanations {
    let entry = entries::entry(cap);
    let forced: BTreeMap<&str, BTreeSet<u32>> = (matrix.forced(cap).into_iter())
        .map(|forced| (forced.build.dockerfile.as_str(), forced.lines))
        .collect();
    let mut known: Vec<Case> = Vec::new();
    let mut notes: BTreeMap<String, usize> = BTreeMap::new();
    let mut reduced = 0;
    let mut dockerfiles: Vec<Part> = Vec::new();
    for build in &matrix.builds {
        let Some(verdict) = matrix.cell(build, cap) else {
            continue;
        };
        let runs: Vec<&Kept> = build.runs.iter().filter_map(|run| kept.get(run)).collect();
        reduced += usize::from(runs.len() < build.runs.len());
        for case in runs.iter().flat_map(|kept| &kept.known) {
            if !known.contains(case) {
                known.push(*case);
            }
        }
        let said: BTreeSet<&String> = runs.iter().flat_map(|kept| &kept.notes).collect();
        for note in said {
            *notes.entry(note.clone()).or_default() += 1;
        }
        let lines = forced.get(build.dockerfile.as_str());
        dockerfiles.push(part(matrix, build, cap, verdict, &runs, lines));
    }
    dockerfiles.sort_by_key(|part| std::cmp::Reverse(part.verdict));
    let mut notes: Vec<(usize, String)> = notes.into_iter().map(|(note, n)| (n, note)).collect();
    notes.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let mut notes: Vec<String> = (notes.into_iter().take(NOTES))
        .map(|(n, note)| match (n, dockerfiles.len()) {
            (n, all) if n == all => note,
            (n, all) => format!("of {n} of {all} Dockerfiles: {note}"),
        })
        .collect();
    if reduced > 0 {
        notes.push(format!(
            "of {reduced} Dockerfiles not all reports are whole, as in a matrix: give the reports for \
             what asks and what avoids it"
        ));
    }
    Explanations {
        schema: SCHEMA,
        tool: Tool {
            name: "kcap".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        name: cap,
        number: cap.0,
        allows: entry.map_or(super::UNKNOWN, |entry| entry.allows),
        required: matrix.union.required.contains(&cap),
        verdict: dockerfiles.iter().map(|part| part.verdict).max(),
        all: matrix.builds.len(),
        dockerfiles,
        saving: (matrix
            .savings
            .iter()
            .find(|saving| saving.drops.contains(&cap)))
        .cloned(),
        silent: entry.and_then(|entry| entry.silent),
        user_namespace: entry.map_or_else(
            || "not known".to_owned(),
            |entry| entry.namespace.sentence().to_owned(),
        ),
        known,
        notes,
    }
}

fn part(
    matrix: &Matrix,
    build: &Build,
    cap: Cap,
    verdict: Verdict,
    runs: &[&Kept],
    lines: Option<&BTreeSet<u32>>,
) -> Part {
    // Only what bears the verdict explains it: elsewhere another capability was the answer.
    let told: Vec<&&Kept> = (runs.iter())
        .filter(|kept| (kept.verdict.max(Some(Verdict::Unneeded))) == Some(verdict))
        .collect();
    let mut spots: Vec<Spot> = Vec::new();
    let mut more = told.iter().map(|kept| kept.more).max().unwrap_or(0);
    let from_briefs = told.is_empty().then(|| sites(build, cap));
    // The last run first.
    let all = told
        .iter()
        .rev()
        .flat_map(|kept| kept.spots.iter().cloned());
    for spot in all.chain(from_briefs.into_iter().flatten()) {
        let same = |other: &Spot| (other.line, &other.text) == (spot.line, &spot.text);
        if spots.iter().any(same) {
        } else if spots.len() < PLACES {
            spots.push(spot);
        } else {
            more += 1;
        }
    }
    let mut avoid: Vec<String> = Vec::new();
    for text in told.iter().rev().flat_map(|kept| &kept.avoid) {
        if !avoid.contains(text) {
            avoid.push(text.clone());
        }
    }
    let without = told.iter().map(|kept| kept.without).max();
    let instead: BTreeSet<Cap> = (matrix.union.decisions.iter())
        .filter(|answer| verdict == Verdict::Unneeded && answer.any_of.contains(&cap))
        .filter(|answer| answer.dockerfiles.contains(&build.dockerfile))
        .map(|answer| answer.chosen)
        .collect();
    let counted = build.seen.iter().find(|seen| seen.name == cap);
    let required_in = match (counted, verdict) {
        (Some(seen), _) => seen.runs,
        (None, Verdict::Unneeded) => 0,
        (None, _) => build.runs.len().min(1),
    };
    Part {
        dockerfile: build.dockerfile.clone(),
        status: build.status,
        runs: build.runs.len(),
        required_in,
        verdict,
        instead: instead.into_iter().collect(),
        lines: lines.into_iter().flatten().take(LINES).copied().collect(),
        places: spots,
        more_places: more,
        without: match (without, verdict) {
            (Some(without), _) => without,
            (None, Verdict::Unneeded) if build.is_lossless() => Without::Nothing,
            (None, _) => Without::Unknown,
        },
        avoid,
    }
}

/// What briefs say of where a capability answers a need.
fn sites(build: &Build, cap: Cap) -> Vec<Spot> {
    let mut spots = Vec::new();
    for run in build.runs.iter().rev() {
        for need in run.needs.iter().filter(|need| need.any_of.contains(&cap)) {
            for site in &need.at {
                let place = run.place(site.step);
                spots.push(Spot {
                    line: place.and_then(|place| place.line),
                    kind: place.map_or_else(String::new, |place| place.kind.clone()),
                    text: place.map_or_else(String::new, |place| place.text.clone()),
                    cause: None,
                    program: site.program.clone(),
                    syscall: None,
                    because: site.because,
                });
            }
        }
    }
    spots
}

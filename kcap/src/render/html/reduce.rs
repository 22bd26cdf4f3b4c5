//! A report to what a page has room for. Where it has little, what is needed stays longest, and what
//! is left out is counted.

use std::collections::BTreeSet;

use super::super::escape::{head, tail};
use super::super::table::{self, Paint};
use super::super::{proof, rows, unneeded};
use super::data::{
    Answer, Capability, Detail, Evidence, Fact, Need, Once, Proof, Step, Text, Trial, letter,
};
use crate::explain::{self, Without};
use crate::report::{self, Cap, Report, Verdict};

/// Most columns of what asks, of a path, of a name, and of a function of the kernel.
const WHY: usize = 110;
const PROGRAM: usize = 160;
const NAME: usize = 64;
/// Most columns of a sentence that kcap or a replay made.
const SENTENCE: usize = 600;
/// Most functions of a call path.
const PATH: usize = 24;
/// Most lines of a need, most notes and most sentences on settings.
const LINES: usize = 12;
const NOTES: usize = 12;
/// Most replays, and most differences of one.
const TRIALS: (usize, usize) = (40, 4);

/// How much of a report is taken.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// Most kinds of checks of a capability that is needed or unsure, and of another.
    evidence: (usize, usize),
    /// Most columns of an instruction.
    text: usize,
    /// Most steps.
    steps: usize,
    /// What is known beyond the verdict, in sentences.
    explained: bool,
}

/// From all that a page has room for by itself to the least that is of use.
pub const LEVELS: [Level; 5] = [
    level((200, 60), 20_000, 4000, true),
    level((40, 8), 2000, 800, true),
    level((8, 2), 400, 200, true),
    level((2, 0), 200, 80, true),
    level((0, 0), 80, 40, false),
];

const fn level(evidence: (usize, usize), text: usize, steps: usize, explained: bool) -> Level {
    Level {
        evidence,
        text,
        steps,
        explained,
    }
}

/// What several reports name, each once.
#[derive(Debug, Default)]
pub struct Pool {
    /// Texts.
    pub strings: Once<String>,
    /// Call paths of texts.
    pub paths: Once<Vec<Text>>,
    /// Capabilities.
    pub caps: Once<Cap>,
}

impl Pool {
    fn text(&mut self, text: impl Into<String>) -> Text {
        self.strings.place(text.into())
    }

    /// The place of a capability.
    pub fn cap(&mut self, cap: Cap) -> usize {
        self.caps.place(cap) as usize
    }

    fn cap_list<'a>(&mut self, caps: impl IntoIterator<Item = &'a Cap>) -> Vec<usize> {
        caps.into_iter().map(|cap| self.cap(*cap)).collect()
    }
}

/// What to read first.
pub fn answer(report: &Report) -> Answer {
    let (required, rest): (Vec<_>, Vec<_>) = (report.capabilities.iter())
        .partition(|capability| report.required.contains(&capability.name));
    let (unsure, sure): (Vec<&Cap>, Vec<&Cap>) =
        (report.required.iter()).partition(|cap| report.unsure.contains(cap));
    let names = |caps: &[&Cap]| caps.iter().map(|cap| cap.to_string()).collect();
    let mut answer = Answer {
        status: table::about(report).join("   "),
        sure: names(&sure),
        unsure: names(&unsure),
        at_least: if report.complete { "" } else { "at least" },
        drops: table::drops(report).filter(|_| report.complete),
        warnings: warnings(report),
        apply: (report.complete).then(|| apply(&report.required)),
        needs: needs(report, &required),
        short: (explain::avoid(report).into_iter())
            .map(|avoid| {
                let caps: Vec<Cap> = avoid.caps.iter().copied().collect();
                (table::names(&caps, " "), avoid.text)
            })
            .collect(),
        facts: Vec::new(),
        log: (table::log(report).iter())
            .map(|line| head(line, SENTENCE))
            .collect(),
    };
    let facts = &mut answer.facts;
    for (paint, text) in proof::texts(report) {
        facts.push(fact(tone(paint), "Proof", text));
    }
    if !rest.is_empty() {
        // With loss, what was seen of a capability does not say that it is not required.
        let (tone, label) = if report.complete {
            ("good", "Not needed")
        } else {
            ("", "Asked for")
        };
        facts.push(fact(tone, label, unneeded::text(report, &rest)));
    }
    let host = explain::host_only(report);
    if !host.is_empty() {
        let text = format!(
            "{}: not to be had in a pod with hostUsers: false",
            table::names(&host, " ")
        );
        facts.push(fact("unsure", "Note", text));
    }
    for hidden in report
        .suppressed
        .iter()
        .filter(|hidden| hidden.step.is_some())
        .take(NOTES)
    {
        let text = format!("{}: {}", hidden.name, head(&hidden.reason, SENTENCE));
        facts.push(fact("unsure", "Elsewhere", text));
    }
    for note in report.notes.iter().take(NOTES) {
        facts.push(fact("unsure", "Note", head(note, SENTENCE)));
    }
    if let Some(next) = proof::next(report) {
        facts.push(fact("", "To be sure", next));
    }
    answer
}

/// The line to paste.
pub fn apply(caps: &[Cap]) -> String {
    format!(
        "capabilities: {{drop: [ALL], add: [{}]}}",
        table::names(caps, ", ")
    )
}

fn fact(tone: &'static str, label: &'static str, text: impl Into<String>) -> Fact {
    Fact {
        tone,
        label,
        text: text.into(),
    }
}

fn tone(paint: Paint) -> &'static str {
    match paint {
        Paint::Bad => "bad",
        Paint::Unsure => "unsure",
        Paint::Good => "good",
        Paint::Bold => "",
    }
}

/// What a reader must know before the answer.
fn warnings(report: &Report) -> Vec<Fact> {
    let subject = &report.subject;
    let mut warnings = Vec::new();
    if !report.complete {
        warnings.push(fact("bad", "Incomplete", table::incomplete(&report.loss)));
    }
    if report.interrupted {
        let text = "a signal ended the trace before the build ended: what came after was not seen";
        warnings.push(fact("bad", "Interrupted", text));
    } else if subject.exit_status != Some(0) {
        let why = match (subject.out_of_memory, subject.timed_out) {
            (true, _) => "the container was killed for want of memory; ",
            (_, true) => "kcap killed it, since it took longer than it may; ",
            _ => "",
        };
        let last = table::last(report).map_or_else(String::new, |last| format!(", in {last}"));
        let text = match subject.exit_status {
            Some(status) => format!("{why}the build ended with {status}{last}"),
            None => format!("{why}its end was not seen{last}"),
        };
        let text = format!("{text}. What it would need after that was not seen");
        warnings.push(fact("bad", "Failed", text));
    }
    if subject.late {
        let text = "the trace began when the build was running: what came before was not seen";
        warnings.push(fact("bad", "Late", text));
    }
    let coverage = &report.coverage;
    let unseen = coverage.cached > 0 || coverage.unreached > 0;
    let tone = if unseen { "unsure" } else { "" };
    warnings.push(fact(tone, "Seen", table::seen(report)));
    warnings
}

fn needs(report: &Report, required: &[&report::Capability]) -> Vec<Need> {
    (rows::rows(report, required, WHY).into_iter())
        .map(|row| {
            let first = row
                .line
                .split('+')
                .next()
                .and_then(|line| line.parse().ok());
            let lines: BTreeSet<u32> = (report.steps.iter())
                .filter(|step| row.caps.iter().any(|cap| step.required.contains(cap)))
                .filter_map(|step| step.line)
                .filter(|line| Some(*line) != first)
                .collect();
            let mut avoid: Vec<String> = Vec::new();
            for capability in required.iter().filter(|c| row.caps.contains(&c.name)) {
                for text in explain::explain(report, capability.name).avoid {
                    if !avoid.contains(&text) {
                        avoid.push(text);
                    }
                }
            }
            Need {
                caps: row.caps.iter().map(Cap::to_string).collect(),
                unsure: row.verdict != Verdict::Needed,
                more: lines.len().saturating_sub(LINES),
                lines: first.into_iter().chain(lines).take(LINES + 1).collect(),
                why: row.why,
                without: row.without.brief().to_owned(),
                tone: without_tone(row.without, row.verdict),
                avoid,
            }
        })
        .collect()
}

fn without_tone(without: Without, verdict: Verdict) -> &'static str {
    match without {
        Without::BuildFails | Without::FailedHere => "bad",
        _ if verdict == Verdict::Unsure => "unsure",
        _ => "",
    }
}

/// A report at a level, with what of it is left out: kinds of checks, and steps.
pub fn detail(report: &Report, level: Level, pool: &mut Pool) -> (Detail, usize, usize) {
    let steps: Vec<Step> = (report.steps.iter().take(level.steps))
        .map(|step| self::step(step, level, pool))
        .collect();
    let caps: Vec<Capability> = (report.capabilities.iter())
        .map(|capability| self::capability(report, capability, level, pool))
        .collect();
    let trials = (report.trials.iter().take(TRIALS.0))
        .filter(|_| level.explained)
        .map(|trial| Trial {
            purpose: pool.text(head(&trial.purpose, NAME)),
            set: table::names(&trial.set, " "),
            outcome: pool.text(head(&trial.outcome, NAME)),
            differs: (trial.differs.iter().take(TRIALS.1))
                .map(|what| pool.text(head(what, SENTENCE / 2)))
                .collect(),
        })
        .collect();
    let kinds = caps.iter().map(|capability| capability.more).sum();
    let detail = Detail {
        answer: level.explained.then(|| answer(report)),
        trials,
        caps,
        steps,
    };
    (
        detail,
        kinds,
        report.steps.len().saturating_sub(level.steps),
    )
}

fn step(step: &report::Step, level: Level, pool: &mut Pool) -> Step {
    let instruction = table::is_instruction(step);
    let text = if instruction || step.line.is_none() {
        &*step.text
    } else {
        // What it is about follows, and stands in its line.
        step.text
            .split_once(": ")
            .map_or(&*step.text, |(what, _)| what)
    };
    Step {
        index: step.index,
        line: step.line,
        stage: step.stage,
        kind: pool.text(head(&step.kind, NAME)),
        instruction,
        text: pool.text(head(text, level.text)),
        state: pool.text(step.state.to_string()),
        holds: (step.holds.as_deref()).map(|holds| pool.text(head(holds, SENTENCE))),
        checks: step.checks,
        required: pool.cap_list(&step.required),
    }
}

fn capability(
    report: &Report,
    capability: &report::Capability,
    level: Level,
    pool: &mut Pool,
) -> Capability {
    let most = match capability.verdict {
        Verdict::Unneeded => level.evidence.1,
        _ => level.evidence.0,
    };
    let e = explain::explain(report, capability.name);
    let mut texts = |list: &[String], most: usize| -> Vec<Text> {
        let list = list.iter().take(if level.explained { most } else { 0 });
        list.map(|text| pool.text(head(text, SENTENCE))).collect()
    };
    let (avoid, notes) = (texts(&e.avoid, NOTES), texts(&e.notes, NOTES));
    let cases = e.known.iter().filter(|_| level.explained);
    let known = cases
        .map(|case| (pool.text(case.source), pool.text(case.what)))
        .collect();
    let without = pool.text(e.without.brief());
    Capability {
        cap: pool.cap(capability.name),
        verdict: letter(Some(capability.verdict)),
        required: e.required,
        checks: e.checks,
        denied: e.denied,
        unasked: e.unasked,
        steps: (capability.steps.iter().take(level.steps))
            .map(|step| (step.step, step.checks))
            .collect(),
        summary: pool.text(head(&e.summary, SENTENCE)),
        without: (without, pool.text(e.without_detail)),
        tone: without_tone(e.without, capability.verdict),
        avoid,
        alternatives: pool.cap_list(&e.alternatives),
        proof: (capability.proof.as_ref()).map(|proof| Proof {
            outcome: proof.outcome.to_string(),
            detail: head(&proof.detail, SENTENCE),
            step: proof.step,
            tolerated: (proof.tolerated.iter().take(TRIALS.1))
                .map(|what| head(what, SENTENCE / 2))
                .collect(),
        }),
        replay: pool.text(e.replay),
        userns: pool.text(e.user_namespace),
        known,
        notes,
        evidence: (capability.evidence.iter().take(most))
            .map(|evidence| self::evidence(evidence, pool))
            .collect(),
        more: capability.evidence.len().saturating_sub(most),
    }
}

fn evidence(evidence: &report::Evidence, pool: &mut Pool) -> Evidence {
    let path: Vec<Text> = (evidence.path.iter().take(PATH))
        .map(|function| pool.text(head(function, NAME)))
        .collect();
    let program = match &*evidence.program {
        "" => "(unknown)".to_owned(),
        program => tail(program, PROGRAM),
    };
    (
        evidence.step,
        evidence.count.saturating_add(evidence.unasked),
        evidence.granted,
        letter(evidence.verdict),
        (evidence.syscall.as_deref()).map(|call| pool.text(head(call, NAME))),
        (evidence.outcome.as_deref()).map(|outcome| pool.text(head(outcome, NAME))),
        pool.text(program),
        (!path.is_empty()).then(|| pool.paths.place(path)),
        pool.text(head(&evidence.reason, SENTENCE)),
    )
}

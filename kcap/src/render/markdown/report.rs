//! One report.

use super::super::escape::head;
use super::super::table::{LOG, about, is_instruction, lost, name, names, seen};
use super::super::{proof, rows, unneeded};
use super::page::{Align, Page};
use super::text::{code, code_tail, prose};
use super::{ITEMS, PATH, SENTENCE, TEXT, lines, securitycontext, set};
use crate::explain;
use crate::report::{Cap, Capability, Report, State};

/// Most columns of a line of a log.
const LINE: usize = 160;

pub fn report(report: &Report) -> String {
    let mut page = Page::default();
    page.heading(&format!(
        "{} {}",
        code_tail(&name(report), PATH),
        answer(report)
    ));
    page.paragraph(&prose(&summary(report), SENTENCE));
    if !report.complete {
        page.paragraph(&format!(
            "**Incomplete**: {}; a capability that is not listed may still be required: trace again.",
            prose(&lost(&report.loss), SENTENCE)
        ));
    }
    ending(&mut page, report);

    let (required, rest): (Vec<&Capability>, Vec<&Capability>) = (report.capabilities.iter())
        .partition(|capability| report.required.contains(&capability.name));
    needs(&mut page, report, &required);
    let avoid: Vec<String> = (explain::avoid(report).iter())
        .map(|avoid| {
            let caps: Vec<Cap> = avoid.caps.iter().copied().collect();
            format!("{}: {}", names(&caps, " "), prose(&avoid.text, SENTENCE))
        })
        .collect();
    if !avoid.is_empty() {
        page.paragraph("What would avoid some of it:");
        page.list(&avoid, ITEMS);
    }
    let notes = notes(report);
    if !notes.is_empty() {
        page.paragraph("What to know beside:");
        page.list(&notes, ITEMS);
    }
    if report.complete {
        page.details("What to allow", |page| {
            page.lines("yaml", &securitycontext(&report.required));
        });
    }
    trials(&mut page, report);
    unneeded(&mut page, report, &rest);
    instructions(&mut page, report);
    page.finish()
}

fn answer(report: &Report) -> String {
    let set = set(&report.required, &report.unsure);
    match (report.complete, report.required.is_empty()) {
        (true, _) => format!("needs {set}"),
        (false, true) => "was not seen to need any capability".to_owned(),
        (false, false) => format!("needs at least {set}"),
    }
}

/// How it was built, and how much was seen.
fn summary(report: &Report) -> String {
    let mut text = about(report).join(", ");
    let today = &report.subject.capabilities;
    if report.complete && !today.is_empty() {
        let dropped = today.iter().filter(|cap| !report.required.contains(cap));
        text += &format!(
            "; it can do without {} of the {} it ran with",
            dropped.count(),
            today.len()
        );
        let added: Vec<Cap> = (report.required.iter().filter(|cap| !today.contains(cap)))
            .copied()
            .collect();
        if !added.is_empty() {
            text += &format!(", and needs {} beside", names(&added, ", "));
        }
    }
    format!("{text}. Seen: {}.", seen(report))
}

/// Where a build ended that did not succeed.
fn ending(page: &mut Page, report: &Report) {
    let subject = &report.subject;
    if subject.exit_status == Some(0) {
        return;
    }
    let last = (subject.failed_step.or(subject.last_step))
        .and_then(|index| report.steps.get(index as usize));
    if let Some(step) = last {
        let line = (step.line).map_or_else(String::new, |line| format!(" in line {line}"));
        let text = code(&step.text, TEXT);
        page.paragraph(&format!("It ended{line}, {text}."));
    }
    let skip = subject.log.len().saturating_sub(LOG);
    let log: Vec<String> = (subject.log.iter().skip(skip))
        .map(|line| head(line, LINE))
        .collect();
    if !log.is_empty() {
        page.lines("text", &log);
    }
}

/// A row for capabilities that share all but their name.
fn needs(page: &mut Page, report: &Report, required: &[&Capability]) {
    let mut rows: Vec<(Vec<Cap>, [String; 3])> = Vec::new();
    for capability in required {
        let cells = [
            where_(report, capability),
            why(report, capability),
            without(report, capability),
        ];
        match rows.iter_mut().find(|(_, other)| *other == cells) {
            Some((caps, _)) => caps.push(capability.name),
            None => rows.push((vec![capability.name], cells)),
        }
    }
    let unsure = |cap: &Cap| report.unsure.contains(cap);
    let rows = rows.into_iter().map(|(caps, [line, why, without])| {
        let caps: Vec<String> = (caps.iter())
            .map(|cap| match unsure(cap) {
                true => format!("{cap} (unsure)"),
                false => format!("**{cap}**"),
            })
            .collect();
        vec![caps.join(" "), line, why, without]
    });
    let columns = [
        ("Capability", Align::Left),
        ("Line", Align::Right),
        ("Why", Align::Left),
        ("Without it", Align::Left),
    ];
    page.table(&columns, rows, "capabilities");
}

/// The line that says most, then the others that require it.
fn where_(report: &Report, capability: &Capability) -> String {
    let first = explain::strongest(report, capability).and_then(|seen| seen.line());
    let mut others: Vec<u32> = (report.steps.iter())
        .filter(|step| step.required.contains(&capability.name))
        .filter_map(|step| step.line)
        .filter(|line| first != Some(*line))
        .collect();
    others.sort_unstable();
    others.dedup();
    lines(first.into_iter().chain(others))
}

/// The instruction, and what in it asks.
fn why(report: &Report, capability: &Capability) -> String {
    let Some(seen) = explain::strongest(report, capability) else {
        return prose(&capability.reason, SENTENCE);
    };
    let Some(step) = seen.step.filter(|step| step.line.is_some()) else {
        let program = code_tail(&seen.evidence.program, PATH);
        return match &seen.evidence.syscall {
            Some(call) => format!("{program}: {}", code(call, TEXT)),
            None => program,
        };
    };
    let text = match rows::phase(step) {
        None => code(&step.text, TEXT),
        Some((kind, of)) => format!("{}, {}", prose(kind, TEXT), code(of, TEXT)),
    };
    match rows::cause(capability.name, &seen, step) {
        None => text,
        Some(cause) => format!("{text} ({})", prose(&cause, TEXT)),
    }
}

/// What becomes of the build, as a replay showed or as far as one run can tell.
fn without(report: &Report, capability: &Capability) -> String {
    let brief = explain::without(report, capability).brief();
    match &capability.proof {
        Some(proof) if !proof.detail.is_empty() => {
            format!("{brief}: {}", prose(&proof.detail, SENTENCE))
        }
        _ => brief.to_owned(),
    }
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let host = explain::host_only(report);
    if !host.is_empty() {
        notes.push(format!(
            "{}: not to be had in a pod with `hostUsers: false`",
            names(&host, " ")
        ));
    }
    notes.extend(report.notes.iter().map(|note| prose(note, SENTENCE)));
    notes
}

fn trials(page: &mut Page, report: &Report) {
    let Some(proof) = &report.proof else {
        return;
    };
    let (_, outcome) = proof::outcome(report, proof);
    page.paragraph(&format!("**Proof**: {}.", prose(&outcome, SENTENCE)));
    let doubts = proof::doubts(proof);
    let doubts: Vec<String> = doubts.iter().map(|text| prose(text, SENTENCE)).collect();
    page.list(&doubts, ITEMS);
    let rows = report.trials.iter().map(|trial| {
        vec![
            prose(&trial.purpose, TEXT),
            match &trial.set[..] {
                [] => "nothing".to_owned(),
                set => names(set, " "),
            },
            prose(&trial.outcome, TEXT),
            format!("{:.1} s", trial.seconds),
            match trial.differs.first() {
                None => String::new(),
                Some(first) => code(first, TEXT),
            },
        ]
    });
    let columns = [
        ("Build", Align::Left),
        ("Allowed", Align::Left),
        ("Outcome", Align::Left),
        ("Took", Align::Right),
        ("What shows it", Align::Left),
    ];
    page.details(&format!("Builds: {}", report.trials.len()), |page| {
        page.table(&columns, rows, "builds");
    });
}

/// What was asked for, and is not in the set.
fn unneeded(page: &mut Page, report: &Report, rest: &[&Capability]) {
    // With loss, what was seen of a capability does not say that it is not required.
    let what = if report.complete {
        "Asked for, not needed"
    } else {
        "Asked for, as far as was seen not needed"
    };
    let rows = rest.iter().map(|capability| {
        let times = capability.checks.max(capability.unasked);
        let why = unneeded::phrases(capability);
        vec![capability.name.to_string(), times.to_string(), why]
    });
    let columns = [
        ("Capability", Align::Left),
        ("Times", Align::Right),
        ("Why not", Align::Left),
    ];
    page.details(&format!("{what}: {}", rest.len()), |page| {
        page.table(&columns, rows, "capabilities");
    });
}

/// The Dockerfile, line by line.
fn instructions(page: &mut Page, report: &Report) {
    let mut all: Vec<_> = (report.steps.iter())
        .filter(|step| is_instruction(step) && step.line.is_some())
        .map(|step| (step.line, step, step.required.clone()))
        .collect();
    // What the executor does around an instruction is needed for it.
    for step in report.steps.iter().filter(|step| !is_instruction(step)) {
        let of = all.iter_mut().find(|(line, ..)| *line == step.line);
        if let (Some((_, _, caps)), Some(_)) = (of, step.line) {
            caps.extend(&step.required);
            caps.sort_unstable();
            caps.dedup();
        }
    }
    let rows = all.iter().map(|(line, step, caps)| {
        let state = match step.state {
            State::Ran => String::new(),
            State::Cached => "cached, not seen".to_owned(),
            State::Skipped => "skipped".to_owned(),
            State::Unreached => "not reached, not seen".to_owned(),
        };
        let needs: Vec<String> = (caps.iter())
            .map(|cap| {
                let unsure = report.unsure.contains(cap);
                format!("{cap}{}", if unsure { "?" } else { "" })
            })
            .chain((!state.is_empty()).then_some(state))
            .collect();
        let line = line.map_or_else(String::new, |line| line.to_string());
        vec![line, code(&step.text, TEXT), needs.join(" ")]
    });
    let columns = [
        ("Line", Align::Right),
        ("Instruction", Align::Left),
        ("Needs", Align::Left),
    ];
    page.details("Line by line", |page| {
        page.table(&columns, rows, "instructions");
    });
}

//! The table of needs: where each is met, what asks there, and what comes of the build without it.

use std::io::{self, Write};

use super::escape::{head, tail, width};
use super::table::{COLUMNS, Paint, Screen, is_instruction, wrap};
use crate::explain::{self, Seen, Without};
use crate::report::{Cap, Capability, Evidence, Report, Step, Verdict};

/// Widths of the columns.
const CAP: usize = 19;
const LINE: usize = 5;
const WITHOUT: usize = 15;
const WHY: usize = COLUMNS - CAP - LINE - WITHOUT - 5;
/// Programs whose name says nothing about what is done.
const SILENT_NAMES: [&str; 4] = ["exe", "sh", "bash", "dash"];

/// A row, of capabilities that share all but their name.
pub(super) struct Row {
    pub(super) caps: Vec<Cap>,
    pub(super) line: String,
    pub(super) why: String,
    pub(super) without: Without,
    pub(super) verdict: Verdict,
}

/// The rows of some capabilities; why, in at most `most` columns.
pub(super) fn rows(report: &Report, capabilities: &[&Capability], most: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for capability in capabilities {
        let row = row(report, capability, most);
        let same = rows.iter_mut().find(|other| {
            (&other.line, &other.why, other.without, other.verdict)
                == (&row.line, &row.why, row.without, row.verdict)
        });
        match same {
            Some(other) => other.caps.extend(row.caps),
            None => rows.push(row),
        }
    }
    rows
}

/// Writes the table of some capabilities.
pub(super) fn write<W: Write>(
    screen: &mut Screen<'_, W>,
    report: &Report,
    capabilities: &[&Capability],
) -> io::Result<()> {
    let header = format!(
        "{:<CAP$} {:>LINE$}  {:<WHY$}  {}",
        "CAP", "LINE", "WHY", "WITHOUT IT"
    );
    writeln!(screen.to, "{}", screen.paint(Paint::Bold, &header))?;
    for row in &rows(report, capabilities, WHY) {
        let names: Vec<String> = row.caps.iter().map(Cap::to_string).collect();
        let paint = match row.verdict {
            Verdict::Needed => Paint::Bold,
            Verdict::Unsure | Verdict::Unneeded => Paint::Unsure,
        };
        for (i, names) in wrap(&names.join(" "), CAP).iter().enumerate() {
            let names = format!("{names:<CAP$}");
            if i > 0 {
                writeln!(screen.to, "{}", screen.paint(paint, names.trim_end()))?;
                continue;
            }
            let pad = " ".repeat(WHY.saturating_sub(width(&row.why)));
            let without = row.without.brief();
            let without = match row.without {
                Without::BuildFails | Without::FailedHere => screen.paint(Paint::Bad, without),
                _ if row.verdict == Verdict::Unsure => screen.paint(Paint::Unsure, without),
                _ => without.to_owned(),
            };
            writeln!(
                screen.to,
                "{} {:>LINE$}  {}{pad}  {without}",
                screen.paint(paint, &names),
                row.line,
                row.why
            )?;
        }
    }
    Ok(())
}

fn row(report: &Report, capability: &Capability, most: usize) -> Row {
    let seen = explain::strongest(report, capability);
    Row {
        caps: vec![capability.name],
        line: head(&numbers(report, capability.name, seen.as_ref()), LINE),
        why: match &seen {
            Some(seen) => why(capability.name, seen, most),
            None => head(&capability.reason, most),
        },
        without: explain::without(report, capability),
        verdict: capability.verdict,
    }
}

/// The instruction's text, and what in it asks.
fn why(cap: Cap, seen: &Seen<'_>, most: usize) -> String {
    let Some(step) = seen.step.filter(|step| step.line.is_some()) else {
        return place(seen.evidence, most);
    };
    let text = match phase(step) {
        None => step.text.clone(),
        Some((kind, of)) => format!("{kind} {of}"),
    };
    match cause(cap, seen, step) {
        None => head(&text, most),
        Some(cause) => {
            let cause = format!(" ({})", head(&cause, most / 2));
            head(&text, most.saturating_sub(width(&cause))) + &cause
        }
    }
}

/// Of the executor's own work around an instruction: its kind, and the instruction.
pub(super) fn phase(step: &Step) -> Option<(&str, &str)> {
    // What the step stands for ends with the instruction.
    let of = step.text.split_once(": ").map_or(&*step.text, |(_, of)| of);
    (!is_instruction(step)).then_some((&*step.kind, of))
}

/// What asks in a step, where the step's text does not say it.
pub(super) fn cause(cap: Cap, seen: &Seen<'_>, step: &Step) -> Option<String> {
    explain::cause(cap, seen).or_else(|| {
        let program = telling(seen.program(), &step.text)?;
        (!seen.by_executor()).then(|| program.to_owned())
    })
}

/// The last part of a program's path, where it says more than the instruction's text.
pub(super) fn telling<'a>(program: &'a str, text: &str) -> Option<&'a str> {
    let name = program.rsplit('/').next().unwrap_or(program);
    let told = name.is_empty()
        || SILENT_NAMES.contains(&name)
        || text.split_ascii_whitespace().nth(1) == Some(name);
    (!told).then_some(name)
}

/// The line of a step, and how many more lines require the capability.
fn numbers(report: &Report, cap: Cap, seen: Option<&Seen<'_>>) -> String {
    let Some(line) = seen.and_then(Seen::line) else {
        return "-".to_owned();
    };
    let mut more: Vec<u32> = report
        .steps
        .iter()
        .filter(|step| step.required.contains(&cap))
        .filter_map(|step| step.line)
        .filter(|other| *other != line)
        .collect();
    more.sort_unstable();
    more.dedup();
    match more.len() {
        0 => line.to_string(),
        count => format!("{line}+{count}"),
    }
}

/// The program and its system call, in at most `most` columns.
fn place(evidence: &Evidence, most: usize) -> String {
    let call = match (&evidence.syscall, evidence.granted) {
        (Some(call), _) => format!(": {}", head(call, most / 2)),
        (None, None) => ": exec".to_owned(),
        (None, Some(_)) => String::new(),
    };
    let program = if evidence.program.is_empty() {
        "(unknown)"
    } else {
        &evidence.program
    };
    tail(program, most.saturating_sub(width(&call))) + &call
}

//! One capability and one build for people, 80 columns.

use std::io::{self, Write};

use super::Style;
use super::escape::{head, shown};
use super::table::{COLUMNS, Paint, Screen, names};
use crate::explain::{Asked, Explanation, Place, Without};
use crate::report::Verdict;

/// Most characters of an instruction, a reason and a note.
const TEXT: usize = 240;
/// Most functions of a call path.
const PATH: usize = 6;
/// Functions at the two ends of every call path, which say nothing.
const ENDS: [&str; 6] = [
    "__traceiter_cap_capable",
    "cap_capable",
    "security_capable",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
    "x64_sys_call",
];

/// Writes the explanation.
pub fn write<W: Write>(e: &Explanation, style: Style, to: &mut W) -> io::Result<()> {
    let screen = &mut Screen { to, style };
    let (paint, word) = match e.verdict {
        Some(Verdict::Needed) => (Paint::Bold, "needed"),
        Some(Verdict::Unsure) => (Paint::Unsure, "unsure"),
        Some(Verdict::Unneeded) => (Paint::Good, "not needed"),
        None => (Paint::Good, "not asked for"),
    };
    let of = e.dockerfile.as_deref().unwrap_or("this build");
    let rest = format!("{:<18} {word}   ", e.name.to_string());
    let of = super::escape::tail(of, COLUMNS.saturating_sub(rest.len()));
    writeln!(screen.to, "{}{of}", screen.paint(paint, &rest))?;

    screen.section(Paint::Bold, "ALLOWS", e.allows)?;
    screen.section(Paint::Bold, "HERE", &capital(&head(&e.summary, TEXT)))?;
    if e.checks > 0 || e.unasked > 0 {
        screen.section(Paint::Bold, "ASKED", &asked_for(e))?;
    }
    for (i, place) in e.places.iter().enumerate() {
        where_(screen, if i == 0 { "WHERE" } else { "" }, place)?;
    }
    if e.more_places > 0 {
        let text = format!("and in {} more parts of the build", e.more_places);
        screen.section(Paint::Bold, "", &text)?;
    }
    if e.verdict
        .is_some_and(|verdict| verdict != Verdict::Unneeded)
    {
        let paint = match e.without {
            Without::BuildFails | Without::FailedHere => Paint::Bad,
            Without::Unknown => Paint::Unsure,
            _ => Paint::Bold,
        };
        screen.section(paint, "WITHOUT", &capital(e.without_detail))?;
        if let Some(silent) = e.silent {
            screen.section(Paint::Unsure, "SILENT", silent)?;
        }
        for (i, text) in e.avoid.iter().enumerate() {
            let label = if i == 0 { "AVOID" } else { "" };
            screen.section(Paint::Bold, label, &shown(text))?;
        }
        if !e.alternatives.is_empty() {
            let text = format!("{} would do in its place", names(&e.alternatives, " or "));
            screen.section(Paint::Bold, "OR", &text)?;
        }
        screen.section(
            Paint::Bold,
            "REPLAY",
            &capital(&format!("would settle: {}", e.replay)),
        )?;
    }
    screen.section(
        Paint::Bold,
        "USERNS",
        &format!("hostUsers: false: {}", e.user_namespace),
    )?;
    for (i, case) in e.known.iter().enumerate() {
        let label = if i == 0 { "KNOWN" } else { "" };
        screen.section(
            Paint::Bold,
            label,
            &format!("{}: {}", case.source, case.what),
        )?;
    }
    for note in &e.notes {
        screen.section(Paint::Unsure, "NOTE", &head(note, TEXT * 2))?;
    }
    Ok(())
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// How often, and what the answers were to the build.
fn asked_for(e: &Explanation) -> String {
    let times = |n: u64| {
        if n == 1 {
            "once".to_owned()
        } else {
            format!("{n} times")
        }
    };
    let mut text = String::new();
    if e.checks > 0 {
        text = format!(
            "{}: {} granted, {} refused",
            times(e.checks),
            e.granted,
            e.denied
        );
    }
    if e.unasked > 0 {
        let between = if text.is_empty() { "" } else { "; " };
        text += &format!("{between}decided without a check {}", times(e.unasked));
    }
    for (i, reason) in e.reasons.iter().enumerate() {
        let between = if i == 0 { ". " } else { "; " };
        let verdict = reason
            .verdict
            .map_or_else(|| "others: ".to_owned(), |v| format!("{v}: "));
        let what = head(&reason.reason, TEXT);
        text += &format!("{between}{} {verdict}{what}", reason.count);
    }
    capital(&text)
}

fn where_<W: Write>(screen: &mut Screen<'_, W>, label: &str, place: &Place) -> io::Result<()> {
    let line = place
        .line
        .map_or_else(String::new, |line| format!("line {line}: "));
    let cause = (place.cause.as_deref()).map_or_else(String::new, |cause| format!(" ({cause})"));
    let text = format!("{line}{}{cause}", head(&place.text, TEXT));
    screen.section(Paint::Bold, label, &text)?;
    for asked in &place.asked {
        screen.section(Paint::Bold, "", &format!("- {}", kind(asked)))?;
        if let Some(path) = path(asked) {
            screen.section(Paint::Bold, "", &format!("  in the kernel: {path}"))?;
        }
    }
    if place.more > 0 {
        let text = format!("- and {} more kinds of checks", place.more);
        screen.section(Paint::Bold, "", &text)?;
    }
    Ok(())
}

/// `4 x fchownat by /kaniko/executor: granted, ok`.
fn kind(asked: &Asked) -> String {
    let call = match (&asked.syscall, asked.granted) {
        (Some(call), _) => head(call, 40),
        (None, None) => "exec".to_owned(),
        (None, Some(_)) => "outside any system call".to_owned(),
    };
    let program = if asked.program.is_empty() {
        "(unknown)".to_owned()
    } else {
        super::escape::tail(&asked.program, 120)
    };
    let answer = match asked.granted {
        Some(true) => "granted",
        Some(false) => "refused",
        None => "decided without a check",
    };
    let outcome = match asked.outcome.as_deref() {
        None | Some("ok") => String::new(),
        Some(other) => format!(", the call ended with {}", head(other, 40)),
    };
    format!("{} x {call} by {program}: {answer}{outcome}", asked.count)
}

/// The functions between the check and the system call, outermost last.
fn path(asked: &Asked) -> Option<String> {
    let between: Vec<String> = asked
        .path
        .iter()
        .filter(|symbol| !ENDS.contains(&symbol.as_str()))
        .take(PATH)
        .map(|symbol| head(symbol, 64))
        .collect();
    (!between.is_empty()).then(|| between.join(" < "))
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;

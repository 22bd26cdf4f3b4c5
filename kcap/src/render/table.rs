//! One screen for people, 80 columns: what is needed, what is not and why, and what to do.

use std::io::{self, Write};

use super::Style;
use super::escape::{head, tail, width};
use super::{proof, rows, unneeded};
use crate::explain;
use crate::report::{Basis, Cap, Capability, Loss, Report, State, Step};

pub(super) const COLUMNS: usize = 80;
/// Where text starts after a label.
const INDENT: usize = 8;
/// Most line numbers of instructions that were not seen, by kind.
const LINES: usize = 6;
/// Most lines of the executor's log.
pub(super) const LOG: usize = 6;
/// Most lines of advice: more are in the explanation of each capability.
const ADVICE: usize = 4;
/// Kinds of steps that are the executor's work around instructions, or no part of a Dockerfile.
const PHASES: [&str; 10] = [
    "start",
    "retrieve",
    "context",
    "unpack",
    "snapshot",
    "stage-end",
    "push",
    "job",
    "container-start",
    "other",
];

/// Colours of labels.
#[derive(Clone, Copy)]
pub(crate) enum Paint {
    Bold,
    Bad,
    Unsure,
    Good,
}

impl Style {
    /// The text in a colour, where there are any.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Bold => "1",
            Paint::Bad => "1;31",
            Paint::Unsure => "33",
            Paint::Good => "32",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

pub(super) struct Screen<'a, W> {
    pub(super) to: &'a mut W,
    pub(super) style: Style,
}

impl<W: Write> Screen<'_, W> {
    pub(super) fn paint(&self, paint: Paint, text: &str) -> String {
        self.style.paint(paint, text)
    }

    /// A label and text that wraps between words under itself. The text is safe to show.
    pub(super) fn section(&mut self, paint: Paint, label: &str, text: &str) -> io::Result<()> {
        let mut start = self.paint(paint, &format!("{label:<INDENT$}"));
        for line in wrap(text, COLUMNS - INDENT) {
            writeln!(self.to, "{start}{}", line.trim_end())?;
            start = " ".repeat(INDENT);
        }
        Ok(())
    }
}

/// Breaks a text between words, and a word that is longer than a line within.
pub(super) fn wrap(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut at = 0;
    for word in text.split(' ') {
        let mut word = word.to_owned();
        if at > 0 && at + 1 + width(&word) > most {
            lines.push(String::new());
            at = 0;
        }
        while width(&word) > most {
            // Half of the columns are enough for every character to fit, whatever its width.
            let cut = word
                .char_indices()
                .nth(most / 2)
                .map_or(word.len(), |(i, _)| i);
            let rest = word.split_off(cut);
            lines.pop();
            lines.extend([word, String::new()]);
            word = rest;
            at = 0;
        }
        let line = lines.last_mut().expect("there is always a line");
        if at > 0 {
            line.push(' ');
            at += 1;
        }
        line.push_str(&word);
        at += width(&word);
    }
    lines
}

/// Writes the table.
pub fn write(report: &Report, style: Style, to: &mut impl Write) -> io::Result<()> {
    let mut screen = Screen { to, style };
    let screen = &mut screen;
    writeln!(screen.to, "{}", head(&title(report), COLUMNS))?;
    if !report.complete {
        let text = incomplete(&report.loss);
        let label = screen.paint(Paint::Bad, "INCOMPLETE");
        for (i, line) in wrap(&text, COLUMNS - 12).iter().enumerate() {
            let start = if i == 0 { label.as_str() } else { "          " };
            writeln!(screen.to, "{start}  {line}")?;
        }
    }
    screen.section(Paint::Bold, "NEED", &need(report))?;
    screen.section(Paint::Bold, "SEEN", &seen(report))?;
    proof::summary(screen, report)?;
    ending(screen, report)?;

    let (required, rest): (Vec<&Capability>, Vec<&Capability>) = report
        .capabilities
        .iter()
        .partition(|c| report.required.contains(&c.name));
    if !required.is_empty() {
        writeln!(screen.to)?;
        rows::write(screen, report, &required)?;
        writeln!(screen.to)?;
        proof::witnesses(screen, &required)?;
    }
    if !rest.is_empty() {
        // With loss, what was seen of a capability does not say that it is not required.
        let (paint, label) = if report.complete {
            (Paint::Good, "NOT")
        } else {
            (Paint::Bold, "ASKED")
        };
        screen.section(paint, label, &unneeded::text(report, &rest))?;
    }
    advice(screen, report)?;
    for note in &report.notes {
        screen.section(Paint::Unsure, "NOTE", &head(note, 400))?;
    }
    if report.complete {
        let add = names(&report.required, ", ");
        let text = format!("capabilities: {{drop: [ALL], add: [{add}]}}");
        screen.section(Paint::Bold, "APPLY", &text)?;
    }
    if let Some(text) = proof::next(report) {
        screen.section(Paint::Bold, "NEXT", &text)?;
    }
    Ok(())
}

/// What would make do with less.
fn advice<W: Write>(screen: &mut Screen<'_, W>, report: &Report) -> io::Result<()> {
    for avoid in explain::avoid(report).iter().take(ADVICE) {
        let caps: Vec<Cap> = avoid.caps.iter().copied().collect();
        let text = format!("{}: {}", names(&caps, " "), avoid.text);
        screen.section(Paint::Bold, "AVOID", &text)?;
    }
    let host = explain::host_only(report);
    if !host.is_empty() {
        let text = format!(
            "{}: not to be had in a pod with hostUsers: false",
            names(&host, " ")
        );
        screen.section(Paint::Unsure, "NOTE", &text)?;
    }
    Ok(())
}

fn title(report: &Report) -> String {
    let rest = format!("   {}", about(report).join("   "));
    tail(&name(report), COLUMNS.saturating_sub(width(&rest)).max(12)) + &rest
}

/// What the report is called: by its Dockerfile, if that is known.
pub(super) fn name(report: &Report) -> String {
    let subject = &report.subject;
    match (&subject.dockerfile, &subject.executor) {
        (Some(dockerfile), _) => dockerfile.clone(),
        (None, _) if !subject.command.is_empty() => subject.command.join(" "),
        (None, Some(executor)) => executor.path.clone(),
        (None, None) => "(unnamed)".to_owned(),
    }
}

/// How the build ended, what built it, and how it was seen; safe to show.
pub(super) fn about(report: &Report) -> Vec<String> {
    let subject = &report.subject;
    let ended = match (report.interrupted, subject.exit_status) {
        (true, _) => "interrupted".to_owned(),
        (false, Some(0)) => "build ok".to_owned(),
        (false, Some(status)) => format!("build failed (exit {status})"),
        (false, None) => "end not seen".to_owned(),
    };
    let seen = match report.basis {
        Basis::Observed if report.proof.is_some() => "replayed",
        Basis::Observed => "seen once",
        Basis::Proved => "proved",
    };
    let mut about = vec![format!("{ended} {}", duration(subject.duration_ms))];
    about.extend(version(report));
    about.push(format!(
        "{seen}, {} checks lost",
        report.loss.checks.saturating_add(report.loss.skipped)
    ));
    about
}

/// The executor's version, where its image's name tells.
fn version(report: &Report) -> Option<String> {
    let executor = report.subject.executor.as_ref()?;
    let (name, tag) = executor
        .given
        .as_deref()?
        .split('@')
        .next()?
        .rsplit_once(':')?;
    // What follows a registry's port is no tag, and what has no digit no version.
    let is_version = !tag.contains('/') && tag.contains(|c: char| c.is_ascii_digit());
    let number = tag.strip_prefix('v').unwrap_or(tag);
    (is_version && name.contains("kaniko")).then(|| format!("kaniko {}", head(number, 14)))
}

pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{}.{}s", seconds, ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// That something was lost, and what that means. Safe to show.
pub(super) fn incomplete(loss: &Loss) -> String {
    format!(
        "{}; a capability that is not listed may still be required: trace again",
        lost(loss)
    )
}

pub(super) fn lost(loss: &Loss) -> String {
    let counts = [
        (loss.checks, "checks"),
        (loss.skipped, "runs of the tracing programs"),
        (loss.outcomes, "outcomes"),
        (loss.execs, "fork, exec or exit records"),
        (loss.file_caps, "executed files' capabilities"),
        (loss.unasked, "decisions without a check"),
        (loss.evidence, "samples"),
    ];
    let lost: Vec<String> = counts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    let mut text = if lost.is_empty() {
        String::new()
    } else {
        format!("lost {}", lost.join(", "))
    };
    if let Some(why) = &loss.unproven {
        if !text.is_empty() {
            text += "; ";
        }
        text += &format!("unproven: {}", head(why, 300));
    }
    if text.is_empty() {
        "not all was seen".to_owned()
    } else {
        text
    }
}

pub(crate) fn names(caps: &[Cap], between: &str) -> String {
    caps.iter()
        .map(Cap::to_string)
        .collect::<Vec<_>>()
        .join(between)
}

fn need(report: &Report) -> String {
    let sure: Vec<Cap> = report
        .required
        .iter()
        .filter(|cap| !report.unsure.contains(cap))
        .copied()
        .collect();
    let mut text = match (sure.is_empty(), report.unsure.is_empty()) {
        (true, true) if report.complete => "nothing".to_owned(),
        (true, true) => "nothing was seen to be needed".to_owned(),
        (true, false) => format!("{} (unsure)", names(&report.unsure, " ")),
        (false, true) => names(&sure, " "),
        (false, false) => {
            format!(
                "{} + {} (unsure)",
                names(&sure, " "),
                names(&report.unsure, " ")
            )
        }
    };
    if !report.complete {
        return format!("at least {text}");
    }
    if let Some(drops) = drops(report) {
        text += "   ";
        text += &drops;
    }
    text
}

/// What of the set that the build ran with would go; `None` where that set is not known.
pub(super) fn drops(report: &Report) -> Option<String> {
    let today = &report.subject.capabilities;
    if today.is_empty() {
        return None;
    }
    let dropped = today
        .iter()
        .filter(|cap| !report.required.contains(cap))
        .count();
    let added = report
        .required
        .iter()
        .filter(|cap| !today.contains(cap))
        .count();
    let mut text = format!("drops {dropped} of today's {}", today.len());
    if added > 0 {
        text += &format!(", adds {added}");
    }
    Some(text)
}

/// Which instructions were seen. Safe to show.
pub(super) fn seen(report: &Report) -> String {
    let host = &report.host;
    if host.hook.is_empty() && report.checks == 0 {
        return "nothing: the builds were not traced".into();
    }
    let coverage = &report.coverage;
    let all = [coverage.cached, coverage.skipped, coverage.unreached]
        .iter()
        .fold(coverage.ran, |sum, n| sum.saturating_add(*n));
    if all > 0 {
        let mut text = format!("{} of {all} instructions", coverage.ran);
        for (state, name) in [
            (State::Cached, "CACHED, not seen"),
            (State::Unreached, "UNREACHED, not seen"),
            // What the executor leaves out, the image does not need.
            (State::Skipped, "SKIPPED"),
        ] {
            if let Some(lines) = lines(report, state) {
                text += &format!("; {lines} {name}");
            }
        }
        return text;
    }
    format!(
        "{} checks of {} capabilities, by {} on {}",
        report.checks,
        report.capabilities.iter().filter(|c| c.checks > 0).count(),
        head(&host.hook, 16),
        head(&host.kernel, 40)
    )
}

/// The lines of instructions that ended so: `line 5`, `lines 5, 7-9`; `None` where there are none.
fn lines(report: &Report, state: State) -> Option<String> {
    let lines = report
        .steps
        .iter()
        .filter(|step| step.state == state && is_instruction(step))
        .filter_map(|step| step.line);
    // Instructions that follow each other are a range, whatever lines are between.
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    let others: Vec<u32> = report
        .steps
        .iter()
        .filter(|step| step.state != state && is_instruction(step))
        .filter_map(|step| step.line)
        .collect();
    let mut apart = others.iter().peekable();
    for line in lines {
        let mut between = false;
        while apart.next_if(|other| **other < line).is_some() {
            between = true;
        }
        match ranges.last_mut().filter(|_| !between) {
            Some((_, last, count)) => (*last, *count) = (line, *count + 1),
            None => ranges.push((line, line, 1)),
        }
    }
    let shown: Vec<String> = ranges
        .iter()
        .take(LINES)
        .map(|(first, last, count)| match count {
            1 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect();
    let more = if ranges.len() > LINES { ", …" } else { "" };
    match ranges.as_slice() {
        [] => None,
        [(.., 1)] => Some(format!("line {}", shown[0])),
        _ => Some(format!("lines {}{more}", shown.join(", "))),
    }
}

/// It is an instruction of the Dockerfile.
pub(super) fn is_instruction(step: &Step) -> bool {
    !PHASES.contains(&step.kind.as_str())
}

/// Where a build ended that did not succeed.
fn ending<W: Write>(screen: &mut Screen<'_, W>, report: &Report) -> io::Result<()> {
    if let Some(last) = last(report) {
        screen.section(Paint::Bad, "LAST", &last)?;
    }
    for (index, line) in log(report).iter().enumerate() {
        let label = if index == 0 { "LOG" } else { "" };
        let label = screen.paint(Paint::Bold, &format!("{label:<INDENT$}"));
        writeln!(screen.to, "{label}{}", head(line, COLUMNS - INDENT))?;
    }
    Ok(())
}

/// The step that a build ended in which did not succeed. Safe to show.
pub(super) fn last(report: &Report) -> Option<String> {
    let subject = &report.subject;
    if subject.exit_status == Some(0) {
        return None;
    }
    let index = subject.failed_step.or(subject.last_step)?;
    let step = report.steps.get(index as usize)?;
    let line = step
        .line
        .map_or_else(String::new, |line| format!("line {line}: "));
    Some(format!("{line}{}", head(&step.text, 200)))
}

/// The last lines of the log of a build that did not succeed. Not safe to show.
pub(super) fn log(report: &Report) -> &[String] {
    let log = &report.subject.log;
    if report.subject.exit_status == Some(0) {
        return &[];
    }
    &log[log.len().saturating_sub(LOG)..]
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

//! One screen for people, 80 columns: what is needed, what is not and why, and what to do.

use std::io::{self, Write};

use super::Style;
use super::escape::{head, shown, tail, width};
use crate::report::{Cap, Capability, Evidence, Loss, Report, Verdict};

pub(super) const COLUMNS: usize = 80;
/// Where text starts after a label.
const INDENT: usize = 8;
/// Widths of the columns of the table of needs.
const CAP: usize = 18;
const CHECKS: usize = 8;
const WHERE: usize = 31;
const WHY: usize = COLUMNS - CAP - CHECKS - WHERE - 6;

/// Colours of labels.
#[derive(Clone, Copy)]
pub(super) enum Paint {
    Bold,
    Bad,
    Unsure,
}

pub(super) struct Screen<'a, W> {
    pub(super) to: &'a mut W,
    pub(super) style: Style,
}

impl<W: Write> Screen<'_, W> {
    pub(super) fn paint(&self, paint: Paint, text: &str) -> String {
        if !self.style.color {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Bold => "1",
            Paint::Bad => "1;31",
            Paint::Unsure => "33",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A label and text that wraps between words under itself. The text is safe to show.
    pub(super) fn section(&mut self, paint: Paint, label: &str, text: &str) -> io::Result<()> {
        let mut start = self.paint(paint, &format!("{label:<INDENT$}"));
        for line in wrap(text, COLUMNS - INDENT) {
            writeln!(self.to, "{start}{line}")?;
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
        let text = format!(
            "{}; a capability that is not listed may still be required: trace again",
            lost(&report.loss)
        );
        let label = screen.paint(Paint::Bad, "INCOMPLETE");
        for (i, line) in wrap(&text, COLUMNS - 12).iter().enumerate() {
            let start = if i == 0 { label.as_str() } else { "          " };
            writeln!(screen.to, "{start}  {line}")?;
        }
    }
    screen.section(Paint::Bold, "NEED", &need(report))?;
    screen.section(Paint::Bold, "SEEN", &seen(report))?;

    let (required, rest): (Vec<&Capability>, Vec<&Capability>) = report
        .capabilities
        .iter()
        .partition(|c| report.required.contains(&c.name));
    if !required.is_empty() {
        writeln!(screen.to)?;
        let header = format!(
            "{:<CAP$} {:>CHECKS$}  {:<WHERE$}  {}",
            "CAP", "CHECKS", "WHERE", "WHY"
        );
        writeln!(screen.to, "{}", screen.paint(Paint::Bold, &header))?;
        for capability in &required {
            row(screen, capability)?;
        }
        writeln!(screen.to)?;
        for capability in required.iter().filter(|c| c.verdict == Verdict::Unsure) {
            let text = format!("{}: {}", capability.name, shown(&capability.reason));
            screen.section(Paint::Unsure, "UNSURE", &text)?;
        }
    }
    if !rest.is_empty() {
        let one = |c: &&Capability| format!("{} {} ({})", c.name, c.checks, head(&c.reason, 200));
        let text = rest.iter().map(one).collect::<Vec<_>>().join(", ");
        // With loss, what was seen of a capability does not say that it is not required.
        screen.section(
            Paint::Bold,
            if report.complete { "NOT" } else { "ASKED" },
            &text,
        )?;
    }
    for note in &report.notes {
        screen.section(Paint::Unsure, "NOTE", &head(note, 400))?;
    }
    if report.complete {
        let add = names(&report.required, ", ");
        let text = format!("capabilities: {{drop: [ALL], add: [{add}]}}");
        screen.section(Paint::Bold, "APPLY", &text)?;
    }
    Ok(())
}

fn title(report: &Report) -> String {
    let subject = &report.subject;
    let name = match (&subject.dockerfile, &subject.executor) {
        (Some(dockerfile), _) => dockerfile.clone(),
        (None, _) if !subject.command.is_empty() => subject.command.join(" "),
        (None, Some(executor)) => executor.path.clone(),
        (None, None) => "(unnamed)".to_owned(),
    };
    let ended = match (report.interrupted, subject.exit_status) {
        (true, _) => "interrupted".to_owned(),
        (false, Some(0)) => "build ok".to_owned(),
        (false, Some(status)) => format!("build failed (exit {status})"),
        (false, None) => "end not seen".to_owned(),
    };
    let rest = format!(
        "   {ended} {}   seen once, {} checks lost",
        duration(subject.duration_ms),
        report.loss.checks.saturating_add(report.loss.skipped)
    );
    head(&name, COLUMNS.saturating_sub(width(&rest)).max(12)) + &rest
}

pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{}.{}s", seconds, ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

fn lost(loss: &Loss) -> String {
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

pub(super) fn names(caps: &[Cap], between: &str) -> String {
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
    let today = &report.subject.capabilities;
    if !today.is_empty() {
        let dropped = today
            .iter()
            .filter(|cap| !report.required.contains(cap))
            .count();
        let added = report
            .required
            .iter()
            .filter(|cap| !today.contains(cap))
            .count();
        text += &format!("   drops {dropped} of today's {}", today.len());
        if added > 0 {
            text += &format!(", adds {added}");
        }
    }
    text
}

fn seen(report: &Report) -> String {
    let host = &report.host;
    let mut text = format!(
        "{} checks of {} capabilities, by {} on {}",
        report.checks,
        report.capabilities.iter().filter(|c| c.checks > 0).count(),
        head(&host.hook, 16),
        head(&host.kernel, 40)
    );
    if !host.blind.is_empty() {
        text += &format!(", blind to {}", head(&host.blind.join(", "), 100));
    }
    text
}

fn row<W: Write>(screen: &mut Screen<'_, W>, capability: &Capability) -> io::Result<()> {
    let name = format!("{:<CAP$}", capability.name.to_string());
    let name = match capability.verdict {
        Verdict::Needed => screen.paint(Paint::Bold, &name),
        Verdict::Unsure | Verdict::Unneeded => screen.paint(Paint::Unsure, &name),
    };
    let place = capability
        .evidence
        .iter()
        .find(|e| e.verdict == Some(capability.verdict))
        .map_or_else(|| head(&capability.reason, WHERE), place);
    let why = match capability.verdict {
        Verdict::Unsure => format!("? {}", capability.because),
        Verdict::Needed | Verdict::Unneeded => capability.because.to_string(),
    };
    let pad = " ".repeat(WHERE.saturating_sub(width(&place)));
    writeln!(
        screen.to,
        "{name} {:>CHECKS$}  {place}{pad}  {}",
        capability.checks.max(capability.unasked),
        head(&why, WHY)
    )
}

/// The program and its system call, in at most [`WHERE`] columns.
fn place(evidence: &Evidence) -> String {
    let call = match (&evidence.syscall, evidence.granted) {
        (Some(call), _) => format!(": {}", head(call, WHERE / 2)),
        (None, None) => ": exec".to_owned(),
        (None, Some(_)) => String::new(),
    };
    let program = if evidence.program.is_empty() {
        "(unknown)"
    } else {
        &evidence.program
    };
    tail(program, WHERE - width(&call)) + &call
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

//! One capability and several builds for people, 80 columns: who needs it, where, and what avoids it.

use std::io::{self, Write};

use super::Style;
use super::escape::{head, shown, tail, width};
use super::rows::telling;
use super::table::{COLUMNS, Paint, Screen, names};
use crate::explain::{Explanations, Part, Spot};
use crate::report::Verdict;

/// Columns before the text of a place.
const LEFT: usize = 10;
/// Most Dockerfiles that are shown, and most that are named in a list.
const ROWS: usize = 40;
const NAMED: usize = 6;
/// Most places and ways to avoid it of a Dockerfile.
const PLACES: usize = 3;
const AVOID: usize = 2;
/// Most columns of a sentence.
const TEXT: usize = 400;

/// Writes the explanation.
pub fn write<W: Write>(e: &Explanations, style: Style, to: &mut W) -> io::Result<()> {
    let screen = &mut Screen { to, style };
    let count = |verdict| {
        e.dockerfiles
            .iter()
            .filter(|part| part.verdict == verdict)
            .count()
    };
    let (needed, unsure) = (count(Verdict::Needed), count(Verdict::Unsure));
    let (paint, word) = match e.verdict {
        Some(Verdict::Needed) => (Paint::Bold, format!("needed by {needed} of {}", e.all)),
        Some(Verdict::Unsure) => (Paint::Unsure, format!("unsure in {unsure} of {}", e.all)),
        Some(Verdict::Unneeded) => (Paint::Good, format!("not needed by any of {}", e.all)),
        None => (Paint::Good, format!("not asked for by any of {}", e.all)),
    };
    let more = match (needed, unsure) {
        (0, _) | (_, 0) => "",
        (_, n) => &format!(", unsure in {n}"),
    };
    let title = screen.paint(paint, &format!("{:<18} {word}", e.name.to_string()));
    writeln!(screen.to, "{title} Dockerfiles{more}")?;
    screen.section(Paint::Bold, "ALLOWS", e.allows)?;

    let weighty: Vec<&Part> = (e.dockerfiles.iter())
        .filter(|part| part.verdict != Verdict::Unneeded)
        .collect();
    for part in weighty.iter().take(ROWS) {
        writeln!(screen.to)?;
        one(screen, part)?;
    }
    if weighty.len() > ROWS {
        writeln!(screen.to)?;
        let text = format!("{} more are in --format json", weighty.len() - ROWS);
        screen.section(Paint::Bold, "ROWS", &text)?;
    }
    writeln!(screen.to)?;
    if let Some(saving) = &e.saving {
        let named = listed(saving.dockerfiles.iter().map(String::as_str));
        let text = format!("without {named}: no {}", names(&saving.drops, " "));
        screen.section(Paint::Good, "GAIN", &text)?;
    }
    let needless = || {
        e.dockerfiles
            .iter()
            .filter(|part| part.verdict == Verdict::Unneeded)
    };
    let alone = needless().filter(|part| part.instead.is_empty());
    if alone.clone().next().is_some() {
        let text = format!(
            "{} asked for it, and do not depend on it: {}",
            alone.clone().count(),
            listed(alone.map(|part| part.dockerfile.as_str()))
        );
        screen.section(Paint::Good, "NOT", &text)?;
    }
    for part in needless()
        .filter(|part| !part.instead.is_empty())
        .take(NAMED)
    {
        let name = tail(&part.dockerfile, COLUMNS / 2);
        let text = format!("{name}: {} does in its place", names(&part.instead, " "));
        screen.section(Paint::Bold, "OR", &text)?;
    }
    if let Some(silent) = e.silent {
        screen.section(Paint::Unsure, "SILENT", silent)?;
    }
    let text = format!("hostUsers: false: {}", e.user_namespace);
    screen.section(Paint::Bold, "USERNS", &text)?;
    for (i, case) in e.known.iter().enumerate() {
        let label = if i == 0 { "KNOWN" } else { "" };
        let text = format!("{}: {}", case.source, case.what);
        screen.section(Paint::Bold, label, &text)?;
    }
    for note in &e.notes {
        screen.section(Paint::Unsure, "NOTE", &head(note, TEXT))?;
    }
    Ok(())
}

/// A Dockerfile with its places, and what would avoid it there.
fn one<W: Write>(screen: &mut Screen<'_, W>, part: &Part) -> io::Result<()> {
    let unsure = if part.verdict == Verdict::Unsure {
        "unsure: "
    } else {
        ""
    };
    let runs = match part.runs {
        0 | 1 => String::new(),
        runs => format!(", in {} of {runs} runs", part.required_in),
    };
    let right = format!("   {unsure}{}{runs}", part.without.brief());
    let name = tail(
        &part.dockerfile,
        COLUMNS.saturating_sub(width(&right)).max(12),
    );
    writeln!(screen.to, "{}{right}", screen.paint(Paint::Bold, &name))?;
    for place in part.places.iter().take(PLACES) {
        let line = (place.line).map_or_else(|| "-".to_owned(), |line| line.to_string());
        let text = text(place, COLUMNS - LEFT);
        writeln!(screen.to, "{line:>width$}  {text}", width = LEFT - 2)?;
    }
    let more = part.more_places + part.places.len().saturating_sub(PLACES);
    if more > 0 {
        writeln!(
            screen.to,
            "{:LEFT$}and in {more} more parts of the build",
            ""
        )?;
    }
    for (i, text) in part.avoid.iter().take(AVOID).enumerate() {
        let label = if i == 0 { "AVOID" } else { "" };
        screen.section(Paint::Bold, label, &shown(text))?;
    }
    Ok(())
}

fn text(place: &Spot, most: usize) -> String {
    let text = if place.text.is_empty() {
        &place.kind
    } else {
        &place.text
    };
    let program = place.program.as_deref().filter(|_| place.kind == "run");
    let program = program.and_then(|program| telling(program, text));
    match place.cause.as_deref().or(program) {
        None => head(text, most),
        Some(cause) => {
            let cause = format!(" ({})", head(cause, most / 2));
            head(text, most.saturating_sub(width(&cause))) + &cause
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    let mut named: Vec<String> = (all.iter().take(NAMED))
        .map(|name| tail(name, COLUMNS / 2))
        .collect();
    if all.len() > NAMED {
        named.push(format!("{} more", all.len() - NAMED));
    }
    named.join(", ")
}

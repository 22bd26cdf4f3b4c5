//! A check for people: the answer first, then each line that is over, then what is spare.

use std::io::{self, Write};

use super::super::Style;
use super::super::escape::{head, tail, width};
use super::super::table::{COLUMNS, Paint, Screen, names};
use super::title;
use crate::combine::check::{At, Check, Kind, Over};
use crate::report::{Cap, Verdict};

/// Columns of a capability's name and `?`.
const CAP: usize = 20;
/// Columns of a line's number.
const LINE: usize = 6;
/// Most places shown of one capability in one Dockerfile.
const PLACES: usize = 4;
/// Most Dockerfiles named in a list.
const NAMED: usize = 5;

pub fn write<W: Write>(check: &Check, style: Style, to: &mut W) -> io::Result<()> {
    let screen = &mut Screen { to, style };
    let (paint, word) = match (check.pass, check.is_proven()) {
        (false, _) => (Paint::Bad, "FAIL"),
        (true, false) => (Paint::Unsure, "OPEN"),
        (true, true) => (Paint::Good, "PASS"),
    };
    screen.section(paint, word, &title(check))?;
    if let Some(allowed) = &check.against.allowed {
        let text = match &allowed[..] {
            [] => "nothing".to_owned(),
            allowed => names(allowed, " "),
        };
        screen.section(Paint::Bold, "ALLOWED", &text)?;
    }
    if let Some(source) = &check.against.source {
        screen.section(Paint::Bold, "SOURCE", source)?;
    }
    places(screen, "", &check.over)?;
    if !check.went.is_empty() {
        places(screen, " no longer needed:", &check.went)?;
    }
    writeln!(screen.to)?;
    let proven = check.complete && check.builds.iter().all(|b| b.incomplete.is_none());
    if !check.spare.is_empty() {
        let seen = if proven { "" } else { ", as far as was seen" };
        let text = format!("{} (allowed, not needed{seen})", names(&check.spare, " "));
        screen.section(Paint::Bold, "SPARE", &text)?;
    }
    if check.pass
        && matches!(
            check.against.kind,
            Kind::Pod | Kind::Container | Kind::RunLine
        )
    {
        let needed: std::collections::BTreeSet<Cap> = check
            .builds
            .iter()
            .flat_map(|b| &b.required)
            .copied()
            .collect();
        let needed: Vec<Cap> = needed.into_iter().collect();
        let text = match check.against.kind {
            Kind::RunLine => {
                let add = needed.iter().map(|cap| format!(" --cap-add={cap}"));
                format!("--cap-drop=all{}", add.collect::<String>())
            }
            _ => format!(
                "capabilities: {{drop: [ALL], add: [{}]}}",
                names(&needed, ", ")
            ),
        };
        if proven && !check.spare.is_empty() {
            screen.section(Paint::Bold, "ENOUGH", &text)?;
        }
    }
    for (label, dockerfiles) in [("NEW", &check.added), ("GONE", &check.gone)] {
        if !dockerfiles.is_empty() {
            screen.section(Paint::Bold, label, &listed(dockerfiles))?;
        }
    }
    let open = check.builds.iter().filter_map(|build| {
        let why = build.incomplete.as_ref()?;
        Some(format!("{}: {why}", tail(&build.dockerfile, COLUMNS / 2)))
    });
    let open: Vec<String> = open.collect();
    for text in open.iter().take(NAMED) {
        screen.section(Paint::Bad, "UNSEEN", text)?;
    }
    if open.len() > NAMED {
        let text = format!("{} more Dockerfiles", open.len() - NAMED);
        screen.section(Paint::Bad, "UNSEEN", &text)?;
    }
    if check
        .over
        .iter()
        .any(|over| over.verdict == Verdict::Unsure)
    {
        let text = "? unsure: one run cannot settle it; it counts, unless --allow-unsure is given";
        screen.section(Paint::Unsure, "NOTE", text)?;
    }
    for note in &check.notes {
        screen.section(Paint::Unsure, "NOTE", &head(note, 400))?;
    }
    Ok(())
}

/// What is over, or went, below the name of each Dockerfile.
fn places<W: Write>(screen: &mut Screen<'_, W>, what: &str, overs: &[Over]) -> io::Result<()> {
    let mut dockerfile = None;
    for over in overs {
        if dockerfile != Some(&over.dockerfile) {
            dockerfile = Some(&over.dockerfile);
            let name = tail(&over.dockerfile, COLUMNS - width(what));
            writeln!(screen.to)?;
            writeln!(screen.to, "{}{what}", screen.paint(Paint::Bold, &name))?;
        }
        let unsure = over.verdict == Verdict::Unsure;
        let mut cap = over.capability.to_string();
        if unsure {
            cap += " ?";
        }
        let mut left = format!("{cap:<CAP$}");
        for at in over.at.iter().take(PLACES) {
            let line = at
                .line
                .map_or_else(|| "-".to_owned(), |line| line.to_string());
            let text = head(&what_asks(at), COLUMNS - CAP - LINE - 4);
            writeln!(screen.to, "  {left}{line:>LINE$}  {text}")?;
            left = " ".repeat(CAP);
        }
        if over.at.is_empty() {
            writeln!(
                screen.to,
                "  {left}{:>LINE$}  (the report does not say where)",
                "-"
            )?;
        }
        if over.at.len() > PLACES {
            writeln!(
                screen.to,
                "  {left}{:>LINE$}  {} more",
                "",
                over.at.len() - PLACES
            )?;
        }
    }
    Ok(())
}

/// The program by its last name, where it is not the executor's own work, and the instruction.
pub(in crate::render) fn what_asks(at: &At) -> String {
    let text = if at.text.is_empty() {
        &at.kind
    } else {
        &at.text
    };
    let program = at.program.as_deref().unwrap_or_default();
    match program.rsplit('/').next() {
        Some(name) if at.kind == "run" && !name.is_empty() && name != "executor" => {
            format!("{name}: {text}")
        }
        _ => text.clone(),
    }
}

fn listed(dockerfiles: &[String]) -> String {
    let mut names: Vec<String> = (dockerfiles.iter().take(NAMED))
        .map(|name| tail(name, COLUMNS / 2))
        .collect();
    if dockerfiles.len() > NAMED {
        names.push(format!("{} more", dockerfiles.len() - NAMED));
    }
    names.join(", ")
}

//! Dockerfiles × capabilities for people, 80 columns: who needs what, and what is enough for all.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::escape::{head, tail, width};
use super::table::{COLUMNS, Paint, Screen, names};
use super::{Style, fleet};
use crate::combine::{Build, Column, Matrix, Status};
use crate::report::{Cap, Verdict};

/// Columns of a cell with the space after it.
const CELL: usize = 2;
/// Most capabilities side by side; more are shown in a table below.
const ABREAST: usize = 18;
/// Columns of what became of a build.
const STATUS: usize = 18;
/// Heading of the Dockerfiles, and name of the last row.
const HEADING: &str = "DOCKERFILE";
const UNION: &str = "UNION";
/// Most Dockerfiles that get a row.
pub(super) const ROWS: usize = 50;
/// Most Dockerfiles that get a note of their own.
const NAMED: usize = 4;

/// Writes the screen.
pub fn write<W: Write>(matrix: &Matrix, style: Style, to: &mut W) -> io::Result<()> {
    let screen = &mut Screen { to, style };
    writeln!(screen.to, "{}", title(matrix))?;
    let (shown, rest): (Vec<&Column>, Vec<&Column>) = matrix
        .capabilities
        .iter()
        .partition(|column| column.verdict != Verdict::Unneeded);
    let mut tables = shown.chunks(ABREAST);
    let rows = weightiest(matrix, ROWS);
    writeln!(screen.to)?;
    table(
        screen,
        matrix,
        &rows,
        tables.next().unwrap_or_default(),
        true,
    )?;
    for columns in tables {
        writeln!(screen.to)?;
        table(screen, matrix, &rows, columns, false)?;
    }
    writeln!(screen.to)?;
    if rows.len() < matrix.builds.len() {
        let text = format!(
            "the {} Dockerfiles that need most; {} more are in --format json",
            rows.len(),
            matrix.builds.len() - rows.len()
        );
        screen.section(Paint::Bold, "ROWS", &text)?;
    }
    if !shown.is_empty() {
        let key = "N needed   ? unsure: one run cannot settle it   . asked for, not needed";
        screen.section(Paint::Bold, "KEY", key)?;
    }
    screen.section(Paint::Bold, "NEED", &need(matrix))?;
    fleet::write(screen, matrix)?;
    let lossless = matrix.builds.iter().all(Build::is_lossless);
    if !rest.is_empty() {
        let rest: Vec<Cap> = rest.iter().map(|column| column.name).collect();
        // With loss, what was seen of a capability does not say that it is not required.
        let label = if lossless { "NOT" } else { "ASKED" };
        screen.section(Paint::Bold, label, &names(&rest, " "))?;
    }
    for note in notes(matrix) {
        screen.section(Paint::Unsure, "NOTE", &note)?;
    }
    if lossless && matrix.builds.iter().any(|b| b.status == Status::Built) {
        let add = names(&matrix.union.required, ", ");
        let text = format!("capabilities: {{drop: [ALL], add: [{add}]}}");
        screen.section(Paint::Bold, "APPLY", &text)?;
    }
    Ok(())
}

/// The rows that are shown: all, or where there are more than `most` those that need most, in their
/// order.
pub(super) fn weightiest(matrix: &Matrix, most: usize) -> Vec<&Build> {
    let mut rows: Vec<(usize, &Build)> = matrix.builds.iter().enumerate().collect();
    if rows.len() > most {
        let needs = |build: &Build| -> usize {
            (build.runs.iter().map(|run| run.required.len()).max()).unwrap_or_default()
        };
        rows.sort_by_key(|(at, build)| (std::cmp::Reverse(needs(build)), *at));
        rows.truncate(most);
        rows.sort_by_key(|(at, _)| *at);
    }
    rows.into_iter().map(|(_, build)| build).collect()
}

pub(super) fn title(matrix: &Matrix) -> String {
    let counts = [
        (Status::Built, "built"),
        (Status::Failed, "failed"),
        (Status::Interrupted, "interrupted"),
        (Status::NotStarted, "not started"),
        (Status::Error, "could not be started"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .map(|(status, what)| (count(matrix, |b| b.status == *status), what))
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    let all = match matrix.builds.len() {
        1 => "1 Dockerfile".to_owned(),
        all => format!("{all} Dockerfiles"),
    };
    format!("{all}   {}", counts.join(", "))
}

fn count(matrix: &Matrix, is: impl Fn(&Build) -> bool) -> usize {
    matrix.builds.iter().filter(|build| is(build)).count()
}

/// The rows, for some of the capabilities. Their names stand above their columns as steps of a
/// stair, so that they can be read and searched for.
fn table<W: Write>(
    screen: &mut Screen<'_, W>,
    matrix: &Matrix,
    rows: &[&Build],
    columns: &[&Column],
    with_status: bool,
) -> io::Result<()> {
    let cells = CELL * columns.len();
    let stairs = columns.iter().enumerate();
    let right = stairs
        .map(|(i, column)| CELL * i + column.name.to_string().len())
        .chain([cells + if with_status { 1 + STATUS } else { 0 }])
        .max()
        .unwrap_or_default();
    let longest = rows.iter().map(|b| width(&tail(&b.dockerfile, COLUMNS)));
    let longest = longest.chain([HEADING.len(), UNION.len()]).max();
    let left = longest.unwrap_or_default().min(COLUMNS - CELL - right);

    let bars = |n: usize| "| ".repeat(n);
    for (i, column) in columns.iter().enumerate() {
        let name = column.name.to_string();
        let name = match column.verdict {
            Verdict::Needed => screen.paint(Paint::Bold, &name),
            Verdict::Unsure | Verdict::Unneeded => screen.paint(Paint::Unsure, &name),
        };
        writeln!(screen.to, "{:left$}  {}{name}", "", bars(i))?;
    }
    let status = if with_status { " BUILD" } else { "" };
    let header = format!("{HEADING:<left$}  {}{status}", bars(columns.len()));
    writeln!(
        screen.to,
        "{}",
        screen.paint(Paint::Bold, header.trim_end())
    )?;
    for build in rows {
        let name = tail(&build.dockerfile, left);
        let name = name.clone() + &" ".repeat(left.saturating_sub(width(&name)));
        let cells: Vec<Option<Verdict>> = columns
            .iter()
            .map(|column| matrix.cell(build, column.name))
            .collect();
        let status = if with_status {
            status_of(build)
        } else {
            String::new()
        };
        row(screen, &name, &cells, &status, build.is_complete())?;
    }
    let union: Vec<_> = columns.iter().map(|column| Some(column.verdict)).collect();
    row(screen, &format!("{UNION:<left$}"), &union, "", true)
}

fn row<W: Write>(
    screen: &mut Screen<'_, W>,
    name: &str,
    cells: &[Option<Verdict>],
    status: &str,
    good: bool,
) -> io::Result<()> {
    let mut line = format!("{name}  ");
    for cell in cells {
        let cell = match cell {
            Some(Verdict::Needed) => screen.paint(Paint::Bold, "N"),
            Some(Verdict::Unsure) => screen.paint(Paint::Unsure, "?"),
            Some(Verdict::Unneeded) => ".".to_owned(),
            None => " ".to_owned(),
        };
        line += &cell;
        line += " ";
    }
    if !status.is_empty() {
        line += " ";
        line += &if good {
            status.to_owned()
        } else {
            screen.paint(Paint::Bad, status)
        };
    }
    writeln!(screen.to, "{}", line.trim_end())
}

/// What became of a build, in at most [`STATUS`] columns; of several runs, of the last.
pub(super) fn status_of(build: &Build) -> String {
    let last = build.runs.last();
    let built = build.runs.iter().filter(|run| run.built()).count();
    let status = match (build.status, last) {
        (Status::Built, _) => "ok".to_owned(),
        (Status::Failed, Some(run)) if run.out_of_memory => "out of memory".to_owned(),
        (Status::Failed, Some(run)) => match (run.exit_status, run.last_line) {
            (Some(status), Some(line)) => format!("exit {status}, line {line}"),
            (Some(status), None) => format!("exit {status}"),
            (None, _) => "end not seen".to_owned(),
        },
        (Status::Failed, None) => "failed".to_owned(),
        (Status::Interrupted, _) => "interrupted".to_owned(),
        (Status::NotStarted, _) => "not started".to_owned(),
        (Status::Error, _) => "error".to_owned(),
    };
    let rest = match &build.runs[..] {
        runs if runs.iter().any(|run| !run.complete) => ", loss".to_owned(),
        [run] if run.coverage.cached > 0 => format!(", {} cached", run.coverage.cached),
        [] | [_] => String::new(),
        runs if built < runs.len() && built > 0 => format!(", {built} of {} runs", runs.len()),
        runs => format!(", {} runs", runs.len()),
    };
    head(&(status + &rest), STATUS)
}

pub(super) fn need(matrix: &Matrix) -> String {
    let union = &matrix.union;
    let sure: Vec<Cap> = (union.required.iter())
        .filter(|cap| !union.unsure.contains(cap))
        .copied()
        .collect();
    let parts = [
        names(&sure, " "),
        match &union.unsure[..] {
            [] => String::new(),
            unsure => format!("{} (unsure)", names(unsure, " ")),
        },
    ];
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|p| !p.is_empty())
        .collect();
    match (parts.is_empty(), union.complete) {
        (true, true) => "nothing".to_owned(),
        (true, false) => "nothing was seen to be needed".to_owned(),
        (false, true) => parts.join(" + "),
        (false, false) => format!("at least {}", parts.join(" + ")),
    }
}

/// What a reader must know beside the cells. Safe to show.
pub(super) fn notes(matrix: &Matrix) -> Vec<String> {
    let mut notes = vec![];
    let unfinished = count(matrix, |b| b.status != Status::Built);
    if unfinished > 0 {
        notes.push(format!(
            "{unfinished} of {} did not build: what they need beyond what was seen is not here",
            matrix.builds.len()
        ));
    }
    let lost = count(matrix, |b| !b.is_lossless());
    if lost > 0 {
        notes.push(format!(
            "{lost} with loss: nothing can be said not to be required until built again"
        ));
    }
    let cached = count(matrix, |b| {
        !b.runs.is_empty() && b.runs.iter().all(|run| run.coverage.cached > 0)
    });
    if cached > 0 {
        notes.push(format!(
            "{cached} with instructions answered from a cache: what those need was not seen"
        ));
    }
    let late = count(matrix, |b| b.runs.iter().any(|run| run.late));
    if late > 0 {
        notes.push(format!(
            "{late} traced from when they were running: what came before was not seen"
        ));
    }
    let unreached = count(matrix, |b| {
        b.status == Status::Built && b.runs.iter().all(|run| run.coverage.unreached > 0)
    });
    if unreached > 0 {
        notes.push(format!(
            "{unreached} with instructions that the image did not need, and that were not run"
        ));
    }
    let alone: Vec<(&Build, Vec<Cap>)> = (matrix.builds.iter())
        .map(|build| (build, otherwise(matrix, build)))
        .filter(|(_, caps)| !caps.is_empty())
        .collect();
    for (build, caps) in alone.iter().take(NAMED) {
        notes.push(format!(
            "{} alone would take {}, for which the set has another answer",
            tail(&build.dockerfile, COLUMNS / 2),
            names(caps, " ")
        ));
    }
    if alone.len() > NAMED {
        notes.push(format!("{} more would take others", alone.len() - NAMED));
    }
    notes
}

/// What a build's own reports require, and the union does not.
fn otherwise(matrix: &Matrix, build: &Build) -> Vec<Cap> {
    let required: BTreeSet<Cap> = (build.runs.iter())
        .flat_map(|run| &run.required)
        .copied()
        .collect();
    (required.into_iter())
        .filter(|cap| !matrix.union.required.contains(cap))
        .collect()
}

#[cfg(test)]
#[path = "matrix_tests.rs"]
mod tests;

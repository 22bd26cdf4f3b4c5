//! Several reports: who forces what, what a few Dockerfiles less would save, profiles, and the matrix.

use super::super::{fleet, matrix as screen, table::names};
use super::page::{Align, Page};
use super::text::{code_tail, prose};
use super::{ITEMS, PATH, SENTENCE, lines, securitycontext, set};
use crate::combine::{Build, Forced, Matrix, Status};
use crate::report::{Cap, Verdict};

/// Most Dockerfiles named for a capability or a profile.
const NAMED: usize = 3;
/// Most capabilities side by side; more are in a table below.
const ABREAST: usize = 24;

pub fn matrix(matrix: &Matrix) -> String {
    let mut page = Page::default();
    let union = &matrix.union;
    let all = match matrix.builds.len() {
        1 => "1 Dockerfile needs".to_owned(),
        all => format!("{all} Dockerfiles need"),
    };
    let least = if union.complete { "" } else { " at least" };
    page.heading(&format!(
        "{all}{least} {}",
        set(&union.required, &union.unsure)
    ));
    page.paragraph(&prose(
        &screen::title(matrix).replace("   ", ": "),
        SENTENCE,
    ));
    forced(&mut page, matrix);
    let said = |texts: Vec<String>| -> Vec<String> {
        texts.iter().map(|text| prose(text, SENTENCE)).collect()
    };
    let savings = said(fleet::savings(matrix));
    if !savings.is_empty() {
        page.paragraph("What a few less would save:");
        page.list(&savings, ITEMS);
    }
    profiles(&mut page, matrix);
    let differing = said(fleet::differing(matrix));
    if !differing.is_empty() {
        page.paragraph("Runs of the same Dockerfile that differ:");
        page.list(&differing, fleet::DIFFER);
    }
    let notes = said(screen::notes(matrix));
    if !notes.is_empty() {
        page.paragraph("What to know beside:");
        page.list(&notes, ITEMS);
    }
    let lossless = matrix.builds.iter().all(Build::is_lossless);
    if lossless && matrix.builds.iter().any(|b| b.status == Status::Built) {
        page.details("What to allow", |page| {
            page.lines("yaml", &securitycontext(&union.required));
        });
    }
    cells(&mut page, matrix);
    page.finish()
}

/// Who forces each capability of the set.
fn forced(page: &mut Page, matrix: &Matrix) {
    let all = matrix.builds.iter().filter(|b| !b.runs.is_empty()).count();
    let rows = matrix.union.required.iter().map(|cap| {
        let by = matrix.forced(*cap);
        let sure = by.iter().any(|forced| forced.verdict == Verdict::Needed);
        let name = if sure {
            format!("**{cap}**")
        } else {
            format!("{cap} (unsure)")
        };
        vec![name, format!("{} of {all}", by.len()), places(&by)]
    });
    let columns = [
        ("Capability", Align::Left),
        ("Forced by", Align::Right),
        ("Where", Align::Left),
    ];
    page.table(&columns, rows, "capabilities");
}

fn places(by: &[Forced<'_>]) -> String {
    let mut named: Vec<String> = (by.iter().take(NAMED))
        .map(|forced| {
            let name = code_tail(&forced.build.dockerfile, PATH);
            match forced.lines.len() {
                0 => name,
                1 => format!("{name} line {}", lines(forced.lines.iter().copied())),
                _ => format!("{name} lines {}", lines(forced.lines.iter().copied())),
            }
        })
        .collect();
    if by.len() > NAMED {
        named.push(format!("{} more", by.len() - NAMED));
    }
    named.join("; ")
}

fn profiles(page: &mut Page, matrix: &Matrix) {
    let rows = matrix.profiles.iter().enumerate().map(|(at, profile)| {
        let mut named: Vec<String> = (profile.dockerfiles.iter().take(NAMED))
            .map(|name| code_tail(name, PATH))
            .collect();
        if profile.dockerfiles.len() > NAMED {
            named.push(format!("{} more", profile.dockerfiles.len() - NAMED));
        }
        vec![
            (at + 1).to_string(),
            set(&profile.required, &[]),
            profile.dockerfiles.len().to_string(),
            named.join(", "),
        ]
    });
    let columns = [
        ("Profile", Align::Right),
        ("Allows", Align::Left),
        ("Dockerfiles", Align::Right),
        ("Which", Align::Left),
    ];
    page.table(&columns, rows, "profiles");
}

/// Dockerfiles × capabilities.
fn cells(page: &mut Page, matrix: &Matrix) {
    let (shown, rest): (Vec<_>, Vec<_>) =
        (matrix.capabilities.iter()).partition(|column| column.verdict != Verdict::Unneeded);
    let rows = screen::weightiest(matrix, screen::ROWS);
    page.details("Who needs what", |page| {
        page.paragraph("● needed, ? unsure: one run cannot settle it, · asked for and not needed");
        for (at, columns) in shown.chunks(ABREAST).enumerate() {
            let names = columns.iter().map(|column| column.name.to_string());
            let names: Vec<String> = names.collect();
            let mut heads = vec![("Dockerfile", Align::Left)];
            heads.extend(names.iter().map(|name| (name.as_str(), Align::Middle)));
            heads.extend((at == 0).then_some(("Build", Align::Left)));
            let row = |build: &&Build| {
                let mut cells = vec![code_tail(&build.dockerfile, PATH)];
                cells.extend((columns.iter()).map(|c| mark(matrix.cell(build, c.name))));
                cells.extend((at == 0).then(|| prose(&screen::status_of(build), SENTENCE)));
                cells
            };
            page.table(&heads, rows.iter().map(row), "Dockerfiles");
        }
        if shown.is_empty() {
            let row = |build: &&Build| {
                let name = code_tail(&build.dockerfile, PATH);
                vec![name, prose(&screen::status_of(build), SENTENCE)]
            };
            let heads = [("Dockerfile", Align::Left), ("Build", Align::Left)];
            page.table(&heads, rows.iter().map(row), "Dockerfiles");
        }
        if rows.len() < matrix.builds.len() {
            page.paragraph(&format!(
                "The {} Dockerfiles that need most; {} more are in `--format json`.",
                rows.len(),
                matrix.builds.len() - rows.len()
            ));
        }
        if !rest.is_empty() {
            let lossless = matrix.builds.iter().all(Build::is_lossless);
            let rest: Vec<Cap> = rest.iter().map(|column| column.name).collect();
            let what = if lossless {
                "Asked for, and not needed by any"
            } else {
                "Asked for, and not seen to be needed"
            };
            page.paragraph(&format!("{what}: {}.", names(&rest, ", ")));
        }
    });
}

fn mark(cell: Option<Verdict>) -> String {
    let mark = match cell {
        Some(Verdict::Needed) => "●",
        Some(Verdict::Unsure) => "?",
        Some(Verdict::Unneeded) => "·",
        None => "",
    };
    mark.to_owned()
}

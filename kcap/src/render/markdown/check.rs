//! A check: what is over, with the line; against a baseline, what came and what went.

use super::super::check::{title, what_asks};
use super::super::table::names;
use super::page::{Align, Page};
use super::text::{code, code_tail, prose};
use super::{ITEMS, PATH, SENTENCE, TEXT};
use crate::combine::check::{Check, Over};
use crate::report::Verdict;

/// Most places shown of one capability in one Dockerfile.
const PLACES: usize = 4;

pub fn check(check: &Check) -> String {
    let mut page = Page::default();
    let word = match (check.pass, check.is_proven()) {
        (false, _) => "Fail",
        (true, false) => "Open",
        (true, true) => "Pass",
    };
    page.heading(&format!("{word}: {}", prose(&title(check), SENTENCE)));
    if !check.over.is_empty() && check.against.allowed.is_none() {
        page.paragraph("What came:");
    }
    places(&mut page, &check.over);
    if !check.went.is_empty() {
        page.paragraph("What went, and is no longer needed:");
        places(&mut page, &check.went);
    }
    let mut facts = Vec::new();
    if let Some(allowed) = &check.against.allowed {
        facts.push(match &allowed[..] {
            [] => "Allowed: nothing".to_owned(),
            allowed => format!("Allowed: {}", names(allowed, ", ")),
        });
    }
    let proven = check.complete && check.builds.iter().all(|b| b.incomplete.is_none());
    if !check.spare.is_empty() {
        let seen = if proven { "" } else { ", as far as was seen" };
        let spare = names(&check.spare, ", ");
        facts.push(format!("Allowed and not needed{seen}: {spare}"));
    }
    for (what, dockerfiles) in [("New", &check.added), ("Gone", &check.gone)] {
        if !dockerfiles.is_empty() {
            let mut named: Vec<String> = (dockerfiles.iter().take(ITEMS))
                .map(|name| code_tail(name, PATH))
                .collect();
            if dockerfiles.len() > ITEMS {
                named.push(format!("{} more", dockerfiles.len() - ITEMS));
            }
            facts.push(format!("{what}: {}", named.join(", ")));
        }
    }
    let unsure = |over: &Over| over.verdict == Verdict::Unsure;
    if check.over.iter().any(unsure) {
        let text = "`?` is unsure: one run cannot settle it; it counts, unless `--allow-unsure` is \
                    given";
        facts.push(text.to_owned());
    }
    page.list(&facts, ITEMS);
    let open: Vec<String> = (check.builds.iter())
        .filter_map(|build| {
            let why = prose(build.incomplete.as_ref()?, SENTENCE);
            Some(format!("{}: {why}", code_tail(&build.dockerfile, PATH)))
        })
        .collect();
    if !open.is_empty() {
        page.paragraph("Not seen to the end:");
        page.list(&open, ITEMS);
    }
    builds(&mut page, check);
    let notes = check.against.source.iter().chain(&check.notes);
    let notes: Vec<String> = notes.map(|note| prose(note, SENTENCE)).collect();
    page.details("Notes", |page| page.list(&notes, ITEMS));
    page.finish()
}

/// A row for each place.
fn places(page: &mut Page, overs: &[Over]) {
    let rows = overs.iter().flat_map(|over| {
        let mark = if over.verdict == Verdict::Unsure {
            " `?`"
        } else {
            ""
        };
        let others: Vec<String> = (over.any_of.iter())
            .filter(|cap| **cap != over.capability)
            .map(|cap| format!(" or {cap}"))
            .collect();
        let row = move |line: String, text: String| {
            vec![
                code_tail(&over.dockerfile, PATH),
                line,
                format!("**{}**{}{mark}", over.capability, others.concat()),
                text,
            ]
        };
        let mut rows: Vec<Vec<String>> = (over.at.iter().take(PLACES))
            .map(|at| {
                let line = at
                    .line
                    .map_or_else(|| "—".to_owned(), |line| line.to_string());
                row(line, code(&what_asks(at), TEXT))
            })
            .collect();
        if over.at.is_empty() {
            rows.push(row(
                "—".to_owned(),
                "the report does not say where".to_owned(),
            ));
        }
        if over.at.len() > PLACES {
            let more = over.at.len() - PLACES;
            rows.push(row("…".to_owned(), format!("{more} more places")));
        }
        rows
    });
    let columns = [
        ("Dockerfile", Align::Left),
        ("Line", Align::Right),
        ("Capability", Align::Left),
        ("Instruction", Align::Left),
    ];
    page.table(&columns, rows, "places");
}

/// What each Dockerfile needs.
fn builds(page: &mut Page, check: &Check) {
    let rows = check.builds.iter().map(|build| {
        let needs: Vec<String> = (build.required.iter())
            .map(|cap| match build.over.contains(cap) {
                true => format!("**{cap}**"),
                false => cap.to_string(),
            })
            .collect();
        vec![
            code_tail(&build.dockerfile, PATH),
            if needs.is_empty() {
                "nothing".to_owned()
            } else {
                needs.join(" ")
            },
            build.runs.to_string(),
        ]
    });
    let columns = [
        ("Dockerfile", Align::Left),
        ("Needs", Align::Left),
        ("Runs", Align::Right),
    ];
    page.details(&format!("Dockerfiles: {}", check.builds.len()), |page| {
        page.table(&columns, rows, "Dockerfiles");
    });
}

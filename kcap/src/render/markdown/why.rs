//! One capability explained, for one build and for several.

use super::super::{rows::telling, table::names};
use super::page::{Align, Page};
use super::text::{code, code_tail, prose};
use super::{ITEMS, PATH, SENTENCE, TEXT, lines};
use crate::explain::{Case, Explanation, Explanations, Part, Spot};
use crate::report::Verdict;

pub fn why(e: &Explanation) -> String {
    let mut page = Page::default();
    let word = match e.verdict {
        Some(Verdict::Needed) => "needed by",
        Some(Verdict::Unsure) => "perhaps needed by",
        Some(Verdict::Unneeded) => "not needed by",
        None => "not asked for by",
    };
    let of = match &e.dockerfile {
        Some(dockerfile) => code_tail(dockerfile, PATH),
        None => "this build".to_owned(),
    };
    page.heading(&format!("{} is {word} {of}", e.name));
    page.paragraph(&prose(e.allows, SENTENCE));
    page.paragraph(&format!("Here {}.", prose(&e.summary, SENTENCE)));
    let rows = e.places.iter().map(|place| {
        let first = place.asked.first();
        let program = first.map_or_else(String::new, |asked| {
            let call = asked.syscall.as_deref().map(|call| code(call, TEXT));
            let program = code_tail(&asked.program, PATH);
            call.map_or_else(|| program.clone(), |call| format!("{program}: {call}"))
        });
        let cause = (place.cause.as_deref())
            .map_or_else(String::new, |cause| format!(" ({})", prose(cause, TEXT)));
        vec![
            lines(place.line),
            format!("{}{cause}", code(&place.text, TEXT)),
            program,
        ]
    });
    let columns = [
        ("Line", Align::Right),
        ("Where", Align::Left),
        ("What asks", Align::Left),
    ];
    page.table(&columns, rows, "places");
    if e.more_places > 0 {
        page.paragraph(&format!(
            "And in {} more parts of the build.",
            e.more_places
        ));
    }
    if (e.verdict).is_some_and(|verdict| verdict != Verdict::Unneeded) {
        page.paragraph(&format!(
            "Without it {}.",
            prose(e.without_detail, SENTENCE)
        ));
        let mut facts: Vec<String> = e.avoid.iter().map(|text| prose(text, SENTENCE)).collect();
        if !e.alternatives.is_empty() {
            facts.push(format!(
                "{} would do in its place",
                names(&e.alternatives, " or ")
            ));
        }
        if !facts.is_empty() {
            page.paragraph("What would avoid it:");
            page.list(&facts, ITEMS);
        }
    }
    more(&mut page, e.silent, &e.user_namespace, &e.known, &e.notes);
    page.finish()
}

pub fn why_many(e: &Explanations) -> String {
    let mut page = Page::default();
    let count = |verdict| {
        e.dockerfiles
            .iter()
            .filter(|part| part.verdict == verdict)
            .count()
    };
    let (needed, unsure) = (count(Verdict::Needed), count(Verdict::Unsure));
    let perhaps = match unsure {
        0 => String::new(),
        n => format!(", and perhaps by {n} more"),
    };
    page.heading(&format!(
        "{} is needed by {needed} of {} Dockerfiles{perhaps}",
        e.name, e.all
    ));
    page.paragraph(&prose(e.allows, SENTENCE));
    let weighty = |part: &&Part| part.verdict != Verdict::Unneeded;
    let rows = e.dockerfiles.iter().filter(weighty).map(|part| {
        let unsure = part.verdict == Verdict::Unsure;
        let runs = match part.runs {
            0 | 1 => String::new(),
            runs => format!(", in {} of {runs} runs", part.required_in),
        };
        vec![
            code_tail(&part.dockerfile, PATH),
            lines(part.lines.iter().copied()),
            part.places.first().map_or_else(String::new, spot),
            format!(
                "{}{}{runs}",
                part.without.brief(),
                if unsure { " (unsure)" } else { "" }
            ),
        ]
    });
    let columns = [
        ("Dockerfile", Align::Left),
        ("Lines", Align::Right),
        ("What for", Align::Left),
        ("Without it", Align::Left),
    ];
    page.table(&columns, rows, "Dockerfiles");
    if let Some(saving) = &e.saving {
        let mut named: Vec<String> = (saving.dockerfiles.iter().take(ITEMS))
            .map(|name| code_tail(name, PATH))
            .collect();
        if saving.dockerfiles.len() > ITEMS {
            named.push(format!("{} more", saving.dockerfiles.len() - ITEMS));
        }
        page.paragraph(&format!(
            "Without {}, the set that is enough for all would not hold {}.",
            named.join(", "),
            names(&saving.drops, ", ")
        ));
    }
    let avoid = e.dockerfiles.iter().filter(weighty).flat_map(|part| {
        (part.avoid.iter())
            .map(|text| vec![code_tail(&part.dockerfile, PATH), prose(text, SENTENCE)])
    });
    let columns = [("Dockerfile", Align::Left), ("Instead", Align::Left)];
    page.details("What would avoid it", |page| {
        page.table(&columns, avoid, "ways");
    });
    let rows = e.dockerfiles.iter().filter(weighty).flat_map(|part| {
        part.places.iter().map(|place| {
            vec![
                code_tail(&part.dockerfile, PATH),
                lines(place.line),
                spot(place),
            ]
        })
    });
    let columns = [
        ("Dockerfile", Align::Left),
        ("Line", Align::Right),
        ("Where", Align::Left),
    ];
    page.details("Every place", |page| page.table(&columns, rows, "places"));
    let needless = e
        .dockerfiles
        .iter()
        .filter(|part| !weighty(part))
        .map(|part| {
            let instead = match &part.instead[..] {
                [] => "nothing depends on it".to_owned(),
                instead => format!("{} does", names(instead, " ")),
            };
            vec![code_tail(&part.dockerfile, PATH), instead]
        });
    let columns = [("Dockerfile", Align::Left), ("Why not", Align::Left)];
    let summary = format!("Asked for, not needed: {}", count(Verdict::Unneeded));
    page.details(&summary, |page| {
        page.table(&columns, needless, "Dockerfiles")
    });
    more(&mut page, e.silent, &e.user_namespace, &e.known, &e.notes);
    page.finish()
}

/// The instruction, what in it asks, and by which program.
fn spot(spot: &Spot) -> String {
    let text = if spot.text.is_empty() {
        &spot.kind
    } else {
        &spot.text
    };
    let program = spot.program.as_deref().filter(|_| spot.kind == "run");
    let what = match (
        &spot.cause,
        program.and_then(|program| telling(program, text)),
    ) {
        (Some(cause), _) => prose(cause, TEXT),
        (None, Some(program)) => code_tail(program, PATH),
        (None, None) => return code(text, TEXT),
    };
    let text = code(text, TEXT);
    format!("{text} ({what})")
}

/// What is known beside.
fn more(page: &mut Page, silent: Option<&str>, userns: &str, known: &[Case], notes: &[String]) {
    let mut facts = Vec::new();
    facts.extend(silent.map(|silent| format!("In silence: {}", prose(silent, SENTENCE))));
    facts.push(format!(
        "With `hostUsers: false`: {}",
        prose(userns, SENTENCE)
    ));
    for case in known {
        let text = format!("{}: {}", case.source, case.what);
        facts.push(format!("Known: {}", prose(&text, SENTENCE)));
    }
    facts.extend(notes.iter().map(|note| prose(note, SENTENCE)));
    page.details("More", |page| page.list(&facts, 2 * ITEMS));
}

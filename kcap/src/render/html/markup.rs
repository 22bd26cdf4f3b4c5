//! The part of the page that is there without its script: the answer for one report; for several the
//! set, what a few Dockerfiles less would save, the matrix and profiles.

use std::collections::HashMap;

use super::super::escape::{head, tail};
use super::super::{matrix, table};
use super::data::{Answer, Fact, Need, Row};
use super::safe::html;
use super::{NAME, reduce};
use crate::combine::{Build, Forced, Matrix, Status};
use crate::report::{Cap, Report, Verdict};

/// Most places named for a capability, and lines of one.
const PLACES: usize = 6;
const LINES: usize = 4;
/// Savings that are in sight; most of them, and most Dockerfiles that one may be without: more is no few.
const FIRST: usize = 3;
const SAVINGS: usize = 12;
const FEW: usize = 5;
/// Most Dockerfiles of which it is said that their runs differ.
const DIFFER: usize = 12;
/// Most Dockerfiles named of a profile.
const NAMED: usize = 40;

/// One report: the answer, and places for what the script shows.
pub fn one(name: &str, answer: &Answer, report: &Report) -> String {
    let host = &report.host;
    let seen = [&host.kernel, &host.arch, &host.hook].map(|fact| head(fact, 64));
    format!(
        "<article class=\"build\" id=\"build\">{}{}<div id=\"split\"></div>{}<p class=\"made\">Seen on \
         Linux {}, by {}.</p></article>",
        top(name, answer),
        needs(answer),
        facts(&answer.facts),
        html(&format!("{} {}", seen[0], seen[1])),
        html(&seen[2]),
    )
}

/// What the eye meets first.
fn top(name: &str, answer: &Answer) -> String {
    let mut out = format!(
        "<div class=\"answer\"><h1><bdi>{}</bdi></h1><p class=\"status\">{}</p>",
        html(name),
        html(&answer.status)
    );
    for fact in &answer.warnings {
        out += &warning(fact);
    }
    if !answer.log.is_empty() {
        out += &format!(
            "<pre class=\"log\" tabindex=\"0\" aria-label=\"End of the executor's log\">{}</pre>",
            html(&answer.log.join("\n"))
        );
    }
    out += &set(
        answer.at_least,
        &answer.sure,
        &answer.unsure,
        answer.drops.as_deref(),
    );
    out += &apply(answer.apply.as_deref());
    out + "</div>"
}

fn warning(fact: &Fact) -> String {
    format!(
        "<p class=\"warning {}\"><b>{}</b> {}</p>",
        fact.tone,
        fact.label,
        html(&fact.text)
    )
}

/// What is needed, a chip each.
fn set(at_least: &str, sure: &[String], unsure: &[String], drops: Option<&str>) -> String {
    let mut out = String::from("<div class=\"set\"><h2>Needs</h2>");
    if !at_least.is_empty() {
        out += &format!("<span class=\"least\">{at_least}</span>");
    }
    if sure.is_empty() && unsure.is_empty() {
        let nothing = if at_least.is_empty() {
            "nothing"
        } else {
            "what was not seen"
        };
        out += &format!("<strong class=\"nothing\">{nothing}</strong>");
    } else {
        out += "<ul class=\"chips\">";
        for cap in sure {
            out += &format!("<li class=\"chip sure\" data-c=\"{0}\">{0}</li>", html(cap));
        }
        for cap in unsure {
            out += &format!(
                "<li class=\"chip maybe\" data-c=\"{0}\">{0} <small>unsure</small></li>",
                html(cap)
            );
        }
        out += "</ul>";
    }
    if let Some(drops) = drops {
        out += &format!("<span class=\"drops\">{}</span>", html(drops));
    }
    out + "</div>"
}

fn apply(apply: Option<&str>) -> String {
    match apply {
        Some(apply) => format!(
            "<div class=\"apply\"><h2>Apply</h2><code id=\"apply\">{}</code></div>",
            html(apply)
        ),
        None => String::new(),
    }
}

fn needs(answer: &Answer) -> String {
    if answer.needs.is_empty() {
        return String::new();
    }
    let mut out = String::from("<div class=\"forces\">");
    if !answer.short.is_empty() {
        out += "<ul class=\"short\">";
        for (caps, way) in &answer.short {
            out += &format!("<li>To drop <b>{}</b>: {}</li>", html(caps), html(way));
        }
        out += "</ul>";
    }
    out += &needs_table(&answer.needs);
    out + "</div>"
}

fn needs_table(needs: &[Need]) -> String {
    let mut out = String::from(
        "<table class=\"needs\"><caption>What forces each, and what would avoid it</caption><thead>\
         <tr><th scope=\"col\">Capability</th><th scope=\"col\">Line</th><th scope=\"col\">What asks\
         </th><th scope=\"col\">Without it</th><th scope=\"col\">What would avoid it</th></tr></thead>\
         <tbody>",
    );
    for need in needs {
        let class = if need.unsure { "maybe" } else { "sure" };
        out += "<tr><th scope=\"row\">";
        for cap in &need.caps {
            out += &format!(
                "<span class=\"chip {class}\" data-c=\"{0}\">{0}</span> ",
                html(cap)
            );
        }
        let lines: Vec<String> = need.lines.iter().map(u32::to_string).collect();
        let more = if need.more > 0 { ", …" } else { "" };
        out += &format!(
            "</th><td class=\"lines\">{}{more}</td><td><code><bdi>{}</bdi></code></td>\
             <td class=\"{}\">{}</td><td class=\"avoid\">",
            lines.join(", "),
            html(&need.why),
            need.tone,
            html(&need.without)
        );
        for text in &need.avoid {
            out += &format!("<p>{}</p>", html(text));
        }
        if need.avoid.is_empty() {
            out += "<p class=\"none\">nothing known</p>";
        }
        out += "</td></tr>";
    }
    out + "</tbody></table>"
}

fn facts(facts: &[Fact]) -> String {
    if facts.is_empty() {
        return String::new();
    }
    let mut out = String::from("<dl class=\"facts\">");
    let mut last = "";
    for fact in facts {
        if fact.label != last {
            out += &format!("<dt>{}</dt>", fact.label);
        }
        last = fact.label;
        out += &format!("<dd class=\"{}\">{}</dd>", fact.tone, html(&fact.text));
    }
    out + "</dl>"
}

/// Several builds. `builds` are those that have a row, `rows` the same as the script has them.
pub fn many(matrix: &Matrix, builds: &[&Build], rows: &[Row]) -> String {
    let forced: Vec<(Cap, Vec<Forced<'_>>)> = (matrix.capabilities.iter())
        .map(|column| (column.name, matrix.forced(column.name)))
        .collect();
    format!(
        "<div id=\"overview\">{}{}{}{}</div>",
        summary(matrix),
        table_of(matrix, builds, rows, &forced),
        forced_by(matrix, &forced),
        profiles(matrix)
    )
}

fn summary(matrix: &Matrix) -> String {
    let title = matrix::title(matrix);
    let (count, status) = title.split_once("   ").unwrap_or((&title, ""));
    let mut out = format!(
        "<div class=\"answer\"><h1>{}</h1><p class=\"status\">{}</p>",
        html(count),
        html(status)
    );
    // That not all was seen comes before what was.
    let bad = !matrix.union.complete;
    for (at, note) in matrix::notes(matrix).into_iter().enumerate() {
        let tone = if bad && at == 0 { "bad" } else { "unsure" };
        out += &format!(
            "<p class=\"warning {tone}\"><b>Note</b> {}</p>",
            html(&note)
        );
    }
    let union = &matrix.union;
    let (unsure, sure): (Vec<&Cap>, Vec<&Cap>) =
        (union.required.iter()).partition(|cap| union.unsure.contains(cap));
    let names = |caps: &[&Cap]| -> Vec<String> { caps.iter().map(|c| c.to_string()).collect() };
    let at_least = if union.complete { "" } else { "at least" };
    out += &set(at_least, &names(&sure), &names(&unsure), None);
    let lossless = matrix.builds.iter().all(Build::is_lossless);
    if lossless
        && matrix
            .builds
            .iter()
            .any(|build| build.status == Status::Built)
    {
        out += &apply(Some(&reduce::apply(&union.required)));
    }
    out += &savings(matrix);
    out += &differing(matrix);
    out + "</div>"
}

fn savings(matrix: &Matrix) -> String {
    let few = (matrix.savings.iter()).filter(|saving| saving.dockerfiles.len() <= FEW);
    let mut items = Vec::new();
    for saving in few.take(SAVINGS) {
        let names: Vec<String> = saving
            .dockerfiles
            .iter()
            .map(|name| linked(name, None))
            .collect();
        let what = match names.len() {
            1 => "this Dockerfile".to_owned(),
            n => format!("these {n} Dockerfiles"),
        };
        let drops: Vec<String> = (saving.drops.iter())
            .map(|cap| format!("<b>{cap}</b>"))
            .collect();
        items.push(format!(
            "<li>Without {what} you could drop {}: {}</li>",
            drops.join(", "),
            names.join(", ")
        ));
    }
    if items.is_empty() {
        return String::new();
    }
    let more = items.split_off(items.len().min(FIRST)).concat();
    let mut out = format!(
        "<div class=\"gains\"><h2>Gains</h2><ul>{}</ul>",
        items.concat()
    );
    if !more.is_empty() {
        out += &format!("<details><summary>More gains</summary><ul>{more}</ul></details>");
    }
    out + "</div>"
}

/// Dockerfiles whose runs differ in what they needed.
fn differing(matrix: &Matrix) -> String {
    let mut items = String::new();
    let differs = |build: &&Build| build.seen.iter().any(|seen| seen.runs < seen.of);
    for build in matrix.builds.iter().filter(differs).take(DIFFER) {
        let each: Vec<String> = (build.seen.iter())
            .filter(|seen| seen.runs < seen.of)
            .map(|seen| {
                let last = html(&head(&seen.last, 10));
                let (name, runs, of) = (seen.name, seen.runs, seen.of);
                format!("<b>{name}</b> in {runs} of {of} runs, last on {last}")
            })
            .collect();
        items += &format!(
            "<li>{}: {}</li>",
            linked(&build.dockerfile, None),
            each.join("; ")
        );
    }
    if items.is_empty() {
        return String::new();
    }
    format!("<div class=\"gains\"><h2>Runs differ</h2><ul>{items}</ul></div>")
}

/// A Dockerfile's name, which the script makes a link of.
fn linked(name: &str, cap: Option<Cap>) -> String {
    let cap = cap.map_or_else(String::new, |cap| format!(" data-c=\"{cap}\""));
    let name = tail(name, NAME);
    format!("<bdi data-d=\"{0}\"{cap}>{0}</bdi>", html(&name))
}

/// The columns, as they stand: what is needed first.
pub fn columns(matrix: &Matrix) -> Vec<Cap> {
    let (needed, rest): (Vec<_>, Vec<_>) =
        (matrix.capabilities.iter()).partition(|column| column.verdict != Verdict::Unneeded);
    needed
        .iter()
        .chain(&rest)
        .map(|column| column.name)
        .collect()
}

fn table_of(
    matrix: &Matrix,
    builds: &[&Build],
    rows: &[Row],
    forced: &[(Cap, Vec<Forced<'_>>)],
) -> String {
    let columns = columns(matrix);
    // How many lines force it: more weigh more.
    let mut lines: HashMap<(&str, Cap), usize> = HashMap::new();
    for (cap, by) in forced {
        for forced in by {
            lines.insert((&forced.build.dockerfile, *cap), forced.lines.len());
        }
    }
    let mut out = String::from(
        "<section class=\"who\" aria-labelledby=\"who\"><h2 id=\"who\">Who needs what</h2>",
    );
    let more = matrix.builds.len() - builds.len();
    if more > 0 {
        out += &format!(
            "<p class=\"warning unsure\"><b>Rows</b> the {} Dockerfiles that need most; {more} more \
             are in the set and the counts, and in --format json</p>",
            builds.len()
        );
    }
    out += "<div id=\"filters\"></div><div class=\"scroll\" role=\"region\" aria-label=\"Matrix\" \
            tabindex=\"0\"><table class=\"matrix\" id=\"matrix\"><caption><span class=\"key\">\
            <b class=\"N\">N</b> needed, with the number of lines where it is more than one</span> \
            <span class=\"key\"><b class=\"Q\">?</b> unsure: one run cannot settle it</span> \
            <span class=\"key\"><b class=\"D\">·</b> asked for, not needed</span> \
            <span class=\"key\">empty: never asked for</span></caption>\
            <thead><tr><th scope=\"col\" class=\"name\">Dockerfile</th>";
    for cap in &columns {
        out += &format!("<th scope=\"col\" class=\"cap\"><span>{cap}</span></th>");
    }
    out += "<th scope=\"col\" class=\"built\">Build</th></tr></thead>\
            <tbody class=\"sums\"><tr><th scope=\"row\" class=\"name\">Set for all</th>";
    let column = |cap: &Cap| {
        (matrix.capabilities.iter())
            .find(|column| column.name == *cap)
            .map(|column| column.verdict)
    };
    for cap in &columns {
        out += &cell(column(cap), 1);
    }
    out += "<td></td></tr><tr><th scope=\"row\" class=\"name\">Dockerfiles that force it</th>";
    for cap in &columns {
        let count = forced
            .iter()
            .find(|(name, _)| name == cap)
            .map_or(0, |(_, by)| by.len());
        match count {
            0 => out += "<td></td>",
            n => out += &format!("<td class=\"sum\">{n}</td>"),
        }
    }
    out += "<td></td></tr></tbody><tbody id=\"rows\">";
    for (build, row) in builds.iter().zip(rows) {
        out += &format!(
            "<tr><th scope=\"row\" class=\"name\"><bdi>{}</bdi></th>",
            html(&row.name)
        );
        for (letter, cap) in row.cells.chars().zip(&columns) {
            let verdict = match letter {
                'N' => Some(Verdict::Needed),
                '?' => Some(Verdict::Unsure),
                '.' => Some(Verdict::Unneeded),
                _ => None,
            };
            let lines = lines.get(&(build.dockerfile.as_str(), *cap));
            out += &cell(verdict, lines.copied().unwrap_or_default());
        }
        let class = if row.good { "built" } else { "built bad" };
        out += &format!("<td class=\"{class}\">{}</td></tr>\n", html(&row.status));
    }
    out + "</tbody></table></div></section>"
}

fn cell(verdict: Option<Verdict>, lines: usize) -> String {
    let count = match lines {
        0 | 1 => String::new(),
        100.. => "<i>99</i>".to_owned(),
        n => format!("<i>{n}</i>"),
    };
    match verdict {
        Some(Verdict::Needed) => {
            let weight = match lines {
                0 | 1 => "N",
                2 | 3 => "N N2",
                _ => "N N3",
            };
            format!("<td class=\"{weight}\">N{count}</td>")
        }
        Some(Verdict::Unsure) => format!("<td class=\"Q\">?{count}</td>"),
        Some(Verdict::Unneeded) => "<td class=\"D\">·</td>".to_owned(),
        None => "<td></td>".to_owned(),
    }
}

/// For each capability of the set, who forces it.
fn forced_by(matrix: &Matrix, forced: &[(Cap, Vec<Forced<'_>>)]) -> String {
    let all = matrix
        .builds
        .iter()
        .filter(|build| !build.runs.is_empty())
        .count();
    if matrix.union.required.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section aria-labelledby=\"forced\"><h2 id=\"forced\">What forces each</h2><table \
         class=\"forced counts\"><thead><tr><th scope=\"col\">Capability</th><th scope=\"col\">Dockerfiles\
         </th><th scope=\"col\">Where</th></tr></thead><tbody>",
    );
    for (cap, by) in forced
        .iter()
        .filter(|(cap, _)| matrix.union.required.contains(cap))
    {
        let sure = by.iter().any(|forced| forced.verdict == Verdict::Needed);
        let class = if sure { "sure" } else { "maybe" };
        let places: Vec<String> = (by.iter().take(PLACES))
            .map(|forced| {
                let lines: Vec<String> = forced
                    .lines
                    .iter()
                    .take(LINES)
                    .map(u32::to_string)
                    .collect();
                let more = if forced.lines.len() > LINES {
                    ", …"
                } else {
                    ""
                };
                let lines = match lines.len() {
                    0 => String::new(),
                    1 => format!(" <small>line {}</small>", lines[0]),
                    _ => format!(" <small>lines {}{more}</small>", lines.join(", ")),
                };
                format!("{}{lines}", linked(&forced.build.dockerfile, Some(*cap)))
            })
            .collect();
        let more = match by.len().saturating_sub(PLACES) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        out += &format!(
            "<tr><th scope=\"row\"><span class=\"chip {class}\">{cap}</span></th><td>{} of {all}</td>\
             <td>{}{more}</td></tr>",
            by.len(),
            places.join("; ")
        );
    }
    out + "</tbody></table></section>"
}

fn profiles(matrix: &Matrix) -> String {
    if matrix.profiles.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section aria-labelledby=\"profiles\"><h2 id=\"profiles\">Profiles</h2><table \
         class=\"forced\"><thead><tr><th scope=\"col\">Profile</th><th scope=\"col\">Set</th>\
         <th scope=\"col\">Dockerfiles</th></tr></thead><tbody>",
    );
    for (at, profile) in matrix.profiles.iter().enumerate() {
        let set = match &profile.required[..] {
            [] => "nothing".to_owned(),
            caps => table::names(caps, " "),
        };
        let names: Vec<String> = (profile.dockerfiles.iter().take(NAMED))
            .map(|name| linked(name, None))
            .collect();
        let more = match profile.dockerfiles.len().saturating_sub(NAMED) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let count = profile.dockerfiles.len();
        out += &format!(
            "<tr><th scope=\"row\">{}</th><td><code>{set}</code></td><td><details><summary>{count}\
             </summary>{}{more}</details></td></tr>",
            at + 1,
            names.join(", ")
        );
    }
    out + "</tbody></table></section>"
}

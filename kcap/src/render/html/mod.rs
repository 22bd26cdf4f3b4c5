//! One self-contained page: nothing is loaded, nothing leaves it, and it works from a file. What to
//! read first is in the page itself, and there without its script; the script shows the rest, from
//! data that is in the page as JSON. Nothing that a build chose is markup anywhere: Rust escapes it,
//! and the script only ever makes elements and sets their text.

mod data;
mod markup;
mod reduce;
mod safe;

use std::collections::HashMap;
use std::io::{self, Write};

use super::escape::tail;
use super::{matrix, table};
use crate::combine::{Build, Matrix};
use crate::explain;
use crate::report::{Cap, Report};
use data::{CapText, Detail, Page, Row, letter};
use reduce::{LEVELS, Level, Pool};

/// The page with places for what is put into it: `{{name}}`.
const PAGE: &str = include_str!("page.html");
/// How it looks.
const STYLE: &str = include_str!("page.css");
/// What it does, in this order.
const SCRIPT: &str = concat!(
    include_str!("script/base.js"),
    include_str!("script/theme.js"),
    include_str!("script/answer.js"),
    include_str!("script/source.js"),
    include_str!("script/why.js"),
    include_str!("script/matrix.js"),
    include_str!("script/compare.js"),
    include_str!("script/route.js"),
);
/// Most Dockerfiles that have a row.
pub(crate) const ROWS: usize = 1000;
/// Most bytes of what the page has beyond the rows, so that all of it stays below 5 MB.
const DETAILS: usize = 4_000_000;
/// How many times its share of that a single report may take.
const OUTLIER: usize = 4;
/// Most columns of a Dockerfile's name.
const NAME: usize = 240;

/// Writes the page of one report.
pub fn write(report: &Report, to: &mut impl Write) -> io::Result<()> {
    let answer = reduce::answer(report);
    let name = tail(&table::name(report), NAME);
    let (room, mut shown) = Room::of(&[Some(report)]);
    let (detail, left) = shown.remove(0);
    let row = Row {
        name: name.clone(),
        status: answer.status.clone(),
        good: report.complete && report.subject.exit_status == Some(0) && !report.interrupted,
        cells: String::new(),
        detail,
        left,
    };
    let page = room.page(true, &[], vec![row]);
    let main = markup::one(&name, &answer, report);
    fill(
        &format!("{name} - kcap"),
        &main,
        &page,
        &report.tool.version,
        to,
    )
}

/// Writes the page of several builds.
pub fn write_matrix(matrix: &Matrix, to: &mut impl Write) -> io::Result<()> {
    let builds = matrix::weightiest(matrix, ROWS);
    let cells = cells(matrix);
    let columns = markup::columns(matrix);
    let reports: Vec<_> = builds.iter().map(|build| build.report.as_ref()).collect();
    let (room, shown) = Room::of(&reports);
    let mut names = names(&builds).into_iter();
    let rows: Vec<Row> = (builds.iter().zip(shown))
        .map(|(build, (detail, mut left))| {
            if build.report.is_none() {
                left = Some(absent(build));
            }
            Row {
                name: names.next().expect("each build has a name"),
                status: matrix::status_of(build),
                good: build.is_complete(),
                cells: (columns.iter())
                    .map(|cap| letter(cells.get(&(&*build.dockerfile, *cap)).copied()))
                    .collect(),
                detail,
                left: match (left, several(build)) {
                    (Some(left), Some(several)) => Some(format!("{several}; {left}")),
                    (left, several) => left.or(several),
                },
            }
        })
        .collect();
    let page = room.page(false, &columns, rows);
    let main = markup::many(matrix, &builds, &page.rows);
    let title = format!("{} - kcap", matrix::title(matrix));
    fill(&title, &main, &page, &matrix.tool.version, to)
}

/// What each capability is to each Dockerfile. [`Matrix::cell`] looks through the column each time.
fn cells(matrix: &Matrix) -> HashMap<(&str, Cap), crate::report::Verdict> {
    use crate::report::Verdict;
    let mut cells = HashMap::new();
    for column in &matrix.capabilities {
        for (list, verdict) in [
            (&column.unneeded, Verdict::Unneeded),
            (&column.unsure, Verdict::Unsure),
            (&column.needed, Verdict::Needed),
        ] {
            cells.extend(
                list.iter()
                    .map(|name| ((name.as_str(), column.name), verdict)),
            );
        }
    }
    cells
}

/// The names of the rows: what differs only where it is cut is numbered, since fragments go by names.
fn names(builds: &[&Build]) -> Vec<String> {
    let mut taken: HashMap<String, usize> = HashMap::new();
    (builds.iter())
        .map(|build| {
            let name = tail(&build.dockerfile, NAME);
            let times = taken.entry(name.clone()).or_default();
            *times += 1;
            match times {
                1 => name,
                times => format!("{name} ({times})"),
            }
        })
        .collect()
}

/// Why there is no more of a build than its row.
fn absent(build: &Build) -> String {
    match &build.error {
        Some(error) => super::escape::head(error, 400),
        None if build.runs.is_empty() => "nothing was seen of it".to_owned(),
        None => "its report is not in this page: give it to kcap report --format html by itself, \
                 or with fewer others"
            .to_owned(),
    }
}

/// That a row is about more than its detail shows.
fn several(build: &Build) -> Option<String> {
    (build.runs.len() > 1).then(|| {
        format!(
            "what follows is the last of its {} runs; the row and the set are about all",
            build.runs.len()
        )
    })
}

/// What the page has of reports, with texts that they share.
#[derive(Default)]
struct Room {
    pool: Pool,
    size: usize,
}

/// A report as far as there is room for it, and what is said of the rest.
type Shown = (Option<Detail>, Option<String>);

impl Room {
    /// Takes of each report as much as there is room for in all: the same of each, unless a single
    /// one would take far more than its share.
    fn of(reports: &[Option<&Report>]) -> (Self, Vec<Shown>) {
        let count = reports.iter().flatten().count();
        let most = (DETAILS / count.max(1))
            .saturating_mul(OUTLIER)
            .min(DETAILS);
        for first in 0..LEVELS.len() {
            let mut room = Self::default();
            let last = first + 1 == LEVELS.len();
            let mut all = Vec::with_capacity(reports.len());
            for report in reports {
                let most = if last {
                    most.min(DETAILS - room.size)
                } else {
                    most
                };
                all.push(report.map_or((None, None), |report| {
                    room.detail(report, &LEVELS[first..], most)
                }));
                if room.size > DETAILS {
                    break;
                }
            }
            if room.size <= DETAILS {
                return (room, all);
            }
        }
        unreachable!("the last level takes no more than there is")
    }

    /// A report at the first of some levels at which it takes no more than `most` bytes.
    fn detail(&mut self, report: &Report, levels: &[Level], most: usize) -> Shown {
        for level in levels {
            let marks = (self.pool.strings.len(), self.pool.paths.len());
            let (detail, kinds, steps) = reduce::detail(report, *level, &mut self.pool);
            let new = (
                self.pool.strings.since(marks.0),
                self.pool.paths.since(marks.1),
            );
            let size = safe::json(&detail).len() + safe::json(&new).len();
            if size <= most {
                self.size += size;
                let left = [(kinds, "kinds of checks"), (steps, "steps")];
                let left: Vec<String> = (left.iter())
                    .filter(|(count, _)| *count > 0)
                    .map(|(count, what)| format!("{count} {what}"))
                    .collect();
                let left = (!left.is_empty()).then(|| {
                    format!(
                        "this page has no room for {} of this report: --format json has them",
                        left.join(" and ")
                    )
                });
                return (Some(detail), left);
            }
            self.pool.strings.cut(marks.0);
            self.pool.paths.cut(marks.1);
        }
        let left = "this page has no room for its detail: give the report to kcap report --format \
                    html by itself, or with fewer others";
        (None, Some(left.to_owned()))
    }

    fn page(mut self, one: bool, columns: &[Cap], rows: Vec<Row>) -> Page {
        let columns = columns.iter().map(|cap| self.pool.cap(*cap)).collect();
        Page {
            one,
            columns,
            rows,
            caps: (self.pool.caps.into_list().into_iter())
                .map(|cap| {
                    let (allows, silent) = explain::allows(cap);
                    CapText {
                        name: cap.to_string(),
                        allows,
                        silent,
                    }
                })
                .collect(),
            strings: self.pool.strings.into_list(),
            paths: self.pool.paths.into_list(),
        }
    }
}

/// Fills the page. Each place is met once, in the order of the page, so that nothing that is put in is
/// looked through for places.
fn fill(
    title: &str,
    main: &str,
    page: &Page,
    version: &str,
    to: &mut impl Write,
) -> io::Result<()> {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        safe::csp_hash(SCRIPT),
        safe::csp_hash(STYLE)
    );
    let version = super::escape::head(version, 40);
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("places are closed");
        to.write_all(before.as_bytes())?;
        match name {
            "policy" => to.write_all(policy.as_bytes())?,
            "title" => to.write_all(safe::html(title).as_bytes())?,
            "style" => to.write_all(STYLE.as_bytes())?,
            "main" => to.write_all(main.as_bytes())?,
            "version" => to.write_all(safe::html(&version).as_bytes())?,
            "data" => to.write_all(safe::json(page).as_bytes())?,
            "script" => to.write_all(SCRIPT.as_bytes())?,
            _ => unreachable!("the page has no other places"),
        }
        rest = after;
    }
    to.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests;

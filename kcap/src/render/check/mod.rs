//! What a check found: for people, and as the formats that forges show at the line.

mod junit;
mod sarif;
mod table;

use std::io::{self, Write};

use super::escape::{head, shown};
use super::{Style, json, markdown};
use crate::combine::check::{At, Check, Over};
use crate::report::Verdict;

pub(super) use table::what_asks;

/// Most columns of an instruction in a message.
const TEXT: usize = 120;
/// Most columns of a program's path.
const PROGRAM: usize = 80;

/// What a check is rendered as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CheckFormat {
    /// For people, 80 columns
    #[default]
    Table,
    /// The check itself, `kcap.check/v1`
    Json,
    /// A comment for a merge request
    Markdown,
    /// SARIF 2.1.0, as GitHub's code scanning takes it
    Sarif,
    /// JUnit XML, as GitLab and others take it: a test for each Dockerfile
    Junit,
}

/// Renders a check. The same check gives the same bytes.
///
/// # Errors
/// Those of `to`.
pub fn write_check(
    check: &Check,
    format: CheckFormat,
    style: Style,
    to: &mut impl Write,
) -> io::Result<()> {
    match format {
        CheckFormat::Table => table::write(check, style, to),
        CheckFormat::Json => json::write(check, to),
        CheckFormat::Markdown => to.write_all(markdown::check(check).as_bytes()),
        CheckFormat::Sarif => json::write(&sarif::log(check), to),
        CheckFormat::Junit => to.write_all(junit::text(check)?.as_bytes()),
    }
}

/// What is over, in a sentence, safe to show.
fn message(check: &Check, over: &Over, at: Option<&At>) -> String {
    let needs = match over.verdict {
        Verdict::Unsure => "may need",
        Verdict::Needed | Verdict::Unneeded => "needs",
    };
    let others: Vec<String> = (over.any_of.iter())
        .filter(|cap| **cap != over.capability)
        .map(|cap| format!(" or {cap}"))
        .collect();
    let beyond = match check.against.allowed {
        Some(_) => format!("which {} does not allow", head(&check.against.name, TEXT)),
        None => format!("which it did not in {}", head(&check.against.name, TEXT)),
    };
    let place = at.map_or_else(String::new, |at| format!("{} ", instruction(at)));
    format!(
        "{place}{needs} {}{}, {beyond}",
        over.capability,
        others.concat()
    )
}

/// An instruction and its program, safe to show.
fn instruction(at: &At) -> String {
    let text = if at.text.is_empty() {
        &at.kind
    } else {
        &at.text
    };
    let program = at.program.as_ref();
    let program = program.map_or_else(String::new, |p| format!(" ({})", head(p, PROGRAM)));
    format!("{}{program}", head(text, TEXT))
}

/// The path of a Dockerfile in a check, for a link to it.
fn path<'a>(check: &'a Check, dockerfile: &'a str) -> &'a str {
    let build = check.builds.iter().find(|b| b.dockerfile == dockerfile);
    build.and_then(|b| b.path.as_deref()).unwrap_or(dockerfile)
}

/// What the check was of, in a few words, safe to show.
pub(super) fn title(check: &Check) -> String {
    let name = shown(&check.against.name);
    let all = check.builds.len();
    let over = check.builds.iter().filter(|b| !b.over.is_empty()).count();
    let of = if all == 1 {
        "the Dockerfile".to_owned()
    } else {
        format!("{over} of {all} Dockerfiles")
    };
    let verb = if over == 1 || all == 1 {
        "needs"
    } else {
        "need"
    };
    match (check.pass, check.against.allowed.is_some()) {
        (true, true) => format!("{name} is enough"),
        (true, false) => format!("nothing more is needed than in {name}"),
        (false, true) => format!("{of} {verb} more than {name} allows"),
        (false, false) => format!("{of} {verb} more than in {name}"),
    }
}

#[cfg(test)]
mod tests;

//! Markdown for a merge request: the answer as a headline, a table, and the rest folded away. One
//! file a kind of thing; what makes untrusted text safe is in [`text`], what keeps a page within what
//! a forge takes in [`page`].

mod check;
mod comparison;
mod matrix;
mod page;
mod report;
#[cfg(test)]
mod tests;
mod text;
mod why;

pub(super) use check::check;
pub(super) use comparison::comparison;
pub(super) use matrix::matrix;
pub(super) use report::report;
pub(super) use why::{why, why_many};

use super::table::names;
use crate::report::Cap;

/// Most columns of a path.
const PATH: usize = 80;
/// Most columns of an instruction in a table.
const TEXT: usize = 100;
/// Most columns of a sentence.
const SENTENCE: usize = 400;
/// Most items of a list.
const ITEMS: usize = 12;

/// `CHOWN, SETUID and perhaps KILL`: those that are needed, and those that one run cannot settle.
fn set(required: &[Cap], unsure: &[Cap]) -> String {
    let sure: Vec<Cap> = (required.iter().filter(|cap| !unsure.contains(cap)))
        .copied()
        .collect();
    match (&sure[..], unsure) {
        ([], []) => "no capability".to_owned(),
        ([], unsure) => format!("perhaps {}", names(unsure, ", ")),
        (sure, []) => names(sure, ", "),
        (sure, unsure) => format!("{} and perhaps {}", names(sure, ", "), names(unsure, ", ")),
    }
}

/// What to paste into a pod, as lines.
fn securitycontext(required: &[Cap]) -> Vec<String> {
    vec![
        "securityContext:".to_owned(),
        "  capabilities:".to_owned(),
        "    drop: [ALL]".to_owned(),
        format!("    add: [{}]", names(required, ", ")),
    ]
}

/// `3, 7, 12 and 4 more`.
fn lines(lines: impl IntoIterator<Item = u32>) -> String {
    /// Most of them.
    const MOST: usize = 4;
    let all: Vec<u32> = lines.into_iter().collect();
    let shown: Vec<String> = all.iter().take(MOST).map(u32::to_string).collect();
    match (shown.join(", "), all.len().saturating_sub(MOST)) {
        (shown, _) if shown.is_empty() => "—".to_owned(),
        (shown, 0) => shown,
        (shown, more) => format!("{shown} and {more} more"),
    }
}

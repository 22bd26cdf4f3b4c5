//! From a report to bytes. Everything in a report that the traced build chose (paths, arguments,
//! names) is untrusted: what reaches a terminal is escaped and bounded.

mod check;
pub(crate) mod escape;
mod json;
mod matrix;
mod rows;
mod table;
mod unneeded;
mod why;

use std::io::{self, Write};

pub use check::{CheckFormat, write_check};
#[cfg(feature = "trace")]
pub(crate) use table::{duration, names};

use crate::combine::Matrix;
use crate::explain::Explanation;
use crate::report::Report;

/// What a report is rendered as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One screen for people, 80 columns.
    #[default]
    Table,
    /// The report itself, `kcap.report/v1`.
    Json,
}

/// How a rendering looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Colours for a terminal.
    pub color: bool,
}

/// Renders a report. The same report gives the same bytes.
///
/// # Errors
/// Those of `to`.
pub fn write(report: &Report, format: Format, style: Style, to: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Table => table::write(report, style, to),
        Format::Json => to.write_all(json::text(report)?.as_bytes()),
    }
}

/// Renders what several builds need. The same matrix gives the same bytes.
///
/// # Errors
/// Those of `to`.
pub fn write_matrix(
    matrix: &Matrix,
    format: Format,
    style: Style,
    to: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Table => matrix::write(matrix, style, to),
        Format::Json => to.write_all(json::text(matrix)?.as_bytes()),
    }
}

/// Renders why a build asked for a capability: as JSON, or for people whatever else the format is.
///
/// # Errors
/// Those of `to`.
pub fn write_why(
    explanation: &Explanation,
    format: Format,
    style: Style,
    to: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Json => to.write_all(json::text(explanation)?.as_bytes()),
        _ => why::write(explanation, style, to),
    }
}

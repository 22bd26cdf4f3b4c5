//! From a report to bytes. Everything in a report that the traced build chose (paths, arguments,
//! names) is untrusted: what reaches a terminal is escaped and bounded.

mod check;
mod comparison;
pub(crate) mod escape;
mod fleet;
mod html;
mod json;
mod markdown;
mod matrix;
mod paste;
mod proof;
mod rows;
mod statement;
mod table;
mod unneeded;
mod why;
mod why_many;

use std::io::{self, Write};

pub use check::{CheckFormat, write_check};
pub(crate) use table::Paint;
#[cfg(feature = "trace")]
pub(crate) use table::{duration, names};

use paste::{Allow, Exporter};

use crate::combine::Matrix;
use crate::compare::comparison::Comparison;
use crate::explain::{Explanation, Explanations};
use crate::input::Keep;
use crate::report::Report;

/// What a report is rendered as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One screen for people, 80 columns.
    #[default]
    Table,
    /// The report itself, `kcap.report/v1`.
    Json,
    /// A comment for a merge request.
    Markdown,
    /// One self-contained page for people: what is needed, line by line, with the evidence.
    Html,
    /// An in-toto statement about the Dockerfile and the image, to be signed: the predicate is the
    /// report.
    InToto,
    /// Flags of docker run.
    Docker,
    /// Flags of podman run.
    Podman,
    /// A container's securityContext; with --wrap pod, a whole pod of Kaniko's.
    Kubernetes,
    /// The same with `--wrap pod`.
    #[value(skip)]
    KubernetesPod,
    /// The step of a Tekton task.
    Tekton,
    /// GitLab Runner's config.toml.
    Gitlab,
    /// A Kyverno policy.
    Kyverno,
    /// OpenShift's SecurityContextConstraints.
    Openshift,
    /// Capabilities of an OCI runtime's config.json.
    Oci,
}

/// What to put a securityContext into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wrap {
    /// A whole pod that builds with Kaniko.
    Pod,
}

impl Format {
    /// What of several reports it shows.
    pub fn keep(self) -> Keep {
        match self {
            // Its predicate is the report.
            Self::InToto => Keep::Reports,
            // As many as it has rows.
            Self::Html => Keep::Some(html::ROWS),
            // Each shows what is in briefs.
            _ => Keep::Briefs,
        }
    }

    /// The format with what it is put into, if that is asked for; `None` where it cannot be.
    pub fn wrapped(self, wrap: Option<Wrap>) -> Option<Self> {
        match (self, wrap) {
            (format, None) => Some(format),
            (Self::Kubernetes, Some(Wrap::Pod)) => Some(Self::KubernetesPod),
            _ => None,
        }
    }

    /// Several documents of it are told apart by a line.
    fn is_yaml(self) -> bool {
        use Format::{Kubernetes, KubernetesPod, Kyverno, Openshift, Tekton};
        matches!(
            self,
            Kubernetes | KubernetesPod | Tekton | Kyverno | Openshift
        )
    }

    fn exporter(self) -> Option<&'static dyn Exporter> {
        match self {
            Self::Table | Self::Json | Self::Markdown | Self::Html | Self::InToto => None,
            Self::Docker => Some(&paste::Docker),
            Self::Podman => Some(&paste::Podman),
            Self::Kubernetes => Some(&paste::Kubernetes),
            Self::KubernetesPod => Some(&paste::Pod),
            Self::Tekton => Some(&paste::Tekton),
            Self::Gitlab => Some(&paste::Gitlab),
            Self::Kyverno => Some(&paste::Kyverno),
            Self::Openshift => Some(&paste::Openshift),
            Self::Oci => Some(&paste::Oci),
        }
    }
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
    match (format, format.exporter()) {
        (_, Some(exporter)) => exporter.write(&Allow::of_report(report), to),
        (Format::Json, None) => json::write(report, to),
        (Format::Markdown, None) => to.write_all(markdown::report(report).as_bytes()),
        (Format::Html, None) => html::write(report, to),
        (Format::InToto, None) => statement::write(report, to),
        _ => table::write(report, style, to),
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
    match (format, format.exporter()) {
        (_, Some(exporter)) => {
            for (at, allow) in Allow::of_matrix(matrix).iter().enumerate() {
                if at > 0 && format.is_yaml() {
                    writeln!(to, "---")?;
                }
                exporter.write(allow, to)?;
            }
            Ok(())
        }
        (Format::Json, None) => json::write(matrix, to),
        (Format::Markdown, None) => to.write_all(markdown::matrix(matrix).as_bytes()),
        (Format::Html, None) => html::write_matrix(matrix, to),
        (Format::InToto, None) => {
            let mut reports = matrix
                .builds
                .iter()
                .filter_map(|build| build.report.as_ref());
            // One after the other: each is for itself, and each is to be signed.
            reports.try_for_each(|report| statement::write(report, to))
        }
        _ => matrix::write(matrix, style, to),
    }
}

/// What a comparison or an explanation is rendered as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PlainFormat {
    /// For people, 80 columns.
    #[default]
    Table,
    /// All of it.
    Json,
    /// A comment for a merge request.
    Markdown,
}

impl Format {
    /// The same for an explanation; `None` where an explanation has no such format.
    pub fn plain(self) -> Option<PlainFormat> {
        match self {
            Self::Table => Some(PlainFormat::Table),
            Self::Json => Some(PlainFormat::Json),
            Self::Markdown => Some(PlainFormat::Markdown),
            _ => None,
        }
    }
}

/// Renders what two images differ in; with all differences where `all`, which JSON always has. The
/// same comparison gives the same bytes.
///
/// # Errors
/// Those of `to`.
pub fn write_comparison(
    comparison: &Comparison,
    all: bool,
    format: PlainFormat,
    style: Style,
    to: &mut impl Write,
) -> io::Result<()> {
    match format {
        PlainFormat::Table => comparison::write(comparison, all, style, to),
        PlainFormat::Json => json::write(comparison, to),
        PlainFormat::Markdown => to.write_all(markdown::comparison(comparison, all).as_bytes()),
    }
}

/// Renders why a build asked for a capability.
///
/// # Errors
/// Those of `to`.
pub fn write_why(
    explanation: &Explanation,
    format: PlainFormat,
    style: Style,
    to: &mut impl Write,
) -> io::Result<()> {
    match format {
        PlainFormat::Table => why::write(explanation, style, to),
        PlainFormat::Json => json::write(explanation, to),
        PlainFormat::Markdown => to.write_all(markdown::why(explanation).as_bytes()),
    }
}

/// Renders why several builds asked for a capability.
///
/// # Errors
/// Those of `to`.
pub fn write_why_many(
    explanations: &Explanations,
    format: PlainFormat,
    style: Style,
    to: &mut impl Write,
) -> io::Result<()> {
    match format {
        PlainFormat::Table => why_many::write(explanations, style, to),
        PlainFormat::Json => json::write(explanations, to),
        PlainFormat::Markdown => to.write_all(markdown::why_many(explanations).as_bytes()),
    }
}

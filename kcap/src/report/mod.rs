//! The report: the interpreted session as versioned JSON (`kcap.report/v1`), from which every
//! output is rendered. Fields may be added; within v1 none is renamed or removed.

mod cap;
mod v1;

pub use cap::{Cap, UnknownCap};
pub use v1::{
    Basis, Because, By, Capability, CapabilityStep, Coverage, Decision, Evidence, Executor, Gain,
    GainBy, Host, Identity, Loss, Noise, Proof, ProofOutcome, Proven, Proving, Repeat, Report,
    Setting, Sharp, State, Step, Subject, Suppressed, Tool, Trial, Verdict,
};

use std::fmt;

/// The schema that this version writes, and the only one that it reads.
pub const SCHEMA: &str = "kcap.report/v1";

/// Why a report cannot be read.
#[derive(Debug)]
pub enum ParseError {
    /// It is no JSON, or not of the shape.
    Malformed(serde_json::Error),
    /// It is a report of a version that this kcap does not know.
    Version(String),
    /// It is something else.
    NotAReport,
    /// It has more of something than any build can make.
    Excessive {
        /// Of what.
        what: &'static str,
        /// Most that is read.
        most: usize,
    },
}

impl ParseError {
    /// For a document that names that schema, which is not the one read here.
    pub(crate) fn of_schema(schema: Option<&str>) -> Self {
        match schema {
            Some(other) if other.starts_with("kcap.report/") => Self::Version(
                (other.chars().take(64))
                    .flat_map(char::escape_default)
                    .collect(),
            ),
            _ => Self::NotAReport,
        }
    }
}

/// Why a text that does not have the shape of a report cannot be read: its version may tell.
pub(crate) fn parse_error(text: &[u8], error: serde_json::Error) -> ParseError {
    match serde_json::from_slice::<Head>(text) {
        Ok(head) if head.schema.as_deref() == Some(SCHEMA) => ParseError::Malformed(error),
        Ok(head) => ParseError::of_schema(head.schema.as_deref()),
        Err(error) => ParseError::Malformed(error),
    }
}

/// What tells a document's kind.
#[derive(serde::Deserialize)]
struct Head {
    schema: Option<String>,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed report: {error}"),
            Self::Version(found) => write!(
                f,
                "it has the schema {found}, which this kcap does not know; use the kcap that made it"
            ),
            Self::NotAReport => write!(f, "not a kcap report: no schema {SCHEMA} in it"),
            Self::Excessive { what, most } => write!(
                f,
                "it has more than {most} {what}, which no build makes: it is damaged or made up"
            ),
        }
    }
}

// What was wrong with the JSON is in the text: a source would say it twice.
impl std::error::Error for ParseError {}

/// Reads a report. Fields that this version does not know are ignored.
pub fn from_json(text: &[u8]) -> Result<Report, ParseError> {
    let head: Head = serde_json::from_slice(text).map_err(ParseError::Malformed)?;
    match head.schema.as_deref() {
        Some(SCHEMA) => serde_json::from_slice(text).map_err(ParseError::Malformed),
        other => Err(ParseError::of_schema(other)),
    }
}

/// The JSON Schema of a report, with one trailing newline.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Report);
    schema.insert("$id".to_owned(), SCHEMA.into());
    format!("{:#}\n", schema.to_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_input_is_told_apart() {
        let error = |text: &str| from_json(text.as_bytes()).unwrap_err();
        assert!(matches!(error("{"), ParseError::Malformed(_)));
        assert!(matches!(error("[]"), ParseError::Malformed(_)));
        assert!(matches!(error("{}"), ParseError::NotAReport));
        assert!(matches!(
            error(r#"{"schema":"other/v1"}"#),
            ParseError::NotAReport
        ));
        assert!(matches!(
            error(r#"{"schema":"kcap.report/v2"}"#),
            ParseError::Version(_)
        ));
        assert!(matches!(
            error(r#"{"schema":"kcap.report/v1"}"#),
            ParseError::Malformed(_)
        ));
    }

    #[test]
    fn the_schema_names_every_contract_field() {
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        let report = schema["properties"].as_object().unwrap();
        for field in [
            "schema",
            "tool",
            "host",
            "subject",
            "complete",
            "interrupted",
            "loss",
            "coverage",
            "basis",
            "required",
            "unsure",
            "decisions",
            "checks",
            "capabilities",
            "steps",
            "trials",
            "suppressed",
        ] {
            assert!(report.contains_key(field), "{field}");
        }
        let of = |name: &str| {
            schema["$defs"][name]["properties"]
                .as_object()
                .unwrap()
                .clone()
        };
        for (kind, fields) in [
            (
                "Host",
                &[
                    "kernel",
                    "arch",
                    "hook",
                    "cgroup",
                    "blind",
                    "preemption",
                    "lsm",
                    "seccomp",
                    "sysctl",
                ][..],
            ),
            (
                "Subject",
                &[
                    "dockerfile",
                    "dockerfile_sha256",
                    "context",
                    "executor",
                    "command",
                    "exit_status",
                    "started",
                    "duration_ms",
                    "capabilities",
                ],
            ),
            ("Loss", &["checks", "evidence", "execs", "skipped"]),
            ("Coverage", &["ran", "cached", "skipped", "unreached"]),
            ("Decision", &["any_of", "chosen", "steps"]),
            (
                "Capability",
                &[
                    "name",
                    "number",
                    "verdict",
                    "because",
                    "reason",
                    "alternatives",
                    "checks",
                    "granted",
                    "denied",
                    "steps",
                    "evidence",
                    "proof",
                ],
            ),
            ("CapabilityStep", &["step", "checks", "granted", "denied"]),
            (
                "Evidence",
                &[
                    "count", "granted", "verdict", "because", "syscall", "program", "path", "step",
                    "reason",
                ],
            ),
            ("Proof", &["outcome", "detail", "step", "tolerated"]),
            (
                "Step",
                &[
                    "index", "stage", "line", "kind", "text", "state", "by", "checks", "required",
                ],
            ),
            ("Trial", &["set", "outcome", "seconds", "differs"]),
        ] {
            for field in fields {
                assert!(of(kind).contains_key(*field), "{kind}.{field}");
            }
        }
    }
}

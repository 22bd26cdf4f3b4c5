//! The fields of a report that a [`super::Brief`] is made of: borrowed from a report in memory, or
//! read from its JSON with all else skipped.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use super::{PLACES, Site, bounded};
use crate::report::{
    Basis, Because, Cap, Coverage, Decision, Gain, ParseError, Report, SCHEMA, State, Verdict,
    parse_error,
};

#[derive(Deserialize)]
pub struct Lean<'a> {
    #[serde(borrow)]
    pub schema: Cow<'a, str>,
    #[serde(borrow)]
    pub host: Host<'a>,
    #[serde(borrow)]
    pub subject: Subject<'a>,
    pub complete: bool,
    pub interrupted: bool,
    pub coverage: Coverage,
    pub basis: Basis,
    pub required: Vec<Cap>,
    pub unsure: Vec<Cap>,
    pub decisions: Vec<Decision>,
    #[serde(borrow)]
    pub capabilities: Vec<Capability<'a>>,
    #[serde(borrow)]
    pub steps: Vec<Step<'a>>,
    #[serde(default, rename = "privilege_gains", deserialize_with = "gains")]
    pub gains: Option<Vec<Site>>,
    #[serde(default)]
    pub suppressed: Vec<Suppressed>,
}

#[derive(Deserialize)]
pub struct Suppressed {
    pub name: Cap,
    pub step: Option<u32>,
}

#[derive(Deserialize)]
pub struct Host<'a> {
    #[serde(borrow)]
    pub seccomp: Cow<'a, str>,
}

#[derive(Deserialize)]
pub struct Subject<'a> {
    #[serde(borrow)]
    pub dockerfile: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub dockerfile_sha256: Option<Cow<'a, str>>,
    pub exit_status: Option<i32>,
    #[serde(borrow)]
    pub started: Cow<'a, str>,
    pub capabilities: Vec<Cap>,
    #[serde(default)]
    pub late: bool,
    #[serde(default)]
    pub out_of_memory: bool,
    #[serde(default)]
    pub last_step: Option<u32>,
    #[serde(borrow, default)]
    pub identity: Option<Identity<'a>>,
}

#[derive(Deserialize)]
pub struct Identity<'a> {
    #[serde(borrow, default)]
    pub project: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub struct Capability<'a> {
    pub name: Cap,
    #[serde(borrow)]
    pub evidence: Vec<Evidence<'a>>,
}

#[derive(Deserialize)]
pub struct Evidence<'a> {
    pub verdict: Option<Verdict>,
    pub because: Option<Because>,
    #[serde(borrow)]
    pub program: Cow<'a, str>,
    pub step: Option<u32>,
}

#[derive(Deserialize)]
pub struct Step<'a> {
    pub index: u32,
    pub stage: Option<u32>,
    pub line: Option<u32>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub text: Cow<'a, str>,
    pub state: State,
    pub required: Vec<Cap>,
}

impl<'a> Lean<'a> {
    /// Reads it.
    pub fn from_json(text: &'a [u8]) -> Result<Self, ParseError> {
        let lean: Self = serde_json::from_slice(text).map_err(|error| parse_error(text, error))?;
        if lean.schema != SCHEMA {
            return Err(ParseError::of_schema(Some(&lean.schema)));
        }
        Ok(lean)
    }

    /// Borrows it.
    pub fn of(report: &'a Report) -> Self {
        let subject = &report.subject;
        let capability = |c: &'a crate::report::Capability| Capability {
            name: c.name,
            evidence: (c.evidence.iter())
                .map(|e| Evidence {
                    verdict: e.verdict,
                    because: e.because,
                    program: Cow::Borrowed(&e.program),
                    step: e.step,
                })
                .collect(),
        };
        let step = |step: &'a crate::report::Step| Step {
            index: step.index,
            stage: step.stage,
            line: step.line,
            kind: Cow::Borrowed(&step.kind),
            text: Cow::Borrowed(&step.text),
            state: step.state,
            required: step.required.clone(),
        };
        Self {
            schema: Cow::Borrowed(&report.schema),
            host: Host {
                seccomp: Cow::Borrowed(&report.host.seccomp),
            },
            subject: Subject {
                dockerfile: subject.dockerfile.as_deref().map(Cow::Borrowed),
                dockerfile_sha256: subject.dockerfile_sha256.as_deref().map(Cow::Borrowed),
                exit_status: subject.exit_status,
                started: Cow::Borrowed(&subject.started),
                capabilities: subject.capabilities.clone(),
                late: subject.late,
                out_of_memory: subject.out_of_memory,
                last_step: subject.last_step,
                identity: subject.identity.as_ref().map(|identity| Identity {
                    project: identity.project.as_deref().map(Cow::Borrowed),
                }),
            },
            complete: report.complete,
            interrupted: report.interrupted,
            coverage: report.coverage.clone(),
            basis: report.basis,
            required: report.required.clone(),
            unsure: report.unsure.clone(),
            decisions: report.decisions.clone(),
            capabilities: report.capabilities.iter().map(capability).collect(),
            steps: report.steps.iter().map(step).collect(),
            gains: report.privilege_gains.as_deref().map(sites),
            suppressed: (report.suppressed.iter())
                .map(|hidden| Suppressed {
                    name: hidden.name,
                    step: hidden.step,
                })
                .collect(),
        }
    }
}

fn gains<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Site>>, D::Error> {
    let gains: Option<Vec<Gain>> = Deserialize::deserialize(from)?;
    Ok(gains.as_deref().map(sites))
}

fn sites(gains: &[Gain]) -> Vec<Site> {
    (gains.iter().take(PLACES))
        .map(|gain| Site {
            step: gain.step,
            program: Some(bounded(&gain.program)),
            because: None,
        })
        .collect()
}

//! What is allowed, from a list, a name, or the text of a file of many kinds.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::grant::List;
use super::named::{NAMED, Named};
use super::{pod, run_line};
use crate::combine::{self, Matrix};
use crate::report::{self, Cap, ParseError, UnknownCap};

/// Longest text in bytes that is no report: in memory, JSON and YAML take many times as much.
const LONGEST: usize = 1 << 20;

/// What a policy was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Names of capabilities.
    List,
    /// A named policy.
    Named,
    /// A container of a pod's specification, or a step of a task's.
    Pod,
    /// A container, or a securityContext, that stands alone.
    Container,
    /// A `docker run` line.
    RunLine,
    /// A report or matrix: what it requires.
    Report,
    /// Reports, each Dockerfile against its own.
    Baseline,
}

/// What is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is called.
    pub name: String,
    /// What it was made of.
    pub kind: Kind,
    /// Where a named one is from.
    pub source: Option<String>,
    /// The capabilities.
    pub allowed: BTreeSet<Cap>,
    /// What somebody may think it says, and it does not.
    pub notes: Vec<String>,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(String);

impl PolicyError {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    pub(super) fn shape() -> Self {
        Self::new(
            "it is no policy; give capability names one a line, a pod's or container's YAML or \
             JSON, a docker run line, or a report of kcap",
        )
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PolicyError {}

impl From<UnknownCap> for PolicyError {
    fn from(unknown: UnknownCap) -> Self {
        Self(unknown.to_string())
    }
}

impl Policy {
    /// Names, as `--allow` takes them: each in any form, `ALL` for every one.
    ///
    /// # Errors
    /// Where one is no capability's.
    pub fn of_names<'a>(
        name: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, PolicyError> {
        let mut list = List::default();
        for name in names {
            list.take(name)?;
        }
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::List,
            source: None,
            allowed: Cap::of_mask(list.mask()).collect(),
            notes: vec![],
        })
    }

    /// A named one.
    pub fn named(name: &str) -> Option<Self> {
        let named = Named::find(name)?;
        Some(Self {
            name: named.name.to_owned(),
            kind: Kind::Named,
            source: Some(named.source.to_owned()),
            allowed: Cap::of_mask(named.allowed).collect(),
            notes: named.note.map(str::to_owned).into_iter().collect(),
        })
    }

    /// The names of all named ones, for whoever gave another.
    pub fn names() -> String {
        let names: Vec<&str> = NAMED.iter().map(|named| named.name).collect();
        names.join(", ")
    }

    /// From a file's text, whatever of these it is: names one a line with `#` comments, a
    /// `docker run` line, a pod's, container's or securityContext's YAML or JSON, a report or matrix
    /// of kcap. Of several containers, that of the name.
    ///
    /// # Errors
    /// Where it is none of them, or several containers are in it and none is named.
    pub fn of_text(name: &str, text: &str, container: Option<&str>) -> Result<Self, PolicyError> {
        if text.trim().is_empty() {
            return Err(PolicyError::new(
                "it is empty; to allow nothing, write a comment: # nothing",
            ));
        }
        if text.trim_start().starts_with('{')
            && let Some(policy) = of_results(name, text)?
        {
            return Ok(policy);
        }
        if text.len() > LONGEST {
            return Err(PolicyError::new(format!(
                "it is longer than {LONGEST} bytes, and no report or matrix of kcap"
            )));
        }
        if let Some(policy) = run_line::read(name, text)? {
            return Ok(policy);
        }
        if let Some(names) = listed(text) {
            return Self::of_names(name, names);
        }
        pod::read(name, &documents(text)?, container)
    }
}

/// A report or matrix: what it requires.
fn of_results(name: &str, text: &str) -> Result<Option<Policy>, PolicyError> {
    let unreadable = |error: ParseError| PolicyError(error.to_string());
    let (allowed, complete) = match report::from_json(text.as_bytes()) {
        Ok(report) => (report.required, report.complete),
        Err(ParseError::NotAReport) => match combine::from_json(text.as_bytes(), false) {
            Ok(Some(Matrix { union, .. })) => (union.required, union.complete),
            Ok(None) => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        },
        // YAML's flow form starts with a brace too.
        Err(ParseError::Malformed(error)) if !error.is_data() => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let note = "the report that is the policy is incomplete: it may allow too little";
    Ok(Some(Policy {
        name: name.to_owned(),
        kind: Kind::Report,
        source: None,
        allowed: allowed.into_iter().collect(),
        notes: (!complete).then(|| note.to_owned()).into_iter().collect(),
    }))
}

/// The names of a list; `None` where a line of it is something else. What looks like a name and is
/// none is told as such by whoever takes the names.
fn listed(text: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split([',', ' ', '\t', '\r']).filter(|w| !w.is_empty()) {
            let like = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !like {
                return None;
            }
            names.push(word);
        }
    }
    Some(names)
}

/// JSON, or YAML of one or more documents.
fn documents(text: &str) -> Result<Vec<Value>, PolicyError> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(vec![value]);
    }
    // Its budget ends what would not: aliases of aliases, depth, length.
    serde_saphyr::from_multiple::<Value>(text).map_err(|error| {
        let line = error.to_string();
        let line = line.lines().next().unwrap_or_default().to_owned();
        PolicyError(format!(
            "neither a list of capabilities, nor JSON, nor YAML ({})",
            crate::render::escape::head(&line, 160)
        ))
    })
}

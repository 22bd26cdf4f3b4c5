//! A check as SARIF 2.1.0: a result for each line that is over. Small types of the parts that are
//! written; a test holds them against the published schema.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{message, path, title};
use crate::combine::check::{At, Check, Over};
use crate::render::escape::shown;
use crate::report::{Cap, Verdict};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    invocations: [Invocation; 1],
    /// `utf16CodeUnits`, as the text says nothing of columns but a default differs by consumer.
    column_kind: &'static str,
    results: Vec<SarifResult>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    version: String,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: String,
    name: String,
    short_description: Text,
    help: Text,
}

#[derive(Serialize)]
struct Text {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    /// Everything was seen: where not, that nothing is over is not proven.
    execution_successful: bool,
    tool_execution_notifications: Vec<Notification>,
}

#[derive(Serialize)]
struct Notification {
    level: &'static str,
    message: Text,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifResult {
    rule_id: String,
    rule_index: usize,
    level: &'static str,
    message: Text,
    locations: [Location; 1],
    partial_fingerprints: Fingerprint,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: Physical,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Physical {
    artifact_location: Artifact,
    region: Region,
}

#[derive(Serialize)]
struct Artifact {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
}

/// Tells whether a result of today is one of yesterday, whatever its line.
#[derive(Serialize)]
struct Fingerprint {
    #[serde(rename = "kcapNeed/v1")]
    need: String,
}

pub fn log(check: &Check) -> Log {
    let caps: BTreeSet<Cap> = check.over.iter().map(|over| over.capability).collect();
    let caps: Vec<Cap> = caps.into_iter().collect();
    let mut results = Vec::new();
    for over in &check.over {
        let index = caps.iter().position(|cap| *cap == over.capability);
        let mut lines: BTreeSet<Option<u32>> = BTreeSet::new();
        // Several steps of one line are one result there.
        for at in &over.at {
            if lines.insert(at.line) {
                results.push(result(check, over, Some(at), index.unwrap_or_default()));
            }
        }
        if over.at.is_empty() {
            results.push(result(check, over, None, index.unwrap_or_default()));
        }
    }
    let unseen = check.builds.iter().filter_map(|build| {
        let why = build.incomplete.as_ref()?;
        Some(Notification {
            level: "warning",
            message: Text {
                text: shown(&format!("{}: {why}", build.dockerfile)),
            },
        })
    });
    let notes = (check.notes.iter().cloned()).chain([title(check)]);
    let notes = notes.map(|note| Notification {
        level: "note",
        message: Text { text: shown(&note) },
    });
    Log {
        schema: SCHEMA,
        version: "2.1.0",
        runs: [Run {
            tool: Tool {
                driver: Driver {
                    name: "kcap",
                    version: check.tool.version.clone(),
                    rules: caps.iter().map(|cap| rule(*cap)).collect(),
                },
            },
            invocations: [Invocation {
                execution_successful: check.complete || !check.incomplete_counts,
                tool_execution_notifications: unseen.chain(notes).collect(),
            }],
            column_kind: "utf16CodeUnits",
            results,
        }],
    }
}

fn id(cap: Cap) -> String {
    format!("capability/{cap}")
}

fn rule(cap: Cap) -> Rule {
    Rule {
        id: id(cap),
        name: format!("Needs{cap}"),
        short_description: Text {
            text: format!("The build needs CAP_{cap}, which is not allowed"),
        },
        help: Text {
            text: format!(
                "kcap report --why {cap} on the report says what it is needed for and what avoids it"
            ),
        },
    }
}

fn result(check: &Check, over: &Over, at: Option<&At>, rule_index: usize) -> SarifResult {
    let file = path(check, &over.dockerfile);
    let text = at.map_or("", |at| at.text.as_str());
    SarifResult {
        rule_id: id(over.capability),
        rule_index,
        level: match over.verdict {
            Verdict::Unsure => "warning",
            Verdict::Needed | Verdict::Unneeded => "error",
        },
        message: Text {
            text: message(check, over, at),
        },
        locations: [Location {
            physical_location: Physical {
                artifact_location: Artifact { uri: uri(file) },
                // A forge shows nothing without a line.
                region: Region {
                    start_line: at.and_then(|at| at.line).unwrap_or(1).max(1),
                },
            },
        }],
        partial_fingerprints: Fingerprint {
            need: shown(&format!("{file}:{}:{text}", over.capability)),
        },
    }
}

/// A path as a URI: relative to the repository where it is relative.
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    let mut uri = String::new();
    if path.starts_with('/') {
        uri += "file://";
    }
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

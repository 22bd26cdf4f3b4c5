//! The part of an OCI runtime's `config.json` that holds capabilities. JSON has no comments: what is
//! unsure and what to know beside are annotations.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::{Allow, Exporter};
use crate::render::json;
use crate::report::Cap;

/// The runtime-spec.
pub struct Oci;

#[derive(Serialize)]
struct Config {
    process: Process,
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    capabilities: Sets,
    no_new_privileges: bool,
}

/// Not inheritable and not ambient: engines leave these empty, and a build as root needs neither.
#[derive(Serialize)]
struct Sets {
    bounding: Vec<String>,
    effective: Vec<String>,
    permitted: Vec<String>,
    inheritable: Vec<String>,
    ambient: Vec<String>,
}

impl Exporter for Oci {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        let names =
            |caps: &[Cap]| -> Vec<String> { caps.iter().map(|cap| format!("CAP_{cap}")).collect() };
        let mut annotations = BTreeMap::from([
            ("kcap.subject", allow.comments().join("; ")),
            ("kcap.no-new-privileges", allow.escalation.why()),
        ]);
        if !allow.unsure.is_empty() {
            annotations.insert("kcap.unsure", names(&allow.unsure).join(","));
        }
        let config = Config {
            process: Process {
                capabilities: Sets {
                    bounding: names(&allow.add),
                    effective: names(&allow.add),
                    permitted: names(&allow.add),
                    inheritable: vec![],
                    ambient: vec![],
                },
                no_new_privileges: !allow.escalation.allow(),
            },
            annotations,
        };
        json::write(&config, to)
    }
}

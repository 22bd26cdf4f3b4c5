//! What an image says of itself: what a container of it starts with, and how it came about.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a container starts with, by name: as the configuration calls it, a member of a list or table
/// after a point (`Env.PATH`, `Labels.version`). What is empty says nothing and is left out.
pub type Config = BTreeMap<String, Value>;

/// Names at the top of a configuration.
const ABOUT: [&str; 6] = [
    "architecture",
    "author",
    "os",
    "os.features",
    "os.version",
    "variant",
];
/// Names in its `config`. The others say what was there while it was built (`Hostname`, `Image`).
const PROCESS: [&str; 14] = [
    "ArgsEscaped",
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "StopTimeout",
    "User",
    "Volumes",
    "WorkingDir",
];
/// Those whose members are compared one by one.
const TABLES: [&str; 3] = ["ExposedPorts", "Labels", "Volumes"];
/// Most entries of a history.
const HISTORY: usize = 10_000;

/// One step of how an image came about.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct Step {
    /// The instruction.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// It added no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// A configuration, as far as it is read.
#[derive(Deserialize)]
pub(super) struct Document {
    rootfs: RootFs,
    #[serde(default)]
    history: Option<Vec<Past>>,
    #[serde(default)]
    config: Option<Map<String, Value>>,
    #[serde(flatten)]
    about: Map<String, Value>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

/// A step as configurations have it: either can be `null`.
#[derive(Deserialize)]
struct Past {
    created_by: Option<String>,
    empty_layer: Option<bool>,
}

impl Document {
    /// Digests of its layers, unpacked, lowest first.
    pub fn diff_ids(&self) -> &[String] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    /// What a container starts with, and how the image came about.
    ///
    /// # Errors
    /// Where the history is out of bounds.
    pub fn split(self) -> Result<(Config, Vec<Step>)> {
        let history = self.history.unwrap_or_default();
        ensure!(
            history.len() <= HISTORY,
            "its history has more than {HISTORY} entries"
        );
        let steps = history.into_iter().map(|past| Step {
            created_by: past.created_by.unwrap_or_default(),
            empty_layer: past.empty_layer.unwrap_or_default(),
        });
        let mut config = Config::new();
        for (name, value) in self.about {
            if ABOUT.contains(&name.as_str()) {
                put(&mut config, name, value);
            }
        }
        for (name, value) in self.config.unwrap_or_default() {
            match value {
                Value::Array(list) if name == "Env" => {
                    for variable in list {
                        let text = match variable {
                            Value::String(text) => text,
                            other => other.to_string(),
                        };
                        // As a process gets it: an empty one is not the same as none.
                        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
                        config.insert(format!("Env.{key}"), value.into());
                    }
                }
                Value::Object(table) if TABLES.contains(&name.as_str()) => {
                    for (key, value) in table {
                        let value = match value {
                            Value::Null => Value::Object(Map::new()),
                            value => value,
                        };
                        config.insert(format!("{name}.{key}"), value);
                    }
                }
                value if PROCESS.contains(&name.as_str()) => put(&mut config, name, value),
                _ => {}
            }
        }
        Ok((config, steps.collect()))
    }
}

fn put(config: &mut Config, name: String, value: Value) {
    let says_nothing = match &value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(table) => table.is_empty(),
        Value::Number(_) => false,
    };
    if !says_nothing {
        config.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: Value) -> (Config, Vec<Step>) {
        let document: Document = serde_json::from_value(document).unwrap();
        document.split().unwrap()
    }

    #[test]
    fn what_a_container_starts_with_is_kept_and_the_rest_is_not() {
        let (config, history) = read(json!({
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
            "container": "abc", "docker_version": "1",
            "config": {
                "Env": ["PATH=/bin", "EMPTY=", "PATH=/usr/bin"], "Cmd": ["sh"], "Entrypoint": null,
                "Hostname": "abc", "Image": "sha256:1", "Labels": {"a": "b"}, "User": "",
                "ExposedPorts": {"80/tcp": {}}, "Volumes": {}, "AttachStdin": false,
                "Healthcheck": {"Test": ["NONE"]}, "OnBuild": [], "StopSignal": "SIGINT",
            },
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [
                {"created": "x", "created_by": "COPY a /", "comment": "buildkit"},
                {"created_by": null, "empty_layer": true},
            ],
        }));
        let expected = json!({
            "architecture": "amd64", "os": "linux", "Cmd": ["sh"], "Env.EMPTY": "",
            "Env.PATH": "/usr/bin", "ExposedPorts.80/tcp": {}, "Healthcheck": {"Test": ["NONE"]},
            "Labels.a": "b", "StopSignal": "SIGINT",
        });
        assert_eq!(serde_json::to_value(&config).unwrap(), expected);
        let steps = [("COPY a /", false), ("", true)].map(|(by, empty)| Step {
            created_by: by.into(),
            empty_layer: empty,
        });
        assert_eq!(history, steps);
    }
}

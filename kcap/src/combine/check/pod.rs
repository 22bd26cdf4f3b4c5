//! A pod, a container, or a securityContext to what it grants.

use serde_json::Value;

use super::grant::{Grant, List};
use super::named::Named;
use super::policy::{Kind, Policy, PolicyError};
use crate::render::escape::head;
use crate::report::Cap;

/// Lists of containers in a pod's specification, and of steps in Tekton's and Shipwright's.
const LISTS: [&str; 5] = [
    "containers",
    "initContainers",
    "ephemeralContainers",
    "steps",
    "buildSteps",
];
/// Most columns of a container's name.
const NAME: usize = 60;
/// Deepest object looked into: a pod template in a list is at ten.
const DEPTH: usize = 24;

struct Container<'a> {
    name: &'a str,
    spec: &'a Value,
}

/// The policy of the one container in some documents, or of the one of that name.
///
/// # Errors
/// Where there is none, or several and no name, or it does not have a container's shape.
pub fn read(
    name: &str,
    documents: &[Value],
    container: Option<&str>,
) -> Result<Policy, PolicyError> {
    let mut all = Vec::new();
    for document in documents {
        containers(document, 0, &mut all);
    }
    if let Some(wanted) = container {
        all.retain(|container| container.name == wanted);
    }
    match (&all[..], container) {
        ([], Some(wanted)) => Err(PolicyError::new(format!(
            "it has no container {}",
            head(wanted, NAME)
        ))),
        ([], None) => alone(name, documents),
        ([one], _) => policy(name, Kind::Pod, one.spec.get("securityContext")),
        (several, _) => {
            let names: Vec<String> = (several.iter().take(8))
                .map(|container| head(container.name, NAME))
                .collect();
            Err(PolicyError::new(format!(
                "it has {} containers ({}): name one with --container",
                several.len(),
                names.join(", ")
            )))
        }
    }
}

fn containers<'a>(value: &'a Value, depth: usize, all: &mut Vec<Container<'a>>) {
    if depth > DEPTH {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                match inner {
                    Value::Array(list) if LISTS.contains(&key.as_str()) => {
                        all.extend((list.iter().filter(|spec| spec.is_object())).map(|spec| {
                            let name = spec.get("name").and_then(Value::as_str);
                            Container {
                                name: name.unwrap_or("(unnamed)"),
                                spec,
                            }
                        }));
                    }
                    _ => containers(inner, depth + 1, all),
                }
            }
        }
        Value::Array(list) => list
            .iter()
            .for_each(|inner| containers(inner, depth + 1, all)),
        _ => {}
    }
}

/// A container, or its securityContext, that stands alone.
fn alone(name: &str, documents: &[Value]) -> Result<Policy, PolicyError> {
    let [Value::Object(fields)] = documents else {
        return Err(PolicyError::shape());
    };
    let of_context = [
        "capabilities",
        "privileged",
        "allowPrivilegeEscalation",
        "runAsNonRoot",
    ];
    if let Some(context) = fields.get("securityContext") {
        policy(name, Kind::Container, Some(context))
    } else if of_context.iter().any(|field| fields.contains_key(*field)) {
        policy(name, Kind::Container, documents.first())
    } else {
        Err(PolicyError::shape())
    }
}

fn policy(name: &str, kind: Kind, context: Option<&Value>) -> Result<Policy, PolicyError> {
    let field = |key: &str| context.and_then(|context| context.get(key));
    let capabilities = field("capabilities");
    let grant = Grant {
        privileged: field("privileged").and_then(Value::as_bool) == Some(true),
        add: list(capabilities, "add")?,
        drop: list(capabilities, "drop")?,
    };
    let default = Named::find("docker-default").map_or(0, |named| named.allowed);
    let mut notes = Vec::new();
    if grant.privileged {
        notes.push("it is privileged: it has every capability, and much beside".to_owned());
    } else if !grant.drop.all {
        notes.push(
            "without drop: [ALL] the container also has its runtime's default set: containerd's is \
             taken here, which is docker's; CRI-O's is smaller"
                .to_owned(),
        );
    }
    let not_root = field("runAsNonRoot").and_then(Value::as_bool) == Some(true)
        || field("runAsUser")
            .and_then(Value::as_u64)
            .is_some_and(|uid| uid != 0);
    if not_root {
        notes.push(
            "it does not run as root: such a process has none of these in effect, and Kaniko needs \
             root"
                .to_owned(),
        );
    }
    if field("allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false) {
        notes.push(
            "allowPrivilegeEscalation: false keeps from programs what file capabilities and \
             set-user-ID bits would give them: kcap report --format kubernetes says whether the \
             build has such"
                .to_owned(),
        );
    }
    Ok(Policy {
        name: name.to_owned(),
        kind,
        source: None,
        allowed: Cap::of_mask(grant.kubernetes(default)).collect(),
        notes,
    })
}

fn list(capabilities: Option<&Value>, key: &str) -> Result<List, PolicyError> {
    let mut list = List::default();
    match capabilities.and_then(|capabilities| capabilities.get(key)) {
        None | Some(Value::Null) => {}
        Some(Value::Array(names)) => {
            for name in names {
                let Some(name) = name.as_str() else {
                    return Err(PolicyError::new(format!(
                        "capabilities.{key} is to be a list of names"
                    )));
                };
                list.take(name)?;
            }
        }
        Some(_) => {
            return Err(PolicyError::new(format!(
                "capabilities.{key} is to be a list of names"
            )));
        }
    }
    Ok(list)
}

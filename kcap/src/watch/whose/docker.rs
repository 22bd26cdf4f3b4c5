//! What Docker's API says of a container; podman answers the same way. Containers are listed, and not
//! inspected: Docker answers for a list at once, and for one container only when it is done with starting
//! it.
//!
//! Among a container's labels are those of its image, which are the word of whoever made the image: they
//! count where labels are asked for, and say nothing of whose build it is.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail};
use hyper::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Pod, Told,
    http::{Answer, Connection},
    labels,
};

type Labels = BTreeMap<String, String>;

/// What is read of each container in `GET /containers/json`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    id: String,
    /// The first is its own, others are what it is called where it is linked.
    names: Option<Vec<String>>,
    /// As it was asked for; its id where that is another image by now.
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    labels: Option<Labels>,
}

/// What is read of `GET /images/ID/json`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Image {
    config: Option<Config>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    labels: Option<Labels>,
}

/// Asks about the first of these containers that is known there.
pub async fn ask(socket: &Path, containers: &[String]) -> Result<Option<Told>> {
    let mut connection = Connection::open(socket).await?;
    let answer = connection.get(&listing(containers)).await?;
    let mut listed: Vec<Container> = parsed(&answer)?;
    let known = |id: &String| listed.iter().position(|container| container.id == *id);
    let Some(at) = containers.iter().find_map(known) else {
        return Ok(None);
    };
    let container = listed.swap_remove(at);
    let labels = container.labels.iter().flatten();
    let of_image =
        if labels.clone().any(|(name, _)| labels::tells(name)) && is_image(&container.image_id) {
            let path = format!("/images/{}/json", container.image_id);
            let answer = connection.get(&path).await?;
            match answer.status {
                StatusCode::NOT_FOUND => None,
                _ => Some(parsed::<Image>(&answer)?),
            }
        } else {
            None
        };
    Ok(Some(told(container, of_image, &answer.server)))
}

/// The path that lists containers by their ids, which are hexadecimal: `filters={"id":[…]}`.
fn listing(containers: &[String]) -> String {
    let ids: Vec<String> = (containers.iter())
        .map(|id| format!("%22{id}%22"))
        .collect();
    let ids = ids.join("%2C");
    format!("/containers/json?all=true&filters=%7B%22id%22%3A%5B{ids}%5D%7D")
}

/// What an answer holds.
fn parsed<T: DeserializeOwned>(answer: &Answer) -> Result<T> {
    if answer.status != StatusCode::OK {
        bail!("HTTP status {}", answer.status);
    }
    serde_json::from_slice(&answer.body).context("an answer that is not Docker's")
}

/// An image's id, which can stand in a path: podman's has no `sha256:`.
fn is_image(id: &str) -> bool {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What the answers come to. `of_image`: `None` where the image could not be asked about; nobody knows
/// then which labels are its own.
fn told(container: Container, of_image: Option<Image>, server: &str) -> Told {
    let labels = container.labels.unwrap_or_default();
    let given = match of_image {
        Some(image) => {
            let of_image = image.config.and_then(|c| c.labels).unwrap_or_default();
            let own = |(name, value): &(&String, &String)| of_image.get(*name) != Some(*value);
            let own = labels.iter().filter(own);
            own.map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        }
        None => Labels::new(),
    };
    let name = container.names.and_then(|names| {
        let own = |name: &String| !name.trim_start_matches('/').contains('/');
        names.into_iter().find(own)
    });
    let podman = server.to_ascii_lowercase().contains("libpod");
    Told {
        container: container.id,
        runtime: Some(if podman { "podman" } else { "docker" }),
        name: name.map(|name| name.trim_start_matches('/').to_owned()),
        image: Some(container.image),
        pod: pod(&labels),
        labels,
        given,
    }
}

/// The pod of a container, as the kubelet labels it where it uses Docker. As labels, these may be
/// anybody's: they count only with the pod's control group.
fn pod(labels: &Labels) -> Option<Pod> {
    let label = |name: &str| labels.get(&format!("io.kubernetes.pod.{name}")).cloned();
    Some(Pod {
        uid: label("uid")?,
        namespace: label("namespace")?,
        name: label("name")?,
        is_vouched: false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::capture::Identity;

    const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";

    fn id() -> String {
        "ab12".repeat(16)
    }

    fn answers(container: serde_json::Value, image: serde_json::Value, server: &str) -> Told {
        let container: Container = serde_json::from_value(container).unwrap();
        let container = Container {
            id: id(),
            ..container
        };
        told(container, serde_json::from_value(image).unwrap(), server)
    }

    /// As a build in this container is told, whose control group names this pod.
    fn identity(told: Told, pod_uid: Option<&str>) -> Identity {
        let mut identity = Identity {
            container: Some(id()),
            pod_uid: pod_uid.map(str::to_owned),
            ..Identity::default()
        };
        assert!(told.apply(&mut identity, &[id()], &["team".into()]));
        identity
    }

    #[test]
    fn name_image_labels_and_what_the_runner_says() {
        let container = json!({
            "Names": ["/other/alias", "/runner-x-project-1-concurrent-0-build"],
            "Image": "kaniko:debug", "ImageID": format!("sha256:{}", "cd".repeat(32)),
            "State": "running", "HostConfig": null, "Labels": {
                "com.gitlab.gitlab-runner.job.url": "https://h/group/app/-/jobs/42",
                "com.gitlab.gitlab-runner.job.sha": "0123abcd",
                "team": "blue",
            },
        });
        let image = json!({"Config": {"Labels": {"team": "blue"}}});
        let found = identity(answers(container, image, "Docker/28.2.2 (linux)"), None);
        assert_eq!(found.runtime.as_deref(), Some("docker"));
        let name = "runner-x-project-1-concurrent-0-build";
        assert_eq!(found.name.as_deref(), Some(name));
        assert_eq!(found.image.as_deref(), Some("kaniko:debug"));
        assert_eq!(found.project.as_deref(), Some("group/app"));
        assert_eq!(found.commit.as_deref(), Some("0123abcd"));
        assert_eq!(found.labels, [("team".into(), "blue".into())].into());
        assert!(found.claimed.is_empty());
    }

    #[test]
    fn podman_says_that_it_is_podman_and_nothing_may_be_null() {
        let container = json!({"Names": ["build"], "ImageID": "cd".repeat(32), "Labels": null});
        let found = identity(answers(container, json!({}), "Libpod/4.3.1 (linux)"), None);
        assert_eq!(found.runtime.as_deref(), Some("podman"));
        assert_eq!(found.image, None);
    }

    #[test]
    fn an_images_labels_do_not_say_whose_build_it_is() {
        let labels = json!({
            "com.gitlab.gitlab-runner.job.url": "https://h/other/app/-/jobs/1",
            "kcap/commit": "feed", "team": "red",
        });
        let container = json!({"Names": null, "Labels": labels});
        let image = json!({"Config": {"Labels": labels}});
        let found = identity(answers(container.clone(), image, ""), None);
        assert_eq!((found.project, found.commit), (None, None));
        // Where labels are asked for, they are labels.
        assert_eq!(found.labels["team"], "red");
        // What cannot be told apart is the image's.
        let found = identity(answers(container, json!(null), ""), None);
        assert_eq!((found.project, found.commit), (None, None));
    }

    #[test]
    fn a_pod_is_its_control_groups() {
        let container = |uid: &str| {
            json!({"Names": ["/k8s_build_app"], "Labels": {
                "io.kubernetes.pod.uid": uid, "io.kubernetes.pod.namespace": "team-a",
                "io.kubernetes.pod.name": "app-x7k2p",
            }})
        };
        let found = identity(answers(container(UID), json!({}), ""), Some(UID));
        assert_eq!(found.namespace.as_deref(), Some("team-a"));
        assert_eq!(found.pod.as_deref(), Some("app-x7k2p"));
        let other = UID.replace('0', "f");
        for uid in [None, Some(other.as_str())] {
            let found = identity(answers(container(UID), json!({}), ""), uid);
            assert_eq!((found.namespace, found.pod), (None, None));
            assert_eq!(found.pod_uid.as_deref(), uid);
        }
    }

    #[test]
    fn containers_are_listed_by_their_ids() {
        let path = listing(&["ab".into(), "cd".into()]);
        let filters = path.split_once("filters=").unwrap().1;
        let plain = (filters.replace("%7B", "{").replace("%7D", "}"))
            .replace("%5B", "[")
            .replace("%5D", "]")
            .replace("%22", "\"")
            .replace("%2C", ",")
            .replace("%3A", ":");
        assert_eq!(plain, r#"{"id":["ab","cd"]}"#);
    }

    #[test]
    fn only_ids_stand_in_paths() {
        let digits = "cd".repeat(32);
        assert!(is_image(&digits) && is_image(&format!("sha256:{digits}")));
        for other in [
            "",
            "sha256:",
            "../../x",
            "busybox",
            &format!("{digits}/../x"),
        ] {
            assert!(!is_image(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_label_makes_a_tenant(labels in proptest::collection::btree_map("[a-z./-]{0,40}", ".{0,80}", 0..6)) {
            let mut labels = labels;
            labels.insert("io.kubernetes.pod.uid".into(), UID.into());
            labels.insert("io.kubernetes.pod.namespace".into(), "team-b".into());
            labels.insert("io.kubernetes.pod.name".into(), "x".into());
            let container = json!({"Names": null, "Labels": labels});
            let found = identity(answers(container, json!({"Config": {}}), ""), None);
            prop_assert_eq!(found.namespace, None);
            prop_assert_eq!(found.container, Some(id()));
        }
    }
}

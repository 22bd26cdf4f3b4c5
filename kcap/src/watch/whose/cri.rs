//! What a container runtime of Kubernetes says of a container and its pod, over the Container Runtime
//! Interface (`runtime.v1`): containerd, CRI-O, cri-dockerd. The kubelet tells it the pod's namespace, name,
//! UID, labels and annotations as the cluster has them.
//!
//! Of the interface's messages there is here what is asked, with the fields that are read, by their numbers
//! in `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use anyhow::Result;
use prost::Message;

use super::{Pod, Told, grpc::Channel};

const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
const POD_SANDBOX_STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
const VERSION: &str = "/runtime.v1.RuntimeService/Version";

type Labels = HashMap<String, String>;

#[derive(Clone, PartialEq, Message)]
struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<ContainerFilter>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerFilter {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    image: Option<ImageSpec>,
    #[prost(map = "string, string", tag = "8")]
    labels: Labels,
    #[prost(map = "string, string", tag = "9")]
    annotations: Labels,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
    /// As the pod has it; since Kubernetes 1.29.
    #[prost(string, tag = "18")]
    user_specified_image: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusRequest {
    #[prost(string, tag = "1")]
    container_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<ContainerStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatus {
    #[prost(message, optional, tag = "8")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatus {
    #[prost(message, optional, tag = "2")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(map = "string, string", tag = "7")]
    labels: Labels,
    #[prost(map = "string, string", tag = "8")]
    annotations: Labels,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct VersionRequest {}

#[derive(Clone, PartialEq, Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
}

/// Asks about the first of these containers that is known there.
pub async fn ask(socket: &Path, containers: &[String]) -> Result<Option<Told>> {
    let mut channel = Channel::open(socket).await?;
    for id in containers {
        let filter = Some(ContainerFilter { id: id.clone() });
        let listed: ListContainersResponse = channel
            .ask(LIST_CONTAINERS, &ListContainersRequest { filter })
            .await?;
        let Some(container) = listed.containers.into_iter().find(|c| c.id == *id) else {
            continue;
        };
        let question = ContainerStatusRequest {
            container_id: id.clone(),
        };
        let status: ContainerStatusResponse = channel.ask(CONTAINER_STATUS, &question).await?;
        let question = PodSandboxStatusRequest {
            pod_sandbox_id: container.pod_sandbox_id.clone(),
        };
        let pod: PodSandboxStatusResponse = channel.ask(POD_SANDBOX_STATUS, &question).await?;
        let version: VersionResponse = channel.ask(VERSION, &VersionRequest {}).await?;
        let image = status.status.and_then(|status| status.image);
        let pod = pod.status.unwrap_or_default();
        return Ok(Some(told(container, image, pod, &version.runtime_name)));
    }
    Ok(None)
}

fn told(
    container: Container,
    resolved: Option<ImageSpec>,
    pod: PodSandboxStatus,
    runtime: &str,
) -> Told {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    // Of the same name, the pod's count before the container's, and labels before annotations.
    for some in [
        container.annotations,
        container.labels,
        pod.annotations,
        pod.labels,
    ] {
        labels.extend(some);
    }
    // The kubelet asks for an image by its digest; its status has the name.
    let images = [resolved, container.image];
    let images = images.iter().flatten();
    let image = (images.clone())
        .map(|i| &i.user_specified_image)
        .chain(images.map(|i| &i.image))
        .find(|image| !image.is_empty())
        .cloned();
    Told {
        container: container.id,
        runtime: match runtime {
            "containerd" => Some("containerd"),
            "cri-o" => Some("cri-o"),
            "docker" => Some("docker"),
            _ => None,
        },
        name: container.metadata.map(|metadata| metadata.name),
        image,
        pod: pod.metadata.map(|pod| Pod {
            uid: pod.uid,
            namespace: pod.namespace,
            name: pod.name,
            is_vouched: true,
        }),
        given: labels.clone(),
        labels,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::Identity;

    const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";

    fn id() -> String {
        "ab12".repeat(16)
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    fn spec(image: &str, given: &str) -> ImageSpec {
        ImageSpec {
            image: image.to_owned(),
            user_specified_image: given.to_owned(),
        }
    }

    fn answers(pod: PodSandboxStatus, container: Container, image: Option<ImageSpec>) -> Told {
        let metadata = Some(PodSandboxMetadata {
            name: "app-x7k2p".into(),
            uid: UID.into(),
            namespace: "team-a".into(),
        });
        told(
            Container {
                id: id(),
                metadata: Some(ContainerMetadata {
                    name: "build".into(),
                }),
                ..container
            },
            image,
            PodSandboxStatus { metadata, ..pod },
            "containerd",
        )
    }

    fn of(pod_uid: Option<&str>) -> Identity {
        Identity {
            container: Some(id()),
            pod_uid: pod_uid.map(str::to_owned),
            ..Identity::default()
        }
    }

    #[test]
    fn pod_image_labels_and_annotations() {
        let pod = PodSandboxStatus {
            labels: labels(&[("both", "label"), ("tekton.dev/pipelineRun", "run-1")]),
            annotations: labels(&[("both", "annotation"), ("kcap/trace", "yes")]),
            ..PodSandboxStatus::default()
        };
        let container = Container {
            image: Some(spec("sha256:ab", "")),
            labels: labels(&[("both", "container"), ("io.kubernetes.container.name", "b")]),
            ..Container::default()
        };
        let wanted = ["both", "kcap/trace", "absent"].map(str::to_owned);
        let mut found = of(Some(UID));
        let told = answers(pod, container, Some(spec("docker.io/x/kaniko:1", "")));
        assert!(told.apply(&mut found, &[id()], &wanted));
        assert_eq!(found.runtime.as_deref(), Some("containerd"));
        assert_eq!(found.namespace.as_deref(), Some("team-a"));
        assert_eq!(found.pod.as_deref(), Some("app-x7k2p"));
        assert_eq!(found.name.as_deref(), Some("build"));
        assert_eq!(found.image.as_deref(), Some("docker.io/x/kaniko:1"));
        assert_eq!(found.pipeline.as_deref(), Some("run-1"));
        let kept: Vec<_> = found.labels.into_iter().collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(kept, [pair("both", "label"), pair("kcap/trace", "yes")]);
    }

    #[test]
    fn the_image_is_the_one_asked_for() {
        let image = |listed: &str, given: &str, resolved: Option<&str>| {
            let container = Container {
                image: Some(spec(listed, given)),
                ..Container::default()
            };
            let resolved = resolved.map(|image| spec(image, ""));
            answers(PodSandboxStatus::default(), container, resolved).image
        };
        assert_eq!(image("sha256:ab", "", None).as_deref(), Some("sha256:ab"));
        assert_eq!(
            image("sha256:ab", "k:1", Some("r/k:1")).as_deref(),
            Some("k:1")
        );
        assert_eq!(image("", "", None), None);
    }

    #[test]
    fn a_container_in_another_pods_control_group_is_not_that_containers() {
        let told = |pod_uid: Option<&str>| {
            let mut found = of(pod_uid);
            let told = answers(PodSandboxStatus::default(), Container::default(), None);
            let known = told.apply(&mut found, &[id()], &[]);
            (known, found.namespace)
        };
        assert_eq!(told(Some(UID)), (true, Some("team-a".into())));
        // Where the cgroup names none: pods that no kubelet made.
        assert_eq!(told(None), (true, Some("team-a".into())));
        let other = UID.replace('0', "f");
        assert_eq!(told(Some(&other)), (false, None));
        // As static pods have it.
        assert!(told(Some(&UID.replace('-', ""))).0);
    }

    #[test]
    fn of_what_runs_inside_a_container_the_pod_is_known_and_no_more() {
        let inner = "ef".repeat(32);
        let mut found = Identity {
            container: Some(inner.clone()),
            ..of(Some(UID))
        };
        let container = Container {
            image: Some(spec("dind", "")),
            ..Container::default()
        };
        let told = answers(PodSandboxStatus::default(), container, None);
        assert!(told.apply(&mut found, &[id(), inner.clone()], &[]));
        assert_eq!(found.namespace.as_deref(), Some("team-a"));
        assert_eq!(found.container, Some(inner));
        assert_eq!((found.name, found.image), (None, None));
    }

    proptest! {
        #[test]
        fn what_pods_say_of_themselves_makes_no_tenant(
            pod in proptest::collection::hash_map("[a-z./-]{0,40}", ".{0,80}", 0..6),
            container in proptest::collection::hash_map("[a-z./-]{0,40}", ".{0,80}", 0..6),
        ) {
            let mut pod = pod;
            pod.insert("io.kubernetes.pod.namespace".into(), "team-b".into());
            let told = answers(
                PodSandboxStatus { annotations: pod, ..PodSandboxStatus::default() },
                Container { labels: container, ..Container::default() },
                None,
            );
            let mut found = of(Some(UID));
            prop_assert!(told.apply(&mut found, &[id()], &[]));
            prop_assert_eq!(found.namespace.as_deref(), Some("team-a"));
            prop_assert_eq!(found.pod_uid.as_deref(), Some(UID));
        }
    }
}

//! Whose build it is. What the path of a cgroup says is the container runtime's word; what stands in
//! the executor's environment is the build's own, which can say there what it likes: it never decides
//! where a report goes beyond its tenant's folder.

use std::collections::BTreeMap;

use crate::capture::Identity;

/// Length of a container's id.
const ID: usize = 64;
/// Most containers inside one another that are told apart; a path can name many.
const DEPTH: usize = 8;
/// Variables that GitLab Runner, Tekton, Jenkins and GitHub's runners set, by what they tell; the first
/// that is there counts.
const VARIABLES: [(&str, &[&str]); 4] = [
    (
        "project",
        &["CI_PROJECT_PATH", "GITHUB_REPOSITORY", "JOB_NAME"],
    ),
    ("commit", &["CI_COMMIT_SHA", "GITHUB_SHA", "GIT_COMMIT"]),
    (
        "pipeline",
        &["CI_PIPELINE_ID", "GITHUB_RUN_ID", "BUILD_NUMBER"],
    ),
    ("job", &["CI_JOB_ID", "GITHUB_JOB"]),
];

/// The variables of executors that are read.
pub fn variables() -> Vec<String> {
    let all = VARIABLES.iter().flat_map(|(_, names)| names.iter());
    all.map(|name| (*name).to_owned()).collect()
}

/// What the lines of `/proc/PID/cgroup` say: the innermost container, what runs it, and the outermost
/// pod.
pub fn of_cgroups(lines: &str) -> Identity {
    innermost(lines).0
}

/// The ids of the containers that the lines name, the outermost first. That one's control group was made
/// by who runs the host's containers; what lies below may be called anything by who runs inside it.
pub fn containers(lines: &str) -> Vec<String> {
    innermost(lines).1
}

fn innermost(lines: &str) -> (Identity, Vec<String>) {
    let mut best = <(Identity, Vec<String>)>::default();
    for line in lines.lines() {
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        let found = of_path(path);
        // The hierarchy of one controller may be less deep than that of another.
        if !found.1.is_empty() && (best.1.is_empty() || found.0.pod_uid.is_some()) {
            best = found;
        }
    }
    best
}

/// What one path says.
fn of_path(path: &str) -> (Identity, Vec<String>) {
    let mut found = Identity::default();
    let mut ids = vec![];
    let mut above = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        // The outermost: who may make control groups inside a pod can call them like those of others.
        if let Some(uid) = pod(part) {
            found.pod_uid.get_or_insert(uid);
        }
        if let Some((runtime, id)) = container(part, above) {
            // The innermost: nodes can be containers themselves.
            found.container = Some(id.to_owned());
            found.runtime = runtime.map(str::to_owned);
            if ids.len() < DEPTH {
                ids.push(id.to_owned());
            }
        }
        above = part;
    }
    (found, ids)
}

/// The id of a container in a part of a path, with what runs it where that shows: `ID` below `docker`,
/// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`, and containerd's
/// `system.slice:cri-containerd:ID`.
fn container<'a>(part: &'a str, above: &str) -> Option<(Option<&'static str>, &'a str)> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if name.contains("conmon") {
        return None;
    }
    let id = name.rsplit(['-', ':']).next()?;
    let is_id = id.len() == ID && id.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        return None;
    }
    let before = name[..name.len() - ID].trim_end_matches(['-', ':']);
    let word = before.rsplit(['-', ':']).next().unwrap_or_default();
    let runtime = match (before, word) {
        ("cri-containerd", _) | (_, "containerd") => Some("containerd"),
        (_, "docker") => Some("docker"),
        (_, "crio") => Some("cri-o"),
        (_, "libpod") => Some("podman"),
        _ => match above {
            "docker" => Some("docker"),
            above if above.starts_with("libpod") => Some("podman"),
            _ => None,
        },
    };
    Some((runtime, id))
}

/// The UID in the name of a pod's cgroup: `podUID`, `kubepods-burstable-podUID.slice` with `_` for `-`.
fn pod(part: &str) -> Option<String> {
    // containerd's driver for systemd, where there is none, puts the container behind it.
    let name = part.split(':').next().unwrap_or(part);
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.rfind("-pod") {
        Some(at) if name.contains("kubepods") || name.contains("kubelet") => &name[at + 4..],
        _ => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let is_uid = uid.len() >= 32
        && uid.len() <= 36
        && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_uid.then_some(uid)
}

/// Adds what the build's environment says.
pub fn claim(identity: &mut Identity, variables: &BTreeMap<String, String>) {
    for (what, names) in VARIABLES {
        let value = names.iter().find_map(|name| variables.get(*name));
        let (Some(value), Some(slot)) = (value.filter(|v| !v.is_empty()), slot(identity, what))
        else {
            continue;
        };
        if slot.is_none() {
            *slot = Some(value.clone());
            identity.claimed.push(what.to_owned());
        }
    }
}

fn slot<'a>(identity: &'a mut Identity, what: &str) -> Option<&'a mut Option<String>> {
    match what {
        "project" => Some(&mut identity.project),
        "commit" => Some(&mut identity.commit),
        "pipeline" => Some(&mut identity.pipeline),
        "job" => Some(&mut identity.job),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";

    fn id() -> String {
        "ab12".repeat(16)
    }

    fn told(path: &str) -> (Option<String>, bool, Option<String>) {
        let found = of_cgroups(&format!("12:misc:/\n0::{path}\n"));
        (found.runtime, found.container == Some(id()), found.pod_uid)
    }

    #[test]
    fn containers_of_every_runtime_and_driver() {
        let id = id();
        let slice = format!("pod{}", UID.replace('-', "_"));
        for (path, runtime, pod) in [
            (format!("/docker/{id}"), "docker", false),
            (format!("/system.slice/docker-{id}.scope"), "docker", false),
            (format!("/machine.slice/libpod-{id}.scope"), "podman", false),
            (
                format!("/machine.slice/libpod-{id}.scope/container"),
                "podman",
                false,
            ),
            (format!("/libpod_parent/libpod-{id}"), "podman", false),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{slice}.slice/cri-containerd-{id}.scope"
                ),
                "containerd",
                true,
            ),
            (
                format!("/kubepods.slice/kubepods-{slice}.slice/crio-{id}.scope"),
                "cri-o",
                true,
            ),
            (
                format!(
                    "/system.slice/containerd.service/kubepods-besteffort-{slice}.slice:cri-containerd:{id}"
                ),
                "containerd",
                true,
            ),
            (
                format!(
                    "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-{slice}.slice/cri-containerd-{id}.scope"
                ),
                "containerd",
                true,
            ),
        ] {
            let (found, container, uid) = told(&path);
            assert_eq!(
                (found.as_deref(), container),
                (Some(runtime), true),
                "{path}"
            );
            assert_eq!(uid.as_deref(), pod.then_some(UID), "{path}");
        }
        // The driver `cgroupfs` does not say what runs it.
        let (runtime, container, uid) = told(&format!("/kubepods/burstable/pod{UID}/{id}"));
        assert_eq!(
            (runtime, container, uid.as_deref()),
            (None, true, Some(UID))
        );
    }

    #[test]
    fn of_nested_containers_the_innermost_counts() {
        let outer = "ef".repeat(32);
        let path = format!("/docker/{outer}/kubelet/kubepods/pod{UID}/{}", id());
        let (runtime, container, uid) = told(&path);
        assert_eq!(
            (runtime, container, uid.as_deref()),
            (None, true, Some(UID))
        );
        let lines = format!("0::{path}\n");
        assert_eq!(containers(&lines), [outer, id()]);
    }

    #[test]
    fn what_is_called_inside_a_pod_like_another_pod_is_of_the_first() {
        let (other, victim) = (UID.replace('0', "f"), "ef".repeat(32));
        let lines = format!(
            "0::/kubepods/burstable/pod{UID}/{}/kubepods/pod{other}/{victim}\n",
            id()
        );
        assert_eq!(of_cgroups(&lines).pod_uid.as_deref(), Some(UID));
        assert_eq!(containers(&lines), [id(), victim]);
        // Without end.
        let lines = format!("0::{}\n", format!("/{}", id()).repeat(500));
        assert_eq!(containers(&lines).len(), DEPTH);
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "/",
            "/user.slice/user-0.slice/session-1.scope",
            "/machine.slice/libpod-conmon-abababababababababababababababababababababababababababababababab.scope",
            "/docker/abc",
            "/podx/y",
        ] {
            assert_eq!(
                of_cgroups(&format!("0::{path}\n")),
                Identity::default(),
                "{path}"
            );
        }
        assert_eq!(of_cgroups(""), Identity::default());
        assert!(containers("0::/docker/abc\n").is_empty());
        assert_eq!(of_cgroups("garbage\n:::\n"), Identity::default());
    }

    #[test]
    fn the_environment_only_claims() {
        let variables = [
            ("CI_PROJECT_PATH", "group/app"),
            ("GITHUB_REPOSITORY", "other/app"),
            ("CI_COMMIT_SHA", ""),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut identity = Identity::default();
        claim(&mut identity, &variables.clone().into());
        assert_eq!(identity.project.as_deref(), Some("group/app"));
        assert_eq!(identity.commit, None);
        assert_eq!(identity.claimed, ["project"]);
        // What is known from elsewhere stays.
        let mut identity = Identity {
            project: Some("known".into()),
            ..Identity::default()
        };
        claim(&mut identity, &variables.into());
        assert_eq!(identity.project.as_deref(), Some("known"));
        assert!(identity.claimed.is_empty());
    }
}

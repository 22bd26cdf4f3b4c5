//! What a pod's status says of its build. Pure.

use jiff::Timestamp;
use serde_json::Value;

/// Most lines of a failed build's output that are kept. The kubelet gives 80 lines and 2 KB at most.
const LINES: usize = 80;

/// How far a build is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Its container does not run yet; why, where the cluster says that something is wrong.
    Waiting(Option<String>),
    /// It runs.
    Running,
    /// Kaniko has ended.
    Ended(End),
    /// There is no result, and none will come: why.
    Lost(String),
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// Exit status, as a shell gives it.
    pub exit_status: i32,
    /// When it started, RFC 3339.
    pub started: String,
    /// How long it ran, in seconds; the cluster gives whole ones.
    pub seconds: f64,
    /// Memory ran out.
    pub out_of_memory: bool,
    /// It was ended since it took longer than it may.
    pub timed_out: bool,
    /// The digest that Kaniko gave for the image, `sha256:` and 64 digits.
    pub digest: Option<String>,
    /// Its last lines, where it failed.
    pub log: Vec<String>,
}

/// The index of a pod in its Job.
pub fn index(pod: &Value) -> Option<usize> {
    let of = |at: &str| {
        let map = pod["metadata"][at].as_object()?;
        map.get("batch.kubernetes.io/job-completion-index")?
            .as_str()
    };
    of("annotations").or_else(|| of("labels"))?.parse().ok()
}

/// What a pod says of its container of this name.
pub fn state(pod: &Value, container: &str) -> State {
    let status = &pod["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (reason, phase) = (text(&status["reason"]), text(&status["phase"]));
    let own = list(&status["containerStatuses"]).find(|one| one["name"] == container);
    let state = own.map_or(&Value::Null, |own| &own["state"]);
    let is_late = reason == "DeadlineExceeded";
    // The kubelet says so of what it does not know any more.
    let ended = (state.get("terminated")).filter(|end| end["reason"] != "ContainerStatusUnknown");
    if let Some(ended) = ended {
        let end = end(ended, is_late);
        return match lost(pod, ended, &end) {
            Some(why) => State::Lost(why),
            None => State::Ended(end),
        };
    }
    if is_late && state.get("running").is_some() {
        return State::Ended(End {
            exit_status: 137,
            timed_out: true,
            started: text(&status["startTime"]),
            ..End::default()
        });
    }
    if is_late {
        return State::Lost("its pod did not come to build in time".into());
    }
    if phase == "Failed" || phase == "Succeeded" {
        let failed = list(&status["initContainerStatuses"]).find(|one| {
            one.pointer("/state/terminated/exitCode")
                .is_some_and(|code| *code != 0)
        });
        return State::Lost(match failed {
            Some(one) => format!(
                "its init container {} failed: {}",
                text(&one["name"]),
                said(&one["state"]["terminated"])
            ),
            None if reason.is_empty() => "its pod ended without a result of Kaniko's".into(),
            None => format!("its pod was ended: {reason} {}", text(&status["message"]))
                .trim_end()
                .to_owned(),
        });
    }
    if state.get("running").is_some() {
        return State::Running;
    }
    let inits = || list(&status["initContainerStatuses"]);
    match obstacle(status, state) {
        // What goes before the build is at work.
        None if inits().any(|one| one["state"].get("running").is_some()) => State::Running,
        why => State::Waiting(why),
    }
}

/// Why the end of a container says nothing of its build, where it does not.
fn lost(pod: &Value, ended: &Value, end: &End) -> Option<String> {
    if end.exit_status == 0 || end.timed_out {
        return None;
    }
    let status = &pod["status"];
    let is_disrupted = list(&status["conditions"])
        .any(|one| one["type"] == "DisruptionTarget" && one["status"] == "True");
    if is_disrupted || !pod["metadata"]["deletionTimestamp"].is_null() {
        return Some("its pod was removed".into());
    }
    let reason = status["reason"].as_str().unwrap_or_default();
    if !reason.is_empty() {
        let message = status["message"].as_str().unwrap_or_default();
        return Some(
            format!("its pod was ended: {reason} {message}")
                .trim_end()
                .to_owned(),
        );
    }
    // Kaniko writes the digest before it pushes.
    if ended["message"]
        .as_str()
        .is_some_and(|message| is_digest(message.trim()))
    {
        return Some(
            "its image could not be pushed: see whether the pod may push to --results".into(),
        );
    }
    let refused = end.log.iter().find(|line| {
        [
            "push permission",
            "error pushing",
            "DENIED:",
            "UNAUTHORIZED:",
            "TOOMANYREQUESTS:",
        ]
        .iter()
        .any(|said| line.contains(said))
    });
    refused.map(|line| format!("a registry refused it: {line}"))
}

/// The last warning about a Job or one of its pods, of events in the order of time.
pub fn warning<'a>(events: &'a [Value], job: &str) -> Option<&'a str> {
    let about = |event: &&Value| {
        let name = event["involvedObject"]["name"].as_str().unwrap_or_default();
        // A pod is called after its Job.
        let rest = name.strip_prefix(job);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    events.iter().rfind(about)?["message"].as_str()
}

/// Why a pod does not come to run, where the cluster says that something is wrong.
fn obstacle(status: &Value, state: &Value) -> Option<String> {
    let inits = list(&status["initContainerStatuses"]).map(|one| &one["state"]);
    let waiting = inits.chain([state]).find_map(|state| {
        let waiting = state.get("waiting")?;
        let reason = waiting["reason"].as_str()?;
        // What every pod goes through.
        (!matches!(reason, "ContainerCreating" | "PodInitializing")).then(|| said(waiting))
    });
    waiting.or_else(|| {
        let scheduled = list(&status["conditions"])
            .find(|one| one["type"] == "PodScheduled" && one["status"] == "False")?;
        Some(said(scheduled))
    })
}

/// A reason and its message.
fn said(what: &Value) -> String {
    let reason = what["reason"].as_str().unwrap_or_default();
    let message = what["message"].as_str().unwrap_or_default().trim();
    match (reason, message) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn end(ended: &Value, is_late: bool) -> End {
    let text = |key: &str| ended[key].as_str().unwrap_or_default().to_owned();
    let time = |key: &str| ended[key].as_str()?.parse::<Timestamp>().ok();
    let seconds = match (time("startedAt"), time("finishedAt")) {
        (Some(from), Some(to)) => to.duration_since(from).as_secs_f64().max(0.0),
        _ => 0.0,
    };
    let message = text("message");
    let exit_status = ended["exitCode"]
        .as_i64()
        .and_then(|code| i32::try_from(code).ok());
    let exit_status = exit_status.unwrap_or(1);
    let digest = message.trim();
    let digest = (exit_status == 0 && is_digest(digest)).then(|| digest.to_owned());
    let lines: Vec<&str> = message.lines().collect();
    let log = &lines[lines.len().saturating_sub(LINES)..];
    End {
        exit_status,
        started: text("startedAt"),
        seconds,
        out_of_memory: ended["reason"] == "OOMKilled",
        timed_out: is_late && exit_status != 0,
        digest,
        log: if exit_status == 0 {
            vec![]
        } else {
            log.iter().map(|line| (*line).to_owned()).collect()
        },
    }
}

/// Whether a text is a digest, and nothing that a program could take for something else.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn pod(status: Value) -> Value {
        json!({ "metadata": {}, "status": status })
    }

    fn of(state: Value) -> State {
        let status = json!({
            "phase": "Running",
            "containerStatuses": [
                { "name": "proxy", "state": { "running": {} } },
                { "name": "build", "state": state },
            ],
        });
        super::state(&pod(status), "build")
    }

    #[test]
    fn an_end_gives_its_exit_its_time_and_its_image() {
        let ended = of(json!({ "terminated": {
            "exitCode": 0,
            "reason": "Completed",
            "message": DIGEST,
            "startedAt": "2026-11-28T10:00:00Z",
            "finishedAt": "2026-11-28T10:01:05Z",
        } }));
        let State::Ended(end) = ended else {
            panic!("{ended:?}")
        };
        assert_eq!((end.exit_status, end.seconds), (0, 65.0));
        assert_eq!(end.digest.as_deref(), Some(DIGEST));
        assert!(end.log.is_empty());

        let failed = of(json!({ "terminated": { "exitCode": 1, "message": "a\nb: EPERM\n" } }));
        let State::Ended(end) = failed else {
            panic!("{failed:?}")
        };
        assert_eq!((end.exit_status, end.digest), (1, None));
        assert_eq!(end.log, ["a", "b: EPERM"]);

        let killed = of(json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }));
        assert!(matches!(
            killed,
            State::Ended(End {
                out_of_memory: true,
                exit_status: 137,
                ..
            })
        ));
    }

    #[test]
    fn what_is_no_digest_is_none() {
        for message in ["", "sha256:0", "x", &format!("{DIGEST} --x")] {
            let ended = of(json!({ "terminated": { "exitCode": 0, "message": message } }));
            assert!(
                matches!(ended, State::Ended(End { digest: None, .. })),
                "{message}"
            );
        }
    }

    #[test]
    fn why_it_waits_is_told_where_something_is_wrong() {
        assert_eq!(
            of(json!({ "waiting": { "reason": "ContainerCreating" } })),
            State::Waiting(None)
        );
        let pulls =
            json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } });
        assert_eq!(
            of(pulls),
            State::Waiting(Some("ImagePullBackOff: no such image".into()))
        );
        assert_eq!(of(json!({ "running": {} })), State::Running);
        let pending = pod(json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes" }
        ] }));
        assert_eq!(
            state(&pending, "build"),
            State::Waiting(Some("Unschedulable: 0/3 nodes".into()))
        );
        assert_eq!(state(&json!({}), "build"), State::Waiting(None));
    }

    #[test]
    fn what_will_never_come_is_lost() {
        let evicted =
            pod(json!({ "phase": "Failed", "reason": "Evicted", "message": "disk pressure" }));
        assert_eq!(
            state(&evicted, "build"),
            State::Lost("its pod was ended: Evicted disk pressure".into())
        );
        let init = pod(json!({
            "phase": "Failed",
            "initContainerStatuses": [
                { "name": "clone", "state": { "terminated": { "exitCode": 128, "reason": "Error" } } }
            ],
        }));
        assert_eq!(
            state(&init, "build"),
            State::Lost("its init container clone failed: Error".into())
        );
        let late = pod(json!({ "phase": "Failed", "reason": "DeadlineExceeded" }));
        assert!(matches!(state(&late, "build"), State::Lost(_)));
        let late = pod(json!({
            "phase": "Failed",
            "reason": "DeadlineExceeded",
            "containerStatuses": [{ "name": "build", "state": { "terminated": { "exitCode": 143 } } }],
        }));
        assert!(matches!(
            state(&late, "build"),
            State::Ended(End {
                timed_out: true,
                ..
            })
        ));
    }

    #[test]
    fn the_index_is_the_jobs() {
        let key = "batch.kubernetes.io/job-completion-index";
        assert_eq!(
            index(&json!({ "metadata": { "annotations": { key: "7" } } })),
            Some(7)
        );
        assert_eq!(
            index(&json!({ "metadata": { "labels": { key: "8" } } })),
            Some(8)
        );
        assert_eq!(index(&json!({ "metadata": {} })), None);
    }

    /// What a cluster of Kubernetes 1.36 answered to kcap, with its kubelet, containerd 1.6 and Kaniko 1.28.3.
    fn recorded(text: &str) -> Vec<Value> {
        let list: Value = serde_json::from_str(text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    #[test]
    fn what_a_real_cluster_answers_is_understood() {
        let pods = recorded(include_str!("../../../tests/kubernetes/pods.json"));
        let told: Vec<String> = (pods.iter())
            .map(|pod| {
                assert!(index(pod).is_some(), "{pod:#}");
                let name = pod["spec"]["containers"][0]["name"].as_str().unwrap();
                match state(pod, name) {
                    State::Waiting(None) => "waits".into(),
                    State::Waiting(Some(why)) => format!("stuck: {why}"),
                    State::Running => "runs".into(),
                    State::Ended(end) if end.exit_status == 0 => {
                        assert!(end.digest.is_some_and(|digest| is_digest(&digest)));
                        assert!(end.seconds < 60.0 && end.started.starts_with("2026-"));
                        "built".into()
                    }
                    State::Ended(end) => end.log.last().cloned().unwrap_or_default(),
                    State::Lost(why) => format!("lost: {why}"),
                }
            })
            .collect();
        let failed = "error building image: error building stage: failed to take snapshot: open /f: operation \
                      not permitted";
        assert_eq!(
            told,
            [
                "waits",
                "built",
                "built",
                "runs",
                failed,
                "waits",
                // Its Job was being removed.
                "lost: its pod was removed",
                "waits",
                "stuck: ErrImageNeverPull: Container image \"lab/none:1\" is not present with pull policy of \
                 Never",
            ]
        );
    }

    #[test]
    fn why_there_are_no_pods_is_in_the_events() {
        let events = recorded(include_str!("../../../tests/kubernetes/events.json"));
        let why = warning(&events, "kcap-b71a7ced-0").unwrap();
        assert!(why.contains("violates PodSecurity"), "{why}");
        assert_eq!(warning(&events, "kcap-b71a7ced"), Some(why));
        assert_eq!(warning(&events, "kcap-b71a7ce"), None);
        assert_eq!(warning(&events, "kcap-b71a7ced-1"), None);
    }

    #[test]
    fn what_came_from_outside_is_no_failure_of_the_build() {
        let ended = |message: &str| {
            json!({
                "metadata": {},
                "status": { "phase": "Failed", "containerStatuses": [
                    { "name": "build", "state": { "terminated": { "exitCode": 1, "message": message } } },
                ] },
            })
        };
        let fails = ended("chown: /f: Operation not permitted");
        assert!(matches!(state(&fails, "build"), State::Ended(_)));
        let mut drained = fails.clone();
        drained["metadata"]["deletionTimestamp"] = json!("2026-11-28T10:00:00Z");
        assert_eq!(
            state(&drained, "build"),
            State::Lost("its pod was removed".into())
        );
        let mut preempted = fails;
        preempted["status"]["conditions"] =
            json!([{ "type": "DisruptionTarget", "status": "True" }]);
        assert_eq!(
            state(&preempted, "build"),
            State::Lost("its pod was removed".into())
        );
        for message in [
            DIGEST,
            "error checking push permissions: DENIED: permission denied",
            "GET https://r/v2/: UNAUTHORIZED: authentication required",
        ] {
            assert!(
                matches!(state(&ended(message), "build"), State::Lost(_)),
                "{message}"
            );
        }
    }

    #[test]
    fn what_goes_before_the_build_is_a_sign_of_life() {
        let cloning = pod(json!({
            "phase": "Pending",
            "containerStatuses": [{ "name": "build", "state": { "waiting": { "reason": "PodInitializing" } } }],
            "initContainerStatuses": [{ "name": "clone", "state": { "running": {} } }],
        }));
        assert_eq!(state(&cloning, "build"), State::Running);
    }
}

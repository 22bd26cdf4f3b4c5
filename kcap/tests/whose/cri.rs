//! Pods of a containerd's, made as the kubelet makes them: over the Container Runtime Interface. Their
//! network is the host's, so that no plugin for it is needed.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use kcap::{host::cgroup::Layout, watch::whose::grpc::Channel};
use prost::Message;
use tempfile::TempDir;

use crate::{
    alone,
    counts::Counts,
    host::{Daemon, assert_no_mounts, lacks, run, skip},
    image,
    lab::{Lab, PATIENCE},
    lingering, told,
    watching::{Watch, all, is_whole},
};

const IMAGE: &str = "localhost/known:1";
/// `NamespaceMode.NODE`.
const NODE: i32 = 2;
/// `NamespaceMode.CONTAINER`.
const CONTAINER: i32 = 1;

type Labels = HashMap<String, String>;

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
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(map = "string, string", tag = "6")]
    labels: Labels,
    #[prost(map = "string, string", tag = "7")]
    annotations: Labels,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<LinuxSandboxSecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandboxSecurityContext {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
    #[prost(int32, tag = "3")]
    ipc: i32,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

/// Of every answer here, the id; and of every question that has nothing else.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    /// `ContainerMetadata` has the name first.
    #[prost(message, optional, tag = "1")]
    metadata: Option<Id>,
    /// `ImageSpec` has the image first.
    #[prost(message, optional, tag = "2")]
    image: Option<Id>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    envs: Vec<KeyValue>,
    #[prost(map = "string, string", tag = "9")]
    labels: Labels,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainerConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerConfig {
    #[prost(message, optional, tag = "2")]
    security_context: Option<LinuxContainerSecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerSecurityContext {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
}

/// A containerd of the test's own, with an image of the known executor.
struct Containerd {
    dir: TempDir,
    daemon: Option<Daemon>,
    /// Above the control groups of its pods, in every hierarchy.
    parent: String,
    sandboxes: Vec<String>,
}

impl Containerd {
    fn start(lab: &Lab, dockerfiles: &[(String, String)]) -> Self {
        // Not below /tmp: that may be in memory.
        let dir = TempDir::with_prefix_in("kcap-whose-", "/var/tmp").expect("a temporary folder");
        let mut containerd = Self {
            parent: format!("/kcap-test-{}", std::process::id()),
            dir,
            daemon: None,
            sandboxes: vec![],
        };
        let folder = containerd.dir.path().to_owned();
        let place = |name: &str| folder.join(name).display().to_string();
        // The sandbox's program is the known one as well: it waits.
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\nimports = []\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {ttrpc:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"localhost/pause:1\"\n\
             restrict_oom_score_adj = true\ndisable_apparmor = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n",
            root = place("root"),
            state = place("state"),
            socket = place("socket"),
            ttrpc = place("socket.ttrpc"),
            opt = place("opt"),
        );
        fs::write(place("config.toml"), config).expect("a file");
        let mut command = Command::new("containerd");
        command.args(["--config", &place("config.toml")]);
        let log = PathBuf::from(place("log"));
        let answers = || {
            let version = containerd.try_ask::<Id>("Version", &Id::default());
            version.is_ok()
        };
        let daemon = Daemon::start(&mut command, &log, &answers);
        let layer = image::layer(lab, dockerfiles);
        for (name, entrypoint) in [(IMAGE, None), ("localhost/pause:1", Some("sleep:3600000"))] {
            let archive = place("image.tar");
            let bytes = image::archive(&layer, name, entrypoint);
            fs::write(&archive, bytes).expect("a file");
            let socket = place("socket");
            let import = ["images", "import", "--snapshotter", "native", &archive];
            let mut ctr = Command::new("ctr");
            run(ctr
                .args(["--address", &socket, "--namespace", "k8s.io"])
                .args(import));
        }
        containerd.daemon = Some(daemon);
        containerd
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn try_ask<A: Message + Default>(
        &self,
        method: &str,
        question: &impl Message,
    ) -> Result<A, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("an event loop");
        let answer = runtime.block_on(async {
            let mut channel = Channel::open(&self.socket()).await?;
            let method = format!("/runtime.v1.RuntimeService/{method}");
            channel.ask(&method, question).await
        });
        answer.map_err(|why| format!("{why:#}"))
    }

    /// Asks until it goes well: images that were just imported take a moment to be known.
    fn ask(&self, method: &str, question: &impl Message) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.try_ask::<Id>(method, question) {
                Ok(answer) => return answer.id,
                Err(why) => assert!(Instant::now() < end, "{method}: {why}"),
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// A container in a pod of its own, not started.
    fn create(&mut self, lab: &Lab, pod: &Pod) -> String {
        let namespaces = NamespaceOption {
            network: NODE,
            pid: CONTAINER,
            ipc: NODE,
        };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: pod.name.into(),
                uid: pod.uid(),
                namespace: pod.namespace.into(),
            }),
            labels: labels(pod.labels),
            annotations: labels(pod.annotations),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod{}", self.parent, pod.uid()),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces.clone()),
                }),
            }),
        };
        let question = RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let sandbox = self.ask("RunPodSandbox", &question);
        self.sandboxes.push(sandbox.clone());
        let text = |id: &str| Some(Id { id: id.to_owned() });
        let executor = lab.path("kaniko/executor");
        let command = [&*executor, "-f", &pod.dockerfile, "-c", "/"];
        let envs = pod.env.iter().map(|(key, value)| KeyValue {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        });
        let container = ContainerConfig {
            metadata: text("build"),
            image: text(IMAGE),
            command: command.map(str::to_owned).to_vec(),
            envs: envs.collect(),
            labels: labels(&[("io.kubernetes.container.name", "build")]),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces),
                }),
            }),
        };
        let question = CreateContainerRequest {
            pod_sandbox_id: sandbox,
            config: Some(container),
            sandbox_config: Some(config),
        };
        self.ask("CreateContainer", &question)
    }

    fn start_of(&self, id: &str) {
        self.ask("StartContainer", &Id { id: id.to_owned() });
    }

    /// Ends it with its pods, and sees that nothing is left.
    fn end(mut self) {
        self.remove();
        assert!(self.sandboxes.is_empty());
        let parent = self.parent.clone();
        let dir = self.dir.path().to_owned();
        drop(self);
        assert_no_mounts(&dir);
        let layout = Layout::detect().expect("cgroups");
        let left = layout.mount.join(parent.trim_start_matches('/'));
        assert!(!left.exists(), "{}", left.display());
    }

    fn remove(&mut self) {
        for id in std::mem::take(&mut self.sandboxes) {
            let id = Id { id };
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                if let Err(why) = self.try_ask::<Id>(method, &id) {
                    eprintln!("{method}: {why}");
                }
            }
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Where a test failed, its pods are still there, and outlive the daemon.
        self.remove();
        self.daemon = None;
        // The pods' control groups are the kubelet's to remove.
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            remove_groups(&hierarchy.path().join(self.parent.trim_start_matches('/')));
        }
        remove_groups(&PathBuf::from(format!("/sys/fs/cgroup{}", self.parent)));
    }
}

/// Removes empty control groups.
fn remove_groups(path: &std::path::Path) {
    for below in fs::read_dir(path).into_iter().flatten().flatten() {
        if below.path().is_dir() {
            remove_groups(&below.path());
        }
    }
    // What is not there, or in use, stays: that is asserted where it matters.
    let _ = fs::remove_dir(path);
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

/// A pod with a build in it, and what is to be told of it.
#[derive(Clone, Default)]
struct Pod<'a> {
    n: usize,
    namespace: &'a str,
    name: &'a str,
    labels: &'a [(&'a str, &'a str)],
    annotations: &'a [(&'a str, &'a str)],
    env: &'a [(&'a str, &'a str)],
    dockerfile: String,
    /// Project, commit, pipeline, job.
    told: [&'a str; 4],
    /// What of it is the build's own word.
    claimed: &'a [&'a str],
    /// The first folders of its report.
    place: &'a str,
}

impl Pod<'_> {
    fn uid(&self) -> String {
        format!("0a1b2c3d-1111-2222-3333-{:012}", self.n)
    }
}

#[test]
fn pods_of_containerds_are_told_by_namespace_and_what_their_makers_say() {
    let _one = alone();
    if let Some(why) = lacks(&["containerd", "ctr", "runc"]) {
        skip(&format!("whose builds are by containerd: {why}"));
        return;
    }
    let traced = ("kcap/trace", "yes");
    let pods = [
        Pod {
            namespace: "team-a",
            name: "runner-x-project-1-concurrent-0",
            labels: &[
                ("project.runner.gitlab.com/namespace", "sub"),
                ("project.runner.gitlab.com/name", "app"),
                ("team", "blue"),
            ],
            annotations: &[
                traced,
                (
                    "job.runner.gitlab.com/url",
                    "https://gitlab.example.com/group/sub/app/-/jobs/42",
                ),
                ("job.runner.gitlab.com/id", "42"),
                ("job.runner.gitlab.com/sha", "0123456789abcdef"),
            ],
            env: &[("CI_PROJECT_PATH", "other/app"), ("CI_PIPELINE_ID", "7")],
            told: ["group/sub/app", "0123456789abcdef", "7", "42"],
            claimed: &["pipeline"],
            place: "team-a/group/sub/app/",
            ..Pod::default()
        },
        Pod {
            namespace: "team-b",
            name: "app-x7k2p-build-pod",
            labels: &[
                traced,
                ("tekton.dev/pipelineRun", "app-x7k2p"),
                ("tekton.dev/pipelineTask", "build"),
                ("pipelinesascode.tekton.dev/sha", "feed"),
            ],
            annotations: &[(
                "pipelinesascode.tekton.dev/repo-url",
                "https://github.com/org/app",
            )],
            told: ["org/app", "feed", "app-x7k2p", "build"],
            place: "team-b/org/app/",
            ..Pod::default()
        },
        // It says everywhere that it is another's.
        Pod {
            namespace: "team-a",
            name: "liar",
            labels: &[
                traced,
                ("io.kubernetes.pod.namespace", "team-b"),
                (
                    "io.kubernetes.pod.uid",
                    "0a1b2c3d-1111-2222-3333-000000000002",
                ),
            ],
            annotations: &[("io.kubernetes.pod.namespace", "team-b")],
            env: &[
                ("CI_PROJECT_PATH", "../../team-b/org/app"),
                ("GITHUB_SHA", "/etc"),
                ("POD_NAMESPACE", "team-b"),
            ],
            told: ["../../team-b/org/app", "/etc", "", ""],
            claimed: &["project", "commit"],
            place: "team-a/_../_../team-b/org/app/",
            ..Pod::default()
        },
        // Where builds outside any pod are is nobody's namespace.
        Pod {
            namespace: "host",
            name: "job",
            annotations: &[traced, ("runUrl", "job/folder/job/app/12/")],
            told: ["folder/app", "", "12", ""],
            place: "_host/folder/app/",
            ..Pod::default()
        },
        // Nobody asked for it.
        Pod {
            namespace: "team-b",
            name: "private",
            annotations: &[("kcap/trace", "no")],
            ..Pod::default()
        },
    ];
    let builds: Vec<_> = (1..=pods.len()).map(lingering).collect();
    let files: Vec<_> = (builds.iter())
        .map(|(path, text, _)| (path.clone(), text.clone()))
        .collect();
    let pods: Vec<Pod> = (pods.into_iter().zip(&files).enumerate())
        .map(|(n, (pod, (dockerfile, _)))| Pod {
            n,
            dockerfile: dockerfile.clone(),
            ..pod
        })
        .collect();
    let lab = Lab::new();
    let mut containerd = Containerd::start(&lab, &files);
    let socket = containerd.socket().display().to_string();
    let args = [
        "--cri-socket",
        &socket,
        "--only",
        "kcap/trace=yes",
        "--label",
        "team",
    ];
    let mut watch = Watch::start(&lab, &args);
    let ids: Vec<String> = (pods.iter())
        .map(|pod| containerd.create(&lab, pod))
        .collect();
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| containerd.start_of(id));
        }
    });
    let lines = watch.wait("report", pods.len() - 1);
    let left = watch.wait("left-out", 1).remove(0);
    assert_eq!(watch.stop(), Some(0), "{}", watch.errors());
    assert_eq!(left["identity"]["container"], ids[pods.len() - 1]);
    assert_eq!(left["identity"]["pod"], "private");
    assert_eq!(left["why"], "it has no label kcap/trace=yes");
    assert_eq!(lines.len(), pods.len() - 1);
    for line in &lines {
        let report = watch.report(line);
        let identity = report.subject.identity.clone().expect("whose it is");
        let at = ids
            .iter()
            .position(|id| identity.container.as_ref() == Some(id));
        let (pod, counts) = at.map(|at| (&pods[at], &builds[at].2)).expect("a pod");
        is_whole(&report);
        assert_eq!(report.subject.exit_status, Some(0));
        assert_eq!(report.subject.dockerfile.as_ref(), Some(&pod.dockerfile));
        assert_eq!(
            all(&watch.capture(line)),
            Counts::of(counts),
            "{}",
            pod.name
        );
        assert_eq!(identity.runtime.as_deref(), Some("containerd"));
        assert_eq!(identity.namespace.as_deref(), Some(pod.namespace));
        assert_eq!(identity.pod.as_deref(), Some(pod.name));
        assert_eq!(identity.pod_uid, Some(pod.uid()));
        assert_eq!(identity.name.as_deref(), Some("build"));
        assert_eq!(identity.image.as_deref(), Some(IMAGE));
        assert_eq!(told(&identity), pod.told);
        assert_eq!(identity.claimed, pod.claimed);
        assert_eq!(identity.labels["kcap/trace"], "yes");
        let team = pod.labels.iter().find(|(name, _)| *name == "team");
        let team = team.map(|(_, value)| (*value).to_owned());
        assert_eq!(identity.labels.get("team"), team.as_ref());
        let name = line["name"].as_str().expect("a name");
        assert!(name.starts_with(pod.place), "{name}");
    }
    containerd.end();
}

//! The pod that runs Kaniko, as its owner wrote it, and what becomes of it for a trial. Pure.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::flags;
use crate::report::Cap;

/// Where a trial's Dockerfiles are in the container. No place that a Dockerfile fills: Kaniko leaves alone
/// what is mounted.
pub const FILES: &str = "/kaniko-dockerfile";
/// What the kubelet expands to a pod's index in its Job.
pub const INDEX: &str = "$(JOB_COMPLETION_INDEX)";
/// The file whose content the kubelet puts into the pod's status.
const MESSAGE: &str = "/dev/termination-log";
/// The volume of the Dockerfiles.
const VOLUME: &str = "kcap-files";
/// Documents of a file that are looked through, and bytes of it.
const MOST: (usize, usize) = (64, 4 << 20);

/// Labels that a Job gives its pods: those of one that was made by a Job are not another's.
const OTHERS: [&str; 3] = ["job-name", "controller-uid", "pod-template-hash"];

/// A pod that builds an image with Kaniko.
#[derive(Clone, Debug)]
pub struct Pod {
    /// A `PodTemplateSpec`.
    template: Value,
    /// The position of the container that runs Kaniko.
    container: usize,
    /// The namespace that its owner gave it.
    pub namespace: Option<String>,
    /// Lines for people, about what is not taken over.
    pub notes: Vec<String>,
}

/// A build to make of it.
#[derive(Clone, Debug)]
pub struct Build<'a> {
    /// The capabilities that its container gets, as a mask.
    pub set: u64,
    /// Where the image is pushed to; may hold [`INDEX`].
    pub destination: &'a str,
    /// The ConfigMap that holds its files, mounted at [`FILES`].
    pub files: Option<&'a str>,
    /// Kaniko's `--dockerfile` and `--context`, in place of the pod's own.
    pub dockerfile: Option<&'a str>,
    /// See there.
    pub context: Option<&'a str>,
    /// More flags for Kaniko, after the pod's own.
    pub flags: &'a [String],
    /// Seconds after which it is ended.
    pub deadline: Option<u64>,
}

impl Pod {
    /// Reads it from YAML or JSON: a Pod, or what has a template of one (Job, CronJob, PodTemplate,
    /// Deployment); of several documents the first such. The container that runs Kaniko is the one of this
    /// name, else the only one whose command or image says so, else the only one.
    ///
    /// # Errors
    /// Where there is none such, or its flags cannot be told.
    pub fn read(text: &str, container: Option<&str>) -> Result<Self> {
        ensure!(
            text.len() <= MOST.1,
            "it is larger than {} MB: a pod is not",
            MOST.1 >> 20
        );
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|why| anyhow::anyhow!("it is no YAML: {}", first_line(&why.to_string())))?;
        let found = documents.iter().take(MOST.0).find_map(template);
        let (mut template, namespace) = found.context(
            "there is no pod in it: give a Pod, a Job, a CronJob or a PodTemplate with the \
             container that runs Kaniko",
        )?;
        let containers = template
            .pointer("/spec/containers")
            .and_then(Value::as_array);
        let container = which(containers.map_or(&[], Vec::as_slice), container)?;
        let is_map = |value: &Value| value.is_null() || value.is_object();
        let own = &template["spec"]["containers"][container];
        ensure!(
            own.is_object() && is_map(&own["securityContext"]),
            "the container that runs Kaniko, or its securityContext, is no map"
        );
        let mut notes = vec![];
        let spec = &mut template["spec"];
        spec["restartPolicy"] = json!("Never");
        let own = &mut spec["containers"][container];
        if own.pointer("/securityContext/privileged") == Some(&json!(true)) {
            notes.push(
                "its container is privileged, which would give it everything: trials are not"
                    .into(),
            );
            own["securityContext"]["privileged"] = json!(false);
        }
        let pod = Self {
            template,
            container,
            namespace,
            notes,
        };
        pod.split()?;
        Ok(pod)
    }

    fn own(&self) -> &Value {
        &self.template["spec"]["containers"][self.container]
    }

    /// The name of the container that runs Kaniko.
    pub fn container(&self) -> &str {
        self.own()["name"].as_str().unwrap_or_default()
    }

    /// Its image, as the pod names it.
    pub fn image(&self) -> &str {
        self.own()["image"].as_str().unwrap_or_default()
    }

    /// The capabilities that its `securityContext` leaves it, of those that container runtimes give, as a
    /// mask.
    pub fn capabilities(&self) -> u64 {
        let names = |what: &str| {
            let list = self
                .own()
                .pointer(&format!("/securityContext/capabilities/{what}"));
            list.and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice)
        };
        let mask = |names: &[Value], all: u64| {
            names
                .iter()
                .filter_map(Value::as_str)
                .fold(0, |mask, name| {
                    mask | match name.parse::<Cap>() {
                        _ if name.eq_ignore_ascii_case("all") => all,
                        Ok(cap) => cap.bit(),
                        Err(_) => 0,
                    }
                })
        };
        let all = Cap::known().fold(0, |all, cap| all | cap.bit());
        let (drop, add) = (names("drop"), names("add"));
        let begins = if mask(drop, all) == all {
            0
        } else {
            Cap::DOCKER_DEFAULT
        };
        // As containerd has it: what is dropped by name is, whatever is added.
        (begins | mask(add, all)) & !mask(drop, 0)
    }

    /// The Dockerfile and the context that its own flags name.
    pub fn builds(&self) -> (Option<String>, Option<String>) {
        let words = self.flags();
        let value = |flag| flags::value(&words, flag);
        (value(flags::DOCKERFILE), value(flags::CONTEXT))
    }

    /// It reaches this registry without TLS, or does not look at its certificate; with `flags` after its
    /// own.
    pub fn is_insecure(&self, flags: &[String], registry: &str) -> bool {
        let own = self.flags();
        flags::is_insecure(own.iter().chain(flags).map(String::as_str), registry)
    }

    /// The repositories that it pushes to itself, without tags.
    pub fn destinations(&self) -> Vec<String> {
        flags::destinations(self.flags())
    }

    /// Equal builds give the same image, digest and all.
    pub fn is_reproducible(&self, flags: &[String]) -> bool {
        let own = self.flags();
        flags::is_reproducible(own.iter().chain(flags).map(String::as_str))
    }

    /// Values of its variables, as far as they are written in it.
    pub fn values(&self) -> Vec<String> {
        let all = self.own()["env"].as_array().into_iter().flatten();
        all.filter_map(|one| one["value"].as_str().map(str::to_owned))
            .collect()
    }

    /// Its flags for Kaniko.
    pub fn flags(&self) -> Vec<String> {
        self.split().map(|(_, flags)| flags).unwrap_or_default()
    }

    /// All that bears on what its build comes to, as one text.
    pub fn identity(&self) -> String {
        self.template.to_string()
    }

    /// Its program's words before Kaniko's flags, and those. The words are the entry point of the image
    /// where there are none.
    fn split(&self) -> Result<(Vec<String>, Vec<String>)> {
        let words = |key: &str| -> Result<Vec<String>> {
            match &self.own()[key] {
                Value::Null => Ok(vec![]),
                Value::Array(words) => (words.iter())
                    .map(|word| word.as_str().map(str::to_owned))
                    .collect::<Option<_>>()
                    .with_context(|| {
                        format!("the container's {key} holds something that is no text")
                    }),
                _ => bail!("the container's {key} is no list"),
            }
        };
        let (command, args) = (words("command")?, words("args")?);
        let Some(program) = command.first() else {
            return Ok((vec![], args));
        };
        let name = program.rsplit('/').next().unwrap_or_default();
        ensure!(
            name.contains("executor") || name.contains("kaniko"),
            "its container runs {program}, and not Kaniko itself: give it Kaniko's executor as its \
             command and Kaniko's flags as its args, so that each trial can have its own destination"
        );
        let (program, flags) = command.split_at(1);
        Ok((
            program.to_vec(),
            flags.iter().cloned().chain(args).collect(),
        ))
    }

    /// The template of a build's pod.
    pub fn template(&self, build: &Build<'_>, labels: &Value) -> Result<Value> {
        let (command, mut words) = self.split()?;
        words.extend(build.flags.iter().cloned());
        flags::drop_outputs(&mut words);
        for (given, flag) in [
            (build.dockerfile, flags::DOCKERFILE),
            (build.context, flags::CONTEXT),
        ] {
            if let Some(given) = given {
                flags::replace(&mut words, flag, given);
            }
        }
        words.push("--cache=false".into());
        words.push(format!("--destination={}", build.destination));
        words.push(format!("--digest-file={MESSAGE}"));

        let mut template = self.template.clone();
        let metadata = template["metadata"].as_object_mut();
        let mut kept = Map::new();
        for key in ["labels", "annotations"] {
            if let Some(map) = metadata.as_ref().and_then(|all| all.get(key)?.as_object()) {
                let mut map = map.clone();
                map.retain(|name, _| {
                    !OTHERS.contains(&name.as_str()) && !name.starts_with("batch.kubernetes.io/")
                });
                kept.insert(key.into(), Value::Object(map));
            }
        }
        template["metadata"] = Value::Object(kept);
        merge(&mut template["metadata"]["labels"], labels);
        let spec = &mut template["spec"];
        if let Some(deadline) = build.deadline {
            let own = spec["activeDeadlineSeconds"].as_u64().unwrap_or(u64::MAX);
            spec["activeDeadlineSeconds"] = json!(own.min(deadline.max(1)));
        }
        let own = &mut spec["containers"][self.container];
        if !command.is_empty() {
            own["command"] = json!(command);
        }
        own["args"] = json!(words);
        own["terminationMessagePath"] = json!(MESSAGE);
        own["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
        let names: Vec<String> = Cap::of_mask(build.set).map(|cap| cap.to_string()).collect();
        let mut capabilities = json!({ "drop": ["ALL"] });
        if !names.is_empty() {
            capabilities["add"] = json!(names);
        }
        own["securityContext"]["capabilities"] = capabilities;
        if let Some(files) = build.files {
            push(
                &mut own["volumeMounts"],
                json!({ "name": VOLUME, "mountPath": FILES, "readOnly": true }),
            );
            push(
                &mut spec["volumes"],
                json!({ "name": VOLUME, "configMap": { "name": files } }),
            );
        }
        Ok(template)
    }
}

/// The template in a document, and its namespace.
fn template(document: &Value) -> Option<(Value, Option<String>)> {
    let is_pod = |spec: &Value| spec.get("containers").is_some_and(Value::is_array);
    let namespace = || {
        let name = document.pointer("/metadata/namespace")?.as_str()?;
        Some(name.to_owned())
    };
    for at in [
        "/spec/jobTemplate/spec/template",
        "/spec/template",
        "/template",
        "",
    ] {
        if let Some(template) = document.pointer(at)
            && template.get("spec").is_some_and(is_pod)
        {
            let template = json!({
                "metadata": template.get("metadata").cloned().unwrap_or_else(|| json!({})),
                "spec": template["spec"],
            });
            return Some((template, namespace()));
        }
    }
    None
}

/// The position of the container that runs Kaniko.
fn which(containers: &[Value], named: Option<&str>) -> Result<usize> {
    let name = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
    let all = || containers.iter().map(name).collect::<Vec<_>>().join(", ");
    if let Some(named) = named {
        return (containers.iter().position(|c| name(c) == named))
            .with_context(|| format!("it has no container {named}: it has {}", all()));
    }
    let says_so = |container: &&Value| {
        let command = container["command"].pointer("/0").and_then(Value::as_str);
        let image = container["image"].as_str().unwrap_or_default();
        command.is_some_and(|c| c.contains("kaniko")) || image.contains("kaniko")
    };
    let one = match containers.iter().filter(says_so).count() {
        1 => containers.iter().position(|c| says_so(&c)),
        _ => None,
    };
    match (one, containers.len()) {
        (Some(at), _) => Ok(at),
        (None, 1) => Ok(0),
        (None, 0) => bail!("it has no container"),
        (None, _) => bail!(
            "which of its containers runs Kaniko cannot be told: name it with --container ({})",
            all()
        ),
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(list) => list.push(item),
        other => *other = json!([item]),
    }
}

fn merge(into: &mut Value, from: &Value) {
    if !into.is_object() {
        *into = json!({});
    }
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.clone());
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "\
apiVersion: v1
kind: Service
metadata: {name: other}
---
apiVersion: batch/v1
kind: Job
metadata: {name: image, namespace: builds}
spec:
  template:
    metadata:
      labels: {app: image, job-name: older, batch.kubernetes.io/controller-uid: x}
      name: ignored
    spec:
      restartPolicy: OnFailure
      initContainers: [{name: clone, image: git}]
      containers:
      - name: proxy
        image: envoy
      - name: build
        image: registry.example/kaniko:v1
        args: [-f, app/Dockerfile, --context=git://host/app, -d, registry.example/app:1, --cache,
               --no-push, --insecure, --build-arg=V=3]
        securityContext: {privileged: true, capabilities: {drop: [ALL], add: [CHOWN, CAP_SETUID]}}
";

    fn build(set: u64) -> Build<'static> {
        Build {
            set,
            destination: "r/t:x-$(JOB_COMPLETION_INDEX)",
            files: None,
            dockerfile: None,
            context: None,
            flags: &[],
            deadline: None,
        }
    }

    #[test]
    fn a_trial_keeps_what_its_owner_wrote_but_for_the_set_and_the_images_place() {
        let pod = Pod::read(JOB, None).unwrap();
        assert_eq!(pod.container(), "build");
        assert_eq!(pod.namespace.as_deref(), Some("builds"));
        assert_eq!(pod.capabilities(), Cap::CHOWN.bit() | Cap::SETUID.bit());
        assert_eq!(
            pod.builds(),
            (Some("app/Dockerfile".into()), Some("git://host/app".into()))
        );
        assert!(pod.is_insecure(&[], "r"));
        assert_eq!(pod.destinations(), ["registry.example/app"]);
        let labels = json!({ "kcap-run": "r" });
        let template = pod.template(&build(Cap::FOWNER.bit()), &labels).unwrap();
        assert_eq!(
            template["metadata"],
            json!({ "labels": { "app": "image", "kcap-run": "r" } })
        );
        assert_eq!(template["spec"]["restartPolicy"], "Never");
        assert_eq!(template["spec"]["initContainers"][0]["name"], "clone");
        let own = &template["spec"]["containers"][1];
        assert_eq!(
            own["securityContext"],
            json!({ "privileged": false, "capabilities": { "drop": ["ALL"], "add": ["FOWNER"] } })
        );
        assert_eq!(
            own["args"],
            json!([
                "-f",
                "app/Dockerfile",
                "--context=git://host/app",
                "--insecure",
                "--build-arg=V=3",
                "--cache=false",
                "--destination=r/t:x-$(JOB_COMPLETION_INDEX)",
                "--digest-file=/dev/termination-log"
            ])
        );
        let none = pod.template(&build(0), &labels).unwrap();
        let capabilities = &none["spec"]["containers"][1]["securityContext"]["capabilities"];
        assert_eq!(*capabilities, json!({ "drop": ["ALL"] }));
    }

    #[test]
    fn its_dockerfile_and_context_can_be_replaced() {
        let pod = Pod::read(JOB, None).unwrap();
        let build = Build {
            dockerfile: Some("/kaniko-dockerfile/0"),
            context: Some("tar:///kaniko-dockerfile/0.tar.gz"),
            files: Some("files"),
            deadline: Some(90),
            ..build(0)
        };
        let template = pod.template(&build, &json!({})).unwrap();
        let own = &template["spec"]["containers"][1];
        let args: Vec<&str> = own["args"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(args.contains(&"--dockerfile=/kaniko-dockerfile/0"));
        assert!(args.contains(&"--context=tar:///kaniko-dockerfile/0.tar.gz"));
        assert!(
            !args
                .iter()
                .any(|arg| arg.contains("app/Dockerfile") || arg.contains("git:"))
        );
        assert_eq!(own["volumeMounts"][0]["mountPath"], FILES);
        assert_eq!(template["spec"]["volumes"][0]["configMap"]["name"], "files");
        assert_eq!(template["spec"]["activeDeadlineSeconds"], 90);
    }

    #[test]
    fn what_cannot_be_tried_is_refused_with_what_to_do() {
        let pod = |containers: &str| format!("kind: Pod\nspec:\n  containers: {containers}\n");
        for (text, says) in [
            ("{", "no YAML"),
            ("kind: Service\nspec: {ports: []}", "there is no pod in it"),
            (&pod("[]"), "no container"),
            (&pod("[{name: a}, {name: b}]"), "--container (a, b)"),
            (
                &pod("[{name: a, image: kaniko, command: [sh, -c, '/kaniko/executor']}]"),
                "runs sh, and not Kaniko itself",
            ),
            (&pod("[x]"), "is no map"),
            (&pod("[{name: a, securityContext: yes}]"), "is no map"),
            (
                &pod("[{name: a, image: kaniko, args: yes}]"),
                "args is no list",
            ),
            (&pod("[{name: a, image: kaniko, args: [1]}]"), "no text"),
        ] {
            let error = format!("{:#}", Pod::read(text, None).unwrap_err());
            assert!(error.contains(says), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let error = Pod::read(JOB, Some("x")).unwrap_err().to_string();
        assert!(
            error.contains("no container x: it has proxy, build"),
            "{error}"
        );
    }

    #[test]
    fn without_a_security_context_it_starts_from_what_runtimes_give() {
        let pod = Pod::read("spec: {containers: [{name: a, image: k}]}", None).unwrap();
        assert_eq!(pod.capabilities(), Cap::DOCKER_DEFAULT);
        let all = "spec: {containers: [{name: a, securityContext: {capabilities: {drop: [NET_RAW, x]}}}]}";
        let pod = Pod::read(all, None).unwrap();
        assert_eq!(
            pod.capabilities(),
            Cap::DOCKER_DEFAULT & !Cap::NET_RAW.bit()
        );
    }

    #[test]
    fn what_is_added_and_dropped_is_not_held() {
        let text = "spec: {containers: [{name: a, securityContext: {capabilities: {add: [ALL], drop: [SYS_ADMIN]}}}]}";
        let set = Pod::read(text, None).unwrap().capabilities();
        assert_eq!(set & Cap::SYS_ADMIN.bit(), 0);
        assert_ne!(set & Cap::SYS_TIME.bit(), 0);
    }

    #[test]
    fn more_flags_count_beside_its_own() {
        let pod = Pod::read("spec: {containers: [{name: a, image: k}]}", None).unwrap();
        assert!(!pod.is_insecure(&[], "r"));
        assert!(pod.is_insecure(&["--insecure".into()], "r"));
        assert!(!pod.is_reproducible(&[]));
        assert!(pod.is_reproducible(&["--reproducible".into()]));
    }
}

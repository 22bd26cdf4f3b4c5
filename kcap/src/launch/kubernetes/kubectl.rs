//! kubectl, by which a cluster is asked: it knows how to reach and to log in to each, exec plugins
//! included.

use std::{ffi::OsStr, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::launch::{call::Call, oci::runtime};

/// The first minor version of Kubernetes 1 in which an Indexed Job goes on where one of its pods has failed
/// (`backoffLimitPerIndex`).
const OLDEST: u32 = 29;

/// A namespace of a cluster.
#[derive(Debug)]
pub struct Kubectl {
    program: String,
    /// `--context` and `--namespace`.
    place: Vec<String>,
    /// The cluster and the namespace, and the version of Kubernetes there.
    pub identity: Vec<String>,
}

impl Kubectl {
    /// Finds kubectl, and the cluster that it reaches.
    ///
    /// # Errors
    /// Where there is none, or it is too old.
    pub fn open(context: Option<&str>, namespace: Option<&str>) -> Result<Self> {
        let found = runtime::program(OsStr::new("kubectl"));
        let program = found.as_deref().and_then(Path::to_str);
        let program = program.context(
            "clusters are reached by kubectl, which is not installed: install it, and see that \
             kubectl get jobs works",
        )?;
        let given = [("context", context), ("namespace", namespace)].into_iter();
        let mut this = Self {
            program: program.to_owned(),
            place: given
                .filter_map(|(flag, value)| Some(format!("--{flag}={}", value?)))
                .collect(),
            identity: vec![],
        };
        let version = this.json(&["version"])?;
        let minor = &version["serverVersion"]["minor"];
        let digits = minor.as_str().unwrap_or_default();
        let digits = digits.trim_end_matches(|c: char| !c.is_ascii_digit());
        let Ok(minor) = digits.parse::<u32>() else {
            bail!("kubectl reaches no cluster: see what kubectl version says");
        };
        ensure!(
            minor >= OLDEST,
            "the cluster has Kubernetes 1.{minor}: a proof takes 1.{OLDEST} or later"
        );
        let cluster = match context {
            Some(context) => context.to_owned(),
            // Inside a cluster there is no such name.
            None => this
                .asked(&["config", "current-context"])
                .unwrap_or_default(),
        };
        let version = version["serverVersion"]["gitVersion"]
            .as_str()
            .unwrap_or_default();
        this.identity = vec![
            cluster.trim().to_owned(),
            namespace.unwrap_or_default().to_owned(),
            version.to_owned(),
        ];
        Ok(this)
    }

    /// Makes an object; gives it as the cluster has it.
    ///
    /// # Errors
    /// What the cluster says.
    pub fn create(&self, object: &Value) -> Result<Value> {
        let text = object.to_string();
        // What is known of an object's fields is the cluster's business: kubectl may be older.
        let words = ["create", "--validate=false", "-f", "-", "-o", "json"];
        let call = Call::new(&self.program, self.words(&words));
        let answer = call
            .interruptible()
            .feed(&mut |stdin| Ok(stdin.write_all(text.as_bytes())?))?;
        let kind = object["kind"].as_str().unwrap_or("object").to_owned();
        ensure!(
            answer.success,
            "the cluster does not take a {kind} of this proof: {}",
            answer.complaint
        );
        parsed(&answer.output)
    }

    /// The pods of this label.
    ///
    /// # Errors
    /// What the cluster says.
    pub fn pods(&self, label: &str) -> Result<Vec<Value>> {
        self.list("pods", &[&format!("--selector={label}")])
    }

    /// What the cluster warns of in the namespace, newest last.
    ///
    /// # Errors
    /// What the cluster says.
    pub fn warnings(&self) -> Result<Vec<Value>> {
        let mut all = self.list("events", &["--field-selector=type=Warning"])?;
        all.sort_by_key(|event| {
            let time =
                ["lastTimestamp", "eventTime"].map(|key| event[key].as_str().map(str::to_owned));
            time.into_iter().flatten().max()
        });
        Ok(all)
    }

    fn list(&self, what: &str, flags: &[&str]) -> Result<Vec<Value>> {
        let words: Vec<&str> = ["get", what].iter().chain(flags).copied().collect();
        match self.json(&words)?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("kubectl get {what} gives no list"),
        }
    }

    /// Changes an object's fields.
    ///
    /// # Errors
    /// What the cluster says.
    pub fn patch(&self, what: &str, name: &str, change: &Value) -> Result<()> {
        let change = format!("--patch={change}");
        self.done(&["patch", what, name, "--type=merge", &change])
    }

    /// Removes what of these kinds has this label, and its pods, without waiting for it. Goes on where a
    /// signal comes.
    ///
    /// # Errors
    /// What the cluster says.
    pub fn remove(&self, kinds: &str, label: &str) -> Result<()> {
        let label = format!("--selector={label}");
        self.done(&[
            "delete",
            kinds,
            &label,
            "--cascade=background",
            "--wait=false",
            "--ignore-not-found",
        ])
    }

    /// Removes one object, and what belongs to it, without waiting for it.
    ///
    /// # Errors
    /// What the cluster says.
    pub fn remove_one(&self, kind: &str, name: &str) -> Result<()> {
        let flags = ["--cascade=background", "--wait=false", "--ignore-not-found"];
        let words: Vec<&str> = ["delete", kind, name].into_iter().chain(flags).collect();
        self.done(&words)
    }

    fn done(&self, words: &[&str]) -> Result<()> {
        self.asked(words).map(drop)
    }

    fn asked(&self, words: &[&str]) -> Result<String> {
        let answer = Call::new(&self.program, self.words(words)).run()?;
        ensure!(answer.success, "kubectl {}: {}", words[0], answer.complaint);
        Ok(answer.output)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let mut words = self.words(words);
        words.extend(["-o".into(), "json".into()]);
        let answer = Call::new(&self.program, &words).verbose().run()?;
        ensure!(answer.success, "kubectl {}: {}", words[0], answer.complaint);
        parsed(&answer.output)
    }

    fn words(&self, words: &[&str]) -> Vec<String> {
        let words = words.iter().map(|&word| word.to_owned());
        words.chain(self.place.iter().cloned()).collect()
    }
}

fn parsed(text: &str) -> Result<Value> {
    serde_json::from_str(text).context("kubectl gave something that is no JSON")
}

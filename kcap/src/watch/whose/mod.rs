//! Asks those who run containers whose a container is. What they answer is bounded, and they are waited
//! for briefly: an engine that hangs, or is gone, costs names and never a report.

pub mod cri;
pub mod docker;
pub mod grpc;
pub mod http;
pub mod labels;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, anyhow};

use super::owners::Ask;
use crate::capture::Identity;

/// Where Docker and podman listen.
pub const DOCKER: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];
/// Where runtimes of Kubernetes listen.
pub const CRI: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
];

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers in a row that took too long, after which it is left alone for a while: a busy engine may be
/// late now and then.
const SLOW: u32 = 3;
/// How long it is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// Between two complaints about the same engine.
const AGAIN: Duration = Duration::from_secs(600);
/// Longest name that is kept, in bytes.
const NAME: usize = 256;

/// What an engine says of a container.
#[derive(Debug, Default)]
pub struct Told {
    /// Its id.
    pub container: String,
    /// What runs it, where it is one that kcap knows.
    pub runtime: Option<&'static str>,
    /// Its name.
    pub name: Option<String>,
    /// Its image, as it was asked for.
    pub image: Option<String>,
    /// The pod that it belongs to.
    pub pod: Option<Pod>,
    /// Labels and annotations.
    pub labels: BTreeMap<String, String>,
    /// Those of them that are the word of who started it.
    pub given: BTreeMap<String, String>,
}

/// A pod.
#[derive(Debug, Default)]
pub struct Pod {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// This is the word of a runtime of Kubernetes, and not that of labels.
    pub is_vouched: bool,
}

impl Told {
    /// Adds it to what the control group says; false where it is of another container than this.
    /// `containers`: ids in the control group's path, the outermost first.
    pub fn apply(self, identity: &mut Identity, containers: &[String], wanted: &[String]) -> bool {
        let pod = match (self.pod, &identity.pod_uid) {
            (Some(pod), Some(uid)) if is_same(&pod.uid, uid) => Some(pod),
            // A control group can be called like the container of another pod by who may make some.
            (Some(pod), Some(_)) if pod.is_vouched => return false,
            (Some(pod), None) if pod.is_vouched => Some(pod),
            _ => None,
        };
        if let Some(pod) = pod {
            identity.pod_uid.get_or_insert(pod.uid);
            identity.namespace = kept(Some(pod.namespace), NAME);
            identity.pod = kept(Some(pod.name), NAME);
        }
        // What a container runs inside itself has names of its own, which are not known here.
        if containers.last() == Some(&self.container) {
            identity.name = kept(self.name, NAME);
            identity.image = kept(self.image, usize::MAX);
            if identity.runtime.is_none() {
                identity.runtime = self.runtime.map(str::to_owned);
            }
        }
        labels::read(identity, &self.given);
        labels::keep(identity, &self.labels, wanted);
        true
    }
}

/// Whether two are the same UID: those of static pods are written in two ways.
fn is_same(one: &str, other: &str) -> bool {
    let digits = |uid: &str| uid.replace(['-', '_'], "").to_ascii_lowercase();
    digits(one) == digits(other)
}

/// What is kept of a text; `None` where it is empty.
fn kept(text: Option<String>, most: usize) -> Option<String> {
    let text = text.filter(|text| !text.is_empty())?;
    let text = labels::bounded(&text);
    Some(text[..text.floor_char_boundary(most)].to_owned())
}

/// What is spoken at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Docker's API.
    Docker,
    /// The Container Runtime Interface.
    Cri,
}

impl Kind {
    /// For people: what it is, and how another socket is named.
    fn shown(self) -> (&'static str, &'static str) {
        match self {
            Self::Docker => ("Docker's API", "--docker-socket"),
            Self::Cri => ("the container runtime interface", "--cri-socket"),
        }
    }

    /// Whether it may know a container like this.
    fn may_know(self, identity: &Identity) -> bool {
        let runtime = identity.runtime.as_deref();
        match self {
            Self::Docker => !matches!(runtime, Some("containerd" | "cri-o")),
            // Pods can be run by Docker, and what a pod runs itself is that pod's.
            Self::Cri => {
                !matches!(runtime, Some("docker" | "podman")) || identity.pod_uid.is_some()
            }
        }
    }
}

/// One to ask.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    socket: PathBuf,
    /// Somebody named it: it is missed where it is not there.
    is_named: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Answers in a row that took too long.
    slow: u32,
    /// Not asked until then.
    rests: Option<Instant>,
    /// When it was complained about last.
    told: Option<Instant>,
}

/// Those to ask, in this order. Where none is named, it is those at the usual places, once they are there.
pub fn engines(docker: &[PathBuf], cri: &[PathBuf]) -> Vec<Box<dyn Ask>> {
    let some = |kind, named: &[PathBuf], usual: &[&str]| {
        let usual: Vec<PathBuf> = usual.iter().map(PathBuf::from).collect();
        let is_named = !named.is_empty();
        let sockets = if is_named { named.to_vec() } else { usual };
        (sockets.into_iter())
            .map(move |socket| Box::new(Engine::new(kind, socket, is_named)) as Box<dyn Ask>)
    };
    // The runtime of a node's pods first: it vouches for their namespaces.
    some(Kind::Cri, cri, &CRI)
        .chain(some(Kind::Docker, docker, &DOCKER))
        .collect()
}

impl Engine {
    /// One at a socket. `is_named`: it is told where it is not there.
    pub fn new(kind: Kind, socket: PathBuf, is_named: bool) -> Self {
        Self {
            kind,
            socket,
            is_named,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the answer.
    fn told(&self, containers: &[String]) -> Result<Option<Told>> {
        // A runtime and a connection for each: both are cheap beside a container's start, and nothing
        // is left of an engine that was started anew.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no event loop")?;
        let begin = Instant::now();
        let asked = runtime.block_on(async {
            let answer = async {
                match self.kind {
                    Kind::Docker => docker::ask(&self.socket, containers).await,
                    Kind::Cri => cri::ask(&self.socket, containers).await,
                }
            };
            tokio::time::timeout(PATIENCE, answer).await
        });
        let answer = asked
            .unwrap_or_else(|_| Err(anyhow!("no answer within {} seconds", PATIENCE.as_secs())));
        let mut state = self.state();
        if begin.elapsed() < PATIENCE {
            state.slow = 0;
        } else {
            state.slow += 1;
            if state.slow >= SLOW {
                state.rests = Some(Instant::now() + PAUSE);
            }
        }
        answer
    }

    /// The complaint, unless it was made a short time ago.
    fn complaint(&self, why: &Error) -> Option<Error> {
        let mut state = self.state();
        if state.told.is_some_and(|told| told.elapsed() < AGAIN) {
            return None;
        }
        state.told = Some(Instant::now());
        let (what, option) = self.kind.shown();
        let denied = (why.downcast_ref::<io::Error>())
            .is_some_and(|why| why.kind() == io::ErrorKind::PermissionDenied);
        let remedy = if denied {
            "run kcap in a group that may write there".to_owned()
        } else {
            format!("another socket: {option}")
        };
        Some(anyhow!(
            "cannot ask {what} at {} whose builds are: {why:#}; reports go without what it knows \
             ({remedy})",
            self.socket.display()
        ))
    }
}

impl Ask for Engine {
    fn ask(
        &self,
        containers: &[String],
        identity: &mut Identity,
        wanted: &[String],
    ) -> Result<bool> {
        let rests = self
            .state()
            .rests
            .is_some_and(|until| Instant::now() < until);
        if containers.is_empty()
            || !self.kind.may_know(identity)
            || rests
            || (!self.is_named && !exists(&self.socket))
        {
            return Ok(false);
        }
        match self.told(containers) {
            Ok(Some(told)) => Ok(told.apply(identity, containers, wanted)),
            Ok(None) => Ok(false),
            Err(why) => match self.complaint(&why) {
                Some(why) => Err(why),
                None => Ok(false),
            },
        }
    }
}

/// Whether something is there: it may come at any time.
fn exists(socket: &Path) -> bool {
    socket.try_exists().unwrap_or(true)
}

#[cfg(test)]
mod tests;

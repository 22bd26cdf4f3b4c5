//! A Kubernetes cluster, in which builds are Jobs made from their owner's own pod. Nothing is traced there,
//! so that neither root nor a node is needed: what comes of a build is its exit, its last lines and its
//! image.
//!
//! Kaniko pushes each image to a repository of the user's under a tag of its own, and writes its digest
//! where the kubelet takes it into the pod's status.

mod flags;
mod job;
mod kubectl;
mod pod;
mod status;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

use self::kubectl::Kubectl;
pub use self::{
    job::{Files, Job, ROOM, pack, small},
    pod::Pod,
    status::{End, State},
};
use super::{
    arguments,
    call::{self, Call},
    oci::{pull, runtime},
};

/// The label by which the Job controller says whose a pod is.
const JOB: &str = "job-name";

/// Where builds are Jobs.
pub trait Cluster: Send + Sync {
    /// Names this run's objects.
    fn run(&self) -> &str;

    /// Where images are pushed to: a repository, without a tag.
    fn repository(&self) -> &str;

    /// More flags for Kaniko than its pod has.
    fn flags(&self) -> &[String];

    /// Kaniko's image.
    fn image(&self) -> &str;

    /// Starts a Job.
    ///
    /// # Errors
    /// What the cluster says; nothing of it is left then.
    fn start(&self, job: &Job<'_>) -> Result<()>;

    /// How far the pods of this run are.
    ///
    /// # Errors
    /// What the cluster says.
    fn look(&self) -> Result<Vec<Seen>>;

    /// What the cluster warns of about a Job or its pods, where it does.
    fn obstacle(&self, job: &str) -> Option<String>;

    /// Copies an image into a docker archive.
    ///
    /// # Errors
    /// What the registry says.
    fn fetch(&self, digest: &str, archive: &Path) -> Result<()>;

    /// Removes an image.
    ///
    /// # Errors
    /// What the registry says: most do not allow it by default.
    fn forget(&self, digest: &str) -> Result<()>;

    /// Ends a Job: its pods and files go with it.
    ///
    /// # Errors
    /// What the cluster says.
    fn end(&self, job: &str) -> Result<()>;

    /// Removes all that is left of this run.
    ///
    /// # Errors
    /// What the cluster says.
    fn clear(&self) -> Result<()>;
}

/// A cluster that kubectl reaches, and a registry that skopeo does.
#[derive(Debug)]
pub struct Real {
    kubectl: Kubectl,
    skopeo: String,
    /// The pod that all builds are made from.
    pub pod: Pod,
    run: String,
    repository: String,
    flags: Vec<String>,
    insecure: bool,
}

/// A pod of a Job.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its Job.
    pub job: String,
    /// Its index there.
    pub index: usize,
    /// How far it is.
    pub state: State,
}

impl Real {
    /// Finds what it takes; makes nothing.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn open(
        pod: Pod,
        repository: &str,
        context: Option<&str>,
        namespace: Option<&str>,
        flags: Vec<String>,
    ) -> Result<Self> {
        ensure!(
            is_repository(repository),
            "--results {repository}: it takes a repository that the pod can push to and skopeo can read, \
             as registry.example/team/trials, without a tag"
        );
        ensure!(
            !pod.destinations().iter().any(|own| own == repository),
            "--results {repository} is where the pod's own images go, and those of replays are removed: give \
             one of their own"
        );
        let skopeo = runtime::program(OsStr::new("skopeo"));
        let skopeo = skopeo.as_deref().and_then(Path::to_str);
        let skopeo = skopeo
            .context("images are read by skopeo, which is not installed: apt install skopeo")?;
        let namespace = namespace.or(pod.namespace.as_deref());
        let kubectl = Kubectl::open(context, namespace)?;
        Ok(Self {
            kubectl,
            skopeo: skopeo.to_owned(),
            insecure: pod.is_insecure(&flags, repository.split('/').next().unwrap_or_default()),
            run: format!("kcap-{:08x}", rand()),
            repository: repository.to_owned(),
            pod,
            flags,
        })
    }

    fn address(&self, digest: &str) -> String {
        format!("docker://{}@{digest}", self.repository)
    }

    /// Values that must not be shown: those of build arguments.
    pub fn secrets(&self) -> Vec<String> {
        let own = self.pod.flags();
        let all: Vec<OsString> = own.iter().chain(&self.flags).map(OsString::from).collect();
        let mut secrets = arguments::kaniko_secrets(&all);
        secrets.extend(self.pod.values());
        secrets.retain(|secret| secret.len() >= arguments::LEAST);
        secrets
    }

    /// All that bears on what a build comes to, beside its Dockerfile and context.
    pub fn identity(&self) -> Vec<String> {
        let mut all = vec![self.pod.identity()];
        all.extend(self.kubectl.identity.iter().cloned());
        all.push("--".into());
        all.extend(self.flags.iter().cloned());
        all
    }
}

impl Cluster for Real {
    fn run(&self) -> &str {
        &self.run
    }

    fn repository(&self) -> &str {
        &self.repository
    }

    fn flags(&self) -> &[String] {
        &self.flags
    }

    fn image(&self) -> &str {
        self.pod.image()
    }

    fn start(&self, job: &Job<'_>) -> Result<()> {
        let manifest = job.manifest(&self.pod)?;
        let files = job.config_map();
        if let Some(files) = &files {
            self.kubectl.create(files)?;
        }
        let made = match self.kubectl.create(&manifest) {
            Ok(made) => made,
            Err(why) => {
                if files.is_some() {
                    // The clean-up at the end comes to it, where it cannot be removed now.
                    let _ = self.kubectl.remove_one("configmap", job.name);
                }
                return Err(why);
            }
        };
        if files.is_some() {
            // Should kcap be killed, the cluster removes them with the Job. Where it may not be said, the
            // clean-up at the end removes them.
            let _ = self
                .kubectl
                .patch("configmap", job.name, &job::owned_by(&made));
        }
        Ok(())
    }

    fn look(&self) -> Result<Vec<Seen>> {
        let pods = self.kubectl.pods(&format!("{}={}", job::RUN, self.run))?;
        let seen = pods.iter().filter_map(|pod| {
            let job = pod["metadata"]["labels"][JOB].as_str()?.to_owned();
            let index = status::index(pod)?;
            let state = status::state(pod, self.pod.container());
            Some(Seen { job, index, state })
        });
        Ok(seen.collect())
    }

    fn obstacle(&self, job: &str) -> Option<String> {
        // Where events may not be read, there is no more to say than that nothing happens.
        let warnings = self.kubectl.warnings().ok()?;
        status::warning(&warnings, job).map(call::bounded)
    }

    fn fetch(&self, digest: &str, archive: &Path) -> Result<()> {
        ensure!(
            status::is_digest(digest),
            "Kaniko gave no digest of its image"
        );
        let to = archive.to_str().filter(|to| !to.contains([':', ',']));
        let to =
            to.context("the cache's path is not plain text: set XDG_CACHE_HOME to one that is")?;
        let words = pull::policy().into_iter().chain(["copy", "--quiet"]);
        let insecure = self.insecure.then_some("--src-tls-verify=false");
        let (from, to) = (self.address(digest), format!("docker-archive:{to}"));
        let words = words.chain(insecure).chain([from.as_str(), to.as_str()]);
        let answer = Call::new(&self.skopeo, words).lengthy().run()?;
        ensure!(
            answer.success,
            "the image cannot be read from {}: {}",
            self.repository,
            answer.complaint
        );
        Ok(())
    }

    fn forget(&self, digest: &str) -> Result<()> {
        ensure!(
            !self.pod.is_reproducible(&self.flags),
            "with --reproducible, an image may be another's as well: remove them by their tags"
        );
        let insecure = self.insecure.then_some("--tls-verify=false");
        let address = self.address(digest);
        let words = ["delete"]
            .into_iter()
            .chain(insecure)
            .chain([address.as_str()]);
        let answer = Call::new(&self.skopeo, words).run()?;
        ensure!(answer.success, "{}", answer.complaint);
        Ok(())
    }

    fn end(&self, job: &str) -> Result<()> {
        self.kubectl.remove_one("job", job)
    }

    fn clear(&self) -> Result<()> {
        let label = format!("{}={}", job::RUN, self.run);
        self.kubectl.remove("jobs,configmaps", &label)
    }
}

/// Whether a text can be a repository, and nothing that a program could take for something else.
fn is_repository(text: &str) -> bool {
    let name = text.rsplit('/').next().unwrap_or_default();
    text.contains('/')
        && !name.is_empty()
        && !name.contains(':')
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && (text.chars()).all(|c| c.is_ascii_alphanumeric() || "._-/:[]".contains(c))
}

/// A number that no other run has had, as far as can be told.
fn rand() -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_a_registry_and_no_tag() {
        for good in ["r/t", "registry.example:5000/team/trials", "[::1]:5000/t"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "t", "r/t:1", "r/t@sha256:0", "-r/t", "r/ t", "r/"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}

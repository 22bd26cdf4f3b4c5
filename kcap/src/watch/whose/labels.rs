//! What labels and annotations say of a build: those that GitLab Runner, Tekton and Jenkins put on what
//! they start, and kcap's own for whoever starts builds by other means. They are the word of whoever
//! starts the container or creates the pod, never of what runs in it.

use std::collections::BTreeMap;

use crate::capture::Identity;

/// Longest value that is kept, in bytes; annotations may be much longer.
const VALUE: usize = 1024;
/// What GitLab Runner's labels on docker's containers begin with (executors/docker/internal/labels).
pub const GITLAB: &str = "com.gitlab.gitlab-runner.";

/// How a label's value is to be read.
#[derive(Clone, Copy)]
enum Read {
    /// As it is.
    Plain,
    /// The address of a job at a GitLab: `https://HOST/PROJECT/-/jobs/7`.
    GitLabJob,
    /// The address of a repository.
    Repository,
    /// The path of a run at a Jenkins: `job/FOLDER/job/NAME/7/`; the name.
    JenkinsJob,
    /// The same; the number.
    JenkinsRun,
}

/// What tells the project, in order; the first that says something counts.
const PROJECT: [(&str, Read); 5] = [
    ("kcap/project", Read::Plain),
    ("job.runner.gitlab.com/url", Read::GitLabJob),
    ("com.gitlab.gitlab-runner.job.url", Read::GitLabJob),
    ("pipelinesascode.tekton.dev/repo-url", Read::Repository),
    ("runUrl", Read::JenkinsJob),
];
/// Owner and name of a project, where nothing tells more. The values of a pod's labels hold no slash, so
/// that groups of groups look different here.
const OWNERS: [(&str, &str); 2] = [
    (
        "project.runner.gitlab.com/namespace",
        "project.runner.gitlab.com/name",
    ),
    (
        "pipelinesascode.tekton.dev/url-org",
        "pipelinesascode.tekton.dev/url-repository",
    ),
];
const COMMIT: [(&str, Read); 4] = [
    ("kcap/commit", Read::Plain),
    ("job.runner.gitlab.com/sha", Read::Plain),
    ("com.gitlab.gitlab-runner.job.sha", Read::Plain),
    ("pipelinesascode.tekton.dev/sha", Read::Plain),
];
const PIPELINE: [(&str, Read); 4] = [
    ("kcap/pipeline", Read::Plain),
    ("com.gitlab.gitlab-runner.pipeline.id", Read::Plain),
    ("tekton.dev/pipelineRun", Read::Plain),
    ("runUrl", Read::JenkinsRun),
];
const JOB: [(&str, Read); 5] = [
    ("kcap/job", Read::Plain),
    ("job.runner.gitlab.com/id", Read::Plain),
    ("com.gitlab.gitlab-runner.job.id", Read::Plain),
    ("tekton.dev/pipelineTask", Read::Plain),
    ("tekton.dev/taskRun", Read::Plain),
];

/// Whether a label tells something of this kind.
pub fn tells(name: &str) -> bool {
    let known = [&PROJECT[..], &COMMIT, &PIPELINE, &JOB];
    known
        .iter()
        .any(|list| list.iter().any(|(n, _)| *n == name))
        || OWNERS.iter().any(|(owner, n)| *owner == name || *n == name)
}

/// Adds what labels say of project, commit, pipeline and job, where that is not known.
pub fn read(identity: &mut Identity, labels: &BTreeMap<String, String>) {
    let first = |list: &[(&str, Read)]| {
        (list.iter()).find_map(|(name, how)| value(labels.get(*name)?, *how))
    };
    let owned = || {
        OWNERS.iter().find_map(|(owner, name)| {
            let (owner, name) = (labels.get(*owner)?, labels.get(*name)?);
            value(&format!("{owner}/{name}"), Read::Plain)
        })
    };
    let slots = [
        (&mut identity.project, first(&PROJECT).or_else(owned)),
        (&mut identity.commit, first(&COMMIT)),
        (&mut identity.pipeline, first(&PIPELINE)),
        (&mut identity.job, first(&JOB)),
    ];
    for (slot, found) in slots {
        if slot.is_none() {
            *slot = found;
        }
    }
}

/// Adds the labels that are wanted.
pub fn keep(identity: &mut Identity, labels: &BTreeMap<String, String>, wanted: &[String]) {
    for name in wanted {
        if let Some(value) = labels.get(name) {
            (identity.labels).insert(name.clone(), bounded(value).to_owned());
        }
    }
}

/// What a value says; `None` where it says nothing.
fn value(text: &str, how: Read) -> Option<String> {
    let text = bounded(text.trim());
    let found = match how {
        Read::Plain => text.to_owned(),
        Read::GitLabJob => path(text)?.split_once("/-/jobs/")?.0.to_owned(),
        Read::Repository => {
            let path = path(text)?;
            path.strip_suffix(".git").unwrap_or(path).to_owned()
        }
        Read::JenkinsJob => jenkins(text)?.0,
        Read::JenkinsRun => jenkins(text)?.1,
    };
    let found = found.trim_matches('/');
    (!found.is_empty()).then(|| found.to_owned())
}

/// The path of an address.
fn path(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    Some(path)
}

/// Name and number of a run.
fn jenkins(path: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (number, jobs) = parts.split_last()?;
    let (pairs, rest) = jobs.as_chunks::<2>();
    let is_job = !pairs.is_empty()
        && rest.is_empty()
        && pairs.iter().all(|[word, _]| *word == "job")
        && number.bytes().all(|b| b.is_ascii_digit());
    let names: Vec<&str> = pairs.iter().map(|[_, name]| *name).collect();
    is_job.then(|| (names.join("/"), (*number).to_owned()))
}

/// As much of it as is kept.
pub fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    fn said(pairs: &[(&str, &str)]) -> [Option<String>; 4] {
        let mut identity = Identity::default();
        read(&mut identity, &labels(pairs));
        assert!(pairs.iter().all(|(name, _)| tells(name)));
        [
            identity.project,
            identity.commit,
            identity.pipeline,
            identity.job,
        ]
    }

    fn some(values: [&str; 4]) -> [Option<String>; 4] {
        values.map(|v| (!v.is_empty()).then(|| v.to_owned()))
    }

    #[test]
    fn what_gitlab_runner_says_of_a_container_of_dockers() {
        let found = said(&[
            (
                "com.gitlab.gitlab-runner.job.url",
                "https://gitlab.example.com/group/sub/app/-/jobs/42",
            ),
            ("com.gitlab.gitlab-runner.job.id", "42"),
            ("com.gitlab.gitlab-runner.job.sha", "0123abcd"),
            ("com.gitlab.gitlab-runner.pipeline.id", "7"),
        ]);
        assert_eq!(found, some(["group/sub/app", "0123abcd", "7", "42"]));
    }

    #[test]
    fn what_gitlab_runner_says_of_a_pod() {
        let labelled = [
            ("project.runner.gitlab.com/namespace", "group"),
            ("project.runner.gitlab.com/name", "app"),
            ("job.runner.gitlab.com/id", "42"),
            ("job.runner.gitlab.com/sha", "0123abcd"),
        ];
        let mut all = labelled.to_vec();
        assert_eq!(said(&all), some(["group/app", "0123abcd", "", "42"]));
        // Only the address tells of groups in groups.
        all.push((
            "job.runner.gitlab.com/url",
            "https://gitlab.example.com:8443/group/sub/app/-/jobs/42",
        ));
        assert_eq!(said(&all), some(["group/sub/app", "0123abcd", "", "42"]));
    }

    #[test]
    fn what_tekton_says_of_a_pod() {
        let found = said(&[
            ("tekton.dev/pipelineRun", "app-x7k2p"),
            ("tekton.dev/taskRun", "app-x7k2p-build"),
            ("tekton.dev/pipelineTask", "build"),
        ]);
        assert_eq!(found, some(["", "", "app-x7k2p", "build"]));
        let found = said(&[
            ("tekton.dev/taskRun", "build-1"),
            ("pipelinesascode.tekton.dev/url-org", "org"),
            ("pipelinesascode.tekton.dev/url-repository", "app"),
            ("pipelinesascode.tekton.dev/sha", "0123abcd"),
        ]);
        assert_eq!(found, some(["org/app", "0123abcd", "", "build-1"]));
        let found = said(&[(
            "pipelinesascode.tekton.dev/repo-url",
            "https://github.com/org/app.git",
        )]);
        assert_eq!(found, some(["org/app", "", "", ""]));
    }

    #[test]
    fn what_jenkins_says_of_a_pod() {
        let found = said(&[("runUrl", "job/folder/job/app/12/")]);
        assert_eq!(found, some(["folder/app", "", "12", ""]));
        for other in [
            "",
            "12",
            "job/app",
            "view/x/job/app/12",
            "job/app/twelve",
            "/",
        ] {
            assert_eq!(
                said(&[("runUrl", other)]),
                some(["", "", "", ""]),
                "{other}"
            );
        }
    }

    #[test]
    fn labels_of_kcaps_own_come_first_and_what_says_nothing_is_nothing() {
        let found = said(&[
            ("kcap/project", "mine"),
            ("job.runner.gitlab.com/url", "https://h/group/app/-/jobs/1"),
            ("kcap/commit", " "),
            ("job.runner.gitlab.com/sha", "abc"),
        ]);
        assert_eq!(found, some(["mine", "abc", "", ""]));
        for url in ["", "://", "https://h", "https://h/-/jobs/1", "nothing"] {
            let found = said(&[("job.runner.gitlab.com/url", url)]);
            assert_eq!(found[0], None, "{url}");
        }
    }

    #[test]
    fn values_are_bounded_and_only_wanted_labels_are_kept() {
        let long = "é".repeat(4000);
        let labels = labels(&[("a", &long), ("b", "x"), ("kcap/project", &long)]);
        let mut identity = Identity::default();
        keep(&mut identity, &labels, &["a".into(), "c".into()]);
        read(&mut identity, &labels);
        assert_eq!(identity.labels.len(), 1);
        assert_eq!(identity.labels["a"].len(), VALUE);
        assert_eq!(identity.project.map(|p| p.len()), Some(VALUE));
    }
}

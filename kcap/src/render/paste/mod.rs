//! What to allow, ready to paste where containers are configured: one file a format, each behind
//! [`Exporter`]. Text that the build chose is in comments and quoted strings only.

mod flags;
mod gitlab;
mod kubernetes;
mod kyverno;
mod oci;
mod openshift;
mod tekton;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, Write};

pub use flags::{Docker, Podman};
pub use gitlab::Gitlab;
pub use kubernetes::{Kubernetes, Pod};
pub use kyverno::Kyverno;
pub use oci::Oci;
pub use openshift::Openshift;
pub use tekton::Tekton;

use super::escape::{self, head, shown, tail};
use crate::combine::{Brief, Matrix};
use crate::report::{Cap, Report};

/// Most columns of a comment.
const COMMENT: usize = 160;
/// The executor's image where the report names none.
const IMAGE: &str = "ghcr.io/osscontainertools/kaniko:latest";
/// Where the context is in a whole pod.
const CONTEXT: &str = "/workspace";

/// One format.
pub trait Exporter {
    /// Writes what to allow.
    ///
    /// # Errors
    /// Those of `to`.
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()>;
}

/// What to allow, and what a reader has to know beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// What it is for: a Dockerfile, or how many.
    pub subject: String,
    /// Which of several profiles it is, from 1.
    pub profile: Option<usize>,
    /// The only Dockerfile's path.
    pub dockerfile: Option<String>,
    /// Image of the executor, where it is known.
    pub image: Option<String>,
    /// What to add after dropping all, of those that have a name; by number.
    pub add: Vec<Cap>,
    /// The part of it that one run cannot settle.
    pub unsure: Vec<Cap>,
    /// What a reader has to know, safe to show, one line each.
    pub warnings: Vec<String>,
    /// Whether `no_new_privs` would change the build.
    pub escalation: Escalation,
    /// Whether all runs were traced under a seccomp filter.
    pub filtered: bool,
}

/// Whether programs of the build gain from set-user-ID bits or file capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// They do: where, safe to show.
    Needed(String),
    /// None was seen to.
    NotSeen,
    /// It cannot be told: why.
    Unknown(&'static str),
}

impl Escalation {
    /// What `allowPrivilegeEscalation` has to be: true, unless it is known to make no difference.
    pub fn allow(&self) -> bool {
        *self != Self::NotSeen
    }

    /// Why, safe to show.
    pub fn why(&self) -> String {
        match self {
            Self::Needed(place) => format!("{place} gains by its file's bits or capabilities"),
            Self::NotSeen => {
                "no program gained by set-user-ID bits or file capabilities; set-group-ID bits are \
                 not seen"
                    .to_owned()
            }
            Self::Unknown(why) => (*why).to_owned(),
        }
    }
}

impl Allow {
    /// For one report.
    pub fn of_report(report: &Report) -> Self {
        let subject = report.subject.dockerfile.as_deref();
        let given = (report.subject.executor.as_ref()).and_then(|e| e.given.clone());
        Self {
            image: given.filter(|given| is_image(given)),
            dockerfile: report.subject.dockerfile.clone(),
            ..Self::of(
                subject.unwrap_or("a traced command").to_owned(),
                &report.required,
                &report.unsure,
                [&Brief::of(report)],
            )
        }
    }

    /// For all builds of a matrix; where it has profiles, for those of each.
    pub fn of_matrix(matrix: &Matrix) -> Vec<Self> {
        let unseen = matrix.builds.iter().filter(|b| b.runs.is_empty()).count();
        let of = |subject: String, matrix: &Matrix| {
            let runs = matrix.builds.iter().flat_map(|build| &build.runs);
            let union = &matrix.union;
            let mut allow = Self::of(subject, &union.required, &union.unsure, runs);
            if unseen > 0 {
                let text =
                    format!("{unseen} Dockerfiles were not built: what they need is not here");
                allow.warnings.push(text);
            }
            allow
        };
        if matrix.profiles.is_empty() {
            return vec![of(format!("{} Dockerfiles", matrix.builds.len()), matrix)];
        }
        (matrix.profiles.iter().enumerate())
            .map(|(at, profile)| {
                let names: BTreeSet<&String> = profile.dockerfiles.iter().collect();
                let builds = matrix
                    .builds
                    .iter()
                    .filter(|b| names.contains(&b.dockerfile));
                let few: Vec<&str> = (profile.dockerfiles.iter().take(3))
                    .map(String::as_str)
                    .collect();
                let more = if profile.dockerfiles.len() > few.len() {
                    ", …"
                } else {
                    ""
                };
                let all = profile.dockerfiles.len();
                let s = if all == 1 { "" } else { "s" };
                let subject = format!(
                    "profile {}, {all} Dockerfile{s}: {}{more}",
                    at + 1,
                    few.join(", ")
                );
                Self {
                    profile: Some(at + 1),
                    ..of(subject, &Matrix::of(builds.cloned().collect()))
                }
            })
            .collect()
    }

    fn of<'a>(
        subject: String,
        required: &[Cap],
        unsure: &[Cap],
        runs: impl IntoIterator<Item = &'a Brief>,
    ) -> Self {
        let runs: Vec<&Brief> = runs.into_iter().collect();
        let (add, nameless): (Vec<Cap>, Vec<Cap>) =
            required.iter().partition(|cap| cap.name().is_some());
        let mut warnings = Vec::new();
        if runs.iter().any(|run| !run.complete) {
            warnings.push("INCOMPLETE: something was lost, and more may be needed".to_owned());
        }
        let failed = runs.iter().filter(|run| !run.built()).count();
        if failed > 0 {
            warnings.push(match runs.len() {
                1 => "the build did not succeed: what it needs beyond was not seen".to_owned(),
                all => format!("{failed} of {all} builds did not succeed: more may be needed"),
            });
        }
        if runs.iter().any(|run| run.late) {
            let text = "traced from when it was running: what came before was not seen";
            warnings.push(text.to_owned());
        }
        if runs.iter().any(|run| run.coverage.cached > 0) {
            let text = "instructions were answered from a cache: what those need was not seen";
            warnings.push(text.to_owned());
        }
        let hidden: BTreeSet<Cap> = (runs.iter().flat_map(|run| &run.suppressed))
            .filter(|cap| !required.contains(cap))
            .copied()
            .collect();
        for cap in hidden {
            warnings.push(format!(
                "{cap} beside, on hosts whose settings do not allow without asking what the traced \
                 one's do"
            ));
        }
        for cap in nameless {
            warnings.push(format!(
                "capability {cap} has no name that is known here, and is left out: add it by the \
                 name that the kernel has for it"
            ));
        }
        Self {
            subject,
            profile: None,
            dockerfile: None,
            image: None,
            unsure: unsure
                .iter()
                .filter(|cap| add.contains(cap))
                .copied()
                .collect(),
            add,
            warnings,
            escalation: escalation(&runs),
            filtered: !runs.is_empty() && runs.iter().all(|run| run.seccomp == "filter"),
        }
    }

    /// The lines that say what this is, safe to show.
    fn comments(&self) -> Vec<String> {
        // A path is known by its end, a profile by its number.
        let most = COMMENT - 40;
        let subject = match self.profile {
            Some(_) => head(&self.subject, most),
            None => tail(&self.subject, most),
        };
        let mut lines = vec![format!(
            "kcap {}: what is needed by {subject}",
            env!("CARGO_PKG_VERSION")
        )];
        lines.extend(self.warnings.iter().map(|text| head(text, COMMENT)));
        lines
    }

    /// What `allowPrivilegeEscalation` has to be in a pod, and why, safe to show: beside SYS_ADMIN
    /// Kubernetes takes it for true, and refuses false.
    fn escalates_in_pod(&self) -> (bool, String) {
        if self.escalation == Escalation::NotSeen && self.add.contains(&Cap::SYS_ADMIN) {
            return (true, "Kubernetes refuses false beside SYS_ADMIN".to_owned());
        }
        (self.escalation.allow(), self.escalation.why())
    }

    /// A name, of several profiles one each.
    fn named(&self, name: &str) -> String {
        match self.profile {
            Some(number) => format!("{name}-{number}"),
            None => name.to_owned(),
        }
    }

    /// One run cannot settle it.
    fn is_unsure(&self, cap: Cap) -> bool {
        self.unsure.contains(&cap)
    }
}

fn escalation(runs: &[&Brief]) -> Escalation {
    for run in runs {
        if let Some(gain) = run.gains.iter().flatten().next() {
            let line = run.place(gain.step).and_then(|step| step.line);
            let line = line.map_or_else(String::new, |line| format!(" in line {line}"));
            let program = gain.program.as_deref().unwrap_or("a program");
            let of = match (runs.len(), &run.dockerfile) {
                (2.., Some(dockerfile)) => format!(" of {}", tail(dockerfile, 40)),
                _ => String::new(),
            };
            return Escalation::Needed(format!("{}{line}{of}", tail(program, 60)));
        }
    }
    if runs.iter().any(|run| run.gains.is_none()) {
        Escalation::Unknown("the report does not say whether programs gain by their files")
    } else if runs.is_empty()
        || runs
            .iter()
            .any(|run| !run.complete || !run.built() || run.late)
    {
        Escalation::Unknown("not all was seen: programs may gain by their files")
    } else {
        Escalation::NotSeen
    }
}

/// An image's name, and no path of an executor.
fn is_image(given: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./:@_-".contains(c);
    !given.starts_with(['/', '.', '-']) && given.contains('/') && given.chars().all(plain)
}

/// Comment lines that begin with `#`.
fn commented(lines: &[String], indent: &str, to: &mut dyn Write) -> io::Result<()> {
    lines
        .iter()
        .try_for_each(|line| writeln!(to, "{indent}# {}", shown(line)))
}

/// A string in YAML or TOML, whatever is in it: quoted, with what is not plain escaped in a way that
/// both read alike.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let code = u32::from(c);
        let is_unsafe = escape::is_unsafe(c) || (0xfdd0..=0xfdef).contains(&code);
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            _ if is_unsafe && code > 0xffff => out += &format!("\\U{code:08x}"),
            _ if is_unsafe || matches!(code, 0xfffe | 0xffff) => {
                out += &format!("\\u{code:04x}");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Arguments of the executor for a build of the Dockerfile, quoted.
fn arguments(allow: &Allow) -> Vec<String> {
    let dockerfile = allow.dockerfile.as_deref().unwrap_or("Dockerfile");
    vec![
        quoted(&format!("--dockerfile={dockerfile}")),
        quoted(&format!("--context=dir://{CONTEXT}")),
        quoted("--no-push"),
    ]
}

/// The executor's image, quoted.
fn image(allow: &Allow) -> String {
    quoted(allow.image.as_deref().unwrap_or(IMAGE))
}

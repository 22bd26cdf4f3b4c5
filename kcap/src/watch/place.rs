//! Where a report goes: `TENANT/PROJECT/DOCKERFILE/TIME-COMMIT-ID.json`. The tenant is the pod's
//! namespace, which the cluster vouches for; all else may be the build's own word, and stays below it.

use crate::report::Report;

/// Longest part of a name, in bytes.
const PART: usize = 80;
/// Most folders that a project or a Dockerfile's path make.
const DEPTH: usize = 6;
/// Tenant of builds outside any pod.
pub const HOST: &str = "host";
/// Longest name of a namespace.
const NAMESPACE: usize = 63;
/// Project of builds that do not say.
const UNKNOWN: &str = "unknown";

/// The name of a report, of a session with this number.
pub fn name(report: &Report, session: u64) -> String {
    let identity = report.subject.identity.as_ref();
    let tenant = identity.and_then(|i| i.namespace.as_deref());
    let project = identity.and_then(|i| i.project.as_deref());
    let commit = identity.and_then(|i| i.commit.as_deref());
    let container = identity.and_then(|i| i.container.as_deref());
    let dockerfile = report.subject.dockerfile.as_deref();
    let mut parts = vec![tenant.map_or_else(|| HOST.to_owned(), self::tenant)];
    parts.extend(folders(project.unwrap_or(UNKNOWN)));
    parts.extend(folders(dockerfile.unwrap_or("no-dockerfile")));
    // `2026-11-28T06:37:31.123Z` to `20261128T063731.123Z`.
    let time: String = (report.subject.started.chars())
        .filter(|c| !matches!(c, '-' | ':'))
        .collect();
    let commit: String = part(commit.unwrap_or("nocommit"))
        .chars()
        .take(12)
        .collect();
    let id = match container {
        Some(id) => part(id).chars().take(12).collect(),
        None => "nocontainer".to_owned(),
    };
    // Several sessions can be of one container and one moment.
    parts.push(format!("{}-{commit}-{id}-{session:x}.json", part(&time)));
    parts.join("/")
}

/// A namespace's folder: its name, and no other namespace's, nor that of builds outside any pod.
fn tenant(namespace: &str) -> String {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if namespace.len() <= NAMESPACE && namespace.bytes().all(is_name) && namespace != HOST {
        return part(namespace);
    }
    // No namespace's name has this in it.
    format!("_{}", part(namespace))
}

/// Whether a file is called as a report, or its capture.
pub fn is_name(file: &str) -> bool {
    let Some((stem, "json" | "kcap")) = file.rsplit_once('.') else {
        return false;
    };
    let time = stem.split('-').next().unwrap_or_default();
    let is_time = time.len() == "20261128T063731.123Z".len()
        && time.ends_with('Z')
        && time.as_bytes().get(8) == Some(&b'T');
    is_time && stem.matches('-').count() >= 3
}

fn folders(path: &str) -> Vec<String> {
    let parts: Vec<String> = (path.split('/'))
        .filter(|part| !part.is_empty() && *part != ".")
        .map(part)
        .collect();
    let from = parts.len().saturating_sub(DEPTH);
    match &parts[from..] {
        [] => vec!["-".to_owned()],
        last => last.to_vec(),
    }
}

/// A part of a path: no separator, nothing hidden, and not `..`.
fn part(text: &str) -> String {
    let mut part: String = (text.chars())
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '-',
        })
        .take(PART)
        .collect();
    if part.is_empty() || part.starts_with('.') {
        part.insert(0, '_');
    }
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        capture::{Capture, Identity},
        interpret::interpret,
        watch::identity,
    };

    fn report(identity: Identity, dockerfile: &str) -> Report {
        let mut capture = Capture::default();
        capture.subject.identity = Some(identity);
        capture.subject.dockerfile = Some(dockerfile.to_owned());
        capture.subject.started = "2026-11-28T06:37:31.123Z".to_owned();
        interpret(&capture)
    }

    #[test]
    fn a_report_is_found_by_tenant_project_dockerfile_and_commit() {
        let identity = Identity {
            namespace: Some("team-a".into()),
            project: Some("group/app".into()),
            commit: Some("0123456789abcdef0123".into()),
            container: Some("ab12".repeat(16)),
            ..Identity::default()
        };
        assert_eq!(
            name(&report(identity, "/workspace/Dockerfile"), 42),
            "team-a/group/app/workspace/Dockerfile/20261128T063731.123Z-0123456789ab-ab12ab12ab12-2a.json"
        );
        let plain = name(&report(Identity::default(), "Dockerfile"), 1);
        assert!(is_name(plain.rsplit('/').next().unwrap()));
        for other in [
            "package.json",
            "20261128T063731.123Z.json",
            "a-b-c-d.json",
            ".json",
        ] {
            assert!(!is_name(other), "{other}");
        }
        assert_eq!(
            plain,
            "host/unknown/Dockerfile/20261128T063731.123Z-nocommit-nocontainer-1.json"
        );
    }

    #[test]
    fn no_two_tenants_share_a_folder() {
        let of = |namespace: &str| {
            let identity = Identity {
                namespace: Some(namespace.into()),
                ..Identity::default()
            };
            name(&report(identity, "Dockerfile"), 1)
        };
        assert!(of("team-a").starts_with("team-a/"));
        // Builds outside any pod are not those of a namespace that is called so.
        assert!(of(HOST).starts_with("_host/"));
        assert!(of("Team/../host").starts_with("_Team-..-host/"));
        assert!(of("_").starts_with("__/"));
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_its_tenants_folder(
            project in ".{0,200}", dockerfile in ".{0,200}", commit in ".{0,60}", container in ".{0,80}",
            namespace in proptest::option::of("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
        ) {
            let identity = Identity {
                namespace: namespace.clone(),
                project: Some(project),
                commit: Some(commit),
                container: Some(container),
                ..Identity::default()
            };
            let tenant = match namespace.as_deref() {
                None => "host",
                Some("host") => "_host",
                Some(name) => name,
            };
            let name = name(&report(identity, &dockerfile), 7);
            prop_assert_eq!(name.split('/').next(), Some(tenant));
            is_safe(&name)?;
        }

        #[test]
        fn any_namespace_at_all_is_a_folder(namespace in ".{0,100}") {
            let identity = Identity {
                namespace: Some(namespace),
                ..Identity::default()
            };
            is_safe(&name(&report(identity, "Dockerfile"), 7))?;
        }

        /// Whatever the build says in its environment, and where.
        #[test]
        fn no_environment_makes_a_tenant(values in proptest::collection::vec(".{0,60}", 16), dockerfile in ".{0,200}") {
            let mut identity = Identity {
                namespace: Some("team-a".into()),
                ..Identity::default()
            };
            let variables = identity::variables().into_iter().zip(values).collect();
            identity::claim(&mut identity, &variables);
            prop_assert_eq!(identity.namespace.as_deref(), Some("team-a"));
            prop_assert!(name(&report(identity, &dockerfile), 7).starts_with("team-a/"));
        }
    }

    fn is_safe(name: &str) -> Result<(), TestCaseError> {
        prop_assert!(name.len() < 2000);
        for part in name.split('/') {
            prop_assert!(
                !part.is_empty() && part.len() < 255 && !part.starts_with('.'),
                "{}",
                name
            );
            prop_assert!(
                part.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
                "{}",
                name
            );
        }
        Ok(())
    }
}

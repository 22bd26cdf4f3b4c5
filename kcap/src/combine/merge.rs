//! Runs from any number of places to one row a Dockerfile. What comes out depends on the set of
//! runs alone: not on their order, nor on how they were merged before, nor on how often one was
//! given.

use std::collections::{BTreeMap, BTreeSet};

use super::{Brief, Build, Status};
use crate::report::Report;

/// Characters of a SHA-256 that tell Dockerfiles of the same path apart.
const SHORT: usize = 8;

/// What makes two runs runs of the same Dockerfile.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Its path and its bytes.
    File(String, String),
    /// The name that it was given, where one of them is not known.
    Name(String),
}

#[derive(Default)]
struct Row {
    runs: BTreeSet<Brief>,
    /// The report of the last run, if it is kept.
    report: Option<(Brief, Report)>,
}

/// Puts runs of the same Dockerfile (same path, same bytes) into one build, by name. Where nothing
/// was seen of a Dockerfile in one place and something in another, the latter holds.
pub fn merge(builds: impl IntoIterator<Item = Build>) -> Vec<Build> {
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    let mut unseen: BTreeMap<String, (Status, Option<String>)> = BTreeMap::new();
    for build in builds {
        let build = build.with_runs_of_report();
        if build.runs.is_empty() {
            let why = (build.status, build.error);
            let known = unseen
                .entry(build.dockerfile)
                .or_insert_with(|| why.clone());
            if why > *known {
                *known = why;
            }
            continue;
        }
        if let Some(report) = build.report {
            let brief = Brief::of(&report);
            let row = rows.entry(key(&brief, &build.dockerfile)).or_default();
            if row.report.as_ref().is_none_or(|(last, _)| *last < brief) {
                row.report = Some((brief, report));
            }
        }
        for run in build.runs {
            let row = rows.entry(key(&run, &build.dockerfile)).or_default();
            row.runs.insert(run);
        }
    }
    let names = names(rows.keys());
    let paths: BTreeSet<&String> = (rows.keys())
        .map(|key| match key {
            Key::File(path, _) | Key::Name(path) => path,
        })
        .collect();
    unseen.retain(|name, _| !paths.contains(name));

    let mut builds: Vec<Build> = (rows.into_values().zip(names))
        .map(|(row, name)| Build {
            report: row.report.map(|(_, report)| report),
            ..Build::reduced(name, row.runs.into_iter().collect())
        })
        .collect();
    builds.extend(
        unseen
            .into_iter()
            .map(|(dockerfile, (status, error))| Build {
                status,
                error,
                ..Build::reduced(dockerfile, vec![])
            }),
    );
    builds.sort_by(|a, b| a.dockerfile.cmp(&b.dockerfile));
    builds
}

fn key(run: &Brief, name: &str) -> Key {
    match (&run.dockerfile, &run.dockerfile_sha256) {
        (Some(path), Some(sha)) => Key::File(path.clone(), sha.clone()),
        _ => Key::Name(name.to_owned()),
    }
}

/// A name for each, in their order: the path, and where that is taken the start of the hash too.
fn names<'a>(keys: impl Iterator<Item = &'a Key> + Clone) -> Vec<String> {
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    for key in keys.clone() {
        let (Key::File(name, _) | Key::Name(name)) = key;
        *taken.entry(name).or_default() += 1;
    }
    let mut names: Vec<String> = keys
        .clone()
        .map(|key| match key {
            Key::File(path, sha) if taken[path.as_str()] > 1 => {
                let short: String = sha.chars().take(SHORT).collect();
                format!("{path}@{short}")
            }
            Key::File(name, _) | Key::Name(name) => name.clone(),
        })
        .collect();
    // Made-up hashes can begin alike, and a path can look like another with a hash.
    let distinct: BTreeSet<&String> = names.iter().collect();
    if distinct.len() < names.len() {
        names = keys
            .map(|key| match key {
                Key::File(path, sha) => format!("{path}@{sha}"),
                Key::Name(name) => name.clone(),
            })
            .collect();
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::combine::{Matrix, from_json};
    use crate::interpret::{arbitrary, interpret};

    fn run(path: Option<&str>, sha: Option<&str>, day: &str) -> Brief {
        let mut report = interpret(&crate::capture::Capture::default());
        report.subject.exit_status = Some(0);
        report.subject.dockerfile = path.map(str::to_owned);
        report.subject.dockerfile_sha256 = sha.map(str::to_owned);
        report.subject.started = format!("{day}T00:00:00Z");
        Brief::of(&report)
    }

    fn named(builds: &[Build]) -> Vec<(&str, usize)> {
        (builds.iter())
            .map(|build| (build.dockerfile.as_str(), build.runs.len()))
            .collect()
    }

    #[test]
    fn runs_of_the_same_bytes_at_the_same_path_are_one_row() {
        let file = |sha, day| run(Some("a/Dockerfile"), Some(sha), day);
        let build = |name: &str, run| Build::reduced(name.to_owned(), vec![run]);
        let builds = merge([
            build("1.json", file("11112222333", "2026-11-02")),
            build("2.json", file("11112222333", "2026-11-01")),
            build("3.json", run(None, None, "2026-11-01")),
            // The same report twice is one run.
            build("4.json", file("11112222333", "2026-11-01")),
        ]);
        assert_eq!(named(&builds), [("3.json", 1), ("a/Dockerfile", 2)]);
        assert_eq!(builds[1].runs[0].day(), "2026-11-01");
        // Another Dockerfile under the same path gets a name of its own, and so does the first.
        let builds = merge(
            builds
                .into_iter()
                .chain([build("5", file("4444555566", ""))]),
        );
        assert_eq!(
            named(&builds),
            [
                ("3.json", 1),
                ("a/Dockerfile@11112222", 2),
                ("a/Dockerfile@44445555", 1)
            ]
        );
    }

    #[test]
    fn what_was_seen_anywhere_holds() {
        let unseen = Build::unseen("a".into(), Status::Error, "no such file".into());
        let seen = Build::reduced("x.json".into(), vec![run(Some("a"), Some("12"), "")]);
        assert_eq!(merge([unseen.clone()])[0].status, Status::Error);
        let both = merge([seen.clone(), unseen.clone()]);
        assert_eq!((both.len(), both[0].status), (1, Status::Built));
        assert_eq!(merge([unseen, seen]), both);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_order_and_grouping_give_the_same(
            captures in vec((arbitrary::capture(), 0u8..3, 0u8..3, 0u8..3, any::<bool>()), 0..7),
            order in vec(any::<Index>(), 7),
            cuts in vec(any::<Index>(), 2),
            most in 1usize..4,
        ) {
            let builds: Vec<Build> = captures.iter().map(|(capture, path, sha, day, keep)| {
                let mut report = interpret(capture);
                report.subject.dockerfile = (*path > 0).then(|| format!("{path}/Dockerfile"));
                report.subject.dockerfile_sha256 = (*sha > 0).then(|| format!("{sha}").repeat(64));
                report.subject.started = format!("2026-11-0{day}T00:00:00Z");
                match (keep, day) {
                    (true, _) => Build::traced(format!("{path}{sha}"), report),
                    // Some of what was seen elsewhere.
                    (false, 0) => {
                        Build::unseen(format!("{path}/Dockerfile"), Status::Error, format!("{sha}"))
                    }
                    (false, _) => {
                        Build::reduced(format!("{path}{sha}"), vec![Brief::of(&report)])
                    }
                }
            }).collect();
            let most = std::num::NonZeroUsize::new(most).unwrap();
            let matrix = |builds: Vec<Build>| Matrix::of(merge(builds)).with_profiles(most);
            let all = matrix(builds.clone());

            let mut shuffled = builds.clone();
            for (i, with) in order.iter().enumerate().take(builds.len()) {
                let with = with.index(builds.len());
                shuffled.swap(i, with);
            }
            prop_assert_eq!(&matrix(shuffled.clone()), &all);

            // Merged in groups, each written and read on the way, and then together.
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(shuffled.len() + 1)).collect();
            at.sort_unstable();
            let groups = [&shuffled[..at[0]], &shuffled[at[0]..at[1]], &shuffled[at[1]..]];
            for keep in [true, false] {
                let mut grouped = vec![];
                for group in groups {
                    let text = serde_json::to_string(&matrix(group.to_vec())).unwrap();
                    let read = from_json(text.as_bytes(), keep).unwrap();
                    grouped.extend(read.unwrap().builds);
                }
                // Without the reports, all else is the same.
                let mut wanted = all.clone();
                if !keep {
                    wanted.builds.iter_mut().for_each(|build| build.report = None);
                }
                prop_assert_eq!(&matrix(grouped), &wanted);
            }
            // What was merged stays as it is.
            prop_assert_eq!(&matrix(all.builds.clone()), &all);
        }
    }
}

//! Everything that kcap writes about reports, matrices and checks, and what must hold of it.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;

use clap::ValueEnum as _;
use kcap::combine::check::{Check, Policy, against_baseline, against_policy};
use kcap::combine::{self, Build, Matrix, merge};
use kcap::explain::explain;
use kcap::render::{self, CheckFormat, Format, PlainFormat, Style, Wrap};
use kcap::report::{self, Cap, Report};

/// What a terminal or a reader may be misled by, newlines apart. Not kcap's own list, so that a gap in
/// that one is seen.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// What was written, as text that is safe to show; twice the same.
pub fn text(what: &str, write: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
    let once = || {
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap_or_else(|e| panic!("{what} cannot be written: {e}"));
        bytes
    };
    let bytes = once();
    assert!(bytes == once(), "{what}: twice is not the same");
    let text = String::from_utf8(bytes).unwrap_or_else(|e| panic!("{what} is no text: {e}"));
    let odd = text.chars().find(|c| is_unsafe(*c));
    assert_eq!(odd, None, "{what} lets a character through: {text:?}");
    text
}

/// The line that an error becomes.
pub fn error(e: &dyn std::fmt::Display) {
    // `kcap` escapes and cuts it; here only that it can be made, and is no book.
    let line = format!("{e:#}");
    assert!(!line.is_empty() && line.len() < 1 << 20, "{line}");
}

fn formats() -> impl Iterator<Item = Format> {
    let pod = Format::Kubernetes.wrapped(Some(Wrap::Pod));
    Format::value_variants().iter().copied().chain(pod)
}

fn named(caps: &[Cap]) -> BTreeSet<Cap> {
    let named = caps.iter().filter(|cap| cap.name().is_some());
    named.copied().collect()
}

/// One report, in every format.
pub fn report(report: &Report) {
    for format in formats() {
        // A statement is about a Dockerfile, and refused where none is known.
        if format == Format::InToto && report.subject.dockerfile_sha256.is_none() {
            continue;
        }
        let what = format!("{format:?} of a report");
        let text = text(&what, |to| {
            render::write(report, format, Style::default(), to)
        });
        match format {
            Format::Json => {
                let read = report::from_json(text.as_bytes()).expect("kcap reads what it wrote");
                assert_eq!(&read, report, "a report read again");
            }
            Format::Oci | Format::InToto => {
                serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON");
            }
            Format::Kubernetes => {
                let policy = Policy::of_text("x", &text, None).expect("it is a container's YAML");
                assert_eq!(
                    policy.allowed,
                    named(&report.required),
                    "what is pasted\n{text}"
                );
            }
            _ => {}
        }
    }
    let asked = report.capabilities.iter().map(|capability| capability.name);
    for cap in asked.take(64).chain([Cap::CHOWN]) {
        let why = explain(report, cap);
        for format in [PlainFormat::Table, PlainFormat::Json, PlainFormat::Markdown] {
            text("why", |to| {
                render::write_why(&why, format, Style::default(), to)
            });
        }
    }
}

/// Several builds, in every format and against policies.
pub fn builds(builds: Vec<Build>) {
    let builds = merge(builds);
    assert_eq!(merge(builds.clone()), builds, "merging what is merged");
    let matrix = Matrix::of(builds.clone());
    let union: BTreeSet<Cap> = matrix.union.required.iter().copied().collect();
    let needs = || {
        builds
            .iter()
            .flat_map(|b| &b.runs)
            .flat_map(|run| &run.needs)
    };
    for need in needs() {
        assert!(
            !union.is_disjoint(&need.any_of),
            "{need:?} is not answered by {union:?}"
        );
    }
    let mut reports = builds.iter().filter_map(|build| build.report.as_ref());
    let stated = reports.all(|report| report.subject.dockerfile_sha256.is_some());
    for format in formats().filter(|format| stated || *format != Format::InToto) {
        let what = format!("{format:?} of a matrix");
        let text = text(&what, |to| {
            render::write_matrix(&matrix, format, Style::default(), to)
        });
        if format == Format::Json {
            let read = combine::from_json(text.as_bytes(), true);
            let read = read
                .expect("kcap reads what it wrote")
                .expect("it is a matrix");
            assert_eq!(read, matrix, "a matrix read again");
        }
    }
    let most = NonZeroUsize::new(2).expect("it is not 0");
    let grouped = matrix.with_profiles(most);
    assert!(grouped.profiles.len() <= 2);
    let in_profiles: usize = grouped.profiles.iter().map(|p| p.dockerfiles.len()).sum();
    let with_runs = builds.iter().filter(|build| !build.runs.is_empty()).count();
    assert_eq!(in_profiles, with_runs, "each in one profile");
    for format in [Format::Table, Format::Json, Format::Kyverno] {
        text("profiles", |to| {
            render::write_matrix(&grouped, format, Style::default(), to)
        });
    }

    let names: Vec<String> = union.iter().map(ToString::to_string).collect();
    // A number beyond those known is no name of a policy's.
    if union.iter().all(|cap| cap.name().is_some()) {
        let enough = Policy::of_names("union", names.iter().map(String::as_str));
        let found = against_policy(&enough.expect("these are names"), &builds, true);
        assert!(found.pass, "the union is not enough: {:?}", found.over);
        check(&found);
    }
    let nothing = Policy::of_names("nothing", []).expect("nothing is a list");
    let found = against_policy(&nothing, &builds, true);
    assert_eq!(found.pass, needs().next().is_none());
    check(&found);
    let found = against_baseline("itself", &builds, &builds, true);
    assert!(found.pass && found.went.is_empty() && found.added.is_empty() && found.gone.is_empty());
    check(&found);
}

/// A check, in every format.
pub fn check(check: &Check) {
    for format in CheckFormat::value_variants() {
        let what = format!("{format:?} of a check");
        let text = text(&what, |to| {
            render::write_check(check, *format, Style::default(), to)
        });
        match format {
            CheckFormat::Json => {
                let read: Check = serde_json::from_str(&text).expect("kcap reads what it wrote");
                assert_eq!(&read, check, "a check read again");
            }
            CheckFormat::Sarif => {
                serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON");
            }
            CheckFormat::Junit => {
                if let Err(e) = roxmltree::Document::parse(&text) {
                    panic!("JUnit is no XML: {e}\n{text}");
                }
            }
            _ => {}
        }
    }
}

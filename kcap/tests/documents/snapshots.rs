//! What kcap renders of captures of real builds, byte for byte. Where it is meant to change, write the
//! files below `snapshots/` again: `SNAPSHOTS=overwrite cargo test -p kcap --test documents snapshots`,
//! and look at what changed.

use std::path::PathBuf;

use clap::ValueEnum as _;
use kcap::{
    combine::{self, Matrix},
    explain::{Kept, explain, explain_many},
    render::{self, Format, PlainFormat, Style, Wrap},
    report::{self, Cap, Report},
};
use snapbox::{Assert, Data, assert::DEFAULT_ACTION_ENV};

use crate::corpus;

/// Few, small, and each for something.
const NAMES: [(&str, &str); 5] = [
    ("chown-run", "little is needed"),
    ("copy-chown", "the executor's own work"),
    ("missing-file", "it fails"),
    ("useradd", "unsure"),
    ("ping-as-user", "file capabilities"),
];
/// Those of which JSON is kept too: it is long.
const WHOLE: [&str; 1] = ["chown-run"];
const PLAIN: Style = Style { color: false };

/// Every format with the ending of its files, but the page, which has tests of its own.
fn formats() -> Vec<(Format, &'static str)> {
    let wrapped = Format::Kubernetes
        .wrapped(Some(Wrap::Pod))
        .expect("it can be");
    let mut formats = vec![(wrapped, "pod.yaml")];
    for format in Format::value_variants() {
        let name = format.to_possible_value().expect("none is skipped");
        formats.push((
            *format,
            match name.get_name() {
                "html" => continue,
                "table" => "txt",
                "json" => "json",
                "markdown" => "md",
                "in-toto" => "in-toto.json",
                "docker" => "docker.txt",
                "podman" => "podman.txt",
                "kubernetes" => "kubernetes.yaml",
                "tekton" => "tekton.yaml",
                "gitlab" => "gitlab.toml",
                "kyverno" => "kyverno.yaml",
                "openshift" => "openshift.yaml",
                "oci" => "oci.json",
                other => panic!("{other}: what do its files end with?"),
            },
        ));
    }
    formats
}

fn of_report(report: &Report, format: Format) -> Vec<u8> {
    let mut out = vec![];
    render::write(report, format, PLAIN, &mut out).expect("no error");
    out
}

fn of_matrix(matrix: &Matrix, format: Format) -> Vec<u8> {
    let mut out = vec![];
    render::write_matrix(matrix, format, PLAIN, &mut out).expect("no error");
    out
}

/// Byte for byte: nothing is normalised.
#[track_caller]
fn is(name: &str, bytes: Vec<u8>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/documents/snapshots")
        .join(name);
    let expected = Data::read_from(&path, Some(snapbox::data::DataFormat::Text)).raw();
    let text = String::from_utf8(bytes).expect("it is text");
    Assert::new()
        .action_env(DEFAULT_ACTION_ENV)
        .eq(Data::text(text).raw(), expected);
}

#[test]
fn reports_of_real_builds() {
    for (name, _) in NAMES {
        let report = corpus::report(name);
        for (format, ending) in formats() {
            let long = matches!(format, Format::Json | Format::InToto);
            if !long || WHOLE.contains(&name) {
                is(&format!("{name}.{ending}"), of_report(&report, format));
            }
        }
    }
}

#[test]
fn several_real_builds_together() {
    let names: Vec<String> = NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let five = corpus::matrix(&names).with_profiles(2.try_into().expect("not 0"));
    for (format, ending) in formats() {
        // The one is reports one after the other, the other is as long.
        if !matches!(format, Format::InToto | Format::Json) {
            is(&format!("five.{ending}"), of_matrix(&five, format));
        }
    }
    let mut briefs = corpus::matrix(&names[..2]);
    for build in &mut briefs.builds {
        build.report = None;
    }
    is("two.json", of_matrix(&briefs, Format::Json));
    let all = corpus::matrix(&corpus::names());
    is("all.txt", of_matrix(&all, Format::Table));
    is("all.md", of_matrix(&all, Format::Markdown));
}

#[test]
fn one_capability_explained() {
    let names: Vec<String> = NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let report = corpus::report("useradd");
    let kept = (names.iter().map(|name| corpus::report(name)))
        .map(|report| (combine::Brief::of(&report), Kept::of(&report, Cap::CHOWN)));
    let many = explain_many(&corpus::matrix(&names), &kept.collect(), Cap::CHOWN);
    let one = explain(&report, Cap::CHOWN);
    for (format, ending) in [
        (PlainFormat::Table, "txt"),
        (PlainFormat::Markdown, "md"),
        (PlainFormat::Json, "json"),
    ] {
        let mut out = vec![];
        render::write_why(&one, format, PLAIN, &mut out).expect("no error");
        is(&format!("why.{ending}"), out);
        let mut out = vec![];
        render::write_why_many(&many, format, PLAIN, &mut out).expect("no error");
        is(&format!("why-many.{ending}"), out);
    }
}

/// A report that was written and read is the same report, in every format.
#[test]
fn twice_and_by_way_of_json_gives_the_same_bytes() {
    for name in corpus::names() {
        let report = corpus::report(&name);
        let json = of_report(&report, Format::Json);
        let again = report::from_json(&json).expect("it is a report");
        for (format, ending) in formats() {
            let bytes = of_report(&report, format);
            assert!(bytes == of_report(&report, format), "{name}.{ending}");
            assert!(
                bytes == of_report(&again, format),
                "{name}.{ending}, read again"
            );
        }
    }
    let all = corpus::matrix(&corpus::names()).with_profiles(3.try_into().expect("not 0"));
    let json = of_matrix(&all, Format::Json);
    let again = combine::from_json(&json, true).expect("no error");
    let again = again.expect("it is a matrix");
    for (format, ending) in formats() {
        let bytes = of_matrix(&all, format);
        assert!(bytes == of_matrix(&all, format), "{ending}");
        assert!(bytes == of_matrix(&again, format), "{ending}, read again");
    }
}

#[test]
fn snapshots_are_small() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/documents/snapshots");
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).expect("they are there") {
        bytes += entry
            .expect("it can be read")
            .metadata()
            .expect("it can")
            .len();
    }
    assert!(bytes < 400 << 10, "{bytes} bytes of snapshots");
}

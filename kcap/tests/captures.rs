//! The corpus without a Kaniko: what was recorded of real builds, interpreted, and held against what
//! replays found each build to need. `cargo xtask captures` records, `cargo xtask truth` replays.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::PathBuf,
};

use kcap::{
    capture::{self, Capture},
    interpret::interpret,
    render::{self, Format},
    report::{Report, State},
};
use serde_json::Value;

/// A folder of the corpus.
struct Folder {
    name: String,
    capture: Capture,
    report: Report,
    truth: Value,
}

/// All of them; a capture of a format that this kcap does not read fails the test.
fn corpus() -> Vec<Folder> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    let mut all = vec![];
    for entry in fs::read_dir(&root).expect("the corpus is there") {
        let path = entry.expect("a folder can be read").path();
        if !path.join("Dockerfile").is_file() {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let capture = File::open(path.join("capture.kcap")).unwrap_or_else(|e| {
            panic!("{name}: no capture: {e}: run `cargo xtask captures {name}`")
        });
        let capture = capture::read(capture).unwrap_or_else(|e| panic!("{name}: {e}"));
        let truth = fs::read(path.join("truth.json"))
            .unwrap_or_else(|e| panic!("{name}: no truth: {e}: run `cargo xtask truth {name}`"));
        all.push(Folder {
            report: interpret(&capture),
            truth: serde_json::from_slice(&truth).unwrap_or_else(|e| panic!("{name}: {e}")),
            name,
            capture,
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() >= 40, "the corpus has {} folders", all.len());
    all
}

/// The capabilities of a list in a truth: names, or objects that name one.
fn names(list: &Value) -> BTreeSet<String> {
    let of = |item: &Value| {
        let name = item.as_str().or_else(|| item["capability"].as_str());
        name.expect("a list of capabilities").to_owned()
    };
    (list.as_array().into_iter().flatten()).map(of).collect()
}

#[test]
fn nothing_that_a_build_needs_is_left_out() {
    let mut missed = BTreeMap::new();
    let mut needs = 0;
    for folder in corpus() {
        let required: BTreeSet<String> = folder
            .report
            .required
            .iter()
            .map(ToString::to_string)
            .collect();
        let needed = names(&folder.truth["needed"]);
        needs += needed.len();
        let left_out: Vec<String> = needed.difference(&required).cloned().collect();
        if !left_out.is_empty() {
            missed.insert(folder.name, left_out);
        }
    }
    assert!(needs > 0, "no build of the corpus needs anything");
    assert!(
        missed.is_empty(),
        "of {needs} needs these are left out: {missed:?}"
    );
}

#[test]
fn captures_are_complete_and_their_sums_hold() {
    let mut wrong = vec![];
    for Folder {
        name,
        capture,
        report,
        ..
    } in corpus()
    {
        if !report.complete {
            wrong.push(format!("{name}: incomplete: {:?}", report.loss));
        }
        let tallied: u64 = (capture.tallies.iter())
            .filter(|tally| tally.unasked == 0)
            .map(|tally| tally.count)
            .sum();
        let caps: u64 = report.capabilities.iter().map(|cap| cap.checks).sum();
        let steps: u64 = report.steps.iter().map(|step| step.checks).sum();
        if [caps, steps, tallied] != [report.checks; 3] {
            wrong.push(format!(
                "{name}: {} checks, {caps} by capability, {steps} by step, {tallied} recorded",
                report.checks
            ));
        }
        for cap in &report.capabilities {
            let steps: u64 = cap.steps.iter().map(|step| step.checks).sum();
            let evidence: u64 = cap.evidence.iter().map(|evidence| evidence.count).sum();
            if [steps, evidence] != [cap.checks; 2] {
                wrong.push(format!(
                    "{name}: {}: {} {steps} {evidence}",
                    cap.name, cap.checks
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_check_of_a_build_belongs_to_a_step_that_is_known() {
    let mut wrong = vec![];
    for Folder { name, report, .. } in corpus() {
        let lost: Vec<_> = (report.steps.iter())
            .filter(|step| step.kind == "other" && step.checks > 0)
            .map(|step| format!("{} checks: {}", step.checks, step.text))
            .collect();
        if !lost.is_empty() {
            wrong.push(format!("{name}: {lost:?}"));
        }
        let instructions = report.steps.iter().filter(|step| step.line.is_some());
        let ran = instructions.filter(|step| step.state == State::Ran).count();
        if ran == 0 {
            wrong.push(format!("{name}: no instruction ran"));
        }
        let failed = report.subject.exit_status != Some(0);
        if failed == (report.coverage.unreached == 0) && failed {
            // A build may fail in its last instruction.
            let last = report.steps.iter().rfind(|step| step.line.is_some());
            if last.is_none_or(|step| step.state != State::Ran) {
                wrong.push(format!("{name}: failed, and nothing says where"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pages_show_reports_and_their_dockerfiles_as_they_are() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    for (page, name) in [
        ("README.md", "x-php-app"),
        ("docs/report.md", "x-edge-proxy"),
    ] {
        let folder = root.join("corpus").join(name);
        let capture = File::open(folder.join("capture.kcap")).expect("a capture");
        let capture = capture::read(capture).expect("a capture");
        let mut shown = vec![];
        let style = render::Style { color: false };
        render::write(&interpret(&capture), Format::Table, style, &mut shown).expect("no error");
        let shown = String::from_utf8(shown).expect("UTF-8");
        let text = fs::read_to_string(root.join(page)).expect("a page");
        assert!(
            text.contains(shown.trim_end()),
            "put this into {page}:\n{shown}"
        );
        let dockerfile = fs::read_to_string(folder.join("Dockerfile")).expect("a Dockerfile");
        assert!(
            text.contains(dockerfile.trim_end()),
            "{page} shows another Dockerfile"
        );
    }
}

#[test]
fn captures_by_an_older_kernel_side_are_marked() {
    let newest = kcap_common::abi::ABI_VERSION;
    let mut older: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for folder in corpus() {
        let abi = folder.capture.tool.abi;
        assert!(abi <= newest, "{}: recorded by a newer kcap", folder.name);
        if abi < newest {
            older.entry(abi).or_default().push(folder.name);
        }
    }
    for (abi, names) in older {
        println!(
            "recorded by an older kernel side (ABI {abi} of {newest}): {}",
            names.join(" ")
        );
    }
}

//! Reports that older versions wrote, and matrices without what was added to them since, are read as
//! what they said.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::combine::merge;
use crate::interpret::interpret;
use crate::render::{self, Format, Style};
use crate::report::Cap;

/// The report, and what it required.
const REPORTS: [(&str, &[Cap]); 3] = [
    ("be75348", &[Cap::CHOWN, Cap::FOWNER, Cap::SYS_ADMIN]),
    ("b9b907b", &[Cap::CHOWN, Cap::FOWNER]),
    ("c9bbd03", &[Cap::CHOWN, Cap::FOWNER]),
];
/// All of the same capture.
const CHECKS: u64 = 348;

fn path(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports");
    tests.join(format!("{name}.json"))
}

#[test]
fn reports_of_older_versions_say_what_they_said() {
    for (name, required) in REPORTS {
        let report = report(&path(name)).unwrap();
        assert_eq!(report.required, required, "{name}");
        assert_eq!(report.checks, CHECKS, "{name}");
        assert_eq!(report.subject.exit_status, Some(0));
        for format in [Format::Table, Format::Json, Format::Kubernetes] {
            let mut text = Vec::new();
            render::write(&report, format, Style::default(), &mut text).unwrap();
            assert!(!text.is_empty());
            if format == Format::Json {
                assert_eq!(report::from_json(&text).unwrap(), report, "{name}");
            }
        }
        // What was not looked at then is not taken for nothing.
        let looked = name == "c9bbd03";
        assert_eq!(report.privilege_gains.is_some(), looked, "{name}");
    }
}

#[test]
fn older_reports_are_merged_with_those_of_today() {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/chown-run/capture.kcap");
    for keep in [Keep::Briefs, Keep::Reports] {
        let mut files: Vec<PathBuf> = REPORTS.iter().map(|(name, _)| path(name)).collect();
        files.push(capture.clone());
        let builds = merge(builds(&files, keep).unwrap().builds);
        // The same Dockerfile, the first version's capture at the same moment as the others.
        assert_eq!(builds.len(), 1);
        let union = Matrix::of(builds).union.required;
        assert_eq!(union, [Cap::CHOWN, Cap::FOWNER, Cap::SYS_ADMIN]);
    }
}

#[test]
fn a_matrix_of_the_first_version_is_read() {
    let report = interpret(&capture::Capture::default());
    let matrix = Matrix::of(vec![Build::traced("a".into(), report)]);
    let mut value = serde_json::to_value(&matrix).unwrap();
    // What 5d608ff, the first to write one, did not have.
    value.as_object_mut().unwrap().remove("savings");
    for build in value["builds"].as_array_mut().unwrap() {
        let build = build.as_object_mut().unwrap();
        for field in ["runs", "seen", "error"] {
            build.remove(field);
        }
    }
    let read = combine::from_json(value.to_string().as_bytes(), true);
    assert_eq!(read.unwrap().unwrap(), matrix);
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    fn add(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(add);
                // Maps of names to values have no place for more.
                if !fields.keys().any(|key| key.contains('.')) {
                    fields.insert("later".into(), serde_json::json!([{"a": null}]));
                }
            }
            Value::Array(list) => list.iter_mut().for_each(add),
            _ => {}
        }
    }
    let text = std::fs::read(path("c9bbd03")).unwrap();
    let report = report::from_json(&text).unwrap();
    let mut value: Value = serde_json::from_slice(&text).unwrap();
    add(&mut value);
    let text = value.to_string();
    assert_eq!(report::from_json(text.as_bytes()).unwrap(), report);
    assert_eq!(
        Brief::from_json(text.as_bytes()).unwrap(),
        Brief::of(&report)
    );
}

#[test]
fn more_decisions_than_a_build_can_make_are_refused_wherever_they_are() {
    let mut report = interpret(&capture::Capture::default());
    for number in 0..2001u32 {
        let any_of: Vec<Cap> = (0..11)
            .filter(|bit| number >> bit & 1 == 1)
            .map(Cap)
            .collect();
        report.decisions.push(report::Decision {
            chosen: any_of.first().copied().unwrap_or(Cap(40)),
            any_of,
            steps: vec![],
            verdict: report::Verdict::Needed,
        });
    }
    let text = serde_json::to_vec(&report).unwrap();
    let matrix = Matrix::of(vec![Build::traced("a".into(), report)]);
    let matrix = serde_json::to_vec(&matrix).unwrap();
    for text in [text, matrix] {
        for keep in [Keep::Briefs, Keep::Reports] {
            let error = parse(&text, "x", keep).err().expect("it is refused");
            assert!(
                error.to_string().contains("more than 2000 kinds"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_decision_that_nothing_answers_is_none() {
    let report = interpret(&capture::Capture::default());
    let matrix = Matrix::of(vec![Build::traced("a".into(), report)]);
    let mut value = serde_json::to_value(&matrix).unwrap();
    value["builds"][0]["runs"][0]["needs"] =
        serde_json::json!([{"any_of": [], "verdict": "needed", "at": []}]);
    let read = combine::from_json(value.to_string().as_bytes(), true);
    assert_eq!(Matrix::of(merge(read.unwrap().unwrap().builds)), matrix);
}

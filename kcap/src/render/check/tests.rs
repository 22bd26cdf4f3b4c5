use serde_json::Value;

use super::*;
use crate::capture;
use crate::combine::check::{Policy, against_policy};
use crate::combine::{Build, Status, merge};
use crate::interpret::interpret;
use crate::render::escape::is_unsafe;
use crate::report::Report;

fn corpus(name: &str) -> Report {
    let path = format!(
        "{}/../corpus/{name}/capture.kcap",
        env!("CARGO_MANIFEST_DIR")
    );
    let file = std::fs::File::open(path).expect("the corpus has it");
    interpret(&capture::read(io::BufReader::new(file)).expect("it is a capture"))
}

fn check(policy: &str, reports: Vec<Report>) -> Check {
    let builds = reports.into_iter().map(|r| Build::traced("?".into(), r));
    let builds = merge(builds.chain([Build::unseen(
        "x/Dockerfile".into(),
        Status::Error,
        "gone".into(),
    )]));
    against_policy(&Policy::named(policy).unwrap(), &builds, true)
}

fn text(check: &Check, format: CheckFormat) -> String {
    let mut out = Vec::new();
    write_check(check, format, Style::default(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

const HOSTILE: &str = "a\u{1b}[2J\u{202e}b]]>\"'<&\n\u{0}\u{fffe}%2e/../Dockerfile";

/// Everything that a build chooses, hostile.
fn hostile() -> Check {
    let mut report = corpus("x-edge-proxy");
    report.subject.dockerfile = Some(HOSTILE.to_owned());
    for step in &mut report.steps {
        step.text = HOSTILE.to_owned();
        step.kind = HOSTILE.to_owned();
    }
    for capability in &mut report.capabilities {
        for evidence in &mut capability.evidence {
            evidence.program = HOSTILE.to_owned();
        }
    }
    let mut check = check("pss-restricted", vec![report]);
    check.against.name = HOSTILE.to_owned();
    check.notes.push(HOSTILE.to_owned());
    check
}

fn all() -> Vec<Check> {
    vec![
        check("article", vec![corpus("x-edge-proxy"), corpus("chown-run")]),
        check("docker-default", vec![corpus("x-edge-proxy")]),
        check("pss-restricted", vec![]),
        hostile(),
    ]
}

#[test]
fn sarif_is_as_the_published_schema_has_it() {
    let schema = include_str!("../../../tests/schemas/sarif-2.1.0.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    for check in all() {
        let log: Value = serde_json::from_str(&text(&check, CheckFormat::Sarif)).unwrap();
        let errors: Vec<String> = validator.iter_errors(&log).map(|e| e.to_string()).collect();
        assert_eq!(errors, [""; 0]);
        // Which lines, as GitHub shows them.
        let results = log["runs"][0]["results"].as_array().unwrap();
        assert_eq!(results.is_empty(), check.pass);
        for result in results {
            let index = result["ruleIndex"].as_u64().unwrap() as usize;
            let rule = &log["runs"][0]["tool"]["driver"]["rules"][index];
            assert_eq!(rule["id"], result["ruleId"]);
        }
    }
    // The schema tells what is not SARIF.
    let mut log: Value = serde_json::from_str(&text(&all()[0], CheckFormat::Sarif)).unwrap();
    log["runs"][0]["results"][0]["level"] = "fatal".into();
    assert!(!validator.is_valid(&log));
}

#[test]
fn sarif_points_at_the_line() {
    let check = check("article", vec![corpus("x-edge-proxy")]);
    let log: Value = serde_json::from_str(&text(&check, CheckFormat::Sarif)).unwrap();
    let found: Vec<(String, u64, &str)> = (log["runs"][0]["results"].as_array().unwrap().iter())
        .map(|result| {
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(
                place["artifactLocation"]["uri"],
                "corpus/x-edge-proxy/Dockerfile"
            );
            (
                result["ruleId"].as_str().unwrap().to_owned(),
                place["region"]["startLine"].as_u64().unwrap(),
                result["level"].as_str().unwrap(),
            )
        })
        .collect();
    let of = |rule: &str| -> Vec<(u64, &str)> {
        let rule = format!("capability/{rule}");
        (found.iter().filter(|f| f.0 == rule))
            .map(|f| (f.1, f.2))
            .collect()
    };
    assert_eq!(of("SETFCAP"), [(2, "error"), (9, "error")]);
    assert_eq!(of("NET_BIND_SERVICE"), [(12, "error")]);
    assert_eq!(of("KILL"), [(2, "warning")]);
    assert_eq!(of("CHOWN"), []);
}

/// A parser of its own for what is written, since the one that writes is no judge.
#[test]
fn junit_is_xml_with_a_test_for_each_dockerfile() {
    for check in all() {
        let text = text(&check, CheckFormat::Junit);
        let document = roxmltree::Document::parse(&text).unwrap();
        let suite = document.root_element().first_element_child().unwrap();
        let count = |name: &str| suite.attribute(name).unwrap().parse::<usize>().unwrap();
        let over = check.builds.iter().filter(|b| !b.over.is_empty()).count();
        let cases = suite
            .children()
            .filter(|node| node.has_tag_name("testcase"));
        assert_eq!(cases.count(), check.builds.len());
        assert_eq!(
            (count("tests"), count("failures")),
            (check.builds.len(), over)
        );
        let open =
            |b: &&crate::combine::check::Checked| b.over.is_empty() && b.incomplete.is_some();
        assert_eq!(count("errors"), check.builds.iter().filter(open).count());
        let unsafe_char = text.chars().find(|c| *c != '\n' && is_unsafe(*c));
        assert_eq!(unsafe_char, None);
    }
}

#[test]
fn what_may_be_incomplete_is_no_error() {
    let mut check = check("docker-default", vec![corpus("x-edge-proxy")]);
    let found = |check: &Check| {
        let log: Value = serde_json::from_str(&text(check, CheckFormat::Sarif)).unwrap();
        let junit = text(check, CheckFormat::Junit);
        let word = text(check, CheckFormat::Table)[..4].to_owned();
        (
            word,
            log["runs"][0]["invocations"][0]["executionSuccessful"] == true,
            junit.contains("errors=\"0\"") && junit.contains("could not be started"),
        )
    };
    assert_eq!(found(&check), ("OPEN".to_owned(), false, false));
    check.incomplete_counts = false;
    assert_eq!(found(&check), ("PASS".to_owned(), true, true));
}

#[test]
fn the_table_fits_and_says_the_answer_first() {
    for check in all() {
        let text = text(&check, CheckFormat::Table);
        let word = match (check.pass, check.complete) {
            (false, _) => "FAIL",
            (true, false) => "OPEN",
            (true, true) => "PASS",
        };
        assert!(text.starts_with(word), "{text}");
        for line in text.lines() {
            assert!(crate::render::escape::width(line) <= 80, "{line}");
            assert!(!line.chars().any(is_unsafe), "{line:?}");
        }
    }
    let shown = text(
        &check("article", vec![corpus("x-edge-proxy")]),
        CheckFormat::Table,
    );
    for part in [
        "corpus/x-edge-proxy/Dockerfile\n",
        "  SETFCAP                  2  setcap: RUN apt-get update",
        "                           9  setcap: RUN cp /usr/bin/env",
        "  KILL ?                   2  ",
        "--allow-unsure",
        "UNSEEN  x/Dockerfile: it could not be started",
        "only capabilities were checked",
    ] {
        assert!(shown.contains(part), "{part} in:\n{shown}");
    }
}

#[test]
fn json_survives_itself_and_is_as_its_schema_has_it() {
    let schema: Value = serde_json::from_str(&crate::combine::check::schema()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for check in all() {
        let text = text(&check, CheckFormat::Json);
        let value: Value = serde_json::from_str(&text).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|e| e.to_string())
            .collect();
        assert_eq!(errors, [""; 0]);
        assert_eq!(serde_json::from_str::<Check>(&text).unwrap(), check);
        assert!(text.contains("\"schema\": \"kcap.check/v1\""));
    }
}

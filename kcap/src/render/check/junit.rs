//! A check as JUnit XML: a test for each Dockerfile, failed where it is over, in error where it was
//! not seen to the end.

use std::collections::BTreeSet;
use std::io;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{message, path, title};
use crate::combine::check::{Check, Checked};
use crate::render::escape;

/// Most columns of a name.
const NAME: usize = 400;

pub fn text(check: &Check) -> io::Result<String> {
    let mut suite = TestSuite::new(head(&format!("kcap check {}", check.against.name), NAME));
    for build in &check.builds {
        suite.add_test_case(case(check, build));
    }
    let notes: Vec<String> = (check.notes.iter()).map(|note| shown(note)).collect();
    suite.set_system_out(format!("{}\n{}", xml(&title(check)), notes.join("\n")));
    let mut report = Report::new("kcap check");
    report.add_test_suite(suite);
    let mut text = report.to_string().map_err(io::Error::other)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Safe to show, and in XML: two characters that are no controls cannot be in it at all.
fn xml(text: &str) -> String {
    text.replace('\u{fffe}', "\\u{fffe}")
        .replace('\u{ffff}', "\\u{ffff}")
}

fn head(text: &str, most: usize) -> String {
    xml(&escape::head(text, most))
}

fn shown(text: &str) -> String {
    xml(&escape::shown(text))
}

fn case(check: &Check, build: &Checked) -> TestCase {
    let over: Vec<_> = (check.over.iter())
        .filter(|over| over.dockerfile == build.dockerfile)
        .collect();
    let file = path(check, &build.dockerfile);
    let status = if !over.is_empty() {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        let caps: Vec<String> = over.iter().map(|o| o.capability.to_string()).collect();
        status.set_message(format!("not allowed: {}", caps.join(" ")));
        status.set_type("capability");
        let mut lines = Vec::new();
        for over in over {
            let mut seen = BTreeSet::new();
            // Several steps of one line are one message.
            for at in over.at.iter().filter(|at| seen.insert(at.line)) {
                let line = at.line.map_or_else(String::new, |line| format!(":{line}"));
                let message = xml(&message(check, over, Some(at)));
                lines.push(format!("{}{line}: {message}", head(file, NAME)));
            }
            if over.at.is_empty() {
                lines.push(xml(&message(check, over, None)));
            }
        }
        status.set_description(lines.join("\n"));
        status
    } else if let (Some(why), true) = (&build.incomplete, check.incomplete_counts) {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(shown(why));
        status.set_type("incomplete");
        status
    } else {
        TestCaseStatus::success()
    };
    let mut case = TestCase::new(head(&build.dockerfile, NAME), status);
    if let (Some(why), false) = (&build.incomplete, check.incomplete_counts) {
        case.set_system_out(shown(why));
    }
    case.set_classname("kcap.capabilities");
    case.extra.insert("file".into(), head(file, NAME).into());
    let first = (check.over.iter())
        .filter(|over| over.dockerfile == build.dockerfile)
        .flat_map(|over| &over.at)
        .find_map(|at| at.line);
    if let Some(line) = first {
        case.extra.insert("line".into(), line.to_string().into());
    }
    case
}

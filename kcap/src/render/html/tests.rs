//! The page as bytes. What it does in a browser is tested in one: `tests/pages.rs`.

use std::{fs::File, path::Path};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::capture;
use crate::combine::Status;
use crate::interpret::{arbitrary, interpret};

fn of_corpus(name: &str) -> Report {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../corpus/{name}/capture.kcap"));
    interpret(&capture::read(File::open(path).expect("it is in the repository")).unwrap())
}

fn page(report: &Report) -> String {
    let mut page = Vec::new();
    write(report, &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

fn page_of(builds: Vec<Build>) -> String {
    let mut page = Vec::new();
    write_matrix(&Matrix::of(builds), &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

fn build(name: &str, mut report: Report) -> Build {
    report.subject.dockerfile = Some(name.to_owned());
    Build::traced(name.to_owned(), report)
}

/// What the page's script is given.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(data).unwrap()
}

/// Elements that could be scripts, and what could hide one.
fn scripts(page: &str) -> (usize, usize, usize) {
    let page = page.to_lowercase();
    let count = |what: &str| page.matches(what).count();
    (count("<script"), count("</script"), count("<!--"))
}

#[test]
fn the_policy_names_what_is_in_the_page() {
    let page = page(&of_corpus("copy-chown"));
    let between = |start: &str, end: &str| {
        let (_, rest) = page.split_once(start).unwrap();
        rest.split_once(end).unwrap().0
    };
    let style = between("<style>", "</style>");
    let script = between("<script type=\"module\">", "</script>");
    let policy = between("Content-Security-Policy\" content=\"", "\"");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    for part in [script, style] {
        assert!(policy.contains(&safe::csp_hash(part)), "{policy}");
    }
    // Nothing that the policy would refuse, and nothing that is loaded.
    for what in [" style=", " src=", "@import", "url(", "http:", "https:"] {
        assert!(!page.contains(what), "{what}");
    }
    // The script makes elements and sets their text.
    for what in [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ] {
        assert!(!SCRIPT.contains(what), "{what}");
    }
}

#[test]
fn the_answer_is_there_without_the_script() {
    let page = page(&of_corpus("x-php-app"));
    let (main, _) = page.split_once("</main>").unwrap();
    for what in [
        "corpus/x-php-app/Dockerfile",
        "data-c=\"SETUID\"",
        "drops 9 of today&#39;s 14",
        "capabilities: {drop: [ALL], add: [CHOWN, FOWNER, FSETID, SETGID, SETUID]}",
        "may lose setgid",
    ] {
        assert!(main.contains(what), "{what}");
    }
}

#[test]
fn what_is_incomplete_is_said_and_nothing_is_to_be_pasted() {
    let mut report = of_corpus("x-php-app");
    report.complete = false;
    report.loss.checks = 3;
    let page = page(&report);
    let (main, _) = page.split_once("</main>").unwrap();
    assert!(main.contains("<b>Incomplete</b> lost 3 checks"));
    assert!(main.contains("at least") && !main.contains("id=\"apply\""));
}

#[test]
fn builds_of_which_nothing_was_seen_have_a_row() {
    let page = page_of(vec![
        build("a", of_corpus("copy-chown")),
        Build::unseen("b".to_owned(), Status::Error, "no <base> image".to_owned()),
    ]);
    let data = data(&page);
    assert_eq!(data["rows"][1]["left"], "no <base> image");
    assert_eq!(data["rows"][1]["detail"], Value::Null);
    assert!(page.contains("1 of 2 did not build"));
}

#[test]
fn rows_have_names_of_their_own() {
    let long = "x".repeat(500);
    let page = page_of(vec![
        build(&format!("a/{long}"), of_corpus("copy-chown")),
        build(&format!("b/{long}"), of_corpus("copy-chown")),
    ]);
    let data = data(&page);
    let name = |at: usize| data["rows"][at]["name"].as_str().unwrap();
    assert_eq!(name(1), format!("{} (2)", name(0)));
}

#[test]
fn many_rows_are_bounded_and_counted() {
    let report = of_corpus("copy-chown");
    let builds = (0..ROWS + 7).map(|n| {
        let brief = crate::combine::Brief::of(&report);
        Build::reduced(format!("d{n:05}"), vec![brief])
    });
    let page = page_of(builds.collect());
    assert!(page.contains("the 1000 Dockerfiles that need most; 7 more"));
    let data = data(&page);
    assert_eq!(data["rows"].as_array().unwrap().len(), ROWS);
    let left = data["rows"][0]["left"].as_str().unwrap();
    assert!(left.contains("is not in this page"), "{left}");
}

#[test]
fn one_large_report_takes_nothing_from_others() {
    let large = {
        let mut report = of_corpus("x-redis-gosu");
        for step in &mut report.steps {
            step.text += &"<&>".repeat(50_000);
        }
        let some = report.capabilities[0].evidence.clone();
        for (at, capability) in report.capabilities.iter_mut().enumerate() {
            for n in 0..200 {
                let mut more = some[0].clone();
                more.path = (0..24).map(|f| format!("f{at}_{n}_{f}<<<<<<<<")).collect();
                capability.evidence.push(more);
            }
        }
        report
    };
    let mut builds = vec![build("large", large)];
    builds.extend((0..20).map(|n| build(&format!("small{n:02}"), of_corpus("copy-chown"))));
    let page = page_of(builds);
    assert!(page.len() < 5_000_000, "{}", page.len());
    let data = data(&page);
    let rows = data["rows"].as_array().unwrap();
    let left = rows[0]["left"].as_str().unwrap();
    assert!(
        left.contains("no room for") && left.contains("kinds of checks"),
        "{left}"
    );
    assert!(rows[0]["detail"].is_object());
    assert!(rows[1..].iter().all(|row| row["left"].is_null()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_was_captured_is_text(
        capture in arbitrary::capture(),
        name in any::<String>(),
        attack in prop::sample::select(vec!["</script>", "<!--<script>", "\"><img src=x>", "{{data}}", "\u{202e}\0"]),
    ) {
        let mut report = interpret(&capture);
        report.subject.dockerfile = Some(format!("{attack}{name}"));
        report.notes.push(format!("{name}{attack}"));
        for step in &mut report.steps {
            step.text = format!("RUN {attack}{}{attack}", step.text);
        }
        for evidence in report.capabilities.iter_mut().flat_map(|c| &mut c.evidence) {
            evidence.program += attack;
            evidence.path.push(attack.to_owned());
        }
        let one = page(&report);
        let many = page_of(vec![
            build(&format!("{attack}{name}"), report.clone()),
            build("b", report.clone()),
        ]);
        for page in [&one, &many] {
            prop_assert_eq!(scripts(page), (2, 2, 0));
            prop_assert!(!page.contains("<img"));
            let raw = page.chars().find(|c| *c != '\n' && crate::render::escape::is_unsafe(*c));
            prop_assert_eq!(raw, None);
            // It is whole, and says what it is given.
            prop_assert_eq!(data(page)["rows"].as_array().map(Vec::len), Some(if page == &one { 1 } else { 2 }));
        }
        prop_assert_eq!(one, page(&report));
    }
}

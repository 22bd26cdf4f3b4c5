//! A parser of GitHub's Markdown says what a reader would see of a page, whatever is in a build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use comrak::nodes::{ListType, NodeValue};
use comrak::{Arena, Options, parse_document};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::page::LIMIT;
use super::text::{code, prose};
use super::*;
use crate::combine::check::{Check, Policy, against_baseline, against_policy};
use crate::combine::{Brief, Build, Matrix, merge};
use crate::compare::{comparison::Comparison, made};
use crate::explain::{Kept, explain, explain_many};
use crate::render::escape;
use crate::report::{Report, Verdict};
use crate::{capture, interpret};

/// What GitHub's and GitLab's parsers know, all at once.
fn options() -> Options<'static> {
    let mut options = Options::default();
    let extension = &mut options.extension;
    extension.strikethrough = true;
    extension.table = true;
    extension.autolink = true;
    extension.tasklist = true;
    extension.footnotes = true;
    extension.inline_footnotes = true;
    extension.description_lists = true;
    extension.multiline_block_quotes = true;
    extension.alerts = true;
    extension.math_dollars = true;
    extension.math_code = true;
    extension.wikilinks_title_before_pipe = true;
    extension.superscript = true;
    extension.subscript = true;
    extension.underline = true;
    extension.spoiler = true;
    extension.highlight = true;
    extension.insert = true;
    extension.front_matter_delimiter = Some("---".to_owned());
    options.parse.relaxed_autolinks = true;
    options.parse.relaxed_tasklist_matching = true;
    options
}

/// Pieces that mean something to Markdown, to HTML, or to a forge.
const PIECES: [&str; 58] = [
    "|",
    "\\|",
    "\\",
    "`",
    "``",
    "```",
    "~~~",
    "*",
    "**",
    "_",
    "__",
    "~~",
    "==",
    "++",
    "||",
    "$",
    "$$",
    "$`",
    "<",
    ">",
    "<script>",
    "</script>",
    "<img src=x onerror=alert(1)>",
    "</details>",
    "<!--",
    "-->",
    "<https://a.org>",
    "[a](https://a.org)",
    "![a](https://a.org/x.png)",
    "[[a|b]]",
    "[^1]",
    "[^1]: x",
    "[a]: https://a.org",
    "https://a.org",
    "www.a.org",
    "ftp://a.org",
    "a@b.org",
    "mailto:a@b.org",
    "@team",
    "#12",
    "GH-12",
    "!34",
    "a/b#7",
    "deadbeefcafe",
    ":smile:",
    "&amp;",
    "&#64;team",
    "# h",
    "- x",
    "1. x",
    "> q",
    "---",
    "===",
    "\n",
    "\r\n\r\n",
    "\u{202e}",
    "\u{200b}\u{1b}[31m",
    "  ",
];

fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => proptest::sample::select(&PIECES[..]).prop_map(str::to_owned),
        2 => "[a-zA-Z0-9 ./:-]{1,12}",
        1 => any::<String>(),
        1 => (1usize..130).prop_map(|n| "`".repeat(n)),
    ];
    proptest::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
}

/// The names of a value's strings, without positions in lists.
fn leaves(value: &mut Value, name: &str, each: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::String(text) => each(name, text),
        Value::Array(items) => items.iter_mut().for_each(|item| leaves(item, name, each)),
        Value::Object(fields) => {
            for (key, value) in fields {
                leaves(value, &format!("{name}.{key}"), each);
            }
        }
        _ => {}
    }
}

/// A value with every string of it hostile that may be any string: what can be, is tried out.
struct Open<T> {
    value: Value,
    names: BTreeSet<String>,
    is: std::marker::PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Open<T> {
    fn of(sample: &T) -> Self {
        let value = serde_json::to_value(sample).unwrap();
        let mut all = BTreeSet::new();
        leaves(&mut value.clone(), "", &mut |name, _| {
            all.insert(name.to_owned());
        });
        let names: BTreeSet<String> = (all.into_iter())
            .filter(|tried| {
                let mut changed = value.clone();
                leaves(&mut changed, "", &mut |name, text| {
                    if name == tried {
                        *text = "\u{1}|<b>".to_owned();
                    }
                });
                tried != ".schema" && serde_json::from_value::<T>(changed).is_ok()
            })
            .collect();
        let is = std::marker::PhantomData;
        Self { value, names, is }
    }

    /// The n-th string becomes a text, or stays, as `choices` have it in turn.
    fn with(&self, texts: &[String], choices: &[Option<u8>]) -> T {
        let mut value = self.value.clone();
        let mut at = 0;
        leaves(&mut value, "", &mut |name, text| {
            if self.names.contains(name) {
                if let Some(choice) = choices[at % choices.len()] {
                    *text = texts[usize::from(choice) % texts.len()].clone();
                }
                at += 1;
            }
        });
        serde_json::from_value(value).unwrap()
    }
}

fn corpus(name: &str) -> Report {
    let path = format!(
        "{}/../corpus/{name}/capture.kcap",
        env!("CARGO_MANIFEST_DIR")
    );
    let file = std::fs::File::open(path).expect("the corpus has it");
    let capture = capture::read(std::io::BufReader::new(file)).expect("it is a capture");
    interpret::interpret(&capture)
}

/// A report with all that a report can have: a failed build with a log, notes and replays.
fn full() -> Report {
    let mut report = corpus("user-run");
    report.subject.exit_status = Some(1);
    report.subject.log = vec!["one".into(), "two".into()];
    report.complete = false;
    report.loss.unproven = Some("why".into());
    let proof = serde_json::json!({
        "state": "sufficient", "reason": "r", "untried": ["CHOWN"], "builds": 3, "kept": 0,
        "references": 2, "seconds": 1.0, "build_seconds": 1.0, "flaky": true,
        "noise": [{"rule": "unstable", "places": 2, "examples": ["/a", "/b"]}], "image": null,
        "repeat": {"command": ["kcap"], "container": [], "executor": null, "context_sha256": null,
            "bases": {}, "bases_from": "kept", "cache": "off"}});
    report.proof = Some(serde_json::from_value(proof).unwrap());
    let trial = serde_json::json!({"set": ["CHOWN"], "outcome": "failed", "seconds": 2.0,
        "differs": ["/x: mode"], "purpose": "without SETUID"});
    report.trials = vec![serde_json::from_value(trial).unwrap()];
    let proof = serde_json::json!({"outcome": "failed", "detail": "it fails", "step": 1,
        "tolerated": ["x"]});
    for capability in &mut report.capabilities {
        if capability.verdict == Verdict::Needed {
            capability.proof = Some(serde_json::from_value(proof.clone()).unwrap());
        }
    }
    report.notes = vec!["a note".into()];
    report
}

static REPORT: LazyLock<Open<Report>> = LazyLock::new(|| Open::of(&full()));
static CHECK: LazyLock<Open<Check>> = LazyLock::new(|| {
    let builds = |report: Report| merge([Build::traced("a".into(), report)]);
    let mut check = against_policy(
        &Policy::named("pss-restricted").unwrap(),
        &builds(full()),
        true,
    );
    check.went = check.over.clone();
    check.added = vec!["a/Dockerfile".into()];
    check.gone = check.added.clone();
    Open::of(&check)
});

/// A page that says no more than its pieces do; what its code and its words are.
#[track_caller]
fn is_safe(page: &str) -> (Vec<String>, Vec<String>) {
    assert!(page.len() <= LIMIT, "{} bytes", page.len());
    assert!(page.ends_with('\n') && !page.ends_with("\n\n"), "{page:?}");
    assert!(
        !page.chars().any(|c| c != '\n' && escape::is_unsafe(c)),
        "{page:?}"
    );
    let arena = Arena::new();
    let root = parse_document(&arena, page, &options());
    let (mut codes, mut words) = (vec![], vec![]);
    let (mut headings, mut tables, mut open) = (0, 0, 0);
    for node in root.descendants() {
        match &node.data().value {
            NodeValue::Document
            | NodeValue::Paragraph
            | NodeValue::Item(_)
            | NodeValue::TableRow(_)
            | NodeValue::TableCell
            | NodeValue::Strong => {}
            NodeValue::Table(_) => tables += 1,
            NodeValue::Heading(heading) => {
                assert_eq!(heading.level, 3, "{page}");
                headings += 1;
            }
            NodeValue::List(list) => assert_eq!(list.list_type, ListType::Bullet, "{page}"),
            NodeValue::CodeBlock(block) => {
                assert!(["yaml", "text"].contains(&block.info.as_str()), "{page}");
                assert!(block.fenced && block.closed, "{page}");
            }
            NodeValue::HtmlBlock(html) => {
                let html = html.literal.trim();
                let summary = html
                    .strip_prefix("<details><summary>")
                    .and_then(|rest| rest.strip_suffix("</summary>"));
                match summary {
                    Some(summary) => {
                        open += 1;
                        let plain = |c: char| c.is_ascii_alphanumeric() || " ,:".contains(c);
                        assert!(summary.chars().all(plain), "{summary}");
                    }
                    None => {
                        open -= 1;
                        assert_eq!(html, "</details>", "{page}");
                    }
                }
            }
            NodeValue::Code(code) => codes.push(code.literal.clone()),
            NodeValue::Text(text) => words.push(text.to_string()),
            other => panic!("{other:?} in:\n{page}"),
        }
    }
    assert_eq!((headings, open), (1, 0), "{page}");
    for text in &words {
        // Our own words have none of what forges look for, so neither has anybody's.
        let bad = |c: char| "@#!$&<>[]{}|\\~^*=/`%".contains(c);
        assert!(!text.contains(bad), "{text:?} in:\n{page}");
        for word in text.split(' ') {
            assert!(!word.starts_with("www."), "{text:?}");
            // `:smile:`
            let after = word.strip_prefix(':').and_then(|rest| rest.chars().next());
            assert!(!after.is_some_and(char::is_alphanumeric), "{text:?}");
            let hex = word.len() >= 7 && word.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(!hex, "{text:?}");
        }
    }
    // Each row has the cells of its head: the parser would fill up, or cut, without a word.
    let mut columns = None;
    let mut heads = 0;
    let mut fence = "";
    for line in page.lines() {
        if fence.is_empty() && line.starts_with("```") {
            fence = line.trim_end_matches(|c| c != '`');
        } else if line == fence {
            fence = "";
        }
        if !fence.is_empty() || !line.starts_with('|') {
            columns = None;
            continue;
        }
        let pipes = line.replace("\\|", "").matches('|').count();
        match columns {
            None => {
                heads += 1;
                columns = Some(pipes);
            }
            Some(columns) => assert_eq!(pipes, columns, "{line}"),
        }
    }
    assert_eq!(heads, tables, "{page}");
    (codes, words)
}

fn matrix_of(reports: Vec<Report>) -> (Matrix, BTreeMap<Brief, Kept>) {
    let kept = (reports.iter())
        .map(|report| (Brief::of(report), Kept::of(report, Cap::CHOWN)))
        .collect();
    let builds = reports.into_iter().enumerate();
    let builds = builds.map(|(n, report)| Build::traced(format!("{n}.json"), report));
    (Matrix::of(merge(builds)), kept)
}

#[test]
fn much_of_a_report_can_be_hostile() {
    for name in [
        ".subject.dockerfile",
        ".steps.text",
        ".steps.kind",
        ".capabilities.evidence.program",
        ".capabilities.proof.detail",
        ".loss.unproven",
        ".notes",
        ".trials.differs",
        ".subject.log",
    ] {
        assert!(REPORT.names.contains(name), "{name}");
    }
    assert!(!REPORT.names.contains(".required"));
    assert!(CHECK.names.contains(".over.at.text") && CHECK.names.contains(".against.name"));
}

#[test]
fn a_page_has_the_answer_in_its_headline() {
    let heading = |page: &str| page.lines().next().unwrap().to_owned();
    let page = report(&corpus("chown-run"));
    is_safe(&page);
    assert_eq!(
        heading(&page),
        "### `corpus/chown-run/Dockerfile` needs CHOWN, FOWNER"
    );
    let page = report(&corpus("scratch-copy"));
    assert_eq!(
        heading(&page),
        "### `corpus/scratch-copy/Dockerfile` needs no capability"
    );
    let both = || vec![corpus("chown-run"), corpus("scratch-copy")];
    let (both, kept) = matrix_of(both());
    let page = matrix(&both);
    assert_eq!(heading(&page), "### 2 Dockerfiles need CHOWN, FOWNER");
    is_safe(&page);
    let page = why_many(&explain_many(&both, &kept, Cap::CHOWN));
    assert_eq!(heading(&page), "### CHOWN is needed by 1 of 2 Dockerfiles");
    is_safe(&page);
    let policy = Policy::named("pss-restricted").unwrap();
    let page = check(&against_policy(&policy, &both.builds, true));
    assert_eq!(
        heading(&page),
        "### Fail: 1 of 2 Dockerfiles needs more than pss-restricted allows"
    );
    assert!(page.contains("| `corpus/chown-run/Dockerfile` | 2 | **CHOWN** | "));
    let (old, _) = matrix_of(vec![corpus("scratch-copy")]);
    let page = check(&against_baseline("old", &old.builds, &both.builds, true));
    assert!(
        page.contains("What came:") && page.contains("New: `corpus/chown-run"),
        "{page}"
    );
    let page = check(&against_baseline("old", &both.builds, &old.builds, true));
    assert!(page.contains("Gone: `corpus/chown-run"), "{page}");
}

#[test]
fn a_page_of_many_is_within_what_a_forge_takes() {
    let mut one = corpus("x-edge-proxy");
    let reports: Vec<Report> = (0..700)
        .map(|n| {
            one.subject.dockerfile = Some(format!("{}/{n}/Dockerfile", "team/".repeat(12)));
            one.clone()
        })
        .collect();
    let (many, kept) = matrix_of(reports);
    let policy = Policy::named("pss-restricted").unwrap();
    for page in [
        matrix(&many.clone().with_profiles(3.try_into().unwrap())),
        why_many(&explain_many(&many, &kept, Cap::CHOWN)),
        check(&against_policy(&policy, &many.builds, true)),
    ] {
        is_safe(&page);
        assert!(page.contains(" more"), "{page}");
    }
    let mut long = corpus("x-edge-proxy");
    let step = long
        .steps
        .iter()
        .find(|step| step.kind == "run")
        .unwrap()
        .clone();
    long.steps.extend((0..5000).map(|n| crate::report::Step {
        line: Some(n + 20),
        text: "RUN x".repeat(4000),
        ..step.clone()
    }));
    let page = report(&long);
    is_safe(&page);
    assert!(
        page.contains(" more instructions are left out here"),
        "{page}"
    );
}

#[test]
fn images_are_compared_safely() {
    let names = PIECES
        .iter()
        .filter(|piece| !piece.contains(['/', '\n', '\r']));
    let layer = |mode: u32| {
        names.clone().fold(made::Packed::default(), |layer, name| {
            layer.mode(&format!("d/x{name}"), mode)
        })
    };
    let (a, b) = (
        made::image(&[layer(0o600)]),
        made::image(&[layer(0o644).file("var/log/x", "")]),
    );
    for piece in PIECES {
        let page = comparison(&Comparison::of((piece, &a), ("b.tar", &b), false), true);
        let (codes, _) = is_safe(&page);
        assert!(
            codes.iter().any(|code| code == "/d/x||" || code == "/d/x|"),
            "{page}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_in_a_build_means_anything_to_markdown(
        texts in proptest::collection::vec(hostile_text(), 1..6),
        choices in proptest::collection::vec(proptest::option::weighted(0.7, any::<u8>()), 1..40),
    ) {
        let hostile = REPORT.with(&texts, &choices);
        is_safe(&report(&hostile));
        let caps = hostile.capabilities.iter().map(|c| c.name).collect::<Vec<_>>();
        for cap in caps {
            is_safe(&why(&explain(&hostile, cap)));
        }
        let (all, kept) = matrix_of(vec![hostile, corpus("chown-run")]);
        is_safe(&matrix(&all.clone().with_profiles(2.try_into().unwrap())));
        is_safe(&why_many(&explain_many(&all, &kept, Cap::CHOWN)));
        is_safe(&check(&CHECK.with(&texts, &choices)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn code_is_one_piece_of_code_that_says_what_the_text_does(text in hostile_text(), most in 1usize..90) {
        prop_assume!(!text.is_empty());
        let mut page = page::Page::default();
        page.heading("x");
        page.paragraph(&format!("a {}", code(&text, most)));
        let cells = vec![code(&text, most), "b".to_owned()];
        let columns = [("A", page::Align::Left), ("B", page::Align::Left)];
        page.table(&columns, [cells], "rows");
        let (codes, words) = is_safe(&page.finish());
        let shown = escape::head(&text, most);
        let in_cell = shown.replace("\\|", "\\\\u{7c}");
        prop_assert_eq!(codes, [shown, in_cell]);
        prop_assert_eq!(words, ["x", "a ", "A", "B", "b"]);
    }

    #[test]
    fn prose_says_what_the_text_does(text in hostile_text()) {
        let mut page = page::Page::default();
        page.heading("x");
        page.paragraph(&prose(&text, 300));
        let page = page.finish();
        is_safe(&page);
        let arena = Arena::new();
        let mut said = String::new();
        for node in parse_document(&arena, &page, &options()).descendants().skip(3) {
            match &node.data().value {
                NodeValue::Code(code) => said += &code.literal,
                NodeValue::Text(text) => said += text,
                _ => {}
            }
        }
        let words = |text: &str| text.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
        let meant = words(&escape::head(&text, 300));
        let meant = if meant.is_empty() { "—".to_owned() } else { meant };
        prop_assert_eq!(words(&said), meant);
    }
}

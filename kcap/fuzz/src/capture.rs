//! Captures: read, interpreted, rendered.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use kcap::capture::{self, Capture};
use kcap::combine::{Brief, Build, Matrix};
use kcap::interpret::interpret;
use kcap::report::{Report, Verdict};
use serde_json::{Value, json};

use crate::rendered;

/// The items of a capture, as the counts in its header call them.
const ITEMS: [(&str, &str); 5] = [
    ("program", "programs"),
    ("tally", "tallies"),
    ("evidence", "evidence"),
    ("unasked", "unasked"),
    ("log", "log"),
];

/// Reads a capture: compressed, or the lines of one, whose counts and end are then put right.
pub fn capture(input: &[u8]) {
    let compressed = input.starts_with(&[0x1f, 0x8b]);
    let packed = if compressed {
        input.to_vec()
    } else {
        pack(&counted(input))
    };
    match capture::read(&packed[..]) {
        Ok(capture) => read(&capture),
        Err(e) => rendered::error(&e),
    }
}

/// The lines with counts in the header and at the end that are true: with others nothing is read.
fn counted(input: &[u8]) -> Vec<u8> {
    let mut lines = input.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let header = lines.next().unwrap_or_default();
    let Ok(mut header) = serde_json::from_slice::<Value>(header) else {
        return input.to_vec();
    };
    let mut counts = [0u64; ITEMS.len()];
    let mut kept = Vec::new();
    for line in lines {
        if line.starts_with(b"{\"end\"") {
            continue;
        }
        if let Ok(Value::Object(item)) = serde_json::from_slice(line) {
            for (count, (name, _)) in counts.iter_mut().zip(ITEMS) {
                *count += u64::from(item.get(name).is_some_and(|value| !value.is_null()));
            }
        }
        kept.push(line);
    }
    let counts: Value = (ITEMS.iter().zip(counts))
        .map(|((_, name), count)| ((*name).to_owned(), Value::from(count)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    if let Some(header) = header.as_object_mut() {
        header.insert("counts".to_owned(), counts.clone());
    }
    let mut text = header.to_string().into_bytes();
    for line in kept {
        text.push(b'\n');
        text.extend_from_slice(line);
    }
    text.extend_from_slice(format!("\n{}\n", json!({"end": counts})).as_bytes());
    text
}

fn pack(text: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::none());
    packed.write_all(text).expect("there is memory");
    packed.finish().expect("there is memory")
}

fn read(capture: &Capture) {
    let mut written = Vec::new();
    capture::write(capture, &mut written).expect("what was read can be written");
    let again = capture::read(&written[..]).expect("what was written can be read");
    assert_eq!(&again, capture, "a capture read again");

    let report = interpret(capture);
    assert_eq!(interpret(capture), report, "interpreted twice");
    sums(&report);
    sets(&report);
    rendered::report(&report);

    let json = serde_json::to_vec(&report).expect("a report is JSON");
    match Brief::from_json(&json) {
        Ok(brief) => assert_eq!(brief, Brief::of(&report), "read lean and whole"),
        Err(e) => rendered::error(&e),
    }
    let build = Build::traced("Dockerfile".to_owned(), report.clone());
    let matrix = Matrix::of(vec![build.clone()]);
    assert_eq!(
        matrix.union.required, report.required,
        "one report's own set"
    );
    assert_eq!(matrix.union.unsure, report.unsure);
    rendered::builds(vec![build]);
}

/// Each check is counted once in each list.
fn sums(report: &Report) {
    let all: u64 = report.capabilities.iter().map(|c| c.checks).sum();
    assert_eq!(report.checks, all);
    for capability in &report.capabilities {
        let name = capability.name;
        assert_eq!(
            capability.checks,
            capability.granted + capability.denied,
            "{name}"
        );
        let by_step: u64 = capability.steps.iter().map(|step| step.checks).sum();
        assert_eq!(capability.checks, by_step, "{name} by step");
        let by_evidence: u64 = capability.evidence.iter().map(|e| e.count).sum();
        assert_eq!(capability.checks, by_evidence, "{name} by evidence");
    }
    for step in &report.steps {
        let here = (report.capabilities.iter().flat_map(|c| &c.steps))
            .filter(|part| part.step == step.index)
            .map(|part| part.checks);
        assert_eq!(step.checks, here.sum::<u64>(), "step {}", step.index);
    }
}

/// What is required is what was decided.
fn sets(report: &Report) {
    assert!(report.required.is_sorted() && report.unsure.is_sorted());
    assert!(report.steps.is_sorted_by(|a, b| a.index < b.index));
    for cap in &report.unsure {
        assert!(
            report.required.contains(cap),
            "{cap} is unsure, and not required"
        );
    }
    for decision in &report.decisions {
        assert!(decision.any_of.contains(&decision.chosen), "{decision:?}");
        assert!(report.required.contains(&decision.chosen), "{decision:?}");
        for step in &decision.steps {
            assert!(
                report.steps.iter().any(|s| s.index == *step),
                "{decision:?}"
            );
        }
    }
    for capability in &report.capabilities {
        let required = report.required.contains(&capability.name);
        assert_eq!(
            required,
            capability.verdict != Verdict::Unneeded,
            "{}",
            capability.name
        );
    }
    for cap in &report.required {
        let known = report.capabilities.iter().any(|c| c.name == *cap);
        assert!(known, "{cap} is required, and nothing is known of it");
    }
}

//! What kcap writes of the corpus, against the schemas that it ships.

use std::{collections::BTreeMap, fs, num::NonZeroUsize, path::Path};

use jsonschema::Validator;
use kcap::{
    cli::generate::Schema,
    combine::{
        Brief, Build,
        check::{NAMED, Policy, against_baseline, against_policy},
        merge,
    },
    compare::{self, comparison::Comparison},
    explain::{Kept, explain, explain_many},
    render::{self, CheckFormat, Format, PlainFormat, Style},
    report::Cap,
};
use serde_json::Value;

use crate::corpus;

fn validator(of: Schema) -> Validator {
    let schema: Value = serde_json::from_str(&of.text()).expect("it is JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("it is a schema");
    jsonschema::validator_for(&schema).expect("it is a schema")
}

/// Rendered, read, and held against a schema; told by what it is of.
#[track_caller]
fn holds(validator: &Validator, what: &str, render: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut text = vec![];
    render(&mut text);
    let value: Value = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{what}: {e}"));
    let faults: Vec<String> = (validator.iter_errors(&value))
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert_eq!(faults, [""; 0], "{what}");
    value
}

const PLAIN: Style = Style { color: false };

#[test]
fn reports_matrices_and_checks_of_the_corpus_hold() {
    let (report, matrix, check) = (
        validator(Schema::Report),
        validator(Schema::Matrix),
        validator(Schema::Check),
    );
    let names = corpus::names();
    let mut builds = vec![];
    for name in &names {
        let one = corpus::report(name);
        let value = holds(&report, name, |to| {
            render::write(&one, Format::Json, PLAIN, to).expect("no error");
        });
        // A schema that lets anything pass would say so of this as well.
        let mut less = value;
        less["capabilities"][0]["verdict"] = "maybe".into();
        assert!(!report.is_valid(&less), "{name}");
        builds.push(Build::traced(name.clone(), one));
    }
    builds.push(Build::unseen(
        "gone".into(),
        kcap::combine::Status::Error,
        "no such file".into(),
    ));
    let builds = merge(builds);
    let all = kcap::combine::Matrix::of(builds.clone());
    let all = all.with_profiles(NonZeroUsize::new(3).expect("not 0"));
    let value = holds(&matrix, "all", |to| {
        render::write_matrix(&all, Format::Json, PLAIN, to).expect("no error");
    });
    assert!(
        value["profiles"]
            .as_array()
            .is_some_and(|list| list.len() > 1)
    );
    let (old, new) = builds.split_at(builds.len() / 3);
    let mut checks: Vec<_> = (NAMED.iter())
        .map(|named| Policy::named(named.name).expect("it is named"))
        .map(|policy| against_policy(&policy, &builds, true))
        .collect();
    checks.push(against_baseline("old", old, new, false));
    let whole = merge(builds.iter().cloned().map(|mut build| {
        // The same, and less than it needed before.
        for run in &mut build.runs {
            run.needs.truncate(1);
        }
        build
    }));
    checks.push(against_baseline("old", &builds, &whole, true));
    checks.push(against_baseline("old", &whole, &builds, true));
    for one in &checks {
        holds(&check, &one.against.name, |to| {
            render::write_check(one, CheckFormat::Json, PLAIN, to).expect("no error");
        });
    }
    assert!(checks.iter().any(|check| !check.over.is_empty()));
}

#[test]
fn explanations_of_the_corpus_hold() {
    let (one, many) = (
        validator(Schema::Explanation),
        validator(Schema::Explanations),
    );
    let mut kept: BTreeMap<Cap, BTreeMap<Brief, Kept>> = BTreeMap::new();
    for name in corpus::names() {
        let report = corpus::report(&name);
        let brief = Brief::of(&report);
        let asked = report.capabilities.iter().map(|c| c.name);
        for cap in asked.chain([Cap(63)]) {
            let why = explain(&report, cap);
            holds(&one, &name, |to| {
                render::write_why(&why, PlainFormat::Json, PLAIN, to).expect("no error");
            });
            let kept = kept.entry(cap).or_default();
            kept.insert(brief.clone(), Kept::of(&report, cap));
        }
    }
    let matrix = corpus::matrix(&corpus::names());
    for (cap, kept) in &kept {
        let why = explain_many(&matrix, kept, *cap);
        let value = holds(&many, &cap.to_string(), |to| {
            render::write_why_many(&why, PlainFormat::Json, PLAIN, to).expect("no error");
        });
        assert_eq!(value["required"], matrix.union.required.contains(cap));
    }
}

/// An OCI layout of one layer, by its files' paths, modes and contents.
fn layout(folder: &Path, files: &[(&str, u32, &str)]) {
    let mut tar = tar::Builder::new(vec![]);
    for (path, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        tar.append_data(&mut header, path, content.as_bytes())
            .expect("no error");
    }
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    tar.append_link(&mut link, "link", files[0].0)
        .expect("no error");
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("it is ours");
    let blob = |bytes: &[u8]| {
        use sha2::Digest as _;
        let digest: String = (sha2::Sha256::digest(bytes).iter())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(blobs.join(&digest), bytes).expect("it is ours");
        serde_json::json!({"digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let typed = |mut descriptor: Value, kind: &str| {
        descriptor["mediaType"] = format!("application/vnd.oci.image.{kind}").into();
        descriptor
    };
    let layer = tar.into_inner().expect("no error");
    let layer = typed(blob(&layer), "layer.v1.tar");
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": [format!("N={}", files.len())]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        "history": [{"created_by": format!("COPY {}", files.len())}]});
    let config = typed(blob(config.to_string().as_bytes()), "config.v1+json");
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let manifest = typed(blob(manifest.to_string().as_bytes()), "manifest.v1+json");
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).expect("it is ours");
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion": "1.0.0"}"#,
    )
    .expect("ours");
}

#[test]
fn comparisons_hold() {
    let validator = validator(Schema::Comparison);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    layout(
        &from,
        &[
            ("bin/a", 0o4755, "1"),
            ("var/log/x", 0o644, "1"),
            ("gone", 0o644, ""),
        ],
    );
    layout(
        &to,
        &[
            ("bin/b", 0o755, "1"),
            ("bin/a", 0o755, "2"),
            ("var/log/x", 0o644, "2"),
            ("new/\u{1b}\\", 0o644, ""),
        ],
    );
    let (a, b) = compare::read_both(&from, &to).expect("they are images");
    let comparison = Comparison::of(("from", &a), ("to", &b), false);
    let value = holds(&validator, "two layouts", |to| {
        render::write_comparison(&comparison, true, PlainFormat::Json, PLAIN, to).expect("none");
    });
    let kinds: Vec<&String> = value["counts"]
        .as_object()
        .expect("counts")
        .keys()
        .collect();
    let all = [
        "added", "config", "content", "history", "link", "missing", "mode",
    ];
    assert_eq!(kinds, all);
    assert_eq!(value["noise"][0]["rule"], "log");
    let mut wrong = value;
    wrong["differences"][0]["what"] = "smell".into();
    assert!(!validator.is_valid(&wrong));
}

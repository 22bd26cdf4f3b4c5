//! `kcap compare`: two images made here, its answers and exit codes, and what is no image.

use std::{fs, os::unix::ffi::OsStrExt as _, path::PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::harness::Place;

/// Name, mode, owner and content of a file.
pub type File<'a> = (&'a str, u32, u64, &'a str);

fn layer(files: &[File<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, mode, uid, content) in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, name, content.as_bytes())
            .expect("a member");
    }
    builder.into_inner().expect("in memory")
}

/// A docker archive.
pub fn image(place: &Place, name: &str, user: &str, layers: &[&[File<'_>]]) -> PathBuf {
    let layers: Vec<Vec<u8>> = layers.iter().map(|files| layer(files)).collect();
    let digest = |bytes: &Vec<u8>| {
        let hex: String = Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        format!("sha256:{hex}")
    };
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"User": user},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(digest).collect::<Vec<_>>()},
    });
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "Layers": names}]);
    let path = place.path(name);
    let mut builder = Builder::new(fs::File::create(&path).expect("it is ours"));
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder
            .append_data(&mut header, name, bytes)
            .expect("a member");
    };
    add("manifest.json", manifest.to_string().as_bytes());
    add("config.json", config.to_string().as_bytes());
    for (name, layer) in names.iter().zip(&layers) {
        add(name, layer);
    }
    builder.finish().expect("it is ours");
    path
}

const BASE: &[File<'_>] = &[
    ("etc/passwd", 0o644, 0, "root"),
    ("usr/bin/x", 0o6755, 0, "program"),
    ("var/log/x", 0o640, 0, "monday"),
];

#[test]
fn the_same_files_are_the_same_image_however_they_are_layered() {
    let place = Place::new();
    image(&place, "a.tar", "app", &[BASE]);
    image(&place, "b.tar", "app", &[&BASE[..1], &BASE[1..]]);
    let done = place.done(&mut place.compare(["a.tar", "b.tar"]));
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(done.stdout().starts_with("SAME  "), "{done:?}");
    assert_eq!(done.stderr(), "");
}

#[test]
fn what_differs_is_a_line_each_and_exit_1() {
    let place = Place::new();
    image(&place, "a.tar", "app", &[BASE]);
    let other: &[File<'_>] = &[
        ("etc/.wh.passwd", 0o644, 0, ""),
        ("usr/bin/x", 0o755, 1000, "program"),
        ("var/log/x", 0o640, 0, "tuesday"),
        ("srv/a\u{1b}[2J\u{202e}", 0o644, 0, ""),
    ];
    image(&place, "b.tar", "", &[BASE, other]);
    let done = place.done(&mut place.compare(["a.tar", "b.tar"]));
    assert_eq!(
        (done.code(), done.stderr().as_str()),
        (Some(1), ""),
        "{done:?}"
    );
    let text = done.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("6 DIFFERENCES  "), "{text}");
    assert_eq!(
        lines[4..],
        [
            "config User: missing (\"app\")",
            "/etc/passwd: missing",
            "/srv: added, with 1 entry in it",
            "/usr/bin/x: mode 6755 -> 0755",
            "/usr/bin/x: owner 0:0 -> 1000:0",
            "",
            "noise  1 log (content alone; --exact counts it)",
        ]
    );
    let done = place.done(&mut place.compare(["-q", "a.tar", "b.tar"]));
    assert_eq!(
        (done.code(), done.stdout(), done.stderr()),
        (Some(1), String::new(), String::new())
    );

    let json = || {
        let args = ["--format", "json", "a.tar", "b.tar"];
        let done = place.done(&mut place.compare(args));
        assert_eq!(done.code(), Some(1), "{done:?}");
        done.stdout()
    };
    let text = json();
    assert_eq!(text, json());
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'),
        "{text}"
    );
    let value: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(value["schema"], "kcap.comparison/v1");
    assert_eq!(value["differences"].as_array().map(Vec::len), Some(6));
    assert_eq!(
        value["differences"][4],
        json!({"path": "/usr/bin/x", "what": "mode", "from": "6755", "to": "0755"})
    );
    assert_eq!(value["differences"][3]["path"], "/srv/a\u{1b}[2J\u{202e}");
}

#[test]
fn noise_counts_where_it_is_asked_for() {
    let place = Place::new();
    image(&place, "a.tar", "", &[BASE]);
    image(
        &place,
        "b.tar",
        "",
        &[BASE, &[("var/log/x", 0o640, 0, "tuesday")]],
    );
    let done = place.done(&mut place.compare(["a.tar", "b.tar"]));
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(
        done.stdout().starts_with("SAME but for noise  "),
        "{done:?}"
    );
    let done = place.done(&mut place.compare(["--exact", "a.tar", "b.tar"]));
    assert_eq!(done.code(), Some(1), "{done:?}");
    assert!(
        done.stdout()
            .contains("/var/log/x: content (6 -> 7 bytes)\n"),
        "{done:?}"
    );
    // Not what is more than content.
    image(
        &place,
        "b.tar",
        "",
        &[BASE, &[("var/log/x", 0o644, 0, "tuesday")]],
    );
    let done = place.done(&mut place.compare(["a.tar", "b.tar"]));
    assert_eq!(done.code(), Some(1), "{done:?}");
    assert!(
        done.stdout().contains("/var/log/x: mode 0640 -> 0644\n"),
        "{done:?}"
    );
}

#[test]
fn what_is_no_image_is_one_line_and_exit_2() {
    let place = Place::new();
    let whole = fs::read(image(&place, "a.tar", "", &[BASE])).expect("it is ours");
    fs::write(place.path("cut.tar"), &whole[..whole.len() - 4096]).expect("it is ours");
    fs::write(place.path("text"), "x".repeat(2000)).expect("it is ours");
    let hostile = std::ffi::OsStr::from_bytes(b"a\n\x1b[2J\xff");
    for (name, parts) in [
        ("cut.tar".as_ref(), ["`cut.tar`", "ends within `0.tar`"]),
        ("text".as_ref(), ["`text`", "damaged"]),
        (
            "/dev/null".as_ref(),
            ["`/dev/null`", "neither a file nor a folder"],
        ),
        (hostile, ["a\\n\\u{1b}[2J", "No such file"]),
    ] {
        for args in [["a.tar".as_ref(), name], [name, "a.tar".as_ref()]] {
            place.done(&mut place.compare(args)).is_error(2, &parts);
        }
    }
    for args in [
        &["a.tar"][..],
        &["a.tar", "a.tar", "a.tar"],
        &["--format", "xml", "a", "b"],
    ] {
        assert_eq!(
            place.done(&mut place.compare(args)).code(),
            Some(2),
            "{args:?}"
        );
    }
    let help = place.done(&mut place.compare(["--help"]));
    assert!(help.stdout().contains("Exit code: 0"), "{help:?}");
}

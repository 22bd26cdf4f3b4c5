//! Archives made by hand.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tar::{Builder, Header};

use super::super::diff::{Difference, How, diff};
use super::*;

/// A file of a layer, to be changed into what a test wants.
struct Spec {
    path: &'static str,
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    content: &'static [u8],
    link: Option<&'static str>,
    xattr: Option<(&'static str, &'static [u8])>,
    time: u64,
}

fn file(path: &'static str) -> Spec {
    Spec {
        path,
        kind: EntryType::Regular,
        mode: 0o644,
        owner: (0, 0),
        content: b"content",
        link: None,
        xattr: None,
        time: 1,
    }
}

fn tar(files: &[Spec]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for file in files {
        if let Some(xattr) = file.xattr {
            tar.append_pax_extensions([xattr]).unwrap();
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(file.kind);
        header.set_mode(file.mode);
        header.set_uid(file.owner.0);
        header.set_gid(file.owner.1);
        header.set_mtime(file.time);
        if matches!(file.kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        if let Some(link) = file.link {
            header.set_size(0);
            tar.append_link(&mut header, file.path, link).unwrap();
        } else {
            let regular = file.kind == EntryType::Regular;
            let content = if regular { file.content } else { b"" };
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, file.path, content).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An archive of these layers, as Kaniko orders one.
fn archive(config: &Value, layers: &[Vec<u8>]) -> tempfile::NamedTempFile {
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar.gz")).collect();
    let manifest = json!([{"Config": "sha256:c", "RepoTags": ["a:b"], "Layers": names}]);
    let mut parts = vec![("sha256:c".to_owned(), config.to_string().into_bytes())];
    parts.extend(names.into_iter().zip(layers.iter().cloned()));
    parts.push((
        "manifest.json".to_owned(),
        manifest.to_string().into_bytes(),
    ));
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut tar = Builder::new(file.as_file());
    for (name, content) in parts {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, &content[..]).unwrap();
    }
    tar.finish().unwrap();
    drop(tar);
    file
}

fn read(config: &Value, layers: &[Vec<u8>]) -> Image {
    let file = archive(config, layers);
    Reader::default().read(file.path(), false).unwrap()
}

/// What differs between images of one layer each.
fn differ(old: Spec, new: Spec) -> Vec<String> {
    let (old, new) = (
        read(&json!({}), &[tar(&[file("base"), old])]),
        read(&json!({}), &[gzip(&tar(&[file("base"), new]))]),
    );
    lines(&diff(&old, &new))
}

fn lines(found: &[Difference]) -> Vec<String> {
    let line = |d: &Difference| {
        let how: Vec<String> = d.how.iter().map(How::to_string).collect();
        format!("{} {}", d.place, how.join(", "))
    };
    found.iter().map(line).collect()
}

#[test]
fn times_layers_and_compression_make_no_difference() {
    let one = [tar(&[file("a"), file("d/b")])];
    let two = [
        gzip(&tar(&[
            Spec {
                time: 9,
                content: b"x",
                ..file("a")
            },
            file("gone"),
        ])),
        tar(&[file("d/.wh..wh..opq"), file(".wh.gone"), file("./d/b")]),
        gzip(&tar(&[file("a")])),
    ];
    let history = json!({"created": "2026", "history": [1], "rootfs": {}, "config": {"User": ""}});
    let (one, two) = (read(&json!({}), &one), read(&history, &two));
    assert_eq!(diff(&one, &two), []);
}

#[test]
fn every_attribute_makes_a_difference() {
    let x = || file("x");
    let capability = ("SCHILY.xattr.security.capability", &b"\x01\0\n\x02"[..]);
    let other = (capability.0, &b"\x01"[..]);
    assert_eq!(differ(x(), x()), [""; 0]);
    assert_eq!(
        differ(
            Spec {
                mode: 0o6755,
                ..x()
            },
            Spec {
                mode: 0o100_755,
                ..x()
            }
        ),
        ["/x mode 6755 → 0755"]
    );
    assert_eq!(
        differ(
            x(),
            Spec {
                owner: (1, 70_000),
                ..x()
            }
        ),
        ["/x owner 0:0 → 1:70000"]
    );
    assert_eq!(
        differ(
            x(),
            Spec {
                content: b"other",
                ..x()
            }
        ),
        ["/x content"]
    );
    assert_eq!(
        differ(
            Spec {
                xattr: Some(capability),
                ..x()
            },
            x()
        ),
        ["/x xattr security.capability missing"]
    );
    assert_eq!(
        differ(
            Spec {
                xattr: Some(capability),
                ..x()
            },
            Spec {
                xattr: Some(other),
                ..x()
            }
        ),
        ["/x xattr security.capability changed"]
    );
    assert_eq!(differ(x(), file("y")), ["/x missing", "/y added"]);
    let link = |to| Spec {
        kind: EntryType::Symlink,
        link: Some(to),
        ..x()
    };
    assert_eq!(differ(link("a"), link("b")), ["/x target a → b"]);
    assert_eq!(differ(x(), link("b")), ["/x file → link"]);
    let device = |kind| Spec { kind, ..x() };
    assert_eq!(
        differ(device(EntryType::Char), device(EntryType::Block)),
        ["/x character device → block device"]
    );
    assert_eq!(
        differ(device(EntryType::Fifo), device(EntryType::Fifo)),
        [""; 0]
    );
    let hard = || Spec {
        kind: EntryType::Link,
        link: Some("base"),
        ..x()
    };
    let copy = Spec {
        content: b"content",
        ..x()
    };
    assert_eq!(differ(hard(), copy), ["/base hard links", "/x hard links"]);
}

#[test]
fn the_configuration_makes_a_difference() {
    let image = |config| read(&json!({"config": config, "os": "linux"}), &[]);
    let old = image(json!({"User": "app", "Env": ["A=1"], "Cmd": null}));
    let new = image(json!({"Env": ["A=2"]}));
    assert_eq!(
        lines(&diff(&old, &new)),
        [
            r#"config Env ["A=1"] → ["A=2"]"#,
            r#"config User "app" → nothing"#
        ]
    );
}

#[test]
fn names_that_a_terminal_would_act_on_are_escaped() {
    let found = differ(file("\u{1b}[31m"), file("x"));
    assert_eq!(found, [r"/\x1b[31m missing", "/x added"]);
}

#[test]
fn a_reader_takes_only_layers_it_was_told_to_remember_from_memory() {
    let (config, layers) = (json!({}), [tar(&[file("a")])]);
    let first = archive(&config, &layers);
    let second = archive(&config, &[tar(&[file("b")])]);
    let third = archive(&config, &[tar(&[file("c")])]);
    let mut reader = Reader::default();
    reader.read(first.path(), false).unwrap();
    let image = reader.read(second.path(), true).unwrap();
    assert!(image.tree.get(b"b").is_some());
    // Of the same name as the second's, which is what a digest promises.
    let image = reader.read(third.path(), false).unwrap();
    assert!(image.tree.get(b"b").is_some());
}

#[test]
fn what_is_no_image_is_an_error() {
    let text = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(bytes).unwrap();
        let error = Reader::default().read(file.path(), false).unwrap_err();
        format!("{error:#}")
    };
    assert!(text(b"").contains("manifest.json"));
    assert!(text(&[b'x'; 600]).contains("cannot read the image"));
    // A layer cut short.
    let cut = gzip(&tar(&[file("a")]))[..40].to_vec();
    let file = archive(&json!({}), &[cut]);
    assert!(Reader::default().read(file.path(), false).is_err());
    assert!(clean(b"a/../../b").is_err());
}

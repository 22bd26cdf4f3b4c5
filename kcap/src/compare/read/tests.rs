use std::{fs, path::PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    compare::{
        differences,
        made::{Packed, config, layout, saved},
        read_inventory, write_inventory,
    },
    image::digest_of,
};

fn layers() -> Vec<Vec<u8>> {
    let lower = Packed::default()
        .file("a", "1")
        .link("b", "a")
        .symlink("c", "\x1b");
    let xattr: (&str, &[u8]) = ("SCHILY.xattr.user.x", b"\xff");
    let middle = Packed::default()
        .extended(&[xattr])
        .file("etc/shadow", "root:*:1::");
    [
        lower,
        middle,
        Packed::default().file("d", "2").file(".wh.b", ""),
    ]
    .map(Packed::finish)
    .to_vec()
}

fn told<T>(result: Result<T>) -> String {
    let text = format!("{:#}", result.err().expect("it is refused"));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
    text
}

#[test]
fn an_image_is_the_same_in_every_form() {
    let dir = TempDir::new().unwrap();
    let layers = layers();
    let mut config = config(&layers);
    config["history"] = json!([{"created_by": "RUN x"}]);
    fs::create_dir(dir.path().join("layout")).unwrap();
    let folder = layout(&dir.path().join("layout"), &config, &layers);
    let archive = saved(&dir, "saved.tar", &config, &layers);
    let tar = dir.path().join("layout.tar");
    let mut builder = tar::Builder::new(File::create(&tar).unwrap());
    builder.append_dir_all(".", &folder).unwrap();
    builder.finish().unwrap();

    let first = read(&folder).unwrap();
    assert_eq!(first.id, digest_of(config.to_string().as_bytes()));
    assert!(first.manifest.is_some());
    assert_eq!(read(&tar).unwrap(), first);
    let second = read(&archive).unwrap();
    assert_eq!((&second.id, &second.manifest), (&first.id, &None));
    assert!(differences(&first, &second).is_empty());
    let (a, b) = read_both(&folder, &archive).unwrap();
    assert_eq!((&a, &b), (&first, &second));

    // And as an inventory.
    let mut bytes = Vec::new();
    write_inventory(&first, &mut bytes).unwrap();
    assert_eq!(read_inventory(bytes.as_slice()).unwrap(), first);
    for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        told(read_inventory(&bytes[..end]));
    }
    let other = zstd::encode_all(&b"{\"schema\": \"x\"}\n"[..], 1).unwrap();
    assert!(told(read_inventory(other.as_slice())).contains("no inventory"));
}

#[test]
fn a_layer_that_is_known_is_not_read_again() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (layers(), layers()[1..].to_vec());
    let a = saved(&dir, "a.tar", &config(&one), &one);
    let b = saved(&dir, "b.tar", &config(&two), &two);
    let known = Layers::default();
    let first = read_with(&a, &known).unwrap();
    let second = read_with(&b, &known).unwrap();
    let shared = |path: &[u8]| {
        let node = |image: &Image| Arc::clone(&image.tree.get(path).unwrap().node);
        Arc::ptr_eq(&node(&first), &node(&second))
    };
    assert!(shared(b"d") && shared(b"etc/shadow"));
    // Even where it is not there any more.
    let bytes = fs::read(&b).unwrap();
    let at = bytes
        .windows(6)
        .position(|bytes| bytes == b"root:*")
        .unwrap();
    let mut damaged = bytes;
    damaged[at] = b'x';
    fs::write(&b, damaged).unwrap();
    assert_eq!(read_with(&b, &known).unwrap(), second);
    assert!(told(read(&b)).contains("it is damaged: its content has digest"));
}

#[test]
fn what_is_known_is_bounded() {
    let known = Layers::default();
    let layer = |held| {
        Arc::new(Layer {
            changes: vec![],
            held,
        })
    };
    known.put("a", &layer(REMEMBERED / 2));
    known.put("b", &layer(REMEMBERED / 2));
    assert!(known.get("a").is_some());
    known.put("c", &layer(1));
    assert!(known.get("a").is_some() && known.get("b").is_none() && known.get("c").is_some());
    known.put("d", &layer(REMEMBERED + 1));
    assert!(known.get("d").is_none());
}

#[test]
fn what_is_no_image_is_told() {
    let dir = TempDir::new().unwrap();
    let put = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let layers = layers();
    let whole = fs::read(saved(&dir, "whole.tar", &config(&layers), &layers)).unwrap();
    let wrong = saved(&dir, "wrong.tar", &config(&layers[1..]), &layers[..2]);
    for (path, why) in [
        (dir.path().join("nothing\n"), "No such file"),
        ("/dev/null".into(), "neither a file nor a folder"),
        (
            dir.path().to_owned(),
            "neither index.json nor manifest.json",
        ),
        (put("empty", b""), "neither index.json nor manifest.json"),
        (put("text", &[b'x'; 2000]), "damaged"),
        (
            put("gzip", b"\x1f\x8b\x08\0"),
            "unpack it with gunzip first",
        ),
        (
            put("cut", &whole[..whole.len() / 2]),
            "cannot read the image",
        ),
        (wrong, "it is damaged: its content has digest"),
    ] {
        let error = told(read(&path));
        assert!(error.contains(why), "{}: {error}", path.display());
        assert!(error.starts_with("cannot read the image"), "{error}");
    }
    let fewer = saved(&dir, "fewer.tar", &config(&layers[1..]), &layers);
    assert!(told(read(&fewer)).contains("do not agree"));
    // An image without layers is one.
    let none = saved(&dir, "none.tar", &config(&[]), &[]);
    assert_eq!(read(&none).unwrap().tree.entries().len(), 1);
}

#[test]
fn an_image_for_another_processor_is_read_where_it_is_the_only_one() {
    let dir = TempDir::new().unwrap();
    layout(dir.path(), &config(&[]), &[]);
    let path = dir.path().join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut write = |platforms: &[&str]| {
        let one = index["manifests"][0].clone();
        let manifests = platforms.iter().enumerate().map(|(n, arch)| {
            let mut manifest = one.clone();
            manifest["platform"] = json!({"os": "linux", "architecture": arch});
            if n > 0 {
                manifest["digest"] = digest_of(b"x").into();
            }
            manifest
        });
        index["manifests"] = manifests.collect();
        fs::write(&path, index.to_string()).unwrap();
        index["manifests"] = json!([one]);
    };
    let host = crate::image::arch();
    write(&["wasm", "unknown"]);
    read(dir.path()).unwrap();
    write(&[host, "wasm"]);
    read(dir.path()).unwrap();
    write(&["wasm", "s390x"]);
    assert!(told(read(dir.path())).contains("only for: `linux/wasm`, `linux/s390x`"));
    write(&[host, host]);
    assert!(told(read(dir.path())).contains("several images"));
}

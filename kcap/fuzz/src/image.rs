//! Images of compare: archives, and layers in an archive of which the rest is right.

use kcap::compare::comparison::Comparison;
use kcap::compare::{Image, Kind, differences, read, read_inventory, write_inventory};
use kcap::render::{PlainFormat, Style, write_comparison};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::rendered;
use crate::scratch::Scratch;

/// What stands between two layers.
const BETWEEN: &[u8] = b"\0--layer--\0";

/// Reads an image: after a first byte `A` an archive, else layers.
pub fn image(input: &[u8]) {
    let file = match input {
        [b'A', archive @ ..] => Scratch::new(archive),
        layers => Scratch::new(&archive(&split(layers))),
    };
    match read(&file.path()) {
        Ok(image) => {
            let again = read(&file.path()).expect("it was read before");
            assert_eq!(again, image, "read twice");
            check(&image);
        }
        Err(e) => {
            let line = format!("{e:#}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}

fn split(mut input: &[u8]) -> Vec<&[u8]> {
    let mut layers = Vec::new();
    while let Some(at) = input
        .windows(BETWEEN.len())
        .position(|part| part == BETWEEN)
    {
        layers.push(&input[..at]);
        input = &input[at + BETWEEN.len()..];
    }
    layers.push(input);
    layers
}

/// A docker archive with these layers.
fn archive(layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<String> = (layers.iter())
        .map(|layer| {
            let hash = Sha256::digest(layer);
            let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256:{digits}")
        })
        .collect();
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "Layers": names}]).to_string();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, bytes)
            .expect("there is memory");
    };
    add("manifest.json", manifest.as_bytes());
    add("config.json", config.to_string().as_bytes());
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    archive.into_inner().expect("there is memory")
}

fn check(image: &Image) {
    let entries = image.tree.entries();
    assert!(
        entries.is_sorted_by(|a, b| a.path < b.path),
        "sorted, each once"
    );
    for entry in entries {
        let path = entry.path.as_bytes();
        assert_eq!(image.tree.get(path), Some(entry));
        let Some(parent) = path.iter().rposition(|b| *b == b'/') else {
            continue;
        };
        assert!(
            path.split(|b| *b == b'/')
                .all(|n| !matches!(n, b"" | b"." | b".."))
        );
        let parent = image.tree.get(&path[..parent]);
        let folder = parent.is_some_and(|parent| matches!(parent.node.kind, Kind::Folder));
        assert!(folder, "{entry:?} is in no folder");
    }
    assert_eq!(differences(image, image), [], "it differs from itself");
    let mut inventory = Vec::new();
    write_inventory(image, &mut inventory).expect("there is memory");
    let again = read_inventory(&inventory[..]).expect("kcap reads what it wrote");
    assert_eq!(&again, image, "an inventory read again");

    let empty = Scratch::new(&archive(&[&[0; 1024]]));
    let empty = read(&empty.path()).expect("it is an image without files");
    let comparison = Comparison::of(("a", &empty), ("b", image), false);
    for (all, format) in [
        (true, PlainFormat::Table),
        (false, PlainFormat::Table),
        (true, PlainFormat::Json),
        (true, PlainFormat::Markdown),
    ] {
        rendered::text("a comparison", |to| {
            write_comparison(&comparison, all, format, Style::default(), to)
        });
    }
}

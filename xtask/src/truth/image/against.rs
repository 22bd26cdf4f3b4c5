//! kcap's comparison held against this one, which owes nothing to it: over generated images, both
//! find the same files and the same differences, or both find something wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use kcap::compare;
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::{Image, Reader, diff, tree};
use crate::lab::kaniko::Kaniko;
use crate::{corpus, sh};

/// A member of a layer.
#[derive(Clone, Debug)]
struct Member {
    kind: EntryType,
    path: String,
    link: &'static str,
    content: u8,
    mode: u32,
    owner: u64,
    xattr: Option<u8>,
}

fn member() -> impl Strategy<Value = Member> {
    let name = prop::sample::select(vec!["a", "b", "c", "a.b"]);
    let path = (
        prop::collection::vec(name, 1..4),
        prop::sample::select(vec!["", "", "", "", ".wh."]),
    );
    let path = path.prop_map(|(mut names, hidden): (Vec<&str>, _)| {
        let last = names.pop().unwrap_or_default();
        let folder: String = names.iter().map(|name| format!("{name}/")).collect();
        format!("{folder}{hidden}{last}")
    });
    let path = prop_oneof![
        20 => path,
        1 => prop::sample::select(vec!["a/.wh..wh..opq", "b/c/.wh..wh..opq", "c/.wh..wh.x"])
            .prop_map(str::to_owned),
    ];
    let kind = prop::sample::select(vec![
        EntryType::Regular,
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Fifo,
    ]);
    let link = prop::sample::select(vec!["a", "b", "/c", "a/b", "../c", "b/../a", "a.b/c"]);
    let mode = prop::sample::select(vec![0o644, 0o755, 0o6755]);
    (
        kind,
        path,
        link,
        0u8..3,
        mode,
        0u64..2,
        prop::option::weighted(0.2, 0u8..3),
    )
        .prop_map(|(kind, path, link, content, mode, owner, xattr)| Member {
            kind,
            path,
            link,
            content,
            mode,
            owner,
            xattr,
        })
}

fn layer(members: &[Member]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for member in members {
        if let Some(value) = member.xattr {
            // A value with a line's end and what looks like another record.
            let value = [b"\n13 path=abc\n", &[value][..]].concat();
            let pair = [("SCHILY.xattr.user.x", &value[..])];
            builder.append_pax_extensions(pair).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(member.kind);
        // A symlink's mode means nothing.
        header.set_mode(match member.kind {
            EntryType::Symlink => 0o777,
            _ => member.mode,
        });
        header.set_uid(member.owner);
        header.set_gid(0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(member.content.into()).unwrap();
        let old = header.as_old_mut();
        old.name[..member.path.len()].copy_from_slice(member.path.as_bytes());
        if matches!(member.kind, EntryType::Symlink | EntryType::Link) {
            old.linkname[..member.link.len()].copy_from_slice(member.link.as_bytes());
        }
        let content = match member.kind {
            EntryType::Regular => vec![member.content; usize::from(member.content)],
            _ => vec![],
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn image(dir: &Path, name: &str, layers: &[Vec<Member>]) -> PathBuf {
    let layers: Vec<Vec<u8>> = layers.iter().map(|members| layer(members)).collect();
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| {
            let hex: String = Sha256::digest(layer)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            format!("sha256:{hex}")
        })
        .collect();
    let config = json!({"rootfs": {"diff_ids": ids}}).to_string();
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "Layers": names}]).to_string();
    let path = dir.join(name);
    let mut builder = Builder::new(File::create(&path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("config.json", config.as_bytes());
    add("manifest.json", manifest.as_bytes());
    for (name, layer) in names.iter().zip(&layers) {
        add(name, layer);
    }
    builder.finish().unwrap();
    path
}

/// An entry in words that both have: kind, mode, owner, attributes, other names.
type Words = (
    String,
    u32,
    u64,
    BTreeMap<Vec<u8>, Vec<u8>>,
    BTreeSet<Vec<u8>>,
);

fn ours(image: &Image) -> BTreeMap<Vec<u8>, Words> {
    let groups = image.tree.groups();
    let entries = image.tree.iter().map(|(path, node)| {
        let kind = match &node.kind {
            tree::Kind::Directory => "folder".into(),
            tree::Kind::File(digest) => format!("{digest:02x?}"),
            tree::Kind::Symlink(target) => format!("to {}", target.escape_ascii()),
            tree::Kind::Character(major, minor) => format!("{major}:{minor}"),
            tree::Kind::Block(..) => "block".into(),
            tree::Kind::Fifo => "pipe".into(),
        };
        let names = groups
            .get(path)
            .into_iter()
            .flatten()
            .map(|path| path.to_vec());
        let words = (
            kind,
            node.mode,
            node.uid,
            node.xattrs.clone(),
            names.collect(),
        );
        (path.clone(), words)
    });
    entries.collect()
}

fn theirs(image: &compare::Image) -> BTreeMap<Vec<u8>, Words> {
    let all = image.tree.entries();
    // The root is no entry of a folder, and left out here.
    let entries = all.iter().skip(1).map(|entry| {
        let node = &entry.node;
        let kind = match &node.kind {
            compare::Kind::Folder => "folder".into(),
            compare::Kind::File { sha256, .. } => format!("{:02x?}", sha256.0),
            compare::Kind::Symlink { target } => format!("to {}", target.escape_ascii()),
            compare::Kind::Character { device } => device.to_string(),
            compare::Kind::Block { .. } => "block".into(),
            compare::Kind::Pipe => "pipe".into(),
        };
        let xattrs = node
            .xattrs
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()));
        let names = all
            .iter()
            .filter(|other| entry.links != 0 && other.links == entry.links)
            .map(|other| other.path.to_vec());
        let (mode, owner) = (node.mode.0.into(), node.owner.0.into());
        (
            entry.path.to_vec(),
            (kind, mode, owner, xattrs.collect(), names.collect()),
        )
    });
    entries.collect()
}

/// Places at which two images differ.
fn places(found: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    found.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn both_comparisons_see_the_same(
        layers in prop::collection::vec(prop::collection::vec(member(), 1..6), 2..4),
        dropped in 0usize..3,
    ) {
        let dir = TempDir::new().unwrap();
        let paths = [
            image(dir.path(), "a.tar", &layers),
            image(dir.path(), "b.tar", &layers[..layers.len() - dropped.min(layers.len() - 1)]),
        ];
        let mut images = Vec::new();
        for path in &paths {
            let one = Reader::default().read(path, false);
            let other = compare::read(path);
            match (one, other) {
                (Ok(one), Ok(other)) => {
                    prop_assert_eq!(ours(&one), theirs(&other));
                    images.push((one, other));
                }
                (Err(_), Err(_)) => {}
                // It is the stricter one: a hard link to a folder, a path through no folder.
                (Ok(_), Err(e)) => {
                    let why = format!("{e:#}");
                    let known = ["hard link to a folder", "which is no folder"];
                    prop_assert!(known.iter().any(|known| why.contains(known)), "{}", why);
                }
                (Err(e), Ok(_)) => prop_assert!(false, "kcap reads what is wrong: {e:#}"),
            }
        }
        if let [(a, kcap_a), (b, kcap_b)] = &images[..] {
            let found = diff(a, b).into_iter();
            let expected = places(found.filter_map(|d| {
                // Where a name is missing, kcap does not say so of the others once more.
                let how: Vec<String> = d.how.iter().map(ToString::to_string).collect();
                (how != ["hard links"]).then_some(d.place)
            }));
            let found = compare::differences(kcap_a, kcap_b).into_iter();
            let found = places(found.filter_map(|d| {
                (d.what.name() != "hard-link").then(|| d.place.to_string())
            }));
            prop_assert_eq!(found, expected);
        }
    }
}

/// Images of the corpus by a real Kaniko: both read them alike, find the same places, and kcap finds
/// no difference between equal builds that decides.
#[test]
#[ignore = "builds with a real Kaniko, as root, for minutes: cargo test -p xtask real -- --ignored"]
fn images_of_a_real_kaniko_look_the_same_to_both() {
    const BUILDS: [&str; 6] = [
        "acl-and-xattr",
        "apt-openssh-client",
        "chmod-foreign-group",
        "device-nodes",
        "hardlink-foreign",
        "metadata",
    ];
    const FSETID: usize = 4;
    let kaniko = Kaniko::open().unwrap();
    let names = BUILDS.map(str::to_owned);
    let layers = compare::Layers::default();
    let mut seen = BTreeSet::new();
    for subject in corpus::subjects(&sh::workspace().join("corpus"), &names).unwrap() {
        let place = TempDir::new().unwrap();
        let recipe = subject.recipe(&place.path().join("context")).unwrap();
        let sets = [subject.start; 3]
            .into_iter()
            .chain([subject.start.without(FSETID)]);
        let images: Vec<(Image, compare::Image)> = sets
            .filter_map(|set| {
                let built = kaniko.build(&recipe, set).unwrap();
                let path = built.image();
                // Without FSETID it may fail.
                path.exists().then(|| {
                    let one = Reader::default().read(&path, false).unwrap();
                    let other = compare::read_with(&path, &layers).unwrap();
                    assert_eq!(ours(&one), theirs(&other), "{}", subject.name);
                    (one, other)
                })
            })
            .collect();
        let mut noise = compare::Noise::default();
        noise.learn(&compare::differences(&images[0].1, &images[1].1));
        assert!(noise.is_steady(), "{}: {noise:?}", subject.name);
        let equal = compare::judge(&images[0].1, &images[2].1, &noise);
        assert!(equal.same(), "{}: {equal:?}", subject.name);
        for (one, other) in &images[1..] {
            let expected = diff(&images[0].0, one).into_iter().map(|d| d.place);
            let found = compare::differences(&images[0].1, other);
            let path = |d: &compare::Difference| d.path().map(ToString::to_string);
            assert_eq!(
                places(found.iter().filter_map(path)),
                places(expected.filter(|place| place.starts_with('/'))),
                "{}",
                subject.name
            );
            let judged = compare::judge(&images[0].1, other, &noise);
            seen.extend(
                judged
                    .decisive
                    .iter()
                    .map(|d| format!("{}: {d}", subject.name)),
            );
        }
    }
    kaniko.close().unwrap();
    // Without FSETID setgid bits are lost, and with the folder's its group for what is made in it.
    let expected = [
        "acl-and-xattr: /srv/shared/a: owner 65534:50 -> 65534:0",
        "acl-and-xattr: /srv/shared: mode 2775 -> 0775",
        "apt-openssh-client: /usr/bin/ssh-agent: mode 2755 -> 0755",
    ];
    assert_eq!(seen, places(expected.map(str::to_owned)));
}

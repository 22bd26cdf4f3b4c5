use super::*;
use crate::compare::{
    differences,
    made::{Attributes, Packed, error, image},
};

fn paths(layers: &[Packed]) -> Vec<String> {
    let image = image(layers);
    let entries = image.tree.entries().iter();
    entries.map(|entry| entry.path.to_string()).collect()
}

#[test]
fn every_kind_with_all_that_it_is() {
    let image = image(&[Packed::default()
        .member(
            EntryType::Directory,
            b"./",
            b"",
            b"",
            Attributes {
                mode: 0o1777,
                ..Attributes::default()
            },
        )
        .mode("/usr/bin/su", 0o104755)
        .extended(&[
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\x0a\0\n=\n",
            ),
            ("SCHILY.xattr.user.empty", b""),
            ("uid", b"100000"),
            ("path", b"long/\xff"),
        ])
        .file("short", "content")
        .symlink("bin", "usr/../usr/bin")
        .device("dev/null", EntryType::Char, 1, 3)
        .device("dev/sda", EntryType::Block, 8, 0)
        .device("pipe", EntryType::Fifo, 0, 0)
        .link("usr/bin/other", "usr/bin/su")]);
    let kind = |path: &str| {
        let entry = image.tree.get(path.as_bytes()).unwrap();
        (
            entry.node.kind.name(),
            entry.node.mode.to_string(),
            entry.links,
        )
    };
    assert_eq!(kind(""), ("folder", "1777".into(), 0));
    assert_eq!(kind("usr"), ("folder", "0755".into(), 0));
    assert_eq!(kind("usr/bin/su"), ("file", "4755".into(), 1));
    assert_eq!(kind("usr/bin/other"), ("file", "4755".into(), 1));
    assert_eq!(kind("bin").0, "symlink");
    assert_eq!(kind("pipe").0, "pipe");
    let device = Pair(1, 3);
    let null = image.tree.get(b"dev/null").unwrap();
    assert_eq!(null.node.kind, Kind::Character { device });
    let long = image.tree.get(b"long/\xff").unwrap();
    assert_eq!(long.node.owner, Pair(100_000, 0));
    let xattrs: Vec<_> = long
        .node
        .xattrs
        .iter()
        .map(|(k, v)| (&k[..], &v[..]))
        .collect();
    assert_eq!(
        xattrs,
        [
            (&b"security.capability"[..], &b"\x01\0\0\x02\x0a\0\n=\n"[..]),
            (b"user.empty", b""),
        ]
    );
    let Kind::File { size, sha256, .. } = long.node.kind else {
        panic!("{long:?}");
    };
    assert_eq!(
        (size, sha256),
        (7, Digest(Sha256::digest("content").into()))
    );
}

#[test]
fn old_archives_name_folders_by_a_slash() {
    let old = Packed::default().file("a/", "");
    assert!(differences(&image(&[old]), &image(&[Packed::default().folder("a")])).is_empty());
}

#[test]
fn what_is_hidden_is_of_lower_layers() {
    let lower = Packed::default()
        .file("a/x", "")
        .file("a/y", "")
        .file("ab", "")
        .file("b/x", "");
    // Wherever they stand in their layer.
    let upper = Packed::default()
        .file("a/x", "new")
        .file("a/.wh.x", "")
        .file("a/.wh..wh..opq", "")
        .file(".wh.b", "")
        .file(".wh.not-there", "")
        .file("not/.wh.there", "")
        .file("a/.wh..wh.plnk", "");
    assert_eq!(paths(&[lower, upper]), ["", "a", "a/x", "ab"]);
}

#[test]
fn members_below_a_link_are_where_it_leads() {
    let lower = Packed::default()
        .file("usr/bin/a", "")
        .symlink("bin", "/../usr/bin")
        .symlink("up", "usr/bin/../..");
    let upper = Packed::default()
        .file("bin/b", "")
        .file("up/up/etc/c", "")
        .file("bin/.wh.a", "");
    assert_eq!(
        paths(&[lower, upper]),
        [
            "",
            "bin",
            "etc",
            "etc/c",
            "up",
            "usr",
            "usr/bin",
            "usr/bin/b"
        ]
    );
    let circle = Packed::default()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", "");
    assert!(error(&[circle]).contains("leads in circles"));
    // Where it leads to nothing, folders are made.
    let dangling = Packed::default().symlink("a", "no/where").file("a/x", "");
    assert_eq!(
        paths(&[dangling]),
        ["", "a", "no", "no/where", "no/where/x"]
    );
}

#[test]
fn the_last_of_several_members_counts() {
    let layer = Packed::default()
        .file("a/x", "1")
        .file("a", "2")
        .file("b", "1")
        .folder("b")
        .file("b/y", "")
        .symlink("c", "b")
        .file("c", "");
    assert_eq!(paths(&[layer]), ["", "a", "b", "b/y", "c"]);
    // A folder keeps what is in it, with new attributes.
    let lower = Packed::default().file("d/x", "");
    let upper = Packed::default().member(
        EntryType::Directory,
        b"d/",
        b"",
        b"",
        Attributes {
            mode: 0o700,
            ..Attributes::default()
        },
    );
    let image = image(&[lower, upper]);
    assert!(image.tree.get(b"d/x").is_some());
    assert_eq!(image.tree.get(b"d").unwrap().node.mode, Mode(0o700));
}

#[test]
fn hard_links_lead_to_lower_layers_too() {
    let lower = Packed::default().file("a", "").link("b", "a");
    let upper = Packed::default().link("c", "/b").link("c", "./c");
    let links = |image: &crate::compare::Image, path: &[u8]| image.tree.get(path).unwrap().links;
    let two = image(&[lower.clone(), upper]);
    assert_eq!((links(&two, b"a"), links(&two, b"c")), (1, 1));
    // A new file of that name is another.
    let again = image(&[lower, Packed::default().file("a", "")]);
    assert_eq!((links(&again, b"a"), links(&again, b"b")), (0, 0));
    for (path, target, why) in [
        ("x", "missing", "which is not there"),
        ("x", "", "it is a link to no path"),
        ("x", "../a", "contains `..`"),
        ("x", "folder", "a hard link to a folder"),
        ("x", "/", "which is not there"),
    ] {
        let layer = Packed::default().folder("folder").link(path, target);
        assert!(error(&[layer]).contains(why), "{target}");
    }
}

#[test]
fn what_no_layer_has_is_refused() {
    for (layer, why) in [
        (Packed::default().file("../x", ""), "contains `..`"),
        (Packed::default().file("a/../x", ""), "contains `..`"),
        (Packed::default().file(".wh.", ""), "hides nothing"),
        (Packed::default().file("a/.wh...", ""), "hides nothing"),
        (
            Packed::default().file("a", "").file("a/b", ""),
            "`a` is no folder",
        ),
        (Packed::default().file(".", ""), "the root is no folder"),
        (Packed::default().symlink("a", ""), "a link to no path"),
        (
            Packed::default()
                .extended(&[("GNU.sparse.major", b"1")])
                .file("a", ""),
            "a sparse file",
        ),
        (
            Packed::default().member(EntryType::GNUSparse, b"a", b"", b"", Attributes::default()),
            "a sparse file",
        ),
        (
            Packed::default().member(EntryType::Link, b"a", b"b", b"x", Attributes::default()),
            "it has content",
        ),
        (
            Packed::default().member(EntryType::new(b'V'), b"a", b"", b"", Attributes::default()),
            "kind that layers have not: 'V'",
        ),
        (
            Packed::default()
                .extended(&[("path", &[b'a'; 5000])])
                .file("a", ""),
            "longer than 4096 bytes",
        ),
        (
            Packed::default().extended(&[("uid", b"-1")]).file("a", ""),
            "damaged extended header",
        ),
        (
            Packed::default()
                .extended(&[("path", b"a\0b")])
                .file("a", ""),
            "damaged header",
        ),
    ] {
        let error = error(&[layer]);
        assert!(error.contains(why), "{error}");
        assert!(!error.contains(char::is_control), "{error}");
    }
}

#[test]
fn deep_paths_in_great_number_are_refused_in_time() {
    // Each makes two thousand folders that no member speaks of.
    let deep = |n: usize| {
        let mut path = format!("{n}");
        path.push_str(&"/a".repeat(2000));
        path
    };
    let mut layer = Packed::default();
    for n in 0..150 {
        layer = layer
            .extended(&[("path", deep(n).as_bytes())])
            .file("a", "");
    }
    assert!(error(&[layer]).contains("too many entries"));
}

#[test]
fn memory_is_bounded() {
    let budget = Budget {
        held: 1000.into(),
        unpacked: 65536.into(),
    };
    let few = Packed::default().file("a", "").file("b", "").finish();
    read(few.as_slice(), &budget).unwrap();
    let many = (0..10).fold(Packed::default(), |layer, n| layer.file(&n.to_string(), ""));
    let error = format!("{:#}", read(many.finish().as_slice(), &budget).unwrap_err());
    assert!(error.contains("too many entries"), "{error}");
    let budget = Budget {
        unpacked: 4096.into(),
        ..Budget::default()
    };
    let large = Packed::default().file("a", &"x".repeat(5000)).finish();
    let error = format!("{:#}", read(large.as_slice(), &budget).unwrap_err());
    assert!(error.contains("unpacks to more than"), "{error}");
}

proptest::proptest! {
    /// A layer with bytes overwritten or cut off is read or refused, with one plain line.
    #[test]
    fn a_damaged_layer_is_no_panic(
        changes in proptest::collection::vec((0usize..6000, proptest::num::u8::ANY), 1..8),
        end in 0usize..6000,
    ) {
        let xattr: (&str, &[u8]) = ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n");
        let mut bytes = Packed::default()
            .extended(&[xattr, ("path", b"usr/bin/long")])
            .file("x", "content")
            .symlink("a", "usr/../b")
            .device("null", EntryType::Char, 1, 3)
            .file("a/.wh..wh..opq", "")
            .link("c", "x")
            .finish();
        bytes.truncate(bytes.len() - end.min(bytes.len()) / 4);
        for (at, byte) in changes {
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        // Headers that were changed are to be believed.
        for header in bytes.chunks_exact_mut(512) {
            if &header[257..262] == b"ustar" {
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        match read(bytes.as_slice(), &Budget::default()) {
            Ok((layer, _)) => {
                let _ = crate::compare::Tree::flatten([layer.changes.as_slice()]);
            }
            Err(e) => {
                let text = format!("{e:#}");
                assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
    }
}

use proptest::prelude::*;
use tar::EntryType;

use super::*;
use crate::compare::made::{Packed, image};

fn lines(a: &[Packed], b: &[Packed]) -> Vec<String> {
    let found = differences(&image(a), &image(b));
    found.iter().map(ToString::to_string).collect()
}

fn capability(bytes: &'static [u8]) -> Packed {
    let xattr = ("SCHILY.xattr.security.capability", bytes);
    Packed::default()
        .extended(&[xattr])
        .file("usr/bin/ping", "")
}

/// `cap_net_raw=ep`
const NET_RAW: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// `cap_chown,cap_net_raw=p cap_kill=i [rootid=1000]`
const SEVERAL: &[u8] = b"\0\0\0\x03\x01\x20\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\xe8\x03\0\0";

#[test]
fn each_kind_of_difference_is_one_line() {
    let one = Packed::default;
    let cases: Vec<(Packed, Packed, &str)> = vec![
        (
            one().mode("x", 0o6755),
            one().mode("x", 0o755),
            "/x: mode 6755 -> 0755",
        ),
        (
            one().owner("x", 0, 0),
            one().owner("x", 5, 70_000),
            "/x: owner 0:0 -> 5:70000",
        ),
        (one().file("x", ""), one(), "/x: missing"),
        (
            one(),
            one().file("x\n\x1b[2J", ""),
            "/x\\n\\u{1b}[2J: added",
        ),
        (one().file("x", ""), one().folder("x"), "/x: file -> folder"),
        (
            one().symlink("x", "a"),
            one().symlink("x", "b"),
            "/x: leads to a -> b",
        ),
        (
            one().file("x", "a"),
            one().file("x", "b"),
            "/x: content (1 bytes)",
        ),
        (
            one().file("x", "a"),
            one().file("x", ""),
            "/x: content (1 -> 0 bytes)",
        ),
        (
            one().device("x", EntryType::Char, 1, 3),
            one().device("x", EntryType::Char, 1, 5),
            "/x: device 1:3 -> 1:5",
        ),
        (
            capability(NET_RAW),
            one().file("usr/bin/ping", ""),
            "/usr/bin/ping: security.capability missing (cap_net_raw=ep)",
        ),
        (
            capability(NET_RAW),
            capability(SEVERAL),
            "/usr/bin/ping: security.capability cap_net_raw=ep -> cap_chown,cap_net_raw=p \
             cap_kill=i [rootid=1000]",
        ),
        (
            capability(b"\x01"),
            capability(b"\xff"),
            "/usr/bin/ping: security.capability \\u{1} -> \\xff",
        ),
    ];
    for (a, b, line) in cases {
        assert_eq!(lines(&[a], &[b]), [line]);
    }
}

#[test]
fn layers_and_times_and_the_order_of_members_are_no_difference() {
    let file = |n: u64| {
        let with = crate::compare::made::Attributes {
            mtime: n,
            ..Default::default()
        };
        Packed::default().member(EntryType::Regular, b"x", b"", b"1", with)
    };
    let apart = [file(1), Packed::default().file("y", "2")];
    let together = [Packed::default()
        .file("y", "old")
        .file("y", "2")
        .file("x", "1")];
    assert!(lines(&apart, &together).is_empty());
}

#[test]
fn hard_links_differ_where_names_that_both_have_go_other_ways() {
    let three = Packed::default()
        .file("a", "")
        .link("b", "a")
        .link("c", "a");
    let two = Packed::default().file("a", "").link("b", "a").file("c", "");
    let none = Packed::default().file("a", "").file("b", "").file("c", "");
    let missing = Packed::default().file("a", "").link("c", "a");
    let other = Packed::default().file("b", "").link("c", "b").file("a", "");
    let of = |a: &Packed, b: &Packed| lines(std::slice::from_ref(a), std::slice::from_ref(b));
    assert!(of(&three, &three).is_empty());
    assert_eq!(
        of(&three, &two),
        [
            "/a: no hard link of /c",
            "/b: no hard link of /c",
            "/c: no hard link of /a, /b"
        ]
    );
    assert_eq!(
        of(&none, &two),
        ["/a: hard link of /b", "/b: hard link of /a"]
    );
    // What is missing is said once.
    assert_eq!(of(&three, &missing), ["/b: missing"]);
    assert_eq!(
        of(&two, &other),
        [
            "/a: no hard link of /b",
            "/b: no hard link of /a, hard link of /c",
            "/c: hard link of /b",
        ]
    );
    let many = (0..100).fold(Packed::default().file("a", ""), |layer, n| {
        layer.link(&format!("x{n:02}"), "a")
    });
    let alone = (0..100).fold(Packed::default().file("a", ""), |layer, n| {
        layer.file(&format!("x{n:02}"), "")
    });
    let found = of(&many, &alone);
    assert_eq!(
        (found.len(), &*found[0]),
        (101, "/a: no hard link of /x00, /x01, /x02 and more")
    );
}

#[test]
fn what_a_container_starts_with_and_history_count() {
    let mut a = image(&[]);
    let mut b = a.clone();
    let step = |text: &str| Step {
        created_by: text.into(),
        empty_layer: false,
    };
    a.history = ["FROM", "RUN a", "RUN c"].map(step).to_vec();
    b.history = ["FROM", "RUN b\n", "RUN x", "RUN c"].map(step).to_vec();
    b.history[2].empty_layer = true;
    b.config.insert("Cmd".into(), serde_json::json!(["sh"]));
    b.config.insert("Env.A".into(), "c".into());
    a.config.insert("User".into(), "app".into());
    let found = differences(&a, &b);
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "config Cmd: added ([\"sh\"])",
            "config Env.A: \"b\" -> \"c\"",
            "config User: missing (\"app\")",
            "history 2: RUN a -> RUN b\\n",
            "history 3: added (RUN x (no layer))",
        ]
    );
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<Difference>>(&json).unwrap(),
        found
    );
}

#[test]
fn json_says_where_what_from_and_to() {
    let a = capability(NET_RAW).mode("x", 0o4755);
    let b = Packed::default()
        .file("usr/bin/ping", "")
        .mode("x", 0o755)
        .symlink("y", "a\\b");
    let found = differences(&image(&[a]), &image(&[b]));
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(
        json,
        serde_json::json!([
            {
                "path": "/usr/bin/ping", "what": "xattr", "name": "security.capability",
                "from": "\u{1}\0\0\u{2}\0 \0\0\0\0\0\0\0\0\0\0\0\0\0\0", "to": null,
            },
            {"path": "/x", "what": "mode", "from": "4755", "to": "0755"},
            {
                "path": "/y", "what": "added", "entry":
                    {"type": "symlink", "target": "a\\\\b", "mode": "0777", "owner": "0:0"},
            },
        ])
    );
    let again: Vec<Difference> = serde_json::from_value(json).unwrap();
    assert_eq!(again, found);
}

proptest! {
    /// Hard links by the definition: for each name that both have, the other names that both have.
    #[test]
    fn hard_links_are_compared_by_what_they_mean(
        ours in prop::collection::vec(0u32..4, 8),
        theirs in prop::collection::vec(0u32..4, 8),
        had in prop::collection::vec(0u8..4, 8),
    ) {
        let tree = |groups: &[u32], without: u8| {
            let mut named: Vec<(usize, u32)> = groups.iter().copied().enumerate().collect();
            named.retain(|(n, _)| had[*n] != without);
            let size = |group| named.iter().filter(|(_, other)| *other == group).count();
            let entries = named.iter().map(|(n, group)| Entry {
                path: format!("{n}").as_str().into(),
                node: Arc::new(Node {
                    kind: Kind::Pipe,
                    mode: Mode(0),
                    owner: Pair(0, 0),
                    xattrs: BTreeMap::new(),
                }),
                links: if *group == 0 || size(*group) == 1 { 0 } else { *group },
            });
            let mut image = image(&[]);
            image.tree = crate::compare::Tree::sorted(entries.collect()).unwrap();
            image
        };
        let (a, b) = (tree(&ours, 1), tree(&theirs, 2));
        let mates = |image: &Image, other: &Image, of: &Entry| -> Vec<ByteString> {
            let same = |e: &&Entry| of.links != 0 && e.links == of.links && e.path != of.path;
            let both = |e: &&Entry| other.tree.get(&e.path).is_some();
            image.tree.entries().iter().filter(same).filter(both).map(|e| e.path.clone()).collect()
        };
        let slashed = |names: &[ByteString], but: &[ByteString]| -> Vec<ByteString> {
            names
                .iter()
                .filter(|name| !but.contains(name))
                .map(|name| format!("/{name}").as_str().into())
                .collect()
        };
        let mut expected = vec![];
        for entry in a.tree.entries() {
            if let Some(other) = b.tree.get(&entry.path) {
                let (one, two) = (mates(&a, &b, entry), mates(&b, &a, other));
                if one != two {
                    expected.push((slashed(&one, &two), slashed(&two, &one)));
                }
            }
        }
        let found: Vec<_> = differences(&a, &b)
            .into_iter()
            .filter_map(|d| match d.what {
                What::HardLink { from, to } => Some((from, to)),
                _ => None,
            })
            .collect();
        prop_assert_eq!(found, expected);
    }
}

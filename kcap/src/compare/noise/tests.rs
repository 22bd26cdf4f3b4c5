use super::*;
use crate::compare::{
    differences,
    made::{Packed, image},
};

fn learned(a: &[Packed], b: &[Packed]) -> Noise {
    let mut noise = Noise::default();
    noise.learn(&differences(&image(a), &image(b)));
    noise
}

#[test]
fn every_rule_has_a_name_of_its_own_and_a_path() {
    let cases = [
        ("log", "/var/log/dpkg.log", "/srv/var/log/x"),
        (
            "apt-cache",
            "/var/cache/apt/pkgcache.bin",
            "/var/lib/apt/extended_states",
        ),
        (
            "apk-cache",
            "/lib/apk/db/scripts.tar",
            "/lib/apk/db/installed",
        ),
        (
            "dnf-cache",
            "/var/lib/dnf/history.sqlite",
            "/var/lib/dnf/modulefailsafe",
        ),
        (
            "rpm-database",
            "/usr/lib/sysimage/rpm/rpmdb.sqlite",
            "/usr/lib/rpm/macros",
        ),
        (
            "ldconfig-cache",
            "/var/cache/ldconfig/aux-cache",
            "/etc/ld.so.cache",
        ),
        (
            "font-cache",
            "/var/cache/fontconfig/x.cache-7",
            "/etc/fonts/fonts.conf",
        ),
        (
            "python-bytecode",
            "/usr/lib/python3/x.pyc",
            "/usr/lib/python3/x.py",
        ),
        (
            "ssh-host-key",
            "/etc/ssh/ssh_host_rsa_key",
            "/etc/ssh/ssh_config",
        ),
        (
            "self-signed-certificate",
            "/etc/ssl/private/ssl-cert-snakeoil.key",
            "/etc/ssl/certs/ca-certificates.crt",
        ),
        (
            "java-keystore",
            "/etc/ssl/certs/java/cacerts",
            "/etc/ssl/certs/java/x",
        ),
        ("machine-id", "/etc/machine-id", "/etc/hostname"),
        (
            "random-seed",
            "/root/.gnupg/random_seed",
            "/var/lib/systemd/x",
        ),
    ];
    for (name, path, other) in cases {
        assert_eq!(
            Rule::of(path.as_bytes()).map(Rule::name),
            Some(name),
            "{path}"
        );
        assert_eq!(
            Rule::of(&path.as_bytes()[1..]).map(Rule::name),
            Some(name),
            "{path}"
        );
        assert_eq!(Rule::of(other.as_bytes()), None, "{other}");
    }
    let names: BTreeSet<&str> = Rule::all().map(Rule::name).collect();
    // `shadow-day` has a test of its own.
    assert_eq!(
        (names.len(), CLASSES.len()),
        (cases.len() + 1, cases.len() + 1)
    );
    assert!(Rule::all().all(|rule| !rule.reason().is_empty()));
    assert_eq!(Rule::of(b"/etc/shadow"), None);
}

#[test]
fn a_day_alone_is_left_out_of_shadow() {
    let shadow = |day: &str, hash: &str| {
        let text = format!("root:*:19000:0:99999:7:::\napp:{hash}:{day}:0:99999:7:::\n");
        Packed::default().file("etc/shadow", &text)
    };
    let only = |a: Packed, b: Packed| {
        let found = differences(&image(&[a]), &image(&[b]));
        match &found[..] {
            [
                Difference {
                    what: What::Content { only, .. },
                    ..
                },
            ] => only.map(Rule::name),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        only(shadow("20000", "!"), shadow("20001", "!")),
        Some("shadow-day")
    );
    assert_eq!(only(shadow("20000", "!"), shadow("20001", "*")), None);
    assert_eq!(only(shadow("20000", "!"), shadow("20000", "")), None);
    let short = Packed::default().file("etc/shadow", "a:b");
    assert_eq!(
        only(short, Packed::default().file("etc/shadow", "a:c")),
        None
    );
}

#[test]
fn content_and_metadata_on_which_builds_disagree_are_learned_apart() {
    let a = Packed::default()
        .file("x", "1")
        .mode("y", 0o600)
        .file("z", "");
    let b = Packed::default()
        .file("x", "2")
        .mode("y", 0o644)
        .file("z", "");
    let noise = learned(&[a], &[b]);
    assert_eq!(noise.content, BTreeSet::from(["/x".into()]));
    let mode = (Place::Path("/y".into()), "mode".to_owned());
    assert_eq!(noise.metadata, BTreeSet::from([mode]));
    assert!(!noise.is_steady());
    assert_eq!(noise.pairs, 1);
    let json = serde_json::to_string(&noise).unwrap();
    assert_eq!(serde_json::from_str::<Noise>(&json).unwrap(), noise);
}

#[test]
fn names_that_are_chosen_at_random_are_learned_as_such() {
    let at = |name: &str| Packed::default().file(name, "");
    let name = |one: &str, other: &str| {
        let noise = learned(&[at(one)], &[at(other)]);
        let shown = noise.names.iter().map(|name| {
            format!(
                "{}|{}|{}|{:?}",
                name.folder, name.prefix, name.suffix, name.length
            )
        });
        let shown: Vec<String> = shown.collect();
        assert_eq!(shown.is_empty(), !noise.presence.is_empty(), "{noise:?}");
        shown.into_iter().next()
    };
    let is = |text: &str| Some(text.to_owned());
    assert_eq!(
        name("tmp/tmp.a1B2c3", "tmp/tmp.x1Y2z3"),
        is("/tmp|tmp.||Some(6)")
    );
    assert_eq!(
        name("tmp/npm-12-ab.log", "tmp/npm-1234-ab.log"),
        is("/tmp|npm-|-ab.log|None")
    );
    // `aa` is in both by chance.
    assert_eq!(name("tmp/aa11", "tmp/aa22"), is("/tmp|||Some(4)"));
    // Nothing in common.
    assert_eq!(name("tmp/one", "tmp/three"), None);
    assert_eq!(name("tmp/abc", "tmp/xyz"), None);
    // Another kind, another owner: no other name of the same.
    let folder = learned(
        &[at("tmp/tmp.aaaa")],
        &[Packed::default().folder("tmp/tmp.bbbb")],
    );
    assert!(
        folder.names.is_empty() && folder.presence.len() == 2,
        "{folder:?}"
    );
    // What is in a folder goes with it.
    let noise = learned(&[at("tmp/tmp.aaaa/x")], &[at("tmp/tmp.bbbb/x")]);
    assert!(
        noise.names.len() == 1 && noise.presence.is_empty(),
        "{noise:?}"
    );
    let noise = learned(&[at("run/x/y")], &[at("run/z")]);
    let presence: Vec<String> = noise.presence.iter().map(ToString::to_string).collect();
    assert_eq!(presence, ["/run/x", "/run/x/y", "/run/z"]);
}

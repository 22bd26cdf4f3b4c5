use super::*;
use crate::compare::made::{Packed, image};

fn lines(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

fn one(file: &str, content: &str) -> Packed {
    Packed::default().file(file, content)
}

fn learned(a: Packed, b: Packed) -> Noise {
    let mut noise = Noise::default();
    noise.learn(&differences(&image(&[a]), &image(&[b])));
    noise
}

fn judged(a: Packed, b: Packed, noise: &Noise) -> Judged {
    judge(&image(&[a]), &image(&[b]), noise)
}

#[test]
fn content_decides_where_reference_builds_agree() {
    let (a, b) = (one("x", "1").file("y", "1"), one("x", "2").file("y", "2"));
    // One reference: who knows.
    let found = judged(a.clone(), b.clone(), &Noise::default());
    assert_eq!((found.undecided.len(), found.same()), (2, false));
    // Two that agree.
    let found = judged(a.clone(), b.clone(), &learned(a.clone(), a.clone()));
    assert_eq!((found.decisive.len(), found.same()), (2, false));
    // Two that do not, on one.
    let noise = learned(a.clone(), one("x", "3").file("y", "1"));
    let found = judged(a.clone(), b.clone(), &noise);
    assert_eq!(lines(&found.decisive), ["/y: content (1 bytes)"]);
    assert_eq!(lines(&found.unstable), ["/x: content (1 bytes)"]);
    // Two that do not, on both.
    let found = judged(a.clone(), a.clone(), &noise);
    assert_eq!(found, Judged::default());
}

#[test]
fn metadata_decides_whatever_the_content() {
    let a = Packed::default().mode("var/log/x", 0o640).mode("x", 0o4755);
    let b = Packed::default().mode("var/log/x", 0o644).mode("x", 0o755);
    let mut noise = learned(one("x", "1").file("var/log/x", "1"), one("x", "2"));
    noise.presence.clear();
    let found = judged(a, b, &noise);
    assert_eq!(
        lines(&found.decisive),
        ["/var/log/x: mode 0640 -> 0644", "/x: mode 4755 -> 0755"]
    );
    let found = judged(one("var/log/x", ""), Packed::default(), &Noise::default());
    assert_eq!(
        lines(&found.decisive),
        ["/var: missing", "/var/log: missing", "/var/log/x: missing"]
    );
}

#[test]
fn metadata_on_which_reference_builds_disagree_decides_nothing() {
    let with = |mode| Packed::default().mode("x", mode);
    let noise = learned(with(0o600), with(0o644));
    let found = judged(with(0o600), with(0o4755), &noise);
    assert_eq!(lines(&found.unstable), ["/x: mode 0600 -> 4755"]);
    assert!(found.same());
    let found = judged(with(0o600), Packed::default().owner("x", 1, 1), &noise);
    assert_eq!(lines(&found.decisive), ["/x: owner 0:0 -> 1:1"]);
}

#[test]
fn rules_of_noise_are_named() {
    let (a, b) = (
        one("var/log/x", "1").file("a.pyc", "1"),
        one("var/log/x", "2").file("a.pyc", "2"),
    );
    let found = judged(a.clone(), b, &learned(a.clone(), a));
    let rules: Vec<&str> = found.noise.iter().map(|(rule, _)| rule.name()).collect();
    assert_eq!(rules, ["python-bytecode", "log"]);
    assert!(found.same());
    let shadow = |day: u32| one("etc/shadow", &format!("root:*:{day}:0:99999:7:::\n"));
    let found = judged(
        shadow(1),
        shadow(2),
        &Noise {
            pairs: 1,
            ..Noise::default()
        },
    );
    assert_eq!(found.noise[0].0.name(), "shadow-day");
    assert!(found.same());
}

#[test]
fn a_random_name_stands_for_one_that_is_like_it() {
    let noise = learned(one("tmp/t.aaaa/x", ""), one("tmp/t.bbbb/x", ""));
    let found = judged(one("tmp/t.aaaa/x", "1"), one("tmp/t.cccc/x", "2"), &noise);
    assert!(found.same(), "{found:?}");
    assert_eq!(
        lines(&found.unstable),
        [
            "/tmp/t.aaaa: missing",
            "/tmp/t.aaaa/x: missing",
            "/tmp/t.cccc: added",
            "/tmp/t.cccc/x: added"
        ]
    );
    // Without one in its place, it is missing.
    let found = judged(
        one("tmp/t.aaaa/x", ""),
        Packed::default().folder("tmp"),
        &noise,
    );
    assert_eq!(
        lines(&found.decisive),
        ["/tmp/t.aaaa: missing", "/tmp/t.aaaa/x: missing"]
    );
    // With another mode, too.
    let found = judged(
        one("tmp/t.aaaa/x", ""),
        Packed::default().mode("tmp/t.cccc/x", 0o600),
        &noise,
    );
    assert_eq!(
        lines(&found.decisive),
        ["/tmp/t.aaaa/x: missing", "/tmp/t.cccc/x: added"]
    );
    // What may be there or not.
    let noise = learned(one("run/x", ""), Packed::default().folder("run"));
    assert!(judged(one("run/x", ""), Packed::default().folder("run"), &noise).same());
    assert!(!judged(one("run/y", ""), Packed::default().folder("run"), &noise).same());
}

#[test]
fn history_is_told_and_decides_nothing() {
    let a = image(&[]);
    let mut b = a.clone();
    b.history.push(crate::compare::Step::default());
    let found = judge(&a, &b, &Noise::default());
    assert_eq!((found.history.len(), found.same()), (1, true));
    b.config.insert("User".into(), "x".into());
    assert!(!judge(&a, &b, &Noise::default()).same());
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Judged>(&json).unwrap(), found);
}

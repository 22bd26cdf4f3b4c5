//! Kaniko's flags as words: what a pod's own list of them says, and how it is changed for a trial. Pure.

/// A flag: long name, short name, whether a value follows.
type Flag = (&'static str, Option<char>, bool);

/// Flags by which an image goes elsewhere, or work is left out.
const DROPPED: &[Flag] = &[
    DESTINATION,
    ("no-push", None, false),
    ("no-push-cache", None, false),
    ("push-ignore-immutable-tag-errors", None, false),
    ("tar-path", None, true),
    ("tarPath", None, true),
    ("oci-layout-path", None, true),
    ("digest-file", None, true),
    ("image-name-with-digest-file", None, true),
    ("image-name-tag-with-digest-file", None, true),
    ("cache", None, false),
    ("cache-repo", None, true),
    ("cache-copy-layers", None, false),
    ("cache-run-layers", None, false),
];
/// Where an image is pushed to.
const DESTINATION: Flag = ("destination", Some('d'), true);
/// What is built.
pub(super) const DOCKERFILE: Flag = ("dockerfile", Some('f'), true);
/// What it is built from.
pub(super) const CONTEXT: Flag = ("context", Some('c'), true);
/// Flags by which a registry is asked without TLS, or without looking at its certificate.
const INSECURE: [&str; 2] = ["insecure", "skip-tls-verify"];
/// The same, for one registry.
const INSECURE_HOST: [&str; 2] = ["insecure-registry", "skip-tls-verify-registry"];

/// The value of a flag: the last one, as Kaniko takes it.
pub(super) fn value(flags: &[String], flag: Flag) -> Option<String> {
    let at = flags
        .iter()
        .rposition(|word| is_flag(word, flag).is_some())?;
    if is_flag(&flags[at], flag) == Some(false) {
        return flags.get(at + 1).cloned();
    }
    let word = &flags[at];
    Some(match word.split_once('=') {
        Some((_, value)) if word.starts_with("--") => value.to_owned(),
        _ => word[2..].trim_start_matches('=').to_owned(),
    })
}

/// A registry is reached without TLS, or its certificate is not looked at.
pub(super) fn is_insecure<'a>(mut words: impl Iterator<Item = &'a str>, registry: &str) -> bool {
    let mut found = false;
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--").unwrap_or_default();
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        if INSECURE.contains(&name) {
            found |= value != Some("false");
        } else if INSECURE_HOST.contains(&name) {
            found |= value.or_else(|| words.next()) == Some(registry);
        }
    }
    found
}

/// The repositories that are pushed to, without tags.
pub(super) fn destinations(mut flags: Vec<String>) -> Vec<String> {
    let mut all = vec![];
    while let Some(image) = value(&flags, DESTINATION) {
        let image = image.split('@').next().unwrap_or_default();
        let end = image.rfind('/').map_or(0, |slash| slash + 1);
        let tag = image[end..]
            .find(':')
            .map_or(image.len(), |colon| end + colon);
        all.push(image[..tag].to_owned());
        let last = flags
            .iter()
            .rposition(|word| is_flag(word, DESTINATION).is_some());
        flags.truncate(last.unwrap_or(0));
    }
    all
}

/// Equal builds give the same image, digest and all.
pub(super) fn is_reproducible<'a>(mut words: impl Iterator<Item = &'a str>) -> bool {
    words.any(|word| word == "--reproducible" || word == "--reproducible=true")
}

/// Takes out all by which an image goes elsewhere, or work is left out.
pub(super) fn drop_outputs(flags: &mut Vec<String>) {
    for flag in DROPPED {
        drop_flag(flags, *flag);
    }
}

/// Gives a flag this value alone.
pub(super) fn replace(flags: &mut Vec<String>, flag: Flag, value: &str) {
    drop_flag(flags, flag);
    flags.push(format!("--{}={value}", flag.0));
}

/// Whether a word is this flag: `None` where not, else whether it holds its value.
fn is_flag(word: &str, (long, short, _): Flag) -> Option<bool> {
    if let Some(name) = word.strip_prefix("--") {
        let (name, value) = match name.split_once('=') {
            Some((name, _)) => (name, true),
            None => (name, false),
        };
        return (name == long).then_some(value);
    }
    let rest = word.strip_prefix('-')?.strip_prefix(short?)?;
    Some(!rest.is_empty())
}

/// Takes a flag out, with its value.
fn drop_flag(flags: &mut Vec<String>, flag: Flag) {
    let mut at = 0;
    while at < flags.len() {
        match is_flag(&flags[at], flag) {
            None => at += 1,
            Some(holds) => {
                flags.remove(at);
                if !holds && flag.2 && at < flags.len() {
                    flags.remove(at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_out_in_each_way_of_writing_them() {
        for (given, left) in [
            (&["-d", "a", "x"][..], &["x"][..]),
            (&["-da", "x"], &["x"]),
            (&["-d=a", "x"], &["x"]),
            (&["--destination", "a", "x"], &["x"]),
            (&["--destination=a", "--destination=b", "x"], &["x"]),
            (&["--destinations=a"], &["--destinations=a"]),
            (&["--destination"], &[]),
        ] {
            let mut flags: Vec<String> = given.iter().map(|&f| f.to_owned()).collect();
            drop_flag(&mut flags, DESTINATION);
            assert_eq!(flags, left, "{given:?}");
        }
        for given in [
            &["-fa"][..],
            &["-f", "a"],
            &["-f=a"],
            &["--dockerfile=a"],
            &["-f", "b", "-f", "a"],
        ] {
            let flags: Vec<String> = given.iter().map(|&f| f.to_owned()).collect();
            assert_eq!(value(&flags, DOCKERFILE).as_deref(), Some("a"), "{given:?}");
        }
        assert_eq!(value(&["-f".to_owned()], DOCKERFILE), None);
    }

    #[test]
    fn a_registry_is_asked_without_tls_where_its_own_flag_says_so() {
        let is = |words: &[&str], registry| is_insecure(words.iter().copied(), registry);
        let mirror = [
            "--insecure-registry=mirror:5000",
            "-d",
            "r/a:1",
            "--destination=r:5000/b@sha256:0",
            "-d=r/c",
        ];
        assert!(!is(&mirror, "r"));
        assert!(is(&mirror, "mirror:5000"));
        let owned = mirror.map(str::to_owned).to_vec();
        assert_eq!(destinations(owned), ["r/c", "r:5000/b", "r/a"]);
        assert!(is(&["--skip-tls-verify-registry", "r"], "r"));
        assert!(!is(&["--insecure=false"], "r"));
        assert!(is(&["--insecure"], "r"));
        assert!(is_reproducible(["--reproducible"].into_iter()));
    }
}

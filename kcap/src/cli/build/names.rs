//! Names of result files, from the Dockerfiles' paths.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
};

use sha2::{Digest as _, Sha256};

/// Most characters of a name, so that an ending fits.
const LONGEST: usize = 120;
/// Hexadecimal digits that tell names apart.
const DIGITS: usize = 8;

/// A name for each path, made of letters, digits, `.`, `-` and `_`: the folders joined by `-`, then
/// what the file's name says beside `Dockerfile` (`services/api/Dockerfile.dev` is
/// `services-api-dev`). Paths below `here` are taken from there. Names that would be the same, on a
/// file system that ignores case too, each get `-` and the start of their path's SHA-256. The paths
/// are to differ; a name depends on no other path than those that it would be the same as.
pub fn of(paths: &[impl AsRef<Path>], here: &Path) -> Vec<String> {
    let paths: Vec<&Path> = (paths.iter())
        .map(|path| path.as_ref())
        .map(|path| path.strip_prefix(here).unwrap_or(path))
        .collect();
    let mut names: Vec<String> = paths.iter().map(|path| plain(path)).collect();
    let mut digits = DIGITS;
    loop {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for name in &names {
            *count.entry(name.to_ascii_lowercase()).or_default() += 1;
        }
        let same: Vec<usize> = (0..names.len())
            .filter(|i| count[&names[*i].to_ascii_lowercase()] > 1)
            .collect();
        if same.is_empty() || digits > 64 {
            return names;
        }
        for i in same {
            names[i] = format!("{}-{}", plain(paths[i]), &hash(paths[i])[..digits]);
        }
        digits *= 2;
    }
}

fn hash(path: &Path) -> String {
    let hash = Sha256::digest(path.as_os_str().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(path: &Path) -> String {
    let mut words: Vec<String> = (path.parent().unwrap_or(Path::new("")).components())
        .filter_map(|component| match component {
            Component::Normal(name) => Some(safe(name)),
            _ => None,
        })
        .collect();
    let file = path.file_name().unwrap_or_default();
    match own(file.as_bytes()) {
        [] => {}
        own => words.push(safe(OsStr::from_bytes(own))),
    }
    words.retain(|word| !word.is_empty());
    let mut name = words.join("-");
    // The end of a path says more.
    if name.len() > LONGEST {
        name.drain(..name.len() - LONGEST);
    }
    // No hidden file, and nothing that looks like an option.
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() {
        "Dockerfile".to_owned()
    } else {
        name.to_owned()
    }
}

/// What a Dockerfile's name says beside being one.
fn own(name: &[u8]) -> &[u8] {
    for kind in [&b"dockerfile"[..], b"containerfile"] {
        let Some(rest) = name.len().checked_sub(kind.len()) else {
            continue;
        };
        if name[..kind.len()].eq_ignore_ascii_case(kind) {
            match name[kind.len()..].split_first() {
                None => return b"",
                Some((b'.', own)) => return own,
                Some(_) => {}
            }
        }
        if name[rest..].eq_ignore_ascii_case(kind) && name[..rest].ends_with(b".") {
            return &name[..rest - 1];
        }
    }
    name
}

/// Letters, digits and the like as they are, everything else as `_`.
fn safe(name: &OsStr) -> String {
    let text = name.to_string_lossy();
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.chars()
        .map(|c| if safe(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    fn one(path: &str) -> String {
        of(&[path], Path::new("/home/me")).remove(0)
    }

    #[test]
    fn names_say_where_the_dockerfile_is() {
        for (path, name) in [
            ("Dockerfile", "Dockerfile"),
            ("./Dockerfile", "Dockerfile"),
            ("Containerfile", "Dockerfile"),
            ("services/api/Dockerfile", "services-api"),
            ("./services/api/Dockerfile", "services-api"),
            ("services/api/Dockerfile.dev", "services-api-dev"),
            ("services/api/dev.Dockerfile", "services-api-dev"),
            ("services/api/dev.dockerfile", "services-api-dev"),
            ("Dockerfile.dev", "dev"),
            ("x/Containerfile", "x"),
            ("docker/api.build", "docker-api.build"),
            ("../other/Dockerfile", "other"),
            ("/srv/x/Dockerfile", "srv-x"),
            ("/home/me/x/Dockerfile", "x"),
            ("/home/me/Dockerfile", "Dockerfile"),
            (".github/images/-x/Dockerfile", "github-images--x"),
            ("a b/\u{1b}[2J/Dockerfile", "a_b-__2J"),
            ("Dockerfiles", "Dockerfiles"),
            ("größe/Dockerfile", "gr__e"),
            (".../Dockerfile", "Dockerfile"),
        ] {
            assert_eq!(one(path), name, "{path}");
        }
    }

    #[test]
    fn names_that_would_be_the_same_are_told_apart() {
        let names = of(
            &[
                "a/b/Dockerfile",
                "a-b/Dockerfile",
                "A/B/Dockerfile",
                "c/Dockerfile",
            ],
            Path::new("/"),
        );
        assert_eq!(names[3], "c");
        let prefixes: Vec<&str> = names[..3].iter().map(|name| &name[..4]).collect();
        assert_eq!(prefixes, ["a-b-", "a-b-", "A-B-"]);
        assert!(
            names[..3].iter().all(|name| name.len() == 4 + DIGITS),
            "{names:?}"
        );
        // Whatever else there is.
        assert_eq!(
            of(&["a-b/Dockerfile", "a/b/Dockerfile"], Path::new("/"))[0],
            names[1]
        );
    }

    #[test]
    fn even_one_that_is_made_up_to_be_another_s() {
        let taken = of(&["a/b/Dockerfile", "a-b/Dockerfile"], Path::new("/")).remove(0);
        let liar = format!("{taken}/Dockerfile");
        let names = of(&["a/b/Dockerfile", "a-b/Dockerfile", &liar], Path::new("/"));
        let different: BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), 3, "{names:?}");
    }

    proptest! {
        #[test]
        fn names_are_safe_and_differ(paths in btree_set("[aA/.\u{1b}_é-]{0,6}/?(Dockerfile|x\\.Dockerfile)?", 0..8)) {
            let paths: Vec<String> = paths.into_iter().collect();
            let names = of(&paths, Path::new("/nowhere"));
            let lower: BTreeSet<String> = names.iter().map(|n| n.to_ascii_lowercase()).collect();
            prop_assert_eq!(lower.len(), paths.len(), "{:?}", names);
            for name in &names {
                prop_assert!(!name.is_empty() && name.len() < 200);
                prop_assert!(!name.starts_with(['.', '-']));
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)));
            }
            let mut turned = paths.clone();
            turned.reverse();
            let mut other = of(&turned, Path::new("/nowhere"));
            other.reverse();
            prop_assert_eq!(names, other);
        }
    }
}

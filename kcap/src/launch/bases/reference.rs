//! Names of images, taken apart as Kaniko takes them (`go-containerregistry`'s `pkg/name`, without its
//! strict rules): which registry is asked for which repository.

/// The registry of names that name none.
pub const HUB: &str = "index.docker.io";

/// A name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port where one is given: what `--registry-map` is asked for.
    pub registry: String,
    /// Without the registry: `library/busybox`.
    pub repository: String,
    /// A tag, or a digest (`sha256:…`).
    pub identifier: String,
}

impl Reference {
    /// Takes a name apart; `None` where Kaniko refuses it, or it is longer than any.
    pub fn parse(name: &str) -> Option<Self> {
        let tag_of = |name: &str| {
            let (base, tag) = match name.rsplit_once(':') {
                Some((_, "")) => return None,
                Some((base, tag)) if !tag.contains('/') => (base, tag),
                _ => (name, "latest"),
            };
            tag_is_one(tag).then(|| (base.to_owned(), tag.to_owned()))
        };
        let (base, identifier) = match name.split_once('@') {
            Some((base, digest)) => {
                let hex = digest.strip_prefix("sha256:")?;
                let whole = hex.len() == 64 && hex.bytes().all(is_hex);
                // A tag beside a digest says nothing.
                let base = tag_of(base).map_or_else(|| base.to_owned(), |(base, _)| base);
                whole.then(|| (base, digest.to_owned()))?
            }
            None => tag_of(name)?,
        };
        let (registry, repository) = match base.split_once('/') {
            Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => {
                (first, rest)
            }
            _ => ("", base.as_str()),
        };
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-./".contains(&b);
        // Dots could lead out of a path that a program makes of it.
        let parts = repository.split('/');
        let path = parts.clone().all(|part| !matches!(part, "" | "." | ".."));
        let whole = (2..=255).contains(&repository.len()) && repository.bytes().all(letter) && path;
        let registry = match registry {
            "" | "docker.io" => HUB,
            other => other,
        };
        let alone = registry == HUB && parts.count() == 1;
        (whole && is_authority(registry)).then(|| Self {
            registry: registry.to_owned(),
            repository: match alone {
                true => format!("library/{repository}"),
                false => repository.to_owned(),
            },
            identifier,
        })
    }

    /// The digest, where it names one.
    pub fn digest(&self) -> Option<&str> {
        self.identifier.contains(':').then_some(&self.identifier)
    }

    /// `repository:tag` or `repository@digest`.
    pub fn within(&self) -> String {
        let sign = if self.digest().is_some() { '@' } else { ':' };
        format!("{}{sign}{}", self.repository, self.identifier)
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn tag_is_one(tag: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    (1..=128).contains(&tag.len()) && tag.bytes().all(letter)
}

/// A host, and a port where one is given: letters that can stand in an address without being quoted.
pub fn is_authority(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    (1..=300).contains(&text.len())
        && text.bytes().all(letter)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_kaniko_does() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = format!("r.example/a/b:1@{digest}");
        for (name, registry, repository, identifier) in [
            ("busybox", HUB, "library/busybox", "latest"),
            ("busybox:1.36", HUB, "library/busybox", "1.36"),
            ("docker.io/busybox", HUB, "library/busybox", "latest"),
            ("index.docker.io/me/a:b", HUB, "me/a", "b"),
            ("me/a", HUB, "me/a", "latest"),
            ("localhost/aa", "localhost", "aa", "latest"),
            ("127.0.0.1:5000/aa", "127.0.0.1:5000", "aa", "latest"),
            ("r.example/a/b:1", "r.example", "a/b", "1"),
            (&pinned, "r.example", "a/b", &digest),
        ] {
            let expected = Reference {
                registry: registry.into(),
                repository: repository.into(),
                identifier: identifier.into(),
            };
            assert_eq!(Reference::parse(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        let long = "x".repeat(256);
        for odd in [
            "",
            "a",
            "Upper",
            "a b",
            "aa:",
            "aa:b c",
            "aa@sha256:00",
            "aa@md5:00",
            "$X",
            "r.example/../x",
            "r.example//x",
            "r.example/",
            "r?x.example/aa",
            "me:pw@r.example/aa",
            "aa:1:2/x y",
            &long,
        ] {
            assert_eq!(Reference::parse(odd), None, "{odd}");
        }
        // Kaniko takes it; within an address it is no option any more.
        let dashed = Reference::parse("--help").expect("a name");
        assert_eq!(dashed.within(), "library/--help:latest");
    }
}

//! What of Kaniko's flags, as given, decides from where it takes base images, and which.
//!
//! Read as Kaniko's own library reads them: `--name=value` or `--name value`, and a flag that is on or
//! off takes no next word.

use std::{collections::BTreeMap, ffi::OsString};

use super::reference::{HUB, Reference, is_authority};

/// Flags of Kaniko that are on or off (`cmd/executor/cmd/root.go`).
const SWITCHES: &[&str] = &[
    "cache",
    "cache-copy-layers",
    "cache-run-layers",
    "cleanup",
    "compressed-caching",
    "dryrun",
    "force",
    "force-build-metadata",
    "help",
    "ignore-var-run",
    "insecure",
    "insecure-pull",
    "log-timestamp",
    "materialize",
    "no-push",
    "no-push-cache",
    "pre-cleanup",
    "preserve-context",
    "push-ignore-immutable-tag-errors",
    "reproducible",
    "single-snapshot",
    "skip-default-registry-fallback",
    "skip-push-permission-check",
    "skip-tls-verify",
    "skip-tls-verify-pull",
    "skip-unused-stages",
    "use-new-run",
    "whitelist-var-run",
];

/// They.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--build-arg`, in order: a name, and its value where it is given here and not by the
    /// executor's environment.
    pub build_args: Vec<(String, Option<String>)>,
    /// `--target`: stages.
    pub targets: Vec<String>,
    /// `--custom-platform`.
    pub platform: Option<String>,
    /// `--registry-map` and, behind them, `--registry-mirror`: where else to ask for the images of a
    /// registry, in order.
    maps: BTreeMap<String, Vec<String>>,
    insecure_pull: bool,
    insecure_registries: Vec<String>,
    skip_tls_verify: bool,
    skip_tls_registries: Vec<String>,
    skip_fallback: bool,
}

/// Where an image may be taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Host, and port where one is given.
    pub registry: String,
    /// The repository there.
    pub repository: String,
    /// Neither TLS nor a certificate that can be verified is asked for.
    pub insecure: bool,
}

impl Flags {
    /// Reads them. What is no flag, or bears on nothing here, is passed over: Kaniko judges it.
    pub fn read(given: &[OsString]) -> Self {
        let mut flags = Self::default();
        let mut mirrors = Vec::new();
        let mut words = given.iter().map(|word| word.to_string_lossy());
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--") else {
                // Of one letter: all of Kaniko's take a value, which may stand in the same word.
                if word.len() == 2 && word.starts_with('-') {
                    words.next();
                }
                continue;
            };
            if flag.is_empty() {
                break;
            }
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if SWITCHES.contains(&flag) => (flag, "true".to_owned()),
                None => match words.next() {
                    Some(value) => (flag, value.into_owned()),
                    None => break,
                },
            };
            // As Go reads it; of what is neither, Kaniko says so.
            let on = matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
            match name {
                "build-arg" => flags.build_args.push(match value.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (value, None),
                }),
                "target" => {
                    let stages = value.split(',').filter(|stage| !stage.is_empty());
                    flags.targets.extend(stages.map(str::to_owned));
                }
                "custom-platform" | "customPlatform" if !value.is_empty() => {
                    flags.platform = Some(value);
                }
                "registry-map" => {
                    for (from, to) in value.split(';').filter_map(|pair| pair.split_once('=')) {
                        let places = flags.maps.entry(from.to_owned()).or_default();
                        places.push(to.to_owned());
                    }
                }
                "registry-mirror" => mirrors.push(value),
                "insecure-pull" => flags.insecure_pull = on,
                "insecure-registry" => flags.insecure_registries.push(value),
                "skip-tls-verify" => flags.skip_tls_verify = on,
                "skip-tls-verify-registry" => flags.skip_tls_registries.push(value),
                "skip-default-registry-fallback" => flags.skip_fallback = on,
                _ => {}
            }
        }
        if !mirrors.is_empty() {
            flags
                .maps
                .entry(HUB.to_owned())
                .or_default()
                .extend(mirrors);
        }
        flags
    }

    /// Where Kaniko asks for this image, in its order.
    pub fn sources(&self, image: &Reference) -> Vec<Source> {
        let mapped = self
            .maps
            .get(&image.registry)
            .map_or(&[][..], Vec::as_slice);
        let mut sources: Vec<Source> = mapped
            .iter()
            .map(|place| {
                let (registry, prefix) = place.split_once('/').unwrap_or((place, ""));
                let slash = !prefix.is_empty() && !prefix.ends_with('/');
                let slash = if slash { "/" } else { "" };
                let repository = format!("{prefix}{slash}{}", image.repository);
                // Kaniko takes a prefix with a dot or colon at its start for a registry of its own.
                let first = repository.split('/').next().unwrap_or_default();
                match Reference::parse(&repository) {
                    Some(other) if first == "localhost" || first.contains(['.', ':']) => {
                        self.source(&other.registry, other.repository)
                    }
                    _ => self.source(registry, repository),
                }
            })
            .collect();
        if mapped.is_empty() || !self.skip_fallback {
            sources.push(self.source(&image.registry, image.repository.clone()));
        }
        let whole = |source: &Source| {
            let name = format!("{}/{}", source.registry, source.repository);
            is_authority(&source.registry) && Reference::parse(&name).is_some()
        };
        sources.retain(whole);
        sources
    }

    fn source(&self, registry: &str, repository: String) -> Source {
        let named = |list: &[String]| list.iter().any(|known| known == registry);
        Source {
            insecure: self.insecure_pull
                || self.skip_tls_verify
                || named(&self.insecure_registries)
                || named(&self.skip_tls_registries)
                || is_private(registry),
            registry: registry.to_owned(),
            repository,
        }
    }
}

/// Whether Kaniko does without TLS of itself: on this machine, and in private networks.
fn is_private(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    match host.parse::<std::net::Ipv4Addr>() {
        Ok(address) => address.is_private() || address.is_loopback(),
        Err(_) => matches!(host, "localhost" | "[::1]") || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str]) -> Flags {
        Flags::read(&flags.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn places(flags: &[&str], name: &str) -> Vec<String> {
        let sources = read(flags).sources(&Reference::parse(name).unwrap());
        let shown = sources.into_iter().map(|source| {
            let insecure = if source.insecure { "http " } else { "" };
            format!("{insecure}{}/{}", source.registry, source.repository)
        });
        shown.collect()
    }

    #[test]
    fn flags_are_read_as_kaniko_does() {
        let flags = read(&[
            "--build-arg",
            "A=1=2",
            "--build-arg=B",
            "--single-snapshot",
            "--target=x,y",
            "--label",
            "--target",
            "--cache=false",
            "--target",
            "z",
            "-d",
            "--target=no",
            "--custom-platform=linux/arm64",
            "--",
            "--target=no",
        ]);
        let value = |text: &str| Some(text.to_owned());
        assert_eq!(
            flags.build_args,
            [("A".to_owned(), value("1=2")), ("B".to_owned(), None)]
        );
        assert_eq!(flags.targets, ["x", "y", "z"]);
        assert_eq!(flags.platform, value("linux/arm64"));
        assert_eq!(read(&["--target"]), Flags::default());
    }

    #[test]
    fn an_image_is_asked_for_where_kaniko_asks() {
        assert_eq!(places(&[], "busybox"), ["index.docker.io/library/busybox"]);
        let maps = [
            "--registry-mirror=mirror.example",
            "--registry-map",
            "index.docker.io=127.0.0.1:5055;r.example=s.example/a/b",
            "--registry-map=index.docker.io=t.example/c/",
        ];
        assert_eq!(
            places(&maps, "busybox"),
            [
                "http 127.0.0.1:5055/library/busybox",
                "t.example/c/library/busybox",
                "mirror.example/library/busybox",
                "index.docker.io/library/busybox",
            ]
        );
        let skip = [&maps[..], &["--skip-default-registry-fallback"]].concat();

        assert_eq!(places(&skip, "r.example/xx:1"), ["s.example/a/b/xx"]);
        assert_eq!(places(&skip, "u.example/xx"), ["u.example/xx"]);
        let insecure = ["--insecure-registry=u.example", "--insecure"];
        assert_eq!(places(&insecure, "u.example/xx"), ["http u.example/xx"]);
        assert_eq!(places(&insecure, "v.example/xx"), ["v.example/xx"]);
        assert_eq!(
            places(&["--insecure-pull"], "v.example/xx"),
            ["http v.example/xx"]
        );
        // Seen with Kaniko 1.28.3.
        assert_eq!(
            places(
                &["--registry-map=u.example=v.example/w.example/a"],
                "u.example/xx"
            ),
            ["w.example/a/xx", "u.example/xx"]
        );
        // What cannot be put into an address is not.
        let odd = ["--registry-map=index.docker.io=a b/c", "--insecure-pull=no"];
        assert_eq!(places(&odd, "busybox"), ["index.docker.io/library/busybox"]);
    }
}

//! Executor images by name: pulled by a program that is there, unpacked once.
//!
//! skopeo comes first: it needs no daemon and no storage of its own. podman and docker pull as well,
//! and keep the image in their own storage besides. Whichever it is, logins and proxies are its own
//! matter, and so are signatures. A registry is asked once in each run of kcap whether the name means
//! another image by now; where it does not answer, the image that was pulled last is used, and that
//! is said.

use std::{
    ffi::OsStr,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::{
    cache::{Cache, Known, Unpacked},
    image::{self, Image},
    runtime,
};
use crate::{
    launch::call::{Answer, Call},
    render::escape,
};

/// Most columns of a name in an error.
const SHOWN: usize = 200;

/// The image of a name, by way of a folder that is the caller's to remove; and what is to be said
/// about it, where there is something.
///
/// # Errors
/// Where the name is none; where nothing is there that pulls, or it fails, and the image was never
/// pulled before; where it is damaged, or not for this processor.
pub fn pull(name: &str, cache: &Cache, scratch: &Path) -> Result<(Unpacked, Option<String>)> {
    let name = Name::parse(name)?;
    let known = cache.known(name.given);
    let (version, path) = match newest(&name, known.as_ref(), scratch) {
        Ok(Newest::Known(known)) => return Ok((known.unpacked.clone(), None)),
        Ok(Newest::Fetched(version, path)) => (version, path),
        Err(why) => {
            let Some(known) = known else {
                return Err(why);
            };
            let image = known.image;
            let note = format!("{why:#}; the image that was pulled last is used ({image})");
            return Ok((known.unpacked, Some(note)));
        }
    };
    let what = || format!("the image {}", name.given);
    let image = Image::open(&path).with_context(what)?;
    let unpacked = cache.unpacked(&image, scratch).with_context(what)?;
    cache.know(name.given, &version, &image.id, scratch)?;
    Ok((unpacked, None))
}

/// What skopeo is to be told where nobody wrote a policy for signatures: that none are asked for, as
/// docker and skopeo's own packages have it.
pub fn policy() -> Option<&'static str> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let own = Path::new(&home).join(".config/containers/policy.json");
    let written = own.exists() || Path::new("/etc/containers/policy.json").exists();
    (!written).then_some("--insecure-policy")
}

/// What a name means now.
enum Newest<'a> {
    /// The image that is known.
    Known(&'a Known),
    /// Another: its version, and where it is.
    Fetched(String, PathBuf),
}

fn newest<'a>(name: &Name<'_>, known: Option<&'a Known>, scratch: &Path) -> Result<Newest<'a>> {
    // A digest can mean nothing else, and needs no registry.
    if let Some(known) = known
        && name.digest.is_some()
    {
        return Ok(Newest::Known(known));
    }
    let puller = Puller::find()?;
    let version = puller.version(name)?;
    match known {
        Some(known) if known.version == version => Ok(Newest::Known(known)),
        _ => {
            let path = puller.fetch(name, &version, scratch)?;
            Ok(Newest::Fetched(version, path))
        }
    }
}

/// The name of an image, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    given: &'a str,
    /// Without tag and digest.
    repository: &'a str,
    digest: Option<&'a str>,
    /// Its registry is on this machine, where docker does without TLS.
    local: bool,
}

impl<'a> Name<'a> {
    fn parse(given: &'a str) -> Result<Self> {
        ensure!(
            given.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && given
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c)),
            "`{}` is no name of an image",
            escape::head(given, SHOWN)
        );
        let (tagged, digest) = match given.split_once('@') {
            Some((tagged, digest)) => {
                // Not shown: it may be a password.
                ensure!(
                    image::blob(digest).is_ok(),
                    "what follows the @ in the executor's name is no digest: give \
                     NAME@sha256:DIGEST; to log in to a registry, use skopeo login"
                );
                (tagged, Some(digest))
            }
            None => (given, None),
        };
        let last = tagged.rfind('/').map_or(0, |slash| slash + 1);
        let end = tagged[last..]
            .find(':')
            .map_or(tagged.len(), |at| last + at);
        let repository = &tagged[..end];
        let registry = repository.split_once('/').map(|(registry, _)| registry);
        Ok(Self {
            given,
            repository,
            digest,
            local: registry.is_some_and(is_local),
        })
    }
}

/// As docker: it takes these registries without TLS.
fn is_local(registry: &str) -> bool {
    let bare = |address: &str| address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().is_some_and(bare),
        None => {
            let host = registry.split(':').next().unwrap_or_default();
            host == "localhost" || bare(host)
        }
    }
}

/// A program that pulls images.
struct Puller {
    /// What it is called.
    name: &'static str,
    program: String,
}

impl Puller {
    fn find() -> Result<Self> {
        ["skopeo", "podman", "docker"]
            .into_iter()
            .find_map(|name| {
                let program = runtime::program(OsStr::new(name))?;
                let program = program.to_str()?.to_owned();
                Some(Self { name, program })
            })
            .context(
                "the oci engine pulls images by skopeo, which is not installed: apt install skopeo, \
                 or give --executor PATH",
            )
    }

    /// What the name means now: of skopeo the digest of a manifest, of the others an image's id,
    /// which they have then.
    fn version(&self, name: &Name<'_>) -> Result<String> {
        if self.name != "skopeo" {
            let tls = (self.name == "podman" && name.local).then_some("--tls-verify=false");
            let words = ["pull", "--quiet"].into_iter().chain(tls);
            let call = Call::new(&self.program, words.chain([name.given])).lengthy();
            self.done(name, call)?;
            let words = ["image", "inspect", "--format", "{{.Id}}", name.given];
            let answer = self.done(name, Call::new(&self.program, words))?;
            return Ok(answer.output.trim().to_owned());
        }
        if let Some(digest) = name.digest {
            return Ok(digest.to_owned());
        }
        let tls = name.local.then_some("--tls-verify=false");
        // Anything but the raw manifest takes more requests: for a list, one for all of its tags.
        let words = ["inspect", "--raw"].into_iter().chain(tls);
        let address = format!("docker://{}", name.given);
        let call = Call::new(&self.program, words.chain([address.as_str()])).interruptible();
        let answer = self.done(name, call)?;
        Ok(image::written(&Sha256::digest(answer.output)))
    }

    /// Copies this version of the image into the folder.
    fn fetch(&self, name: &Name<'_>, version: &str, scratch: &Path) -> Result<PathBuf> {
        let path = scratch.join("pulled");
        let to = path
            .to_str()
            .filter(|to| !to.contains([':', ',']))
            .context("the cache's path is not plain text: set XDG_CACHE_HOME to one that is")?;
        let call = if self.name == "skopeo" {
            let words = policy().into_iter().chain(["copy", "--quiet"]);
            let words = words.chain(name.local.then_some("--src-tls-verify=false"));
            // By digest, since the tag may have moved again.
            let from = format!("docker://{}@{version}", name.repository);
            let to = format!("oci:{to}:executor");
            Call::new(&self.program, words.chain([from.as_str(), to.as_str()]))
        } else {
            let archive = (self.name == "podman").then_some("--format=oci-archive");
            let words = ["save", "--output", to].into_iter().chain(archive);
            Call::new(&self.program, words.chain([version]))
        };
        self.done(name, call.lengthy())?;
        Ok(path)
    }

    fn done(&self, name: &Name<'_>, call: Call<'_>) -> Result<Answer> {
        let failed = || format!("{} cannot pull the image {}", self.name, name.given);
        let answer = call.run().with_context(failed)?;
        ensure!(
            answer.success,
            "{}: {}{}",
            failed(),
            // It begins with the name once more.
            match answer.complaint.split_once("\": ") {
                Some((start, why)) if start.starts_with("Error parsing image name \"") => why,
                _ => &answer.complaint,
            },
            match self.name {
                "skopeo" => "",
                _ => "; skopeo pulls without it: apt install skopeo",
            }
        );
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let pinned = format!("r.example/a:1@{digest}");
        for (given, repository, of, local) in [
            ("kaniko", "kaniko", None, false),
            ("kaniko:1", "kaniko", None, false),
            ("localhost/a/b:1", "localhost/a/b", None, true),
            ("localhost:5000/a", "localhost:5000/a", None, true),
            ("localhost.example/a", "localhost.example/a", None, false),
            ("127.0.0.2:5000/a:1", "127.0.0.2:5000/a", None, true),
            ("10.0.0.1:5000/a:1", "10.0.0.1:5000/a", None, false),
            ("[::1]:5000/a:1", "[::1]:5000/a", None, true),
            (&pinned, "r.example/a", Some(digest.as_str()), false),
        ] {
            let name = Name::parse(given).unwrap();
            let expected = Name {
                given,
                repository,
                digest: of,
                local,
            };
            assert_eq!(name, expected);
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for odd in ["", "--help", "-x", "a b", "a\n", "a?b", "a\u{e9}"] {
            let error = Name::parse(odd).unwrap_err().to_string();
            assert!(error.contains("is no name of an image"), "{error}");
        }
        for odd in ["me:passw@r.example/a", "a@sha256:00", "a@sha256:", "a@"] {
            let error = Name::parse(odd).unwrap_err().to_string();
            assert!(error.contains("is no digest"), "{error}");
            assert!(!error.contains("passw"), "{error}");
        }
    }
}

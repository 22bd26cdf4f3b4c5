//! Manifests as registries have them: which image of a list Kaniko takes, and what an image is made of.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{launch::oci::image, render::escape};

/// Most columns of a text of a registry's in an error.
const SHOWN: usize = 100;
/// Most blobs of an image: file systems stop at fewer layers.
const MOST_BLOBS: usize = 1000;

/// A manifest.
#[derive(Debug)]
pub enum Manifest {
    /// A list of images for several platforms.
    List(Vec<Entry>),
    /// An image: what it is made of.
    Image(Vec<Descriptor>),
}

/// A part of an image.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    /// `sha256:…`, checked.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// An image of a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

/// For what an image is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(default, rename = "os.version")]
    version: String,
}

/// What kind a manifest says that it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The media type of a manifest. One of OCI need not say it.
///
/// # Errors
/// Where it is none that Kaniko takes.
pub fn media_type(manifest: &[u8]) -> Result<&'static str> {
    let kind: Kind = serde_json::from_slice(manifest).context("the manifest is no JSON")?;
    match (kind.media_type.as_str(), kind.manifests) {
        (OCI_INDEX, _) | ("", Some(_)) => Ok(OCI_INDEX),
        (OCI_IMAGE, _) | ("", None) => Ok(OCI_IMAGE),
        (DOCKER_LIST, _) => Ok(DOCKER_LIST),
        (DOCKER_IMAGE, _) => Ok(DOCKER_IMAGE),
        (other, _) => bail!("a manifest is {}", escape::head(other, SHOWN)),
    }
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// Where it is damaged, or of a kind that Kaniko does not take.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct List {
            manifests: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Image {
            config: Descriptor,
            layers: Vec<Descriptor>,
        }
        if matches!(media_type(bytes)?, OCI_INDEX | DOCKER_LIST) {
            let list: List = serde_json::from_slice(bytes).context("the list is damaged")?;
            return Ok(Self::List(list.manifests));
        }
        let image: Image = serde_json::from_slice(bytes).context("the manifest is damaged")?;
        let mut blobs = vec![image.config];
        blobs.extend(image.layers);
        ensure!(blobs.len() <= MOST_BLOBS, "it has too many layers");
        for blob in &blobs {
            image::blob(&blob.digest)?;
        }
        blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        blobs.dedup_by(|a, b| a.digest == b.digest);
        Ok(Self::Image(blobs))
    }
}

impl Platform {
    /// This host's, as Kaniko calls it.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            ..Self::default()
        }
    }

    /// As `--custom-platform` has it: `os/architecture[/variant][:version]`.
    ///
    /// # Errors
    /// Where Kaniko refuses it.
    pub fn parse(text: &str) -> Result<Self> {
        let (text, version) = text.split_once(':').unwrap_or((text, ""));
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let platform = Self {
            os: next(),
            architecture: next(),
            variant: next(),
            version: version.to_owned(),
        };
        ensure!(
            parts.next().is_none(),
            "--custom-platform is {}, give OS/ARCHITECTURE",
            escape::head(text, SHOWN)
        );
        Ok(platform)
    }

    /// The first image of a list that is for it, as Kaniko chooses.
    pub fn choose<'a>(&self, list: &'a [Entry]) -> Option<&'a Entry> {
        let unnamed = Self {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..Self::default()
        };
        list.iter().find(|entry| {
            let given = entry.platform.as_ref().unwrap_or(&unnamed);
            let fits = |asked: &str, given: &str| asked.is_empty() || asked == given;
            self.os == given.os
                && self.architecture == given.architecture
                && fits(&self.variant, &given.variant)
                && fits(&self.version, &given.version)
        })
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        for (sign, part) in [('/', &self.variant), (':', &self.version)] {
            if !part.is_empty() {
                write!(f, "{sign}{part}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(of: char) -> String {
        format!("sha256:{}", String::from(of).repeat(64))
    }

    #[test]
    fn the_image_of_a_list_is_the_one_that_kaniko_takes() {
        let list = json!({"schemaVersion": 2, "manifests": [
            {"digest": digest('0'), "size": 1, "platform": {"os": "linux", "architecture": "arm", "variant": "v6"}},
            {"digest": digest('1'), "size": 1, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
            {"digest": digest('2'), "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}},
            {"digest": digest('3'), "size": 1},
            {"digest": digest('4'), "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
        ]});
        let Manifest::List(list) = Manifest::read(list.to_string().as_bytes()).unwrap() else {
            panic!("it is a list");
        };
        for (platform, expected) in [
            ("linux/arm", Some('0')),
            ("linux/arm/v7", Some('1')),
            // An image without a platform is for this one.
            ("linux/amd64", Some('3')),
            ("linux/arm64", None),
        ] {
            let platform = Platform::parse(platform).unwrap();
            let chosen = platform.choose(&list).map(|entry| entry.digest.clone());
            assert_eq!(chosen, expected.map(digest), "{platform}");
        }
        assert!(Platform::parse("a/b/c/d").is_err());
        assert_eq!(
            Platform::parse("linux/arm/v7:8").unwrap().to_string(),
            "linux/arm/v7:8"
        );
    }

    #[test]
    fn damaged_manifests_are_refused() {
        let blob = json!({"digest": digest('a'), "size": 3});
        let whole = json!({"config": blob, "layers": [blob, blob]});
        let Manifest::Image(blobs) = Manifest::read(whole.to_string().as_bytes()).unwrap() else {
            panic!("it is an image");
        };
        assert_eq!(blobs.len(), 1, "each is there once");
        let odd = json!({"config": {"digest": "sha256:../x", "size": 1}, "layers": []});
        let old = json!({"schemaVersion": 1, "fsLayers": []});
        let other = json!({"mediaType": "application/x\u{1b}"});
        for text in [
            "".into(),
            odd.to_string(),
            old.to_string(),
            other.to_string(),
        ] {
            let error = Manifest::read(text.as_bytes()).unwrap_err();
            assert!(!format!("{error:#}").contains('\u{1b}'));
        }
    }
}

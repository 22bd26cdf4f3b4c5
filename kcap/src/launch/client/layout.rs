//! An OCI image layout as a docker archive: docker reads layouts only from version 25 on, and archives
//! in all.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::bare::{hex, host_architecture};

/// Most bytes of an index, a manifest or a configuration.
const METADATA: u64 = 4 << 20;
/// Most indexes within indexes.
const DEPTH: usize = 4;

/// An image in a layout.
#[derive(Debug)]
pub(super) struct Image {
    root: PathBuf,
    manifest: String,
    config: String,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Image {
    /// The layout's image for this machine.
    ///
    /// # Errors
    /// Where there is none or several, or the layout is damaged.
    pub fn open(root: &Path) -> Result<Self> {
        let index = read(&root.join("index.json"))
            .with_context(|| format!("{} is no OCI layout", root.display()))?;
        let mut image = Self {
            root: root.to_owned(),
            manifest: String::new(),
            config: String::new(),
            layers: Vec::new(),
        };
        let descriptor = image
            .choose(&index, DEPTH)
            .with_context(|| format!("cannot use the OCI layout {}", root.display()))?;
        let manifest: Manifest = serde_json::from_slice(&image.metadata(&descriptor)?)
            .with_context(|| format!("the manifest {} is damaged", descriptor.digest))?;
        image.config = blob(&manifest.config)?.to_owned();
        // Checked by its sum; the layers' sums are in it, and the engine checks them.
        image.metadata(&manifest.config)?;
        for layer in &manifest.layers {
            image.layers.push(blob(layer)?.to_owned());
        }
        image.manifest = blob(&descriptor)?.to_owned();
        Ok(image)
    }

    /// Names its content: the manifest's SHA-256, in hex.
    pub fn digest(&self) -> &str {
        &self.manifest
    }

    fn choose(&self, index: &[u8], depth: usize) -> Result<Descriptor> {
        ensure!(depth > 0, "its indexes are nested too deeply");
        let index: Index = serde_json::from_slice(index).context("an index is damaged")?;
        let host = host_architecture();
        let mut fit = index.manifests.iter().filter(|descriptor| {
            descriptor
                .platform
                .as_ref()
                .is_none_or(|platform| platform.os == "linux" && platform.architecture == host)
        });
        let Some(chosen) = fit.next() else {
            bail!("it has no image for linux/{host}");
        };
        ensure!(
            fit.next().is_none(),
            "it has several images for linux/{host}: keep one in it"
        );
        if chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list") {
            return self.choose(&self.metadata(chosen)?, depth - 1);
        }
        Ok(chosen.clone())
    }

    fn path(&self, hex: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(hex)
    }

    fn metadata(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let wanted = blob(descriptor)?;
        let bytes = read(&self.path(wanted))?;
        ensure!(
            hex(&Sha256::digest(&bytes)) == wanted,
            "the blob {} is not what its name says",
            descriptor.digest
        );
        Ok(bytes)
    }

    /// Writes a docker archive that names the image `tag`.
    ///
    /// # Errors
    /// Where a blob cannot be read or the archive not be written.
    pub fn write(&self, tag: &str, to: &mut dyn Write) -> Result<()> {
        let name = |hex: &String| format!("blobs/sha256/{hex}");
        let manifest = json!([{
            "Config": name(&self.config),
            "RepoTags": [tag],
            "Layers": self.layers.iter().map(name).collect::<Vec<_>>(),
        }])
        .to_string();
        let mut archive = Builder::new(to);
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(manifest.len() as u64);
        archive.append_data(&mut header, "manifest.json", manifest.as_bytes())?;
        let mut done: Vec<&String> = Vec::new();
        for hex in [&self.config].into_iter().chain(&self.layers) {
            if done.contains(&hex) {
                continue;
            }
            done.push(hex);
            let path = self.path(hex);
            let (length, blob) = open(&path)?;
            header.set_size(length);
            archive
                .append_data(&mut header, name(hex), blob.take(length))
                .with_context(|| format!("cannot copy {}", path.display()))?;
        }
        archive.finish()?;
        Ok(())
    }
}

/// The hex of a descriptor's digest, which names a file: nothing else passes.
fn blob(descriptor: &Descriptor) -> Result<&str> {
    descriptor
        .digest
        .strip_prefix("sha256:")
        .filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
        .with_context(|| format!("{:?} is no SHA-256 digest", descriptor.digest))
}

fn open(path: &Path) -> Result<(u64, File)> {
    let opened = fs::symlink_metadata(path).and_then(|entry| {
        if entry.is_file() {
            Ok((entry.len(), File::open(path)?))
        } else {
            Err(io::Error::other("it is no regular file"))
        }
    });
    opened.with_context(|| format!("cannot read {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let (length, file) = open(path)?;
    ensure!(length <= METADATA, "{} is too large", path.display());
    let mut bytes = Vec::new();
    file.take(METADATA)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;

    struct Layout(TempDir);

    impl Layout {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
            Self(dir)
        }

        fn blob(&self, bytes: &[u8]) -> String {
            let hex = hex(&Sha256::digest(bytes));
            fs::write(self.0.path().join("blobs/sha256").join(&hex), bytes).unwrap();
            format!("sha256:{hex}")
        }

        fn manifest(&self, config: &str) -> String {
            let manifest = json!({
                "config": {"digest": self.blob(config.as_bytes())},
                "layers": [{"digest": self.blob(b"layer")}, {"digest": self.blob(b"layer")}],
            });
            self.blob(manifest.to_string().as_bytes())
        }

        fn index(&self, manifests: Value) -> Result<Image> {
            let index = json!({"manifests": manifests}).to_string();
            fs::write(self.0.path().join("index.json"), index).unwrap();
            Image::open(self.0.path())
        }
    }

    fn error(result: Result<Image>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn the_image_for_this_machine_becomes_an_archive() {
        let layout = Layout::new();
        let (own, other) = (layout.manifest("own"), layout.manifest("other"));
        let nested = json!({"manifests": [
            {"digest": other, "platform": {"os": "linux", "architecture": "other"}},
            {"digest": own, "platform": {"os": "linux", "architecture": host_architecture()}},
        ]});
        let nested = layout.blob(nested.to_string().as_bytes());
        let image = layout
            .index(json!([{
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": nested,
            }]))
            .unwrap();
        assert_eq!(format!("sha256:{}", image.digest()), own);
        let mut bytes = Vec::new();
        image.write("kcap-executor:x", &mut bytes).unwrap();
        let mut files = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.push((entry.path().unwrap().display().to_string(), text));
        }
        let manifest: Value = serde_json::from_str(&files[0].1).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["kcap-executor:x"]));
        assert_eq!(manifest[0]["Config"], json!(files[1].0));
        assert_eq!(files[1].1, "own");
        assert_eq!(manifest[0]["Layers"], json!([files[2].0, files[2].0]));
        assert_eq!((files.len(), files[2].1.as_str()), (3, "layer"));
    }

    #[test]
    fn damaged_and_hostile_layouts_are_refused() {
        let layout = Layout::new();
        assert!(error(Image::open(Path::new("/nowhere"))).contains("is no OCI layout"));
        assert!(error(layout.index(json!([]))).contains("no image for linux/"));
        let one = layout.manifest("one");
        let twice = json!([{"digest": one}, {"digest": one}]);
        assert!(error(layout.index(twice)).contains("several images"));
        for digest in ["sha256:../../../../etc/passwd", "sha256:", "md5:0", "../x"] {
            let found = error(layout.index(json!([{"digest": digest}])));
            assert!(found.contains("is no SHA-256 digest"), "{found}");
        }
        let path = layout.0.path().join("blobs/sha256").join(&one[7..]);
        fs::write(&path, "{}").unwrap();
        let found = error(layout.index(json!([{"digest": one}])));
        assert!(found.contains("is not what its name says"), "{found}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let found = error(layout.index(json!([{"digest": one}])));
        assert!(found.contains("no regular file"), "{found}");
    }

    #[test]
    fn indexes_do_not_nest_for_ever() {
        let layout = Layout::new();
        let media = "application/vnd.oci.image.index.v1+json";
        let mut inner = layout.manifest("deep");
        for _ in 0..DEPTH {
            let index = json!({"manifests": [{"mediaType": media, "digest": inner}]});
            inner = layout.blob(index.to_string().as_bytes());
        }
        let found = error(layout.index(json!([{"mediaType": media, "digest": inner}])));
        assert!(found.contains("nested too deeply"), "{found}");
    }
}

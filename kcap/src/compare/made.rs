//! Images that tests make.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::Image;
use crate::image::{blob, digest_of};

/// A layer, member by member. Names are written as they are, which tar's own builder refuses.
#[derive(Clone, Default)]
pub struct Packed(Vec<u8>);

/// What a member's header says beside its name.
#[derive(Clone, Copy)]
pub struct Attributes {
    pub mode: u32,
    pub owner: (u64, u64),
    pub device: (u32, u32),
    pub mtime: u64,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            mode: 0o755,
            owner: (0, 0),
            device: (0, 0),
            mtime: 0,
        }
    }
}

impl Packed {
    pub fn member(
        mut self,
        kind: EntryType,
        path: &[u8],
        link: &[u8],
        content: &[u8],
        with: Attributes,
    ) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(with.mode);
        header.set_uid(with.owner.0);
        header.set_gid(with.owner.1);
        header.set_mtime(with.mtime);
        header.set_device_major(with.device.0).unwrap();
        header.set_device_minor(with.device.1).unwrap();
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        let with = Attributes::default();
        self.member(
            EntryType::Regular,
            path.as_bytes(),
            b"",
            content.as_bytes(),
            with,
        )
    }

    pub fn mode(self, path: &str, mode: u32) -> Self {
        let with = Attributes {
            mode,
            ..Attributes::default()
        };
        self.member(EntryType::Regular, path.as_bytes(), b"", b"", with)
    }

    pub fn owner(self, path: &str, uid: u64, gid: u64) -> Self {
        let with = Attributes {
            owner: (uid, gid),
            ..Attributes::default()
        };
        self.member(EntryType::Regular, path.as_bytes(), b"", b"", with)
    }

    pub fn folder(self, path: &str) -> Self {
        let with = Attributes::default();
        self.member(EntryType::Directory, path.as_bytes(), b"", b"", with)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        let with = Attributes::default();
        self.member(
            EntryType::Symlink,
            path.as_bytes(),
            target.as_bytes(),
            b"",
            with,
        )
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        let with = Attributes::default();
        self.member(
            EntryType::Link,
            path.as_bytes(),
            target.as_bytes(),
            b"",
            with,
        )
    }

    pub fn device(self, path: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        let with = Attributes {
            device: (major, minor),
            ..Attributes::default()
        };
        self.member(kind, path.as_bytes(), b"", b"", with)
    }

    /// An extended header: records about the member that follows.
    pub fn extended(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length += 1;
            }
            content.extend(format!("{length} {key}=").bytes());
            content.extend(*value);
            content.push(b'\n');
        }
        let with = Attributes::default();
        self.member(EntryType::XHeader, b"x", b"", &content, with)
    }

    /// The archive, with the two blocks that end one.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// An image's configuration with these layers.
pub fn config(layers: &[Vec<u8>]) -> Value {
    let ids: Vec<String> = layers.iter().map(|layer| digest_of(layer)).collect();
    json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    })
}

/// A docker archive in a folder.
pub fn saved(dir: &TempDir, name: &str, config: &Value, layers: &[Vec<u8>]) -> PathBuf {
    let path = dir.path().join(name);
    let mut builder = Builder::new(fs::File::create(&path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "Layers": names}]);
    add("manifest.json", manifest.to_string().as_bytes());
    add("config.json", config.to_string().as_bytes());
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    builder.finish().unwrap();
    path
}

/// An OCI layout in a folder; every other layer is compressed.
pub fn layout(dir: &Path, config: &Value, layers: &[Vec<u8>]) -> PathBuf {
    let put = |bytes: &[u8]| {
        let digest = digest_of(bytes);
        let path = dir.join(blob(&digest).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        json!({"digest": digest, "size": bytes.len()})
    };
    let layers: Vec<Value> = layers
        .iter()
        .enumerate()
        .map(|(n, layer)| match n % 3 {
            0 => put(layer),
            1 => put(&zstd::encode_all(layer.as_slice(), 1).unwrap()),
            _ => {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut gzip, layer).unwrap();
                put(&gzip.finish().unwrap())
            }
        })
        .collect();
    let config = put(config.to_string().as_bytes());
    let manifest = put(json!({"config": config, "layers": layers})
        .to_string()
        .as_bytes());
    let index = json!({"manifests": [manifest]}).to_string();
    fs::write(dir.join("index.json"), index).unwrap();
    dir.to_owned()
}

/// The image of these layers.
pub fn image(layers: &[Packed]) -> Image {
    told(layers).unwrap()
}

/// The image of these layers, or what is wrong with them.
pub fn told(layers: &[Packed]) -> anyhow::Result<Image> {
    let dir = TempDir::new().unwrap();
    let layers: Vec<Vec<u8>> = layers.iter().cloned().map(Packed::finish).collect();
    super::read(&saved(&dir, "image.tar", &config(&layers), &layers))
}

/// What is wrong with these layers, on one line.
pub fn error(layers: &[Packed]) -> String {
    let text = format!("{:#}", told(layers).expect_err("it is refused"));
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

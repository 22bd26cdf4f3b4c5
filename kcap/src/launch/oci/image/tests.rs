use std::{fs, fs::File};

use serde_json::{Value, json};
use tar::{Archive, EntryType};
use tempfile::TempDir;

use super::*;
use crate::image::digest_of;

/// Writes a blob, and gives its descriptor.
fn put(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = digest_of(bytes);
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join(blob(&digest).unwrap()), bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest})
}

fn layer(content: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    // SAFETY: both take nothing.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    builder
        .append_data(&mut header, "file", content.as_bytes())
        .unwrap();
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(layers: &[Vec<u8>]) -> Value {
    let ids: Vec<String> = layers.iter().map(|l| digest_of(l)).collect();
    json!({
        "architecture": arch(), "os": "linux",
        "config": {"Entrypoint": ["/x"], "User": "root"},
        "rootfs": {"type": "layers", "diff_ids": ids},
    })
}

/// A layout whose index names a manifest with these layers, one gzip, one zstd, one plain.
fn layout(config: &Value, layers: &[Vec<u8>], platform: Value) -> TempDir {
    let dir = TempDir::new().unwrap();
    let blobs: Vec<Value> = layers
        .iter()
        .enumerate()
        .map(|(n, bytes)| match n % 3 {
            0 => put(dir.path(), "l", &gzip(bytes)),
            1 => put(
                dir.path(),
                "l",
                &zstd::encode_all(bytes.as_slice(), 1).unwrap(),
            ),
            _ => put(dir.path(), "l", bytes),
        })
        .collect();
    let config = put(dir.path(), "c", config.to_string().as_bytes());
    let manifest = json!({"config": config, "layers": blobs}).to_string();
    let manifest = put(
        dir.path(),
        "application/vnd.oci.image.manifest.v1+json",
        manifest.as_bytes(),
    );
    let mut inner = manifest;
    inner["platform"] = platform;
    let attestation =
        json!({"digest": "sha256:0", "platform": {"os": "unknown", "architecture": "unknown"}});
    let index = json!({"manifests": [attestation, inner]}).to_string();
    let index = put(
        dir.path(),
        "application/vnd.oci.image.index.v1+json",
        index.as_bytes(),
    );
    fs::write(
        dir.path().join("index.json"),
        json!({"manifests": [index]}).to_string(),
    )
    .unwrap();
    dir
}

fn ours() -> Value {
    json!({"os": "linux", "architecture": arch()})
}

fn told<T>(result: Result<T>) -> String {
    let text = format!("{:#}", result.err().expect("it is refused"));
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn layers_of_every_compression_in_order() {
    let layers = [layer("1"), layer("22"), layer("333")];
    let dir = layout(&config(&layers), &layers, ours());
    let image = Image::open(dir.path()).unwrap();
    assert_eq!(image.process().entrypoint.unwrap(), ["/x"]);
    let root = TempDir::new().unwrap();
    image.unpack(root.path()).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("file")).unwrap(), "333");
}

#[test]
fn an_image_for_another_processor_is_told() {
    let layers = [layer("1")];
    let other = json!({"os": "linux", "architecture": "wasm"});
    let error = told(Image::open(layout(&config(&layers), &layers, other).path()));
    assert!(
        error.contains("only for") && error.contains("linux/wasm"),
        "{error}"
    );
    let mut config = config(&layers);
    config["architecture"] = "wasm".into();
    let error = told(Image::open(layout(&config, &layers, ours()).path()));
    assert!(error.contains("linux/wasm"), "{error}");
}

#[test]
fn what_is_not_what_it_was_is_told() {
    let layers = [layer("1"), layer("2")];
    let swapped = [layers[1].clone(), layers[0].clone()];
    let dir = layout(&config(&swapped), &layers, ours());
    let root = TempDir::new().unwrap();
    assert!(told(Image::open(dir.path()).unwrap().unpack(root.path())).contains("is damaged"));
    let dir = layout(&config(&layers[..1]), &layers, ours());
    assert!(told(Image::open(dir.path())).contains("do not agree"));
    // A manifest that was changed after its digest was taken.
    let dir = layout(&config(&layers), &layers, ours());
    for blob in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(b"{\"config\"") {
            bytes.push(b' ');
            fs::write(path, bytes).unwrap();
        }
    }
    assert!(told(Image::open(dir.path())).contains("its digest differs"));
}

#[test]
fn documents_of_strangers_are_bounded() {
    let open = |index: &str| {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("index.json"), index).unwrap();
        told(Image::open(dir.path()))
    };
    assert!(open("{").contains("`index.json` is damaged"));
    assert!(open(&" ".repeat(5 << 20)).contains("larger than"));
    let index = |digest: &str| json!({"manifests": [{"digest": digest}]}).to_string();
    assert!(open(&index("sha256:../../../../etc/passwd")).contains("no sha256 digest"));
    assert!(open(&index(&format!("sha256:{}", "0".repeat(64)))).contains("has no"));
    assert!(open(r#"{"manifests": []}"#).contains("no image for"));
    // A symlink in the layout shows nothing of the host.
    let dir = TempDir::new().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("index.json")).unwrap();
    assert!(told(Image::open(dir.path())).contains("neither index.json"));
}

#[test]
fn links_in_a_docker_archive_are_followed_within_it() {
    let dir = TempDir::new().unwrap();
    let content = layer("1");
    let config = config(&[content.clone(), content.clone()]).to_string();
    let pack = |link: &str, target: &str| {
        let path = dir.path().join("saved.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        let manifest = json!([{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]);
        for (name, bytes) in [
            ("manifest.json", manifest.to_string().as_bytes()),
            ("c.json", config.as_bytes()),
            ("a/layer.tar", content.as_slice()),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, bytes).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, link, target).unwrap();
        builder.finish().unwrap();
        path
    };
    let root = TempDir::new().unwrap();
    Image::open(&pack("b/layer.tar", "../a/layer.tar"))
        .unwrap()
        .unpack(root.path())
        .unwrap();
    for target in ["/etc/passwd", "../../../../etc/passwd", "layer.tar"] {
        let image = Image::open(&pack("b/layer.tar", target)).unwrap();
        let root = TempDir::new().unwrap();
        assert!(
            told(image.unpack(root.path())).contains("has no"),
            "{target}"
        );
    }
}

#[test]
fn a_layout_becomes_a_docker_archive_of_the_same_image() {
    let layers = [layer("one"), layer("two"), layer("one")];
    let dir = layout(&config(&layers), &layers, ours());
    let image = Image::open(dir.path()).unwrap();
    let archive = TempDir::new().unwrap();
    let path = archive.path().join("image.tar");
    let mut file = File::create(&path).unwrap();
    image.save("kcap-executor:x", &mut file).unwrap();
    let saved = Image::open(&path).unwrap();
    assert_eq!(
        (&saved.id, &saved.packed.layers),
        (&image.id, &image.packed.layers)
    );
    let root = TempDir::new().unwrap();
    saved.unpack(root.path()).unwrap();
    assert_eq!(fs::read(root.path().join("file")).unwrap(), b"one");
    let mut names = Archive::new(File::open(&path).unwrap());
    let mut manifest = String::new();
    let mut first = names.entries().unwrap().next().unwrap().unwrap();
    first.read_to_string(&mut manifest).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["kcap-executor:x"]));
}

#[test]
fn one_of_several_images_is_not_guessed() {
    let layers = [layer("x")];
    let dir = layout(&config(&layers), &layers, ours());
    let path = dir.path().join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let digest = digest_of(b"another");
    let manifests = index["manifests"].as_array_mut().unwrap();
    manifests.push(manifests[0].clone());
    fs::write(&path, index.to_string()).unwrap();
    // The same one twice is one.
    Image::open(dir.path()).unwrap();
    index["manifests"][1]["digest"] = json!(digest);
    fs::write(&path, index.to_string()).unwrap();
    assert!(told(Image::open(dir.path())).contains("several images"));
}

//! An image of the known executor, and of nothing else.

use std::fs;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::lab::{self, Lab};

/// A file system as a tar archive: the executor under its three names, at the path by which it is
/// watched for, and these Dockerfiles by their names.
pub fn layer(lab: &Lab, dockerfiles: &[(String, String)]) -> Vec<u8> {
    let executor = fs::read(lab::example()).expect("the executor can be read");
    let mut tar = tar::Builder::new(vec![]);
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        (tar.append_data(&mut header, path.trim_start_matches('/'), bytes)).expect("in memory");
    };
    for path in [&lab.path("kaniko/executor"), "/bin/sh", "/bin/truth"] {
        add(path, &executor);
    }
    for (name, text) in dockerfiles {
        add(name, text.as_bytes());
    }
    tar.into_inner().expect("in memory")
}

/// An image of one layer under this name, as `docker save` writes it. Its program performs an operation,
/// where there is one.
pub fn archive(layer: &[u8], name: &str, operation: Option<&str>) -> Vec<u8> {
    let digest: String = (Sha256::digest(layer).iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let entrypoint = operation.map(|operation| ["/bin/truth", operation]);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Entrypoint": entrypoint},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut tar = tar::Builder::new(vec![]);
    for (path, bytes) in [
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().as_bytes()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes)
            .expect("in memory");
    }
    tar.into_inner().expect("in memory")
}

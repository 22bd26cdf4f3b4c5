//! A registry of the test's own, and images for it.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{PATIENCE, said};

/// A registry. Dropped, it ends.
pub struct Registry {
    server: Child,
    place: TempDir,
    pub address: String,
}

/// Where `docker-registry` is; `None` where it is not.
pub fn program() -> Option<OsString> {
    let named = env::var_os("KCAP_REGISTRY").filter(|path| !path.is_empty());
    // As `cargo xtask setup` unpacks it.
    let cache = || {
        let home = PathBuf::from(env::var_os("HOME")?);
        let path = home.join(".cache/kcap/registry/usr/bin/docker-registry");
        path.exists().then(|| path.into_os_string())
    };
    let program = named.or_else(cache).unwrap_or("docker-registry".into());
    Command::new(&program).arg("--version").output().ok()?;
    Some(program)
}

impl Registry {
    pub fn start() -> Self {
        let place = TempDir::with_prefix("kcap-registry-").unwrap();
        // Free a moment ago; were it taken meanwhile, the registry says so and ends.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let config = place.path().join("config.yml");
        let images = place.path().join("images").display().to_string();
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {images:?}}}}}\nhttp: {{addr: {address:?}}}\n"
        );
        fs::write(&config, text).unwrap();
        let log = place.path().join("log");
        let server = Command::new(program().expect("looked for before"))
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut registry = Self {
            server,
            place,
            address,
        };
        let began = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            let ended = registry.server.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "it does not answer: {}",
                fs::read_to_string(&log).unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Puts an image of a layout there, with all that a list of it names.
    pub fn push(&self, layout: &Layout, tag: &str, name: &str, flags: &[&str]) {
        let pushed = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--all"])
            .args(flags)
            .arg("--dest-tls-verify=false")
            .arg(format!("oci:{}:{tag}", layout.0.path().display()))
            .arg(format!("docker://{}/{name}", self.address))
            .output()
            .unwrap();
        assert!(pushed.status.success(), "{}", said(&pushed));
    }

    /// A manifest as it is there, byte for byte.
    pub fn manifest(&self, name: &str) -> Vec<u8> {
        manifest(&format!("{}/{name}", self.address))
    }

    /// Loses the bytes of a blob or manifest.
    pub fn lose(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blob = format!(
            "images/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        );
        fs::remove_file(self.place.path().join(blob)).unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Where it is gone by now, there is nothing to do.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What skopeo finds at a name.
pub fn manifest(name: &str) -> Vec<u8> {
    let asked = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{name}"))
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", said(&asked));
    asked.stdout
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// An OCI layout with images of busybox.
pub struct Layout(TempDir);

impl Layout {
    /// `one` and `two`: images with another mark each; `twin`: as `two`, for this processor, with an
    /// ONBUILD; `list`: `one` for this processor, and `two` for
    /// another.
    pub fn new() -> Self {
        let layout = Self(TempDir::with_prefix("kcap-layout-").unwrap());
        let place = |name: &str| layout.0.path().join(name);
        fs::create_dir_all(place("blobs/sha256")).unwrap();
        fs::write(place("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        let host = match env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let mut one = layout.image("one", host, json!({}));
        let mut two = layout.image("two", "riscv64", json!({}));
        let twin = layout.image(
            "two",
            host,
            json!({"OnBuild": ["COPY --from=busybox:onbuild / /x"]}),
        );
        one["platform"] = json!({"os": "linux", "architecture": host});
        two["platform"] = json!({"os": "linux", "architecture": "riscv64"});
        let index = "application/vnd.oci.image.index.v1+json";
        let list = json!({"schemaVersion": 2, "mediaType": index, "manifests": [two, one]});
        let list = layout.blob(list.to_string().as_bytes(), index);
        let tagged = |mut entry: Value, tag: &str| {
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
            entry
        };
        let all = [
            tagged(one, "one"),
            tagged(two, "two"),
            tagged(twin, "twin"),
            tagged(list, "list"),
        ];
        let index = json!({"schemaVersion": 2, "manifests": all});
        fs::write(place("index.json"), index.to_string()).unwrap();
        layout
    }

    fn blob(&self, bytes: &[u8], kind: &str) -> Value {
        let digest = digest(bytes);
        let path = format!("blobs/{}", digest.replace(':', "/"));
        fs::write(self.0.path().join(path), bytes).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    fn image(&self, mark: &str, architecture: &str, config: Value) -> Value {
        let root = TempDir::new().unwrap();
        busybox(root.path());
        fs::write(root.path().join("etc/mark"), mark).unwrap();
        let packed = Command::new("tar")
            .args([
                "-c",
                "--mtime=@0",
                "--sort=name",
                "--owner=0",
                "--group=0",
                "-C",
            ])
            .arg(root.path())
            .arg(".")
            .output()
            .unwrap();
        assert!(packed.status.success(), "{}", said(&packed));
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let layer = self.blob(&packed.stdout, layer);
        let config = json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}});
        let config = config.to_string();
        let config = self.blob(
            config.as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
        self.blob(manifest.to_string().as_bytes(), kind)
    }
}

/// A root with busybox.
fn busybox(root: &Path) {
    for folder in ["bin", "etc", "tmp"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["sh", "grep", "test"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

//! A bare executor binary as an image, laid out as Kaniko's own, for engines that run images only.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Where the executor is in its image, as in Kaniko's.
pub(super) const EXECUTOR: &str = "/kaniko/executor";
/// The machine's authorities: the executor pulls base images by TLS.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An executor binary on this host.
pub(super) struct Bare<'a> {
    binary: &'a Path,
    authorities: Option<Vec<u8>>,
    /// What Go calls the architecture it is for.
    architecture: &'static str,
    /// SHA-256 of its only layer, in hex.
    layer: String,
    length: u64,
}

impl<'a> Bare<'a> {
    /// # Errors
    /// Where it cannot be read, or is no program for this machine.
    pub fn new(binary: &'a Path) -> Result<Self> {
        let mut bare = Self {
            binary,
            authorities: fs::read(AUTHORITIES).ok(),
            architecture: architecture(binary)?,
            layer: String::new(),
            length: 0,
        };
        let mut sum = Sum::default();
        bare.write_layer(&mut sum)?;
        bare.length = sum.length;
        bare.layer = hex(&sum.digest.finalize());
        Ok(bare)
    }

    /// Names its content: SHA-256 of the image's configuration, in hex.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.config().to_string()))
    }

    fn config(&self) -> Value {
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [EXECUTOR],
                "Env": [
                    "HOME=/root",
                    "USER=root",
                    "PATH=/usr/local/bin:/kaniko",
                    "SSL_CERT_DIR=/kaniko/ssl/certs",
                    "DOCKER_CONFIG=/kaniko/.docker/",
                ],
                "WorkingDir": "/workspace",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", self.layer)]},
            "history": [{"created_by": "kcap: a bare executor"}],
        })
    }

    /// Writes a docker archive that names the image `tag`.
    ///
    /// # Errors
    /// Where it cannot be written, or the binary has changed meanwhile.
    pub fn write(&self, tag: &str, to: &mut dyn Write) -> Result<()> {
        let config = self.config().to_string();
        let name = format!("{}.json", self.digest());
        let manifest = json!([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]);
        let mut archive = Builder::new(to);
        file(&mut archive, &name, 0o644, config.as_bytes())?;
        file(
            &mut archive,
            "manifest.json",
            0o644,
            manifest.to_string().as_bytes(),
        )?;
        let mut header = Header::new_gnu();
        header.set_path("layer.tar")?;
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(self.length);
        header.set_cksum();
        let to = archive.get_mut();
        to.write_all(header.as_bytes())?;
        let mut sum = Sum::default();
        self.write_layer(&mut Tee(to, &mut sum))?;
        ensure!(
            sum.length == self.length && hex(&sum.digest.finalize()) == self.layer,
            "{} is being changed: wait until it is whole",
            self.binary.display()
        );
        // A tar file is a whole number of blocks, so that no padding is needed.
        archive.finish()?;
        Ok(())
    }

    fn write_layer(&self, to: &mut dyn Write) -> Result<()> {
        let mut layer = Builder::new(to);
        for (folder, mode) in [
            ("etc/", 0o755),
            ("kaniko/", 0o777),
            ("kaniko/.docker/", 0o755),
            ("kaniko/ssl/", 0o755),
            ("kaniko/ssl/certs/", 0o755),
            ("workspace/", 0o755),
        ] {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_mode(mode);
            header.set_size(0);
            layer.append_data(&mut header, folder, io::empty())?;
        }
        file(
            &mut layer,
            "etc/nsswitch.conf",
            0o644,
            b"hosts: files dns\n",
        )?;
        if let Some(authorities) = &self.authorities {
            file(
                &mut layer,
                "kaniko/ssl/certs/ca-certificates.crt",
                0o644,
                authorities,
            )?;
        }
        let opened = File::open(self.binary)
            .and_then(|file| Ok((file.metadata()?.len(), file)))
            .with_context(|| format!("cannot read {}", self.binary.display()));
        let (length, binary) = opened?;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o755);
        header.set_size(length);
        // Bounded, so that a growing file does not break the archive before its sum is compared.
        let bytes = io::BufReader::with_capacity(1 << 20, io::Read::take(binary, length));
        layer.append_data(&mut header, &EXECUTOR[1..], bytes)?;
        layer.finish()?;
        Ok(())
    }
}

/// What Go calls this machine's architecture.
pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The architecture of an ELF program, which must be this machine's.
fn architecture(binary: &Path) -> Result<&'static str> {
    let mut head = [0; 20];
    File::open(binary)
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut head))
        .with_context(|| format!("cannot read {}", binary.display()))?;
    if !head.starts_with(b"\x7fELF") {
        bail!("{} is no program", binary.display());
    }
    let number = [head[18], head[19]];
    let machine = if head[5] == 1 {
        u16::from_le_bytes(number)
    } else {
        u16::from_be_bytes(number)
    };
    let name = match machine {
        3 => "386",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        _ => "another architecture",
    };
    let host = host_architecture();
    ensure!(
        name == host,
        "{} is for {name}, and this machine is {host}: name an executor built for it",
        binary.display()
    );
    Ok(host)
}

fn file<W: Write>(archive: &mut Builder<W>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}

/// Bytes in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Sums up what is written to it.
#[derive(Default)]
struct Sum {
    digest: Sha256,
    length: u64,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to both.
struct Tee<'a>(&'a mut dyn Write, &'a mut Sum);

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    /// What looks like a program of this machine.
    fn program() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("executor");
        let mut whole = File::open("/proc/self/exe").unwrap().take(5_001);
        let mut bytes = Vec::new();
        whole.read_to_end(&mut bytes).unwrap();
        fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn entries(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(bytes)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect()
    }

    #[test]
    fn the_archive_is_what_its_manifest_says() {
        let (_dir, program) = program();
        let bare = Bare::new(&program).unwrap();
        let mut bytes = Vec::new();
        bare.write("kcap-executor:x", &mut bytes).unwrap();
        let archive = entries(&bytes);
        let manifest: Value = serde_json::from_slice(&archive["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["kcap-executor:x"]));
        let config = &archive[manifest[0]["Config"].as_str().unwrap()];
        assert_eq!(hex(&Sha256::digest(config)), bare.digest());
        let config: Value = serde_json::from_slice(config).unwrap();
        let layer = &archive[manifest[0]["Layers"][0].as_str().unwrap()];
        assert_eq!(
            config["rootfs"]["diff_ids"],
            json!([format!("sha256:{}", hex(&Sha256::digest(layer)))])
        );
        let layer = entries(layer);
        assert_eq!(layer["kaniko/executor"], fs::read(&program).unwrap());
        assert!(layer.contains_key("workspace/") && layer.contains_key("etc/nsswitch.conf"));
        assert_eq!(Bare::new(&program).unwrap().digest(), bare.digest());
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("executor");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            format!("{:#}", Bare::new(&path).err().unwrap())
        };
        assert!(refused(b"#!/bin/sh\nexec /kaniko/executor\n").contains("is no program"));
        assert!(refused(b"\x7fELF").contains("cannot read"));
        let mut head = [0u8; 64];
        head[..4].copy_from_slice(b"\x7fELF");
        (head[5], head[18]) = (1, 22);
        assert!(refused(&head).contains("is for s390x, and this machine is"));
    }

    #[test]
    fn a_binary_that_changes_is_noticed() {
        let (_dir, path) = program();
        let bare = Bare::new(&path).unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&[0; 512])
            .unwrap();
        let error = bare.write("x:y", &mut io::sink()).unwrap_err().to_string();
        assert!(error.contains("is being changed"), "{error}");
    }
}

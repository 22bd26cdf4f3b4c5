//! The BPF object's identity: what it is built from, and the note kept beside the committed one.
//!
//! Shared by `build.rs`, which chooses an object, and by `cargo xtask bpf`, which makes one, so
//! that both mean the same by "fresh".

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The committed object, relative to the folder of package `kcap`.
pub const OBJECT: &str = "bpf/kcap.bpf.o";
/// The note beside it, relative to the folder of package `kcap`.
pub const NOTE: &str = "bpf/kcap.bpf.toml";

/// Folders and files, relative to the workspace, whose every byte goes into the object.
const SOURCES: [&str; 4] = [
    "kcap-common/Cargo.toml",
    "kcap-common/src",
    "kcap-ebpf/Cargo.toml",
    "kcap-ebpf/src",
];
/// The package that is compiled into the object.
const PACKAGE: &str = "kcap-ebpf";

/// What is known of a built object: SHA-256 sums in hexadecimal, and the toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Of everything that goes in: see [`sources`].
    pub sources: String,
    /// Of the object's bytes.
    pub object: String,
    /// Versions of everything that took part in making it; equal toolchains make equal bytes.
    pub toolchain: String,
}

impl Note {
    /// The note as text: a header and three TOML keys.
    pub fn render(&self) -> String {
        format!(
            "# Written by `cargo xtask bpf`; describes kcap.bpf.o beside it.\n\
             sources = \"{}\"\nobject = \"{}\"\ntoolchain = \"{}\"\n",
            self.sources, self.object, self.toolchain
        )
    }

    /// Reads what [`Note::render`] wrote. `None` where a key is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
                (name.trim() == key).then(|| value.to_owned())
            })
        };
        Some(Self {
            sources: value("sources")?,
            object: value("object")?,
            toolchain: value("toolchain")?,
        })
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The sum of everything that goes into the object besides the toolchain: the sources, the part
/// of the lock file that names their dependencies, the part of the workspace's manifest that
/// decides how they are compiled, and `flags`.
///
/// `None` where the BPF sources are not there: a packaged or vendored kcap.
///
/// # Errors
/// Where a source that is there cannot be read.
pub fn sources(workspace: &Path, flags: &[&str]) -> io::Result<Option<String>> {
    if !workspace.join(PACKAGE).join("src").is_dir() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    let mut add = |name: &str, bytes: &[u8]| {
        // Lengths keep two different lists of files from having the same bytes.
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for file in files(workspace)? {
        let name = file.strip_prefix(workspace).unwrap_or(&file);
        add(&name.to_string_lossy(), &fs::read(&file)?);
    }
    let locked = lock_closure(&fs::read_to_string(workspace.join("Cargo.lock"))?);
    let manifest = fs::read_to_string(workspace.join("Cargo.toml"))?;
    add("Cargo.lock", locked.text.as_bytes());
    add(
        "Cargo.toml",
        manifest_part(&manifest, &locked.direct).as_bytes(),
    );
    add("flags", flags.join("\n").as_bytes());
    Ok(Some(hex(hash)))
}

/// The files below [`SOURCES`], sorted.
fn files(workspace: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = SOURCES.iter().map(|s| workspace.join(s)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What must be watched for [`sources`] to change, as far as it exists.
pub fn watched(workspace: &Path) -> Vec<PathBuf> {
    SOURCES
        .iter()
        .chain(&["Cargo.lock", "Cargo.toml"])
        .map(|name| workspace.join(name))
        .filter(|path| path.exists())
        .collect()
}

/// The part of a lock file that [`PACKAGE`] depends on.
struct Locked {
    text: String,
    direct: BTreeSet<String>,
}

fn lock_closure(lock: &str) -> Locked {
    let blocks: Vec<&str> = lock.split("[[package]]").skip(1).collect();
    let field = |block: &str, key: &str| {
        block.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.trim_start().strip_prefix('=')?;
            Some(value.trim().trim_matches('"').to_owned())
        })
    };
    // Entries of a block's dependencies: `"name"`, or `"name version"` where that is ambiguous.
    let dependencies = |block: &str| -> Vec<String> {
        block
            .lines()
            .filter_map(|line| line.strip_prefix(" \"")?.split('"').next())
            .map(str::to_owned)
            .collect()
    };
    let mut wanted = vec![PACKAGE.to_owned()];
    let mut taken = BTreeSet::new();
    let mut direct = BTreeSet::new();
    while let Some(wish) = wanted.pop() {
        let mut words = wish.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        for (index, block) in blocks.iter().enumerate() {
            let is_it = field(block, "name").as_deref() == Some(name)
                && version.is_none_or(|v| field(block, "version").as_deref() == Some(v));
            if is_it && taken.insert(index) {
                let next = dependencies(block);
                if !block.contains("\nsource = ") {
                    direct.extend(
                        next.iter()
                            .filter_map(|d| d.split(' ').next())
                            .map(str::to_owned),
                    );
                }
                wanted.extend(next);
            }
        }
    }
    let text = taken.iter().map(|&index| blocks[index]).collect();
    Locked { text, direct }
}

/// The lines of the workspace's manifest that decide how `direct` dependencies and the members
/// that use them are compiled.
fn manifest_part(manifest: &str, direct: &BTreeSet<String>) -> String {
    let mut section = "";
    let mut part = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim();
        }
        let key = line.split(['=', '.']).next().unwrap_or_default().trim();
        let decides = section == "[workspace.package]"
            || section.starts_with("[profile.release]")
            || section.starts_with("[profile.release.package.kcap-")
            || section == "[workspace.dependencies]" && direct.contains(key);
        if decides && !line.trim().is_empty() && !line.trim_start().starts_with('#') {
            part.push_str(line);
            part.push('\n');
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"version = 4

[[package]]
name = "a"
version = "1.0.0"
source = "registry"
checksum = "aa"
dependencies = [
 "b 2.0.0",
]

[[package]]
name = "b"
version = "1.0.0"
source = "registry"

[[package]]
name = "b"
version = "2.0.0"
source = "registry"

[[package]]
name = "kcap"
version = "0.1.0"
dependencies = [
 "b 1.0.0",
 "kcap-common",
]

[[package]]
name = "kcap-common"
version = "0.1.0"

[[package]]
name = "kcap-ebpf"
version = "0.1.0"
dependencies = [
 "a",
 "kcap-common",
]
"#;

    #[test]
    fn the_lock_counts_as_far_as_it_is_depended_on() {
        let locked = lock_closure(LOCK);
        assert!(locked.text.contains("version = \"2.0.0\""));
        assert!(!locked.text.contains("name = \"b\"\nversion = \"1.0.0\""));
        assert!(!locked.text.contains("name = \"kcap\""));
        let direct: Vec<&str> = locked.direct.iter().map(String::as_str).collect();
        assert_eq!(direct, ["a", "kcap-common"]);
        let other = LOCK.replace("aa", "bb");
        assert_ne!(lock_closure(&other).text, locked.text);
    }

    #[test]
    fn the_manifest_counts_as_far_as_it_decides() {
        let manifest = "[workspace.package]\nedition = \"2024\"\n\n[workspace.dependencies]\n\
                        a = \"1\"\nserde = \"1\"\n[workspace.lints.rust]\nx = \"warn\"\n\
                        [profile.dev]\ndebug = 1\n[profile.release.package.kcap-ebpf]\n# why\n\
                        debug = 2\n";
        let part = manifest_part(manifest, &BTreeSet::from(["a".to_owned()]));
        assert_eq!(
            part,
            "[workspace.package]\nedition = \"2024\"\na = \"1\"\n\
             [profile.release.package.kcap-ebpf]\ndebug = 2\n"
        );
    }

    #[test]
    fn notes_are_read_as_written() {
        let note = Note {
            sources: "00".into(),
            object: "ff".into(),
            toolchain: "rustc-web-1.96.0+dfsg1, bpf-linker 0.13.0, cargo = x".into(),
        };
        assert_eq!(Note::parse(&note.render()), Some(note));
        assert_eq!(Note::parse("sources = \"00\"\n"), None);
    }

    #[test]
    fn every_source_and_flag_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let sum = |flags: &[&str]| sources(root, flags).unwrap();
        assert_eq!(sum(&[]), None);
        for name in ["kcap-common/src/abi", "kcap-ebpf/src"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in [
            "kcap-common/Cargo.toml",
            "kcap-ebpf/Cargo.toml",
            "Cargo.toml",
        ] {
            fs::write(root.join(name), "").unwrap();
        }
        fs::write(root.join("Cargo.lock"), LOCK).unwrap();
        let first = sum(&[]);
        assert!(first.is_some());
        assert_eq!(sum(&[]), first);
        assert_ne!(sum(&["-Cx"]), first);
        let source = root.join("kcap-common/src/abi/key.rs");
        fs::write(&source, "a").unwrap();
        let second = sum(&[]);
        assert_ne!(second, first);
        fs::rename(&source, root.join("kcap-common/src/abi/yek.rs")).unwrap();
        assert_ne!(sum(&[]), second);
    }
}

//! A build context as one number: two that give it are the same to a build.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// SHA-256, in hexadecimal digits, over paths, types, modes, owners, link targets, contents and their times of what
/// is in the folder, in the order of names. Links are not followed.
///
/// # Errors
/// What cannot be read.
pub fn digest(folder: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    walk(folder, Path::new(""), &mut hash, &mut buffer)
        .with_context(|| format!("cannot read the build context {}", folder.display()))?;
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn walk(root: &Path, below: &Path, hash: &mut Sha256, buffer: &mut [u8]) -> io::Result<()> {
    let mut names: Vec<_> = fs::read_dir(root.join(below))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        let below = below.join(name);
        let path = root.join(&below);
        let meta = match path.symlink_metadata() {
            Ok(meta) => meta,
            // Gone since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        // Lengths keep neighbours apart.
        let text = below.as_os_str().as_bytes();
        for number in [
            text.len() as u64,
            u64::from(meta.mode()),
            u64::from(meta.uid()),
            u64::from(meta.gid()),
            if meta.is_dir() { 0 } else { meta.len() },
            // COPY keeps it, and make decides by it.
            if meta.is_file() {
                meta.mtime() as u64 ^ (meta.mtime_nsec() as u64).rotate_left(32)
            } else {
                0
            },
        ] {
            hash.update(number.to_le_bytes());
        }
        hash.update(text);
        if meta.is_dir() {
            walk(root, &below, hash, buffer)?;
        } else if meta.is_symlink() {
            hash.update(fs::read_link(&path)?.as_os_str().as_bytes());
        } else if meta.is_file() {
            let mut file = fs::File::open(&path)?;
            loop {
                match file.read(buffer)? {
                    0 => break,
                    n => hash.update(&buffer[..n]),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_a_build_can_tell_apart_has_another_digest() {
        let dir = tempfile::tempdir().unwrap();
        let of = || digest(dir.path()).unwrap();
        let mut seen = vec![of()];
        let mut new = || {
            let digest = of();
            assert!(!seen.contains(&digest), "change {}", seen.len());
            seen.push(digest);
        };
        let file = dir.path().join("a");
        fs::write(&file, "1").unwrap();
        new();
        fs::write(&file, "2").unwrap();
        new();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        new();
        fs::create_dir(dir.path().join("d")).unwrap();
        new();
        fs::rename(&file, dir.path().join("d/a")).unwrap();
        new();
        symlink("d/a", &file).unwrap();
        new();
        fs::remove_file(&file).unwrap();
        symlink("d/b", &file).unwrap();
        new();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(7);
        let file = fs::File::options().write(true).open(dir.path().join("d/a"));
        file.unwrap().set_modified(later).unwrap();
        new();
        assert_eq!(of(), of());
    }
}

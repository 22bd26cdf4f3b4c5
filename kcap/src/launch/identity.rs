//! Which executor it is, where it is a path.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::oci::image::Image;

/// The SHA-256 of a file, or the id of the image in an OCI layout; as `sha256:` and 64 digits.
///
/// # Errors
/// Where it cannot be read.
pub fn of(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read the executor {}", path.display());
    if path.is_dir() {
        return Ok(Image::open(path).with_context(cannot)?.id);
    }
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(cannot)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer).with_context(cannot)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let digits: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("sha256:{digits}"))
}

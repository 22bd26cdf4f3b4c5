//! Images as they lie on this host: what running an executor's image and comparing images have in
//! common.
//!
//! [`Packed`] finds an image in a folder or archive, [`Store`] reads its files, [`tarball`] the
//! members of a layer. All of it is a stranger's: documents and headers are bounded, and no path
//! leads out of the folder.

mod packed;
pub mod root;
mod store;
pub mod tarball;

pub use packed::{Packed, Pick};
pub use store::{Store, decompressed};

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sha2::{Digest as _, Sha256};

use tarball::shown;

/// The processor of this host, as images name it.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Where a layout keeps a blob. The digest is a stranger's: nothing but digits gets into the path.
///
/// # Errors
/// Where it is no SHA-256.
pub fn blob(digest: &str) -> Result<PathBuf> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    ensure!(
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        "{} is no sha256 digest",
        shown(digest.as_bytes())
    );
    Ok(Path::new("blobs/sha256").join(hex))
}

/// The digest of bytes, as images write it.
pub fn digest_of(bytes: &[u8]) -> String {
    written(&Sha256::digest(bytes))
}

/// A SHA-256, as images write it.
pub fn written(hash: &[u8]) -> String {
    format!("sha256:{}", hex(hash))
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

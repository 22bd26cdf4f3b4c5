//! Reading a Dockerfile, bounded.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, Result, bail};

/// Largest Dockerfile read, in bytes.
const LIMIT: u64 = 4 << 20;

/// Its bytes.
///
/// # Errors
/// Where it cannot be read, or is larger than any Dockerfile.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = vec![];
    File::open(path)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut text))
        .with_context(|| {
            format!(
                "cannot read the Dockerfile {} (name a file that exists and is readable)",
                path.display()
            )
        })?;
    if text.len() as u64 > LIMIT {
        bail!(
            "{} is larger than {} MiB: is it a Dockerfile?",
            path.display(),
            LIMIT >> 20
        );
    }
    Ok(text)
}

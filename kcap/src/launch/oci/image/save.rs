//! An image as a docker archive, which every engine loads: docker reads layouts only from version 25
//! on.

use std::{
    collections::HashSet,
    io::{Read as _, Write},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::{Image, shown};

impl Image {
    /// Writes a docker archive that names the image `tag`. Only its configuration is checked: the
    /// layers are by who loads it.
    ///
    /// # Errors
    /// Where a file cannot be read or the archive not be written.
    pub fn save(&self, tag: &str, to: &mut dyn Write) -> Result<()> {
        let manifest = json!([{
            "Config": self.packed.name,
            "RepoTags": [tag],
            "Layers": self.packed.layers,
        }])
        .to_string();
        let mut archive = Builder::new(to);
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        let mut add = |path: &Path, size, content: &mut dyn std::io::Read| {
            header.set_size(size);
            archive.append_data(&mut header, path, content)
        };
        let length = manifest.len() as u64;
        add(Path::new("manifest.json"), length, &mut manifest.as_bytes())?;
        let mut done = HashSet::new();
        for name in [&self.packed.name].into_iter().chain(&self.packed.layers) {
            if done.insert(name) {
                let (size, content) = self.packed.store.open(name)?;
                add(name, size, &mut content.take(size)).with_context(|| {
                    format!("cannot copy {}", shown(name.as_os_str().as_bytes()))
                })?;
            }
        }
        archive.finish()?;
        Ok(())
    }
}

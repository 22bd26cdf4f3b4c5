//! Writing an initramfs: the kernel's "newc" cpio format, as much of it as a few files need.

use std::collections::BTreeSet;

/// An archive under construction. Everything in it belongs to root; folders come by themselves.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_600;

impl Archive {
    /// Adds a file with its permission bits. Paths are taken as absolute.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        let path = self.parents(path);
        self.entry(&path, FILE | permissions, (0, 0), content);
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        let path = self.parents(path);
        self.entry(&path, DEVICE, (major, minor), &[]);
    }

    /// Adds a folder, with those above it.
    pub fn folder(&mut self, path: &str) {
        let inside = format!("{}/.", path.trim_end_matches('/'));
        self.parents(&inside);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    /// Adds the folders above `path`, and returns it relative to the root.
    fn parents(&mut self, path: &str) -> String {
        let path = path.trim_start_matches('/').to_owned();
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, (0, 0), &[]);
            }
        }
        path
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of an initramfs is below 4 GB");
        let name_size = u32::try_from(name.len() + 1).expect("a path is short");
        let fields = [
            self.entries, // inode
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            size,
            0, // device it lies on, major and minor
            0,
            device.0,
            device.1,
            name_size,
            0, // checksum, unused
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, modes and contents, read back by the format's own rules.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let total = bytes.len();
        let up = |n: usize| n.div_ceil(4) * 4;
        loop {
            assert_eq!((total - bytes.len()) % 4, 0);
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let start = up(110 + name_size);
            let content = bytes[start..start + size].to_vec();
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode, content));
            bytes = &bytes[up(start + size)..];
        }
    }

    #[test]
    fn parents_come_once_and_first() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", 0o755, b"12345");
        archive.file("a/b/d", 0o644, b"");
        archive.folder("/a/e");
        let found = read(&archive.finish());
        let names: Vec<&str> = found.iter().map(|(name, _, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "a/e"]);
        assert_eq!(found[0].1, 0o040_755);
        assert_eq!(found[2].1, 0o100_755);
        assert_eq!(found[2].2, b"12345");
        assert_eq!(found[3].1, 0o100_644);
    }
}

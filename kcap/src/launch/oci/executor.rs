//! The executor's files: from a bare binary or an unpacked image into a build's root file system.
//!
//! Each build gets a copy of its own, which Kaniko can change and delete as in docker's. Not an
//! overlay, whose checks of SYS_ADMIN would be in the trace; not hard links, as Kaniko overwrites
//! files; not a mount of the binary, which Kaniko would see. Where the file system shares blocks
//! between files (Btrfs, XFS), the kernel copies nothing; elsewhere the 53 MB of an executor take
//! 20 ms.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

use super::{
    cache::{Cache, Unpacked},
    image::{Image, Process},
};

/// Where distributions keep the certificates of authorities in one file.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// An executor that is ready to be laid out.
#[derive(Debug)]
pub enum Executor {
    /// The program alone.
    Binary(PathBuf),
    /// An image.
    Unpacked(Unpacked),
}

impl Executor {
    /// Takes a path to a binary, an OCI layout or a docker archive. An image is unpacked by way of
    /// `scratch` ([`Cache::unpacked`]).
    ///
    /// # Errors
    /// What is wrong with it, and what to give.
    pub fn open(path: &Path, cache: &Cache, scratch: &Path) -> Result<Self> {
        let what = || format!("executor {}", path.display());
        let meta = fs::metadata(path).with_context(|| {
            format!(
                "cannot read the {}: give a binary, an OCI layout or a docker archive",
                what()
            )
        })?;
        if meta.is_dir() {
            return Self::image(path, cache, scratch).with_context(what);
        }
        ensure!(meta.is_file(), "{} is neither a file nor a folder", what());
        let mut start = Vec::new();
        File::open(path)
            .with_context(what)?
            .take(4096)
            .read_to_end(&mut start)
            .with_context(what)?;
        match start.as_slice() {
            [0x7f, b'E', b'L', b'F', ..] => {
                check_elf(&start).with_context(what)?;
                ensure!(
                    meta.mode() & 0o111 != 0,
                    "{} is not executable: chmod +x",
                    what()
                );
                Ok(Self::Binary(path.canonicalize()?))
            }
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                bail!("{} is compressed: gunzip or unzstd it first", what())
            }
            _ if start.get(257..262) == Some(b"ustar".as_slice()) => {
                Self::image(path, cache, scratch).with_context(what)
            }
            _ => bail!(
                "{} is no program and no archive: give a binary, an OCI layout or a docker archive",
                what()
            ),
        }
    }

    fn image(path: &Path, cache: &Cache, scratch: &Path) -> Result<Self> {
        Ok(Self::Unpacked(
            cache.unpacked(&Image::open(path)?, scratch)?,
        ))
    }

    /// The process that it is run as.
    ///
    /// # Errors
    /// Where the image wants a user other than root.
    pub fn process(&self) -> Result<Process> {
        let process = match self {
            Self::Binary(_) => Process {
                // As the official image has it.
                env: Some(
                    [
                        "HOME=/root",
                        "USER=root",
                        "PATH=/usr/local/bin:/kaniko",
                        "SSL_CERT_DIR=/kaniko/ssl/certs",
                        "DOCKER_CONFIG=/kaniko/.docker/",
                    ]
                    .map(String::from)
                    .into(),
                ),
                working_dir: "/workspace".into(),
                ..Process::default()
            },
            Self::Unpacked(image) => image.process.clone(),
        };
        let user = process.user.as_str();
        ensure!(
            matches!(user, "" | "0" | "root" | "0:0" | "root:root"),
            "the executor image runs as user {}: give one that runs as root",
            crate::render::escape::head(user, 40)
        );
        Ok(process)
    }

    /// Lays its files into an empty folder.
    ///
    /// # Errors
    /// The system's.
    pub fn lay(&self, rootfs: &Path) -> Result<()> {
        match self {
            Self::Binary(path) => lay_binary(path, rootfs),
            Self::Unpacked(image) => copy_tree(&image.rootfs, rootfs),
        }
        .with_context(|| format!("cannot fill {}", rootfs.display()))
    }
}

/// Kaniko's image as its `deploy/Dockerfile` makes it, without credential helpers.
fn lay_binary(binary: &Path, rootfs: &Path) -> Result<()> {
    for dir in ["kaniko/.docker", "kaniko/ssl/certs", "etc", "workspace"] {
        fs::create_dir_all(rootfs.join(dir))?;
    }
    let kaniko = rootfs.join("kaniko");
    fs::set_permissions(&kaniko, fs::Permissions::from_mode(0o777))?;
    let executor = kaniko.join("executor");
    fs::copy(binary, &executor)?;
    fs::set_permissions(&executor, fs::Permissions::from_mode(0o755))?;
    if let Some(certificates) = CERTIFICATES.iter().find(|path| Path::new(path).is_file()) {
        let to = kaniko.join("ssl/certs/ca-certificates.crt");
        fs::copy(certificates, &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
    }
    fs::write(rootfs.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    Ok(())
}

/// Copies a folder's content with owners, modes, times, attributes and hard links.
///
/// Both folders are kcap's, and nobody else writes there: paths stay what they are.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut links = HashMap::new();
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    let mut times = Vec::new();
    while let Some((from, to)) = folders.pop() {
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let meta = entry.metadata()?;
            if meta.is_symlink() {
                symlink(fs::read_link(&from)?, &to)?;
                lchown(&to, Some(meta.uid()), Some(meta.gid()))?;
                continue;
            }
            if meta.is_dir() {
                fs::DirBuilder::new().mode(0o700).create(&to)?;
                folders.push((from.clone(), to.clone()));
            } else {
                if meta.nlink() > 1 {
                    if let Some(first) = links.get(&meta.ino()) {
                        fs::hard_link(first, &to)?;
                        continue;
                    }
                    links.insert(meta.ino(), to.clone());
                }
                fs::copy(&from, &to)?;
            }
            lchown(&to, Some(meta.uid()), Some(meta.gid()))?;
            fs::set_permissions(&to, meta.permissions())?;
            copy_xattrs(&from, &to)?;
            times.push((to, meta));
        }
    }
    // Last, as what is put into a folder changes its time.
    for (path, meta) in times {
        let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: time(meta.atime(), meta.atime_nsec()),
            last_modification: time(meta.mtime(), meta.mtime_nsec()),
        };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn copy_xattrs(from: &Path, to: &Path) -> Result<()> {
    let mut names = [0u8; 4096];
    let used = match rustix::fs::llistxattr(from, &mut names[..]) {
        Ok(used) => used,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e).context("cannot list attributes"),
    };
    for name in names[..used]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0u8; 65536];
        let size = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        rustix::fs::lsetxattr(to, name, &value[..size], XattrFlags::empty())?;
    }
    Ok(())
}

/// A program for this processor, which needs no loader from its image.
fn check_elf(start: &[u8]) -> Result<()> {
    // Numbers of `e_machine`, with the names of Rust's `ARCH`.
    const MACHINES: [(u16, &str); 7] = [
        (3, "x86"),
        (21, "powerpc64"),
        (22, "s390x"),
        (40, "arm"),
        (62, "x86_64"),
        (183, "aarch64"),
        (243, "riscv64"),
    ];
    let bytes = |at: usize, count: usize| start.get(at..at.checked_add(count)?);
    let big = bytes(5, 1) == Some(&[2]);
    let number = |at: usize, count: usize| -> Option<u64> {
        let fold = |sum: u64, b: &u8| sum << 8 | u64::from(*b);
        let bytes = bytes(at, count)?;
        Some(if big {
            bytes.iter().fold(0, fold)
        } else {
            bytes.iter().rev().fold(0, fold)
        })
    };
    let machine = number(18, 2).context("it ends within its header")?;
    let name = MACHINES
        .iter()
        .find(|(m, _)| u64::from(*m) == machine)
        .map(|(_, name)| *name);
    ensure!(
        name == Some(std::env::consts::ARCH),
        "it is a program for {}, this host is {}",
        name.unwrap_or("another processor"),
        std::env::consts::ARCH
    );
    // Program headers of 64-bit files; they follow the header, so that they are in what was read.
    let headers = (number(32, 8), number(54, 2), number(56, 2));
    if let (Some(at), Some(size), Some(count)) = headers {
        let interpreter = (0..count.min(64)).any(|n| {
            let at = usize::try_from(at.saturating_add(n * size)).unwrap_or(usize::MAX);
            number(at, 4) == Some(3)
        });
        ensure!(
            !interpreter,
            "it is dynamically linked, and would find no libraries: build it with CGO_ENABLED=0"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of a 64-bit program with one program header of a kind.
    fn elf(machine: u16, kind: u32) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        file[64..68].copy_from_slice(&kind.to_le_bytes());
        file
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn programs_that_cannot_run_are_told() {
        check_elf(&elf(62, 1)).unwrap();
        let told = |file: &[u8]| check_elf(file).unwrap_err().to_string();
        assert!(told(&elf(183, 1)).contains("for aarch64, this host is x86_64"));
        assert!(told(&elf(999, 1)).contains("another processor"));
        assert!(told(&elf(62, 3)).contains("CGO_ENABLED=0"));
        assert!(told(&elf(62, 1)[..10]).contains("ends within"));
        // Numbers that lead out of the file.
        let mut wild = elf(62, 1);
        wild[32..40].fill(0xff);
        check_elf(&wild).unwrap();
    }

    #[test]
    fn a_copy_is_the_same_and_shares_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/b/file"), "one").unwrap();
        fs::hard_link(from.join("a/b/file"), from.join("a/twin")).unwrap();
        symlink("/etc/passwd", from.join("a/link")).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o1755)).unwrap();
        copy_tree(&from, &to).unwrap();
        let meta = |path: PathBuf| path.symlink_metadata().unwrap();
        assert_eq!(fs::read(to.join("a/twin")).unwrap(), b"one");
        assert_eq!(
            meta(to.join("a/twin")).ino(),
            meta(to.join("a/b/file")).ino()
        );
        assert_ne!(
            meta(to.join("a/twin")).ino(),
            meta(from.join("a/twin")).ino()
        );
        assert_eq!(
            fs::read_link(to.join("a/link")).unwrap(),
            Path::new("/etc/passwd")
        );
        assert_eq!(meta(to.join("a/b")).mode() & 0o7777, 0o1755);
        for path in ["a", "a/b", "a/b/file"] {
            assert_eq!(
                meta(to.join(path)).mtime_nsec(),
                meta(from.join(path)).mtime_nsec()
            );
        }
        fs::write(to.join("a/b/file"), "two").unwrap();
        assert_eq!(fs::read(from.join("a/twin")).unwrap(), b"one");
    }
}

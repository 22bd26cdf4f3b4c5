use super::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn all_versions() {
    let has = |permitted, inheritable, effective, rootid| {
        Ok(FileCaps::Has {
            permitted,
            inheritable,
            effective,
            rootid,
        })
    };
    assert_eq!(
        parse(&bytes(&[0x0100_0001, 0x400, 2])),
        has(0x400, 2, true, None)
    );
    assert_eq!(
        parse(&bytes(&[0x0200_0000, 0x2000, 0, 0x100, 4])),
        has(0x100_0000_2000, 0x4_0000_0000, false, None)
    );
    assert_eq!(
        parse(&bytes(&[0x0300_0001, 0x2000, 0, 0, 0, 100_000])),
        has(0x2000, 0, true, Some(100_000))
    );
}

#[test]
fn what_the_kernel_refuses() {
    for words in [
        &[][..],
        &[0x0200_0000],
        &[0x0100_0000, 1, 1, 0, 0],
        &[0x0200_0000, 1, 1],
        &[0x0200_0000, 1, 1, 0, 0, 0],
        &[0x0300_0000, 1, 1, 0, 0],
        &[0x0300_0000, 1, 1, 0, 0, 0, 0],
        &[0x0400_0000, 1, 1, 0, 0],
        &[0x0400_0000, 1, 1, 0, 0, 0],
        &[0, 0, 0],
    ] {
        assert_eq!(
            parse(&bytes(words)),
            Err(InvalidCaps {
                len: 4 * words.len()
            }),
            "{words:x?}"
        );
    }
    assert!(parse(&bytes(&[0x0200_0000, 1, 1, 0, 0])[..19]).is_err());
}

proptest! {
    #[test]
    fn nothing_panics(value in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&value);
    }
}

fn set(path: &Path, value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: both strings end in NUL, and the value is as long as is said.
    let r = unsafe {
        libc::setxattr(
            path.as_ptr(),
            ATTRIBUTE.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if r == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn identity(path: &Path) -> Identity {
    let meta = fs::metadata(path).unwrap();
    Identity {
        major: libc::major(meta.dev()),
        minor: libc::minor(meta.dev()),
        inode: meta.ino(),
    }
}

#[test]
fn a_file_without_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plain");
    fs::write(&file, "").unwrap();
    assert_eq!(of_file(open_path(&file).unwrap()).unwrap(), FileCaps::None);
    assert_eq!(
        of_program(std::process::id(), &file, identity(&file)),
        FileCaps::None
    );
}

#[test]
fn only_the_file_that_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tool");
    fs::write(&file, "").unwrap();
    if let Err(e) = set(&file, &bytes(&[0x0200_0001, 0x2000, 0, 0, 0])) {
        eprintln!("SKIPPED only_the_file_that_was_meant: cannot set security.capability: {e}");
        return;
    }
    let caps = FileCaps::Has {
        permitted: 0x2000,
        inheritable: 0,
        effective: true,
        rootid: None,
    };
    let me = std::process::id();
    let meant = identity(&file);
    assert_eq!(of_program(me, &file, meant), caps);

    let link = dir.path().join("link");
    symlink("tool", &link).unwrap();
    assert_eq!(of_program(me, &link, meant), caps);

    let other = Identity {
        inode: meant.inode + 1,
        ..meant
    };
    assert_eq!(of_program(me, &file, other), FileCaps::Unread);
    let elsewhere = Identity {
        minor: meant.minor + 1,
        ..meant
    };
    assert_eq!(of_program(me, &file, elsewhere), FileCaps::Unread);

    fs::remove_file(&file).unwrap();
    fs::write(&file, "").unwrap();
    if identity(&file) != meant {
        assert_eq!(of_program(me, &file, meant), FileCaps::Unread);
    }
    assert_eq!(of_program(u32::MAX, &file, meant), FileCaps::Unread);
}

/// `/proc/self/exe` style links and ways out are not taken.
#[test]
fn no_way_out_of_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let root = open_path(dir.path()).unwrap();
    fs::write(dir.path().join("in"), "inside").unwrap();
    symlink("/proc/self/exe", dir.path().join("magic")).unwrap();
    symlink("/in", dir.path().join("absolute")).unwrap();
    let in_root = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let open = |path: &str| openat2(root.as_fd(), Path::new(path), in_root);
    let inside = identity(&dir.path().join("in"));
    for path in ["/in", "../../in", "/absolute", "/../../absolute"] {
        let file = open(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(inside.is(&file, std::process::id()).unwrap(), "{path}");
    }
    assert!(open("/magic").is_err());
    assert!(open("/etc/passwd").is_err());
    assert!(open("\0").is_err());
}

/// Where stat and the kernel disagree, the descriptor's own numbers are found.
#[test]
fn the_kernel_s_numbers_are_believed() {
    let me = std::process::id();
    let exe = open_path(Path::new("/proc/self/exe")).unwrap();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", exe.as_raw_fd())).unwrap();
    let Some(inode) = info.lines().find_map(|l| l.strip_prefix("ino:")) else {
        eprintln!("SKIPPED the_kernel_s_numbers_are_believed: fdinfo shows no inode");
        return;
    };
    let mount = info
        .lines()
        .find_map(|l| l.strip_prefix("mnt_id:"))
        .unwrap()
        .trim();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let device = mounts
        .lines()
        .find_map(|l| {
            let words: Vec<_> = l.split(' ').collect();
            (words[0] == mount).then(|| words[2].to_owned())
        })
        .unwrap();
    let (major, minor) = device.split_once(':').unwrap();
    let meant = Identity {
        major: major.parse().unwrap(),
        minor: minor.parse().unwrap(),
        inode: inode.trim().parse().unwrap(),
    };
    assert!(meant.is(&exe, me).unwrap());
    assert_eq!(of_program(me, Path::new("/nowhere"), meant), FileCaps::None);
}

#[test]
fn device_numbers_as_in_the_kernel() {
    let id = Identity::from_kernel(259 << 20 | 3, 7);
    assert_eq!((id.major, id.minor, id.inode), (259, 3, 7));
}

use std::{fs, os::unix::fs::MetadataExt as _};

use proptest::prelude::*;
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

/// A root beside a folder that must stay as it is.
struct Lab {
    dir: TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/file"), "untouched").unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn apply(&self, archive: &[u8]) -> Result<()> {
        let result = apply(&Root::open(&self.root()).unwrap(), archive);
        let outside = self.dir.path().join("outside");
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
        assert_eq!(
            fs::read_dir(outside).unwrap().count(),
            1,
            "something was put outside"
        );
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
        assert_eq!(
            fs::metadata(self.dir.path().join("outside/file"))
                .unwrap()
                .nlink(),
            1
        );
        result
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root().join(path)).ok()
    }
}

/// A layer, member by member. Names are written as they are, which tar's own builder refuses.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    fn member(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_000_000);
        // SAFETY: both take nothing.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, content).unwrap();
        let bytes = builder.into_inner().unwrap();
        // Without the two blocks that end an archive.
        self.0.extend(&bytes[..bytes.len() - 1024]);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.member(EntryType::Regular, path, "", content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.member(EntryType::Directory, path, "", b"")
    }

    fn symlink(self, path: &str, link: &str) -> Self {
        self.member(EntryType::Symlink, path, link, b"")
    }

    fn link(self, path: &str, link: &str) -> Self {
        self.member(EntryType::Link, path, link, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            // The length counts itself.
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..)
                .find(|n| n.to_string().len() + rest == *n)
                .unwrap();
            content.extend(format!("{length} {key}=").bytes());
            content.extend(*value);
            content.push(b'\n');
        }
        self.member(EntryType::XHeader, "pax", "", &content)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

#[test]
fn files_folders_and_links() {
    let lab = Lab::new();
    let layer = Packed::default()
        .dir("etc")
        .file("./etc/a", "one")
        .file("/usr/lib/b", "two")
        .symlink("lib", "usr/lib")
        .file("lib/c", "through a symlink")
        .link("etc/twin", "etc/a")
        .symlink("nowhere", "/no/such")
        .member(EntryType::Char, "dev-null", "", b"")
        .member(EntryType::Fifo, "pipe", "", b"");
    lab.apply(&layer.end()).unwrap();
    assert_eq!(lab.read("etc/a").unwrap(), "one");
    assert_eq!(lab.read("usr/lib/c").unwrap(), "through a symlink");
    let meta = |path: &str| fs::symlink_metadata(lab.root().join(path)).unwrap();
    assert_eq!(meta("etc/a").ino(), meta("etc/twin").ino());
    assert_eq!(meta("etc").mtime(), 1_000_000);
    assert_eq!(meta("etc/a").mtime(), 1_000_000);
    assert!(meta("nowhere").is_symlink());
    assert!(!lab.root().join("dev-null").exists() && !lab.root().join("pipe").exists());
}

#[test]
fn names_that_lead_out_are_refused() {
    for path in [
        "../outside/file",
        "a/../../outside/file",
        "..",
        "a/..",
        "/../outside/new",
    ] {
        for layer in [
            Packed::default().file(path, "x"),
            Packed::default().dir(path),
            Packed::default().symlink(path, "x"),
            Packed::default().file("a", "x").link(path, "a"),
            Packed::default().link("a", path),
        ] {
            let error = Lab::new().apply(&layer.end()).unwrap_err();
            assert!(format!("{error:#}").contains("`..`"), "{error:#}");
        }
    }
    // Nothing can be hidden out there either.
    for path in [".wh...", ".wh..", "a/.wh..", ".wh."] {
        assert!(
            Lab::new()
                .apply(&Packed::default().file(path, "").end())
                .is_err(),
            "{path}"
        );
    }
}

#[test]
fn symlinks_lead_to_places_inside() {
    let lab = Lab::new();
    let outside = lab.dir.path().join("outside");
    let absolute = outside.to_str().unwrap();
    for (name, target) in [("up", "../outside"), ("out", absolute), ("root", "/")] {
        let layer = Packed::default()
            .symlink(name, target)
            .file(&format!("{name}/file"), "evil")
            .file(&format!("{name}/.wh.file2"), "")
            .dir(&format!("{name}/deeper"));
        // Where the target is not there inside, there is no such folder.
        let _ = lab.apply(&layer.end());
    }
    assert_eq!(lab.read("file").unwrap(), "evil");
    // A hard link to what a symlink shows of the outside, or to the symlink, is neither.
    let layer = Packed::default().link("stolen", "up/file");
    assert!(lab.apply(&layer.end()).is_err());
    lab.apply(&Packed::default().link("same", "out").end())
        .unwrap();
    assert!(
        fs::symlink_metadata(lab.root().join("same"))
            .unwrap()
            .is_symlink()
    );
    // Nor is a file written through a symlink, or through a hard link to one.
    let target = outside.join("file");
    let layer = Packed::default()
        .symlink("direct", target.to_str().unwrap())
        .link("hard", "direct")
        .file("hard", "evil")
        .file("direct", "evil");
    lab.apply(&layer.end()).unwrap();
    assert_eq!(lab.read("direct").unwrap(), "evil");
}

#[test]
fn what_an_upper_layer_says_holds() {
    let lab = Lab::new();
    let lower = Packed::default()
        .file("a/old", "1")
        .file("a/kept", "1")
        .file("b/old", "1")
        .file("b/sub/old", "1")
        .file("c", "1")
        .file("d/x", "1")
        .symlink("e", "a");
    lab.apply(&lower.end()).unwrap();
    let upper = Packed::default()
        .file("a/.wh.old", "")
        .file("a/.wh.never-there", "")
        .file("b/sub/new", "2")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "2")
        .file("b/.wh..wh.plnk", "")
        .dir("c")
        .file("d", "2")
        .dir("e");
    lab.apply(&upper.end()).unwrap();
    assert_eq!(lab.read("a/old"), None);
    assert_eq!(lab.read("a/kept").unwrap(), "1");
    assert_eq!((lab.read("b/old"), lab.read("b/sub/old")), (None, None));
    assert_eq!(
        (lab.read("b/new").unwrap(), lab.read("b/sub/new").unwrap()),
        ("2".into(), "2".into())
    );
    assert!(lab.root().join("c").is_dir());
    assert_eq!(lab.read("d").unwrap(), "2");
    // A folder in place of a symlink is one, and not what the symlink led to.
    assert!(fs::symlink_metadata(lab.root().join("e")).unwrap().is_dir());
    let names: Vec<_> = fs::read_dir(lab.root().join("b"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn of_two_with_one_name_the_last_holds() {
    let lab = Lab::new();
    let layer = Packed::default()
        .file("a", "1")
        .link("twin", "a")
        .file("a", "2")
        .link("a", "a")
        .dir("b")
        .file("b/x", "1")
        .symlink("b", "a");
    lab.apply(&layer.end()).unwrap();
    assert_eq!(lab.read("a").unwrap(), "2");
    // Written anew, not through the link.
    assert_eq!(lab.read("twin").unwrap(), "1");
    assert_eq!(lab.read("b").unwrap(), "2");
}

#[test]
fn extended_headers_are_read_within_bounds() {
    let long = "d/".repeat(90) + "file";
    let lab = Lab::new();
    let layer = Packed::default()
        .pax(&[
            ("path", long.as_bytes()),
            ("mtime", b"7.5"),
            ("comment", b"none"),
        ])
        .file("short", "1")
        .member(EntryType::GNULongName, "././@LongLink", "", b"another\0")
        .file("short", "2")
        .member(EntryType::GNULongLink, "././@LongLink", "", b"another\0")
        .symlink("link", "short");
    lab.apply(&layer.end()).unwrap();
    assert_eq!(lab.read(&long).unwrap(), "1");
    assert_eq!(fs::metadata(lab.root().join(&long)).unwrap().mtime(), 7);
    assert_eq!(lab.read("link").unwrap(), "2");
    assert_eq!(lab.read("short"), None);

    // The value of an attribute is cut by its length, whatever is in it.
    let value = b"a\n9 path=b\n\0";
    let layer = Packed::default()
        .pax(&[("SCHILY.xattr.user.kcap", value), ("path", b"attributed")])
        .file("short", "3");
    lab.apply(&layer.end()).unwrap();
    assert_eq!(lab.read("attributed").unwrap(), "3");
    let mut found = [0; 64];
    match rustix::fs::getxattr(lab.root().join("attributed"), "user.kcap", &mut found[..]) {
        Ok(size) => assert_eq!(&found[..size], value),
        // A file system that has none leaves them out.
        Err(e) => assert!(matches!(
            e,
            rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NODATA
        )),
    }

    let refused = |layer: Packed, why: &str| {
        let error = format!("{:#}", Lab::new().apply(&layer.end()).unwrap_err());
        assert!(error.contains(why) && error.lines().count() == 1, "{error}");
    };
    let huge = vec![b'x'; 2 << 20];
    refused(
        Packed::default().member(EntryType::XHeader, "pax", "", &huge),
        "extended header",
    );
    refused(
        Packed::default().member(EntryType::GNULongName, "l", "", &huge),
        "extended header",
    );
    refused(
        Packed::default()
            .pax(&[("size", b"99999999999")])
            .file("a", "1"),
        "too large",
    );
    refused(
        Packed::default().pax(&[("uid", b"x")]).file("a", "1"),
        "damaged",
    );
    refused(
        Packed::default()
            .pax(&[("GNU.sparse.major", b"1")])
            .file("a", "1"),
        "sparse",
    );
    refused(
        Packed::default().pax(&[("path", b"a\0b")]).file("a", "1"),
        "damaged",
    );
    refused(
        Packed::default()
            .pax(&[("path", b"\x1b[2J/..")])
            .file("a", "1"),
        "u{1b}",
    );
    refused(
        Packed::default()
            .file(&"d/".repeat(49), "1")
            .pax(&[("path", "d/".repeat(200).as_bytes())])
            .dir("x"),
        "too deep",
    );
}

#[test]
fn an_archive_that_is_cut_is_told() {
    let whole = Packed::default().file("a", &"x".repeat(5000)).end();
    for length in [100, 600, 3000] {
        let error = Lab::new().apply(&whole[..length]).unwrap_err();
        assert_eq!(format!("{error:#}").lines().count(), 1);
    }
    let mut wrong = whole;
    wrong[0] ^= 1;
    assert!(Lab::new().apply(&wrong).is_err());
}

/// Members that try to get out, in any order, as a stranger may write them.
fn hostile() -> impl Strategy<Value = (u8, String, String)> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "..",
        ".",
        "",
        "outside",
        "file",
        ".wh.a",
        ".wh..wh..opq",
    ]);
    let path = prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"));
    let target = prop::sample::select(vec![
        "..",
        "/",
        "../outside",
        "/outside",
        "a",
        "../outside/file",
        "b/..",
    ]);
    (
        prop::sample::select(vec![b'0', b'1', b'2', b'5']),
        path,
        target.prop_map(String::from),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_gets_out(members in prop::collection::vec(hostile(), 1..12)) {
        let lab = Lab::new();
        // One after the other, so that one that is refused does not save the rest.
        for (kind, path, target) in members {
            let layer = Packed::default().member(EntryType::new(kind), &path, &target, b"");
            let _ = lab.apply(&layer.end());
        }
    }
}

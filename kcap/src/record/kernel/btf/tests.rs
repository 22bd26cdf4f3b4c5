use super::*;
use kcap_common::abi::Fields;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::process::Command;

/// Writes BTF, for images that no compiler would make.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    last: u32,
}

impl Writer {
    fn string(&mut self, s: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if s.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(s.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types
            .extend(words.iter().flat_map(|w| w.to_ne_bytes()));
    }

    fn head(&mut self, name: &str, kind: u32, flag: bool, len: usize, extra: u32) -> u32 {
        let name = self.string(name);
        self.words(&[name, kind << 24 | len as u32 | u32::from(flag) << 31, extra]);
        self.last += 1;
        self.last
    }

    fn int(&mut self) -> u32 {
        let id = self.head("int", kind::INT, false, 0, 4);
        self.words(&[32]);
        id
    }

    /// Members are (name, type, bit offset with the width of a bitfield above bit 24).
    fn composite(
        &mut self,
        name: &str,
        kind: u32,
        flag: bool,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let id = self.head(name, kind, flag, members.len(), 64);
        for &(name, ty, packed) in members {
            let name = self.string(name);
            self.words(&[name, ty, packed]);
        }
        id
    }

    fn finish(mut self) -> Vec<u8> {
        self.string("");
        let mut image = Vec::new();
        image.extend(MAGIC.to_ne_bytes());
        image.extend([1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            image.extend(word.to_ne_bytes());
        }
        image.extend(self.types);
        image.extend(self.strings);
        image
    }
}

/// A structure as the kernel has them: unnamed unions, qualifiers, typedefs, bitfields.
fn sample() -> Vec<u8> {
    let mut w = Writer::default();
    let int = w.int();
    let path = w.composite(
        "path",
        kind::STRUCT,
        false,
        &[("mnt", int, 0), ("dentry", int, 64)],
    );
    let constant = w.head("", kind::CONST, false, 0, path);
    let typedef = w.head("path_t", kind::TYPEDEF, false, 0, constant);
    let union = w.composite(
        "",
        kind::UNION,
        false,
        &[("f_path", typedef, 0), ("__f_path", path, 0)],
    );
    w.composite("file", kind::STRUCT, false, &[("other", int, 0)]);
    w.composite(
        "file",
        kind::STRUCT,
        true,
        &[
            ("f_mode", int, 0),
            ("f_bit", int, 3 << 24 | 32),
            ("", union, 128),
        ],
    );
    w.head("state", kind::ENUM, true, 2, 4);
    for (name, value) in [("OFF", -1i32 as u32), ("ON", 7)] {
        let name = w.string(name);
        w.words(&[name, value]);
    }
    w.head("wide", kind::ENUM64, false, 1, 8);
    let big = w.string("BIG");
    w.words(&[big, 5, 1]);
    let proto = w.head("", kind::FUNC_PROTO, false, 2, int);
    w.words(&[0, int, 0, int]);
    w.head("cap_thing", kind::FUNC, false, 0, proto);
    w.head("btf_trace_thing", kind::TYPEDEF, false, 0, int);
    w.finish()
}

#[test]
fn members_are_found_as_in_c() {
    let image = sample();
    let btf = Btf::parse(&image).unwrap();
    let offsets = btf
        .offsets(&[
            ("file", &["f_path.dentry"]),
            ("file", &["gone", "__f_path.mnt"]),
            ("file", &["f_mode"]),
            ("path", &["dentry"]),
            ("file", &["other"]),
        ])
        .unwrap();
    assert_eq!(offsets, [24, 16, 0, 8, 0]);
}

#[test]
fn what_is_missing_is_named() {
    let image = sample();
    let btf = Btf::parse(&image).unwrap();
    let missing = btf
        .offsets(&[
            ("file", &["f_mode"]),
            ("file", &["f_bit"]),
            ("file", &["a", "b.c"]),
            ("none", &["x"]),
            ("file", &["f_mode.deeper"]),
        ])
        .unwrap_err();
    let expected = [
        "file.f_bit",
        "file.a or file.b.c",
        "none.x",
        "file.f_mode.deeper",
    ];
    assert_eq!(
        missing,
        BtfError::Missing(expected.map(String::from).to_vec())
    );
    let text = missing.to_string();
    assert!(
        text.starts_with("this kernel's BTF lacks file.f_bit, file.a or"),
        "{text}"
    );
    assert!(!text.contains('\n'));
}

#[test]
fn enumerators_functions_and_typedefs() {
    let image = sample();
    let btf = Btf::parse(&image).unwrap();
    assert_eq!(btf.enumerator("state", "OFF"), Some(-1));
    assert_eq!(btf.enumerator("state", "ON"), Some(7));
    assert_eq!(btf.enumerator("wide", "BIG"), Some(0x1_0000_0005));
    assert_eq!(btf.enumerator("state", "BIG"), None);
    assert_eq!(btf.enumerator("nothing", "ON"), None);
    assert_eq!(btf.parameters("cap_thing"), Some(2));
    assert_eq!(btf.parameters("file"), None);
    assert!(btf.has_typedef("btf_trace_thing"));
    assert!(!btf.has_typedef("btf_trace_"));
    assert!(!btf.has_typedef("cap_thing"));
}

#[test]
fn broken_images_are_refused() {
    let good = sample();
    for len in 0..good.len() {
        assert!(Btf::parse(&good[..len]).is_err(), "cut at {len}");
    }
    let edited = |at: usize, byte: u8| {
        let mut image = good.clone();
        image[at] = byte;
        Btf::parse(&image)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    assert!(edited(0, 0).contains("does not start like BTF"));
    assert!(edited(2, 2).contains("version"));
    assert!(edited(4, 8).contains("header is too small"));
    // Kind of the first type, in whichever byte of the native word holds it.
    let kind = 24 + 4 + if cfg!(target_endian = "little") { 3 } else { 0 };
    assert!(edited(kind, 31).contains("type kind 31 is unknown"));
    let mut swapped = good.clone();
    swapped.swap(0, 1);
    let text = Btf::parse(&swapped).err().unwrap().to_string();
    assert!(text.contains("byte order"), "{text}");
}

#[test]
fn structures_without_end_are_refused() {
    let mut w = Writer::default();
    // Type 1 holds itself twice, unnamed: 2^n places to look in at depth n.
    w.composite("s", kind::STRUCT, false, &[("", 1, 0), ("", 1, 0)]);
    let loops = w.head("loop", kind::TYPEDEF, false, 0, 2);
    w.composite("t", kind::STRUCT, false, &[("m", loops, 0)]);
    let image = w.finish();
    let btf = Btf::parse(&image).unwrap();
    assert_eq!(
        btf.offsets(&[("s", &["x"])]),
        Err(BtfError::Malformed("a structure contains itself"))
    );
    assert!(matches!(
        btf.offsets(&[("t", &["m.x"])]),
        Err(BtfError::Missing(_))
    ));
}

proptest! {
    #[test]
    fn no_image_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut image = sample();
        for (at, byte) in edits {
            let at = at.index(image.len());
            image[at] = byte;
        }
        if let Ok(btf) = Btf::parse(&image) {
            let _ = btf.offsets(&[("file", &["f_path.dentry", "f_mode"]), ("path", &["mnt"])]);
            let _ = btf.enumerator("state", "ON");
            let _ = btf.enumerator("wide", "BIG");
            let _ = btf.parameters("cap_thing");
            let _ = btf.has_typedef("btf_trace_thing");
        }
    }
}

/// The images to hold against bpftool: this kernel's, and those that `KCAP_TEST_BTF` names,
/// separated by colons.
fn images() -> Vec<String> {
    let mut paths: Vec<String> = std::env::var("KCAP_TEST_BTF")
        .map(|v| v.split(':').map(String::from).collect())
        .unwrap_or_default();
    if std::path::Path::new(VMLINUX).exists() {
        paths.push(VMLINUX.into());
    } else {
        eprintln!("SKIPPED for this kernel: it shows no {VMLINUX}");
    }
    paths
}

#[test]
fn kernels_have_what_kcap_wants() {
    for path in images() {
        let image = std::fs::read(&path).unwrap();
        let btf = Btf::parse(&image).unwrap();
        let offsets = btf
            .offsets(&Fields::WANTED)
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(offsets.len(), Fields::COUNT);
        assert_eq!(btf.parameters("cap_capable"), Some(4), "{path}");
        assert!(btf.has_typedef("btf_trace_sched_process_exec"), "{path}");
        assert!(
            btf.enumerator("cgroup_subsys_id", "CGROUP_SUBSYS_COUNT") > Some(0),
            "{path}"
        );
    }
}

#[derive(serde::Deserialize)]
struct Dump {
    types: Vec<Type>,
}

#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Type {
    id: u32,
    kind: String,
    name: String,
    type_id: u32,
    members: Vec<Member>,
    params: Vec<serde::de::IgnoredAny>,
    values: Vec<Value>,
}

#[derive(serde::Deserialize)]
struct Member {
    name: String,
    type_id: u32,
    bits_offset: u32,
    #[serde(default)]
    bitfield_size: u32,
}

#[derive(serde::Deserialize)]
struct Value {
    name: String,
    val: serde_json::Number,
}

impl Dump {
    fn get(&self, id: u32) -> Option<&Type> {
        self.types.get((id as usize).checked_sub(1)?)
    }

    fn find(&self, id: u32, path: &[&str], base: u32) -> Option<u32> {
        let ty = self.get(id)?;
        if ["TYPEDEF", "CONST", "VOLATILE"].contains(&&*ty.kind) {
            return self.find(ty.type_id, path, base);
        }
        ty.members.iter().find_map(|m| {
            let at = base + m.bits_offset;
            match path {
                _ if m.name == "(anon)" => self.find(m.type_id, path, at),
                [last] if m.name == *last => (m.bitfield_size == 0).then_some(at / 8),
                [first, rest @ ..] if m.name == *first => self.find(m.type_id, rest, at),
                _ => None,
            }
        })
    }
}

/// Every member of every structure whose name is its own, all functions and enumerators, and what
/// kcap wants, as bpftool reads them.
#[test]
fn bpftool_agrees() {
    for path in images() {
        let out = match Command::new("bpftool")
            .args(["-j", "btf", "dump", "file", &path])
            .output()
        {
            Ok(out) if out.status.success() => out,
            other => {
                eprintln!("SKIPPED bpftool_agrees for {path}: cannot run bpftool: {other:?}");
                continue;
            }
        };
        let dump: Dump = serde_json::from_slice(&out.stdout).unwrap();
        assert!(dump.types.iter().zip(1..).all(|(ty, id)| ty.id == id));
        let image = std::fs::read(&path).unwrap();
        let btf = Btf::parse(&image).unwrap();

        let mut by_name: BTreeMap<&str, Vec<&Type>> = BTreeMap::new();
        for ty in dump
            .types
            .iter()
            .filter(|ty| ["STRUCT", "UNION"].contains(&&*ty.kind))
        {
            by_name.entry(&ty.name).or_default().push(ty);
        }
        let mut asked: Vec<(&str, [&str; 1])> = Vec::new();
        let mut expected = Vec::new();
        for (name, types) in by_name
            .iter()
            .filter(|(n, t)| **n != "(anon)" && t.len() == 1)
        {
            for m in types[0]
                .members
                .iter()
                .filter(|m| m.name != "(anon)" && m.bitfield_size == 0)
            {
                asked.push((name, [&m.name]));
                expected.push(m.bits_offset / 8);
            }
        }
        let asked: Vec<(&str, &[&str])> = asked.iter().map(|(n, p)| (*n, &p[..])).collect();
        assert!(asked.len() > 10_000, "{path}: only {} members", asked.len());
        assert_eq!(btf.offsets(&asked).unwrap(), expected, "{path}");

        let wanted = btf.offsets(&Fields::WANTED).unwrap();
        for ((name, paths), offset) in Fields::WANTED.iter().zip(wanted) {
            let oracle = paths.iter().find_map(|p| {
                let parts: Vec<_> = p.split('.').collect();
                by_name[name]
                    .iter()
                    .find_map(|ty| dump.find(ty.id, &parts, 0))
            });
            assert_eq!(Some(offset), oracle, "{path}: {name}.{paths:?}");
        }

        let mut functions = 0;
        for ty in dump
            .types
            .iter()
            .filter(|ty| ty.kind == "FUNC" && ty.name.starts_with("cap_"))
        {
            let params = dump.get(ty.type_id).unwrap().params.len();
            assert_eq!(
                btf.parameters(&ty.name),
                Some(params),
                "{path}: {}",
                ty.name
            );
            functions += 1;
        }
        assert!(functions > 10, "{path}: only {functions} functions");
        let ids = dump
            .types
            .iter()
            .find(|ty| ty.name == "cgroup_subsys_id")
            .unwrap();
        for v in &ids.values {
            assert_eq!(
                btf.enumerator("cgroup_subsys_id", &v.name),
                v.val.as_i64(),
                "{path}"
            );
        }
    }
}

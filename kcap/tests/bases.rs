//! Base images that are fetched once and served to every build: from a registry of the test's, which
//! then ends, to skopeo and to a real Kaniko in containers of each engine.
//!
//! Needs root, `skopeo`, `docker-registry` (which `KCAP_REGISTRY` names where neither PATH nor
//! `cargo xtask setup` has it), `tar` and a static `/bin/busybox`; for builds also BPF, the executor,
//! which `KCAP_KANIKO_EXECUTOR` names where it is not at `/kaniko/executor`, and the engine. Says so
//! where it cannot run.

#[path = "bases/builds.rs"]
mod builds;
#[path = "engines/host.rs"]
#[allow(dead_code, reason = "what other tests need of it")]
mod host;
#[path = "bases/registry.rs"]
mod registry;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use kcap::launch::bases::{Bases, fetch};
use registry::{Layout, Registry, digest, manifest};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says, past the capturing of test output, what a test cannot do here.
fn skip(why: &str) {
    // Where standard output is closed, nobody reads it.
    let _ = writeln!(io::stdout(), "SKIP: bases: {why}");
}

/// Why this machine cannot do it.
fn lacks() -> Option<String> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".into());
    }
    if !Path::new("/bin/busybox").exists() {
        return Some("there is no /bin/busybox".into());
    }
    let missing = |program: &&str| Command::new(program).arg("--version").output().is_err();
    if let Some(program) = ["skopeo", "tar"].iter().find(|program| missing(program)) {
        return Some(format!("there is no {program}"));
    }
    registry::program()
        .is_none()
        .then(|| "there is no docker-registry".into())
}

/// A cache of the test's, for all tests that run at the same time. The last that drops it removes it.
fn cache() -> Arc<TempDir> {
    static CACHE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    cache.upgrade().unwrap_or_else(|| {
        let dir = Arc::new(TempDir::with_prefix_in("kcap-bases-", "/var/tmp").unwrap());
        host::set("XDG_CACHE_HOME", dir.path());
        *cache = Arc::downgrade(&dir);
        dir
    })
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn flags(flags: &[String]) -> Vec<OsString> {
    flags.iter().map(OsString::from).collect()
}

/// Fetches, with what it notes.
fn fetched(names: &[&str], given: &[String]) -> (Bases, Vec<String>) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut notes = Vec::new();
    let bases = fetch(&names, &flags(given), &mut |note| notes.push(note)).unwrap();
    (bases, notes)
}

#[test]
fn images_are_served_as_the_registry_has_them() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let _cache = cache();
    let (registry, layout) = (Registry::start(), Layout::new());
    registry.push(&layout, "one", "library/busybox:1", &[]);
    registry.push(&layout, "list", "library/busybox:list", &[]);
    registry.push(&layout, "one", "other/docker:v2", &["--format=v2s2"]);
    let map = format!("--registry-map=index.docker.io={}", registry.address);
    let docker = format!("{}/other/docker:v2", registry.address);
    let list = registry.manifest("library/busybox:list");
    let pinned = format!("busybox@{}", digest(&list));
    let one = digest(&registry.manifest("library/busybox:1"));

    let names = ["busybox:1", "busybox:list", &pinned, &docker];
    let (bases, notes) = fetched(&names, &[map]);
    assert_eq!(notes, [""; 0]);
    // Of a list it is the image that counts.
    for name in &names[..3] {
        assert_eq!(bases.digests()[*name], one);
    }
    let v2s2 = registry.manifest("other/docker:v2");
    assert_eq!(bases.digests()[&docker], digest(&v2s2));
    let expected: Vec<Vec<u8>> = vec![
        registry.manifest("library/busybox:1"),
        list.clone(),
        list.clone(),
        v2s2,
    ];
    let host = registry.address.clone();
    drop(registry);

    let served = bases.serve("oci", None).unwrap().expect("something");
    let sent = served.flags();
    let sent: Vec<_> = sent.iter().map(|flag| flag.to_str().unwrap()).collect();
    let place = |from: &str| {
        let flag = format!("--registry-map={from}=");
        let found = sent.iter().find_map(|sent| sent.strip_prefix(&flag));
        found.unwrap_or_else(|| panic!("{from}: {sent:?}"))
    };
    let hub = place("index.docker.io");
    let addresses = [
        format!("{hub}/library/busybox:1"),
        format!("{hub}/library/busybox:list"),
        format!("{hub}/library/busybox@{}", digest(&list)),
        format!("{}/other/docker:v2", place(&host)),
    ];
    for (address, expected) in addresses.iter().zip(&expected) {
        assert_eq!(manifest(address), *expected, "{address}");
        let to = TempDir::new().unwrap();
        let copied = Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--src-tls-verify=false",
            ])
            .arg(format!("docker://{address}"))
            .arg(format!("dir:{}", to.path().display()))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", said(&copied));
        let mark = fs::read(to.path().join("manifest.json")).unwrap();
        assert!(
            bases
                .digests()
                .values()
                .any(|known| *known == digest(&mark))
        );
    }
    let layer = |manifest: &[u8]| {
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        manifest["layers"][0]["size"].as_u64().unwrap()
    };
    assert!(served.bytes() > 3 * layer(&expected[0]) + layer(&expected[3]));
    assert_eq!((served.missed().len(), served.refused()), (0, 0));

    // Another user of this machine does not get to it, though the address is no secret from them.
    let ask = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{}; printf 'GET /v2/ HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
        served.address().port()
    );
    let ask = |user: u32| {
        let mut bash = Command::new("bash");
        let asked = bash.args(["-c", &ask]).uid(user).output().unwrap();
        String::from_utf8_lossy(&asked.stdout).into_owned()
    };
    assert!(ask(0).starts_with("HTTP/1.0 200"), "{}", ask(0));
    assert_eq!(ask(65534), "");
    assert_eq!(served.refused(), 1);
}

#[test]
fn an_image_is_fetched_once_and_follows_its_tag() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let _cache = cache();
    let (registry, layout) = (Registry::start(), Layout::new());
    let name = format!("{}/some/busybox:tag", registry.address);
    registry.push(&layout, "list", "some/busybox:tag", &[]);
    let one = registry.manifest("some/busybox:tag");
    let (first, notes) = fetched(&[&name], &[]);
    assert_eq!(notes, [""; 0]);
    let image = first.digests()[&name].clone();

    // Only the manifest that the tag names is asked for again: nothing else is there any more.
    let manifest: Value =
        serde_json::from_slice(&registry.manifest(&format!("some/busybox@{image}"))).unwrap();
    registry.lose(manifest["layers"][0]["digest"].as_str().unwrap());
    registry.lose(manifest["config"]["digest"].as_str().unwrap());
    registry.lose(&image);
    let (second, notes) = fetched(&[&name], &[]);
    assert_eq!(notes, [""; 0]);
    assert_eq!(second.digests(), first.digests());

    // For another platform it is another image.
    let platform = ["--custom-platform=linux/riscv64".to_owned()];
    let (other, notes) = fetched(&[&name], &platform);
    assert_eq!(notes, [""; 0]);
    assert_ne!(other.digests(), first.digests());
    let (none, notes) = fetched(&[&name], &["--custom-platform=linux/s390x".to_owned()]);
    assert!(none.digests().is_empty());
    assert!(notes[0].contains("no image for linux/s390x"), "{notes:?}");

    // The tag moves.
    registry.push(&layout, "twin", "some/busybox:tag", &[]);
    let (moved, notes) = fetched(&[&name], &[]);
    assert_eq!(notes, [""; 0]);
    assert_eq!(
        moved.digests()[&name],
        digest(&registry.manifest("some/busybox:tag"))
    );

    // A digest asks nobody; a tag is what it was, and that is said; what is not known is left out.
    let pinned = format!("{}/some/busybox@{}", registry.address, digest(&one));
    let (again, notes) = fetched(&[&pinned], &[]);
    assert_eq!(notes, [""; 0], "it is kept under another name");
    assert_eq!(again.digests()[&pinned], image);
    let address = registry.address.clone();
    drop(registry);
    let (again, notes) = fetched(&[&pinned], &[]);
    assert_eq!(notes, [""; 0]);
    assert_eq!(again.digests()[&pinned], image);
    let unknown = format!("{address}/some/busybox:unknown");
    let (last, notes) = fetched(&[&name, &unknown], &[]);
    assert_eq!(last.digests(), moved.digests());
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].contains("what it meant last is used (sha256:"),
        "{notes:?}"
    );
    assert!(notes[0].contains("refused"), "{notes:?}");
    assert!(
        notes[1].contains("each build pulls it by itself"),
        "{notes:?}"
    );
    assert!(notes.iter().all(|note| !note.contains('\n')));
}

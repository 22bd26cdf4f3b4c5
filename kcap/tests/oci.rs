//! The `oci` engine with a real Kaniko, offline: builds from a bare binary, an OCI layout (folder
//! and tar), a docker archive and an image of a registry, by every runtime that is here; what the
//! container holds; how it is killed; and that nothing is left.
//!
//! Needs root, `runc` or `crun`, `tar`, `/bin/busybox` (static) and the executor, which
//! `KCAP_KANIKO_EXECUTOR` names where it is not at `/kaniko/executor`. Says so where it cannot run.

#[path = "oci/pull.rs"]
mod pull;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use kcap::{
    launch::{Engine as _, Executor, Launch, Request, Seccomp, oci::Oci},
    report::Cap,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Enough for an image of files that are root's.
const FEW: u64 = 1 << Cap::CHOWN.0 | 1 << Cap::FOWNER.0;
/// Kills need to be seen within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says, past the capturing of test output, what a test cannot do here.
fn skip(why: &str) {
    // Where standard output is closed, nobody reads it.
    let _ = writeln!(io::stdout(), "SKIP: oci: {why}");
}

fn executor() -> PathBuf {
    env::var_os("KCAP_KANIKO_EXECUTOR")
        .filter(|value| !value.is_empty())
        .map_or_else(|| "/kaniko/executor".into(), PathBuf::from)
}

/// Runtimes that run containers here.
fn runtimes() -> Vec<&'static str> {
    // Looked for, and told about, once.
    static FOUND: OnceLock<Vec<&'static str>> = OnceLock::new();
    let works = |name: &&str| match Oci::new(Some(OsStr::new(name))) {
        Ok(_) => true,
        Err(e) => {
            skip(&format!("by {name}: {e:#}"));
            false
        }
    };
    let found = FOUND.get_or_init(|| ["runc", "crun"].into_iter().filter(works).collect());
    found.clone()
}

/// Why this machine cannot do it.
fn lacks() -> Option<String> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".into());
    }
    for path in [&executor(), Path::new("/bin/busybox")] {
        if !path.exists() {
            return Some(format!("there is no {}", path.display()));
        }
    }
    runtimes()
        .is_empty()
        .then(|| "there is neither runc nor crun".into())
}

/// A folder with a context for builds from `scratch`, and what they write.
struct Builds(TempDir);

impl Builds {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (root, context) = (dir.path().join("image"), dir.path().join("context"));
        for folder in ["bin", "etc", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::create_dir(&context).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "grep", "sleep", "tail", "unshare", "cat", "test"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        tar(&context.join("rootfs.tar"), &root);
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn request(&self, executor: &Path, lines: &str) -> Request {
        let dockerfile = self.path("some Dockerfile");
        fs::write(
            &dockerfile,
            format!("FROM scratch\nADD rootfs.tar /\n{lines}\n"),
        )
        .unwrap();
        Request {
            dockerfile,
            context: self.path("context"),
            archive: Some(self.path("image.tar")),
            ..Request::new(Executor::Path(executor.to_owned()), FEW)
        }
    }
}

fn tar(archive: &Path, dir: &Path) {
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .arg(".")
        .output();
    let packed = packed.unwrap();
    assert!(packed.status.success(), "{}", said(&packed));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What there is of a launch on the host.
struct Traces {
    bundle: PathBuf,
    id: String,
}

impl Traces {
    fn of(launch: &Launch) -> Self {
        let at = launch
            .command
            .iter()
            .position(|arg| arg == "--bundle")
            .unwrap();
        let bundle = PathBuf::from(&launch.command[at + 1]);
        let id = launch.command[at + 2].to_str().unwrap().to_owned();
        assert!(bundle.join("config.json").is_file() && bundle.ends_with(&id));
        Self { bundle, id }
    }

    /// Folders of its control groups.
    fn groups(&self) -> Vec<PathBuf> {
        let name = self.id.replacen("kcap-", "kcap-oci-", 1);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts
            .lines()
            .filter(|line| line.contains(" - cgroup"))
            .map(|line| Path::new(line.split(' ').nth(4).unwrap()).join(&name))
            .filter(|path| path.exists())
            .collect()
    }

    fn assert_gone(&self) {
        assert_eq!(self.groups(), [] as [PathBuf; 0]);
        assert!(!self.bundle.exists(), "{} is left", self.bundle.display());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&format!("{}/", self.id)), "{mounts}");
        for state in ["/run/runc", "/run/crun"] {
            assert!(!Path::new(state).join(&self.id).exists());
        }
    }
}

fn start(launch: &Launch) -> Child {
    let (program, args) = launch.command.split_first().unwrap();
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Builds, and says what the executor said. Nothing is left.
fn build(engine: Oci, request: &Request) -> Result<String, String> {
    let began = Instant::now();
    let launch = engine.prepare(request).map_err(|e| format!("{e:#}"))?;
    let prepared = began.elapsed();
    let traces = Traces::of(&launch);
    let output = start(&launch).wait_with_output().unwrap();
    assert!(!launch.container.out_of_memory());
    let ended = Instant::now();
    drop(launch);
    let dropped = ended.elapsed();
    drop(engine);
    println!(
        "prepare {prepared:?}, drop {dropped:?}, removed {:?}",
        ended.elapsed()
    );
    traces.assert_gone();
    if output.status.success() {
        Ok(said(&output))
    } else {
        Err(said(&output))
    }
}

fn engine(runtime: &str) -> Oci {
    Oci::new(Some(OsStr::new(runtime))).unwrap()
}

/// Writes a blob of a layout, and gives its descriptor.
fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(&hex), bytes).unwrap();
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
}

/// An executor's image, as an OCI layout, a tar of it, and a docker archive: of two layers, the
/// lower one with an executor that cannot run.
fn images(builds: &Builds) -> Vec<PathBuf> {
    let arch = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let dirs = [builds.path("lower"), builds.path("upper")];
    for dir in &dirs {
        fs::create_dir_all(dir.join("kaniko")).unwrap();
    }
    fs::set_permissions(dirs[1].join("kaniko"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(dirs[0].join("kaniko/executor"), "none").unwrap();
    fs::write(dirs[0].join("kaniko/old"), "old").unwrap();
    fs::write(dirs[1].join("kaniko/.wh.old"), "").unwrap();
    fs::copy(executor(), dirs[1].join("kaniko/executor")).unwrap();
    let layers: Vec<Vec<u8>> = dirs
        .iter()
        .map(|dir| {
            let archive = builds.path("layer.tar");
            tar(&archive, dir);
            fs::read(&archive).unwrap()
        })
        .collect();
    let digest = |bytes: &[u8]| -> String {
        let hex: String = Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        format!("sha256:{hex}")
    };
    let config = json!({
        "architecture": arch, "os": "linux",
        "config": {
            "Entrypoint": ["/kaniko/executor", "--log-format=json"],
            "Env": ["PATH=/kaniko", "HOME=/root", "USER=root"],
            "WorkingDir": "/workspace",
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(&layers[0]), digest(&layers[1])]},
    });
    let config = serde_json::to_vec(&config).unwrap();

    let layout = builds.path("layout");
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let compressed = zstd::encode_all(layers[1].as_slice(), 1).unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "config": blob(&layout, "application/vnd.oci.image.config.v1+json", &config),
        "layers": [blob(&layout, kind, &layers[0]), blob(&layout, &format!("{kind}+zstd"), &compressed)],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut ours = blob(
        &layout,
        "application/vnd.oci.image.manifest.v1+json",
        &manifest,
    );
    ours["platform"] = json!({"os": "linux", "architecture": arch});
    let mut other = ours.clone();
    other["platform"]["architecture"] = "wasm".into();
    let index = json!({"schemaVersion": 2, "manifests": [other, ours]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let layout_tar = builds.path("layout.tar");
    tar(&layout_tar, &layout);

    let saved = builds.path("saved");
    fs::create_dir_all(saved.join("1")).unwrap();
    let name = format!("{}.json", &digest(&config)[7..]);
    fs::write(saved.join(&name), &config).unwrap();
    fs::write(saved.join("1/layer.tar"), &layers[0]).unwrap();
    fs::write(saved.join("2.tar"), &layers[1]).unwrap();
    let manifest =
        json!([{"Config": name, "Layers": ["1/layer.tar", "2.tar"], "RepoTags": ["k:1"]}]);
    fs::write(saved.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = builds.path("saved.tar");
    tar(&archive, &saved);
    vec![layout, layout_tar, archive]
}

#[test]
fn every_form_of_an_executor_builds_by_every_runtime() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let builds = Builds::new();
    let mut forms = images(&builds);
    forms.push(executor());
    for runtime in runtimes() {
        for form in &forms {
            println!("{runtime}, {}", form.display());
            let request = builds.request(
                form,
                "RUN test ! -e /kaniko/old && cat /bin/busybox > /copy",
            );
            build(engine(runtime), &request).unwrap();
            let mut names = Vec::new();
            let mut archive = tar::Archive::new(File::open(builds.path("image.tar")).unwrap());
            for entry in archive.entries().unwrap() {
                names.push(entry.unwrap().path().unwrap().into_owned());
            }
            assert!(
                names.iter().any(|name| name == Path::new("manifest.json")),
                "{names:?}"
            );
        }
    }
}

#[test]
fn the_container_holds_what_is_asked_for() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let builds = Builds::new();
    let asked = FEW | 1 << Cap::SYS_ADMIN.0;
    for runtime in runtimes() {
        for (capabilities, seccomp, unshare) in [
            (FEW, Seccomp::Docker, "! unshare -u true"),
            (asked, Seccomp::Docker, "unshare -u true"),
            (FEW, Seccomp::None, "! unshare -u true"),
        ] {
            let mode = if seccomp == Seccomp::Docker { 2 } else { 0 };
            let mut lines = String::from("RUN cd /proc/self");
            for (set, mask) in [
                ("Inh", 0),
                ("Prm", capabilities),
                ("Eff", capabilities),
                ("Bnd", capabilities),
                ("Amb", 0),
            ] {
                lines += &format!(" && grep -q 'Cap{set}:.{mask:016x}' status");
            }
            lines +=
                &format!(" && grep -q 'Seccomp:.{mode}' status && grep -q 'NoNewPrivs:.0' status");
            lines += &format!(" && {unshare}");
            let mut request = builds.request(&executor(), &lines);
            (request.capabilities, request.seccomp) = (capabilities, seccomp);
            build(engine(runtime), &request).unwrap();
        }
    }
}

#[test]
fn a_network_can_be_none() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let builds = Builds::new();
    for runtime in runtimes() {
        // Of devices the loopback alone, and it is up.
        let mut request = builds.request(
            &executor(),
            "RUN cd /proc && test $(grep -c : net/dev) = 1 \\\n\
             && grep -q 0x9 /sys/class/net/lo/flags \\\n\
             && test $(cat sys/net/ipv4/ip_unprivileged_port_start) = 0",
        );
        request.network = Some("none".into());
        build(engine(runtime), &request).unwrap();
    }
}

#[test]
fn values_reach_the_build_and_are_not_shown() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let builds = Builds::new();
    let mut request = builds.request(
        &executor(),
        "ARG A\nARG B\nRUN test $A = s3cret && test $B = v4lue",
    );
    request.environment = vec![("B".into(), "v4lue".into())];
    request.flags = vec![
        "--build-arg=A=s3cret".into(),
        "--build-arg".into(),
        "B".into(),
    ];
    let engine = engine(runtimes()[0]);
    let launch = engine.prepare(&request).unwrap();
    assert_eq!(launch.secrets, ["v4lue", "s3cret"]);
    assert!(
        launch.shown.contains(&"--build-arg=A=***".to_owned()),
        "{:?}",
        launch.shown
    );
    let output = start(&launch).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    drop(launch);
    // A build that fails leaves no archive, and says so by its status.
    request.flags.clear();
    let error = build(engine, &request).unwrap_err();
    assert!(error.contains("failed to execute command"), "{error}");
    assert!(!builds.path("image.tar").exists());
}

#[test]
fn a_container_is_killed_and_nothing_is_left() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let builds = Builds::new();
    for runtime in runtimes() {
        let engine = engine(runtime);
        let launch = engine
            .prepare(&builds.request(&executor(), "RUN sleep 1000"))
            .unwrap();
        let traces = Traces::of(&launch);
        let child = start(&launch);
        await_line(child, "sleep 1000", || {
            assert!(!traces.groups().is_empty());
            launch.container.kill().unwrap();
        });
        assert!(!launch.container.out_of_memory());
        drop((launch, engine));
        traces.assert_gone();
    }
}

#[test]
fn a_kill_before_the_start_keeps_it_from_starting() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let builds = Builds::new();
    let engine = engine(runtimes()[0]);
    let launch = engine
        .prepare(&builds.request(&executor(), "RUN true"))
        .unwrap();
    launch.container.kill().unwrap();
    let output = start(&launch).wait_with_output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn a_lack_of_memory_is_told() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let builds = Builds::new();
    for runtime in runtimes() {
        let engine = engine(runtime);
        let request = builds.request(&executor(), "RUN sleep 2; tail /dev/zero");
        let launch = engine.prepare(&request).unwrap();
        let traces = Traces::of(&launch);
        let mut limited = false;
        await_line(start(&launch), "tail /dev/zero", || {
            limited = traces.groups().iter().any(|group| {
                ["memory.max", "memory.limit_in_bytes"].iter().any(|name| {
                    let file = group.join(name);
                    file.exists() && fs::write(file, "300000000").is_ok()
                })
            });
            if !limited {
                launch.container.kill().unwrap();
            }
        });
        if limited {
            assert!(launch.container.out_of_memory());
        } else {
            skip("no memory limit can be set");
        }
        drop((launch, engine));
        traces.assert_gone();
    }
}

/// Reads what the command writes until a text is in it, acts, and waits until the command ends.
fn await_line(mut child: Child, text: &str, act: impl FnOnce()) {
    let mut stderr = child.stderr.take().unwrap();
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains(text) {
        let read = stderr.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "it ended: {seen}");
        seen += &String::from_utf8_lossy(&buffer[..read]);
    }
    // The line is written before the program is started.
    thread::sleep(Duration::from_millis(300));
    act();
    let began = Instant::now();
    let rest = thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "it does not end");
        thread::sleep(Duration::from_millis(10));
    }
    rest.join().unwrap().unwrap();
}

#[test]
fn damaged_executors_are_told_and_leave_nothing() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    let builds = Builds::new();
    let forms = images(&builds);
    // Another image than those that are unpacked: its layer is not what its configuration says.
    let text = fs::read_to_string(builds.path("saved/manifest.json")).unwrap();
    fs::write(
        builds.path("saved/manifest.json"),
        text.replace("2.tar", "1/layer.tar"),
    )
    .unwrap();
    let name = fs::read_dir(builds.path("saved"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension() == Some(OsStr::new("json")) && !p.ends_with("manifest.json"))
        .unwrap();
    let config = fs::read_to_string(&name)
        .unwrap()
        .replace("HOME=/root", "HOME=/other");
    fs::write(builds.path("saved/config"), config).unwrap();
    let manifest = fs::read_to_string(builds.path("saved/manifest.json")).unwrap();
    let manifest = manifest.replace(name.file_name().unwrap().to_str().unwrap(), "config");
    fs::write(builds.path("saved/manifest.json"), manifest).unwrap();
    let mixed = builds.path("mixed.tar");
    tar(&mixed, &builds.path("saved"));

    let cut = builds.path("cut.tar");
    let bytes = fs::read(&forms[2]).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let script = builds.path("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();

    for (path, told) in [
        (mixed, "is damaged: its content has digest"),
        (cut, "cut.tar: the archive ends within"),
        (script, "no program and no archive"),
        (
            builds.path("context"),
            "neither index.json nor manifest.json",
        ),
        (builds.path("nothing"), "cannot read the executor"),
    ] {
        let engine = engine(runtimes()[0]);
        let error = engine.prepare(&builds.request(&path, "RUN true"));
        let error = format!("{:#}", error.map(|l| l.shown).unwrap_err());
        assert!(
            error.contains(told) && error.lines().count() == 1,
            "{error}"
        );
        drop(engine);
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
            .unwrap_or_else(|| "/var/cache".into());
        let ours = OsString::from(format!("kcap-{}-", std::process::id()));
        let left: Vec<_> = fs::read_dir(cache.join("kcap/builds"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name())
            .filter(|name| name.as_encoded_bytes().starts_with(ours.as_encoded_bytes()))
            .collect();
        assert_eq!(left, [] as [OsString; 0]);
    }
}

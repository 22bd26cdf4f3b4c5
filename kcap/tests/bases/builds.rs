//! `kcap build` with a real Kaniko, of images whose registry is gone.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use kcap::{
    interpret::dockerfile,
    launch::bases::{Bases, Served, external},
};
use tempfile::TempDir;

use super::{
    cache, fetched, flags,
    host::{self, Daemon, Storage},
    lacks,
    registry::{Layout, Registry},
    skip,
};

/// What is built: both come from elsewhere.
const DOCKERFILE: &str = "\
ARG BASE=busybox:unset
FROM $BASE AS one
COPY --from=busybox:list /etc/mark /other
RUN grep one /etc/mark && grep one /other
";

/// A folder with a Dockerfile, its images, kept, and no registry any more.
struct Build {
    dir: TempDir,
    bases: Bases,
    /// As a user gives them.
    given: Vec<String>,
    /// Last, since what is kept is in it.
    _cache: Arc<TempDir>,
}

impl Build {
    fn new() -> Self {
        let cache = cache();
        let dir = TempDir::with_prefix_in("kcap-bases-build-", "/var/tmp").unwrap();
        for folder in ["context", "podman"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("Dockerfile"), DOCKERFILE).unwrap();
        let (registry, layout) = (Registry::start(), Layout::new());
        registry.push(&layout, "one", "library/busybox:1", &[]);
        registry.push(&layout, "list", "library/busybox:list", &[]);
        // The user's own, which lead to nothing once the registry is gone.
        let given = [
            "--build-arg=BASE=busybox:1".to_owned(),
            format!("--registry-map=index.docker.io={}", registry.address),
            "--insecure-pull".into(),
            "--skip-default-registry-fallback".into(),
        ];
        let parsed = dockerfile::parse(DOCKERFILE.as_bytes()).unwrap();
        let found = external(&parsed, &flags(&given));
        assert_eq!(found.names, ["busybox:1", "busybox:list"]);
        assert_eq!(found.notes, [""; 0]);
        let names: Vec<&str> = found.names.iter().map(String::as_str).collect();
        let (bases, notes) = fetched(&names, &given);
        assert_eq!(notes, [""; 0]);
        Self {
            dir,
            bases,
            given: given.into(),
            _cache: cache,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Builds by the command line.
    fn build(&self, engine: &str, options: &[&str], served: Option<&Served>) -> Output {
        let sent = served.map(Served::flags).unwrap_or_default();
        Command::new(env!("CARGO_BIN_EXE_kcap"))
            .args(["build", "--engine", engine, "--executor"])
            .arg(host::executor())
            .arg("-c")
            .arg(self.path("context"))
            .arg("-f")
            .arg(self.path("Dockerfile"))
            .args(options)
            .arg("--")
            .args(sent)
            .args(&self.given)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Builds twice with what is served, and once without.
    fn works(&self, engine: &str, options: &[&str], network: Option<&str>) {
        let served = self.bases.serve(engine, network).unwrap();
        let served = served.expect("something is kept");
        let mut before = (0, 0);
        let mut each = None;
        for _ in 0..2 {
            let built = self.build(engine, options, Some(&served));
            assert!(built.status.success(), "{engine}: {}", all(&built));
            let now = (served.requests(), served.bytes());
            let cost = (now.0 - before.0, now.1 - before.1);
            let busybox = fs::metadata("/bin/busybox").unwrap().len();
            assert!(cost.0 >= 4 && cost.1 > busybox, "{engine}: {cost:?}");
            // Each build asks for the same.
            assert_eq!(*each.get_or_insert(cost), cost);
            before = now;
        }
        assert_eq!((served.missed().len(), served.refused()), (0, 0));
        println!("{engine} {network:?}: {each:?} (requests, bytes) a build");
        drop(served);
        let alone = self.build(engine, options, None);
        assert!(
            !alone.status.success(),
            "its registry is gone: {}",
            all(&alone)
        );
    }
}

fn all(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

/// Why this machine cannot build so.
fn cannot(programs: &[&str]) -> Option<String> {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("needs a kernel with BTF".into());
    }
    lacks().or_else(|| host::lacks(programs))
}

/// A bridge without anything on it, as an administrator makes one for docker. Dropped, it is gone.
struct Bridge(&'static str);

impl Bridge {
    fn new(name: &'static str, address: &str) -> Option<Self> {
        let ip = |args: &[&str]| {
            Command::new("ip")
                .args(args)
                .status()
                .is_ok_and(|s| s.success())
        };
        if !ip(&["link", "add", name, "type", "bridge"]) {
            return None;
        }
        let bridge = Self(name);
        let up = ip(&["address", "add", address, "dev", name]) && ip(&["link", "set", name, "up"]);
        up.then_some(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", self.0]).status();
    }
}

#[test]
fn oci_builds_without_a_registry() {
    if let Some(why) = cannot(&["runc"]) {
        return skip(&format!("builds by oci: {why}"));
    }
    let build = Build::new();
    build.works("oci", &[], None);
    let error = build.bases.serve("oci", Some("none")).unwrap_err();
    assert!(format!("{error:#}").contains("each build pulls them by itself"));
}

/// An image's own ONBUILD takes another, which the Dockerfile does not tell.
#[test]
fn what_is_not_kept_is_fetched_as_without() {
    if let Some(why) = cannot(&["runc"]) {
        return skip(&format!("builds by oci: {why}"));
    }
    let mut build = Build::new();
    let (registry, layout) = (Registry::start(), Layout::new());
    registry.push(&layout, "twin", "library/busybox:twin", &[]);
    registry.push(&layout, "one", "library/busybox:onbuild", &[]);
    build.given = vec![
        format!("--registry-map=index.docker.io={}", registry.address),
        "--skip-default-registry-fallback".into(),
    ];
    let text = "FROM busybox:twin\nRUN grep one /x/etc/mark && grep two /etc/mark\n";
    fs::write(build.path("Dockerfile"), text).unwrap();
    let notes;
    (build.bases, notes) = fetched(&["busybox:twin"], &build.given);
    assert_eq!(notes, [""; 0]);
    let served = build.bases.serve("oci", None).unwrap().expect("kept");
    let built = build.build("oci", &[], Some(&served));
    assert!(built.status.success(), "{}", all(&built));
    assert_eq!(served.missed(), ["index.docker.io/library/busybox:onbuild"]);
    assert!(served.requests() >= 3);
    drop(registry);
    let built = build.build("oci", &[], Some(&served));
    assert!(!built.status.success(), "{}", all(&built));
}

#[test]
fn docker_builds_without_a_registry() {
    if let Some(why) = cannot(&["docker", "dockerd"]) {
        return skip(&format!("builds by docker: {why}"));
    }
    let build = Build::new();
    let dir = TempDir::with_prefix_in("kcap-bases-docker-", "/var/tmp").unwrap();
    host::set(
        "DOCKER_HOST",
        format!("unix://{}", dir.path().join("socket").display()),
    );
    let daemon = Daemon::start(dir.path());
    build.works("docker", &["--network=host"], Some("host"));
    // This daemon has no bridge.
    let error = build.bases.serve("docker", None).unwrap_err();
    assert!(
        format!("{error:#}").contains("docker's network bridge"),
        "{error:#}"
    );
    drop(daemon);

    let name = "kcap-bases0";
    let Some(bridge) = Bridge::new(name, "10.213.77.1/24") else {
        return skip("builds by docker on a bridge: `ip` cannot make one");
    };
    let daemon = Daemon::start_on(dir.path(), name);
    build.works("docker", &[], None);
    build.works("docker", &["--network=bridge"], Some("bridge"));

    // Programs of this host reach the address and are turned away, whoever's they are.
    let served = build.bases.serve("docker", None).unwrap().expect("kept");
    let mut stream = TcpStream::connect(served.address()).unwrap();
    let _ = stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!((answer.len(), served.refused()), (0, 1));
    drop(served);
    drop((daemon, bridge));
}

#[test]
fn podman_builds_without_a_registry() {
    if let Some(why) = cannot(&["podman"]) {
        return skip(&format!("builds by podman: {why}"));
    }
    let build = Build::new();
    let place = |name: &str| build.path("podman").join(name).display().to_string();
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        place("root"),
        place("run")
    );
    fs::write(place("storage.conf"), storage).unwrap();
    // Without systemd; limits that root of a container may set; runc where there is one, since older
    // versions of crun refuse hosts that have cgroups v1 and v2.
    let runtime = match Command::new("runc").arg("--version").output() {
        Ok(_) => "runtime = \"runc\"\n",
        Err(_) => "",
    };
    let config = format!(
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\ntmp_dir = \"{}\"\n{runtime}",
        place("tmp")
    );
    fs::write(place("containers.conf"), config).unwrap();
    host::set("CONTAINERS_STORAGE_CONF", place("storage.conf"));
    host::set("CONTAINERS_CONF", place("containers.conf"));
    let storage = Storage(place("root/overlay"));
    build.works("podman", &["--network=host"], Some("host"));
    build.works("podman", &[], None);
    drop(storage);
}

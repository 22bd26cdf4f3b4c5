//! Executors by name: pulled from a registry of the test's own, kept, pulled again once the name
//! means another image, and used without a registry.
//!
//! Needs `skopeo`, and `docker-registry`, which `KCAP_REGISTRY` names where it is not in PATH.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{Builds, PATIENCE, images, lacks, said, skip};

/// A registry. Dropped, it ends.
struct Registry {
    server: Child,
    address: String,
}

impl Registry {
    /// `None` where there is no program for it.
    fn start(place: &Path) -> Option<Self> {
        let program = env::var_os("KCAP_REGISTRY").filter(|path| !path.is_empty());
        let program = program.unwrap_or_else(|| OsString::from("docker-registry"));
        Command::new(&program).arg("--version").output().ok()?;
        // Free a moment ago; were it taken meanwhile, the registry says so and ends.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let config = place.join("registry.yml");
        let images = place.join("registry").display().to_string();
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {images:?}}}}}\nhttp: {{addr: {address:?}}}\n"
        );
        fs::write(&config, text).unwrap();
        let log = File::create(place.join("registry.log")).unwrap();
        let server = Command::new(program)
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut registry = Self { server, address };
        let began = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            let ended = registry.server.try_wait().unwrap();
            let log = || fs::read_to_string(place.join("registry.log")).unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "it does not answer: {}",
                log()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn push(&self, archive: &Path, name: &str) {
        let pushed = Command::new("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://{name}"))
            .output()
            .unwrap();
        assert!(pushed.status.success(), "{}", said(&pushed));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Where it is gone by now, there is nothing to do.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Builds by the command line, with a cache of the test's own.
fn kcap(builds: &Builds, cache: &Path, executor: &str, lines: &str) -> Output {
    let request = builds.request(Path::new(executor), lines);
    Command::new(env!("CARGO_BIN_EXE_kcap"))
        .args(["build", "--engine", "oci", "--executor", executor, "-c"])
        .arg(&request.context)
        .arg("-f")
        .arg(&request.dockerfile)
        .env("XDG_CACHE_HOME", cache)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn an_executor_by_name_is_pulled_once_and_follows_its_tag() {
    if let Some(why) = lacks() {
        return skip(&why);
    }
    if Command::new("skopeo").arg("--version").output().is_err() {
        return skip("there is no skopeo");
    }
    let builds = Builds::new();
    let place = TempDir::new().unwrap();
    let cache = builds.path("cache");
    fs::create_dir(&cache).unwrap();
    let Some(registry) = Registry::start(place.path()) else {
        return skip("there is no docker-registry");
    };
    let name = format!("{}/kaniko:1", registry.address);
    let kept = |what: &str| fs::read_dir(cache.join("kcap").join(what)).unwrap().count();
    let used = "is used (sha256:";

    registry.push(&images(&builds)[2], &name);
    for _ in 0..2 {
        let built = kcap(&builds, &cache, &name, "RUN test ! -e /kaniko/mark");
        assert!(built.status.success(), "{}", said(&built));
        assert!(!said(&built).contains(used), "{}", said(&built));
        assert_eq!(
            (kept("executors"), kept("names"), kept("builds")),
            (1, 1, 0)
        );
    }

    fs::write(builds.path("upper/kaniko/mark"), "").unwrap();
    registry.push(&images(&builds)[2], &name);
    let built = kcap(&builds, &cache, &name, "RUN test -e /kaniko/mark");
    assert!(built.status.success(), "{}", said(&built));
    assert_eq!(
        (kept("executors"), kept("names"), kept("builds")),
        (2, 1, 0)
    );

    let other = format!("{}/other:1", registry.address);
    let refused = kcap(&builds, &cache, &other, "RUN true");
    let told = said(&refused);
    assert!(!refused.status.success(), "{told}");
    assert!(
        told.contains(&format!("cannot pull the image {other}: ")) && told.contains("unknown"),
        "{told}"
    );
    assert_eq!((kept("names"), kept("builds")), (1, 0));

    drop(registry);
    let built = kcap(&builds, &cache, &name, "RUN test -e /kaniko/mark");
    assert!(built.status.success(), "{}", said(&built));
    let lines = said(&built);
    assert!(
        lines
            .lines()
            .any(|line| line.contains(used) && line.contains("refused")),
        "{lines}"
    );
}

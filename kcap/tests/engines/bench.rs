//! What every engine must do.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use kcap::launch::{Engine, Executor, Launch, Request, Seccomp, client};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::host::{Running, executor, tool};

/// Docker's default set.
const DEFAULT: u64 = 0xa804_25fb;
/// Something that an engine must do.
type Part = fn(&Bench);

/// An engine under test.
pub struct Bench {
    name: &'static str,
    engine: Box<dyn Engine>,
    dir: PathBuf,
}

impl Bench {
    pub fn new(name: &'static str, engine: Box<dyn Engine>, dir: &Path) -> Self {
        let context = dir.join("con,text:of \"é\"");
        fs::create_dir(&context).unwrap();
        fs::copy("/bin/busybox", context.join("busybox")).unwrap();
        fs::write(context.join("hello"), "hello\n").unwrap();
        Self {
            name,
            engine,
            dir: dir.to_owned(),
        }
    }

    /// A build of this Dockerfile in the context.
    fn request(&self, dockerfile: &str) -> Request {
        let path = self.dir.join("Docker,file");
        fs::write(&path, dockerfile).unwrap();
        Request {
            dockerfile: path,
            context: self.dir.join("con,text:of \"é\""),
            network: Some("none".into()),
            ..Request::new(Executor::Path(executor()), DEFAULT)
        }
    }

    /// A build whose RUN is this line of a shell.
    fn shell(&self, line: &str) -> Request {
        let run = json!(["/bin/busybox", "sh", "-c", line]);
        self.request(&format!(
            "FROM scratch\nCOPY busybox /bin/busybox\nRUN {run}\n"
        ))
    }

    fn build(&self, request: &Request) -> (Launch, ExitStatus, String) {
        let launch = self.engine.prepare(request).unwrap();
        let (status, output) = Running::start(&launch).end();
        (launch, status, output)
    }

    /// What the engine prints.
    fn asks(&self, arguments: &[&str]) -> String {
        let (output, complaint, success) = tool(self.name, arguments);
        assert!(success, "{} {arguments:?}: {complaint}", self.name);
        output
    }

    fn inspect(&self, launch: &Launch, what: &str) -> Value {
        let id = launch.container.id().unwrap();
        let format = format!("--format={{{{json {what}}}}}");
        serde_json::from_str(&self.asks(&["inspect", &format, &id])).unwrap()
    }

    fn refused(&self, request: &Request) -> String {
        let error = self.engine.prepare(request).err().expect("it is refused");
        format!("{error:#}")
    }

    /// The engine has no container of a build.
    fn is_clean(&self) {
        assert_eq!(self.asks(&["ps", "--all", "--quiet"]), "");
    }

    pub fn all(&self) {
        let parts: [(&str, Part); 13] = [
            ("builds", Self::builds),
            ("holds what was asked for", Self::holds_what_was_asked_for),
            ("passes variables", Self::passes_variables),
            ("fails", Self::fails),
            ("is killed", Self::is_killed),
            ("is killed at any moment", Self::is_killed_at_any_moment),
            ("is interrupted", Self::is_interrupted),
            ("runs out of memory", Self::runs_out_of_memory),
            ("does not start", Self::does_not_start),
            ("refuses", Self::refuses),
            (
                "takes archives and layouts",
                Self::takes_archives_and_layouts,
            ),
            ("builds side by side", Self::builds_side_by_side),
            ("removes what is stale", Self::removes_what_is_stale),
        ];
        for (name, part) in parts {
            let begin = Instant::now();
            part(self);
            self.is_clean();
            eprintln!("{}: {name}: {:.1?}", self.name, begin.elapsed());
        }
    }

    fn builds(&self) {
        let mut request = self.request("FROM scratch\nCOPY hello* /\n");
        fs::write(self.dir.join("Docker,file.dockerignore"), "hello-ignored\n").unwrap();
        fs::write(request.context.join("hello-ignored"), "").unwrap();
        request.archive = Some(self.dir.join("image.tar"));
        request.flags = vec!["--build-arg=TOKEN=build-secret".into()];
        let begin = Instant::now();
        let first = self.engine.prepare(&request).unwrap();
        let loaded = begin.elapsed();
        drop(first);
        let begin = Instant::now();
        let launch = self.engine.prepare(&request).unwrap();
        let prepared = begin.elapsed();
        assert_eq!(launch.engine, self.name);
        assert_eq!(launch.secrets, ["build-secret"]);
        let shown = launch.shown.join(" ");
        let start = format!("{} run --rm --cap-drop=all --cap-add=CHOWN ", self.name);
        assert!(shown.starts_with(&start), "{shown}");
        assert!(!shown.contains("build-secret"), "{shown}");
        assert!(!format!("{:?}", launch.command).contains("build-secret"));

        let begin = Instant::now();
        let (status, output) = Running::start(&launch).end();
        let ran = begin.elapsed();
        assert!(status.success(), "{output}");
        let begin = Instant::now();
        drop(launch);
        eprintln!(
            "{}: first prepare {loaded:.0?}, prepare {prepared:.0?}, build {ran:.0?}, drop {:.0?}",
            self.name,
            begin.elapsed()
        );
        self.is_clean();
        let image = tar(&fs::read(self.dir.join("image.tar")).unwrap());
        let manifest: Value = serde_json::from_slice(&image["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["Layers"].as_array().unwrap().len(), 1);
        let layer = &image[manifest[0]["Layers"][0].as_str().unwrap()];
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&layer[..])
            .read_to_end(&mut bytes)
            .unwrap();
        let files: Vec<_> = tar(&bytes)
            .into_keys()
            .filter(|name| name.contains("hello"))
            .collect();
        assert_eq!(files.len(), 1, "what is to be ignored is: {files:?}");
    }

    fn holds_what_was_asked_for(&self) {
        let mut request = self.shell("/bin/busybox grep -E '^(CapBnd|Seccomp):' /proc/self/status");
        // DAC_OVERRIDE, SYS_ADMIN.
        request.capabilities = 1 << 1 | 1 << 21;
        for (seccomp, mode) in [(Seccomp::Docker, 2), (Seccomp::None, 0)] {
            request.seccomp = seccomp;
            let (_, status, output) = self.build(&request);
            assert!(status.success(), "{output}");
            assert!(output.contains("CapBnd:\t0000000000200002"), "{output}");
            assert!(output.contains(&format!("Seccomp:\t{mode}")), "{output}");
        }
    }

    fn passes_variables(&self) {
        let given = [
            ("PLAIN", "a=b c/d+e=="),
            ("DOCKER_CONFIG", "/kaniko/.docker"),
            ("LINES", "one\ntwo # 'three' \"four\"\n"),
            ("EMPTY", ""),
        ];
        let mut request = self.request("FROM scratch\n");
        request.environment = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        let launch = self.engine.prepare(&request).unwrap();
        let held = self.inspect(&launch, ".Config.Env");
        for (name, value) in given {
            let variable = json!(format!("{name}={value}"));
            assert!(
                held.as_array().unwrap().contains(&variable),
                "{variable}: {held}"
            );
        }
        let shown = launch.shown.join(" ");
        assert!(
            shown.contains("--env=LINES") && !shown.contains("four"),
            "{shown}"
        );
        assert!(launch.secrets.iter().any(|secret| secret == "a=b c/d+e=="));
    }

    fn fails(&self) {
        let (launch, status, output) = self.build(&self.shell("exit 7"));
        assert_eq!(status.code(), Some(7), "{output}");
        assert!(!launch.container.out_of_memory());
        assert_eq!(launch.container.not_started(), None);

        let mut request = self.request("FROM scratch\nCOPY nowhere /\n");
        request.archive = Some(self.dir.join("none.tar"));
        let (launch, status, output) = self.build(&request);
        assert_eq!(status.code(), Some(1), "{output}");
        drop(launch);
        assert!(
            !self.dir.join("none.tar").exists(),
            "an image that is none stays"
        );
    }

    fn is_killed(&self) {
        let launch = self
            .engine
            .prepare(&self.shell("echo begun; /bin/busybox sleep 300"))
            .unwrap();
        let running = Running::start(&launch);
        running.until("begun");
        let id = launch.container.id().unwrap();
        let process = self.inspect(&launch, ".State.Pid");
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
        assert!(groups.contains(&id), "{id} in {groups}");
        let begin = Instant::now();
        launch.container.kill().unwrap();
        launch.container.kill().unwrap();
        let (status, _) = running.end();
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "{:?}",
            begin.elapsed()
        );
        assert!(!status.success());
        assert!(
            !Path::new(&format!("/proc/{process}")).exists(),
            "it still runs"
        );
        assert!(!launch.container.out_of_memory());
        self.is_clean();
    }

    fn is_killed_at_any_moment(&self) {
        let request = self.shell("/bin/busybox sleep 300");
        for pause in [0, 20, 60, 100, 150, 250, 400, 600] {
            let launch = self.engine.prepare(&request).unwrap();
            let id = launch.container.id().unwrap();
            let mut running = Running::start(&launch);
            thread::sleep(Duration::from_millis(pause));
            running.child.kill().unwrap();
            launch.container.kill().unwrap();
            drop(launch);
            let _ = running.end();
            self.is_clean();
            let deadline = Instant::now() + Duration::from_secs(5);
            while let Some(left) = processes_of(&id).first() {
                assert!(
                    Instant::now() < deadline,
                    "after {pause} ms, {left} still runs"
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn is_interrupted(&self) {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let launch = self
                .engine
                .prepare(&self.shell("echo begun; /bin/busybox sleep 300"))
                .unwrap();
            let running = Running::start(&launch);
            running.until("begun");
            // SAFETY: numbers only; the child is not reaped yet, so the id is its own.
            unsafe {
                libc::kill(running.child.id() as i32, signal);
            }
            let begin = Instant::now();
            let _ = running.end();
            assert!(
                begin.elapsed() < Duration::from_secs(8),
                "{:?}",
                begin.elapsed()
            );
            assert_eq!(launch.container.not_started(), None);
            drop(launch);
            self.is_clean();
        }
    }

    fn runs_out_of_memory(&self) {
        let mut request = self.shell("a=0123456789abcdef; while :; do a=$a$a; done");
        request.engine_flags = vec!["--memory=64m".into()];
        let (launch, status, output) = self.build(&request);
        assert!(!status.success(), "{output}");
        assert!(launch.container.out_of_memory(), "{output}");
    }

    fn does_not_start(&self) {
        // docker finds out at start, podman before.
        let mut request = self.request("FROM scratch\n");
        request.network = Some("no-such-network".into());
        let reason = match self.engine.prepare(&request) {
            Ok(launch) => {
                assert!(!Running::start(&launch).end().0.success());
                launch.container.not_started().expect("it was not started")
            }
            Err(e) => format!("{e:#}"),
        };
        assert!(reason.contains("no-such-network"), "{reason}");

        let mut request = self.request("FROM scratch\n");
        request.engine_flags = vec!["--entrypoint=/kaniko/nowhere".into()];
        let (launch, status, output) = self.build(&request);
        assert!(!status.success());
        let reason = launch.container.not_started();
        let reason = reason.expect("it was not started");
        assert!(reason.contains("did not start the container"), "{reason}");
        assert!(
            format!("{reason}{output}").contains("/kaniko/nowhere"),
            "{reason}{output}"
        );
    }

    fn refuses(&self) {
        let good = self.request("FROM scratch\n");
        let change = |with: &dyn Fn(&mut Request)| {
            let mut request = good.clone();
            with(&mut request);
            let error = self.refused(&request);
            assert!(!error.contains('\n'), "{error}");
            error
        };
        let image = |name: &str| Executor::Image(name.into());
        for (error, has) in [
            (
                change(&|r| r.dockerfile = "/nowhere".into()),
                "cannot find the Dockerfile /nowhere",
            ),
            (change(&|r| r.dockerfile = "/".into()), "is no file"),
            (
                change(&|r| r.context = "/nowhere".into()),
                "cannot find the build context",
            ),
            (change(&|r| r.context = "/dev/null".into()), "is no folder"),
            (
                change(&|r| r.executor = image("localhost:1/none:x")),
                "cannot pull the image",
            ),
            (
                change(&|r| r.executor = image("--help")),
                "is no name of an image",
            ),
            (
                change(&|r| r.executor = Executor::Path("/nowhere".into())),
                "cannot find the executor",
            ),
            (
                change(&|r| r.executor = Executor::Path("/etc/passwd".into())),
                "cannot load the executor",
            ),
            (
                change(&|r| r.executor = Executor::Path("/dev/null".into())),
                "neither a file nor a folder",
            ),
            (
                change(&|r| r.engine_flags = vec!["--bogus".into()]),
                "unknown flag: --bogus",
            ),
            (
                change(&|r| r.capabilities = 1 << 63),
                "no capability number 63",
            ),
            (
                change(&|r| r.archive = Some("/nowhere/image.tar".into())),
                "cannot write",
            ),
        ] {
            assert!(error.contains(has), "{has}: {error}");
            eprintln!("{}: {error}", self.name);
        }
        self.is_clean();
    }

    fn takes_archives_and_layouts(&self) {
        let list = self.asks(&["image", "ls", "--format={{.Repository}}:{{.Tag}}"]);
        let made: Vec<_> = list
            .lines()
            .filter(|l| l.contains("kcap-executor:"))
            .collect();
        assert_eq!(made.len(), 1, "one executor is one image: {list}");
        let archive = self.dir.join("executor.tar");
        let path = archive.display().to_string();
        self.asks(&["save", &format!("--output={path}"), made[0]]);
        let mut request = self.request("FROM scratch\nCOPY hello /\n");
        request.executor = Executor::Path(archive.clone());
        let (_, status, output) = self.build(&request);
        assert!(status.success(), "{output}");

        // The same as a layout, with another configuration, so that it is another image.
        let files = tar(&fs::read(&archive).unwrap());
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let mut config: Value =
            serde_json::from_slice(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        config["author"] = json!("a layout");
        let layout = self.dir.join("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let blob = |bytes: &[u8]| {
            let sum = Sha256::digest(bytes);
            let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
            json!({"digest": format!("sha256:{hex}"), "size": bytes.len()})
        };
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
        let manifest = json!({
            "schemaVersion": 2,
            "config": blob(config.to_string().as_bytes()),
            "layers": [blob(&gzip(layer))],
        });
        let index = json!({"manifests": [blob(manifest.to_string().as_bytes())]});
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        request.executor = Executor::Path(layout);
        let (_, status, output) = self.build(&request);
        assert!(status.success(), "{output}");
    }

    fn builds_side_by_side(&self) {
        let request = self.shell("echo one of several");
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let (_, status, output) = self.build(&request);
                    assert!(status.success(), "{output}");
                });
            }
        });
    }

    fn removes_what_is_stale(&self) {
        let launch = self
            .engine
            .prepare(&self.request("FROM scratch\n"))
            .unwrap();
        let owner = self.inspect(&launch, ".Config.Labels");
        let owner = owner["kcap.owner"].as_str().unwrap();
        // A process that was started at another time.
        let image = self.inspect(&launch, ".Image");
        let label = format!("--label=kcap.owner={owner}1");
        self.asks(&["create", "--network=none", &label, image.as_str().unwrap()]);
        let count = || self.asks(&["ps", "--all", "--quiet"]).lines().count();
        assert_eq!(count(), 2);
        let again = match self.name {
            "docker" => client::docker(),
            _ => client::podman(),
        };
        assert!(again.is_ok());
        assert_eq!(count(), 1, "this process's own container stays");
    }
}

/// The command lines of processes whose cgroup or command line names the container.
fn processes_of(id: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().map_while(Result::ok);
    processes
        .filter_map(|process| {
            let read = |name| fs::read(process.path().join(name)).ok();
            let command = String::from_utf8_lossy(&read("cmdline")?).replace('\0', " ");
            let group = String::from_utf8_lossy(&read("cgroup")?).into_owned();
            // A program that has ended and is not waited for has no command line.
            (!command.is_empty() && (group.contains(id) || command.contains(id))).then_some(command)
        })
        .collect()
}

/// The regular files of an archive.
fn tar(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    tar::Archive::new(bytes)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        })
        .filter(|(name, _)| !name.ends_with('/'))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let none = flate2::Compression::none();
    let mut encoder = flate2::read::GzEncoder::new(bytes, none);
    let mut packed = Vec::new();
    encoder.read_to_end(&mut packed).unwrap();
    packed
}

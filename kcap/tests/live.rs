//! A real build by a real Kaniko, offline: traced in a container, its report held against what the
//! Dockerfile's instructions need, and that against builds with exactly those capabilities and with
//! each of them missing.
//!
//! Needs root, BPF, `runc`, `tar`, `/bin/busybox` (static) and the executor, which
//! `KCAP_KANIKO_EXECUTOR` names where it is not at `/kaniko/executor`. Says so where it cannot run.

use std::{
    env,
    ffi::CString,
    fs::{self, File, Permissions},
    io::{self, BufReader, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use kcap::{
    capture,
    report::{self, ProofOutcome, Proven, Report},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Docker's default set.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
const CAP_NET_BIND_SERVICE: u32 = 10;

/// What is built. `busybox-bind` has CAP_NET_BIND_SERVICE among its file capabilities.
const DOCKERFILE: &str = "\
FROM scratch
ADD rootfs.tar /
COPY --chown=1000:1000 hello /srv/hello
USER 1000:1000
RUN id -u > /tmp/who
RUN /bin/busybox-bind true
";
/// What that needs, and why; in the order of reports.
const NEEDS: [(&str, &str); 6] = [
    ("CHOWN", "COPY --chown to another's id"),
    ("FOWNER", "the mode of a file that is another's by then"),
    ("SETGID", "USER"),
    ("SETUID", "USER"),
    (
        "NET_BIND_SERVICE",
        "executing a file that has it, which asks nothing",
    ),
    ("SETFCAP", "ADD of that file"),
];

fn executor() -> PathBuf {
    env::var_os("KCAP_KANIKO_EXECUTOR")
        .filter(|value| !value.is_empty())
        .map_or_else(|| "/kaniko/executor".into(), PathBuf::from)
}

/// Why this machine cannot do it.
fn lacks() -> Option<String> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root".into());
    }
    for path in [
        &executor(),
        Path::new("/bin/busybox"),
        Path::new("/sys/kernel/btf/vmlinux"),
    ] {
        if !path.exists() {
            return Some(format!("there is no {}", path.display()));
        }
    }
    ["runc", "tar"].into_iter().find_map(|tool| {
        let found = Command::new(tool).arg("--version").output();
        found.is_err().then(|| format!("there is no {tool}"))
    })
}

/// The build: a context, and containers to build it in, all in one folder.
struct Build {
    dir: TempDir,
    containers: u32,
}

impl Build {
    fn new() -> io::Result<Self> {
        let dir = TempDir::new()?;
        let (root, context) = (dir.path().join("image"), dir.path().join("context"));
        for folder in ["bin", "etc", "srv", "tmp"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::create_dir(&context)?;
        fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n",
        )?;
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\n")?;
        for name in ["busybox", "busybox-bind"] {
            fs::copy("/bin/busybox", root.join("bin").join(name))?;
        }
        for applet in ["sh", "id"] {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        give_capability(&root.join("bin/busybox-bind"), CAP_NET_BIND_SERVICE)?;
        let packed = Command::new("tar")
            .args(["--xattrs", "--xattrs-include=security.capability", "-cf"])
            .arg(context.join("rootfs.tar"))
            .arg("-C")
            .arg(&root)
            .arg(".")
            .output()?;
        assert!(packed.status.success(), "{}", said(&packed));
        fs::write(context.join("hello"), "hello\n")?;
        fs::write(context.join("Dockerfile"), DOCKERFILE)?;
        Ok(Self { dir, containers: 0 })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new container that holds `capabilities`. Its root is its own, since Kaniko builds in it.
    fn container(&mut self, capabilities: &[&str]) -> io::Result<Container> {
        self.containers += 1;
        let name = format!("kcap-live-{}-{}", std::process::id(), self.containers);
        let bundle = self.path(&name);
        let root = bundle.join("rootfs");
        for folder in ["kaniko", "etc", "workspace"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::copy(executor(), root.join("kaniko/executor"))?;
        fs::set_permissions(root.join("kaniko"), Permissions::from_mode(0o777))?;
        // By this file Kaniko knows that it is in a container and may overwrite the root.
        fs::write(root.join(".dockerenv"), "")?;
        let config = config(&name, capabilities, &self.path("context"));
        fs::write(bundle.join("config.json"), config.to_string())?;
        let state = self.path("runc");
        Ok(Container {
            state,
            name,
            bundle,
        })
    }
}

/// A container of runc's, removed when dropped.
struct Container {
    state: PathBuf,
    name: String,
    bundle: PathBuf,
}

impl Container {
    /// The command that runs it to its end.
    fn run(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.state).arg("run");
        command.arg("--bundle").arg(&self.bundle).arg(&self.name);
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // After a build that ended by itself there is none left, which is as it should be.
        let _ = Command::new("runc")
            .arg("--root")
            .arg(&self.state)
            .args(["delete", "--force", &self.name])
            .output();
        let _ = fs::remove_dir_all(&self.bundle);
    }
}

/// Has a file carry a capability, permitted and effective.
fn give_capability(path: &Path, cap: u32) -> io::Result<()> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let words = [REVISION_2_EFFECTIVE, 1 << cap, 0, 0, 0].map(u32::to_le_bytes);
    // SAFETY: two NUL-terminated names, and a live buffer of that size.
    let set = unsafe {
        let name = c"security.capability".as_ptr();
        libc::setxattr(
            path.as_ptr(),
            name,
            words.as_ptr().cast(),
            size_of_val(&words),
            0,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A container as Docker makes them by default, but for its capabilities.
fn config(name: &str, capabilities: &[&str], context: &Path) -> Value {
    let capabilities: Vec<String> = capabilities.iter().map(|c| format!("CAP_{c}")).collect();
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    let usual = ["nosuid", "noexec", "nodev"];
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/workspace",
            "args": ["/kaniko/executor", "--dockerfile=Dockerfile", "--context=dir:///context", "--no-push"],
            "env": ["HOME=/root", "USER=root", "PATH=/usr/local/bin:/kaniko"],
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": false,
        },
        "mounts": [
            mount("/proc", "proc", &usual),
            mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            {
                "destination": "/context", "type": "bind", "source": context.to_string_lossy(),
                "options": ["rbind", "rprivate", "ro"],
            },
        ],
        "linux": {
            // At the root of every hierarchy: away from the cgroup that kcap made.
            "cgroupsPath": format!("/{name}"),
            "namespaces": namespaces,
        },
    })
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    format!("{}\n{stdout}\n{stderr}", output.status)
}

/// Builds under kcap, with Docker's default set.
fn traced(build: &mut Build) -> io::Result<Report> {
    let (report, packed) = (build.path("report"), build.path("capture"));
    let container = build.container(&DEFAULT)?;
    let run = container.run();
    let output = Command::new(env!("CARGO_BIN_EXE_kcap"))
        .arg("run")
        .arg("--report")
        .arg(&report)
        .arg("--capture")
        .arg(&packed)
        .arg("--dockerfile")
        .arg(build.path("context/Dockerfile"))
        .arg("--")
        .arg(run.get_program())
        .args(run.get_args())
        .output()?;
    assert!(output.status.success(), "{}", said(&output));
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let report = report::from_json(&fs::read(report)?).expect("the report is one");
    let capture = capture::read(BufReader::new(File::open(packed)?)).expect("a capture");
    assert_eq!(kcap::interpret::interpret(&capture), report);
    Ok(report)
}

#[test]
fn what_is_required_is_what_the_build_needs_and_no_more() {
    if let Some(why) = lacks() {
        let _ = writeln!(io::stdout(), "SKIP: live Kaniko: {why}");
        return;
    }
    let mut build = Build::new().expect("the build can be laid out");
    let report = traced(&mut build).expect("the build can be traced");

    assert!(report.complete, "{:?}", report.loss);
    assert_eq!(report.subject.exit_status, Some(0));
    let executor = report.subject.executor.as_ref().map(|e| e.path.as_str());
    assert_eq!(executor, Some("/kaniko/executor"));
    let mut held: Vec<String> = report
        .subject
        .capabilities
        .iter()
        .map(ToString::to_string)
        .collect();
    held.sort();
    let mut given = DEFAULT;
    given.sort_unstable();
    assert_eq!(held, given, "the set that the executor ran with");
    let required: Vec<String> = report.required.iter().map(ToString::to_string).collect();
    assert_eq!(required, NEEDS.map(|(name, _)| name));
    assert!(report.unsure.is_empty(), "{:?}", report.unsure);

    let mut status = |capabilities: &[&str]| {
        let container = build.container(capabilities).expect("a container");
        let output = container.run().output().expect("runc starts");
        (output.status.success(), said(&output))
    };
    let required: Vec<&str> = required.iter().map(String::as_str).collect();
    let (built, text) = status(&required);
    assert!(
        built,
        "with all that is required, the build has to work: {text}"
    );
    for (name, why) in NEEDS {
        let rest: Vec<&str> = required.iter().copied().filter(|c| *c != name).collect();
        let (built, text) = status(&rest);
        assert!(
            !built,
            "without {name} ({why}) the build has to fail: {text}"
        );
    }
}

#[test]
fn what_is_proved_is_what_the_build_needs_and_no_more() {
    if let Some(why) = lacks() {
        let _ = writeln!(io::stdout(), "SKIP: live Kaniko, proof: {why}");
        return;
    }
    let build = Build::new().expect("the build can be laid out");
    let report = build.path("report");
    // Not below /tmp, which may be in memory: the container's files are there.
    let cache = TempDir::with_prefix_in("kcap-live-", "/var/tmp").expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_kcap"))
        .args([
            "prove",
            "--engine",
            "oci",
            "--seccomp",
            "none",
            "--jobs",
            "2",
        ])
        .arg("--executor")
        .arg(executor())
        .arg("-f")
        .arg(build.path("context/Dockerfile"))
        .arg("--report")
        .arg(&report)
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .expect("kcap runs");
    assert!(output.status.success(), "{}", said(&output));
    let report =
        report::from_json(&fs::read(report).expect("a report")).expect("the report is one");
    let proof = report.proof.as_ref().expect("there were replays");
    assert_eq!(proof.state, Proven::Proved, "{}", said(&output));
    let required: Vec<String> = report.required.iter().map(ToString::to_string).collect();
    assert_eq!(required, NEEDS.map(|(name, _)| name));
    // Its verdicts are right, so that it takes no build more than that.
    assert_eq!(
        proof.builds + proof.kept,
        NEEDS.len() as u32 + 4,
        "{}",
        said(&output)
    );
    for capability in report
        .capabilities
        .iter()
        .filter(|c| report.required.contains(&c.name))
    {
        let proof = capability.proof.as_ref().expect("each has its witness");
        assert_ne!(proof.outcome, ProofOutcome::Same, "{}", capability.name);
        assert!(
            proof.step.is_some() && !proof.detail.is_empty(),
            "{}",
            capability.name
        );
    }
}

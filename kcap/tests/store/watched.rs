//! `kcap watch` itself, with the executor of known truth: reports in the store, which goes and comes back,
//! and refusals at a webhook.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use kcap::report::Cap;
use serde_json::Value;

use crate::{
    keys,
    lab::{self, Group, Lab, PATIENCE},
    programs,
    swift::{KEY, SECRET, Swift},
    webhook::Listener,
};

/// Why nothing can be watched here.
pub fn lacks() -> Option<&'static str> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root");
    }
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    (!btf).then_some("needs a kernel with BTF")
}

/// Says loudly what is left out.
pub fn skip(why: &str) {
    // Where standard output is closed, nobody reads it.
    let _ = writeln!(std::io::stdout(), "SKIP: store: {why}");
}

struct Watch {
    child: Child,
    lines: mpsc::Receiver<Value>,
    errors: String,
}

impl Watch {
    fn start(lab: &Lab, swift: &Swift, out: &str, config: &str) -> Self {
        let errors = lab.path("errors");
        let mut command = Command::new(programs::kcap());
        swift.environment(&mut command, KEY, SECRET);
        let mut child = command
            .args(["watch", "--out", out, "--config", config])
            .args(["--match", &lab.path("kaniko/executor")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("kcap runs");
        let stdout = child.stdout.take().expect("a pipe");
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("a line of JSON");
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let watch = Self {
            child,
            lines,
            errors,
        };
        assert_eq!(watch.wait("watching")["out"], format!("{out}/"));
        watch
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// The next line of a kind.
    fn wait(&self, event: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line["event"] == event => return line,
                Ok(_) => {}
                Err(_) => panic!("no {event}: {}", self.said()),
            }
        }
    }

    fn stop(&mut self) -> Option<i32> {
        // SAFETY: our own child, which is waited for next.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        self.child.wait().expect("it can be waited for").code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It has ended, but where a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn builds_are_reported_to_a_store_that_goes_and_comes_back_and_refusals_to_a_webhook() {
    if let Some(why) = lacks() {
        return skip(why);
    }
    let lab = Lab::new();
    let mut swift = Swift::start();
    let store = swift.bucket("watched");
    let listener = Listener::start(|_| "200 OK".into());
    let config = lab.path("watch.toml");
    fs::write(&config, format!("webhook = \"{}\"\n", listener.url)).expect("a file");
    let dockerfile = lab.dockerfile("Dockerfile", "FROM scratch", "RUN truth setgroups:2\n");
    let build = |project: &str, caps: u64| {
        let group = Group::new(project);
        let mut command = group.command(true, &lab.path("kaniko/executor"));
        command
            .args(["-f", &dockerfile, "-c", "/"])
            .env("CI_PROJECT_PATH", format!("team/{project}"))
            .stderr(Stdio::null());
        if caps != u64::MAX {
            lab::confine(&mut command, caps, false);
        }
        command.status().expect("it starts");
    };
    let mut watch = Watch::start(&lab, &swift, "s3://watched/node 1", &config);
    build("first", u64::MAX);
    let name = watch.wait("report")["name"].clone();
    let first = format!("node 1/{}", name.as_str().expect("a name"));
    assert_eq!(keys(&store, ""), [first.as_str()]);

    swift.stop();
    build("second", u64::MAX);
    build("refused", !Cap::SETGID.mask());
    let end = Instant::now() + PATIENCE;
    while !watch.said().contains("reports wait") {
        assert!(Instant::now() < end, "{}", watch.said());
        thread::sleep(Duration::from_millis(20));
    }
    // That nothing can be written holds up no refusal.
    let mut posted = vec![];
    while posted
        .last()
        .is_none_or(|line: &Value| line["event"] != "refused")
    {
        let body = listener.bodies.recv_timeout(PATIENCE);
        posted.push(body.expect("a refusal"));
    }
    for line in &posted {
        assert_eq!(line["capability"], "SETGID", "{posted:#?}");
        assert_eq!(line["schema"], "kcap.event/v1");
    }
    let refused = posted.last().expect("the last");
    assert_eq!(refused["identity"]["project"], "team/refused");
    assert_eq!(
        (&refused["line"], &refused["count"]),
        (&3.into(), &2.into()),
        "{refused:#}"
    );
    swift.again();
    watch.wait("report");
    watch.wait("report");
    assert_eq!(watch.stop(), Some(0), "{}", watch.said());
    let said = watch.said();
    assert!(said.contains("reports are written again"), "{said}");
    for secret in [SECRET, "Signature=", "secret"] {
        assert!(!said.contains(secret), "{said}");
    }
    assert_eq!(keys(&store, "node 1/host/team/").len(), 3);

    let mut report = Command::new(programs::kcap());
    swift.environment(&mut report, KEY, SECRET);
    let report = report.args([
        "report",
        "--allow-incomplete",
        "--format",
        "json",
        "s3://watched/node 1/host/",
    ]);
    let output = report.output().expect("kcap runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let matrix: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // Each project's Dockerfile is its own.
    let builds = matrix["builds"].as_array().expect("builds");
    let projects: Vec<&str> = (builds.iter())
        .filter_map(|build| build["dockerfile"].as_str()?.split(':').next())
        .collect();
    assert_eq!(projects, ["team/first", "team/refused", "team/second"]);
}

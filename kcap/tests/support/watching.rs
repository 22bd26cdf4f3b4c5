//! A `kcap watch` that tests hold against what they know.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use kcap::{
    capture::{self, Capture},
    report::{self, Report},
    watch::events,
};
use serde_json::Value;

use crate::{
    counts::Counts,
    lab::{Lab, PATIENCE},
    programs,
};

/// A kcap that watches.
pub struct Watch {
    pub child: Child,
    pub out: PathBuf,
    pub errors: PathBuf,
    pub lines: mpsc::Receiver<Value>,
    pub seen: Vec<Value>,
}

impl Watch {
    pub fn start(lab: &Lab, args: &[&str]) -> Self {
        Self::start_as(lab, Command::new(programs::kcap()), args)
    }

    pub fn start_as(lab: &Lab, mut kcap: Command, args: &[&str]) -> Self {
        let out = PathBuf::from(lab.path("out"));
        let errors = PathBuf::from(lab.path("errors"));
        let mut child = kcap
            .args(["watch", "--captures", "--out"])
            .arg(&out)
            .args(["--match", &lab.path("kaniko/executor")])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("kcap runs");
        let stdout = child.stdout.take().expect("a pipe");
        let (tell, lines) = mpsc::channel();
        let schema = serde_json::from_str(&events::schema()).expect("a schema");
        let schema = jsonschema::validator_for(&schema).expect("a schema");
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).expect("a line of JSON");
                if let Err(why) = schema.validate(&line) {
                    // Seen by whoever waits for the line.
                    panic!("{line:#}: {why}");
                }
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut watch = Self {
            child,
            out,
            errors,
            lines,
            seen: vec![],
        };
        watch.wait("watching", 1);
        watch
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Waits until so many lines of a kind were written, and gives them.
    pub fn wait(&mut self, event: &str, count: usize) -> Vec<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let found: Vec<Value> = (self.seen.iter())
                .filter(|line| line["event"] == event)
                .cloned()
                .collect();
            if found.len() >= count {
                return found;
            }
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(_) => panic!(
                    "{} of {count} lines of {event}: {:#?}\n{}",
                    found.len(),
                    self.seen,
                    self.errors()
                ),
            }
        }
    }

    pub fn signal(&self, number: i32) {
        // SAFETY: our own child, which is waited for later.
        unsafe { libc::kill(self.child.id() as i32, number) };
    }

    /// Ends it as systemd does; gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        let status = self.child.wait().expect("kcap can be waited for");
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.seen.push(line);
        }
        status.code()
    }

    pub fn file(&self, line: &Value) -> PathBuf {
        self.out.join(line["name"].as_str().expect("a name"))
    }

    pub fn report(&self, line: &Value) -> Report {
        let bytes = fs::read(self.file(line)).expect("a report");
        report::from_json(&bytes).expect("a report")
    }

    pub fn capture(&self, line: &Value) -> Capture {
        let file = File::open(self.file(line).with_extension("kcap")).expect("a capture");
        capture::read(BufReader::new(file)).expect("a capture")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It has ended, but where a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of a capture's checks, but those for memory.
pub fn all(capture: &Capture) -> Counts {
    let mut counts = Counts::default();
    capture.tallies.iter().for_each(|tally| counts.add(tally));
    counts
}

/// Some capability checks of a report come from a hook that cannot prove that it saw all.
pub fn is_whole(report: &Report) {
    assert!(
        report.complete || report.loss.unproven.is_some(),
        "{:?}",
        report.loss
    );
    let loss = &report.loss;
    assert_eq!(
        (loss.checks, loss.execs, loss.skipped, loss.outcomes),
        (0, 0, 0, 0),
        "{loss:?}"
    );
}

pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == ending) {
                found.push(entry.path());
            }
        }
    }
    found
}

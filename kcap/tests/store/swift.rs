//! The object store of the tests: `server.py` beside this file, with accounts of known secrets.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use kcap::remote::Store;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use tempfile::TempDir;

/// Who may do all.
pub const KEY: &str = "test:tester";
pub const SECRET: &str = "testing";
/// Who may do nothing.
pub const READER: (&str, &str) = ("test:reader", "reading");
const REGION: &str = "us-east-1";
const PATIENCE: Duration = Duration::from_secs(60);

/// A store with its folder.
pub struct Swift {
    child: Option<Child>,
    folder: TempDir,
    port: u16,
    tls: bool,
}

impl Swift {
    /// Starts one, and waits until it answers.
    pub fn start() -> Self {
        let mut swift = Self {
            child: None,
            folder: TempDir::new().expect("a temporary folder"),
            port: ports(),
            tls: false,
        };
        swift.again();
        swift
    }

    /// Starts it again, with what was written.
    pub fn again(&mut self) {
        self.run(false);
        let end = Instant::now() + PATIENCE;
        while self.create("probe").is_err() {
            assert!(Instant::now() < end, "no store comes up: {}", self.said());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts it again, with what was written, to speak TLS. Gives the path of its certificate.
    pub fn again_with_tls(&mut self) -> PathBuf {
        self.run(true);
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "no store comes up: {}", self.said());
            thread::sleep(Duration::from_millis(100));
        }
        self.folder.path().join("cert.pem")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    fn run(&mut self, tls: bool) {
        let said = File::create(self.folder.path().join("said"));
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/store/server.py");
        // Debian's own: another has none of Debian's modules.
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(script)
            .arg(self.folder.path())
            .arg(self.port.to_string())
            .args(tls.then_some("tls"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said.expect("a file"));
        let child = command.spawn();
        self.child = Some(child.expect("python3 runs: cargo xtask setup --for store"));
        self.tls = tls;
    }

    /// Ends it, at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It ends its servers when its input is closed; nobody answers once it is gone.
            drop(child.stdin.take());
            child.wait().expect("it can be waited for");
        }
    }

    pub fn endpoint(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn create(&self, name: &str) -> Result<(), Box<dyn std::error::Error>> {
        let url = self.endpoint().parse()?;
        let bucket = Bucket::new(url, UrlStyle::Path, name.to_owned(), REGION)?;
        let credentials = Credentials::new(KEY, SECRET);
        let url = bucket
            .create_bucket(&credentials)
            .sign(Duration::from_secs(60));
        match ureq::put(url.as_str()).send_empty() {
            // It is there.
            Err(ureq::Error::StatusCode(409)) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) -> Store {
        self.create(name).expect("a bucket");
        let store = Store::with(name, Some(&self.endpoint()), REGION, (KEY, SECRET));
        store.expect("a store")
    }

    /// What kcap is told of it.
    pub fn environment(&self, command: &mut Command, key: &str, secret: &str) {
        command
            .env("AWS_ENDPOINT_URL", self.endpoint())
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env_remove("AWS_ENDPOINT_URL_S3")
            .env_remove("AWS_SESSION_TOKEN");
    }
}

impl Drop for Swift {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The first of four ports in a row that nobody has.
fn ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let from = 20_000 + (std::process::id() % 1000) as u16 * 10;
    loop {
        let port = from + NEXT.fetch_add(4, Ordering::Relaxed);
        let all: Result<Vec<_>, _> = (port..port + 4)
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect();
        if all.is_ok() {
            return port;
        }
    }
}

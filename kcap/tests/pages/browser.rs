//! A headless Chromium, spoken to in the DevTools protocol over a pipe: JSON with a NUL at the end, on
//! descriptors 3 and 4. Of the protocol the tests want a dozen calls, and a crate with types for all of
//! it refuses events that a newer browser adds; so they are JSON here.

use std::{
    cell::{Cell, RefCell},
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a browser is called, in the order in which it is looked for.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// Longer than anything takes here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running browser with one page; ended when it is dropped.
pub struct Browser {
    child: Child,
    to: RefCell<ChildStdin>,
    from: Receiver<Value>,
    next: Cell<u64>,
    session: String,
    events: RefCell<Vec<Value>>,
    _profile: TempDir,
}

/// The browser to test in.
fn program() -> PathBuf {
    if let Some(given) = env::var_os("KCAP_CHROMIUM") {
        return given.into();
    }
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = (NAMES.iter())
        .flat_map(|name| env::split_paths(&paths).map(move |folder| folder.join(name)))
        .find(|path| path.is_file());
    found.expect("no Chromium: install the package `chromium`, or set KCAP_CHROMIUM to its path")
}

impl Browser {
    /// Starts one, with a profile of its own.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The shell moves its ends of the pipes to where the browser wants them.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>&2", "sh"])
            .arg(program())
            .args([
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-extensions",
                "--no-first-run",
                "--window-size=1280,900",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        let to = child.stdin.take().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (send, from) = mpsc::channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message).expect("the browser speaks JSON");
                message.clear();
                if send.send(parsed).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            to: RefCell::new(to),
            from,
            next: Cell::new(1),
            session: String::new(),
            events: RefCell::default(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in [
            "Page",
            "Runtime",
            "Network",
            "Log",
            "Audits",
            "Accessibility",
        ] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method, and gives its result.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let id = self.next.replace(self.next.get() + 1);
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut text = serde_json::to_vec(&message).unwrap();
        text.push(0);
        self.to
            .borrow_mut()
            .write_all(&text)
            .expect("the browser listens");
        let answer = self.wait(|message| message["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    /// The first message that is wanted, from now on; all others are kept as events.
    fn wait(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.from.recv_timeout(left) {
                Ok(message) if wanted(&message) => return message,
                Ok(message) => self.events.borrow_mut().push(message),
                Err(RecvTimeoutError::Timeout) => panic!("the browser does not answer"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser ended"),
            }
        }
    }

    /// Opens a file, with a fragment or none, and waits until its script is done.
    pub fn open(&self, file: &Path, fragment: &str) {
        // A page that differs by its fragment alone would not be loaded again.
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.settle();
        self.events.borrow_mut().clear();
        let url = format!("file://{}{fragment}", file.display());
        self.call("Page.navigate", json!({ "url": url }));
        self.until("document.readyState === 'complete' && document.documentElement.dataset.ready === 'yes'");
    }

    /// Opens a file in which no script may run.
    pub fn open_scriptless(&self, file: &Path) {
        self.call(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": true}),
        );
        self.events.borrow_mut().clear();
        let url = format!("file://{}", file.display());
        self.call("Page.navigate", json!({ "url": url }));
        self.wait(|message| message["method"] == "Page.loadEventFired");
    }

    /// Takes what the browser says for a moment.
    fn settle(&self) {
        while let Ok(message) = self.from.recv_timeout(Duration::from_millis(100)) {
            self.events.borrow_mut().push(message);
        }
    }

    /// What an expression comes to; a promise is waited for.
    pub fn eval(&self, expression: &str) -> Value {
        let result = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        );
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        result["result"]["value"].clone()
    }

    /// The text of what an expression comes to.
    pub fn text(&self, expression: &str) -> String {
        self.eval(expression)
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits for an expression to be true.
    pub fn until(&self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.eval(expression) != true {
            assert!(Instant::now() < end, "never: {expression}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses and releases a key, by the names of the DOM.
    pub fn key(&self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            _ => u32::from(key.to_ascii_uppercase().as_bytes()[0]),
        };
        let text = match key {
            "Tab" => None,
            "Enter" => Some("\r"),
            key => Some(key),
        };
        let mut event = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if let Some(text) = text {
            event["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", event);
    }

    /// Presses Tab until what has the focus fits, at most so often.
    pub fn tab_to(&self, what: &str, most: usize) {
        for _ in 0..most {
            self.key("Tab");
            if self.eval(&format!("document.activeElement.matches({})", json!(what))) == true {
                return;
            }
        }
        let last = self.text("document.activeElement.outerHTML.slice(0, 200)");
        panic!("no Tab of {most} led to {what}; the last was {last}");
    }

    /// What went wrong since the page was opened: exceptions, errors and warnings of the console, of
    /// the policy and of the browser's audits, and requests for anything but the file.
    pub fn complaints(&self) -> Vec<String> {
        self.settle();
        let own = self.text("location.href.split('#')[0]");
        let complaint = |event: &Value| {
            let params = &event["params"];
            let what = match event["method"].as_str()? {
                "Runtime.exceptionThrown" => &params["exceptionDetails"],
                "Runtime.consoleAPICalled" => &params["args"],
                "Log.entryAdded" => &params["entry"],
                // The test itself went somewhere without a person's hand.
                "Audits.issueAdded" if what_of(params) == "NavigationEntryMarkedSkippable" => {
                    return None;
                }
                "Audits.issueAdded" => &params["issue"],
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str()?;
                    if url == own || url == "about:blank" {
                        return None;
                    }
                    &params["request"]["url"]
                }
                _ => return None,
            };
            Some(format!("{}: {what}", event["method"]))
        };
        self.events.borrow().iter().filter_map(complaint).collect()
    }
}

/// The kind of an issue that has no kind of its own.
fn what_of(params: &Value) -> &str {
    let details = &params["issue"]["details"]["genericIssueDetails"];
    details["errorType"].as_str().unwrap_or_default()
}

impl Drop for Browser {
    fn drop(&mut self) {
        // By its id; its own children end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

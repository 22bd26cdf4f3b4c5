//! Reports in an object store: a real one that speaks S3 (OpenStack Swift, of Debian's package), started by
//! the tests in folders of their own. Webhooks: a listener of the test's. One test has `kcap watch` itself
//! write there, and needs root and BPF.

#[allow(dead_code, reason = "shared with tests that use the rest")]
#[path = "support/lab.rs"]
mod lab;
#[path = "support/programs.rs"]
mod programs;
#[path = "store/swift.rs"]
mod swift;
#[path = "store/watched.rs"]
mod watched;
#[path = "store/webhook.rs"]
mod webhook;

use std::{
    path::Path,
    process::{Command, Output},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kcap::{
    capture::Capture,
    interpret::interpret,
    remote::{Object, Store},
    watch::{
        Destination as _,
        bucket::Prefix,
        queue::{Fate, Item, Queue},
        retention::Keep,
    },
};
use swift::{KEY, READER, SECRET, Swift};

/// The one that tests share.
fn swift() -> &'static Swift {
    static ONE: OnceLock<Swift> = OnceLock::new();
    ONE.get_or_init(Swift::start)
}

fn list(store: &Store, prefix: &str) -> Vec<Object> {
    let mut all = vec![];
    let list = store.list(prefix, &mut |object| {
        all.push(object);
        true
    });
    list.expect("it can be listed");
    all
}

fn keys(store: &Store, prefix: &str) -> Vec<String> {
    list(store, prefix).into_iter().map(|o| o.key).collect()
}

/// A report's bytes.
fn report(dockerfile: &str) -> Vec<u8> {
    let mut report = interpret(&Capture::default());
    report.subject.dockerfile = Some(dockerfile.to_owned());
    report.subject.dockerfile_sha256 = Some("ab".repeat(32));
    report.subject.exit_status = Some(0);
    serde_json::to_vec(&report).expect("JSON")
}

/// A name as `kcap watch` gives it.
fn name(folder: &str, n: usize) -> String {
    format!("{folder}/20261128T063731.{n:03}Z-nocommit-nocontainer-{n:x}.json")
}

fn item(name: &str, bytes: Vec<u8>) -> Item {
    Item {
        name: name.into(),
        bytes,
        line: None,
        session: 0,
        tries: 0,
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is later than 1970").as_secs()
}

fn kcap(swift: &Swift, secret: &str, args: &[&str]) -> Output {
    let mut command = Command::new(programs::kcap());
    swift.environment(&mut command, KEY, secret);
    command.args(args).output().expect("kcap runs")
}

fn is_line(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    for secret in ["X-Amz", "Signature=", SECRET] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn any_name_comes_back_and_one_that_leads_elsewhere_is_refused() {
    let store = swift().bucket("odd-names");
    let mut odd: Vec<String> = [
        "a b/c+d%20e.json",
        "%2e%2e/x",
        "q?u=e&r#y.json",
        "quote\"'<>&amp;.json",
        "ünï/日本/\u{1f980}.json",
        "semi;colon:comma,at@dollar$star*paren()[]{}|\\^`~!=.json",
        "line\nbreak\tand\u{7f}.json",
        ".hidden/.x",
        "...",
        "trailing. /space ",
    ]
    .map(str::to_owned)
    .to_vec();
    odd.push("long".repeat(200));
    for key in &odd {
        store.put(key, key.as_bytes()).expect(key);
    }
    odd.sort();
    assert_eq!(keys(&store, ""), odd);
    for key in &odd {
        assert_eq!(store.get(key, 1 << 20).expect(key), key.as_bytes());
    }
    assert_eq!(keys(&store, "a b/c+"), ["a b/c+d%20e.json"]);
    // By the rules for URLs these name another object, another bucket, or the bucket itself.
    for key in [
        "",
        "a/../...",
        "../odd-names/...",
        "./...",
        "/...",
        "a//b",
        "a/",
    ] {
        assert!(store.put(key, b"x").is_err(), "{key}");
        assert!(store.get(key, 1).is_err(), "{key}");
        assert!(store.delete(key).is_err(), "{key}");
    }
    assert_eq!(keys(&store, ""), odd);
    for key in &odd {
        store.delete(key).expect(key);
        store.delete(key).expect("twice is no error");
    }
    assert!(keys(&store, "").is_empty());
}

#[test]
fn a_large_body_is_whole_and_one_that_is_too_large_is_not_read() {
    let store = swift().bucket("large");
    let bytes: Vec<u8> = (0..24 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    store.put("large.json", &bytes).expect("it is written");
    assert_eq!(list(&store, "large")[0].size, bytes.len() as u64);
    assert!(store.get("large.json", 64 << 20).expect("it is read") == bytes);
    let error = store
        .get("large.json", 1 << 20)
        .expect_err("it is too large");
    assert!(error.to_string().contains("larger"), "{error:#}");
    store.put("large.json", b"").expect("it is replaced");
    assert_eq!(store.get("large.json", 10).expect("it is read"), b"");
}

#[test]
fn what_the_queue_writes_kcap_reads_and_tenants_are_apart() {
    let swift = swift();
    let prefix = Prefix::of(swift.bucket("builds"), "on node/".into());
    assert_eq!(prefix.shown(), "s3://builds/on node/");
    let queue = Queue::start(Box::new(prefix), 1 << 20, Keep::default(), Box::new(|_| {}));
    let queue = queue.expect("it starts");
    for (folder, dockerfile) in [
        ("team-a/api/Dockerfile", "api/Dockerfile"),
        ("team-a/web/Dockerfile", "web/Dockerfile"),
        ("team-ab/other/Dockerfile", "other/Dockerfile"),
    ] {
        assert!(
            queue
                .push(item(&name(folder, 1), report(dockerfile)))
                .is_empty()
        );
    }
    let broken = "team-b/x/Dockerfile/20261128T063731.001Z-a-b-1.json";
    queue.push(item(broken, b"{\"schema\": \"kcap.report/v1\"".to_vec()));
    queue.push(item(
        "team-a/notes.json",
        b"{\"of\": \"somebody else\"}".to_vec(),
    ));
    queue.finish(Duration::from_secs(30));
    let dockerfiles = |place: &str| -> Vec<String> {
        let output = kcap(swift, SECRET, &["report", "--format", "json", place]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{errors}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        match json["builds"].as_array() {
            Some(builds) => (builds.iter())
                .map(|build| build["dockerfile"].as_str().expect("a name").to_owned())
                .collect(),
            None => vec![
                json["subject"]["dockerfile"]
                    .as_str()
                    .expect("a name")
                    .to_owned(),
            ],
        }
    };
    for place in ["s3://builds/on node/team-a", "s3://builds/on node/team-a/"] {
        assert_eq!(dockerfiles(place), ["api/Dockerfile", "web/Dockerfile"]);
    }
    let one = format!(
        "s3://builds/on node/{}",
        name("team-ab/other/Dockerfile", 1)
    );
    assert_eq!(dockerfiles(&one), ["other/Dockerfile"]);
    let checked = kcap(
        swift,
        SECRET,
        &[
            "check",
            "--policy",
            "pss-restricted",
            "s3://builds/on node/team-a",
        ],
    );
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    // Credentials that are lent come with a token, which is signed as well.
    let mut lent = Command::new(programs::kcap());
    swift.environment(&mut lent, KEY, SECRET);
    let lent = lent
        .env("AWS_SESSION_TOKEN", "a/token+of=")
        .args(["report", &one]);
    assert_eq!(lent.output().expect("kcap runs").status.code(), Some(0));
    let report = |args: &[&str]| kcap(swift, SECRET, &[&["report"], args].concat());
    is_line(
        &report(&["s3://builds/on node/team-b"]),
        &["cannot read s3://builds/on node/team-b/x"],
    );
    is_line(
        &report(&["s3://builds/on node/team"]),
        &["no report in s3://builds/on node/team"],
    );
    is_line(
        &report(&["s3://builds/none.json"]),
        &["cannot read s3://builds/none.json: the store answers 404"],
    );
    is_line(
        &report(&["s3://nobuckethere/x/"]),
        &["cannot list s3://nobuckethere/x/", "make the bucket"],
    );
    is_line(&report(&["s3://b/x"]), &["s3://b/x: no bucket"]);
}

#[test]
fn who_may_not_is_told_in_one_line_without_a_secret() {
    let swift = swift();
    swift.bucket("locked");
    let wrong = kcap(swift, "wrong-secret", &["report", "s3://locked/"]);
    is_line(
        &wrong,
        &[
            "cannot list s3://locked/",
            "SignatureDoesNotMatch",
            "AWS_SECRET_ACCESS_KEY",
        ],
    );
    let (key, secret) = READER;
    let reader = Store::with(
        "locked",
        Some(&swift.endpoint()),
        "us-east-1",
        (key, secret),
    );
    let error = format!(
        "{:#}",
        reader
            .expect("it is made")
            .put("x", b"")
            .expect_err("it may not")
    );
    assert!(
        error.starts_with("cannot write s3://locked/x: the store answers 403, AccessDenied"),
        "{error}"
    );
    let mut none = Command::new(programs::kcap());
    swift.environment(&mut none, KEY, SECRET);
    let none = none
        .env_remove("AWS_ACCESS_KEY_ID")
        .args(["report", "s3://locked/"]);
    is_line(
        &none.output().expect("kcap runs"),
        &["no credentials", "AWS_ACCESS_KEY_ID"],
    );
    // Before anything is traced.
    if let Some(why) = watched::lacks() {
        watched::skip(why);
    } else {
        let out = ["watch", "--out", "s3://locked/kcap"];
        is_line(
            &kcap(swift, "wrong-secret", &out),
            &["cannot write s3://locked/kcap/.kcap", "403"],
        );
        let out = ["watch", "--out", "s3://nobuckethere/kcap"];
        is_line(
            &kcap(swift, SECRET, &out),
            &["cannot write s3://nobuckethere/kcap", "make the bucket"],
        );
    }
}

#[test]
fn over_tls_a_store_is_trusted_by_its_certificate_alone() {
    let mut swift = Swift::start();
    let one = name("t", 1);
    (swift.bucket("tls").put(&one, &report("Dockerfile"))).expect("it is written");
    swift.stop();
    let certificate = swift.again_with_tls();
    let place = format!("s3://tls/{one}");
    let read = |trusted: Option<&Path>| {
        let mut command = Command::new(programs::kcap());
        swift.environment(&mut command, KEY, SECRET);
        if let Some(trusted) = trusted {
            command.env("AWS_CA_BUNDLE", trusted);
        }
        command
            .args(["report", &place])
            .output()
            .expect("kcap runs")
    };
    let trusted = read(Some(&certificate));
    assert_eq!(trusted.status.code(), Some(0), "{trusted:?}");
    is_line(&read(None), &["the store cannot be reached", "certificate"]);
    is_line(
        &read(Some(Path::new("/none.pem"))),
        &["AWS_CA_BUNDLE, /none.pem"],
    );
}

#[test]
fn more_than_a_page_is_listed_and_the_old_go() {
    const REPORTS: usize = 1500;
    let swift = swift();
    let store = swift.bucket("many");
    let started = now();
    thread::scope(|scope| {
        for part in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for n in (part..REPORTS).step_by(8) {
                    store
                        .put(&name("kcap/t", n), &[b'x'; 10])
                        .expect("it is written");
                }
            });
        }
    });
    store
        .put("kcap/state.json", b"not kcap's")
        .expect("it is written");
    store
        .put("other/report.json", b"elsewhere")
        .expect("it is written");
    let found = list(&store, "kcap/t/");
    assert_eq!(found.len(), REPORTS);
    assert!(found.is_sorted_by(|a, b| a.key < b.key));
    assert!(
        found
            .iter()
            .all(|o| o.size == 10 && o.modified + 2 >= started && o.modified <= now() + 2)
    );

    let mut prefix = Prefix::of(swift.bucket("many"), "kcap/".into());
    let day = Keep {
        age: Some(86_400),
        bytes: None,
    };
    assert_eq!(
        prefix
            .prune(&day, now())
            .expect("it is looked through")
            .reports,
        0
    );
    let few = Keep {
        age: Some(86_400),
        bytes: Some(10_005),
    };
    let pruned = prefix.prune(&few, now()).expect("they are removed");
    assert_eq!((pruned.reports, pruned.bytes), (500, 5_000));
    assert_eq!(keys(&store, "kcap/t/").len(), 1000);
    // Asked again at once it does not list again.
    assert_eq!(
        prefix
            .prune(&few, now() + 90_000)
            .expect("nothing is done")
            .reports,
        0
    );
    let pruned = prefix
        .prune(&day, now() + 90_000)
        .expect("they are removed");
    assert_eq!((pruned.reports, pruned.bytes), (1000, 10_000));
    assert_eq!(keys(&store, ""), ["kcap/state.json", "other/report.json"]);
}

#[test]
fn reports_wait_for_a_store_that_is_gone_and_none_is_lost() {
    let mut swift = Swift::start();
    let store = swift.bucket("waiting");
    let (tell, told) = mpsc::channel();
    let hear = Box::new(move |fate| _ = tell.send(fate));
    let prefix = Prefix::of(swift.bucket("waiting"), "kcap/".into());
    let queue = Queue::start(Box::new(prefix), 1 << 20, Keep::default(), hear).expect("it starts");
    let wait = || {
        told.recv_timeout(Duration::from_secs(60))
            .expect("it is told")
    };
    queue.push(item(&name("t", 0), report("0")));
    assert!(matches!(wait(), Fate::Written(_)));
    swift.stop();
    for n in 1..6 {
        assert!(
            queue
                .push(item(&name("t", n), report(&n.to_string())))
                .is_empty()
        );
    }
    match wait() {
        Fate::Delayed(why) => assert!(
            why.starts_with("cannot write s3://waiting/kcap/t/")
                && why.contains("AWS_ENDPOINT_URL"),
            "{why}"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(queue.waiting().0, 5);
    swift.again();
    queue.finish(Duration::from_secs(60));
    let mut names: Vec<String> = told
        .iter()
        .filter_map(|fate| match fate {
            Fate::Written(item) => Some(item.name),
            Fate::Delayed(_) => None,
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<String> = (1..6).map(|n| name("t", n)).collect();
    // One that could not be written a few times lets others go first.
    names.sort();
    assert_eq!(names, expected);
    assert_eq!(keys(&store, "kcap/").len(), 6);
}

//! Engines that are not there, hang, or answer what they like.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    thread,
};

use tempfile::TempDir;

use super::*;

fn id() -> String {
    "ab12".repeat(16)
}

fn of() -> Identity {
    Identity {
        container: Some(id()),
        ..Identity::default()
    }
}

fn engine(kind: Kind, dir: &TempDir, is_named: bool) -> Engine {
    Engine::new(kind, dir.path().join("socket"), is_named)
}

/// What it says, and whether it knew.
fn ask(engine: &Engine) -> std::result::Result<bool, String> {
    let mut identity = of();
    let known = engine.ask(&[id()], &mut identity, &[]);
    if !matches!(known, Ok(true)) {
        assert_eq!(identity, of());
    }
    known.map_err(|why| format!("{why:#}"))
}

/// Answers every connection with these bytes, once something was asked.
fn serve(dir: &TempDir, answer: Vec<u8>) {
    let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), answer) = (stream, answer.clone()) else {
                return;
            };
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                // It may be gone by then.
                let _ = stream.write_all(&answer);
            });
        }
    });
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

#[test]
fn one_that_is_not_there_is_told_once_where_it_was_named() {
    let dir = TempDir::new().unwrap();
    for kind in [Kind::Docker, Kind::Cri] {
        assert_eq!(ask(&engine(kind, &dir, false)), Ok(false));
        let named = engine(kind, &dir, true);
        let told = ask(&named).unwrap_err();
        assert!(told.contains("/socket whose builds are: "), "{told}");
        assert!(
            told.contains(kind.shown().1) && !told.contains('\n'),
            "{told}"
        );
        assert_eq!(ask(&named), Ok(false));
    }
}

#[test]
fn who_may_not_ask_is_told_what_to_do() {
    let dir = TempDir::new().unwrap();
    let engine = engine(Kind::Docker, &dir, true);
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let told = engine.complaint(&denied.into()).unwrap().to_string();
    assert!(told.contains("a group that may write there"), "{told}");
}

#[test]
fn one_that_comes_later_is_asked() {
    let dir = TempDir::new().unwrap();
    let engine = engine(Kind::Docker, &dir, false);
    assert_eq!(ask(&engine), Ok(false));
    serve(&dir, http("200 OK", &format!(r#"[{{"Id": "{}"}}]"#, id())));
    assert_eq!(ask(&engine), Ok(true));
}

#[test]
fn what_it_does_not_know_is_no_error_and_what_is_no_answer_is_one() {
    for (answer, said) in [
        (http("200 OK", "[]"), None),
        (http("200 OK", r#"[{"Id": "of another"}]"#), None),
        (http("200 OK", "{}"), Some("not Docker's")),
        (http("500 Oh", "{}"), Some("HTTP status 500")),
        (http("200 OK", "[1, 2"), Some("not Docker's")),
        (b"SSH-2.0-x\r\n".to_vec(), Some("")),
        (vec![], Some("")),
    ] {
        let dir = TempDir::new().unwrap();
        serve(&dir, answer);
        let engine = engine(Kind::Docker, &dir, true);
        match (ask(&engine), said) {
            (Ok(known), None) => assert!(!known),
            (Err(why), Some(said)) => assert!(why.contains(said), "{why}"),
            (other, _) => panic!("{other:?}"),
        }
    }
    // One that speaks HTTP/1 is no runtime of Kubernetes.
    let dir = TempDir::new().unwrap();
    serve(&dir, http("200 OK", "{}"));
    assert!(ask(&engine(Kind::Cri, &dir, true)).is_err());
}

#[test]
fn an_answer_without_end_is_cut() {
    let dir = TempDir::new().unwrap();
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec();
    answer.resize(http::LARGEST + (1 << 20), b' ');
    serve(&dir, answer);
    let why = ask(&engine(Kind::Docker, &dir, true)).unwrap_err();
    assert!(why.contains("length limit exceeded"), "{why}");
}

#[test]
fn one_that_hangs_costs_some_seconds_and_then_none_for_a_while() {
    for kind in [Kind::Docker, Kind::Cri] {
        let dir = TempDir::new().unwrap();
        // It takes connections, and says nothing.
        let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let engine = engine(kind, &dir, true);
        let begin = Instant::now();
        let told = ask(&engine).unwrap_err();
        assert!(told.contains("no answer within 2 seconds"), "{told}");
        for _ in 1..SLOW {
            assert_eq!(ask(&engine), Ok(false));
        }
        assert!(begin.elapsed() >= PATIENCE * SLOW);
        let rested = Instant::now();
        for _ in 0..1000 {
            assert_eq!(ask(&engine), Ok(false));
        }
        assert!(rested.elapsed() < PATIENCE, "{:?}", rested.elapsed());
    }
}

#[test]
fn nobody_is_asked_about_what_is_not_theirs() {
    let of = |runtime: &str, pod: bool| Identity {
        runtime: (!runtime.is_empty()).then(|| runtime.to_owned()),
        pod_uid: pod.then(String::new),
        ..Identity::default()
    };
    for (runtime, pod, docker, cri) in [
        ("", true, true, true),
        ("docker", false, true, false),
        ("docker", true, true, true),
        ("podman", false, true, false),
        ("containerd", true, false, true),
        ("cri-o", true, false, true),
    ] {
        let identity = of(runtime, pod);
        assert_eq!(Kind::Docker.may_know(&identity), docker, "{runtime} {pod}");
        assert_eq!(Kind::Cri.may_know(&identity), cri, "{runtime} {pod}");
    }
}

//! The registry, asked over sockets.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream},
    time::Instant,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{answer::PIECE, site::MOST_MISSED, *};
use crate::launch::{
    bases::{reference::Reference, store::Store},
    oci::image,
};

fn digest(bytes: &[u8]) -> String {
    image::written(&Sha256::digest(bytes))
}

/// A served list of one image of one blob.
struct Given {
    _dir: TempDir,
    base: Arc<Base>,
    served: Served,
    blob: Vec<u8>,
    image: Vec<u8>,
    list: Vec<u8>,
}

impl Given {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::at(dir.path().to_owned()).unwrap();
        // Longer than a piece.
        let blob: Vec<u8> = (0..3 * PIECE + 7).map(|n| n as u8).collect();
        let part = json!({"digest": digest(&blob), "size": blob.len()});
        let image = json!({"config": part, "layers": [part]})
            .to_string()
            .into_bytes();
        let list = json!({"manifests": [{"digest": digest(&image), "size": image.len()}]});
        let list = list.to_string().into_bytes();
        let making = store.making().unwrap();
        let from = making.path.join("from");
        fs::create_dir(&from).unwrap();
        fs::write(from.join("manifest.json"), &image).unwrap();
        fs::write(from.join(digest(&blob).replace("sha256:", "")), &blob).unwrap();
        let kept = store.keep(&digest(&image), &list, &from, &making).unwrap();
        let base = Arc::new(Base {
            reference: Reference::parse("busybox:1").unwrap(),
            top: digest(&list),
            kept,
        });
        let place = crate::launch::bases::place::find("oci", None).unwrap();
        let served = Served::start(std::slice::from_ref(&base), place).unwrap();
        Self {
            _dir: dir,
            base,
            served,
            blob,
            image,
            list,
        }
    }

    /// Sends some bytes: all that is answered.
    fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.served.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may hang up before it has read all.
        let _ = stream.write_all(bytes);
        // A request that is not over yet; one that is would be cut off.
        if !bytes.ends_with(b"\r\n\r\n") {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// Head and body of an answer.
    fn ask(&self, method: &str, path: &str) -> (String, Vec<u8>) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = self.send(request.as_bytes());
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.expect("a head") + 4);
        (
            String::from_utf8(head.to_vec()).unwrap().to_lowercase(),
            body.to_vec(),
        )
    }

    /// A path below the secret one.
    fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.served.secret())
    }
}

#[test]
fn manifests_and_blobs_are_answered_as_they_are() {
    let given = Given::new();
    let (head, body) = given.ask("GET", "/v2/");
    assert!(head.starts_with("http/1.1 200 ok"), "{head}");
    assert_eq!(body, b"{}");
    assert_eq!(given.served.requests(), 0);
    let list = ("application/vnd.oci.image.index.v1+json", &given.list);
    let image = ("application/vnd.oci.image.manifest.v1+json", &given.image);
    let blob = ("application/octet-stream", &given.blob);
    let named = |kind: &str, bytes: &[u8]| format!("0/library/busybox/{kind}/{}", digest(bytes));
    let mut sent = 0;
    for (nth, (path, (kind, bytes))) in [
        ("0/library/busybox/manifests/1".to_owned(), list),
        (named("manifests", &given.list), list),
        (named("manifests", &given.image), image),
        (named("blobs", &given.blob), blob),
    ]
    .into_iter()
    .enumerate()
    {
        let lines = [
            "http/1.1 200 ok".to_owned(),
            format!("content-type: {kind}"),
            format!("content-length: {}", bytes.len()),
            format!("docker-content-digest: {}", digest(bytes)),
        ];
        let (head, body) = given.ask("HEAD", &given.path(&path));
        assert!(lines.iter().all(|line| head.contains(line)), "{head}");
        assert_eq!(body, b"");
        let (head, body) = given.ask("GET", &given.path(&path));
        assert!(lines.iter().all(|line| head.contains(line)), "{head}");
        assert!(body == *bytes, "{} bytes of {path}", body.len());
        sent += bytes.len() as u64;
        assert_eq!(given.served.requests(), 2 * (nth as u64 + 1));
        assert_eq!(given.served.bytes(), sent);
    }
    assert_eq!(given.served.missed(), [""; 0]);
}

#[test]
fn nothing_else_is_answered() {
    let given = Given::new();
    let secret = given.served.secret().to_owned();
    let other: String = secret.chars().rev().collect();
    let blob = digest(&given.blob);
    for path in [
        "/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/library/busybox/manifests/1".to_owned(),
        format!("/v2/{other}/0/library/busybox/manifests/1"),
        format!("/v2/{secret}0/library/busybox/manifests/1"),
        format!("/v2//{secret}/0/library/busybox/manifests/1"),
        given.path(""),
        given.path("1/library/busybox/manifests/1"),
        given.path("99999999999999999999999999/library/busybox/manifests/1"),
        given.path("0/library/busybox/tags/list"),
        given.path(&format!("0/library/busybox/manifests/{blob}")),
        given.path(&format!("0/other/blobs/{blob}")),
        given.path("0/library/busybox/blobs/../../../names"),
        given.path("0/library/busybox/blobs/sha256:../../names"),
    ] {
        let (head, body) = given.ask("GET", &path);
        assert!(head.starts_with("http/1.1 404 not found"), "{path}: {head}");
        assert!(body.len() < 100);
    }
    let (head, _) = given.ask("PUT", &given.path("0/library/busybox/manifests/1"));
    assert!(head.starts_with("http/1.1 405"), "{head}");
    let (head, _) = given.ask("GET", &given.path("0/library/busybox/manifests/2"));
    assert!(head.starts_with("http/1.1 404"), "{head}");
    let missed = given.served.missed();
    assert!(
        missed.contains(&"index.docker.io/library/busybox:2".to_owned()),
        "{missed:?}"
    );
    for n in 0..2 * MOST_MISSED {
        given.ask("GET", &given.path(&format!("0/other/manifests/{n}")));
    }
    assert_eq!(given.served.missed().len(), MOST_MISSED);
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let given = Given::new();
    // As a client begins that tries TLS first.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let long = format!("GET /v2/ HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * HEAD));
    let many = format!("GET /v2/ HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    for bytes in [
        &hello[..],
        long.as_bytes(),
        many.as_bytes(),
        b"\0\0\0\r\n\r\n",
    ] {
        let answer = given.send(bytes);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert!(given.ask("GET", "/v2/").0.starts_with("http/1.1 200"));
}

#[test]
fn connections_are_bounded_and_end_with_it() {
    let given = Given::new();
    let address = given.served.address();
    let mut open: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    assert_eq!(given.send(b"GET /v2/ HTTP/1.1\r\n\r\n"), b"");
    assert_eq!(given.served.refused(), 1);
    drop(open.split_off(CONNECTIONS / 2));
    let began = Instant::now();
    while given.send(b"GET /v2/ HTTP/1.0\r\n\r\n").is_empty() {
        assert!(began.elapsed() < PATIENCE, "the others are closed by now");
        thread::sleep(Duration::from_millis(10));
    }
    let began = Instant::now();
    drop(given);
    assert!(
        began.elapsed() < PATIENCE / 2,
        "open connections hold it up"
    );
    let mut byte = [0];
    assert!(matches!(open[0].read(&mut byte), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_place_that_admits_others_admits_not_this() {
    let given = Given::new();
    let place = Place {
        admits: Admits::Subnet {
            first: Ipv4Addr::new(10, 88, 0, 0),
            bits: 16,
        },
        ..crate::launch::bases::place::find("oci", None).unwrap()
    };
    let served = Served::start(std::slice::from_ref(&given.base), place).unwrap();
    let mut stream = TcpStream::connect(served.address()).unwrap();
    let _ = stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    assert_eq!((served.refused(), served.requests()), (1, 0));
}

use proptest::prelude::*;

use super::*;
use crate::interpret::arbitrary;

fn packed(capture: &Capture) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(capture, &mut bytes).unwrap();
    bytes
}

fn gzip(text: &str) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::fast());
    to.write_all(text.as_bytes()).unwrap();
    to.finish().unwrap()
}

fn text(capture: &Capture) -> String {
    let mut text = String::new();
    GzDecoder::new(&packed(capture)[..])
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn sample() -> Capture {
    let tally = Tally {
        cap: Some(0),
        count: 3,
        failed: [(1, 2)].into(),
        ..Tally::default()
    };
    Capture {
        programs: vec![
            Program {
                id: 1,
                ..Program::default()
            },
            Program {
                id: 7,
                ..Program::default()
            },
        ],
        tallies: vec![tally],
        evidence: vec![Evidence::default()],
        unasked: vec![Unasked::default()],
        ..Capture::default()
    }
}

fn error(bytes: &[u8]) -> ReadError {
    read(bytes).unwrap_err()
}

#[test]
fn other_files_are_told_apart() {
    assert!(matches!(error(b""), ReadError::NotACapture));
    assert!(matches!(
        error(b"hello, this is no gzip file\n"),
        ReadError::NotACapture
    ));
    assert!(matches!(error(&gzip("")), ReadError::NotACapture));
    assert!(matches!(error(&gzip("hello\n")), ReadError::NotACapture));
    assert!(matches!(
        error(&gzip("{\"schema\":\"x/v1\"}\n")),
        ReadError::NotACapture
    ));
    let newer = error(&gzip("{\"schema\":\"kcap.capture/v2\",\"x\":1}\n"));
    assert!(
        matches!(&newer, ReadError::Version(v) if v == "kcap.capture/v2"),
        "{newer}"
    );
    assert!(matches!(
        error(&gzip("{\"schema\":\"kcap.capture/v1\"}\n")),
        ReadError::Malformed { .. }
    ));
}

#[test]
fn every_cut_is_noticed() {
    let whole = packed(&sample());
    assert!(read(&whole[..]).is_ok());
    for end in 0..whole.len() {
        assert!(
            read(&whole[..end]).is_err(),
            "cut at {end} of {}",
            whole.len()
        );
    }
    // Cut between lines, and packed anew: only the end marker tells.
    let text = text(&sample());
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for count in 1..lines.len() {
        let cut = error(&gzip(&lines[..count].concat()));
        assert!(matches!(cut, ReadError::Truncated), "{count} lines: {cut}");
    }
    // A line is missing in the middle.
    let gap = error(&gzip(&[&lines[..2], &lines[3..]].concat().concat()));
    assert!(matches!(gap, ReadError::Inconsistent(_)), "{gap}");
    // Something follows.
    let more = error(&gzip(&(text.clone() + "{}\n")));
    assert!(matches!(more, ReadError::Malformed { .. }), "{more}");
}

#[test]
fn what_a_later_version_adds_is_ignored() {
    let capture = sample();
    let added = text(&capture)
        .replace(
            "\"tally\":{\"program\"",
            "\"tally\":{\"later\":[1],\"program\"",
        )
        .replace("{\"end\"", "{\"span\":{\"a\":1}}\n{\"end\"")
        .replacen("{\"schema\"", "{\"later\":{},\"schema\"", 1);
    assert!(added.contains("later\":[1]") && added.contains("span"));
    assert_eq!(read(&gzip(&added)[..]).unwrap(), capture);
}

#[test]
fn limits_hold() {
    let bytes = packed(&sample());
    let within = |limits| read_within(&bytes[..], limits);
    let default = Limits::DEFAULT;
    assert!(within(default).is_ok());
    for limits in [
        Limits {
            line: 100,
            ..default
        },
        Limits {
            item: 40,
            ..default
        },
        Limits {
            items: 4,
            ..default
        },
        Limits {
            bytes: 2000,
            ..default
        },
    ] {
        let error = within(limits).unwrap_err();
        assert!(
            matches!(error, ReadError::TooLarge { .. }),
            "{limits:?}: {error}"
        );
    }
    // A line that never ends is not read to memory.
    let bomb = gzip(&"x".repeat(1 << 20));
    let error = read_within(
        &bomb[..],
        Limits {
            line: 1000,
            ..default
        },
    )
    .unwrap_err();
    assert!(
        matches!(error, ReadError::TooLarge { line: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    // A thousand times its size, of lines that are each in order.
    let line = format!("{{\"later\":\"{}\"}}\n", "x".repeat(1000));
    let counts = text(&sample());
    let (header, _) = counts.split_once('\n').unwrap();
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(format!("{header}\n").as_bytes()).unwrap();
    for _ in 0..30_000 {
        packed.write_all(line.as_bytes()).unwrap();
    }
    let error = read(&packed.finish().unwrap()[..]).unwrap_err();
    let ReadError::TooLarge { line, .. } = error else {
        panic!("{error}");
    };
    assert!(line < 17_000, "after 16 MiB, not {line} KiB");
}

#[test]
fn what_grows_in_memory_is_counted_as_it_grows() {
    let mut capture = sample();
    capture.evidence[0].path = vec![Frame::default(); 10_000];
    // A frame can be written in three bytes.
    let full = text(&capture);
    let frame = serde_json::to_string(&capture.evidence[0].path[0]).unwrap();
    let packed = gzip(&full.replace(&frame, "{}"));
    let limits = Limits {
        bytes: 100_000,
        ..Limits::DEFAULT
    };
    assert_eq!(read(&packed[..]).unwrap(), capture);
    let error = read_within(&packed[..], limits).unwrap_err();
    assert!(matches!(error, ReadError::TooLarge { .. }), "{error}");
}

#[test]
fn contradictions_are_refused() {
    let mut cases = vec![sample(); 5];
    cases[0].evidence[0].tally = 1;
    cases[1].programs[1].id = 1;
    cases[2].tallies = vec![
        Tally {
            count: u64::MAX,
            ..Tally::default()
        };
        2
    ];
    cases[3].loss.skipped = [("a".to_owned(), u64::MAX), ("b".to_owned(), 1)].into();
    cases[4].tallies[0].cap = Some(64);
    for case in cases {
        let error = error(&packed(&case));
        assert!(matches!(error, ReadError::Inconsistent(_)), "{error}");
    }
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let mut capture = sample();
    capture.subject.dockerfile_text = Some("x".repeat(Limits::DEFAULT.line as usize));
    assert_eq!(
        write(&capture, Vec::new()).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[test]
fn messages_are_one_safe_line() {
    let bad = text(&sample()).replace("\"count\":3", "\"count\":\"\\u001b[2J\"");
    let message = error(&gzip(&bad)).to_string();
    assert!(
        message.starts_with("malformed capture, line 4"),
        "{message}"
    );
    assert!(!message.contains(char::is_control), "{message:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(capture in arbitrary::capture()) {
        prop_assert_eq!(read(&packed(&capture)[..]).unwrap(), capture);
    }

    #[test]
    fn damage_never_panics(
        capture in arbitrary::capture(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
        inside in any::<bool>(),
    ) {
        let mut bytes = if inside { text(&capture).into_bytes() } else { packed(&capture) };
        let at = at.index(bytes.len());
        bytes[at] = to;
        if inside {
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            gz.write_all(&bytes).unwrap();
            bytes = gz.finish().unwrap();
        }
        let _ = read(&bytes[..]);
    }
}

//! Command lines: of Kaniko's and of engines, whose secrets must not be shown; and `docker run` lines.

use std::ffi::OsString;

use kcap::combine::check::{Kind, Policy};
use kcap::fuzzing::{Arguments, executor_option, masked};
use kcap::interpret::dockerfile::parse;
use kcap::launch::bases::external;

use crate::rendered;

/// Takes the lines of a text as arguments, and the text as a run line.
pub fn arguments(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let words: Vec<&str> = text.split('\n').collect();
    for carriers in [&["--build-arg"][..], &["--env", "-e"]] {
        let found = masked(&words, carriers);
        assert_eq!(found.given, words, "passed on as given");
        hidden(&found, carriers);
    }
    let dockerfile = parse(b"ARG A\nFROM $A AS b\nCOPY --from=c . .\n").expect("it is one");
    let flags: Vec<OsString> = words.iter().map(Into::into).collect();
    external(&dockerfile, &flags);
    let owned: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    if let Some(value) = executor_option(&owned) {
        assert!(
            words.iter().any(|word| word.ends_with(&value)),
            "{value:?} was not given"
        );
    }
    // As one line, words as they are and quoted.
    for line in [
        text.to_owned(),
        format!("docker run {}", text.replace('\n', " ")),
    ] {
        match Policy::of_text("line", &line, None) {
            Ok(policy) => assert!(
                policy.kind != Kind::RunLine || policy.allowed.iter().all(|c| c.name().is_some()),
                "{policy:?}"
            ),
            Err(e) => rendered::error(&e),
        }
    }
}

/// Of `NAME=VALUE` after a carrier, no value is shown.
fn hidden(found: &Arguments, carriers: &[&str]) {
    assert_eq!(found.shown.len(), found.given.len());
    let mut follows = false;
    for (given, shown) in found.given.iter().zip(&found.shown) {
        if follows
            && let Some((name, value)) = given.split_once('=')
            && !value.is_empty()
        {
            assert_eq!(shown, &format!("{name}=***"), "of {given:?}");
        }
        follows = !follows && carriers.contains(&given.as_str());
    }
}

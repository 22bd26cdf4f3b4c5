use super::*;
use crate::capture::Capture;
use crate::interpret::interpret;
use crate::render::escape::is_unsafe;
use crate::report::{Capability, Decision, Report};

/// A report by a line: a capability's name and `N`, `?` or `.` each.
fn report(line: &str) -> Report {
    let sample = {
        let mut capture = Capture::default();
        capture.tallies.push(crate::capture::Tally {
            cap: Some(0),
            count: 1,
            ..Default::default()
        });
        interpret(&capture).capabilities.remove(0)
    };
    let mut report = interpret(&Capture::default());
    report.subject.exit_status = Some(0);
    for word in line.split_whitespace() {
        let (name, mark) = word.split_at(word.len() - 1);
        let cap: Cap = name.parse().unwrap();
        let verdict = match mark {
            "N" => Verdict::Needed,
            "?" => Verdict::Unsure,
            _ => Verdict::Unneeded,
        };
        report.capabilities.push(Capability {
            name: cap,
            number: cap.0,
            verdict,
            ..sample.clone()
        });
        if verdict != Verdict::Unneeded {
            report.required.push(cap);
            report.decisions.push(Decision {
                any_of: vec![cap],
                chosen: cap,
                steps: vec![],
                verdict,
            });
        }
    }
    report
}

fn build(name: &str, line: &str) -> Build {
    Build::traced(name.to_owned(), report(line))
}

fn text(builds: Vec<Build>, color: bool) -> String {
    let mut out = vec![];
    write(&Matrix::of(builds), Style { color }, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn some() -> Vec<Build> {
    let mut failed = report("CHOWNN SETUID? SYS_ADMIN.");
    failed.subject.exit_status = Some(1);
    failed.subject.last_step = Some(failed.steps[0].index);
    failed.steps[0].line = Some(12);
    let failed = Build::traced("services/mail/Dockerfile".into(), failed);
    let mut cached = report("CHOWN. AUDIT_WRITE?");
    cached.coverage.cached = 2;
    let cached = Build::traced("services/web/Dockerfile".into(), cached);
    vec![
        build(
            "services/api/Dockerfile",
            "CHOWNN SETGIDN SETUIDN SYS_ADMIN.",
        ),
        failed,
        cached,
        Build::unseen("broken/Dockerfile".into(), Status::Error, "line 3".into()),
    ]
}

#[test]
fn the_screen() {
    let expected = "\
4 Dockerfiles   2 built, 1 failed, 1 could not be started

                          CHOWN
                          | SETGID
                          | | SETUID
                          | | | AUDIT_WRITE
DOCKERFILE                | | | |  BUILD
services/api/Dockerfile   N N N    ok
services/mail/Dockerfile  N   ?    exit 1, line 12
services/web/Dockerfile   .     ?  ok, 2 cached
broken/Dockerfile                  error
UNION                     N N N ?

KEY     N needed   ? unsure: one run cannot settle it   . asked for, not needed
NEED    at least CHOWN SETGID SETUID + AUDIT_WRITE (unsure)

CAP                  FORCED BY     WHERE
CHOWN                2 of 3        services/api/Dockerfile and 1 more
SETGID               1 of 3        services/api/Dockerfile
SETUID               2 of 3        services/api/Dockerfile and 1 more
AUDIT_WRITE ?        1 of 3        services/web/Dockerfile

GAIN    without services/api/Dockerfile: no SETGID
GAIN    without services/web/Dockerfile: no AUDIT_WRITE
GAIN    without services/api/Dockerfile, services/mail/Dockerfile: no CHOWN
        SETGID SETUID
NOT     SYS_ADMIN
NOTE    2 of 4 did not build: what they need beyond what was seen is not here
NOTE    1 with instructions answered from a cache: what those need was not seen
APPLY   capabilities: {drop: [ALL], add: [CHOWN, SETGID, SETUID, AUDIT_WRITE]}
";
    assert_eq!(text(some(), false), expected);
}

#[test]
fn colours_change_nothing_else() {
    let mut stripped = text(some(), true).replace("\u{1b}[0m", "");
    assert!(stripped.contains("\u{1b}[33m?"), "{stripped}");
    assert!(
        stripped.contains("\u{1b}[1;31mexit 1, line 12"),
        "{stripped}"
    );
    for code in ["1", "1;31", "32", "33"] {
        stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(stripped, text(some(), false));
}

#[test]
fn loss_leaves_nothing_to_apply() {
    let mut lossy = report("CHOWNN KILL.");
    lossy.complete = false;
    let lossy = Build::traced("a".into(), lossy);
    let text = text(vec![build("b", "CHOWN."), lossy], false);
    assert!(text.contains("a           N  ok, loss\n"), "{text}");
    assert!(text.contains("\nNEED    at least CHOWN\n"), "{text}");
    assert!(text.contains("\nASKED   KILL\n"), "{text}");
    assert!(text.contains("\nNOTE    1 with loss: "), "{text}");
    assert!(!text.contains("APPLY"), "{text}");
    assert!(!text.contains("\nNOT "), "{text}");
}

#[test]
fn builds_that_need_nothing() {
    let text = text(vec![build("a", ""), build("b", "SYS_ADMIN.")], false);
    assert!(text.contains("\nNEED    nothing\n"), "{text}");
    assert!(text.contains("add: []}\n"), "{text}");
    assert!(!text.contains("KEY"), "{text}");
}

#[test]
fn builds_of_which_nothing_was_seen_say_nothing_about_needs() {
    let unseen = |name: &str| Build::unseen(name.into(), Status::NotStarted, "interrupted".into());
    let text = text(vec![unseen("a"), unseen("b")], false);
    assert!(text.contains("a            not started\n"), "{text}");
    assert!(text.contains("NEED    nothing was seen"), "{text}");
    assert!(!text.contains("APPLY"), "{text}");
}

#[test]
fn a_build_that_alone_would_take_another_is_named() {
    let both = [Cap::DAC_OVERRIDE, Cap::DAC_READ_SEARCH];
    let mut read = report("DAC_OVERRIDEN");
    read.decisions[0].any_of = both.to_vec();
    let read = Build::traced("read".into(), read);
    let text = text(vec![read, build("handle", "DAC_READ_SEARCHN")], false);
    assert!(
        text.contains("NOTE    read alone would take DAC_OVERRIDE, for which the set has another"),
        "{text}"
    );
    assert!(text.contains("\nread        N  ok\n"), "{text}");
}

#[test]
fn forty_dockerfiles_and_every_capability_fit() {
    let default: String = Cap::of_mask(Cap::DOCKER_DEFAULT)
        .map(|cap| format!("{cap}N "))
        .collect();
    let every: String = (0..64).map(|n| format!("{}? ", Cap(n))).collect();
    let hostile = "\u{1b}]0;x\u{7}\u{202e}世界/\n".repeat(50);
    for needs in [&default, &every] {
        let mut builds: Vec<Build> = (0..40)
            .map(|n| {
                let name = format!("some/rather/long/path/to/the/service-number-{n}/Dockerfile");
                build(&name, needs)
            })
            .collect();
        builds.push(build(&hostile, needs));
        builds[3].runs[0].coverage.cached = u64::MAX;
        let text = text(builds, false);
        for line in text.lines() {
            assert!(width(line) <= COLUMNS, "{line:?}");
            assert!(!line.chars().any(is_unsafe), "{line:?}");
        }
        for n in 0..40 {
            assert!(
                text.contains(&format!("service-number-{n}/Dockerfile  "))
                    || text.contains(&format!("-{n}/Dockerfile  ")),
                "{text}"
            );
        }
        for cap in needs.split_whitespace() {
            let name = &cap[..cap.len() - 1];
            assert!(
                text.lines().any(|l| l.ends_with(&format!(" {name}"))),
                "{name} in {text}"
            );
        }
    }
}

//! Notes on what the traced host and the container's user namespace keep from being asked, or
//! answer for the container: what another host would ask.

use std::collections::BTreeSet;

use kcap_common::abi::key::unasked::{PING, PORT};

use super::facts::{Session, parts};
use super::rules;
use crate::capture::Tally;
use crate::report::{Cap, Suppressed, Verdict};

/// A kernel setting under which something asks for nothing that elsewhere asks for a capability.
struct Lenient {
    setting: &'static str,
    lenient: fn(&str) -> bool,
    /// What can be done, with the value in place of `{}`.
    what: &'static str,
    /// What it needs elsewhere.
    cap: Cap,
}

/// Ports from here on need nothing anywhere.
const PORTS: u32 = 1024;

static LENIENT: &[Lenient] = &[
    Lenient {
        setting: "net.ipv4.ip_unprivileged_port_start",
        lenient: |value| value.parse::<u32>().is_ok_and(|start| start < PORTS),
        what: "binding ports from {}",
        cap: Cap::NET_BIND_SERVICE,
    },
    Lenient {
        setting: "net.ipv4.ping_group_range",
        lenient: |value| {
            let mut ends = value.split_ascii_whitespace().map(str::parse::<u32>);
            matches!((ends.next(), ends.next()), (Some(Ok(first)), Some(Ok(last))) if first <= last)
        },
        what: "ping by groups {}",
        cap: Cap::NET_RAW,
    },
    Lenient {
        setting: "fs.protected_hardlinks",
        lenient: |value| value == "0",
        what: "hard links to others' files",
        cap: Cap::FOWNER,
    },
    Lenient {
        setting: "kernel.dmesg_restrict",
        lenient: |value| value == "0",
        what: "reading the kernel's log",
        cap: Cap::SYSLOG,
    },
];

/// What is seen where a setting lets the build do it.
struct Seen {
    /// `Tally::unasked`.
    unasked: u8,
    setting: &'static str,
    did: &'static str,
}

static SEEN: [Seen; 2] = [
    Seen {
        unasked: PORT,
        setting: "net.ipv4.ip_unprivileged_port_start",
        did: "binds a port below 1024",
    },
    Seen {
        unasked: PING,
        setting: "net.ipv4.ping_group_range",
        did: "opens a ping socket",
    },
];

/// What docker sets in the network namespace of every container that is not the host's.
const DOCKER: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0-2147483647"),
];

/// The notes.
pub fn notes(session: &Session<'_>) -> Vec<String> {
    settings(session)
        .into_iter()
        .chain(user_namespace(session))
        .collect()
}

/// What the settings hide: low ports and ping sockets with the step in which the build opened one,
/// where the capture can tell; whatever else they would hide without a step.
pub fn suppressed(session: &Session<'_>) -> Vec<Suppressed> {
    let (found, told) = (found(session), tells(session));
    let mut all = Vec::new();
    for row in LENIENT {
        let value = value(session, row);
        let seen = SEEN.iter().find(|seen| seen.setting == row.setting);
        let steps = found.iter().filter(|(setting, _)| *setting == row.setting);
        all.extend(seen.into_iter().flat_map(|seen| {
            steps.clone().map(|(_, step)| Suppressed {
                name: row.cap,
                setting: row.setting.to_owned(),
                // A network namespace of its own may have another value.
                value: if is_lenient(session, row) {
                    value.clone()
                } else {
                    String::new()
                },
                step: Some(*step),
                reason: format!(
                    "the build {}: it asked for nothing where it ran, and needs {} under stricter \
                     settings",
                    seen.did, row.cap
                ),
            })
        }));
        // What would have been seen did not happen.
        if is_lenient(session, row) && !(seen.is_some() && told) {
            all.push(Suppressed {
                name: row.cap,
                setting: row.setting.to_owned(),
                step: None,
                reason: format!(
                    "{} asks for nothing under this setting, and for {} under stricter ones: \
                     whether the build does it is not seen",
                    row.what.replace("{}", &value),
                    row.cap
                ),
                value,
            });
        }
    }
    all
}

/// What the build did that a setting let it do, by setting and step.
fn found(session: &Session<'_>) -> BTreeSet<(&'static str, u32)> {
    let did = |tally: &&Tally| {
        tally.unasked != 0 && tally.count > 0 && session.scope.inside(tally.program)
    };
    (session.capture.tallies.iter().filter(did))
        .filter_map(|tally| {
            let seen = SEEN.iter().find(|seen| seen.unasked == tally.unasked)?;
            Some((seen.setting, session.step(tally.program)))
        })
        .collect()
}

/// The capture would have such things, had the build done them.
fn tells(session: &Session<'_>) -> bool {
    let sees = &session.capture.host.sees;
    sees.iter().any(|what| what == "suppressed")
}

/// The value of a setting where the build ran, on one line; empty where it is not known.
fn value(session: &Session<'_>, row: &Lenient) -> String {
    let docker = session.capture.subject.engine.as_deref() == Some("docker");
    let ours = (DOCKER.iter()).find(|(name, _)| docker && *name == row.setting);
    let value = match ours {
        Some((_, value)) => value,
        None => session
            .capture
            .host
            .sysctl
            .get(row.setting)
            .map_or("", String::as_str),
    };
    // Some values are separated by a tab.
    value.split_ascii_whitespace().collect::<Vec<_>>().join("-")
}

fn is_lenient(session: &Session<'_>, row: &Lenient) -> bool {
    (row.lenient)(&value(session, row).replace('-', " "))
}

fn settings(session: &Session<'_>) -> Option<String> {
    let docker = session.capture.subject.engine.as_deref() == Some("docker");
    let told = tells(session);
    let found = found(session);
    let mut dockers = false;
    let mut open = Vec::new();
    for row in LENIENT {
        let seen = SEEN.iter().find(|seen| seen.setting == row.setting);
        let what = match seen {
            Some(seen) if found.iter().any(|(setting, _)| *setting == row.setting) => {
                seen.did.to_owned()
            }
            Some(_) if told => continue,
            _ if !is_lenient(session, row) => continue,
            Some(_) if docker => {
                dockers = true;
                continue;
            }
            _ => row.what.replace("{}", &value(session, row)),
        };
        open.push(format!("{what} ({}: {})", row.setting, row.cap));
    }
    if dockers {
        open.push(
            "in docker's networks low ports (NET_BIND_SERVICE) and ping (NET_RAW)".to_owned(),
        );
    }
    (!open.is_empty()).then(|| {
        format!(
            "asked for nothing under this host's settings, and for a capability under others: {}",
            open.join(", ")
        )
    })
}

/// Where the container has a user namespace of its own, what the build asked the host's for.
fn user_namespace(session: &Session<'_>) -> Option<String> {
    let base = session.scope.base_level();
    if base == 0 {
        return None;
    }
    let mut asked = BTreeSet::new();
    for (index, tally) in session.capture.tallies.iter().enumerate() {
        let Some(cap) = tally.cap.map(Cap).filter(|_| tally.unasked == 0) else {
            continue;
        };
        if u32::from(tally.target_level) >= base || !session.scope.inside(tally.program) {
            continue;
        }
        let matters = parts(tally, session.outcomes_seen).into_iter().any(|part| {
            rules::decide(&session.facts(index, tally, cap, part)).verdict != Verdict::Unneeded
        });
        if matters {
            asked.insert(cap);
        }
    }
    let mut note = "the container had a user namespace of its own, where its capabilities count: \
                    in the host's, the kernel may ask for more"
        .to_owned();
    if !asked.is_empty() {
        let asked: Vec<String> = asked.iter().map(Cap::to_string).collect();
        note += &format!(
            "; it asked the host's namespace for {}, which no such container can have",
            asked.join(", ")
        );
    }
    Some(note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Capture, Exec, Origin, Program};

    fn capture(sysctl: &[(&str, &str)], ns_level: u32) -> Capture {
        let mut capture = Capture {
            programs: vec![Program {
                id: 1,
                origin: Origin::Exec,
                exec: Some(Exec {
                    ns_level,
                    ..Exec::default()
                }),
                ..Program::default()
            }],
            ..Capture::default()
        };
        capture.host.arch = "x86_64".to_owned();
        for (name, value) in sysctl {
            (capture.host.sysctl).insert((*name).to_owned(), (*value).to_owned());
        }
        capture
    }

    fn notes_of(capture: &Capture) -> Vec<String> {
        notes(&Session::of(capture))
    }

    #[test]
    fn strict_settings_are_no_news() {
        let strict = [
            ("net.ipv4.ip_unprivileged_port_start", "1024"),
            ("net.ipv4.ping_group_range", "1\t0"),
            ("fs.protected_hardlinks", "1"),
            ("kernel.dmesg_restrict", "1"),
        ];
        assert_eq!(notes_of(&capture(&strict, 0)), [""; 0]);
        assert_eq!(
            notes_of(&capture(&[], 0)),
            [""; 0],
            "not known is not lenient"
        );
    }

    #[test]
    fn lenient_settings_name_what_others_ask_for() {
        let lenient = [
            ("net.ipv4.ip_unprivileged_port_start", "80"),
            ("net.ipv4.ping_group_range", "0\t2147483647"),
        ];
        let mut capture = capture(&lenient, 0);
        let note = "asked for nothing under this host's settings, and for a capability under \
                    others: binding ports from 80 (net.ipv4.ip_unprivileged_port_start: \
                    NET_BIND_SERVICE), ping by groups 0-2147483647 (net.ipv4.ping_group_range: \
                    NET_RAW)";
        assert_eq!(notes_of(&capture), [note]);
        capture.subject.engine = Some("docker".to_owned());
        let notes = notes_of(&capture);
        assert!(
            notes[0]
                .ends_with("in docker's networks low ports (NET_BIND_SERVICE) and ping (NET_RAW)")
        );
        assert!(
            !notes[0].contains("from 80"),
            "the host's do not hold in a container's network"
        );
    }

    #[test]
    fn what_settings_hide_is_structured() {
        let values = [
            ("net.ipv4.ip_unprivileged_port_start", "80"),
            ("net.ipv4.ping_group_range", "1\t0"),
            ("kernel.dmesg_restrict", "0"),
        ];
        let mut capture = capture(&values, 0);
        let hidden = |capture: &Capture| {
            let list = suppressed(&Session::of(capture));
            let short = |s: &Suppressed| (s.name, s.setting.clone(), s.value.clone(), s.step);
            list.iter().map(short).collect::<Vec<_>>()
        };
        let port = "net.ipv4.ip_unprivileged_port_start".to_owned();
        let log = (
            Cap::SYSLOG,
            "kernel.dmesg_restrict".to_owned(),
            "0".to_owned(),
            None,
        );
        let low = |value: &str| (Cap::NET_BIND_SERVICE, port.clone(), value.to_owned(), None);
        assert_eq!(hidden(&capture), [low("80"), log.clone()]);
        // In docker's networks the host's values do not hold.
        capture.subject.engine = Some("docker".to_owned());
        let ping = "net.ipv4.ping_group_range".to_owned();
        let ping = (Cap::NET_RAW, ping, "0-2147483647".to_owned(), None);
        assert_eq!(hidden(&capture), [low("0"), ping, log.clone()]);
        // Of a capture that can tell, only what the build did is hidden; a namespace of its own may
        // have other settings than the host's.
        capture.host.sees = vec!["suppressed".to_owned()];
        assert_eq!(hidden(&capture), [log]);
        capture.subject.engine = None;
        capture.tallies = vec![Tally {
            program: 1,
            unasked: PING,
            count: 2,
            ..Tally::default()
        }];
        let list = suppressed(&Session::of(&capture));
        assert_eq!(
            (list.len(), list[0].name, list[0].step),
            (2, Cap::NET_RAW, Some(0))
        );
        assert!(list[0].reason.starts_with("the build opens a ping socket"));
        assert!(
            notes_of(&capture)[0].contains(
                "opens a ping socket (net.ipv4.ping_group_range: NET_RAW), reading the kernel's log"
            ),
            "{:?}",
            notes_of(&capture)
        );
        let report = crate::interpret::interpret(&capture);
        assert_eq!(report.required, [], "here it needs nothing");
        assert_eq!(
            report.notes.iter().filter(|n| n.contains("newer")).count(),
            0
        );
    }

    #[test]
    fn what_a_user_namespace_cannot_have_is_named() {
        let mut capture = capture(&[], 1);
        let refused = |cap: Cap, target_level| {
            let mut tally = Tally {
                program: 1,
                cap: Some(cap.0),
                result: 1,
                syscall: Some(133),
                abi: 1,
                count: 1,
                target_level,
                creds_level: 1,
                ..Tally::default()
            };
            tally.failed.insert(1, 1);
            tally
        };
        capture.tallies = vec![refused(Cap::MKNOD, 0), refused(Cap::CHOWN, 1)];
        let notes = notes_of(&capture);
        assert!(
            notes[0].ends_with(
                "; it asked the host's namespace for MKNOD, which no such container can have"
            ),
            "{notes:?}"
        );
    }
}

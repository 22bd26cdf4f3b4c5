//! Notes on what the traced host and the container's user namespace keep from being asked, or
//! answer for the container: what another host would ask.

use std::collections::BTreeSet;

use super::facts::{Session, parts};
use super::rules;
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

/// What the settings hide. Whether the build did any of it is not seen: nothing was asked.
pub fn suppressed(session: &Session<'_>) -> Vec<Suppressed> {
    lenient(session)
        .map(|(row, value)| Suppressed {
            name: row.cap,
            setting: row.setting.to_owned(),
            step: None,
            reason: format!(
                "{} asks for nothing under this setting, and for {} under stricter ones: whether \
                 the build does it is not seen",
                row.what.replace("{}", &value),
                row.cap
            ),
            value,
        })
        .collect()
}

/// The settings under which something is not asked, with their values where the build ran.
fn lenient<'s>(session: &'s Session<'_>) -> impl Iterator<Item = (&'static Lenient, String)> + 's {
    let docker = session.capture.subject.engine.as_deref() == Some("docker");
    LENIENT.iter().filter_map(move |row| {
        let value = match DOCKER
            .iter()
            .find(|(name, _)| docker && *name == row.setting)
        {
            Some((_, value)) => (*value).to_owned(),
            None => {
                let value = session.capture.host.sysctl.get(row.setting)?.trim();
                if !(row.lenient)(value) {
                    return None;
                }
                // Some values are separated by a tab.
                value.split_ascii_whitespace().collect::<Vec<_>>().join("-")
            }
        };
        Some((row, value))
    })
}

fn settings(session: &Session<'_>) -> Option<String> {
    let docker = session.capture.subject.engine.as_deref() == Some("docker");
    let mut open: Vec<String> = lenient(session)
        .filter(|(row, _)| !docker || DOCKER.iter().all(|(name, _)| *name != row.setting))
        .map(|(row, value)| {
            let what = row.what.replace("{}", &value);
            format!("{what} ({}: {})", row.setting, row.cap)
        })
        .collect();
    if docker {
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
    use crate::capture::{Capture, Exec, Origin, Program, Tally};

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
        assert_eq!(hidden(&capture), [low("0"), ping, log]);
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

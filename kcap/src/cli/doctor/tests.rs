use super::*;
use crate::host::cgroup::Kind;
use crate::host::facts::Kallsyms;
use crate::host::{Mode, Preemption};
use std::collections::BTreeMap;

fn healthy() -> Found {
    Found {
        facts: Facts {
            kernel: "6.18.1".into(),
            arch: "x86_64".into(),
            preemption: Preemption {
                mode: Mode::Full,
                source: "debugfs",
            },
            lsm: Some(vec!["capability".into(), "apparmor".into()]),
            lockdown: Some("none".into()),
            sysctl: BTreeMap::new(),
            pid_max: Some(4_194_304),
            cpus: None,
            effective: Some(u64::MAX),
            initial_user_ns: Some(true),
            jit: Some(true),
            kallsyms: Kallsyms::Readable,
            seccomp: "none",
            engines: vec![("docker", "/usr/bin/docker".into())],
            docker_socket: Some("/var/run/docker.sock".into()),
        },
        btf: Ok(()),
        cgroup: Ok((
            Layout {
                kind: Kind::V2,
                hierarchy: 0,
                controller: None,
                mount: "/sys/fs/cgroup".into(),
                own: "/sys/fs/cgroup/a".into(),
            },
            Ok(()),
        )),
        hooks: hooks_that(&["tp_btf", "fexit", "kprobe", "sys_exit"], &[]),
    }
}

fn hooks_that(load: &[&str], refused: &[&str]) -> Vec<HookProbe> {
    let load = load.iter().map(|name| HookProbe {
        name: (*name).into(),
        result: Ok(()),
    });
    let refused = refused.iter().map(|name| HookProbe {
        name: (*name).into(),
        result: Err("not permitted".into()),
    });
    load.chain(refused).collect()
}

/// The only line that is not ok, after a change to a healthy host.
fn ill(change: impl FnOnce(&mut Found)) -> (String, State) {
    let mut found = healthy();
    change(&mut found);
    let ill: Vec<Check> = diagnose(&found)
        .into_iter()
        .filter(|c| c.state != State::Ok)
        .collect();
    assert_eq!(ill.len(), 1, "{ill:?}");
    (ill[0].name.clone(), ill[0].state)
}

#[test]
fn a_healthy_host_has_nothing_to_do() {
    let checks = diagnose(&healthy());
    assert!(
        checks
            .iter()
            .all(|c| c.state == State::Ok && c.remedy.is_none()),
        "{checks:?}"
    );
}

#[test]
fn what_makes_tracing_impossible() {
    let missing = |name: &str| (name.to_owned(), State::Missing);
    assert_eq!(ill(|f| f.btf = Err("No such file".into())), missing("btf"));
    assert_eq!(ill(|f| f.facts.effective = Some(0)), missing("privileges"));
    assert_eq!(ill(|f| f.facts.effective = None), missing("privileges"));
    assert_eq!(
        ill(|f| f.facts.initial_user_ns = Some(false)),
        missing("privileges")
    );
    assert_eq!(
        ill(|f| f.cgroup = Err("no cgroups are mounted".into())),
        missing("cgroup")
    );
    assert_eq!(
        ill(|f| f.cgroup.as_mut().unwrap().1 = Err("read-only".into())),
        missing("cgroup")
    );
    assert_eq!(
        ill(|f| f.hooks = hooks_that(&["tp_btf"], &["sys_exit"])),
        missing("hook sys_exit")
    );
    let voluntary = |f: &mut Found| f.facts.preemption.mode = Mode::Voluntary;
    let none = ill(|f| {
        voluntary(f);
        f.hooks = Vec::new();
    });
    assert_eq!(none, missing("hooks"));
    let untried = ill(|f| {
        voluntary(f);
        f.hooks = hooks_that(&["sys_exit"], &[]);
    });
    assert_eq!(untried, missing("hooks"));
    let refused = ill(|f| {
        voluntary(f);
        f.hooks = hooks_that(&[], &["kprobe"]);
    });
    assert_eq!(refused, missing("hook kprobe"));
}

#[test]
fn what_makes_it_worse() {
    let degraded = |name: &str| (name.to_owned(), State::Degraded);
    let without = |number: u32| !(1u64 << number);
    assert_eq!(
        ill(|f| f.facts.effective = Some(without(34))),
        degraded("privileges")
    );
    assert_eq!(
        ill(|f| f.facts.effective = Some(without(21))),
        degraded("privileges")
    );
    assert_eq!(
        ill(|f| f.facts.kallsyms = Kallsyms::Hidden),
        degraded("kallsyms")
    );
    let unreadable = Kallsyms::Unreadable("Permission denied".into());
    assert_eq!(ill(|f| f.facts.kallsyms = unreadable), degraded("kallsyms"));
    assert_eq!(ill(|f| f.facts.jit = Some(false)), degraded("jit"));
    assert_eq!(ill(|f| f.facts.seccomp = "filter"), degraded("seccomp"));
    assert_eq!(ill(|f| f.facts.lsm = None), degraded("lsm"));
    assert_eq!(
        ill(|f| f.facts.lockdown = Some("confidentiality".into())),
        degraded("lockdown")
    );
    assert_eq!(ill(|f| f.facts.engines.clear()), degraded("engines"));
    assert_eq!(ill(|f| f.facts.docker_socket = None), degraded("engines"));
    assert_eq!(
        ill(|f| f.hooks = hooks_that(&["tp_btf"], &["fexit"])),
        degraded("hook fexit")
    );
    // Without the tracepoint it matters that the kernel preempts itself.
    let skipping = ill(|f| f.hooks = hooks_that(&["fexit"], &[]));
    assert_eq!(skipping, degraded("preemption"));
}

#[test]
fn every_remedy_is_one_line() {
    let mut found = healthy();
    found.facts.effective = Some(0);
    found.hooks = hooks_that(&[], &["tp_btf"]);
    for check in diagnose(&found) {
        assert_eq!(
            check.state != State::Ok,
            check.remedy.is_some(),
            "{check:?}"
        );
        assert!(!check.remedy.unwrap_or_default().contains('\n'));
    }
}

#[test]
fn the_table_fits_a_screen_and_escapes() {
    let mut found = healthy();
    found.hooks = hooks_that(&["tp_btf"], &[]);
    found.hooks.push(HookProbe {
        name: "fexit".into(),
        result: Err("\u{1b}[2J ".repeat(30)),
    });
    let mut out = Vec::new();
    table(&diagnose(&found), true, Style::default(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\\u{1b}[2J"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
    assert!(text.ends_with("kcap can trace on this host\n"));
}

#[test]
fn json_is_complete_and_the_same_each_time() {
    let found = healthy();
    let print = || {
        let mut out = Vec::new();
        json(&found, &diagnose(&found), true, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = print();
    assert_eq!(text, print());
    assert!(text.ends_with("}\n") && !text.ends_with("\n\n"));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], SCHEMA);
    assert_eq!(value["possible"], true);
    assert_eq!(value["cgroup"], "v2");
    assert_eq!(value["preemption"], "full");
    assert_eq!(
        value["checks"].as_array().unwrap().len(),
        diagnose(&found).len()
    );
    assert_eq!(value["checks"][0]["state"], "ok");
}

#[test]
fn the_exit_code_says_whether_tracing_is_possible() {
    for format in [Format::Table, Format::Json] {
        let mut out = Vec::new();
        assert_eq!(
            run(
                &Args {
                    format,
                    color: Color::Never
                },
                Vec::new(),
                &mut out
            )
            .unwrap(),
            1
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("built without tracing"), "{text}");
    }
}

#[test]
fn a_closed_output_is_an_error() {
    let mut full: &mut [u8] = &mut [0; 8];
    assert!(
        run(
            &Args {
                format: Format::Table,
                color: Color::Never,
            },
            Vec::new(),
            &mut full
        )
        .is_err()
    );
}

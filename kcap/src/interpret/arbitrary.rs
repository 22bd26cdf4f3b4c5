//! Random captures for property tests: consistent as the format asks, and otherwise as odd as
//! they come, with values that rules look at made likely.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::capture::{
    Argv, Capture, Clock, Evidence, Exec, FileCaps, Frame, Host, LogLine, Loss, Origin, Program,
    Sets, Subject, Tally, Tool, Unasked,
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec!["", "/bin/chown", "/kaniko/executor", "runc", "0 0 1\n", "x\u{1b}[2J\u{202e}"])
            .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn mask() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(0xa804_25fb),
        Just(0x1ff_ffff_ffff),
        any::<u64>()
    ]
}

fn file_caps() -> impl Strategy<Value = FileCaps> {
    prop_oneof![
        Just(FileCaps::Unread),
        Just(FileCaps::None),
        (mask(), mask(), any::<bool>(), option::of(any::<u32>())).prop_map(
            |(permitted, inheritable, effective, rootid)| FileCaps::Has {
                permitted,
                inheritable,
                effective,
                rootid
            }
        ),
    ]
}

fn exec() -> impl Strategy<Value = Exec> {
    (
        any::<u32>(),
        vec(mask(), 5),
        0u64..2,
        0u32..2,
        0u64..3,
        any::<bool>(),
        file_caps(),
        text(),
    )
        .prop_map(
            |(euid, sets, user_ns, ns_level, mnt_ns, seccomp, file, dev)| Exec {
                euid,
                caps: Sets {
                    inheritable: sets[0],
                    permitted: sets[1],
                    effective: sets[2],
                    bounding: sets[3],
                    ambient: sets[4],
                },
                user_ns,
                ns_level,
                mnt_ns,
                cgroup: u64::from(euid),
                dev,
                inode: sets[0],
                seccomp,
                file,
            },
        )
}

fn program() -> impl Strategy<Value = Program> {
    let origin = select(vec![
        Origin::Enter,
        Origin::Fork,
        Origin::Exec,
        Origin::Phase,
        Origin::Phase,
        Origin::Lost,
    ]);
    (
        (
            origin,
            option::of(0u32..8),
            any::<u32>(),
            any::<u64>(),
            option::of(any::<u64>()),
        ),
        (
            option::of(select(vec![0u32, 9, 256])),
            option::of(0u32..8),
            text(),
            text(),
        ),
        (
            any::<bool>(),
            option::of(exec()),
            option::of(vec(text(), 0..3)),
            option::of(text()),
        ),
    )
        .prop_map(
            |(
                (origin, parent, pid, start_ns, end_ns),
                names,
                (executor, exec, argv, interpreter),
            )| {
                let (wait_status, reaper, path, comm) = names;
                Program {
                    id: 0,
                    origin,
                    parent,
                    pid,
                    start_ns,
                    end_ns,
                    wait_status,
                    reaper,
                    path,
                    path_cut: executor,
                    interpreter,
                    comm,
                    executor,
                    exec,
                    argv: argv.map(|args| Argv { args, cut: false }),
                }
            },
        )
}

fn tally() -> impl Strategy<Value = Tally> {
    let cap = prop_oneof![
        6 => select(vec![0u8, 1, 2, 4, 5, 6, 7, 8, 21, 29, 34, 38, 39, 40]).prop_map(Some),
        1 => (0u8..64).prop_map(Some),
        1 => Just(None),
    ];
    let syscall = prop_oneof![
        4 => select(vec![2u16, 9, 16, 21, 44, 56, 62, 90, 92, 105, 117, 126, 165, 257, 265, 304, 321, 435])
            .prop_map(Some),
        1 => any::<u16>().prop_map(Some),
        1 => Just(None),
    ];
    let class = prop_oneof![
        2 => Just(0u32),
        2 => 0u32..64,
        1 => select(vec![0o600u32, 0o2755, 0x1000, 1 << 31, 0x900]),
        1 => any::<u32>(),
    ];
    let code = select(vec![1u8, 2, 11, 13, 38, 61, 254, 255]);
    let unasked = prop_oneof![4 => Just(0u8), 1 => 1u8..9];
    (
        (
            0u32..24,
            0u32..3,
            cap,
            select(vec![0u8, 0, 1, 38]),
            syscall,
            0u8..4,
            class,
        ),
        (any::<u8>(), 0u8..4, 0u8..3, 0u8..3, 0u8..5, unasked),
        (0u64..1000, btree_map(code, 0u64..600, 0..3)),
    )
        .prop_map(
            |(
                (program, slice, cap, result, syscall, abi, class),
                (flags, creds, target_level, creds_level, site, unasked),
                (count, failed),
            )| Tally {
                program,
                slice,
                cap,
                result,
                syscall,
                abi,
                class,
                flags,
                creds,
                target_level,
                creds_level,
                site,
                unasked,
                count,
                failed,
            },
        )
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let symbol = select(vec![
        "cap_vm_enough_memory",
        "setattr_prepare.isra.0",
        "cap_capset",
        "other",
    ]);
    let frame =
        (any::<u64>(), option::of(symbol), any::<u64>()).prop_map(|(address, symbol, offset)| {
            Frame {
                address,
                symbol: symbol.map(str::to_owned),
                offset,
            }
        });
    (
        any::<u32>(),
        any::<u64>(),
        any::<u32>(),
        text(),
        any::<[u64; 6]>(),
        any::<u64>(),
        vec(frame, 0..4),
    )
        .prop_map(
            |(tally, time_ns, tid, comm, args, target_ns, path)| Evidence {
                tally,
                time_ns,
                tid,
                comm,
                args,
                target_ns,
                path,
            },
        )
}

fn unasked() -> impl Strategy<Value = Unasked> {
    (
        any::<u32>(),
        any::<u64>(),
        any::<u32>(),
        any::<[u64; 6]>(),
        mask(),
        mask(),
        text(),
        option::of(file_caps()),
    )
        .prop_map(
            |(tally, time_ns, pid, args, lacking, bounding, detail, file)| Unasked {
                tally,
                time_ns,
                pid,
                args,
                lacking,
                bounding,
                detail,
                file,
            },
        )
}

fn loss() -> impl Strategy<Value = Loss> {
    let lost = (
        vec(0u64..3, 6),
        btree_map(text(), 0u64..3, 0..3),
        option::of(text()),
    )
        .prop_map(|(n, skipped, unproven)| Loss {
            checks: n[0],
            outcomes: n[1],
            evidence: n[2],
            execs: n[3],
            skipped,
            file_caps: n[4],
            unasked: n[5],
            unproven,
        });
    prop_oneof![Just(Loss::default()), lost]
}

fn host() -> impl Strategy<Value = Host> {
    let blind = select(vec![vec![], vec!["options"], vec!["outcome", "options"]]);
    let sysctl = select(vec!["vm.overcommit_memory", "net.ipv4.ping_group_range"]);
    let value = select(vec!["0", "1", "2", "1\t0"]).prop_map(str::to_owned);
    (
        blind,
        btree_map(sysctl.prop_map(str::to_owned), value, 0..3),
        text(),
    )
        .prop_map(|(blind, sysctl, kernel)| Host {
            kernel,
            arch: "x86_64".to_owned(),
            hook: "tp_btf".to_owned(),
            blind: blind.into_iter().map(str::to_owned).collect(),
            sysctl,
            ..Host::default()
        })
}

/// Instructions of a Dockerfile, some of which say what a log says.
const INSTRUCTIONS: [&str; 12] = [
    "FROM busybox",
    "FROM busybox AS a",
    "FROM a",
    "ARG X=1",
    "RUN true",
    "run chown 1 /x",
    "COPY --from=a /x /y",
    "ONBUILD RUN true",
    "MAINTAINER me",
    "USER 1",
    "RUN Taking snapshot of full filesystem...",
    "ENV Building stage 'a' [idx: '0', base-idx: '-1']",
];

fn dockerfile() -> impl Strategy<Value = String> {
    let known = vec(select(INSTRUCTIONS.to_vec()), 0..12)
        .prop_map(|lines| format!("FROM busybox\n{}\n", lines.join("\n")));
    prop_oneof![6 => known, 1 => any::<String>()]
}

fn log_line() -> impl Strategy<Value = (String, bool)> {
    let phase = select(vec![
        "Retrieving image manifest busybox",
        "Building stage 'busybox' [idx: '0', base-idx: '-1']",
        "Building stage 'busybox' [idx: '1', base-idx: '0']",
        "Building stage 'x' [idx: '99', base-idx: '7']",
        "Eliminating stage 'a' [idx: '0'], all consumers are served from cache",
        "Unpacking rootfs as cmd RUN true requires it.",
        "Skipping unpacking as no commands require it.",
        "Using caching version of cmd: RUN true",
        "Found cached layer, extracting to filesystem",
        "Using files from context: [/x]",
        "Initializing snapshotter ...",
        "Taking snapshot of full filesystem...",
        "Cmd: /bin/sh",
        "Running: [/bin/sh -c true]",
        "Saving file x for later use",
        "Deleting filesystem...",
        "Creating snapshot of build context",
        "Pushing layer r/c:1 to cache now",
        "Pushing image to r/c:1",
        "Skipping push to container registry due to --no-push flag",
        "*** *** ***",
    ]);
    let text = prop_oneof![
        4 => phase,
        4 => select(INSTRUCTIONS.to_vec()),
    ];
    let format = select(vec![
        ("\u{1b}[36mINFO\u{1b}[0m[0001] ", " "),
        ("\u{1b}[33mWARN\u{1b}[0m[0001] ", " "),
        ("{\"level\":\"info\",\"msg\":\"", "\",\"time\":\"\"}"),
        ("time=\"\" level=info msg=\"", "\""),
    ]);
    let written =
        (format, text, 0usize..400, any::<bool>()).prop_map(|((start, end), text, length, cut)| {
            let whole = format!("{start}{text}{end}");
            if cut && length < whole.len() {
                (whole[..length].to_owned(), true)
            } else {
                (whole, false)
            }
        });
    prop_oneof![8 => written, 1 => any::<String>().prop_map(|text| (text, false))]
}

/// Lines that begin phases, or claim to.
fn log() -> impl Strategy<Value = Vec<LogLine>> {
    let line =
        (log_line(), 0u32..24, any::<u32>()).prop_map(|((text, cut), program, time)| LogLine {
            time_ns: u64::from(time),
            program,
            text,
            cut,
        });
    vec(line, 0..24)
}

/// An executor whose phases follow each other as they do, and a child now and then.
fn executor(programs: &mut Vec<Program>, log: &mut [LogLine]) {
    let Some(root) = programs.first_mut() else {
        return;
    };
    (root.origin, root.executor) = (Origin::Exec, true);
    let mut at = 0;
    for (line, nth) in log.iter_mut().zip(0..) {
        for origin in [Origin::Phase, Origin::Fork, Origin::Exec] {
            let id = programs.len() as u32;
            programs.push(Program {
                id,
                origin,
                parent: Some(if origin == Origin::Exec { id - 1 } else { at }),
                executor: origin != Origin::Exec,
                ..Program::default()
            });
            if origin == Origin::Phase {
                (line.program, line.time_ns, at) = (id, nth, id);
            }
            if nth % 3 > 0 {
                break;
            }
        }
    }
}

/// A capture.
pub fn capture() -> impl Strategy<Value = Capture> {
    let subject = (
        vec(text(), 0..4),
        option::of(text()),
        option::of(dockerfile()),
        option::of(prop_oneof![Just(0), any::<i32>()]),
        any::<u64>(),
        (option::of(text()), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |(command, dockerfile, dockerfile_text, exit_status, duration_ms, rest)| {
                let (executor, late, out_of_memory) = rest;
                Subject {
                    command,
                    dockerfile,
                    dockerfile_text,
                    exit_status,
                    duration_ms,
                    engine: executor.clone(),
                    executor,
                    late,
                    out_of_memory,
                    ..Subject::default()
                }
            },
        );
    (
        (vec(program(), 0..7), log(), any::<bool>()),
        vec(tally(), 0..40),
        vec(evidence(), 0..10),
        vec(unasked(), 0..10),
        (
            loss(),
            host(),
            subject,
            any::<bool>(),
            any::<u64>(),
            any::<u32>(),
        ),
    )
        .prop_map(|(programs, tallies, mut evidence, mut unasked, rest)| {
            let (mut programs, mut log, orderly) = programs;
            let (loss, host, subject, interrupted, base_ns, abi) = rest;
            for (id, program) in programs.iter_mut().enumerate() {
                program.id = id as u32;
            }
            if orderly {
                executor(&mut programs, &mut log);
            }
            log.sort_by_key(|line| (line.time_ns, line.program));
            let count = tallies.len() as u32;
            if count == 0 {
                evidence.clear();
                unasked.clear();
            }
            evidence.iter_mut().for_each(|sample| sample.tally %= count);
            unasked.iter_mut().for_each(|detail| detail.tally %= count);
            Capture {
                tool: Tool {
                    name: "kcap".to_owned(),
                    abi,
                    ..Tool::default()
                },
                host,
                subject,
                clock: Clock {
                    base_ns,
                    base_wall_ns: base_ns,
                    slice_shift: 20,
                },
                programs,
                tallies,
                evidence,
                unasked,
                log,
                loss,
                interrupted,
            }
        })
}

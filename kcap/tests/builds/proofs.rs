//! Proofs of builds whose needs are known: the known executor leaves in its image what the kernel let it
//! leave there.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use kcap::report::{Basis, Cap, Capability, Proof, ProofOutcome, Proven, Proving, Report, Verdict};

use super::{
    engine::{Engine, PATIENCE, said},
    report,
};

/// Fails without CHOWN; loses a bit without FSETID and an attribute without SETFCAP. SETGID and FOWNER
/// are used, and nothing comes of it; SYS_TIME is refused.
const DOCKERFILE: &str = "\
FROM scratch
COPY must-own:1 noise:1 /a
RUN truth keep-setgid:1 settime:2
COPY file-caps:1 setgroups:3 noatime:2 /b
";
const NEEDS: [Cap; 3] = [Cap::CHOWN, Cap::FSETID, Cap::SETFCAP];

fn run(command: &mut Command) -> Output {
    command.output().expect("kcap runs")
}

fn proving(report: &Report) -> &Proving {
    report.proof.as_ref().expect("there were replays")
}

fn capability(report: &Report, cap: Cap) -> &Capability {
    let found = report.capabilities.iter().find(|c| c.name == cap);
    found.unwrap_or_else(|| panic!("{cap} is not in the report"))
}

fn proof(report: &Report, cap: Cap) -> &Proof {
    let proof = capability(report, cap).proof.as_ref();
    proof.unwrap_or_else(|| panic!("{cap} has no proof"))
}

fn line(report: &Report, step: Option<u32>) -> Option<u32> {
    let step = report.steps.iter().find(|s| Some(s.index) == step)?;
    step.line
}

pub fn a_proved_set_is_enough_and_none_of_it_can_be_left_out(engine: &mut Engine) {
    engine.write("app/Dockerfile", DOCKERFILE);
    let before = engine.look();
    let output = run(engine
        .prove()
        .args(["-f", "app/Dockerfile", "--report", "r", "--jobs", "2"]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    before.is_all(engine);
    let proved = report(&engine.path("r"));
    assert_eq!(proved.required, NEEDS, "{}", said(&output));
    assert_eq!(
        (proved.basis, proving(&proved).state),
        (Basis::Proved, Proven::Proved)
    );
    assert!(proved.unsure.is_empty() && proving(&proved).untried.is_empty());

    let chown = proof(&proved, Cap::CHOWN);
    assert_eq!(
        (chown.outcome, line(&proved, chown.step)),
        (ProofOutcome::Failed, Some(2))
    );
    let fsetid = proof(&proved, Cap::FSETID);
    assert_eq!(
        (fsetid.outcome, line(&proved, fsetid.step)),
        (ProofOutcome::Changed, Some(3))
    );
    assert!(
        fsetid.detail.contains("/setgid: mode 2755"),
        "{}",
        fsetid.detail
    );
    let setfcap = proof(&proved, Cap::SETFCAP);
    assert_eq!(setfcap.outcome, ProofOutcome::Changed);
    assert!(
        setfcap.detail.contains("security.capability"),
        "{}",
        setfcap.detail
    );
    // Used, and needed for nothing: what was refused without it is said.
    for (cap, call) in [(Cap::SETGID, "setgroups"), (Cap::FOWNER, "openat")] {
        assert_eq!(capability(&proved, cap).verdict, Verdict::Unneeded, "{cap}");
        let proof = proof(&proved, cap);
        assert_eq!(proof.outcome, ProofOutcome::Same, "{cap}");
        let met = proof
            .tolerated
            .iter()
            .any(|what| what.contains(call) && what.contains("line 4"));
        assert!(met, "{cap}: {:?}", proof.tolerated);
    }
    let noise = proving(&proved)
        .noise
        .iter()
        .find(|noise| noise.rule == "unstable");
    assert_eq!(
        noise.map(|noise| noise.examples.clone()),
        Some(vec!["/noise".to_owned()])
    );
    // Nothing was changed in what was counted.
    let sum: u64 = proved.capabilities.iter().map(|c| c.checks).sum();
    assert_eq!(sum, proved.checks);

    // Said by a build of its own: with the set it ends well, without a member that is fatal it does not.
    let with = |set: &str| {
        run(engine.build().args([
            "-f",
            "app/Dockerfile",
            "--cap-drop",
            "all",
            "--cap-add",
            set,
        ]))
    };
    assert_eq!(with("CHOWN,FSETID,SETFCAP").status.code(), Some(0));
    assert_eq!(with("FSETID,SETFCAP").status.code(), Some(1));

    // All of it is kept: a second proof builds nothing.
    let output = run(engine
        .prove()
        .args(["-f", "app/Dockerfile", "--report", "again"]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let again = report(&engine.path("again"));
    assert_eq!(again.required, NEEDS);
    let made = proving(&proved).builds;
    assert_eq!((proving(&again).builds, proving(&again).kept), (0, made));
    // With another starting set it is another build; without CHOWN there is none to prove.
    let output = run(engine.prove().args([
        "-f",
        "app/Dockerfile",
        "--report",
        "less",
        "--cap-drop",
        "CHOWN",
    ]));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let less = report(&engine.path("less"));
    assert_eq!(proving(&less).state, Proven::Failed);
    assert_eq!((less.basis, proving(&less).kept), (Basis::Observed, 0));
    before.is_all(engine);
}

pub fn an_interrupted_proof_goes_on(engine: &mut Engine) {
    engine.write(
        "app/Dockerfile",
        "FROM scratch\nCOPY must-own:1 sleep:700 /a\n",
    );
    let before = engine.look();
    let prove = |engine: &Engine, to: &str| {
        let mut command = engine.prove();
        command.args(["-f", "app/Dockerfile", "--report", to]);
        command
    };
    let mut first = prove(engine, "r");
    let child = first
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kcap runs");
    let kept = || files(&engine.path("../cache/kcap/proofs"), ".zst");
    let deadline = Instant::now() + PATIENCE;
    // The image of the first build, and what came of it.
    while kept() < 2 {
        assert!(Instant::now() < deadline, "nothing was kept");
        thread::sleep(Duration::from_millis(20));
    }
    // SAFETY: numbers only; the child is not reaped yet, so the id is its own.
    unsafe {
        libc::kill(child.id() as i32, libc::SIGTERM);
    }
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let first = report(&engine.path("r"));
    assert_ne!(proving(&first).state, Proven::Proved);
    assert!(
        proving(&first)
            .reason
            .as_ref()
            .is_some_and(|why| why.contains("interrupted"))
    );
    before.is_all(engine);

    let output = run(&mut prove(engine, "r"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let second = report(&engine.path("r"));
    assert_eq!(second.required, [Cap::CHOWN]);
    assert!(proving(&second).kept >= 1, "{}", said(&output));
    before.is_all(engine);
}

/// How many files below a folder end so.
fn files(folder: &Path, end: &str) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), end),
            _ => usize::from(entry.file_name().to_string_lossy().ends_with(end)),
        })
        .sum()
}

pub fn what_differs_at_random_is_no_requirement(engine: &mut Engine) {
    engine.write("app/Dockerfile", "FROM scratch\nCOPY chaos:1 /a\n");
    let output = run(engine
        .prove()
        .args(["-f", "app/Dockerfile", "--report", "r"]));
    let proved = report(&engine.path("r"));
    // Where another owner is all that differs, and differs each time, it decides nothing.
    assert_eq!(proving(&proved).state, Proven::Proved, "{}", said(&output));
    assert_eq!(proved.required, [Cap::CHOWN], "{}", said(&output));
    assert_eq!(output.status.code(), Some(0));
}

pub fn what_fails_at_random_is_no_requirement(engine: &mut Engine) {
    engine.write("app/Dockerfile", "FROM scratch\nRUN truth luck:50\n");
    for round in ["1", "2"] {
        let output =
            run(engine
                .prove()
                .args(["-f", "app/Dockerfile", "--fresh", "--report", round]));
        let proved = report(&engine.path(round));
        match proving(&proved).state {
            Proven::Proved => {
                assert!(proved.required.is_empty(), "{}", said(&output));
                assert_eq!(output.status.code(), Some(0));
            }
            Proven::Failed | Proven::Unstable | Proven::Unfinished => {
                assert_eq!(output.status.code(), Some(1), "{}", said(&output));
                assert_eq!(proved.basis, Basis::Observed);
            }
            other => panic!("{other:?}: {}", said(&output)),
        }
    }
}

pub fn a_budget_stops_with_what_is_known(engine: &mut Engine) {
    engine.write("app/Dockerfile", DOCKERFILE);
    let prove = |budget: &str| {
        let output = run(engine.prove().args([
            "-f",
            "app/Dockerfile",
            "--fresh",
            "--report",
            "r",
            "--budget",
            budget,
        ]));
        (output.status.code(), report(&engine.path("r")))
    };
    // One build with what the trace is sure of.
    let (code, quick) = prove("1");
    assert_eq!(code, Some(0));
    assert_eq!(
        (proving(&quick).state, proving(&quick).builds),
        (Proven::Sufficient, 2)
    );
    assert_eq!(quick.basis, Basis::Observed);
    assert!(
        NEEDS.iter().all(|cap| quick.required.contains(cap)),
        "{:?}",
        quick.required
    );
    assert_eq!(proving(&quick).untried, quick.required);
    // None at all.
    let (code, none) = prove("0");
    assert_eq!((code, proving(&none).state), (Some(3), Proven::Unfinished));
    let (code, none) = prove("0s");
    assert_eq!((code, proving(&none).builds), (Some(3), 1));
}

pub fn a_build_that_waits_for_ever_is_ended(engine: &mut Engine) {
    engine.write("app/Dockerfile", "FROM scratch\nRUN truth hang:1\n");
    let before = engine.look();
    let output = run(engine
        .prove()
        .args(["-f", "app/Dockerfile", "--report", "r", "--jobs", "2"]));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    before.is_all(engine);
    let proved = report(&engine.path("r"));
    assert_eq!(proved.required, [Cap::SETGID]);
    let detail = &proof(&proved, Cap::SETGID).detail;
    assert!(
        detail.contains("did not come to an end in line 2"),
        "{detail}"
    );
}

pub fn several_are_proved_side_by_side(engine: &mut Engine) {
    engine.write("a/Dockerfile", "FROM scratch\nCOPY must-own:1 /a\n");
    engine.write("b/Dockerfile", "FROM scratch\nRUN truth file-caps:1\n");
    engine.write("c/Dockerfile", "FROM scratch\nRUN truth setgid:1\n");
    engine.write("d/Dockerfile", "FROM scratch\nRUN truth exit:4\n");
    let before = engine.look();
    let output = run(engine.prove().args(["-f", ".", "-o", "out", "--jobs", "2"]));
    // One of them fails with everything.
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    before.is_all(engine);
    let of = |name: &str| report(&engine.path(&format!("out/{name}.json")));
    for (name, needs) in [("a", &[Cap::CHOWN][..]), ("b", &[Cap::SETFCAP]), ("c", &[])] {
        let report = of(name);
        assert_eq!(
            (report.basis, &report.required[..]),
            (Basis::Proved, needs),
            "{name}"
        );
    }
    assert_eq!(proving(&of("d")).state, Proven::Failed);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("UNION") && text.contains("SETFCAP"), "{text}");
}

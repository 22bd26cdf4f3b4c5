//! Builds that do not end well.

use super::{
    engine::{Engine, Kind, said},
    report,
};

pub fn a_failing_build_has_its_report_and_others_go_on(engine: &mut Engine) {
    engine.write("a/Dockerfile", "FROM scratch\nCOPY chown:3 /a\n");
    let failing = "FROM scratch\nCOPY chown:5 /a\nRUN truth setgid:2 exit:7\nCOPY chown:9 /b\n";
    engine.write("b/Dockerfile", failing);
    engine.write("c/Dockerfile", "FROM scratch\nCOPY chown:4 /a\n");
    let before = engine.look();
    let output = engine
        .build()
        .args(["-f", ".", "-o", "out", "--jobs", "2"])
        .output()
        .expect("kcap runs");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    before.is_all(engine);
    for (name, status, chown) in [("a", 0, 3), ("b", 7, 5), ("c", 0, 4)] {
        let report = report(&engine.path(&format!("out/{name}.json")));
        assert_eq!(report.subject.exit_status, Some(status), "{name}");
        assert!(report.complete && !report.interrupted, "{name}");
        let text = format!("COPY chown:{chown} /a");
        let copy = report.steps.iter().find(|step| step.text == text);
        let copy = copy.unwrap_or_else(|| panic!("{name}: no step {text}"));
        let of_copy = (report.capabilities.iter())
            .filter(|cap| cap.name.to_string() == "CHOWN")
            .flat_map(|cap| &cap.steps)
            .filter(|of| of.step == copy.index)
            .map(|of| of.checks);
        assert_eq!(of_copy.sum::<u64>(), chown, "{name}");
    }
    let failed = report(&engine.path("out/b.json"));
    let state = |line| {
        let step = failed.steps.iter().find(|step| step.line == Some(line));
        format!("{:?}", step.expect("a step").state)
    };
    assert_eq!([2, 3, 4].map(state), ["Ran", "Ran", "Unreached"]);
}

pub fn a_container_that_runs_out_of_memory_is_said_to(engine: &mut Engine) {
    if engine.kind == Kind::Oci {
        // Its containers have no limit of their own to run into.
        return;
    }
    engine.write("Dockerfile", "FROM scratch\nCOPY chown:3 memory:256 /a\n");
    let before = engine.look();
    let output = engine
        .build()
        .args(["-f", "Dockerfile", "--engine-flag=--memory=48m"])
        .args(["--engine-flag=--memory-swap=48m", "--report", "r"])
        .output()
        .expect("kcap runs");
    before.is_all(engine);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report = report(&engine.path("r"));
    assert_ne!(report.subject.exit_status, Some(0));
    assert!(report.subject.out_of_memory, "{}", said(&output));
    assert!(said(&output).contains("memory"), "{}", said(&output));
}

//! Signals to kcap while it builds.

use std::{
    fs,
    process::{Child, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    capture,
    engine::{Engine, PATIENCE, said},
    report,
};

/// Longer than an executor takes to end, and what is made for it to be removed.
const SOON: Duration = Duration::from_secs(30);

fn interrupt(child: &Child, signal: i32) {
    // SAFETY: numbers only; the child is not reaped yet, so the id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

fn ended(child: Child, since: Instant) -> Output {
    let output = child.wait_with_output().expect("kcap can be waited for");
    let took = since.elapsed();
    assert!(took < SOON, "it took {took:?}: {}", said(&output));
    output
}

/// Three builds of which two can run at a time, with all results into `out`.
fn start(engine: &Engine, out: &str) -> Child {
    for name in ["a", "b", "c"] {
        let dockerfile = "FROM scratch\nCOPY chown:30 /a\nRUN truth setgid:5 sleep:600000\n";
        engine.write(&format!("{name}/Dockerfile"), dockerfile);
    }
    engine
        .build()
        .args(["-f", "a", "b", "c", "--jobs", "2", "-v"])
        .args(["-o", out, "--capture", &format!("{out}-captures")])
        .stdout(Stdio::piped())
        .stderr(fs::File::create(engine.path("errors")).expect("a file"))
        .spawn()
        .expect("kcap runs")
}

pub fn a_signal_at_any_moment_leaves_nothing_behind(engine: &mut Engine) {
    let before = engine.look();
    // From before anything is loaded, over the making of images and containers, to running builds.
    for (number, millis) in [0, 60, 250, 500, 900, 1500, 2500].into_iter().enumerate() {
        let child = start(engine, &format!("out-{number}"));
        thread::sleep(Duration::from_millis(millis));
        let since = Instant::now();
        interrupt(
            &child,
            if number % 2 == 0 {
                libc::SIGINT
            } else {
                libc::SIGTERM
            },
        );
        let output = ended(child, since);
        let errors = fs::read_to_string(engine.path("errors")).unwrap_or_default();
        assert!(!output.status.success(), "after {millis} ms: {errors}");
        before.is_all(engine);
        // Whatever is written is whole, and says that it is not all.
        let reports = fs::read_dir(engine.path(&format!("out-{number}")));
        for entry in reports.into_iter().flatten() {
            let path = entry.expect("it is ours").path();
            assert!(report(&path).interrupted, "{}: {errors}", path.display());
        }
    }
}

pub fn what_was_seen_until_a_signal_is_written(engine: &mut Engine) {
    let before = engine.look();
    // A second signal does not wait for the builds to end.
    for twice in [false, true] {
        let out = format!("out-{twice}");
        let child = start(engine, &out);
        let deadline = Instant::now() + PATIENCE;
        let running = || {
            let errors = fs::read_to_string(engine.path("errors")).unwrap_or_default();
            errors
                .matches("Running: [/bin/sh -c truth setgid:5")
                .count()
        };
        while running() < 2 {
            let errors = fs::read_to_string(engine.path("errors")).unwrap_or_default();
            assert!(Instant::now() < deadline, "no build runs: {errors}");
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(200));
        let since = Instant::now();
        interrupt(&child, libc::SIGINT);
        if twice {
            thread::sleep(Duration::from_millis(100));
            interrupt(&child, libc::SIGINT);
        }
        let output = ended(child, since);
        let errors = fs::read_to_string(engine.path("errors")).unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{}\n{errors}", said(&output));
        before.is_all(engine);
        for name in ["a", "b"] {
            let report = report(&engine.path(&format!("{out}/{name}.json")));
            assert!(report.interrupted, "{errors}");
            let capture = capture(&engine.path(&format!("{out}-captures/{name}.kcap")));
            assert!(capture.interrupted);
            let chown = report
                .capabilities
                .iter()
                .find(|c| c.name.to_string() == "CHOWN");
            let copy = report.steps.iter().find(|step| step.line == Some(2));
            let copy = copy.expect("a step").index;
            let of_copy = chown.and_then(|c| c.steps.iter().find(|of| of.step == copy));
            assert_eq!(of_copy.map(|of| of.checks), Some(30), "{name}: {errors}");
        }
        // Its turn never came.
        assert!(!engine.path(&format!("{out}/c.json")).exists(), "{errors}");
    }
}

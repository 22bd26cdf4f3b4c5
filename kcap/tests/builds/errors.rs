//! What is wrong is said in one line that names it, before anything is built.

use super::engine::{Engine, Kind, said};

pub fn what_is_missing_is_named(engine: &mut Engine) {
    let good = engine.write("good/Dockerfile", "FROM scratch\nCOPY chown:3 /a\n");
    let bad = engine.write("bad/Dockerfile", "FROM scratch\nNOSUCH x\n");
    let (good, bad) = (good.display().to_string(), bad.display().to_string());
    let before = engine.look();
    let refused = |args: &[&str], path: Option<&str>, expected: &[&str]| {
        let mut command = match args.contains(&"--executor") {
            true => engine.kcap(),
            false => engine.build(),
        };
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let output = command.args(args).output().expect("kcap runs");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}: {said}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        for text in expected {
            assert!(errors.contains(text), "{args:?}: no {text:?} in {said}");
        }
        assert!(!errors.contains("panicked"), "{args:?}: {said}");
    };
    refused(&["-f", "nowhere/Dockerfile"], None, &["nowhere/Dockerfile"]);
    refused(&["-f", &bad], None, &["bad/Dockerfile"]);
    refused(
        &["-f", &good, "-c", "nowhere"],
        None,
        &["context", "nowhere"],
    );
    refused(&["-f", &good, "-c", &good], None, &["context", &good]);
    refused(
        &["-f", &good, "--executor", "./no/executor"],
        None,
        &["no/executor"],
    );
    // Runtimes are found without PATH, too.
    if engine.kind != Kind::Oci {
        refused(&["-f", &good], Some("/nonexistent"), &[engine.kind.name()]);
    }
    before.is_all(engine);

    let image = "127.0.0.1:1/no/such-image:1";
    let output = engine
        .kcap()
        .args(["-f", &good, "--executor", image])
        .output()
        .expect("kcap runs");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("no/such-image"), "{}", said(&output));
    before.is_all(engine);

    if engine.kind == Kind::Docker {
        engine.stop();
        let output = engine.build().args(["-f", &good]).output();
        let output = output.expect("kcap runs");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("daemon"), "{}", said(&output));
    }
}

//! Proofs in a real cluster: where there is one, when asked for.
//!
//! `KCAP_KUBERNETES_POD` names a pod that runs Kaniko there, in YAML; `KCAP_KUBERNETES_RESULTS` a repository that
//! it can push to and this machine can read; `KCAP_KUBERNETES_BASE` an image with a shell, `chown` and `chmod`.
//! kubectl's configuration says which cluster. Says so where there is none.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use kcap::report::{self, Cap, ProofOutcome, Proven, Report};
use tempfile::TempDir;

/// What tells of the cluster; nothing where there is none.
fn cluster() -> Option<[String; 3]> {
    let value = |name: &str| env::var(format!("KCAP_KUBERNETES_{name}")).ok();
    match (value("POD"), value("RESULTS"), value("BASE")) {
        (Some(pod), Some(results), Some(base)) => Some([pod, results, base]),
        _ => {
            println!(
                "SKIPPED: no cluster: KCAP_KUBERNETES_POD, KCAP_KUBERNETES_RESULTS and KCAP_KUBERNETES_BASE name \
                 one; what a real one took and answered is held against kcap in any case"
            );
            None
        }
    }
}

fn prove(dir: &Path, [pod, results, _]: &[String; 3], more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kcap"))
        .current_dir(dir)
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .args([
            "prove",
            "--engine",
            "kubernetes",
            "--pod",
            pod,
            "--results",
            results,
        ])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("kcap can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn read(path: &Path) -> Report {
    report::from_json(&fs::read(path).expect("a report")).expect("a report")
}

/// How many Jobs and ConfigMaps of kcap's are there.
fn left() -> usize {
    let output = Command::new("kubectl")
        .args(["get", "jobs,configmaps", "-A", "-o", "name"])
        .args(["-l", "app.kubernetes.io/managed-by=kcap"])
        .output()
        .expect("kubectl can be run");
    String::from_utf8_lossy(&output.stdout).lines().count()
}

#[test]
fn a_corpus_is_proved_by_jobs_and_nothing_is_left() {
    let Some(cluster) = cluster() else { return };
    let dir = TempDir::new().expect("a folder");
    let base = &cluster[2];
    for (name, text) in [
        ("chown", "RUN echo x > /f && chown 5:6 /f\n"),
        (
            "setgid",
            "RUN echo x > /f && chown 5:6 /f && chmod 2755 /f\n",
        ),
        ("plain", "RUN echo x > /f\n"),
        ("broken", "RUN false\n"),
    ] {
        fs::create_dir(dir.path().join(name)).expect("a folder");
        fs::write(
            dir.path().join(name).join("Dockerfile"),
            format!("FROM {base}\n{text}"),
        )
        .expect("a Dockerfile");
    }
    // What a trace says: as a user has it from kcap watch.
    let seen = dir.path().join("seen");
    fs::create_dir(&seen).expect("a folder");
    let trace = |name: &str, required: &[Cap]| {
        let mut report = kcap::interpret::interpret(&kcap::capture::Capture::default());
        report.subject.dockerfile = Some(format!("{name}/Dockerfile"));
        report.required = required.to_vec();
        let text = serde_json::to_string(&report).expect("JSON");
        fs::write(seen.join(format!("{name}.json")), text).expect("a report");
    };
    trace("chown", &[Cap::CHOWN, Cap::FOWNER]);
    trace("setgid", &[Cap::CHOWN, Cap::FOWNER, Cap::FSETID]);
    trace("plain", &[]);
    trace("broken", &[]);

    let before = left();
    let (code, said) = prove(
        dir.path(),
        &cluster,
        &[
            "-f", "chown", "setgid", "plain", "broken", "--seen", "seen", "-o", "proofs", "--jobs",
            "4",
        ],
    );
    assert_eq!(code, Some(1), "{said}");
    let proof = |name: &str| {
        let report = read(&dir.path().join(format!("proofs/{name}.json")));
        let state = report.proof.as_ref().map(|proof| proof.state);
        (state, report.required.clone(), report)
    };
    let (state, required, _) = proof("chown");
    assert_eq!(
        (state, required),
        (Some(Proven::Proved), vec![Cap::CHOWN, Cap::FOWNER]),
        "{said}"
    );
    let (state, required, report) = proof("setgid");
    assert_eq!(state, Some(Proven::Proved), "{said}");
    assert_eq!(required, [Cap::CHOWN, Cap::FOWNER, Cap::FSETID]);
    let bit = report.capabilities.iter().find(|c| c.name == Cap::FSETID);
    let bit = bit.and_then(|c| c.proof.as_ref()).expect("a proof");
    assert_eq!(bit.outcome, ProofOutcome::Changed);
    assert!(bit.detail.contains("mode 2755 -> 0755"), "{}", bit.detail);
    assert_eq!(proof("plain").0, Some(Proven::Proved));
    assert!(proof("plain").1.is_empty());
    assert_eq!(proof("broken").0, Some(Proven::Failed));
    assert_eq!(left(), before, "Jobs are left");
}

//! `cargo xtask truth` on Dockerfiles whose needs are known by reasoning, with the real Kaniko.
//!
//! Needs root and an executor, so `cargo xtask test` runs it; says so where it cannot run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What `build.toml` says, if anything; the Dockerfile; the needs with what becomes of the build;
/// and groups of which one is needed.
struct Trial {
    name: &'static str,
    settings: &'static str,
    dockerfile: &'static str,
    needs: &'static [(&'static str, &'static str)],
    any_of: &'static [&'static [&'static str]],
}

const TRIALS: [Trial; 10] = [
    Trial {
        name: "nothing",
        settings: "",
        dockerfile: "FROM busybox\nRUN mkdir /a && chmod 700 /a\nCOPY file /a/\n",
        needs: &[],
        any_of: &[],
    },
    Trial {
        name: "copy-chown",
        settings: "",
        dockerfile: "FROM busybox\nCOPY --chown=1000:1000 file /file\n",
        // Kaniko reads what is another's with O_NOATIME.
        needs: &[("CHOWN", "failed"), ("FOWNER", "failed")],
        any_of: &[],
    },
    Trial {
        name: "setgid-bit",
        settings: "",
        dockerfile: "FROM busybox\nRUN touch /a && chown 0:5 /a && chmod 6755 /a\n",
        needs: &[("CHOWN", "failed"), ("FSETID", "changed")],
        any_of: &[],
    },
    Trial {
        name: "shrugged-off",
        settings: "",
        dockerfile: "FROM busybox\nRUN touch /a && { chown 0:5 /a || true; }\n",
        needs: &[("CHOWN", "changed")],
        any_of: &[],
    },
    Trial {
        name: "user",
        settings: "",
        dockerfile: "FROM busybox\nUSER www-data\nRUN id\n",
        needs: &[("SETGID", "failed"), ("SETUID", "failed")],
        any_of: &[],
    },
    Trial {
        name: "device",
        settings: "",
        dockerfile: "FROM busybox\nRUN mknod /zero c 1 5\n",
        needs: &[("MKNOD", "failed")],
        any_of: &[],
    },
    Trial {
        name: "low-port",
        settings: "",
        dockerfile: "FROM busybox\nRUN httpd -p 80 -h /srv\n",
        needs: &[("NET_BIND_SERVICE", "failed")],
        any_of: &[],
    },
    Trial {
        name: "either",
        settings: "",
        dockerfile: "FROM busybox\nRUN { mknod /z c 1 5 && rm /z; } || chroot / /bin/true\n",
        needs: &[],
        // The one that stays is the less powerful.
        any_of: &[&["MKNOD", "SYS_CHROOT"]],
    },
    Trial {
        name: "fails-anyway",
        settings: "expect = 'fail'\n",
        dockerfile: "FROM busybox\nRUN touch /a && chown 5 /a && mount -t tmpfs none /mnt\n",
        needs: &[("CHOWN", "failed")],
        any_of: &[],
    },
    Trial {
        name: "more-to-start-with",
        settings: "start = ['SYS_TTY_CONFIG', 'DAC_READ_SEARCH']\nflags = ['--build-arg=WHO=5']\n",
        // A private folder of somebody else's: read and search may be done by either.
        dockerfile: "FROM busybox\nARG WHO=0\n\
                     RUN mkdir -m 0 /a && chown $WHO /a && ls /a && rmdir /a\n",
        needs: &[("CHOWN", "failed")],
        any_of: &[&["DAC_OVERRIDE", "DAC_READ_SEARCH"]],
    },
];

/// Why this machine cannot do it.
fn lacks() -> Option<&'static str> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root");
    }
    let executor = env::var_os("KCAP_KANIKO_EXECUTOR")
        .filter(|value| !value.is_empty())
        .map_or_else(|| "/kaniko/executor".into(), PathBuf::from);
    (!executor.exists()).then_some("there is no Kaniko executor")
}

fn truth(corpus: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("truth")
        .arg("--corpus")
        .arg(corpus)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

fn texts(value: &Value) -> Vec<&str> {
    let array = value.as_array().map(Vec::as_slice).unwrap_or_default();
    array.iter().filter_map(Value::as_str).collect()
}

#[test]
fn needs_known_by_reasoning_are_found_and_hold() {
    if let Some(why) = lacks() {
        println!("SKIP: {why}");
        return;
    }
    let corpus = tempfile::tempdir().unwrap();
    for trial in &TRIALS {
        let folder = corpus.path().join(trial.name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("Dockerfile"), trial.dockerfile).unwrap();
        fs::write(folder.join("file"), "content\n").unwrap();
        if !trial.settings.is_empty() {
            fs::write(folder.join("build.toml"), trial.settings).unwrap();
        }
    }

    let (succeeded, said) = truth(corpus.path(), &[]);
    assert!(succeeded, "{said}");
    for trial in &TRIALS {
        let path = corpus.path().join(trial.name).join("truth.json");
        let found: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let needs: Vec<(&str, &str)> = found["needed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|need| {
                (
                    need["capability"].as_str().unwrap(),
                    need["outcome"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(needs, trial.needs, "{}: {found:#}", trial.name);
        let groups: Vec<Vec<&str>> = found["any_of"]
            .as_array()
            .map(|groups| groups.iter().map(texts).collect())
            .unwrap_or_default();
        assert_eq!(groups, trial.any_of, "{}: {found:#}", trial.name);
        let more = usize::from(trial.name == "more-to-start-with") * 2;
        assert_eq!(
            needs.len() + texts(&found["unneeded"]).len(),
            14 + more,
            "{}",
            trial.name
        );
    }

    // The silent loss has its witness.
    let path = corpus.path().join("setgid-bit/truth.json");
    let mut found: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let place = &found["needed"][1]["witness"]["differs"][0];
    assert_eq!(place["path"], "/a");
    assert_eq!(texts(&place["how"]), ["mode 6755 → 4755"]);

    let (holds, said) = truth(corpus.path(), &["setgid-bit", "nothing", "--check"]);
    assert!(holds, "{said}");
    found["needed"] = Value::Array(Vec::new());
    fs::write(&path, found.to_string()).unwrap();
    let (holds, said) = truth(corpus.path(), &["setgid-bit", "--check"]);
    assert!(
        !holds && said.contains("needed: CHOWN (Failed) FSETID (Changed)"),
        "{said}"
    );
}

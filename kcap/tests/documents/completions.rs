//! Completions, by the shells that they are for.

use std::{path::Path, process::Command};

use crate::corpus::skip;

/// The completions of a shell, in a file of that name.
fn shipped(folder: &Path, name: &str) -> String {
    let all = kcap::cli::generate::all().expect("pages render");
    let path = folder.join(name);
    std::fs::write(&path, &all[&Path::new("completions").join(name)]).expect("it is ours");
    path.to_string_lossy().into_owned()
}

/// What a shell's script prints; `None` where there is no such shell.
fn shell(name: &str, args: &[&str]) -> Option<String> {
    if Command::new(name).args(["-c", "true"]).output().is_err() {
        skip(&format!("no {name} here: apt-get install {name}"));
        return None;
    }
    let done = Command::new(name)
        .args(args)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .output()
        .expect("it runs");
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success() && errors.is_empty(),
        "{name}: {errors}"
    );
    Some(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Words typed, and what of them is offered.
const TYPED: [(&[&str], &[&str]); 5] = [
    (&["re"], &["report"]),
    (&["c"], &["check", "compare"]),
    (&["report", "--why"], &["--why"]),
    (&["report", "--format", "k"], &["kubernetes", "kyverno"]),
    (&["generate", "completions", "z"], &["zsh"]),
];

#[test]
fn bash_completes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = shipped(folder.path(), "kcap.bash");
    for (typed, offered) in TYPED {
        let script = format!(
            "source '{file}'; COMP_WORDS=(kcap {0}); COMP_CWORD={1}; COMP_LINE='kcap {0}'; \
             COMP_POINT=${{#COMP_LINE}}; _kcap kcap \"${{COMP_WORDS[COMP_CWORD]}}\" \
             \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            typed.join(" "),
            typed.len()
        );
        let Some(text) = shell("bash", &["--norc", "-c", &script]) else {
            return;
        };
        let found: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(found, offered, "{typed:?}");
    }
}

#[test]
fn fish_completes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = shipped(folder.path(), "kcap.fish");
    // clap_complete's fish offers no values of arguments without a name: all but the last.
    for (typed, offered) in &TYPED[..4] {
        let script = format!(
            "source '{file}'; complete --do-complete 'kcap {}'",
            typed.join(" ")
        );
        let Some(text) = shell("fish", &["--no-config", "-c", &script]) else {
            return;
        };
        let mut found: Vec<&str> = (text.lines())
            .filter_map(|line| line.split('\t').next())
            .filter(|word| typed.last().is_some_and(|start| word.starts_with(start)))
            .collect();
        found.sort_unstable();
        assert_eq!(found, *offered, "{typed:?}");
    }
}

#[test]
fn zsh_completes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    shipped(folder.path(), "_kcap");
    // A terminal of its own, since zsh completes in its line editor only.
    let script = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
wait_for() {
  local text seen
  repeat 600; do
    if zpty -r -t shell text; then seen+=$text; else sleep 0.02; fi
    [[ $seen == *$1* ]] && return 0
  done
  print -r -- "no $1 in: ${(q)seen}" >&2
  exit 1
}
zpty -w shell "PS1=; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; print 'rea''dy'"
wait_for ready
zpty -w -n shell $'kcap re\t'
wait_for report
zpty -w -n shell $'--wh\t'
wait_for --why
zpty -d shell
print done
"#;
    let path = folder.path().to_string_lossy().into_owned();
    let Some(text) = shell("zsh", &["-f", "-c", script, "zsh", &path]) else {
        return;
    };
    assert_eq!(text, "done\n");
}

//! Man pages, by the programs that show them.

use std::process::Command;

use crate::corpus::skip;

/// The pages, in a folder of their own.
fn pages() -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut paths = vec![];
    for (name, text) in kcap::cli::generate::all().expect("pages render") {
        if name.starts_with("man") {
            let path = folder.path().join(name.file_name().expect("a name"));
            std::fs::write(&path, text).expect("it is ours");
            paths.push(path);
        }
    }
    assert!(paths.len() > 8, "{paths:?}");
    (folder, paths)
}

#[test]
fn each_command_has_a_page_with_what_readers_look_for() {
    for (name, text) in kcap::cli::generate::all().expect("pages render") {
        let name = name.to_string_lossy();
        if !name.starts_with("man/") {
            continue;
        }
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] {
            assert!(
                text.contains(&format!(".SH \"{section}\""))
                    || text.contains(&format!(".SH {section}")),
                "{name}: {section}"
            );
        }
        if name.matches('-').count() < 2 {
            assert!(text.contains(".SH EXAMPLES"), "{name}");
            assert!(text.contains(".SH \"EXIT STATUS\""), "{name}");
        }
    }
}

#[test]
fn mandoc_finds_no_fault() {
    if Command::new("mandoc").arg("-V").output().is_err() {
        skip("no mandoc here: apt-get install mandoc");
        return;
    }
    let (_folder, paths) = pages();
    let done = Command::new("mandoc")
        .args(["-Tlint", "-Wwarning"])
        .args(&paths)
        .output()
        .expect("it runs");
    // A page has no date, so that it is the same on every day.
    let faults = String::from_utf8_lossy(&done.stdout).into_owned();
    let faults: Vec<&str> = faults
        .lines()
        .filter(|f| !f.contains("missing date"))
        .collect();
    assert_eq!(faults, [""; 0]);
}

#[test]
fn man_shows_the_text_of_each_page() {
    if Command::new("man").arg("--version").output().is_err() {
        skip("no man here: apt-get install man-db");
        return;
    }
    let (_folder, paths) = pages();
    for path in paths {
        let done = Command::new("man")
            .args(["--warnings", "--local-file"])
            .arg(&path)
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("it runs");
        let (out, errors) = (
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        );
        assert!(done.status.success() && errors.is_empty(), "{errors}");
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            out.contains(&format!("{name} ")) && out.contains("SYNOPSIS"),
            "{out}"
        );
        let wide: Vec<&str> = out.lines().filter(|l| l.chars().count() > 80).collect();
        assert_eq!(wide, [""; 0], "{name}");
    }
}

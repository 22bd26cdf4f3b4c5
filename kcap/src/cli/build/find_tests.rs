use std::os::unix::{ffi::OsStrExt as _, fs::symlink};

use tempfile::TempDir;

use super::*;

/// A folder with these files, each empty.
fn tree(files: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for file in files {
        let path = dir.path().join(OsStr::from_bytes(file.as_bytes()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    dir
}

/// What is found, below the folder.
fn found(dir: &TempDir, given: &[&str]) -> Vec<String> {
    let given: Vec<PathBuf> = given.iter().map(|path| dir.path().join(path)).collect();
    let found = find(&given).unwrap();
    let below = found
        .paths
        .iter()
        .map(|path| path.strip_prefix(dir.path()).unwrap());
    below
        .map(|path| path.to_str().unwrap().to_owned())
        .collect()
}

fn error(dir: &TempDir, given: &str) -> String {
    format!("{:#}", find(&[dir.path().join(given)]).unwrap_err())
}

#[test]
fn names_of_dockerfiles() {
    let is = |name: &str| is_dockerfile(Some(OsStr::new(name)));
    for name in [
        "Dockerfile",
        "Dockerfile.dev",
        "api.Dockerfile",
        "api.dockerfile",
        "Containerfile",
        "Containerfile.x",
        "a.b.Containerfile",
    ] {
        assert!(is(name), "{name}");
    }
    for name in [
        "",
        "Dockerfile~",
        "Dockerfile.",
        "Dockerfiles",
        "MyDockerfile",
        "Dockerfile-dev",
        "Dockerfile.dockerignore",
        ".dockerignore",
        "docker-compose.yml",
    ] {
        assert!(!is(name), "{name}");
    }
    assert!(!is_dockerfile(None));
}

#[test]
fn a_folder_stands_for_the_dockerfiles_below_it() {
    let dir = tree(&[
        "b/Dockerfile",
        "a/deep/er/Dockerfile.dev",
        "a/api.Dockerfile",
        "Containerfile",
        "README.md",
        ".git/Dockerfile",
        ".Dockerfile.swp",
        "b/node_modules/x/Dockerfile",
        "b/Dockerfile.dockerignore",
        "with space/\u{1b}[2J/Dockerfile",
    ]);
    let expected = [
        "Containerfile",
        "a/api.Dockerfile",
        "a/deep/er/Dockerfile.dev",
        "b/Dockerfile",
        "with space/\u{1b}[2J/Dockerfile",
    ];
    assert_eq!(found(&dir, &["."]), expected);
    assert_eq!(found(&dir, &["b", ".", "./b/../b/Dockerfile"]).len(), 5);
}

#[test]
fn links_are_followed_only_where_they_are_named() {
    let dir = tree(&["real/Dockerfile"]);
    symlink("/etc/passwd", dir.path().join("Dockerfile")).unwrap();
    symlink("..", dir.path().join("real/loop")).unwrap();
    symlink(dir.path().join("real"), dir.path().join("also")).unwrap();
    let all = find(&[dir.path().to_owned()]).unwrap();
    assert_eq!(all.paths, [dir.path().join("real/Dockerfile")]);
    assert_eq!(all.notes.len(), 1);
    assert!(all.notes[0].contains("left out: 1 "), "{:?}", all.notes);
    assert_eq!(found(&dir, &["Dockerfile"]), ["Dockerfile"]);
    // The same file by two ways is built once.
    assert_eq!(found(&dir, &["also", "real"]), ["also/Dockerfile"]);
}

#[test]
fn a_pattern_matches_files_and_folders() {
    let dir = tree(&[
        "services/api/Dockerfile",
        "services/web/Dockerfile",
        "services/web/main.go",
        "services/web/deep/Dockerfile",
        "services/.hidden/Dockerfile",
        "images/x.build",
        "images/y.build",
        "images/[z].build",
    ]);
    assert_eq!(
        found(&dir, &["services/*/Dockerfile"]),
        ["services/api/Dockerfile", "services/web/Dockerfile"]
    );
    assert_eq!(found(&dir, &["**/Dockerfile"]).len(), 3);
    assert_eq!(found(&dir, &["services/w*"]).len(), 2);
    assert_eq!(found(&dir, &["images/[xy].build"]).len(), 2);
    // A file of that name is no pattern.
    assert_eq!(found(&dir, &["images/[z].build"]), ["images/[z].build"]);
    assert!(error(&dir, "nowhere/*").contains("no file matches"));
    assert!(error(&dir, "services/*.x").contains("no file matches"));
    assert!(
        error(&dir, "services/a**b[").contains("pattern"),
        "{}",
        error(&dir, "services/a**b[")
    );
}

#[test]
fn what_is_not_there_is_said() {
    let dir = tree(&["x/README.md"]);
    assert!(error(&dir, "Dockerfile").contains("cannot read the Dockerfile "));
    assert!(error(&dir, "x").contains("no Dockerfile in the folder "));
    assert!(error(&dir, "x/README.md/Dockerfile").contains("cannot read"));
    let socket = dir.path().join("socket");
    let _kept = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(error(&dir, "socket").contains("neither a file nor a folder"));
}

#[test]
fn names_that_are_no_text_are_found_all_the_same() {
    let dir = TempDir::new().unwrap();
    let path = dir
        .path()
        .join(OsStr::from_bytes(b"\xff\xfe"))
        .join("Dockerfile");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    assert_eq!(find(&[dir.path().to_owned()]).unwrap().paths, [path]);
}

#[test]
fn the_depth_is_bounded_and_said() {
    let dir = TempDir::new().unwrap();
    let deep: PathBuf = (0..DEEPEST + 3).map(|_| "d").collect();
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    fs::write(dir.path().join(deep).join("Dockerfile"), "").unwrap();
    fs::write(dir.path().join("Dockerfile"), "").unwrap();
    let found = find(&[dir.path().to_owned()]).unwrap();
    assert_eq!(found.paths.len(), 1);
    assert!(found.notes[0].contains("too deep"), "{:?}", found.notes);
}

//! The files below `docs/`, against what kcap generates.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::corpus::root;

#[test]
fn what_is_shipped_is_what_kcap_generates() {
    let generated = kcap::cli::generate::all().expect("pages render");
    let mut shipped: BTreeMap<PathBuf, String> = BTreeMap::new();
    for folder in ["man", "completions", "schemas"] {
        let path = root().join("docs").join(folder);
        for entry in fs::read_dir(&path).into_iter().flatten() {
            let path = entry.expect("it can be read").path();
            let name = PathBuf::from(folder).join(path.file_name().expect("a name"));
            shipped.insert(name, fs::read_to_string(&path).expect("it is text"));
        }
    }
    let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&shipped),
        names(&generated),
        "docs/ is old: run `cargo xtask docs --write`"
    );
    for (name, text) in &generated {
        assert!(
            shipped[name] == *text,
            "docs/{} is old: run `cargo xtask docs --write`",
            name.display()
        );
    }
}

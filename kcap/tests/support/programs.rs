//! Where the programs are that tests run: named by a variable, as in virtual machines, else beside the
//! test.

use std::{env, path::PathBuf};

/// kcap.
pub fn kcap() -> PathBuf {
    env::var_os("KCAP_TEST_BIN").map_or_else(|| env!("CARGO_BIN_EXE_kcap").into(), PathBuf::from)
}

/// An example, by the variable that names it and by its own name.
pub fn example(variable: &str, name: &str) -> PathBuf {
    env::var_os(variable).map_or_else(
        || {
            let test = env::current_exe().expect("a test has a path");
            let profile = test
                .ancestors()
                .nth(2)
                .expect("tests are in target/PROFILE/deps");
            profile.join("examples").join(name)
        },
        PathBuf::from,
    )
}

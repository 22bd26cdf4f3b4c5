//! Which engine builds, where none was asked for: the first that is there and works.

use anyhow::{Result, bail};

use super::{Engine, client, oci::Oci};

/// An engine that may be there: its name, and what opens it or says why not.
pub type Candidate = (&'static str, fn() -> Result<Box<dyn Engine>>);

/// Engines that `auto` looks at, in this order: docker is what most people have and what the article's
/// command line uses.
pub const CANDIDATES: &[Candidate] = &[
    ("docker", client::docker),
    ("podman", client::podman),
    ("oci", || Ok(Box::new(Oci::new(None)?))),
];

/// The engine that was chosen.
pub struct Choice {
    /// It.
    pub engine: Box<dyn Engine>,
    /// Its name.
    pub name: &'static str,
    /// Why those before it were not taken: a line each.
    pub passed_over: Vec<String>,
}

/// Takes the first engine that works.
///
/// # Errors
/// Why none does.
pub fn auto(candidates: &[Candidate]) -> Result<Choice> {
    let mut passed_over = Vec::new();
    for &(name, open) in candidates {
        match open() {
            Ok(engine) => {
                return Ok(Choice {
                    engine,
                    name,
                    passed_over,
                });
            }
            Err(e) => passed_over.push(format!("{e:#}")),
        }
    }
    bail!("no engine can be used: {}", passed_over.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::{Launch, Request};

    struct Works;

    impl Engine for Works {
        fn identify(&self, _: &crate::launch::Executor) -> Result<String> {
            unreachable!("nothing is run")
        }

        fn prepare(&self, _: &Request) -> Result<Launch> {
            bail!("it makes nothing")
        }
    }

    const MISSING: Candidate = ("missing", || bail!("there is no missing: install it"));
    const WORKS: Candidate = ("works", || Ok(Box::new(Works)));

    #[test]
    fn the_first_that_works_is_taken() {
        let choice = auto(&[MISSING, WORKS, MISSING]).unwrap();
        assert_eq!(choice.name, "works");
        assert_eq!(choice.passed_over, ["there is no missing: install it"]);
        let error = auto(&[MISSING, MISSING]).err().unwrap().to_string();
        assert!(
            error.contains("no engine can be used: there is no missing"),
            "{error}"
        );
    }
}

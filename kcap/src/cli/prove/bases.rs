//! Base images for all builds of a run: fetched once, served to each.

use std::{collections::BTreeMap, ffi::OsString};

use crate::{
    cli::build::plan::Ready,
    launch::{
        Request, arguments,
        bases::{self, Served, external},
    },
};

/// What was had of them.
#[derive(Default)]
pub struct Bases {
    digests: BTreeMap<String, String>,
    served: Option<Served>,
}

impl Bases {
    /// Fetches what the Dockerfiles take from elsewhere, and serves it to containers of the engine.
    /// Where that cannot be, it is said, and each build pulls by itself.
    pub fn fetch<'a>(
        ready: impl Iterator<Item = &'a Ready>,
        request: &Request,
        engine: &str,
        note: &mut dyn FnMut(String),
    ) -> Self {
        // Names are expanded by build arguments.
        let secrets = arguments::kaniko_secrets(&request.flags);
        let note = &mut |line: String| {
            let hidden =
                |line: String, secret: &String| line.replace(secret.as_str(), arguments::HIDDEN);
            note(secrets.iter().fold(line, hidden));
        };
        let mut names: Vec<String> = vec![];
        for ready in ready {
            let external = external(ready.dockerfile(), &request.flags);
            external.notes.into_iter().for_each(&mut *note);
            names.extend(external.names);
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Self::default();
        }
        let fetched = match bases::fetch(&names, &request.flags, note) {
            Ok(fetched) => fetched,
            Err(why) => {
                note(format!("each build pulls its base images: {why:#}"));
                return Self::default();
            }
        };
        let served = fetched.serve(engine, request.network.as_deref());
        let served = served.unwrap_or_else(|why| {
            note(format!("each build pulls its base images: {why:#}"));
            None
        });
        Self {
            digests: fetched.digests().clone(),
            served,
        }
    }

    /// Flags of Kaniko that send it there.
    pub fn flags(&self) -> Vec<OsString> {
        self.served.as_ref().map(Served::flags).unwrap_or_default()
    }

    /// What must not be shown of these.
    pub fn secrets(&self) -> Vec<String> {
        let served = self.served.iter();
        served.map(|served| served.secret().to_owned()).collect()
    }

    /// Builds have them from here.
    pub fn are_served(&self) -> bool {
        self.served.is_some()
    }

    /// Digests of what a Dockerfile takes, by names without secrets, and whether all are known.
    pub fn of(&self, ready: &Ready, request: &Request) -> (BTreeMap<String, String>, bool) {
        let external = external(ready.dockerfile(), &request.flags);
        let secrets = arguments::kaniko_secrets(&request.flags);
        // Where builds pull by themselves, a name can come to mean another image at any time.
        let mut all_known =
            external.notes.is_empty() && (self.are_served() || external.names.is_empty());
        let mut digests = BTreeMap::new();
        for name in external.names {
            match self.digests.get(&name) {
                Some(digest) => {
                    let shown = secrets.iter().fold(name, |name, secret| {
                        name.replace(secret.as_str(), arguments::HIDDEN)
                    });
                    digests.insert(shown, digest.clone());
                }
                None => all_known = false,
            }
        }
        (digests, all_known)
    }
}

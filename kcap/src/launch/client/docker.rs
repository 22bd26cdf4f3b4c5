//! docker: a client, and a daemon that must be on this machine.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Dialect, Facts, pointer, same_kernel};
use crate::launch::call::{self, Call};

pub(super) const DOCKER: Dialect = Dialect {
    name: "docker",
    probe,
    create: &[],
    remove: &["rm", "--force", "--volumes"],
    // Its daemon does all work.
    helpers: &[],
    image_remedy: "`docker pull` or `docker load` it, or check the name",
};

fn probe(dialect: &Dialect) -> Result<Facts> {
    let endpoint = endpoint(dialect.name)?;
    ensure!(
        endpoint.is_empty() || endpoint.starts_with("unix://"),
        "docker's daemon is reached by {}: it may be on another machine, whose kernel cannot be traced \
         from here and which does not have these files; run kcap there, with the daemon's own socket",
        without_secrets(&endpoint)
    );
    let info = Call::new(dialect.name, ["info", "--format", "{{json .}}"]).run()?;
    let facts: Value = serde_json::from_str(&info.output).unwrap_or_default();
    // Older clients exit with 0 and say here that the daemon is down.
    let down = pointer(&facts, "/ServerErrors/0");
    if !down.is_empty() || pointer(&facts, "/KernelVersion").is_empty() {
        ensure!(
            facts.pointer("/host/kernel").is_none(),
            "docker is podman here: use the engine podman"
        );
        bail!(
            "{}",
            unusable(if down.is_empty() {
                &info.complaint
            } else {
                down
            })
        );
    }
    let system = pointer(&facts, "/OSType");
    ensure!(
        system == "linux",
        "docker runs containers of {}, and Kaniko needs Linux",
        call::bounded(system)
    );
    same_kernel(dialect.name, pointer(&facts, "/KernelVersion"))?;
    let selinux = facts["SecurityOptions"]
        .as_array()
        .is_some_and(|options| options.iter().any(|o| o == "name=selinux"));
    Ok(Facts {
        selinux,
        runtime: pointer(&facts, "/DefaultRuntime").to_owned(),
    })
}

/// Where the client looks for its daemon: `DOCKER_HOST`, or its context.
fn endpoint(program: &str) -> Result<String> {
    let format = [
        "context",
        "inspect",
        "--format",
        "{{.Endpoints.docker.Host}}",
    ];
    let context = match Call::new(program, format).run() {
        Err(e)
            if e.downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) =>
        {
            bail!(
                "there is no docker: install it (docker.io on Debian and Ubuntu), or use another engine"
            )
        }
        other => other.context("docker does not work")?,
    };
    ensure!(
        context.success || context.complaint.contains("unknown command"),
        "docker does not know its daemon: {}",
        context.complaint
    );
    Ok(context.output.trim().to_owned())
}

/// Why the daemon does not answer, and what to do.
fn unusable(complaint: &str) -> String {
    let complaint = call::bounded(complaint);
    if complaint.contains("permission denied") {
        format!("docker's daemon may not be used by this user: run kcap as root ({complaint})")
    } else {
        format!(
            "docker's daemon does not answer: start it, with `systemctl start docker` ({complaint})"
        )
    }
}

/// An endpoint as it may be shown: without a user's name and password.
fn without_secrets(endpoint: &str) -> String {
    let shown = match (endpoint.split_once("://"), endpoint.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => endpoint.to_owned(),
    };
    call::bounded(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_fits_the_complaint() {
        let denied = unusable("permission denied while trying to connect to the docker API");
        assert!(denied.contains("run kcap as root"), "{denied}");
        let down = unusable("Cannot connect to the Docker daemon at unix:///x. Is it running?");
        assert!(down.contains("systemctl start docker"), "{down}");
    }

    #[test]
    fn endpoints_are_shown_without_passwords() {
        for (given, shown) in [
            ("ssh://user:secret@host:22", "ssh://host:22"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("tcp://h\u{1b}[m", "tcp://h [m"),
        ] {
            assert_eq!(without_secrets(given), shown);
        }
    }
}

//! podman: no daemon; its containers are started by the client itself.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Dialect, Facts, pointer, same_kernel};
use crate::launch::call::{self, Call};

pub(super) const PODMAN: Dialect = Dialect {
    name: "podman",
    probe,
    // Otherwise one that is removed while it runs is asked to end, and waited for. (`rm` itself takes a
    // time only from version 4 on.)
    create: &["--stop-timeout=0"],
    remove: &["rm", "--force", "--ignore", "--volumes"],
    helpers: &["conmon", "runc", "crun"],
    image_remedy: "`podman pull` or `podman load` it, or give its whole name, registry included",
};

fn probe(dialect: &Dialect) -> Result<Facts> {
    let info = match Call::new(dialect.name, ["info", "--format", "{{json .}}"]).run() {
        Err(e)
            if e.downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) =>
        {
            bail!(
                "there is no podman: install it (podman on most distributions), or use another engine"
            )
        }
        other => other.context("podman does not work")?,
    };
    ensure!(
        info.success,
        "podman does not work: {}; `podman info` must succeed",
        info.complaint
    );
    let facts: Value = serde_json::from_str(&info.output).context("`podman info` gave no JSON")?;
    ensure!(
        facts.pointer("/host/serviceIsRemote") != Some(&Value::Bool(true)),
        "podman works through a service that may be on another machine, whose kernel cannot be traced \
         from here: unset CONTAINER_HOST, or run kcap there"
    );
    let system = pointer(&facts, "/host/os");
    ensure!(
        system == "linux",
        "podman runs containers of {}, and Kaniko needs Linux",
        call::bounded(system)
    );
    same_kernel(dialect.name, pointer(&facts, "/host/kernel"))?;
    Ok(Facts {
        runtime: pointer(&facts, "/host/ociRuntime/name").to_owned(),
        selinux: facts.pointer("/host/security/selinuxEnabled") == Some(&Value::Bool(true)),
    })
}

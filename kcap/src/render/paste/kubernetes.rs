//! A container's securityContext, and a whole pod of Kaniko's.
//!
//! `allowPrivilegeEscalation: false` sets `no_new_privs`, which keeps from programs what set-user-ID
//! bits and file capabilities would give them: it is only written where no program had anything of
//! them. A profile of seccomp is written only where the build was traced under one.

use std::io::{self, Write};

use super::{Allow, CONTEXT, Exporter, arguments, commented, image};

/// The securityContext.
pub struct Kubernetes;

/// The whole pod.
pub struct Pod;

impl Exporter for Kubernetes {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        commented(&allow.comments(), "", to)?;
        context(allow, "", to)
    }
}

impl Exporter for Pod {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        commented(&allow.comments(), "", to)?;
        writeln!(
            to,
            "apiVersion: v1\nkind: Pod\nmetadata:\n  generateName: kaniko-"
        )?;
        writeln!(
            to,
            "spec:\n  restartPolicy: Never\n  containers:\n  - name: kaniko"
        )?;
        writeln!(to, "    image: {}\n    args:", image(allow))?;
        for argument in arguments(allow) {
            writeln!(to, "    - {argument}")?;
        }
        writeln!(
            to,
            "    # in place of --no-push: --destination=REGISTRY/IMAGE:TAG"
        )?;
        context(allow, "    ", to)?;
        writeln!(
            to,
            "    volumeMounts:\n    - name: context\n      mountPath: {CONTEXT}"
        )?;
        writeln!(
            to,
            "  volumes:\n  # the build context: a claim, or filled by an init container"
        )?;
        writeln!(to, "  - name: context\n    emptyDir: {{}}")
    }
}

/// `securityContext:` and what is below it.
pub(super) fn context(allow: &Allow, indent: &str, to: &mut dyn Write) -> io::Result<()> {
    writeln!(to, "{indent}securityContext:")?;
    let (escalates, why) = allow.escalates_in_pod();
    writeln!(to, "{indent}  # {why}")?;
    writeln!(to, "{indent}  allowPrivilegeEscalation: {escalates}")?;
    writeln!(to, "{indent}  capabilities:")?;
    writeln!(to, "{indent}    drop:\n{indent}    - ALL")?;
    if allow.add.is_empty() {
        writeln!(to, "{indent}    add: []")?;
    } else {
        writeln!(to, "{indent}    add:")?;
    }
    for cap in &allow.add {
        let mark = if allow.is_unsure(*cap) {
            "  # unsure: one run cannot settle it"
        } else {
            ""
        };
        writeln!(to, "{indent}    - {cap}{mark}")?;
    }
    if allow.filtered {
        writeln!(
            to,
            "{indent}  # traced under a seccomp filter, as engines set by default"
        )?;
        writeln!(
            to,
            "{indent}  seccompProfile:\n{indent}    type: RuntimeDefault"
        )
    } else {
        writeln!(
            to,
            "{indent}  # no seccompProfile: traced without one; RuntimeDefault may refuse more"
        )
    }
}

//! OpenShift's SecurityContextConstraints: what the service account of builds may ask for. The pod
//! still has to ask, as `--format kubernetes` shows.

use std::io::{self, Write};

use super::{Allow, Exporter, commented};

/// The constraints.
pub struct Openshift;

impl Exporter for Openshift {
    fn write(&self, allow: &Allow, to: &mut dyn Write) -> io::Result<()> {
        commented(&allow.comments(), "", to)?;
        writeln!(to, "apiVersion: security.openshift.io/v1")?;
        writeln!(
            to,
            "kind: SecurityContextConstraints\nmetadata:\n  name: {}",
            allow.named("kaniko")
        )?;
        for what in ["DirVolumePlugin", "IPC", "Network", "PID", "Ports"] {
            writeln!(to, "allowHost{what}: false")?;
        }
        let (escalates, why) = allow.escalates_in_pod();
        writeln!(to, "# {why}")?;
        writeln!(to, "allowPrivilegeEscalation: {escalates}")?;
        writeln!(
            to,
            "allowPrivilegedContainer: false\nreadOnlyRootFilesystem: false"
        )?;
        if allow.add.is_empty() {
            writeln!(to, "allowedCapabilities: []")?;
        } else {
            writeln!(to, "allowedCapabilities:")?;
        }
        for cap in &allow.add {
            let mark = if allow.is_unsure(*cap) {
                "  # unsure: one run cannot settle it"
            } else {
                ""
            };
            writeln!(to, "- {cap}{mark}")?;
        }
        writeln!(
            to,
            "defaultAddCapabilities: []\nrequiredDropCapabilities:\n- ALL"
        )?;
        writeln!(to, "priority: null")?;
        writeln!(to, "# Kaniko runs as root\nrunAsUser:\n  type: RunAsAny")?;
        writeln!(
            to,
            "fsGroup:\n  type: RunAsAny\nsupplementalGroups:\n  type: RunAsAny"
        )?;
        writeln!(to, "seLinuxContext:\n  type: MustRunAs")?;
        if allow.filtered {
            writeln!(to, "seccompProfiles:\n- runtime/default")?;
        } else {
            writeln!(
                to,
                "# traced without a seccomp profile; runtime/default may refuse more\n\
                 seccompProfiles:\n- \"*\""
            )?;
        }
        writeln!(
            to,
            "users:\n- system:serviceaccount:{}:kaniko  # who builds\ngroups: []",
            allow.named("builds")
        )?;
        writeln!(to, "volumes:")?;
        let volumes = [
            "configMap",
            "downwardAPI",
            "emptyDir",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ];
        volumes
            .iter()
            .try_for_each(|volume| writeln!(to, "- {volume}"))
    }
}

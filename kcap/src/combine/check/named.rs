//! Named policies: sets that engines, standards and projects give, each with its source and the day
//! it was looked up.

use crate::report::Cap;

/// A set with a name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// As given to `--policy`.
    pub name: &'static str,
    /// What it allows, as a mask.
    pub allowed: u64,
    /// Where it is from, and of which day that is.
    pub source: &'static str,
    /// What it does not say, and somebody may think it does.
    pub note: Option<&'static str>,
}

const fn mask(caps: &[Cap]) -> u64 {
    let (mut all, mut i) = (0, 0);
    while i < caps.len() {
        all |= 1 << caps[i].0;
        i += 1;
    }
    all
}

/// Every named policy.
pub const NAMED: [Named; 7] = [
    Named {
        name: "docker-default",
        allowed: Cap::DOCKER_DEFAULT,
        source: "moby/moby daemon/pkg/oci/caps/defaults.go, 2026-08-23",
        note: None,
    },
    Named {
        name: "podman-default",
        allowed: mask(&[
            Cap::CHOWN,
            Cap::DAC_OVERRIDE,
            Cap::FOWNER,
            Cap::FSETID,
            Cap::KILL,
            Cap::SETGID,
            Cap::SETUID,
            Cap::SETPCAP,
            Cap::NET_BIND_SERVICE,
            Cap::SYS_CHROOT,
            Cap::SETFCAP,
        ]),
        source: "containers/common pkg/config/default.go, 2025-08-25",
        note: None,
    },
    Named {
        name: "cri-o-default",
        allowed: mask(&[
            Cap::CHOWN,
            Cap::DAC_OVERRIDE,
            Cap::FOWNER,
            Cap::FSETID,
            Cap::KILL,
            Cap::SETGID,
            Cap::SETUID,
            Cap::SETPCAP,
            Cap::NET_BIND_SERVICE,
        ]),
        source: "cri-o/cri-o internal/config/capabilities/capabilities_linux.go, 2026-08-21",
        note: None,
    },
    Named {
        name: "pss-baseline",
        allowed: mask(&[
            Cap::CHOWN,
            Cap::DAC_OVERRIDE,
            Cap::FOWNER,
            Cap::FSETID,
            Cap::KILL,
            Cap::SETGID,
            Cap::SETUID,
            Cap::SETPCAP,
            Cap::NET_BIND_SERVICE,
            Cap::SYS_CHROOT,
            Cap::MKNOD,
            Cap::AUDIT_WRITE,
            Cap::SETFCAP,
        ]),
        source: "kubernetes/pod-security-admission policy/check_capabilities_baseline.go, 2026-07-01",
        note: Some(
            "baseline limits what a pod adds: without drop: [ALL] a pod also has its runtime's \
             default set, and baseline asks for more than capabilities",
        ),
    },
    Named {
        name: "pss-restricted",
        allowed: mask(&[Cap::NET_BIND_SERVICE]),
        source: "kubernetes/pod-security-admission policy/check_capabilities_restricted.go, 2026-07-01",
        note: Some(
            "restricted also asks for runAsNonRoot, allowPrivilegeEscalation: false, seccomp and \
             drop: [ALL]: a pod that runs as root, as Kaniko does, fails it whatever its list",
        ),
    },
    Named {
        name: "article",
        allowed: mask(&[
            Cap::CHOWN,
            Cap::SETUID,
            Cap::SETGID,
            Cap::FOWNER,
            Cap::DAC_OVERRIDE,
        ]),
        source: "the article's docker run line for Kaniko: --cap-drop=all and these five",
        note: None,
    },
    Named {
        name: "shipwright",
        allowed: mask(&[
            Cap::CHOWN,
            Cap::DAC_OVERRIDE,
            Cap::FOWNER,
            Cap::SETGID,
            Cap::SETUID,
            Cap::SETFCAP,
            Cap::KILL,
        ]),
        source: "shipwright-io/build samples/v1beta1/buildstrategy/kaniko, 2026-08-21",
        note: Some(
            "Shipwright's strategy adds these without drop: [ALL]: its pods also have their \
             runtime's default set",
        ),
    },
];

impl Named {
    /// The policy of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        NAMED.iter().find(|named| named.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_as_large_as_its_source_has_it() {
        let sizes: Vec<_> = NAMED
            .iter()
            .map(|named| (named.name, named.allowed.count_ones()))
            .collect();
        assert_eq!(
            sizes,
            [
                ("docker-default", 14),
                ("podman-default", 11),
                ("cri-o-default", 9),
                ("pss-baseline", 13),
                ("pss-restricted", 1),
                ("article", 5),
                ("shipwright", 7)
            ]
        );
        let of = |name: &str| Named::find(name).unwrap().allowed;
        // What each is without the next.
        let without = |a: &str, b: &str| -> Vec<Cap> { Cap::of_mask(of(a) & !of(b)).collect() };
        assert_eq!(without("docker-default", "pss-baseline"), [Cap::NET_RAW]);
        assert_eq!(without("pss-baseline", "docker-default"), []);
        assert_eq!(
            without("docker-default", "podman-default"),
            [Cap::NET_RAW, Cap::MKNOD, Cap::AUDIT_WRITE]
        );
        assert_eq!(
            without("podman-default", "cri-o-default"),
            [Cap::SYS_CHROOT, Cap::SETFCAP]
        );
        assert_eq!(without("shipwright", "article"), [Cap::KILL, Cap::SETFCAP]);
        assert_eq!(without("article", "shipwright"), []);
    }
}

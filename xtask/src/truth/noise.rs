//! Files whose content says when or where something ran, and not what it did.
//!
//! Two builds of the same Dockerfile may agree on them by chance, so the rules hold even where the
//! reference builds agree. They are about content only; owners, modes and presence always count.

/// The rule that a path falls under, by name.
pub fn rule(path: &str) -> Option<&'static str> {
    let below = |folder: &str| path.starts_with(folder);
    if below("/var/log/") {
        Some("log")
    } else if below("/var/lib/apt/lists/") || below("/var/cache/apt/") {
        Some("apt-cache")
    } else if path == "/var/cache/ldconfig/aux-cache" {
        Some("ldconfig-cache")
    } else if path.ends_with(".pyc") {
        Some("python-bytecode")
    } else if below("/etc/ssh/ssh_host_") {
        Some("host-key")
    } else if below("/etc/ssl/") && path.contains("ssl-cert-snakeoil") {
        Some("self-signed-certificate")
    } else if matches!(path, "/etc/machine-id" | "/var/lib/dbus/machine-id") {
        Some("machine-id")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::rule;

    #[test]
    fn rules_are_about_paths_of_their_own() {
        assert_eq!(rule("/var/log/dpkg.log"), Some("log"));
        assert_eq!(rule("/srv/var/log/x"), None);
        assert_eq!(rule("/usr/lib/python3/x.pyc"), Some("python-bytecode"));
        assert_eq!(rule("/etc/shadow"), None);
    }
}

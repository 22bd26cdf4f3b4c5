//! Why runs differ, where somebody looked. What has no reason here is marked in the page, and fails
//! the test that holds the committed one.

/// A difference, and why it is one: run (`*` is any), Dockerfile, capability, reason.
type Reason = (&'static str, &'static str, &'static str, &'static str);

const REASONS: &[Reason] = &[
    (
        "*",
        "low-port-root",
        "NET_BIND_SERVICE",
        "the shell kills its server and does not wait for it: which of them ends first is a matter of \
         time, and where it is the shell, nobody waited for the server",
    ),
    (
        "all",
        "acl-and-xattr",
        "SYS_ADMIN",
        "line 7 sets a trusted attribute and tolerates the refusal: with everything it succeeds, and \
         line 8 then reads the attribute into the image. It is another image, which needs it",
    ),
    (
        "all",
        "setcap-exceeds",
        "SYS_ADMIN",
        "a file has more than the default set and its exec is refused, which is tolerated: with \
         everything the program runs, and the image says so",
    ),
    (
        "all",
        "setcap-exceeds",
        "NET_RAW",
        "the second capability of that file: it decides nothing while the first is missing",
    ),
    (
        "all",
        "tolerated-refusals",
        "SYS_ADMIN",
        "a mount, a host name and another process's namespaces, which the default set refuses and the \
         lines tolerate: with everything they are granted. It is another build",
    ),
    (
        "all",
        "tolerated-refusals",
        "SYS_NICE",
        "`renice -10`, refused and tolerated under the default set, is granted",
    ),
    (
        "all",
        "tolerated-refusals",
        "SYS_TIME",
        "setting the clock, refused and tolerated under the default set, is granted",
    ),
    (
        "all",
        "tolerated-refusals",
        "NET_ADMIN",
        "a network setting, refused and tolerated under the default set: with everything the check is \
         granted, and the read-only `/proc/sys` then refuses the write",
    ),
    (
        "all",
        "x-nginx-site",
        "NET_ADMIN",
        "`ss`, which a package's script runs, asks whether it may see the marks of sockets: refused and \
         tolerated under the default set, granted with everything",
    ),
    (
        "none",
        "daemon-left-other-user",
        "KILL",
        "`su` is refused, so that no process of another user is there to be killed",
    ),
    (
        "none",
        "tolerated-chown",
        "FOWNER",
        "`chown` is refused, so that no file is another's when the snapshot opens it",
    ),
    (
        "none",
        "tar-extract-owners",
        "DAC_OVERRIDE",
        "`tar` is refused its first `chown` and goes on: no folder is another's",
    ),
    (
        "none",
        "tar-extract-owners",
        "FOWNER",
        "`tar` is refused its first `chown` and goes on: no file is another's",
    ),
    (
        "none",
        "tar-extract-owners",
        "FSETID",
        "`tar` is refused its first `chown` and goes on: no file has a foreign group",
    ),
];

/// The reason for a difference.
pub fn of(run: &str, name: &str, capability: &str) -> Option<&'static str> {
    (REASONS.iter())
        .find(|(r, n, c, _)| (*r == "*" || *r == run) && (*n, *c) == (name, capability))
        .map(|(_, _, _, why)| *why)
}

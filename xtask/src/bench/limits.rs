//! How many instructions the verifier may walk for each program, measured on 6.18 and rounded up:
//! other kernels' verifiers walk others. A limit that is met after a change for the better is
//! lowered with it. `kcap_exec` opens sessions, and tells of executors, with up to 20 names of control
//! groups; `kcap_tp` and `kcap_sys_exit` hand over counts: each is a loop that the verifier walks. `kcap_tp`
//! looks up how many sessions were opened, so that each has samples of its own: 250 more.

const LIMITS: [(&str, u32); 6] = [
    ("kcap_tp", 5_750),
    ("kcap_sys_exit", 25_000),
    ("kcap_newtask", 2_500),
    ("kcap_exec", 8_000),
    ("kcap_exit", 250),
    ("kcap_attach", 2_500),
];

/// The limit of a program; `None` where it has none.
pub fn limit(program: &str) -> Option<u32> {
    LIMITS
        .iter()
        .find(|(name, _)| *name == program)
        .map(|&(_, n)| n)
}

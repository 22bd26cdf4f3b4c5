//! How many instructions the verifier may walk for each program, measured on 6.18 and rounded up:
//! other kernels' verifiers walk others. A limit that is met after a change for the better is
//! lowered with it.

const LIMITS: [(&str, u32); 6] = [
    ("kcap_tp", 0),
    ("kcap_sys_exit", 0),
    ("kcap_newtask", 0),
    ("kcap_exec", 0),
    ("kcap_exit", 0),
    ("kcap_attach", 0),
];

/// The limit of a program; `None` where it has none.
pub fn limit(program: &str) -> Option<u32> {
    LIMITS
        .iter()
        .find(|(name, _)| *name == program)
        .map(|&(_, n)| n)
}

use super::*;

#[test]
fn look() {
    for (name, d, l, status) in [
        (
            "multi",
            include_str!("../fixtures/multi.Dockerfile"),
            include_str!("../fixtures/multi-color.log"),
            0,
        ),
        (
            "fail",
            include_str!("../fixtures/fail.Dockerfile"),
            include_str!("../fixtures/fail-timestamp.log"),
            1,
        ),
        (
            "squash",
            include_str!("../fixtures/squash.Dockerfile"),
            include_str!("../fixtures/squash.log"),
            0,
        ),
        (
            "target",
            include_str!("../fixtures/multi.Dockerfile"),
            include_str!("../fixtures/target-single-snapshot.log"),
            0,
        ),
        (
            "miss",
            include_str!("../fixtures/cache.Dockerfile"),
            include_str!("../fixtures/cache-miss.log"),
            0,
        ),
        (
            "hit",
            include_str!("../fixtures/cache.Dockerfile"),
            include_str!("../fixtures/cache-hit.log"),
            0,
        ),
        (
            "some",
            include_str!("../fixtures/cache-some.Dockerfile"),
            include_str!("../fixtures/cache-some.log"),
            0,
        ),
        (
            "elim",
            include_str!("../fixtures/cache.Dockerfile"),
            include_str!("../fixtures/eliminated.log"),
            0,
        ),
    ] {
        let mut c = capture(d, &writes(l));
        c.subject.exit_status = Some(status);
        let r = interpret(&c);
        println!("=== {name} {:?} {:?}\n{}", r.coverage, r.notes, shown(&r));
    }
}

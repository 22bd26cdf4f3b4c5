//! Logs that Kaniko 1.28.3 wrote, with what each says of the steps.

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../fixtures/", $name))
    };
}

fn built(dockerfile: &str, log: &str) -> Report {
    report(dockerfile, &writes(log))
}

const MULTI: &str = "\
     start      ran       log     exact   3 the executor starts
     retrieve   ran       log     exact  16 base images are looked up, and images that COPY --from names are extracted
   2 arg        ran       unknown order   0 ARG BASE=busybox
0  3 from       ran       log     exact   1 FROM ${BASE} AS build
0  3 unpack     ran       log     exact   1 the base image is unpacked: FROM ${BASE} AS build
0  4 arg        ran       log     exact   1 ARG VERSION=1
0  5 run        ran       exec    exact 205 RUN echo $VERSION > /v && chown 1000 /v
0  5 snapshot   ran       log     exact   2 the file system is looked at before: RUN echo $VERSION > /v && chown 1000 /v
0  5 snapshot   ran       log     exact   1 the file system is compared after: RUN echo $VERSION > /v && chown 1000 /v
0  7 copy       ran       log     exact   1 COPY a.txt /a.txt
0  7 snapshot   ran       log     exact   1 the file system is compared after: COPY a.txt /a.txt
0    stage-end  ran       log     exact   3 files for later stages are saved, and the file system is emptied
1  9 from       skipped   log     exact   0 FROM busybox AS unused
1 10 run        skipped   log     exact   0 RUN touch /never
2 12 from       skipped   log     exact   0 FROM build AS test
2 13 run        skipped   log     exact   0 RUN touch /test
3 15 from       ran       log     exact   6 FROM busybox
3 15 unpack     ran       log     exact   1 the base image is unpacked: FROM busybox
3 16 maintainer skipped   unknown order   0 MAINTAINER someone
3 17 label      ran       log     exact   2 LABEL a=b
3 18 workdir    ran       log     exact   4 WORKDIR /srv
3 18 snapshot   ran       log     exact   1 the file system is compared after: WORKDIR /srv
3 19 copy       ran       log     exact   1 COPY --from=build /v /a.txt ./
3 19 snapshot   ran       log     exact   1 the file system is compared after: COPY --from=build /v /a.txt ./
3 20 user       ran       log     exact   2 USER 1000:1000
3 21 run        ran       exec    exact 207 RUN <<EOF
3 21 snapshot   ran       log     exact   2 the file system is looked at before: RUN <<EOF
3 21 snapshot   ran       log     exact   1 the file system is compared after: RUN <<EOF
3 25 user       ran       log     exact   2 USER root
3 26 expose     ran       log     exact   3 EXPOSE 80
3 27 add        ran       log     exact   2 ADD --chown=1000 d /srv/d
3 27 snapshot   ran       log     exact   1 the file system is compared after: ADD --chown=1000 d /srv/d
3 28 run        ran       exec    exact 207 RUN [\"/bin/chown\", \"1000\", \"/srv/a.txt\"]
3 28 snapshot   ran       log     exact   1 the file system is compared after: RUN [\"/bin/chown\", \"1000\", \"/srv/a.txt\"]
3 29 env        ran       log     exact   1 ENV X=1
3 30 cmd        ran       log     mixed   1 CMD [\"sh\"] (and after it the image is written, which has no line of the log)
     push       ran       log     exact   1 the image is pushed
     container-start ran       exec    exact   1 the container's runtime, outside the container
";

#[test]
fn every_format_tells_the_same_steps() {
    for log in [
        fixture!("multi-color.log"),
        fixture!("multi-text.log"),
        fixture!("multi-json.log"),
    ] {
        let report = built(fixture!("multi.Dockerfile"), log);
        let shown = shown(&report);
        assert_eq!(shown.trim_start(), MULTI, "{shown}");
        assert_eq!(report.coverage.ran, 17);
        assert_eq!(report.coverage.skipped, 5);
        assert_eq!(report.notes, Vec::<String>::new());
        assert_eq!(report.subject.log, Vec::<String>::new());
    }
}

#[test]
fn an_instruction_fails() {
    let log = writes(fixture!("fail-timestamp.log"));
    let mut capture = capture(fixture!("fail.Dockerfile"), &log);
    capture.subject.exit_status = Some(1);
    let report = interpret(&capture);
    let shown = shown(&report);
    assert!(
        shown.contains(
            "0  3 run        ran       exec    exact 206 RUN echo gone && false\n\
             0  4 run        unreached unknown unknown   0 RUN touch /after\n"
        ),
        "{shown}"
    );
    assert_eq!(report.coverage.unreached, 1);
    let last = report.subject.last_step.unwrap() as usize;
    assert_eq!(report.steps[last].line, Some(3));
    assert_eq!(report.subject.failed_step, report.subject.last_step);
    assert_eq!(report.subject.log.len(), 20);
    let end = &report.subject.log[17..];
    assert!(end[1].starts_with("INFO[2026-"), "{}", end[1]);
    assert!(end[1].ends_with("] Running: [/bin/sh -c echo gone && false]"));
    assert!(end[2].starts_with("error building image: error building stage: "));
    assert!(
        !report
            .subject
            .log
            .iter()
            .any(|line| line.contains('\u{1b}'))
    );
}

#[test]
fn the_executor_fails_in_a_phase_of_its_own() {
    let log = fixture!("multi-text.log");
    let (_, behind) = log.split_once("Unpacking rootfs").unwrap();
    let end = behind.find('\n').unwrap() + 1;
    let log = &log[..log.len() - behind.len() + end];
    let writes = writes(log);
    let mut capture = capture(fixture!("multi.Dockerfile"), &writes);
    capture.subject.exit_status = Some(1);
    let report = interpret(&capture);
    let failed = &report.steps[report.subject.failed_step.unwrap() as usize];
    assert_eq!((failed.kind.as_str(), failed.line), ("unpack", Some(3)));
    // The build's end was not seen, or it was no failure.
    capture.subject.exit_status = Some(0);
    assert_eq!(interpret(&capture).subject.failed_step, None);
}

#[test]
fn squashed_stages_announce_themselves_in_one() {
    let shown = shown(&built(
        fixture!("squash.Dockerfile"),
        fixture!("squash.log"),
    ));
    let expected = "\
0  1 from       ran       log     exact   0 FROM busybox AS one
0  2 run        ran       exec    exact 205 RUN touch /one
0  2 snapshot   ran       log     exact   2 the file system is looked at before: RUN touch /one
0  2 snapshot   ran       log     exact   1 the file system is compared after: RUN touch /one
1  3 from       ran       log     exact   0 FROM one AS two
1  4 run        ran       exec    exact 205 RUN touch /two
1  4 snapshot   ran       log     exact   1 the file system is compared after: RUN touch /two
1  5 onbuild    ran       unknown order   0 ONBUILD RUN touch /onb
2  6 from       ran       log     exact   1 FROM two
2  6 unpack     ran       log     exact   1 the base image is unpacked: FROM two
2  5 run        ran       exec    exact 205 RUN touch /onb
2  5 snapshot   ran       log     exact   1 the file system is compared after: RUN touch /onb
2  7 run        ran       exec    exact 205 RUN touch /three
";
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn a_target_with_one_snapshot() {
    let report = built(
        fixture!("multi.Dockerfile"),
        fixture!("target-single-snapshot.log"),
    );
    let shown = shown(&report);
    let expected = "\
2 12 unpack     ran       log     exact   1 the base image is unpacked: FROM build AS test
2    snapshot   ran       log     exact   2 the file system is looked at before: the stage begins
2 13 run        ran       exec    exact 205 RUN touch /test
2 13 snapshot   ran       log     mixed   1 the file system is compared after: RUN touch /test \
(and after it the image is written, which has no line of the log)
";
    assert!(shown.contains(expected), "{shown}");
    assert_eq!(report.coverage.ran, 7);
    assert_eq!(report.coverage.skipped, 15);
}

#[test]
fn layers_go_to_the_cache_beside_the_work() {
    let report = built(fixture!("cache.Dockerfile"), fixture!("cache-miss.log"));
    let shown = shown(&report);
    // The first snapshot before line 6 goes on while line 5's layer is pushed.
    let expected = "\
1  6 run        ran       exec    exact 205 RUN touch /two
1  6 snapshot   ran       log     exact   5 the file system is looked at before: RUN touch /two
1  6 snapshot   ran       log     exact   4 the file system is compared after: RUN touch /two
1  7 workdir    ran       log     exact   4 WORKDIR /w
";
    assert!(shown.contains(expected), "{shown}");
    assert_eq!(shown.matches(" push ").count(), 1);
    assert_eq!(report.coverage.ran, 8);
}

#[test]
fn what_the_cache_has_did_not_run() {
    let states = |dockerfile, log| {
        let report = built(dockerfile, log);
        let states = report
            .steps
            .iter()
            .filter(|step| step.line.is_some() && step.kind != "unpack" && step.kind != "snapshot")
            .map(|step| step.state.to_string().remove(0))
            .collect::<String>();
        let coverage = &report.coverage;
        assert_eq!(coverage.cached, states.matches('c').count() as u64);
        assert_eq!(coverage.ran, states.matches('r').count() as u64);
        states
    };
    assert_eq!(
        states(fixture!("cache.Dockerfile"), fixture!("cache-hit.log")),
        "rccrcccr"
    );
    assert_eq!(
        states(
            fixture!("cache-some.Dockerfile"),
            fixture!("cache-some.log")
        ),
        "rcrr"
    );
    // A stage that nothing needs any more, for what needed it is in the cache.
    assert_eq!(
        states(fixture!("cache.Dockerfile"), fixture!("eliminated.log")),
        "cccrcccr"
    );
    let hit = built(fixture!("cache.Dockerfile"), fixture!("cache-hit.log"));
    let from = hit.steps.iter().find(|step| step.line == Some(1)).unwrap();
    assert_eq!(
        from.sharp,
        Sharp::Mixed,
        "unpacked for another stage's COPY, without a line"
    );
}

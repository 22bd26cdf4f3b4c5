use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::combine::check::Policy;
use crate::combine::{Build, merge};
use crate::interpret::{arbitrary, interpret};
use crate::render::escape::is_unsafe;
use crate::render::{Format, Style, write, write_matrix};
use crate::{capture, report};

const YAML: [Format; 5] = [
    Format::Kubernetes,
    Format::KubernetesPod,
    Format::Tekton,
    Format::Kyverno,
    Format::Openshift,
];
const ALL: [Format; 9] = [
    Format::Docker,
    Format::Podman,
    Format::Kubernetes,
    Format::KubernetesPod,
    Format::Tekton,
    Format::Gitlab,
    Format::Kyverno,
    Format::Openshift,
    Format::Oci,
];

fn corpus(name: &str) -> Report {
    let path = format!(
        "{}/../corpus/{name}/capture.kcap",
        env!("CARGO_MANIFEST_DIR")
    );
    let file = std::fs::File::open(path).expect("the corpus has it");
    interpret(&capture::read(io::BufReader::new(file)).expect("it is a capture"))
}

fn text(report: &Report, format: Format) -> String {
    let mut out = Vec::new();
    write(report, format, Style::default(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// With whatever a build can choose, hostile.
fn hostile(mut report: Report, text: &str) -> Report {
    report.subject.dockerfile = Some(text.to_owned());
    report.subject.executor = Some(report::Executor {
        path: text.to_owned(),
        given: Some(text.to_owned()),
    });
    for gain in report.privilege_gains.iter_mut().flatten() {
        gain.program = text.to_owned();
    }
    report
}

const HOSTILE: &str =
    "x\n    privileged: true\r\u{85}\u{2028}# \"'{{`$(id)`}}\\ \u{1b}[2J: - \u{202e}\t%";

fn names(caps: &[Cap]) -> Vec<String> {
    caps.iter().map(Cap::to_string).collect()
}

fn validator(definition: &str) -> jsonschema::Validator {
    let schema = include_str!("../../../tests/schemas/kubernetes-pod-1.37.json");
    let mut schema: Value = serde_json::from_str(schema).unwrap();
    schema["$ref"] = format!("#/definitions/io.k8s.api.core.v1.{definition}").into();
    jsonschema::validator_for(&schema).unwrap()
}

fn reports() -> Vec<Report> {
    let edge = corpus("x-edge-proxy");
    vec![
        corpus("chown-run"),
        corpus("scratch-copy"),
        corpus("missing-file"),
        hostile(edge.clone(), HOSTILE),
        edge,
    ]
}

#[test]
fn kubernetes_takes_what_is_written() {
    let (pod, container, context) = (
        validator("Pod"),
        validator("Container"),
        validator("SecurityContext"),
    );
    for report in reports() {
        let shown = yaml(&text(&report, Format::Kubernetes));
        let security = &shown["securityContext"];
        assert_eq!(shown.as_object().unwrap().len(), 1);
        assert!(context.is_valid(security), "{security}");
        assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(
            security["capabilities"]["add"],
            serde_json::json!(names(&report.required))
        );
        let whole = yaml(&text(&report, Format::KubernetesPod));
        let errors: Vec<String> = pod.iter_errors(&whole).map(|e| e.to_string()).collect();
        assert_eq!(errors, [""; 0], "{whole}");
        assert_eq!(&whole["spec"]["containers"][0]["securityContext"], security);
        let dockerfile = report.subject.dockerfile.as_deref().unwrap();
        let argument = format!("--dockerfile={dockerfile}");
        assert_eq!(whole["spec"]["containers"][0]["args"][0], argument.as_str());
        let steps = yaml(&text(&report, Format::Tekton));
        assert!(container.is_valid(&steps[0]), "{steps}");
        assert_eq!(&steps[0]["securityContext"], security);
    }
    // The schema tells what is no pod.
    let mut whole = yaml(&text(&reports()[0], Format::KubernetesPod));
    whole["spec"]["containers"][0]["securityContext"]["capabilties"] = Value::Null;
    assert!(!pod.is_valid(&whole));
}

#[test]
fn escalation_is_forbidden_only_where_nothing_gains_by_it() {
    let allow = |report: &Report| Allow::of_report(report).escalation;
    assert_eq!(allow(&corpus("chown-run")), Escalation::NotSeen);
    // A user's program with file capabilities, and one with the set-user-ID bit.
    for (name, program) in [
        ("x-edge-proxy", "proxyd in line 12"),
        ("ping-as-user", "ping in line 5"),
        ("apt-sudo", "sudo in line 6"),
    ] {
        let Escalation::Needed(place) = allow(&corpus(name)) else {
            panic!("{name}: {:?}", allow(&corpus(name)));
        };
        assert!(place.contains(program), "{name}: {place}");
    }
    // Root that runs su gains nothing.
    assert_eq!(allow(&corpus("su-user")), Escalation::NotSeen);
    // What was not seen to the end, or not looked at, forbids nothing.
    let mut report = corpus("chown-run");
    report.complete = false;
    assert!(allow(&report).allow());
    let mut report = corpus("chown-run");
    report.privilege_gains = None;
    assert!(allow(&report).allow());
    assert!(allow(&corpus("missing-file")).allow());
}

#[test]
fn kubernetes_is_not_asked_to_forbid_escalation_beside_sys_admin() {
    let mut report = corpus("chown-run");
    let escalates = |report: &Report| {
        let value = yaml(&text(report, Format::Kubernetes));
        value["securityContext"]["allowPrivilegeEscalation"].clone()
    };
    assert_eq!(escalates(&report), false);
    report.required.push(Cap::SYS_ADMIN);
    assert_eq!(escalates(&report), true);
}

#[test]
fn docker_s_flags_are_read_back_as_the_same_set() {
    for report in reports() {
        for (format, engine) in [(Format::Docker, "docker"), (Format::Podman, "podman")] {
            let text = text(&report, format);
            let line = text.lines().last().unwrap();
            assert!(
                text.lines()
                    .rev()
                    .skip(1)
                    .all(|line| line.starts_with("# ")),
                "{text}"
            );
            let run = format!("{engine} run {line} image");
            let policy = Policy::of_text("x", &run, None).unwrap();
            assert_eq!(Vec::from_iter(policy.allowed), report.required);
        }
    }
}

#[test]
fn an_oci_runtime_s_types_take_what_is_written() {
    for report in reports() {
        let value: Value = serde_json::from_str(&text(&report, Format::Oci)).unwrap();
        let process: oci_spec::runtime::LinuxCapabilities =
            serde_json::from_value(value["process"]["capabilities"].clone()).unwrap();
        for set in [process.bounding(), process.effective(), process.permitted()] {
            let held: BTreeSet<String> = set
                .iter()
                .flatten()
                .map(|cap| format!("{cap:?}").to_uppercase())
                .collect();
            let wanted = names(&report.required)
                .iter()
                .map(|n| n.replace('_', ""))
                .collect();
            assert_eq!(held, wanted);
        }
        // The whole file: what is written, over the least that a runtime takes.
        let mut whole = serde_json::json!({
            "ociVersion": "1.2.0", "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["/kaniko/executor"], "user": {"uid": 0, "gid": 0}},
        });
        for (key, inner) in value["process"].as_object().unwrap() {
            whole["process"][key] = inner.clone();
        }
        whole["annotations"] = value["annotations"].clone();
        let spec: oci_spec::runtime::Spec = serde_json::from_value(whole).unwrap();
        let gains = Allow::of_report(&report).escalation.allow();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.no_new_privileges(), Some(!gains));
    }
}

#[test]
fn gitlab_s_settings_are_toml_with_the_set_twice() {
    for report in reports() {
        let value: toml::Value = toml::from_str(&text(&report, Format::Gitlab)).unwrap();
        let runner = &value["runners"][0];
        let wanted: toml::Value = names(&report.required).into();
        let pod = &runner["kubernetes"]["build_container_security_context"]["capabilities"];
        assert_eq!(runner["docker"]["cap_add"], wanted);
        assert_eq!(pod["add"], wanted);
        for drop in [&runner["docker"]["cap_drop"], &pod["drop"]] {
            assert_eq!(drop[0].as_str(), Some("ALL"));
        }
        let gains = Allow::of_report(&report).escalation.allow();
        assert_eq!(
            runner["kubernetes"]["allow_privilege_escalation"].as_bool(),
            Some(gains)
        );
    }
}

#[test]
fn cluster_policies_hold_the_set_and_nothing_hostile() {
    for report in reports() {
        let wanted = serde_json::json!(names(&report.required));
        let policy = yaml(&text(&report, Format::Kyverno));
        let rules = policy["spec"]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 2);
        let condition =
            |rule: &Value| rule["validate"]["foreach"][0]["deny"]["conditions"]["all"][0].clone();
        assert_eq!(condition(&rules[1])["value"], wanted);
        assert_eq!(condition(&rules[0])["key"], "ALL");
        let scc = yaml(&text(&report, Format::Openshift));
        assert_eq!(scc["allowedCapabilities"], wanted);
        assert_eq!(scc["requiredDropCapabilities"], serde_json::json!(["ALL"]));
        assert_eq!(scc["allowPrivilegedContainer"], false);
        // What the resource's own schema demands.
        for field in [
            "allowHostDirVolumePlugin",
            "allowHostIPC",
            "allowHostNetwork",
            "allowHostPID",
            "allowHostPorts",
            "defaultAddCapabilities",
            "priority",
            "readOnlyRootFilesystem",
            "volumes",
        ] {
            assert!(scc.get(field).is_some(), "{field}");
        }
    }
}

#[test]
fn unsure_ones_are_marked_and_nameless_ones_left_out() {
    let mut report = corpus("x-edge-proxy");
    report.required.push(Cap(50));
    for format in ALL {
        let text = text(&report, format);
        assert!(text.contains("unsure"), "{text}");
        assert!(text.contains("capability 50 has no name"), "{text}");
        assert!(!text.contains("CAP_50") && !text.contains("- 50") && !text.contains("add=50"));
    }
    let text = text(&report, Format::Kubernetes);
    assert!(text.contains("    - KILL  # unsure"), "{text}");
    assert!(text.contains("    - CHOWN\n"), "{text}");
}

#[test]
fn several_builds_give_the_union_or_a_block_for_each_profile() {
    let builds = merge(
        ["scratch-copy", "chown-run", "x-edge-proxy"].map(|n| Build::traced(n.into(), corpus(n))),
    );
    let matrix = Matrix::of(builds);
    let schema: Value = serde_json::from_str(&crate::combine::schema()).unwrap();
    let value = serde_json::to_value(&matrix).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&value)
        .map(|e| e.to_string())
        .collect();
    assert_eq!(errors, [""; 0]);
    let text = |matrix: &Matrix, format| {
        let mut out = Vec::new();
        write_matrix(matrix, format, Style::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let shown = yaml(&text(&matrix, Format::Kubernetes));
    let add = |value: &Value| value["securityContext"]["capabilities"]["add"].clone();
    assert_eq!(
        add(&shown),
        serde_json::json!(names(&matrix.union.required))
    );
    assert_eq!(shown["securityContext"]["allowPrivilegeEscalation"], true);
    // Of several it is said whose that is.
    let of = "in line 12 of corpus/x-edge-proxy/Dockerfile gains by its file's bits";
    assert!(text(&matrix, Format::Openshift).contains(of));
    let matrix = matrix.with_profiles(std::num::NonZeroUsize::new(2).unwrap());
    let shown = text(&matrix, Format::Kubernetes);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&shown).unwrap();
    assert_eq!(documents.len(), 2);
    for (document, profile) in documents.iter().zip(&matrix.profiles) {
        assert_eq!(add(document), serde_json::json!(names(&profile.required)));
    }
    // Each profile has its own answer.
    assert_eq!(
        documents[0]["securityContext"]["allowPrivilegeEscalation"],
        false
    );
    // Applied together, none takes another's place, nor decides over another's builds.
    for (format, name, of) in [
        (
            Format::Kyverno,
            "build-capabilities",
            "/spec/rules/0/match/any/0/resources/namespaces/0",
        ),
        (Format::Openshift, "kaniko", "/users/0"),
    ] {
        let shown = text(&matrix, format);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&shown).unwrap();
        for (at, document) in documents.iter().enumerate() {
            let number = at + 1;
            assert_eq!(document["metadata"]["name"], format!("{name}-{number}"));
            let of = document.pointer(of).and_then(Value::as_str);
            assert!(of.is_some_and(|of| of.contains(&format!("builds-{number}"))));
            let heading = format!("what is needed by profile {number}, ");
            assert!(shown.contains(&heading), "{shown}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_text_gets_out_of_its_comment_or_string(
        capture in arbitrary::capture(), chosen in any::<String>(), line in "[\\PC\n\r\"'#:{}`\\\\-]{0,60}",
    ) {
        let plain = interpret(&capture);
        for chosen in [chosen, line] {
            let report = hostile(plain.clone(), &chosen);
            for format in ALL {
                let text = text(&report, format);
                prop_assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text:?}");
            }
            let calm = hostile(plain.clone(), "x");
            for format in YAML {
                let (mut found, mut wanted) = (yaml(&text(&report, format)), yaml(&text(&calm, format)));
                // The one place where the path is data.
                for value in [&mut found, &mut wanted] {
                    for pointer in ["/spec/containers/0/args/0", "/0/args/0"] {
                        if let Some(argument) = value.pointer_mut(pointer) {
                            *argument = Value::Null;
                        }
                    }
                    for pointer in ["/spec/containers/0/image", "/0/image"] {
                        if let Some(image) = value.pointer_mut(pointer) {
                            *image = Value::Null;
                        }
                    }
                }
                prop_assert_eq!(found, wanted);
            }
            let found: toml::Value = toml::from_str(&text(&report, Format::Gitlab)).unwrap();
            let wanted: toml::Value = toml::from_str(&text(&calm, Format::Gitlab)).unwrap();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn what_is_quoted_is_read_back(text in any::<String>(), odd in "[\u{e0001}\u{202e}\u{85}\u{feff}\u{fffe}\\PC\"\\\\]{0,20}") {
        let text = text + &odd;
        let line = quoted(&text);
        prop_assert!(!line.chars().any(is_unsafe));
        prop_assert_eq!(&serde_saphyr::from_str::<String>(&line).unwrap(), &text);
        let document: toml::Value = toml::from_str(&format!("x = {line}")).unwrap();
        prop_assert_eq!(document["x"].as_str(), Some(text.as_str()));
    }
}

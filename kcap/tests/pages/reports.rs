//! Reports for the pages: of the corpus' captures, many and large ones made from these, and hostile
//! ones.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use kcap::{
    capture,
    interpret::interpret,
    report::{Cap, Report},
};
use serde_json::{Value, json};

/// The corpus, by name.
pub fn corpus() -> Vec<Report> {
    let mut folders: Vec<PathBuf> = fs::read_dir(root())
        .expect("the corpus is there")
        .map(|entry| entry.unwrap().path().join("capture.kcap"))
        .filter(|path| path.is_file())
        .collect();
    folders.sort();
    assert!(
        folders.len() >= 40,
        "the corpus has {} captures",
        folders.len()
    );
    folders.iter().map(|path| of_capture(path)).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn of_capture(path: &Path) -> Report {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    interpret(&capture::read(file).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The report of one folder of the corpus.
pub fn one(name: &str) -> Report {
    of_capture(&root().join(name).join("capture.kcap"))
}

/// As many Dockerfiles as that, each with as many capabilities, all with evidence: the corpus' own,
/// filled up from others of it.
pub fn many(dockerfiles: usize, capabilities: usize) -> Vec<Report> {
    let corpus = corpus();
    // For each capability the report that has most to say of it.
    let mut donors: Vec<(Cap, &Report)> = Vec::new();
    for number in 0..41 {
        let evidence = |report: &&Report| {
            let capability = report.capabilities.iter().find(|c| c.name == Cap(number));
            capability.map_or(0, |capability| capability.evidence.len())
        };
        let best = corpus.iter().max_by_key(evidence).unwrap();
        if evidence(&best) > 0 {
            donors.push((Cap(number), best));
        }
    }
    assert!(
        donors.len() >= capabilities,
        "the corpus asks for {}",
        donors.len()
    );
    (0..dockerfiles)
        .map(|n| {
            let mut report = corpus[n % corpus.len()].clone();
            report.subject.dockerfile =
                Some(format!("team-{:02}/service-{n:03}/Dockerfile", n % 17));
            report.subject.dockerfile_sha256 = Some(format!("{n:064x}"));
            for (cap, donor) in &donors {
                let has = report.capabilities.iter().any(|c| c.name == *cap);
                if report.capabilities.len() >= capabilities || has {
                    continue;
                }
                let given = donor.capabilities.iter().find(|c| c.name == *cap).unwrap();
                let mut given = given.clone();
                // Steps that this build has.
                let steps = report.steps.len() as u32;
                given.steps.iter_mut().for_each(|step| step.step %= steps);
                for evidence in &mut given.evidence {
                    evidence.step = evidence.step.map(|step| step % steps);
                }
                report.capabilities.push(given);
            }
            report
                .capabilities
                .sort_by_key(|capability| capability.number);
            report
        })
        .collect()
}

/// A report whose every text tries to be something else.
pub fn hostile() -> Value {
    const ATTACK: &str = "</script><img src=x onerror=\"document.title='broken'\"><script>\
        document.title='broken'</script><!-- <script> \u{202e}txet\u{202c} \0 \u{1b}[2J \u{2028}\u{2029} \
        {{script}} ${document.title='broken'} javascript:document.title='broken' ' \" ` &lt;b&gt; ]]>";
    let mut report = serde_json::to_value(one("copy-chown")).unwrap();
    let large = format!("{ATTACK}{}", "--argument ".repeat(500_000));
    assert!(large.len() > 5_000_000);
    report["subject"]["dockerfile"] = format!("evil/{ATTACK}/Dockerfile").into();
    report["notes"] = json!([ATTACK, large]);
    report["subject"]["exit_status"] = 1.into();
    report["subject"]["log"] = json!([ATTACK, ATTACK]);
    report["host"]["kernel"] = ATTACK.into();
    report["host"]["hook"] = ATTACK.into();
    report["tool"]["version"] = ATTACK.into();
    for step in report["steps"].as_array_mut().unwrap() {
        let text = step["text"].as_str().unwrap().to_owned();
        step["text"] = format!(
            "{text} && echo '{ATTACK}' && printf '{}'",
            "x".repeat(100_000)
        )
        .into();
        step["holds"] = ATTACK.into();
    }
    report["steps"][4]["kind"] = ATTACK.into();
    for capability in report["capabilities"].as_array_mut().unwrap() {
        capability["reason"] = ATTACK.into();
        for evidence in capability["evidence"].as_array_mut().unwrap() {
            evidence["program"] = format!("/bin/{ATTACK}").into();
            evidence["syscall"] = ATTACK.into();
            evidence["outcome"] = ATTACK.into();
            evidence["reason"] = ATTACK.into();
            evidence["path"] = json!([ATTACK, "עברית", ATTACK]);
        }
    }
    // A capability of a newer kernel, and evidence that is nothing but an argument.
    let mut newer = report["capabilities"][0].clone();
    newer["name"] = "63".into();
    newer["number"] = 63.into();
    newer["evidence"][0]["program"] = large.into();
    report["capabilities"].as_array_mut().unwrap().push(newer);
    report
}

/// Writes reports into a folder, one file each.
pub fn write<'a, T: serde::Serialize + 'a>(
    folder: &Path,
    reports: impl IntoIterator<Item = &'a T>,
) {
    fs::create_dir_all(folder).unwrap();
    for (at, report) in reports.into_iter().enumerate() {
        let file = File::create(folder.join(format!("{at:05}.json"))).unwrap();
        serde_json::to_writer(std::io::BufWriter::new(file), report).unwrap();
    }
}

/// The page of these files, by the command; into `page`.
pub fn page(page: &Path, arguments: &[&str], files: &[&Path]) {
    let out = File::create(page).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_kcap"))
        .args(["report", "--format", "html", "--allow-incomplete"])
        .args(arguments)
        .args(files)
        .stdout(out)
        .status()
        .expect("kcap starts");
    assert!(status.success(), "{status}");
}

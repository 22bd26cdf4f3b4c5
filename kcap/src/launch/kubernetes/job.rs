//! Jobs and the files that go with them, as the cluster takes them. Pure, but for reading a context.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value, json};

use super::pod::{Build, FILES, INDEX, Pod};

/// The label that all objects of one run of kcap have.
pub const RUN: &str = "kcap-run";
/// Most bytes of all files of a Job: a ConfigMap holds 1 MiB, names included.
pub const ROOM: usize = 1_000_000;
/// How long a Job stays that nobody removed, in seconds.
const LEFT: u64 = 3600;

/// Files of one build that the pod itself does not have.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The Dockerfile.
    pub dockerfile: Vec<u8>,
    /// The ignore file that goes with this Dockerfile alone.
    pub ignore: Option<Vec<u8>>,
    /// The context, as [`pack`] gives it; none where the pod has it.
    pub context: Option<Vec<u8>>,
}

impl Files {
    /// Bytes that they take in a ConfigMap.
    pub fn size(&self) -> usize {
        let all = [
            Some(&self.dockerfile),
            self.ignore.as_ref(),
            self.context.as_ref(),
        ];
        all.into_iter().flatten().map(|file| file.len() + 32).sum()
    }
}

/// A Job of several builds with one set.
#[derive(Debug)]
pub struct Job<'a> {
    /// Its name, and that of its ConfigMap.
    pub name: &'a str,
    /// The run of kcap that it belongs to.
    pub run: &'a str,
    /// The set that its builds get, as a mask.
    pub set: u64,
    /// The repository that images are pushed to, each under a tag of its own.
    pub repository: &'a str,
    /// Files by index; without them, the pod's own are built, once.
    pub files: &'a [&'a Files],
    /// How many builds it has; all run side by side.
    pub builds: usize,
    /// More flags for Kaniko.
    pub flags: &'a [String],
    /// Seconds that a build may take.
    pub deadline: Option<u64>,
}

impl Job<'_> {
    fn labels(&self) -> Value {
        json!({ "app.kubernetes.io/managed-by": "kcap", RUN: self.run })
    }

    /// The Job. Each of its builds has one pod, and goes on where others fail.
    ///
    /// # Errors
    /// Those of [`Pod::template`].
    pub fn manifest(&self, pod: &Pod) -> Result<Value> {
        let at = |ending: &str| format!("{FILES}/{INDEX}{ending}");
        let (dockerfile, context) = (at(""), format!("tar://{}", at(".tar.gz")));
        let has_context = self.files.iter().any(|files| files.context.is_some());
        let destination = format!("{}:{}", self.repository, tag(self.name, INDEX));
        let build = Build {
            set: self.set,
            destination: &destination,
            files: (!self.files.is_empty()).then_some(self.name),
            dockerfile: (!self.files.is_empty()).then_some(&dockerfile),
            context: has_context.then_some(&context),
            flags: self.flags,
            deadline: self.deadline,
        };
        Ok(json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": self.name, "labels": self.labels() },
            "spec": {
                "completionMode": "Indexed",
                "completions": self.builds,
                "parallelism": self.builds,
                "backoffLimitPerIndex": 0,
                "ttlSecondsAfterFinished": LEFT,
                "template": pod.template(&build, &self.labels())?,
            },
        }))
    }

    /// The ConfigMap of its files; none where the pod has them.
    pub fn config_map(&self) -> Option<Value> {
        let mut data = Map::new();
        for (index, files) in self.files.iter().enumerate() {
            let mut put = |ending: &str, file: &[u8]| {
                data.insert(format!("{index}{ending}"), json!(STANDARD.encode(file)));
            };
            put("", &files.dockerfile);
            if let Some(ignore) = &files.ignore {
                put(".dockerignore", ignore);
            }
            if let Some(context) = &files.context {
                put(".tar.gz", context);
            }
        }
        (!data.is_empty()).then(|| {
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": self.name, "labels": self.labels() },
                "binaryData": data,
            })
        })
    }
}

/// What makes a ConfigMap end with its Job.
pub fn owned_by(job: &Value) -> Value {
    json!({ "metadata": { "ownerReferences": [{
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
    }] } })
}

/// The tag of the image of a build of a Job.
pub fn tag(job: &str, index: &str) -> String {
    format!("{job}-{index}")
}

/// A folder as a gzipped archive: with modes, owners, times and links as they are.
///
/// # Errors
/// What cannot be read; where it has no room in a ConfigMap.
pub fn pack(folder: &Path) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read the build context {}", folder.display());
    let bounded = Bounded(vec![]);
    let mut archive = tar::Builder::new(GzEncoder::new(bounded, Compression::best()));
    archive.follow_symlinks(false);
    archive.mode(tar::HeaderMode::Complete);
    let packed = archive
        .append_dir_all(".", folder)
        .and_then(|()| archive.into_inner())
        .and_then(GzEncoder::finish);
    match packed {
        Ok(packed) => Ok(packed.0),
        Err(why) if why.kind() == io::ErrorKind::FileTooLarge => Err(why).with_context(|| {
            format!(
                "the build context {} has no room in a ConfigMap, which holds {} KB: put it where the \
                 pod can read it, and name it by --context in the pod's args",
                folder.display(),
                ROOM / 1000
            )
        }),
        Err(why) => Err(why).with_context(cannot),
    }
}

/// Bytes, up to what a ConfigMap holds.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > ROOM {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a file that is to go into a ConfigMap.
///
/// # Errors
/// Where it cannot be read, or has no room there.
pub fn small(path: &Path) -> Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let mut bytes = Bounded(vec![]);
    io::copy(&mut io::Read::take(file, ROOM as u64 + 1), &mut bytes).with_context(cannot)?;
    ensure!(bytes.flush().is_ok(), "cannot keep {}", path.display());
    Ok(bytes.0)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use flate2::read::GzDecoder;

    use super::*;

    const POD: &str = "spec: {containers: [{name: k, image: kaniko, args: [--context=git://c]}]}";

    fn job<'a>(files: &'a [&'a Files], builds: usize) -> Job<'a> {
        Job {
            name: "kcap-1-0",
            run: "kcap-1",
            set: 1,
            repository: "r:5000/t",
            files,
            builds,
            flags: &[],
            deadline: None,
        }
    }

    #[test]
    fn a_job_of_several_has_a_file_and_a_tag_for_each_index() {
        let one = Files {
            dockerfile: b"FROM a".to_vec(),
            ..Files::default()
        };
        let other = Files {
            dockerfile: b"FROM b".to_vec(),
            ignore: Some(b"x".to_vec()),
            context: None,
        };
        let files = [&one, &other];
        let job = job(&files, 2);
        let manifest = job.manifest(&Pod::read(POD, None).unwrap()).unwrap();
        let spec = &manifest["spec"];
        assert_eq!(spec["completions"], 2);
        assert_eq!(spec["parallelism"], 2);
        assert_eq!(spec["backoffLimitPerIndex"], 0);
        assert_eq!(spec["template"]["metadata"]["labels"][RUN], "kcap-1");
        let args = spec["template"]["spec"]["containers"][0]["args"].to_string();
        assert!(args.contains("--context=git://c"), "{args}");
        assert!(
            args.contains("--dockerfile=/kaniko-dockerfile/$(JOB_COMPLETION_INDEX)\""),
            "{args}"
        );
        assert!(
            args.contains("--destination=r:5000/t:kcap-1-0-$(JOB_COMPLETION_INDEX)"),
            "{args}"
        );
        let map = job.config_map().unwrap();
        assert_eq!(
            map["binaryData"],
            json!({ "0": "RlJPTSBh", "1": "RlJPTSBi", "1.dockerignore": "eA==" })
        );
    }

    #[test]
    fn a_pod_that_has_its_files_gets_none() {
        let job = job(&[], 1);
        assert_eq!(job.config_map(), None);
        let manifest = job.manifest(&Pod::read(POD, None).unwrap()).unwrap();
        assert!(!manifest.to_string().contains("configMap"));
        assert!(!manifest.to_string().contains("--dockerfile"));
    }

    #[test]
    fn a_packed_context_is_the_folder_and_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), "text").unwrap();
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let packed = pack(folder.path()).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(&packed[..]));
        let mut entries: Vec<(String, tar::EntryType)> = (archive.entries().unwrap())
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().entry_type())
            })
            .collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let names: Vec<&str> = entries
            .iter()
            .map(|(name, _)| name.trim_start_matches("./"))
            .collect();
        assert!(
            names.contains(&"a/b") && names.contains(&"link"),
            "{names:?}"
        );
        assert!(
            entries
                .iter()
                .any(|(_, kind)| *kind == tar::EntryType::Symlink)
        );

        let mut noise = vec![0u8; ROOM + 4096];
        let mut state = 1u32;
        for byte in &mut noise {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        fs::write(folder.path().join("large"), noise).unwrap();
        let error = format!("{:#}", pack(folder.path()).unwrap_err());
        assert!(error.contains("has no room in a ConfigMap"), "{error}");
        assert!(error.contains("--context"), "{error}");
    }

    #[test]
    fn the_requests_are_those_that_a_real_cluster_took() {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let pod = Pod::read(include_str!("../../../tests/kubernetes/pod.yaml"), None).unwrap();
        let (job, map) = (
            parsed(include_str!("../../../tests/kubernetes/job.json")),
            parsed(include_str!("../../../tests/kubernetes/files.json")),
        );
        let taken = |key: &str| {
            let text = map["binaryData"][key].as_str()?;
            Some(STANDARD.decode(text).unwrap())
        };
        let files: Vec<Files> = (0..2)
            .map(|index| Files {
                dockerfile: taken(&index.to_string()).unwrap(),
                ignore: None,
                context: taken(&format!("{index}.tar.gz")),
            })
            .collect();
        let files: Vec<&Files> = files.iter().collect();
        let own = Job {
            name: "kcap-875c2d26-0",
            run: "kcap-875c2d26",
            set: pod.capabilities(),
            repository: "127.0.0.1:5055/trials/app",
            files: &files,
            builds: 2,
            flags: &[],
            deadline: None,
        };
        assert_eq!(own.manifest(&pod).unwrap(), job);
        assert_eq!(own.config_map().unwrap(), map);
    }
}

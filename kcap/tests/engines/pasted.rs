//! The flags that a report gives are what the engine makes of them: a container has that set, and
//! no other.

use std::{fs::File, io::BufReader, path::Path};

use kcap::{
    capture,
    interpret::interpret,
    render::{self, Format, Style},
};

use crate::host::tool;

/// Captures of the corpus: of much, of some, of nothing.
const CAPTURES: [&str; 4] = [
    "setcap-execute",
    "x-edge-proxy",
    "chown-run",
    "scratch-copy",
];

/// Runs a container with the flags of each report, and asks the kernel what it holds.
pub fn are_taken_as_meant(engine: &str, format: Format, dir: &Path) {
    let archive = dir.join("busybox.tar");
    let mut tar = tar::Builder::new(File::create(&archive).unwrap());
    tar.append_path_with_name("/bin/busybox", "bin/busybox")
        .unwrap();
    tar.into_inner().unwrap().sync_all().unwrap();
    let asks = |arguments: &[&str]| {
        let (output, complaint, success) = tool(engine, arguments);
        assert!(success, "{engine} {arguments:?}: {complaint}");
        output
    };
    asks(&["import", archive.to_str().unwrap(), "pasted"]);
    for name in CAPTURES {
        let path = format!(
            "{}/../corpus/{name}/capture.kcap",
            env!("CARGO_MANIFEST_DIR")
        );
        let file = BufReader::new(File::open(path).unwrap());
        let report = interpret(&capture::read(file).unwrap());
        let mut text = Vec::new();
        render::write(&report, format, Style::default(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let flags = text.lines().last().unwrap().split(' ');
        let command = [
            "pasted",
            "/bin/busybox",
            "grep",
            "CapBnd",
            "/proc/self/status",
        ];
        let all: Vec<&str> = ["run", "--rm", "--network=none"]
            .into_iter()
            .chain(flags)
            .chain(command)
            .collect();
        let held = asks(&all);
        let held = held.strip_prefix("CapBnd:").unwrap().trim();
        let wanted = report.required.iter().fold(0, |all, cap| all | cap.bit());
        assert_eq!(u64::from_str_radix(held, 16), Ok(wanted), "{name}: {text}");
    }
    asks(&["rmi", "pasted"]);
}

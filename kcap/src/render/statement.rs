//! A proof as an in-toto statement, to be signed elsewhere: subjects are the Dockerfile and the image
//! that it gives, the predicate is the report.
//!
//! The layer that in-toto calls *Statement*, version 1
//! (<https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>); signing wraps it in an
//! envelope and is the signer's matter.

use std::io::{self, Write};

use serde::Serialize;

use super::json;
use crate::report::Report;

/// The type of the layer, as in-toto names it.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The type of the predicate: the report's own schema.
const PREDICATE: &str = "urn:kcap:report:v1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    of: &'static str,
    subject: Vec<Subject<'a>>,
    predicate_type: &'static str,
    predicate: &'a Report,
}

#[derive(Serialize)]
struct Subject<'a> {
    name: &'a str,
    digest: Digest<'a>,
}

#[derive(Serialize)]
struct Digest<'a> {
    sha256: &'a str,
}

/// Writes the statement. in-toto wants at least one subject, and a digest of each.
///
/// # Errors
/// Where the report names neither a Dockerfile nor an image; those of `to`.
pub fn write(report: &Report, to: &mut impl Write) -> io::Result<()> {
    let mut subject = vec![];
    if let Some(sha256) = &report.subject.dockerfile_sha256 {
        let name = report.subject.dockerfile.as_deref().unwrap_or("Dockerfile");
        subject.push(Subject {
            name,
            digest: Digest { sha256 },
        });
    }
    // Of its configuration, as docker has it: what a registry calls it depends on compression.
    let image = report
        .proof
        .as_ref()
        .and_then(|proof| proof.image.as_deref());
    if let Some(sha256) = image.and_then(|id| id.strip_prefix("sha256:")) {
        subject.push(Subject {
            name: "image configuration",
            digest: Digest { sha256 },
        });
    }
    if subject.is_empty() {
        return Err(io::Error::other(
            "an in-toto statement is about a Dockerfile, and this report knows none: trace with kcap \
             build or kcap prove",
        ));
    }
    let statement = Statement {
        of: STATEMENT,
        subject,
        predicate_type: PREDICATE,
        predicate: report,
    };
    json::write(&statement, to)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::BufReader, path::Path};

    use serde_json::Value;

    use super::*;
    use crate::{capture, interpret::interpret};

    fn observed() -> Report {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/copy-chown/capture.kcap");
        let file = File::open(path).expect("it is in the repository");
        interpret(&capture::read(BufReader::new(file)).expect("it is a capture"))
    }

    #[test]
    fn it_is_about_the_dockerfile_and_has_the_whole_report() {
        let report = observed();
        let mut text = vec![];
        write(&report, &mut text).unwrap();
        let statement: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        let name = &statement["subject"][0]["name"];
        assert_eq!(name, "corpus/copy-chown/Dockerfile");
        let digest = &statement["subject"][0]["digest"]["sha256"];
        assert_eq!(digest.as_str(), report.subject.dockerfile_sha256.as_deref());
        let whole: Report = serde_json::from_value(statement["predicate"].clone()).unwrap();
        assert_eq!(whole, report);
        // in-toto takes no statement without a subject.
        let mut nameless = report;
        nameless.subject.dockerfile_sha256 = None;
        let error = write(&nameless, &mut vec![]).unwrap_err().to_string();
        assert!(error.contains("kcap build"), "{error}");
    }
}

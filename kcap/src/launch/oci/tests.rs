use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

fn request(dir: &TempDir) -> Request {
    Request {
        dockerfile: dir.path().join("Dockerfile"),
        context: dir.path().to_owned(),
        ..Request::new(Executor::Path(PathBuf::from("/kaniko/executor")), 0)
    }
}

#[test]
fn what_is_missing_is_told() {
    let dir = TempDir::new().unwrap();
    let told = |request: &Request| format!("{:#}", inputs(request).unwrap_err());
    let mut request = request(&dir);
    assert!(told(&request).contains("cannot read the Dockerfile"));
    fs::write(&request.dockerfile, "FROM scratch\n").unwrap();
    request.context = dir.path().join("none");
    assert!(told(&request).contains("cannot read the context"));
    request.context.clone_from(&request.dockerfile);
    assert!(told(&request).contains("is not a folder"));
    request.dockerfile = dir.path().to_owned();
    assert!(told(&request).contains("is not a file"));
}

#[test]
fn a_dockerfile_brings_its_own_ignore_file() {
    let dir = TempDir::new().unwrap();
    let request = request(&dir);
    fs::write(&request.dockerfile, "FROM scratch\n").unwrap();
    let places = |request| -> Vec<&str> {
        inputs(request)
            .unwrap()
            .iter()
            .map(|bind| bind.destination)
            .collect()
    };
    assert_eq!(
        places(&request),
        [arguments::DOCKERFILE, arguments::CONTEXT]
    );
    fs::write(dir.path().join("Dockerfile.dockerignore"), "*\n").unwrap();
    assert_eq!(
        places(&request),
        [
            arguments::DOCKERFILE,
            arguments::CONTEXT,
            arguments::DOCKERIGNORE
        ]
    );
    assert!(inputs(&request).unwrap().iter().all(|bind| bind.read_only));
}

#[test]
fn the_archive_is_one_file_of_its_folder() {
    let dir = TempDir::new().unwrap();
    let mut binds = Vec::new();
    let path = archive(&dir.path().join("image.tar"), &mut binds).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(binds[0].source, path.to_str().unwrap());
    assert!(!binds[0].read_only);
    let error = archive(&dir.path().join("none/image.tar"), &mut binds).unwrap_err();
    assert!(
        error.to_string().contains("cannot make the archive"),
        "{error}"
    );
}

#[test]
fn networks_and_flags_that_it_has_not_are_told() {
    let dir = TempDir::new().unwrap();
    let mut request = request(&dir);
    for (name, expected) in [
        (None, Network::Host),
        (Some("host"), Network::Host),
        (Some("none"), Network::None),
    ] {
        request.network = name.map(Into::into);
        assert_eq!(network(&request).unwrap(), expected);
    }
    request.network = Some("bridge\u{1b}".into());
    let error = network(&request).unwrap_err().to_string();
    assert!(
        error.contains("no network bridge") && !error.contains('\u{1b}'),
        "{error}"
    );
    request.network = None;
    request.engine_flags = vec!["--env=A=s3cret".into()];
    let error = network(&request).unwrap_err().to_string();
    assert!(
        error.contains("--env") && !error.contains("s3cret"),
        "{error}"
    );
}

//! Requests over HTTP, with TLS: how long they may take, whom they trust, and errors of one line that
//! show no address, which can hold a secret.

use std::{env, fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use ureq::{
    Agent, Timeout,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

/// How long a connection may take to come about, and a name to be looked up.
const CONNECT: Duration = Duration::from_secs(10);
/// How long nothing may come or go.
const STILL: Duration = Duration::from_secs(20);
/// Where distributions keep the certificates that a host trusts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Largest file of certificates that is read, in bytes.
const LARGEST: u64 = 16 << 20;

/// A client, whose requests take at most so long. It follows no redirects: a signature, or what is told to
/// a webhook, is for one host alone. Proxies are those of the environment, and none for what is `near`.
///
/// # Errors
/// Where certificates are named (AWS_CA_BUNDLE, SSL_CERT_FILE) that cannot be read.
pub fn agent(longest: Duration, near: bool) -> Result<Agent> {
    let tls = TlsConfig::builder().root_certs(trusted()?).build();
    let mut config = Agent::config_builder();
    if near {
        config = config.proxy(None);
    }
    let config = config
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("kcap/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(longest))
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(STILL))
        .timeout_per_write(Some(STILL))
        .timeout_recv_response(Some(STILL))
        .build();
    Ok(Agent::new_with_config(config))
}

/// Whom to trust: whom the environment names, else whom the host does, else whom Mozilla does.
fn trusted() -> Result<RootCerts> {
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        if let Some(path) = env::var_os(name).filter(|path| !path.is_empty()) {
            let path = path.to_string_lossy();
            return certificates(&path)
                .with_context(|| format!("cannot read the certificates of {name}, {path}"));
        }
    }
    // One that is not there, or damaged, is no obstacle.
    let host = BUNDLES.iter().find_map(|path| certificates(path).ok());
    Ok(host.unwrap_or(RootCerts::WebPki))
}

fn certificates(path: &str) -> Result<RootCerts> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() || meta.len() > LARGEST {
        bail!("it is no file of at most {LARGEST} bytes");
    }
    let pem = fs::read(path)?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        bail!("it holds no certificate in PEM");
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

/// What went wrong with a request, in a few words without its address.
pub fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => "no connection in time".into(),
        ureq::Error::Timeout(_) => "no answer in time".into(),
        ureq::Error::HostNotFound => "its host's name is not known".into(),
        ureq::Error::BadUri(_) => "the address is no URL of a host".into(),
        ureq::Error::Io(error) => error.to_string(),
        other => other
            .to_string()
            .chars()
            .flat_map(char::escape_debug)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_and_what_is_none_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let path = path.to_str().unwrap();
        assert!(certificates(path).is_err());
        fs::write(path, "no certificate\n").unwrap();
        let error = certificates(path).unwrap_err().to_string();
        assert_eq!(error, "it holds no certificate in PEM");
        assert!(certificates(dir.path().to_str().unwrap()).is_err());
    }

    #[test]
    fn nobody_there_is_an_error_of_one_line_without_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let agent = agent(Duration::from_secs(5), true).unwrap();
        let error = (agent.get(format!("http://{address}/secret")).call()).unwrap_err();
        let error = why(&error);
        assert!(
            error.contains("refused") && !error.contains("secret") && !error.contains('\n'),
            "{error}"
        );
    }
}

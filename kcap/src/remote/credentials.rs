//! Credentials for an object store, from where the AWS tools take them, in their order: the environment, a
//! service account's token (IRSA), the container's lender (EKS Pod Identity, ECS), the instance's metadata
//! (EC2). What is lent is renewed before it runs out.

use std::{
    fmt, fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rusty_s3::Credentials;
use serde::Deserialize;
use ureq::{Agent, Body, http::Response};
use url::{Url, form_urlencoded};

use super::http;

/// How long a lender may take.
const LONGEST: Duration = Duration::from_secs(5);
/// What is lent is renewed so many seconds before it ends: longer than a signature is to hold.
const EARLY: i64 = 600;
/// Largest answer of a lender, and largest token, in bytes.
const LARGEST: u64 = 64 << 10;
/// Where ECS lends, below AWS_CONTAINER_CREDENTIALS_RELATIVE_URI.
const ECS: &str = "http://169.254.170.2";
/// Where EC2 lends.
const EC2: &str = "http://169.254.169.254";
const EC2_CREDENTIALS: &str = "latest/meta-data/iam/security-credentials/";

/// Where they come from.
pub enum Source {
    /// They stay.
    Fixed(Credentials),
    /// They are lent for a time.
    Lent(Box<Lent>),
}

/// Credentials that are lent.
pub struct Lent {
    lender: Lender,
    /// It asks hosts nearby, by no proxy, or AWS's.
    agent: Agent,
    now: Mutex<Option<(Credentials, Timestamp)>>,
}

enum Lender {
    /// A role for a token that a file holds.
    Role {
        url: String,
        role: String,
        session: String,
        token: String,
    },
    /// A container's.
    Container { url: String, token: Token },
    /// An instance's.
    Instance { url: String },
}

/// What a container's lender is to be shown.
enum Token {
    None,
    Text(String),
    File(String),
}

/// A lender said no.
#[derive(Debug)]
pub struct NotLent(String);

impl fmt::Display for NotLent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotLent {}

impl Source {
    /// These.
    pub fn fixed(key: &str, secret: &str) -> Self {
        Self::Fixed(Credentials::new(key, secret))
    }

    /// Those that variables name. Nobody is asked yet.
    ///
    /// # Errors
    /// Where they name none.
    pub fn from_vars(var: &dyn Fn(&str) -> Option<String>, region: &str) -> Result<Self> {
        let var = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        if let (Some(key), Some(secret)) = (var("AWS_ACCESS_KEY_ID"), var("AWS_SECRET_ACCESS_KEY"))
        {
            return Ok(Self::Fixed(match var("AWS_SESSION_TOKEN") {
                Some(token) => Credentials::new_with_token(key, secret, token),
                None => Credentials::new(key, secret),
            }));
        }
        let lender = if let (Some(role), Some(token)) =
            (var("AWS_ROLE_ARN"), var("AWS_WEB_IDENTITY_TOKEN_FILE"))
        {
            Lender::Role {
                url: var("AWS_ENDPOINT_URL_STS")
                    .unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com/")),
                role,
                session: var("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "kcap".into()),
                token,
            }
        } else if let Some(url) = var("AWS_CONTAINER_CREDENTIALS_FULL_URI").or_else(|| {
            var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{ECS}{path}"))
        }) {
            let token = match (
                var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
                var("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            ) {
                (Some(file), _) => Token::File(file),
                (None, Some(text)) => Token::Text(text),
                (None, None) => Token::None,
            };
            Lender::Container { url, token }
        } else if var("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            bail!(
                "no credentials for the object store: set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL where it is not AWS's"
            );
        } else {
            let url = var("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| EC2.into());
            Lender::Instance { url }
        };
        let near = !matches!(lender, Lender::Role { .. });
        Ok(Self::Lent(Box::new(Lent {
            lender,
            agent: http::agent(LONGEST, near)?,
            now: Mutex::default(),
        })))
    }

    /// Those that hold now.
    ///
    /// # Errors
    /// Where they have run out and no others can be had: [`NotLent`] where that was refused.
    pub fn get(&self) -> Result<Credentials> {
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
            Self::Lent(lent) => lent.get(),
        }
    }
}

impl Lent {
    fn get(&self) -> Result<Credentials> {
        let mut held = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now().as_second();
        if let Some((credentials, end)) = &*held
            && end.as_second() - EARLY > now
        {
            return Ok(credentials.clone());
        }
        match (self.lender.lend(&self.agent), &*held) {
            (Ok(lent), _) => Ok(held.insert(lent).0.clone()),
            // They still hold.
            (Err(_), Some((credentials, end))) if end.as_second() > now => Ok(credentials.clone()),
            (Err(error), _) => Err(error),
        }
    }
}

impl Lender {
    fn lend(&self, agent: &Agent) -> Result<(Credentials, Timestamp)> {
        match self {
            Self::Role {
                url,
                role,
                session,
                token,
            } => {
                let cannot = || "cannot take the role of AWS_ROLE_ARN";
                let token = file(token, "AWS_WEB_IDENTITY_TOKEN_FILE")?;
                let form = form_urlencoded::Serializer::new(String::new())
                    .append_pair("Action", "AssumeRoleWithWebIdentity")
                    .append_pair("Version", "2011-06-15")
                    .append_pair("RoleArn", role)
                    .append_pair("RoleSessionName", session)
                    .append_pair("WebIdentityToken", &token)
                    .finish();
                let request = (agent.post(url))
                    .header("content-type", "application/x-www-form-urlencoded")
                    .send(form);
                let text = answer(request).with_context(cannot)?;
                from_xml(&text).with_context(cannot)
            }
            Self::Container { url, token } => {
                let cannot = || "cannot get the container's credentials";
                let token = match token {
                    Token::None => None,
                    Token::Text(text) => Some(text.clone()),
                    Token::File(path) => {
                        Some(file(path, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?)
                    }
                };
                let mut request = agent.get(url);
                if let Some(token) = token {
                    request = request.header("authorization", token);
                }
                let text = answer(request.call()).with_context(cannot)?;
                from_json(&text).with_context(cannot)
            }
            Self::Instance { url } => Self::instance(url, agent).context(
                "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL \
                 where it is not AWS's; an EC2 instance's role cannot be had",
            ),
        }
    }

    /// The second version of the protocol, which asks for a token first.
    fn instance(url: &str, agent: &Agent) -> Result<(Credentials, Timestamp)> {
        let base = Url::parse(url).context("AWS_EC2_METADATA_SERVICE_ENDPOINT is no URL")?;
        let at = |path: &str| base.join(path).map(String::from);
        let token = (agent.put(at("latest/api/token")?))
            .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
            // A host that is no instance of EC2 has nobody at that address.
            .config()
            .timeout_connect(Some(Duration::from_secs(1)))
            .build()
            .send_empty();
        let token = match token {
            // It is always there where there is one.
            Err(error) => return Err(NotLent(http::why(&error)).into()),
            sent => answer(sent)?,
        };
        let get = |path: &str| -> Result<String> {
            let request = agent.get(at(path)?);
            answer(
                request
                    .header("x-aws-ec2-metadata-token", token.trim())
                    .call(),
            )
        };
        let roles = get(EC2_CREDENTIALS)?;
        let role = roles.lines().next().unwrap_or_default().trim();
        from_json(&get(&format!("{EC2_CREDENTIALS}{role}"))?)
    }
}

/// A token that a file holds.
fn file(path: &str, variable: &str) -> Result<String> {
    let cannot = || format!("cannot read {path}, of {variable}");
    let meta = fs::metadata(path).with_context(cannot)?;
    if !meta.is_file() || meta.len() > LARGEST {
        bail!("{}: it is no file of at most {LARGEST} bytes", cannot());
    }
    let text = fs::read_to_string(path).with_context(cannot)?;
    Ok(text.trim().to_owned())
}

/// The text of a good answer. Of others only the status is told: they may hold anything.
fn answer(sent: Result<Response<Body>, ureq::Error>) -> Result<String> {
    let mut response = match sent {
        Ok(response) => response,
        Err(error) => bail!("{}", http::why(&error)),
    };
    let status = response.status().as_u16();
    match status {
        200..=299 => {}
        400..=499 if !matches!(status, 408 | 429) => {
            return Err(NotLent(format!("the answer is {status}")).into());
        }
        _ => bail!("the answer is {status}"),
    }
    let text = response.body_mut().with_config().limit(LARGEST);
    let text = text.read_to_string();
    text.map_err(|error| anyhow::anyhow!("{}", http::why(&error)))
}

fn lent(key: &str, secret: &str, token: &str, end: &str) -> Result<(Credentials, Timestamp)> {
    let end = (end.parse())
        .ok()
        .context("it does not say until when they hold")?;
    Ok((Credentials::new_with_token(key, secret, token), end))
}

fn from_json(text: &str) -> Result<(Credentials, Timestamp)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        access_key_id: String,
        secret_access_key: String,
        token: String,
        expiration: String,
    }
    // The parser's own words could hold a part of the text.
    let Ok(answer) = serde_json::from_str::<Answer>(text) else {
        bail!("the answer is not what credentials look like");
    };
    lent(
        &answer.access_key_id,
        &answer.secret_access_key,
        &answer.token,
        &answer.expiration,
    )
}

fn from_xml(text: &str) -> Result<(Credentials, Timestamp)> {
    let of = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    let (Some(key), Some(secret), Some(token), Some(end)) = (
        of("AccessKeyId"),
        of("SecretAccessKey"),
        of("SessionToken"),
        of("Expiration"),
    ) else {
        bail!("the answer is not what credentials look like");
    };
    lent(key, secret, token, end)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
        sync::mpsc,
        thread,
    };

    use super::*;

    /// Answers requests in turn, and hands on what they were: their lines, and their body.
    fn lender(answers: Vec<String>) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") {
                    reader.read_line(&mut request).unwrap();
                }
                let head = request.to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                request.push_str(std::str::from_utf8(&body).unwrap());
                tell.send(request).unwrap();
                let (status, text) = answer.split_once(' ').unwrap();
                let length = text.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
                )
                .unwrap();
            }
        });
        (url, told)
    }

    fn source(vars: &[(&str, &str)]) -> Result<Source> {
        let var = |name: &str| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Source::from_vars(&var, "eu-west-1")
    }

    fn json(key: &str, seconds: i64) -> String {
        let end = Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap();
        format!(
            "200 {{\"AccessKeyId\": \"{key}\", \"SecretAccessKey\": \"s/+\", \"Token\": \"t=\", \
             \"Expiration\": \"{end}\"}}"
        )
    }

    #[test]
    fn the_environment_comes_first_and_none_is_said() {
        let all = [
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_SESSION_TOKEN", "t"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1"),
        ];
        let found = source(&all).unwrap().get().unwrap();
        assert_eq!(
            (found.key(), found.secret(), found.token()),
            ("k", "s", Some("t"))
        );
        let found = source(&all[..2]).unwrap().get().unwrap();
        assert_eq!(found.token(), None);
        let none = source(&[
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]);
        let error = none.err().expect("none").to_string();
        assert!(error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
    }

    #[test]
    fn a_container_s_are_renewed_in_time_and_kept_while_they_hold() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "Bearer x\n").unwrap();
        let (url, told) = lender(vec![
            json("one", 300),
            "500 later".into(),
            json("two", 3600),
        ]);
        let source = source(&[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                file.path().to_str().unwrap(),
            ),
        ])
        .unwrap();
        // The first soon end; their successors cannot be had at once, and then last.
        for key in ["one", "one", "two", "two"] {
            let found = source.get().unwrap();
            assert_eq!(
                (found.key(), found.secret(), found.token()),
                (key, "s/+", Some("t="))
            );
        }
        let asked: Vec<String> = told.try_iter().collect();
        assert_eq!(asked.len(), 3);
        assert!(asked[0].starts_with("GET / "), "{asked:?}");
        assert!(
            asked[0].contains("authorization: Bearer x\r\n"),
            "{asked:?}"
        );
    }

    #[test]
    fn a_role_is_taken_for_a_token_and_a_refusal_tells_nothing_of_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "ey.to+ken").unwrap();
        let end = Timestamp::from_second(Timestamp::now().as_second() + 3600).unwrap();
        let (url, told) = lender(vec![
            format!(
                "200 <AssumeRoleWithWebIdentityResponse><Credentials><AccessKeyId>k</AccessKeyId>\
                 <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{end}\
                 </Expiration></Credentials></AssumeRoleWithWebIdentityResponse>"
            ),
            "403 <Message>ey.to+ken</Message>".into(),
            "200 nonsense ey.to+ken".into(),
        ]);
        let vars = [
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/kcap"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file.path().to_str().unwrap()),
            ("AWS_ENDPOINT_URL_STS", &url),
        ];
        let found = source(&vars).unwrap().get().unwrap();
        assert_eq!((found.key(), found.token()), ("k", Some("t")));
        let asked = told.recv().unwrap();
        assert!(
            asked.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fkcap"),
            "{asked}"
        );
        assert!(asked.contains("WebIdentityToken=ey.to%2Bken"), "{asked}");
        let error = source(&vars).unwrap().get().unwrap_err();
        assert!(error.is::<NotLent>());
        for error in [error, source(&vars).unwrap().get().unwrap_err()] {
            let error = format!("{error:#}");
            assert!(error.starts_with("cannot take the role"), "{error}");
            assert!(!error.contains("ey.to") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_instance_s_are_had_by_a_token() {
        let (url, told) = lender(vec![
            "200 secret-token".into(),
            "200 node-role\n".into(),
            json("k", 3600),
        ]);
        let of = |url: &str| source(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)]).unwrap();
        assert_eq!(of(&url).get().unwrap().key(), "k");
        let asked: Vec<String> = told.try_iter().collect();
        assert!(asked[0].starts_with("PUT /latest/api/token "), "{asked:?}");
        assert!(
            asked[2].starts_with(&format!("GET /{EC2_CREDENTIALS}node-role ")),
            "{asked:?}"
        );
        assert!(
            asked[2].contains("x-aws-ec2-metadata-token: secret-token"),
            "{asked:?}"
        );
    }
}

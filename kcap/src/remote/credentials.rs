//! Credentials for an object store, from where the AWS tools take them.

use anyhow::{Result, bail};
use rusty_s3::Credentials;
use ureq::Agent;

/// Where they come from.
pub enum Source {
    /// They stay.
    Fixed(Credentials),
}

impl Source {
    /// These.
    pub fn fixed(key: &str, secret: &str) -> Self {
        Self::Fixed(Credentials::new(key, secret))
    }

    /// Those that the environment names.
    ///
    /// # Errors
    /// Where it names none.
    pub fn from_env(_agent: &Agent, _region: &str) -> Result<Self> {
        if let Some(credentials) = Credentials::from_env() {
            return Ok(Self::Fixed(credentials));
        }
        bail!(
            "no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and \
             AWS_ENDPOINT_URL where it is not AWS's"
        )
    }

    /// Those that hold now.
    ///
    /// # Errors
    /// Where they have run out and no others can be had.
    pub fn get(&self, _agent: &Agent) -> Result<Credentials> {
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
        }
    }
}

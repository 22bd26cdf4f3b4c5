//! A registry on this machine, for as long as it is kept: Kaniko takes base images from nowhere
//! else.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::setup;

/// A running registry; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    server: Child,
    address: String,
}

/// The configuration of one that serves the images in `data` at `address`.
pub fn settings(data: &Path, address: &str) -> String {
    format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
        serde_json::Value::from(data.to_string_lossy())
    )
}

impl Registry {
    /// Starts one that keeps its images in a new folder `place`.
    ///
    /// # Errors
    /// Where it does not start, or does not answer within ten seconds.
    pub fn start(place: &Path) -> Result<Self> {
        Self::serve(place, &place.join("data"))
    }

    /// Starts one with the images in `data`, and everything else in a new folder `place`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn serve(place: &Path, data: &Path) -> Result<Self> {
        fs::create_dir(place).with_context(|| format!("cannot make {}", place.display()))?;
        // Free a moment ago; were it taken meanwhile, the registry says so and ends.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .context("cannot find a free port")?
            .port();
        let address = format!("127.0.0.1:{port}");
        let config = place.join("config.yml");
        fs::write(&config, settings(data, &address))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let log = fs::File::create(place.join("log")).context("cannot make the registry's log")?;
        let mut command = Command::new(setup::registry()?);
        command
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Its own group: an interrupt at the terminal is for the build.
            .process_group(0);
        // SAFETY: prctl is async-signal-safe, takes no pointers here, and is all that runs
        // between fork and exec.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let server = command
            .spawn()
            .context("cannot run docker-registry: run `cargo xtask setup --for kaniko`")?;
        let mut registry = Self { server, address };
        registry.wait(&place.join("log"))?;
        Ok(registry)
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn wait(&mut self, log: &Path) -> Result<()> {
        for _ in 0..100 {
            if TcpStream::connect(&self.address).is_ok() {
                return Ok(());
            }
            if let Some(status) = self
                .server
                .try_wait()
                .context("cannot wait for the registry")?
            {
                let said = fs::read_to_string(log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                bail!("the local registry ended ({status}): {last}");
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("the local registry at {} does not answer", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

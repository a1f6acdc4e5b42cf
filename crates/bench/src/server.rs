//! The process under measurement: starting it, its CPU time and its memory, and ending it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::blocking;
use crate::load::Transport;

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) rest: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

impl Server {
    /// A bare echo: this same program in a process of its own. It says its port on its first line.
    pub(crate) fn echo(transport: Transport) -> Result<Server> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["echo", transport.name()])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address =
            line.trim().parse().with_context(|| format!("the echo said {line:?}, not its address"))?;
        Ok(Server { child, rest: address, grpc: address })
    }

    /// Salver on free ports, with its log in `log`. Returns at once: the ports may not be open yet.
    pub(crate) fn salver(binary: &Path, models: &Path, arguments: &[&str], log: &Path) -> Result<Server> {
        let (rest, grpc) = (free_address()?, free_address()?);
        let out = File::create(log)?;
        let child = Command::new(binary)
            .arg("serve")
            .arg(models)
            .arg("--host=127.0.0.1")
            .arg(format!("--port={}", grpc.port()))
            .arg(format!("--rest_api_port={}", rest.port()))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            .spawn()
            .with_context(|| format!("{} does not start", binary.display()))?;
        Ok(Server { child, rest, grpc })
    }

    /// Waits until `/readyz` says yes.
    pub(crate) fn wait_ready(&mut self, log: &Path) -> Result<()> {
        let give_up = Instant::now() + Duration::from_secs(20);
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", tail(log));
            }
            if blocking::get(self.rest, "/readyz").is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("the server is not ready after 20 s:\n{}", tail(log))
    }

    pub(crate) fn address(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Rest => self.rest,
            Transport::Grpc => self.grpc,
        }
    }

    /// CPU time that the threads alive now have used: user and kernel, in nanoseconds from the scheduler.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that ends here has no file any more.
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            total += text.split_whitespace().next().map_or(Ok(0), str::parse)?;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Whether the process has ended; nobody has waited for it yet.
    pub(crate) fn has_ended(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        status.is_ok_and(|status| status.lines().any(|line| line.starts_with("State:\tZ")))
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        self.resident("VmRSS:")
    }

    /// Resident memory that is not a file's, in bytes: what the process itself has asked for.
    pub(crate) fn own_memory(&self) -> Result<u64> {
        self.resident("RssAnon:")
    }

    fn resident(&self, which: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix(which)).context("the process has ended")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A port that nobody listens on now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

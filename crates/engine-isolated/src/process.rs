//! A worker process that was started: its end is waited for, and never missed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Spawn;
use crate::socket::Socket;

/// Time that a worker gets to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// A process, and the socket that the server speaks to it by. Dropping it ends the process and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    handle: Arc<OwnedFd>,
    control: Arc<Socket>,
}

impl Process {
    /// Starts a worker. The calling thread must live as long as it: the worker is killed when that thread ends.
    ///
    /// # Errors
    /// When it cannot be started or watched.
    pub(crate) fn start(spawn: &Spawn, what: &str) -> io::Result<Process> {
        let (ours, theirs) = Socket::pair()?;
        let mut command = spawn.command(what)?;
        // What a library prints goes where the log goes.
        let output = io::stderr().as_fd().try_clone_to_owned().map_or_else(|_| Stdio::null(), Stdio::from);
        // A signal for all that runs in a terminal's foreground (Ctrl-C) must not end it before it can ignore it.
        command.process_group(0);
        let mut child = command.stdin(theirs.into_fd()).stdout(output).spawn()?;
        // The command holds the worker's end, whose closing shows that the worker ended.
        drop(command);
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => Ok(Process { child, handle: Arc::new(handle), control: Arc::new(ours) }),
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                Err(error.into())
            }
        }
    }

    /// The socket on which the worker waits for messages.
    pub(crate) fn control(&self) -> &Arc<Socket> {
        &self.control
    }

    /// A descriptor that becomes readable when the process ends, and by which it can be killed.
    pub(crate) fn handle(&self) -> &Arc<OwnedFd> {
        &self.handle
    }

    /// Closes the socket, which a worker takes as the word to end, and gives it a while before it is killed.
    pub(crate) fn close(self) {
        self.control.close();
        if !wait(&[self.handle.as_fd()], Some(GRACE)).is_ok_and(|ready| ready[0]) {
            tracing::warn!("the process {} of an engine does not end and is killed", self.child.id());
        }
    }

    /// Waits for the process to end, which it has done or is about to; one that does not is killed. Says how it ended.
    pub(crate) fn end(mut self) -> String {
        if !wait(&[self.handle.as_fd()], Some(GRACE)).is_ok_and(|ready| ready[0]) {
            kill(&self.handle);
        }
        self.child.wait().map_or_else(|error| error.to_string(), how)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that was reaped before.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Kills the process; one that ended stays as it is.
pub(crate) fn kill(handle: &OwnedFd) {
    if let Err(error) = pidfd_send_signal(handle, Signal::KILL) {
        tracing::debug!("the process of an engine has ended before it is killed: {error}");
    }
}

/// Signals that end a process whose code is at fault, and those that are sent to end one.
const SIGNALS: [(i32, &str); 9] = [
    (2, "SIGINT"),
    (4, "SIGILL"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (15, "SIGTERM"),
    (31, "SIGSYS"),
];

fn how(status: ExitStatus) -> String {
    if let Some(code) = status.code() {
        return format!("exit code {code}");
    }
    let number = status.signal().unwrap_or_default();
    match SIGNALS.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => format!("signal {number}, {name}"),
        None => format!("signal {number}"),
    }
}

/// Waits until one of the descriptors can be read or is closed on the other side, and says which. None can when the time is
/// over.
///
/// # Errors
/// When the kernel cannot wait.
#[expect(clippy::disallowed_methods, reason = "a driver reads the clock: signals interrupt waits")]
pub(crate) fn wait(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut polled, left.as_ref()) {
            Ok(_) => return Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_its_cause() {
        for (status, expected) in [
            (ExitStatus::from_raw(0), "exit code 0"),
            (ExitStatus::from_raw(7 << 8), "exit code 7"),
            (ExitStatus::from_raw(11), "signal 11, SIGSEGV"),
            (ExitStatus::from_raw(6 | 0x80), "signal 6, SIGABRT"),
            (ExitStatus::from_raw(40), "signal 40"),
        ] {
            assert_eq!(how(status), expected);
        }
    }
}

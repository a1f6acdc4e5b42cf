//! A server with all its processes: starting it, its CPU time and memory together, and ending it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::blocking;
use crate::load::{Target, Transport};
use crate::server::tail;

const READY: Duration = Duration::from_secs(90);
/// How long a server may take to end by itself.
const END: Duration = Duration::from_secs(4);
/// How often memory is read under load.
const SAMPLE: Duration = Duration::from_millis(20);

/// A running server; it is ended with all its processes when this is dropped.
#[derive(Debug)]
pub(crate) struct Tree {
    child: Child,
    rest: SocketAddr,
    grpc: SocketAddr,
    log: PathBuf,
    pub(crate) started: Instant,
    /// All processes that it was seen to have: those of a server that ends by itself are ended too.
    known: Mutex<Vec<Member>>,
}

/// One process, told from another that has the same number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    id: i32,
    parent: i32,
    /// CPU time of it and of the children that it has waited for, in clock ticks.
    ticks: u64,
    started: u64,
    has_ended: bool,
}

impl Tree {
    /// Starts the program with its output in `log`. Returns at once: the ports may not be open yet.
    pub(crate) fn start(
        mut command: Command,
        rest: SocketAddr,
        grpc: SocketAddr,
        log: &Path,
    ) -> Result<Tree> {
        let out = File::create(log)?;
        Tree::spawn(command.stdout(out.try_clone()?), out, [rest, grpc], log)
    }

    /// The same with only the errors in `log`, and what it prints somewhere else.
    pub(crate) fn start_into(
        mut command: Command,
        to: impl Into<Stdio>,
        rest: SocketAddr,
        grpc: SocketAddr,
        log: &Path,
    ) -> Result<Tree> {
        Tree::spawn(command.stdout(to), File::create(log)?, [rest, grpc], log)
    }

    fn spawn(command: &mut Command, errors: File, [rest, grpc]: [SocketAddr; 2], log: &Path) -> Result<Tree> {
        let program = command.get_program().to_string_lossy().into_owned();
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("{program} does not start"))?;
        Ok(Tree { child, rest, grpc, log: log.to_owned(), started, known: Mutex::default() })
    }

    /// Waits until `path` has been answered in `n_answers` different ways.
    pub(crate) fn wait_ready(&mut self, path: &str, n_answers: usize) -> Result<()> {
        let give_up = Instant::now() + READY;
        let mut answers = Vec::new();
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", tail(&self.log));
            }
            match blocking::get(self.rest, path) {
                Ok(answer) if answer.status == 200 && !answers.contains(&answer.body) => {
                    answers.push(answer.body)
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
            if answers.len() >= n_answers {
                self.members();
                return Ok(());
            }
        }
        bail!("the server is not ready after {} s:\n{}", READY.as_secs(), tail(&self.log))
    }

    /// The last lines that it has said.
    pub(crate) fn said(&self) -> String {
        tail(&self.log)
    }

    /// Resident memory of all its processes together, in bytes. Pages that several have count for each.
    pub(crate) fn memory(&self) -> u64 {
        self.members().into_iter().map(|member| resident(member.id)).sum()
    }

    /// What `work` gives, and the most memory while it ran.
    pub(crate) fn peak<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let members = self.members();
        let over = AtomicBool::new(false);
        let read = || members.iter().map(|member| resident(member.id)).sum::<u64>();
        std::thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut peak = read();
                while !over.load(Ordering::Relaxed) {
                    std::thread::park_timeout(SAMPLE);
                    peak = peak.max(read());
                }
                peak
            });
            let done = work();
            over.store(true, Ordering::Relaxed);
            sampler.thread().unpark();
            (done, sampler.join().unwrap_or(0))
        })
    }

    fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Whether the server's own process has ended; nobody has waited for it yet.
    pub(crate) fn has_ended(&self) -> bool {
        read_process(self.id()).is_none_or(|root| root.has_ended)
    }

    /// Whether the server's own process has ended with status 0. It has ended.
    pub(crate) fn has_succeeded(&mut self) -> Result<bool> {
        Ok(self.child.wait()?.success())
    }

    /// Ends the process at once, as a crash would.
    pub(crate) fn kill(mut self) {
        // One that has ended is not to be killed any more.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }

    /// The server's process and all that come from it.
    fn members(&self) -> Vec<Member> {
        let members = family(self.id(), &processes());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for member in &members {
            if !known.iter().any(|other| other.is(member)) {
                known.push(*member);
            }
        }
        members
    }

    fn end(&mut self) {
        self.members();
        signal(self.id(), Signal::TERM);
        let give_up = Instant::now() + END;
        while Instant::now() < give_up && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        for member in self.known.get_mut().unwrap_or_else(PoisonError::into_inner) {
            if read_process(member.id).is_some_and(|now| now.is(member)) {
                signal(member.id, Signal::KILL);
            }
        }
        let _ended = self.child.wait();
    }
}

impl Member {
    fn is(&self, other: &Member) -> bool {
        (self.id, self.started) == (other.id, other.started)
    }
}

impl Target for Tree {
    fn address(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Rest => self.rest,
            Transport::Grpc => self.grpc,
        }
    }

    /// That of all processes, with threads and children that have ended, as the kernel's clock ticks tell it.
    fn cpu(&self) -> Result<Duration> {
        let ticks: u64 = self.members().iter().map(|member| member.ticks).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.end();
    }
}

fn signal(id: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(id) {
        // A process that has ended takes no signal, which is what is wanted of it.
        let _gone = kill_process(pid, signal);
    }
}

fn processes() -> Vec<Member> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = folders.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(read_process).collect()
}

fn read_process(id: i32) -> Option<Member> {
    parse_process(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// A line of `/proc/ID/stat`, see proc(5): the name stands in brackets and may hold anything.
fn parse_process(line: &str) -> Option<Member> {
    let (head, rest) = line.rsplit_once(')')?;
    let id = head.split_once(' ')?.0.parse().ok()?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
    let has_ended = matches!(*fields.first()?, "Z" | "X");
    Some(Member { id, parent: fields.get(1)?.parse().ok()?, ticks, started: number(22)?, has_ended })
}

/// The process `root` and its descendants.
fn family(root: i32, all: &[Member]) -> Vec<Member> {
    let mut found: Vec<Member> = all.iter().copied().filter(|member| member.id == root).collect();
    let mut at = 0;
    while let Some(parent) = found.get(at).map(|member| member.id) {
        found.extend(all.iter().copied().filter(|member| member.parent == parent && member.id != parent));
        at += 1;
    }
    found
}

fn resident(id: i32) -> u64 {
    // A process that has ended has no memory.
    let text = std::fs::read_to_string(format!("/proc/{id}/statm")).unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_from_its_line() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 5 0 999 1 2 3";
        let expected = Member { id: 42, parent: 7, ticks: 100, started: 999, has_ended: false };
        assert_eq!(parse_process(line), Some(expected));
        assert_eq!(parse_process(&line.replace(") S", ") Z")), Some(Member { has_ended: true, ..expected }));
        for line in ["", "42 (a)", "42 (a) S 7 1", "x (a) S 7 42 42 0 -1 0 1 2 3 4 1 2 3 4 20 0 5 0 9"] {
            assert_eq!(parse_process(line), None, "{line}");
        }
    }

    #[test]
    fn a_family_is_all_that_come_from_one() {
        let member = |id, parent| Member { id, parent, ticks: 0, started: 0, has_ended: false };
        let all = [member(1, 0), member(2, 1), member(5, 2), member(3, 1), member(4, 9)];
        for (root, expected) in [(1, vec![1, 2, 3, 5]), (2, vec![2, 5]), (4, vec![4]), (8, vec![])] {
            let ids: Vec<i32> = family(root, &all).iter().map(|member| member.id).collect();
            assert_eq!(ids, expected, "{root}");
        }
    }
}

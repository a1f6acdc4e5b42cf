//! Processor time and memory of a process and all that it started, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::error::{Error, Kind};

/// A process and its descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessTree {
    pid: u32,
}

/// What a tree has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Processor time since its start, of descendants that have ended and were waited for too.
    pub cpu: Duration,
    /// Memory that is resident now, in bytes. Pages that processes share count for each of them.
    pub rss: u64,
}

impl ProcessTree {
    /// The tree below this process.
    ///
    /// # Errors
    /// [`Kind::Input`] when there is none or it may not be looked at.
    pub fn new(pid: u32) -> Result<ProcessTree, Error> {
        let tree = ProcessTree { pid };
        tree.used().map(|_| tree)
    }

    /// The process at the root.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// [`Kind::System`] when the process has ended.
    pub fn used(self) -> Result<Used, Error> {
        let all = processes();
        if !all.contains_key(&self.pid) {
            return Err(Error::new(
                Kind::System,
                format!("there is no process {} that can be looked at", self.pid),
            ));
        }
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as u64;
        let mut used = Used::default();
        for pid in tree(self.pid, &all) {
            if let Some(one) = all.get(&pid) {
                used.cpu += Duration::from_secs_f64(one.ticks as f64 * tick);
                used.rss += one.pages * page;
            }
        }
        Ok(used)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// Processor time, that of children that were waited for included.
    ticks: u64,
    /// Resident memory.
    pages: u64,
}

fn processes() -> BTreeMap<u32, Process> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

/// Reads `/proc/PID/stat`; fields are counted from behind the name, which may hold anything (proc_pid_stat(5)).
fn parse(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The state, which comes first here, is field 3 of the manual.
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<i64>().ok());
    let ticks = (14..=17).map(field).sum::<Option<i64>>()?;
    Some(Process {
        parent: u32::try_from(field(4)?).ok()?,
        ticks: u64::try_from(ticks).ok()?,
        pages: u64::try_from(field(24)?).ok()?,
    })
}

/// A process and its descendants.
fn tree(root: u32, all: &BTreeMap<u32, Process>) -> Vec<u32> {
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(parent) = tree.get(at).copied() {
        at += 1;
        for (pid, process) in all {
            if process.parent == parent && !tree.contains(pid) {
                tree.push(*pid);
            }
        }
    }
    tree
}

/// The process that listens on this TCP port of this machine, where that may be seen. The one with the lowest number, if
/// several have the socket: it is the parent.
pub fn listening_on(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let sockets: Vec<String> = tables
        .iter()
        .flat_map(|table| inodes(table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let has_socket = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
    };
    processes().into_keys().find(has_socket)
}

/// The sockets that listen on a port, from a table of `/proc/net/tcp` (proc_pid_net(5)).
fn inodes(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let fits = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
        fits.then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let rest = "S 7 1 1 0 -1 4194560 100 0 0 0 10 20 3 4 20 0 9 0 100 5000000 250 18446744073709551615 1";
        let expected = Process { parent: 7, ticks: 37, pages: 250 };
        assert_eq!(parse(&format!("42 (a) b) {rest}")), Some(expected));
        assert_eq!(parse("42 (a"), None);
        assert_eq!(parse("42 (a) S 1 2"), None);
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2134 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9876 1\n\
             1: 0100007F:2134 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 1111 1\n\
             2: broken\n";
        assert_eq!(inodes(table, 8500), [9876]);
        assert_eq!(inodes(table, 8501), [] as [u64; 0]);
    }

    #[test]
    fn a_tree_holds_descendants_once() {
        let process = |parent| Process { parent, ticks: 0, pages: 0 };
        let all = BTreeMap::from([
            (1, process(0)),
            (2, process(1)),
            (3, process(2)),
            (4, process(1)),
            (5, process(5)),
        ]);
        assert_eq!(tree(1, &all), [1, 2, 4, 3]);
        assert_eq!(tree(5, &all), [5]);
    }

    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = std::process::id();
        assert_eq!(listening_on(listener.local_addr().unwrap().port()), Some(own));
        assert!(ProcessTree::new(own).unwrap().used().unwrap().rss > 0);
        assert!(ProcessTree::new(u32::MAX).is_err());
    }
}

//! The clocks and the memory of this process.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Where time and memory are read. Tests pass one that they drive.
pub trait Meter: Debug + Sync {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;

    /// Time that all threads of this process have computed.
    fn cpu(&self) -> Duration;

    /// What this process holds; `None` where the system does not say.
    fn memory(&self) -> Option<MemoryUse>;
}

/// Memory of a process that lies in RAM, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Pages of its own.
    pub own: u64,
    /// Pages of files, such as shared libraries and weights that are mapped.
    pub files: u64,
}

/// This machine.
#[derive(Debug)]
pub struct Machine {
    started: Instant,
}

impl Machine {
    /// This machine, from now on.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is passed")]
    pub fn new() -> Machine {
        Machine { started: Instant::now() }
    }
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new()
    }
}

impl Meter for Machine {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn cpu(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let whole = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(whole, u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    /// Reads `/proc/self/status` (see proc(5)); other systems have no such file.
    fn memory(&self) -> Option<MemoryUse> {
        parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
    }
}

fn parse_status(text: &str) -> Option<MemoryUse> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    };
    Some(MemoryUse { own: field("RssAnon")?, files: field("RssFile")?.saturating_add(field("RssShmem")?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_apart() {
        let text = "Name:\tsalver\nVmRSS:\t  300 kB\nRssAnon:\t     100 kB\nRssFile:\t     150 kB\nRssShmem:\t      50 kB\n";
        let expected = MemoryUse { own: 100 << 10, files: 200 << 10 };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status("RssAnon:\t12 kB\n"), None);
        assert_eq!(parse_status("RssAnon:\tmany kB\nRssFile:\t1 kB\nRssShmem:\t1 kB\n"), None);
    }

    #[test]
    fn clocks_go_forward() {
        let machine = Machine::new();
        let (now, cpu) = (machine.now(), machine.cpu());
        assert!(machine.now() >= now && machine.cpu() >= cpu);
    }
}

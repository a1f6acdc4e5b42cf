//! Lanes on processors of their own.

use std::num::NonZeroUsize;

/// Puts the calling thread, and threads that it starts, on `threads` of the processors that this process may use, from
/// number `first` of them on, counted round. Says what does not work.
#[cfg(target_os = "linux")]
pub(crate) fn pin(first: usize, threads: NonZeroUsize) -> Result<(), std::io::Error> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let allowed = sched_getaffinity(None)?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let mut own = CpuSet::new();
    for at in places(first, threads.get(), allowed.len()) {
        own.set(allowed[at]);
    }
    Ok(sched_setaffinity(None, &own)?)
}

/// There is no such call here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_first: usize, _threads: NonZeroUsize) -> Result<(), std::io::Error> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// The places of a lane among `n` processors: `threads` in a row, as far as there are so many.
#[cfg(any(target_os = "linux", test))]
fn places(first: usize, threads: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..threads.min(n)).map(move |at| first.wrapping_add(at) % n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_go_round_the_processors() {
        let check = |first, threads, n, expected: &[usize]| {
            assert_eq!(places(first, threads, n).collect::<Vec<_>>(), expected, "{first} {threads} {n}");
        };
        check(0, 1, 4, &[0]);
        check(3, 1, 4, &[3]);
        check(4, 1, 4, &[0]);
        check(2, 2, 4, &[2, 3]);
        check(3, 3, 4, &[3, 0, 1]);
        check(45, 9, 2, &[1, 0]);
        check(0, 1, 0, &[]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_pinned_thread_stays_where_it_is_put() {
        let thread = std::thread::spawn(|| {
            let before = rustix::thread::sched_getaffinity(None).unwrap();
            pin(0, NonZeroUsize::MIN).unwrap();
            let after = rustix::thread::sched_getaffinity(None).unwrap();
            (before.count(), after.count())
        });
        let (before, after) = thread.join().unwrap();
        assert!(before >= 1);
        assert_eq!(after, 1);
    }
}

//! The thread pools that models run in. rten hands each run over to a pool of its own unless the calling thread is a
//! worker of that pool, and the hand-over costs far more than a small model; so a thread that runs models enters a
//! pool once.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rten::ThreadPool;

/// Pools kept for the next thread to enter.
const MAX_IDLE: usize = 64;

static IDLE: Mutex<Vec<(NonZeroUsize, Arc<ThreadPool>)>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: RefCell<Option<Arc<ThreadPool>>> = const { RefCell::new(None) };
}

/// The pool that the calling thread is a worker of.
pub(crate) fn current() -> Option<Arc<ThreadPool>> {
    CURRENT.with_borrow(Option::clone)
}

pub(crate) fn is_entered() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Runs `body` as a worker of a pool that is nobody else's meanwhile. A thread that is in one already stays there.
pub(crate) fn enter(threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
    if is_entered() {
        return body();
    }
    let lease = Lease::take(threads);
    let pool = lease.pool.clone();
    lease.pool.run(|| {
        let _leave = Leave::mark(pool);
        body();
    });
}

fn idle() -> MutexGuard<'static, Vec<(NonZeroUsize, Arc<ThreadPool>)>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pool taken from the idle ones or made, and given back when dropped.
struct Lease {
    threads: NonZeroUsize,
    pool: Arc<ThreadPool>,
}

impl Lease {
    fn take(threads: NonZeroUsize) -> Lease {
        let mut idle = idle();
        let found = idle.iter().position(|(n, _)| *n == threads).map(|at| idle.swap_remove(at).1);
        drop(idle);
        let pool = found.unwrap_or_else(|| Arc::new(ThreadPool::with_num_threads(threads.get())));
        Lease { threads, pool }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut idle = idle();
        if idle.len() < MAX_IDLE {
            idle.push((self.threads, self.pool.clone()));
        }
    }
}

/// Marks the thread as inside a pool until dropped.
struct Leave;

impl Leave {
    fn mark(pool: Arc<ThreadPool>) -> Leave {
        CURRENT.set(Some(pool));
        Leave
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_entered_inside_only_and_pools_are_reused() {
        let threads = NonZeroUsize::new(3).unwrap();
        let mut pools = Vec::new();
        for _ in 0..2 {
            enter(threads, &mut || {
                pools.push(Arc::as_ptr(&current().unwrap()) as usize);
                enter(NonZeroUsize::MIN, &mut || assert!(is_entered()));
                assert!(is_entered());
            });
            assert!(!is_entered());
        }
        assert_eq!(pools[0], pools[1]);
    }

    #[test]
    fn a_panic_leaves_the_pool() {
        let result = std::panic::catch_unwind(|| enter(NonZeroUsize::MIN, &mut || panic!("on purpose")));
        assert!(result.is_err());
        enter(NonZeroUsize::MIN, &mut || assert!(is_entered()));
        assert!(!is_entered());
    }
}

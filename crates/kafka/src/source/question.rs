//! A question to the brokers that nobody waits for, on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Whether nobody wants to know any more.
#[derive(Debug, Clone, Default)]
pub(super) struct IsOver(Arc<AtomicBool>);

impl IsOver {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A question that is on its way. Dropping it waits for its thread, which ends as soon as it has looked at [`IsOver`].
///
/// The thread has the client, too, and must not be the one that ends it: that would be inside of its own call.
#[derive(Debug)]
pub(super) struct Question {
    is_over: IsOver,
    thread: Option<JoinHandle<()>>,
}

impl Question {
    /// Starts the thread. What it does looks at [`IsOver`] between its calls.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn start(name: &str, ask: impl FnOnce(&IsOver) + Send + 'static) -> io::Result<Question> {
        let is_over = IsOver::default();
        let asked = is_over.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || ask(&asked))?;
        Ok(Question { is_over, thread: Some(thread) })
    }

    /// Whether its thread has ended.
    pub(super) fn is_answered(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.is_over.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread that asks brokers has panicked");
        }
    }
}

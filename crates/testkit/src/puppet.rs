//! Models that are not there: one whose runs a test sees and answers by hand, one that is a closure.

mod engine;
mod function;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use salver_engine::{Error, ErrorKind, Model, Session};
use salver_tensor::{Signature, Tensor};

pub use engine::PuppetEngine;
pub use function::{FnModel, half_plus_two_signature};

/// Runs that may wait for the test at once; more than any test starts threads.
const MAX_PENDING: usize = 1024;

thread_local! {
    /// How many [`Model::enter`] calls of puppets the thread is inside of.
    static ENTERED: Cell<usize> = const { Cell::new(0) };
}

/// Runs `body` as entered, also when it panics.
fn enter_here(body: &mut (dyn FnMut() + Send)) {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            ENTERED.set(ENTERED.get() - 1);
        }
    }
    ENTERED.set(ENTERED.get() + 1);
    let _leave = Leave;
    body();
}

fn is_entered_here() -> bool {
    ENTERED.get() > 0
}

/// A model whose every run blocks until the test replies through its [`Puppet`].
#[derive(Debug)]
pub struct PuppetModel {
    signatures: Vec<Arc<Signature>>,
    runs: SyncSender<PendingRun>,
    n_sessions: AtomicUsize,
}

/// The test's end of a [`PuppetModel`]. When it is dropped, runs that wait and later ones fail as internal errors.
#[derive(Debug)]
pub struct Puppet {
    runs: Mutex<Receiver<PendingRun>>,
}

/// One run that waits for its reply. Dropped without one, the run fails as an internal error.
#[derive(Debug)]
pub struct PendingRun {
    signature: usize,
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    entered: bool,
    reply: SyncSender<Reply>,
}

#[derive(Debug)]
enum Reply {
    Answer(Result<Vec<Tensor>, Error>),
    Panic(String),
}

impl PuppetModel {
    /// A model of one signature, and the test's end of it.
    pub fn new(signature: Signature) -> (Arc<PuppetModel>, Puppet) {
        PuppetModel::with_signatures(vec![signature])
    }

    /// A model of several signatures, and the test's end of it.
    pub fn with_signatures(signatures: Vec<Signature>) -> (Arc<PuppetModel>, Puppet) {
        let (sender, receiver) = sync_channel(MAX_PENDING);
        let signatures = signatures.into_iter().map(Arc::new).collect();
        let model = PuppetModel { signatures, runs: sender, n_sessions: AtomicUsize::new(0) };
        (Arc::new(model), Puppet { runs: Mutex::new(receiver) })
    }

    /// Sessions made so far.
    pub fn n_sessions(&self) -> usize {
        self.n_sessions.load(Ordering::SeqCst)
    }
}

impl Model for PuppetModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        self.n_sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(PuppetSession { runs: self.runs.clone() }))
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        enter_here(body);
    }

    fn is_entered(&self) -> bool {
        is_entered_here()
    }

    fn n_bytes(&self) -> u64 {
        0
    }
}

struct PuppetSession {
    runs: SyncSender<PendingRun>,
}

impl Session for PuppetSession {
    fn run(&mut self, signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        let (reply, answer) = sync_channel(1);
        let run = PendingRun {
            signature,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            entered: is_entered_here(),
            reply,
        };
        let gone = |_| Error::new(ErrorKind::Internal, "the puppet let go of the run");
        self.runs.send(run).map_err(|_| Error::new(ErrorKind::Internal, "the puppet is gone"))?;
        match answer.recv().map_err(gone)? {
            Reply::Answer(answer) => answer,
            Reply::Panic(message) => std::panic::panic_any(message),
        }
    }
}

impl Puppet {
    /// Waits for the next run.
    ///
    /// # Panics
    /// When none comes within `timeout`, or the model and all its sessions are gone.
    pub fn next_run(&self, timeout: Duration) -> PendingRun {
        self.try_next_run(timeout).unwrap_or_else(|| panic!("no run within {timeout:?}"))
    }

    /// Waits for the next run; `None` when none comes within `timeout`.
    ///
    /// # Panics
    /// When the model and all its sessions are gone.
    pub fn try_next_run(&self, timeout: Duration) -> Option<PendingRun> {
        let runs = self.runs.lock().expect("no holder of this lock panics");
        match runs.recv_timeout(timeout) {
            Ok(run) => Some(run),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the puppet's model and sessions are gone"),
        }
    }
}

impl PendingRun {
    /// The position of the signature that is run.
    pub fn signature(&self) -> usize {
        self.signature
    }

    /// The inputs, in the signature's order.
    pub fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// The outputs asked for, as positions in the signature.
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    /// Whether the run was made inside [`Model::enter`].
    pub fn is_entered(&self) -> bool {
        self.entered
    }

    /// Ends the run with this result. The caller picks the outputs asked for.
    pub fn reply(self, answer: Result<Vec<Tensor>, Error>) {
        // The thread that ran may be gone; then nobody wants the answer.
        drop(self.reply.send(Reply::Answer(answer)));
    }

    /// Ends the run with its own first inputs as the result, one per output asked for.
    pub fn echo(self) {
        let answer = self.inputs.iter().take(self.outputs.len()).cloned().collect();
        self.reply(Ok(answer));
    }

    /// Ends the run with a panic on the thread that runs it.
    pub fn panic(self, message: impl Into<String>) {
        drop(self.reply.send(Reply::Panic(message.into())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use salver_tensor::Shape;

    const SOON: Duration = Duration::from_secs(10);

    fn vector(elements: &[f32]) -> Tensor {
        Tensor::from_vec(Shape::vector(elements.len()).unwrap(), elements.to_vec()).unwrap()
    }

    #[test]
    fn a_run_waits_for_its_reply() {
        let (model, puppet) = PuppetModel::new(half_plus_two_signature());
        let mut session = model.session().unwrap();
        let run = std::thread::spawn(move || session.run(0, &[vector(&[1.0])], &[0]));
        let pending = puppet.next_run(SOON);
        assert_eq!(pending.inputs(), [vector(&[1.0])]);
        assert_eq!((pending.outputs(), pending.is_entered()), (&[0][..], false));
        assert!(!run.is_finished());
        pending.reply(Ok(vec![vector(&[2.5])]));
        assert_eq!(run.join().unwrap().unwrap(), [vector(&[2.5])]);
    }

    #[test]
    fn a_run_that_is_let_go_fails() {
        let (model, puppet) = PuppetModel::new(half_plus_two_signature());
        let mut session = model.session().unwrap();
        let run = std::thread::spawn(move || (session.run(0, &[], &[0]), session.run(0, &[], &[0])));
        drop(puppet.next_run(SOON));
        drop(puppet);
        let (first, second) = run.join().unwrap();
        assert_eq!(first.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(second.unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_closure_is_a_model() {
        let model = FnModel::half_plus_two();
        let mut session = model.session().unwrap();
        let answer = session.run(0, &[vector(&[1.0, 2.0])], &[0]).unwrap();
        assert_eq!(answer, [vector(&[2.5, 3.0])]);
        let mut entered = false;
        model.enter(NonZeroUsize::MIN, &mut || entered = model.is_entered());
        assert!(entered && !model.is_entered());
    }
}

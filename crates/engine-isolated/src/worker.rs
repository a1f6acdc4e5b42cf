//! A worker as the server sees it: there or away, and connections to it.

use std::borrow::Cow;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use salver_engine::{Error, ErrorKind};
use salver_tensor::Tensor;

use crate::Spawn;
use crate::channel::{Channel, Fault, offer};
use crate::codec::{Reader, Wire};
use crate::message::{Kind, Load, Loaded, Nothing, Run};
use crate::process::kill;
use crate::socket::Socket;
use crate::supervisor::supervise;

/// How long one wait for a worker lasts before it is asked whether there still is one.
const PATIENCE: Duration = Duration::from_secs(1);

/// A worker and the thread that looks after it. Dropping it ends both and waits for that.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    /// The supervisor sees the other end of it close.
    wake: Option<UnixStream>,
    supervisor: Option<JoinHandle<()>>,
}

/// What sessions and the supervisor share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) spawn: Spawn,
    pub(crate) load: Load,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the processes that came up.
    generation: u64,
    present: Option<Present>,
    /// Why the last process is gone, in whole sentences for whoever asked something of it. Clients read it: it names no
    /// files of the server.
    last_end: String,
    /// The model was given up: there will be no process any more.
    is_abandoned: bool,
}

#[derive(Debug)]
struct Present {
    control: Arc<Socket>,
    handle: Arc<OwnedFd>,
    /// Why it was killed from here.
    doom: Option<String>,
}

impl Worker {
    /// Starts a worker and has it load the model. Blocks until it has.
    ///
    /// # Errors
    /// The engine's, or [`ErrorKind::Unavailable`] when the process ended.
    pub(crate) fn start(spawn: Spawn, load: Load) -> Result<(Worker, Loaded), Error> {
        let exhausted = |error: std::io::Error| Error::new(ErrorKind::ResourceExhausted, error.to_string());
        let (wake, woken) = UnixStream::pair().map_err(exhausted)?;
        let shared = Arc::new(Shared { spawn, load, state: Mutex::default(), changed: Condvar::new() });
        let (first, loaded) = sync_channel(1);
        let supervised = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("salver-worker".to_owned());
        let supervisor = thread.spawn(move || supervise(&supervised, &woken, &first)).map_err(exhausted)?;
        let worker = Worker { shared, wake: Some(wake), supervisor: Some(supervisor) };
        let gone = |_| Error::new(ErrorKind::Internal, "the thread that starts the engine's process is gone");
        let loaded = loaded.recv().map_err(gone)??;
        Ok((worker, loaded))
    }

    /// A session of the process that is there now.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] at once when there is none; the engine's own.
    pub(crate) fn connect(&self) -> Result<Link, Error> {
        let shared = &self.shared;
        let (generation, control) = {
            let state = shared.lock();
            let present = state.present.as_ref().filter(|_| !state.is_abandoned);
            let Some(present) = present else { return Err(unavailable(&state)) };
            (state.generation, Arc::clone(&present.control))
        };
        let exhausted = |error: std::io::Error| Error::new(ErrorKind::ResourceExhausted, error.to_string());
        let (ours, theirs) = Socket::pair().map_err(exhausted)?;
        ours.set_patience(PATIENCE).map_err(exhausted)?;
        if let Err(error) = offer(&control, &theirs) {
            return Err(shared.lost(generation, error.into()));
        }
        // Only the worker holds it from here on, so that its end closes it.
        drop(theirs);
        let mut link = Link { generation, channel: Channel::new(Arc::new(ours)) };
        match link.answer(shared) {
            Ok(Ok(_)) => Ok(link),
            Ok(Err(error)) => Err(error),
            Err(fault) => Err(shared.lost(generation, fault)),
        }
    }

    /// Kills the process, which is not started again: runs that are under way fail, and so does whatever is asked later.
    /// Does not wait for the process to be gone.
    pub(crate) fn abandon(&self) {
        let shared = &self.shared;
        {
            let mut state = shared.lock();
            state.is_abandoned = true;
            state.last_end = format!(
                "the model is unloaded: the process of engine '{}' was killed with the runs that had not ended",
                shared.load.engine
            );
        }
        // The supervisor is told first, so that it does not take the end for one to start again after.
        if let Some(wake) = &self.wake
            && let Err(error) = wake.shutdown(Shutdown::Both)
        {
            tracing::debug!("the thread that watches {} is told twice to end: {error}", shared.what());
        }
        if let Some(present) = &shared.lock().present {
            kill(&present.handle);
        }
        shared.changed.notify_all();
        tracing::warn!(model = shared.place(), "the process of engine '{}' is killed", shared.load.engine);
    }

    /// Runs the model over a link, which is made first if there is none that leads to the process that is there now.
    ///
    /// # Errors
    /// As [`salver_engine::Session::run`], and [`ErrorKind::Unavailable`] when the process is away or ended meanwhile.
    pub(crate) fn run(
        &self,
        link: &mut Option<Link>,
        signature: usize,
        inputs: &[Tensor],
        outputs: &[usize],
    ) -> Result<Vec<Tensor>, Error> {
        let shared = &self.shared;
        if link.as_ref().is_some_and(|link| !shared.is_there(link.generation)) {
            *link = None;
        }
        let mut connected = match link.take() {
            Some(connected) => connected,
            None => self.connect()?,
        };
        let result = match connected.run(shared, signature, inputs, outputs) {
            Ok(result) => result,
            Err(Fault::Full(error)) => Err(error),
            Err(fault) => return Err(shared.lost(connected.generation, fault)),
        };
        *link = Some(connected);
        result
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(supervisor) = self.supervisor.take()
            && supervisor.join().is_err()
        {
            tracing::error!("the thread that watches {} panicked", self.shared.what());
        }
    }
}

/// A session in a worker process, seen from here.
#[derive(Debug)]
pub(crate) struct Link {
    generation: u64,
    channel: Channel,
}

impl Link {
    fn run(
        &mut self,
        shared: &Shared,
        signature: usize,
        inputs: &[Tensor],
        outputs: &[usize],
    ) -> Result<Result<Vec<Tensor>, Error>, Fault> {
        let run = Run { signature, outputs: Cow::Borrowed(outputs) };
        self.channel.send(Kind::Run, &run, inputs)?;
        Ok(match self.answer(shared)? {
            Ok(head) => {
                let mut head = Reader::new(&head);
                Nothing::get(&mut head)?;
                Ok(self.channel.tensors(head, Some(outputs.len()))?)
            }
            Err(error) => Err(error),
        })
    }

    /// Waits for the answer: its head, or the error that is the answer.
    fn answer(&mut self, shared: &Shared) -> Result<Result<bytes::Bytes, Error>, Fault> {
        let generation = self.generation;
        let message = self.channel.receive(|| shared.is_there(generation))?;
        answer(message.kind, message.head)
    }
}

/// What an answer of this kind means.
pub(crate) fn answer(kind: Kind, head: bytes::Bytes) -> Result<Result<bytes::Bytes, Error>, Fault> {
    match kind {
        Kind::Done => Ok(Ok(head)),
        Kind::Failed => {
            let mut reader = Reader::new(&head);
            Ok(Err(Error::get(&mut reader)?))
        }
        kind => Err(Fault::Broken(format!("{kind:?} for an answer"))),
    }
}

impl Shared {
    /// The engine and the model, for people.
    pub(crate) fn what(&self) -> String {
        format!("{} {}", self.load.engine, self.place())
    }

    pub(crate) fn place(&self) -> String {
        self.load.source.path.display().to_string()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_there(&self, generation: u64) -> bool {
        self.lock().is_there(generation)
    }

    /// A process has loaded the model and takes sessions.
    pub(crate) fn came(&self, control: &Arc<Socket>, handle: &Arc<OwnedFd>) {
        let mut state = self.lock();
        state.generation += 1;
        let (control, handle) = (Arc::clone(control), Arc::clone(handle));
        state.present = Some(Present { control, handle, doom: None });
        drop(state);
        self.changed.notify_all();
    }

    /// The process is gone or could not be started again; the text says how, given why it was killed from here if it was.
    /// Returns the text.
    pub(crate) fn left(&self, text: impl FnOnce(Option<String>) -> String) -> String {
        let mut state = self.lock();
        let doom = state.present.take().and_then(|present| present.doom);
        let text = text(doom);
        if !state.is_abandoned {
            state.last_end.clone_from(&text);
        }
        drop(state);
        self.changed.notify_all();
        text
    }

    /// What to say of a process that did not answer: why it ended. It has ended or is about to; one that broke the rules,
    /// or closed a connection and lives on, is killed.
    fn lost(&self, generation: u64, fault: Fault) -> Error {
        let mut state = self.lock();
        match fault {
            Fault::Full(error) => return error,
            Fault::Broken(why) => state.doom(generation, || format!("it was killed for its answer: {why}")),
            Fault::Ended => {}
        }
        for _ in 0..2 {
            let still = |state: &mut State| state.is_there(generation);
            let waited = self.changed.wait_timeout_while(state, PATIENCE, still);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !state.is_there(generation) {
                return unavailable(&state);
            }
            state.doom(generation, || "it was killed, for it closed a connection".to_owned());
        }
        let message = format!("the process of engine '{}' does not answer", self.load.engine);
        Error::new(ErrorKind::Unavailable, message)
    }
}

/// The error of what is asked of a process that is not there. It has no place: the model's path is for the log, not for
/// clients.
fn unavailable(state: &State) -> Error {
    Error::new(ErrorKind::Unavailable, state.last_end.clone())
}

impl State {
    fn is_there(&self, generation: u64) -> bool {
        self.present.is_some() && self.generation == generation && !self.is_abandoned
    }

    fn doom(&mut self, generation: u64, why: impl FnOnce() -> String) {
        if !self.is_there(generation) {
            return;
        }
        if let Some(present) = &mut self.present {
            present.doom.get_or_insert_with(why);
            kill(&present.handle);
        }
    }
}

#[cfg(test)]
mod tests;

//! The thread that starts a worker, waits for its end and starts it again.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use salver_engine::{Error, ErrorKind};

use crate::backoff::Backoff;
use crate::channel::{Channel, Fault};
use crate::codec::read;
use crate::message::{Kind, Loaded};
use crate::process::{Process, kill, wait};
use crate::worker::{Shared, answer};

/// Why there is no process that serves the model.
enum Failure {
    /// The model is dropped.
    Closed,
    Failed(Error),
}

/// Looks after the worker of one model until `woken` closes. The first start is reported to `first`; if it fails, there is no
/// second. All processes are children of the calling thread, and are reaped when this returns.
pub(crate) fn supervise(shared: &Shared, woken: &UnixStream, first: &SyncSender<Result<Loaded, Error>>) {
    let (mut process, loaded) = match start(shared, woken) {
        Ok(started) => started,
        Err(Failure::Closed) => return,
        // The receiver waits for this.
        Err(Failure::Failed(error)) => return drop(first.send(Err(error))),
    };
    let mut started = now();
    shared.came(process.control(), process.handle());
    if first.send(Ok(loaded.clone())).is_err() {
        return process.close();
    }
    let mut backoff = Backoff::default();
    loop {
        let ready = wait(&[woken.as_fd(), process.handle().as_fd()], None);
        if ready.is_ok_and(|ready| ready[0]) {
            shared.left(|_| "the model is dropped".to_owned());
            return process.close();
        }
        let how = process.end();
        let text = shared.left(|doom| {
            let doom = doom.map_or_else(String::new, |doom| format!("; {doom}"));
            format!("the process of engine '{}' ended ({how}) and is started again{doom}", shared.load.engine)
        });
        tracing::error!(model = shared.place(), "{text}");
        let mut pause = backoff.after(now().saturating_duration_since(started));
        process = loop {
            match again(shared, woken, pause, &loaded) {
                Ok(process) => break process,
                Err(Failure::Closed) => return,
                Err(Failure::Failed(error)) => {
                    let engine = &shared.load.engine;
                    let text = format!("the process of engine '{engine}' cannot be started again yet");
                    tracing::error!(model = shared.place(), "{text}: {error}");
                    shared.left(|_| match error.kind() {
                        ErrorKind::Unavailable => format!("{text}: {}", error.message()),
                        // What an engine says of a model may name files, which are no client's business.
                        _ => format!("{text}: the model does not load; the server's log says why"),
                    });
                    pause = backoff.after(Duration::ZERO);
                }
            }
        };
        started = now();
        shared.came(process.control(), process.handle());
        tracing::info!(model = shared.place(), "engine '{}' is back", shared.load.engine);
    }
}

#[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Starts the worker after a pause.
fn again(shared: &Shared, woken: &UnixStream, pause: Duration, before: &Loaded) -> Result<Process, Failure> {
    if wait(&[woken.as_fd()], Some(pause)).is_ok_and(|ready| ready[0]) {
        return Err(Failure::Closed);
    }
    let (process, loaded) = start(shared, woken)?;
    if loaded.signatures == before.signatures {
        return Ok(process);
    }
    process.close();
    let message = "the model's files changed: its signatures are others than those it was loaded with";
    Err(Failure::Failed(Error::new(ErrorKind::Unavailable, message)))
}

/// Starts a worker and has it load the model.
fn start(shared: &Shared, woken: &UnixStream) -> Result<(Process, Loaded), Failure> {
    let engine = &shared.load.engine;
    let unavailable = |text: String| {
        let error = Error::new(ErrorKind::Unavailable, text).at(shared.place());
        Failure::Failed(error)
    };
    let process = Process::start(&shared.spawn, &shared.what()).map_err(|error| {
        unavailable(format!("a process for engine '{engine}' cannot be started: {error}"))
    })?;
    match load(shared, woken, &process) {
        Ok(Some(Ok(loaded))) => Ok((process, loaded)),
        Ok(Some(Err(error))) => {
            process.close();
            Err(Failure::Failed(error))
        }
        Ok(None) => {
            kill(process.handle());
            Err(Failure::Closed)
        }
        Err(Fault::Ended) => {
            let how = process.end();
            let text = format!("the process of engine '{engine}' ended ({how}) while it loaded the model");
            Err(unavailable(text))
        }
        Err(Fault::Broken(why)) => {
            kill(process.handle());
            Err(unavailable(format!(
                "the process of engine '{engine}' broke off while it loaded the model: {why}"
            )))
        }
        Err(Fault::Full(error)) => Err(Failure::Failed(error)),
    }
}

/// Sends the worker what to load and waits for what comes of it; `None` when the model is dropped meanwhile.
fn load(
    shared: &Shared,
    woken: &UnixStream,
    process: &Process,
) -> Result<Option<Result<Loaded, Error>>, Fault> {
    let mut channel = Channel::new(process.control().clone());
    channel.send(Kind::Load, &shared.load, &[])?;
    let control = process.control().as_fd();
    let ready = wait(&[woken.as_fd(), control, process.handle().as_fd()], None)?;
    if ready[0] {
        return Ok(None);
    }
    if !ready[1] {
        return Err(Fault::Ended);
    }
    let message = channel.receive(|| true)?;
    Ok(Some(match answer(message.kind, message.head)? {
        // Behind the head is the list of tensors, which is empty.
        Ok(head) => Ok(read::<(Loaded, u64)>(&head)?.0),
        Err(error) => Err(error),
    }))
}

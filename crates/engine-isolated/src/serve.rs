//! The worker's side: one model, a thread for each session.

use std::any::Any;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;

use rustix::process::{Signal, set_parent_process_death_signal};
use salver_engine::{Choice, Error, ErrorKind, Model, Registry, Session};
use salver_tensor::Tensor;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::channel::{Channel, Fault};
use crate::codec::{Malformed, Reader, Wire, read};
use crate::message::{Kind, Load, Loaded, Nothing, Run};
use crate::socket::Socket;

/// What a worker process does: takes its socket from standard input, loads the model that the server names with one of
/// these engines, and serves its sessions until the server is gone or drops the model. Blocks for as long; the process should
/// end with what this gives.
///
/// The process is killed when the thread that started it ends. It takes no notice of SIGINT and SIGTERM: the server that
/// gets them too still has requests to finish.
pub fn serve(engines: &Registry) -> ExitCode {
    let done = prepare().map_err(|error| error.to_string()).and_then(|socket| {
        serve_on(socket, engines).map_err(|fault| format!("the server sent what makes no sense: {fault:?}"))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            tracing::error!("a process of an engine: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Ties the process to its server and takes the socket.
fn prepare() -> io::Result<Socket> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_name(c"salver-engine")?;
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))?;
    }
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    // A library that reads standard input must not read messages.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(Socket::from_fd(socket))
}

/// Serves until the other end is closed.
fn serve_on(socket: Socket, engines: &Registry) -> Result<(), Fault> {
    let mut channel = Channel::new(Arc::new(socket));
    let message = match channel.receive(|| true) {
        Err(Fault::Ended) => return Ok(()),
        received => received?,
    };
    if message.kind != Kind::Load {
        return Err(Fault::Broken(format!("{:?} before a model", message.kind)));
    }
    // Behind the head is the list of tensors, which is empty.
    let (load, _) = read::<(Load, u64)>(&message.head)?;
    let threads = load.options.threads;
    let model = match load_model(engines, &load) {
        Ok(model) => model,
        Err(error) => return unless_ended(channel.send(Kind::Failed, &error, &[])),
    };
    let loaded = Loaded {
        signatures: model.signatures().to_vec(),
        refused: model.refused().to_vec(),
        n_bytes: model.n_bytes(),
    };
    unless_ended(channel.send(Kind::Done, &loaded, &[]))?;
    loop {
        match channel.receive(|| true) {
            Ok(message) if message.kind == Kind::Session => {
                let socket = message.socket.ok_or_else(|| Malformed::new("a session without a socket"))?;
                start_session(Arc::clone(&model), threads, socket);
            }
            Ok(message) => return Err(Fault::Broken(format!("{:?} for a model", message.kind))),
            Err(Fault::Ended) => return Ok(()),
            Err(fault) => return Err(fault),
        }
    }
}

/// A server that is gone needs no answer.
fn unless_ended(sent: Result<(), Fault>) -> Result<(), Fault> {
    match sent {
        Err(Fault::Ended) => Ok(()),
        sent => sent,
    }
}

fn load_model(engines: &Registry, load: &Load) -> Result<Arc<dyn Model>, Error> {
    let choice = Choice::Named(load.engine.as_str().into());
    let loaded = catch_unwind(AssertUnwindSafe(|| engines.load(&load.source, &load.options, &choice)));
    loaded.unwrap_or_else(|panic| Err(panicked(&*panic))).map(|loaded| loaded.model)
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
    Error::new(ErrorKind::Internal, format!("the engine panicked: {text}"))
}

/// Serves a session on a thread of its own.
fn start_session(model: Arc<dyn Model>, threads: NonZeroUsize, socket: OwnedFd) {
    let channel = |socket| Channel::new(Arc::new(Socket::from_fd(socket)));
    let (give, take) = sync_channel::<OwnedFd>(1);
    let thread = std::thread::Builder::new().name("salver-session".to_owned());
    let started = thread.spawn(move || {
        let Ok(socket) = take.recv() else { return };
        let mut channel = channel(socket);
        model.enter(threads, &mut || {
            if let Err(fault) = unless_ended(serve_session(&*model, &mut channel)) {
                tracing::error!("a session of an engine's process: {fault:?}");
            }
        });
    });
    let refused = match started {
        // A thread that was started takes what it is given.
        Ok(_) => return drop(give.send(socket)),
        Err(error) => Error::new(ErrorKind::ResourceExhausted, format!("a thread for a session: {error}")),
    };
    // A server that does not hear it hears that the socket is closed.
    drop(channel(socket).send(Kind::Failed, &refused, &[]));
}

/// Runs what the server asks for until it closes the socket.
fn serve_session(model: &dyn Model, channel: &mut Channel) -> Result<(), Fault> {
    let mut session = None;
    if let Err(error) = ensure(model, &mut session) {
        return channel.send(Kind::Failed, &error, &[]);
    }
    channel.send(Kind::Done, &Nothing, &[])?;
    loop {
        let message = match channel.receive(|| true) {
            Err(Fault::Ended) => return Ok(()),
            received => received?,
        };
        if message.kind != Kind::Run {
            return Err(Fault::Broken(format!("{:?} for a session", message.kind)));
        }
        let mut head = Reader::new(&message.head);
        let run = Run::get(&mut head)?;
        // The engine says what it takes, and a wrong number of inputs is an error of the run alone.
        let inputs = channel.tensors(head, None)?;
        let result = run_once(model, &mut session, &run, &inputs);
        drop(inputs);
        let sent = match &result {
            Ok(outputs) => channel.send(Kind::Done, &Nothing, outputs),
            Err(error) => channel.send(Kind::Failed, error, &[]),
        };
        match sent {
            Err(Fault::Full(error)) => channel.send(Kind::Failed, &error, &[])?,
            sent => sent?,
        }
    }
}

type Made = Option<Box<dyn Session>>;

/// Makes a session if there is none.
fn ensure<'a>(model: &dyn Model, session: &'a mut Made) -> Result<&'a mut dyn Session, Error> {
    Ok(match session {
        Some(session) => &mut **session,
        none => {
            let made = catch_unwind(AssertUnwindSafe(|| model.session()));
            &mut **none.insert(made.unwrap_or_else(|panic| Err(panicked(&*panic)))?)
        }
    })
}

/// One run. A session that panics is replaced before the next.
fn run_once(
    model: &dyn Model,
    session: &mut Made,
    run: &Run<'_>,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, Error> {
    let made = ensure(model, session)?;
    let result = catch_unwind(AssertUnwindSafe(|| made.run(run.signature, inputs, &run.outputs)));
    let outputs = result.unwrap_or_else(|panic| {
        *session = None;
        Err(panicked(&*panic))
    })?;
    if outputs.len() == run.outputs.len() {
        return Ok(outputs);
    }
    let message = format!("the engine gave {} outputs, expected {}", outputs.len(), run.outputs.len());
    Err(Error::new(ErrorKind::Internal, message))
}

#[cfg(test)]
mod tests;

//! Workers that break the rules. They are this program: it runs `the_hostile_worker` alone, with a variable set.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use salver_engine::{Format, LoadOptions, ModelSource};
use salver_tensor::Signature;

use super::*;
use crate::codec::read;
use crate::message::Loaded;

const ROLE: &str = "SALVER_ISOLATED_TEST_ROLE";

/// Not a test: the program that workers run. Without the variable it does nothing.
#[test]
#[expect(clippy::disallowed_methods, reason = "the program of a test is told by a variable what it is")]
fn the_hostile_worker() {
    if std::env::var(ROLE).is_ok() {
        let socket = Socket::from_fd(io::stdin().as_fd().try_clone_to_owned().unwrap());
        break_rules(&Arc::new(socket));
    }
}

/// Does as the model's path says, until the server kills it.
fn break_rules(socket: &Arc<Socket>) {
    let mut control = Channel::new(Arc::clone(socket));
    let (load, _) = read::<(Load, u64)>(&control.receive(|| true).unwrap().head).unwrap();
    let how = load.source.path.to_str().unwrap();
    match how {
        "answers the load with a run" => control.send(Kind::Run, &Nothing, &[]).unwrap(),
        "answers the load with nothing" => control.send(Kind::Done, &Nothing, &[]).unwrap(),
        "answers the load with an odd packet" => send_odd(socket),
        _ => {
            let signature = Signature::new("s", "m", vec![], vec![]);
            let loaded = Loaded { signatures: vec![signature.into()], refused: vec![], n_bytes: 0 };
            control.send(Kind::Done, &loaded, &[]).unwrap();
        }
    }
    let mut sessions = Vec::new();
    while let Ok(message) = control.receive(|| true) {
        let socket = Arc::new(Socket::from_fd(message.socket.unwrap()));
        let mut session = Channel::new(Arc::clone(&socket));
        session.send(Kind::Done, &Nothing, &[]).unwrap();
        session.receive(|| true).unwrap();
        match how {
            "never answers" => {}
            "answers with a load" => session.send(Kind::Load, &Nothing, &[]).unwrap(),
            "answers with an odd packet" => send_odd(&socket),
            "gives no outputs" => session.send(Kind::Done, &Nothing, &[]).unwrap(),
            "gives an error that is none" => session.send(Kind::Failed, &u64::MAX, &[]).unwrap(),
            "hangs up" => socket.close(),
            other => panic!("no way to '{other}'"),
        }
        sessions.push(session);
    }
}

fn send_odd(socket: &Socket) {
    rustix::net::send(socket, b"odd", rustix::net::SendFlags::empty()).unwrap();
}

fn start(how: &str) -> Result<(Worker, Loaded), Error> {
    let spawn = Spawn::new(|_| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "--nocapture", "worker::tests::the_hostile_worker"]).env(ROLE, "worker");
        Ok(command)
    });
    let source = ModelSource { path: Path::new(how).to_owned(), format: Format::Onnx };
    Worker::start(spawn, Load { engine: "odd".to_owned(), source, options: LoadOptions::default() })
}

#[test]
fn a_worker_that_answers_a_load_wrongly_is_let_go() {
    let check = |how: &str, expected: &str| {
        let error = start(how).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let expected = format!("the process of engine 'odd' broke off while it loaded the model: {expected}");
        assert!(error.message().starts_with(&expected), "{error}");
    };
    check("answers the load with a run", "Run for an answer");
    check("answers the load with nothing", "8 bytes expected");
    check("answers the load with an odd packet", "a packet of another form");
}

#[test]
fn a_worker_that_answers_a_run_wrongly_is_killed_and_started_again() {
    let check = |how: &str, expected: &str| {
        let (worker, _) = start(how).unwrap();
        let mut link = None;
        for _ in 0..2 {
            let error = loop {
                let error = worker.run(&mut link, 0, &[], &[0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                if worker.shared.lock().generation > 1 {
                    break error;
                }
                std::thread::yield_now();
            };
            let expected = format!(
                "the process of engine 'odd' ended (signal 9, SIGKILL) and is started again; it was killed{expected}"
            );
            assert_eq!(error.message(), expected);
        }
    };
    check("answers with a load", " for its answer: Load for an answer");
    check("answers with an odd packet", " for its answer: a packet of another form");
    check("gives no outputs", " for its answer: 0 tensors, expected 1");
    check("gives an error that is none", " for its answer: no ErrorKind 255");
    check("hangs up", ", for it closed a connection");
}

#[test]
fn a_worker_that_is_abandoned_ends_its_runs_and_is_not_started_again() {
    let (mut worker, _) = start("never answers").unwrap();
    let expected =
        "the model is unloaded: the process of engine 'odd' was killed with the runs that had not ended";
    let mut link = Some(worker.connect().unwrap());
    std::thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&mut link, 0, &[], &[0]).unwrap_err());
        worker.abandon();
        assert_eq!(run.join().unwrap().message(), expected);
    });
    // It starts processes; when it has ended, no other comes.
    worker.supervisor.take().unwrap().join().unwrap();
    worker.abandon();
    let error = worker.run(&mut None, 0, &[], &[0]).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, expected));
}

use std::thread::spawn;

use salver_engine::{LoadOptions, ModelSource};
use salver_tensor::{DType, Shape};
use salver_testkit::puppet::{FnModel, PuppetEngine};

use super::*;

/// A worker on a thread, and the server's end of its socket.
fn worker() -> (Channel, Arc<Socket>, std::thread::JoinHandle<Result<(), Fault>>) {
    let (ours, theirs) = Socket::pair().unwrap();
    let ours = Arc::new(ours);
    let engines = Registry::new(vec![Arc::new(PuppetEngine::of(FnModel::half_plus_two()))]);
    (Channel::new(Arc::clone(&ours)), ours, spawn(move || serve_on(theirs, &engines)))
}

fn load(engine: &str) -> Load {
    let format = salver_engine::Format::Onnx;
    let source = ModelSource { path: "/m/1".into(), format };
    Load { engine: engine.to_owned(), source, options: LoadOptions::default() }
}

fn session(control: &Socket) -> Channel {
    let (ours, theirs) = Socket::pair().unwrap();
    crate::channel::offer(control, &theirs).unwrap();
    drop(theirs);
    let mut session = Channel::new(Arc::new(ours));
    assert_eq!(session.receive(|| true).unwrap().kind, Kind::Done);
    session
}

#[test]
fn a_server_that_breaks_the_rules_is_left() {
    let cases: [fn(&mut Channel); 4] = [
        |channel| channel.send(Kind::Run, &Run { signature: 0, outputs: vec![].into() }, &[]).unwrap(),
        |channel| channel.send(Kind::Load, &Nothing, &[]).unwrap(),
        |channel| channel.send(Kind::Load, &"rten".to_owned(), &[]).unwrap(),
        |channel| {
            channel.send(Kind::Load, &load("puppet"), &[]).unwrap();
            channel.receive(|| true).unwrap();
            channel.send(Kind::Load, &load("puppet"), &[]).unwrap();
        },
    ];
    for (n, say) in cases.into_iter().enumerate() {
        let (mut channel, _, worker) = worker();
        say(&mut channel);
        let end = worker.join().unwrap();
        assert!(matches!(end, Err(Fault::Broken(_))), "case {n}: {end:?}");
    }
}

#[test]
fn a_server_that_leaves_ends_the_worker() {
    let (channel, socket, worker) = worker();
    drop((channel, socket));
    worker.join().unwrap().unwrap();
}

#[test]
fn an_engine_that_is_not_there_is_said_to_be() {
    let (mut channel, _, worker) = worker();
    channel.send(Kind::Load, &load("openvino"), &[]).unwrap();
    let message = channel.receive(|| true).unwrap();
    assert_eq!(message.kind, Kind::Failed);
    let error = Error::get(&mut Reader::new(&message.head)).unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("/m/1: no engine 'openvino'"), "{error}");
    worker.join().unwrap().unwrap();
}

#[test]
fn a_session_that_breaks_the_rules_ends_alone() {
    let (mut channel, socket, worker) = worker();
    channel.send(Kind::Load, &load("puppet"), &[]).unwrap();
    assert_eq!(channel.receive(|| true).unwrap().kind, Kind::Done);
    let (mut bad, mut good) = (session(&socket), session(&socket));
    bad.send(Kind::Done, &Nothing, &[]).unwrap();
    assert!(matches!(bad.receive(|| true), Err(Fault::Ended)));
    let x = Tensor::from_vec(Shape::vector(2).unwrap(), vec![1.0f32, 2.0]).unwrap();
    let words = Tensor::from_strings(Shape::scalar(), vec!["x".into()]).unwrap();
    for (input, expected) in [(words, Kind::Failed), (x, Kind::Done)] {
        let run = Run { signature: 0, outputs: vec![0, 0].into() };
        good.send(Kind::Run, &run, &[input]).unwrap();
        let message = good.receive(|| true).unwrap();
        assert_eq!(message.kind, expected);
        if expected == Kind::Done {
            let mut head = Reader::new(&message.head);
            Nothing::get(&mut head).unwrap();
            let outputs = good.tensors(head, Some(2)).unwrap();
            assert_eq!((outputs.len(), outputs[0].dtype()), (2, DType::F32));
            assert_eq!(outputs[1].as_slice::<f32>().unwrap(), [2.5, 3.0]);
        }
    }
    drop((channel, socket));
    worker.join().unwrap().unwrap();
}

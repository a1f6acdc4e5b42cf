use proptest::prelude::*;

use super::*;
use crate::message::{Nothing, Run};

fn pair() -> (Channel, Channel) {
    let (a, b) = Socket::pair().unwrap();
    (Channel::new(Arc::new(a)), Channel::new(Arc::new(b)))
}

/// Sends and receives on one thread: a message fits in the socket's buffer.
fn pass(from: &mut Channel, to: &mut Channel, tensors: &[Tensor]) -> Result<Vec<Tensor>, Fault> {
    from.send(Kind::Done, &Nothing, tensors)?;
    let message = to.receive(|| true)?;
    let mut head = Reader::new(&message.head);
    Nothing::get(&mut head)?;
    Ok(to.tensors(head, Some(tensors.len()))?)
}

fn bytes(n: usize) -> Tensor {
    let bytes = (0..n).map(|at| (at % 251) as u8).collect();
    Tensor::from_vec(Shape::vector(n).unwrap(), bytes).unwrap()
}

fn arbitrary_tensor() -> impl Strategy<Value = Tensor> {
    let dims = prop::collection::vec(0usize..4, 0..4);
    (prop::sample::select(&DType::ALL[..]), dims, any::<u64>()).prop_map(|(dtype, dims, seed)| {
        let shape = Shape::new(&dims).unwrap();
        let byte = |at: usize| (seed.wrapping_mul(at as u64 + 1) >> 32) as u8;
        let n = shape.n_elements();
        match dtype.size() {
            None => {
                let word = |at| Bytes::from((0..usize::from(byte(at)) % 20).map(byte).collect::<Vec<_>>());
                Tensor::from_strings(shape, (0..n).map(word).collect()).unwrap()
            }
            Some(size) => {
                let mask = if dtype == DType::Bool { 1 } else { u8::MAX };
                let all: Vec<_> = (0..n * size).map(|at| byte(at) & mask).collect();
                Tensor::from_bytes(dtype, shape, all.into()).unwrap()
            }
        }
    })
}

proptest! {
    #[test]
    fn tensors_come_as_they_went(
        messages in prop::collection::vec(prop::collection::vec(arbitrary_tensor(), 0..5), 1..4),
    ) {
        let (mut a, mut b) = pair();
        for tensors in messages {
            prop_assert_eq!(&pass(&mut a, &mut b, &tensors).unwrap(), &tensors);
            prop_assert_eq!(&pass(&mut b, &mut a, &tensors).unwrap(), &tensors);
        }
    }

    /// Whatever a peer says of where things lie, it is refused or read.
    #[test]
    fn damaged_messages_are_refused_or_read(
        tensors in prop::collection::vec(arbitrary_tensor(), 0..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        packet_change in prop::option::of((0..PACKET, any::<u8>())),
    ) {
        let (mut a, mut b) = pair();
        a.send(Kind::Done, &Nothing, &tensors).unwrap();
        let out = a.out.as_mut().unwrap();
        let used = out.len().min(4096);
        for (at, byte) in changes {
            out.write(at.index(used), &[byte]);
        }
        let Received::Packet(mut packet, file) = b.socket.receive().unwrap() else { panic!("a packet") };
        if let Some((at, byte)) = packet_change {
            packet[at] = byte;
        }
        a.socket.send(&packet, file.as_ref().map(AsFd::as_fd)).unwrap();
        if let Ok(message) = b.receive(|| true) {
            drop(b.tensors(Reader::new(&message.head), None));
        }
    }
}

#[test]
fn large_tensors_get_a_larger_region_which_is_given_back() {
    let (mut a, mut b) = pair();
    let (small, large) = (bytes(10), bytes(40 << 20));
    let mut check = |tensors: &[Tensor]| {
        assert_eq!(pass(&mut a, &mut b, tensors).unwrap(), tensors);
        a.out.as_ref().unwrap().len()
    };
    let small = std::slice::from_ref(&small);
    assert_eq!(check(small), SMALLEST);
    assert!(check(&[small[0].clone(), large]) > 40 << 20);
    for _ in 1..PATIENCE {
        assert!(check(small) > 40 << 20);
    }
    assert_eq!(check(small), SMALLEST);
}

#[test]
fn what_does_not_fit_is_not_sent_and_harms_nothing() {
    let (mut a, mut b) = pair();
    let large = bytes(1 << 20);
    let many = vec![large.clone(); MAX_BYTES >> 20];
    let Err(Fault::Full(error)) = a.send(Kind::Done, &Nothing, &many) else { panic!("it fits") };
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert_eq!(pass(&mut a, &mut b, std::slice::from_ref(&large)).unwrap(), [large]);
}

/// A message of this kind, with this head, from a peer that speaks by hand.
fn check(kind: u8, offset: usize, len: usize, head: &[u8], with_memory: bool, expected: &str) {
    let (a, mut b) = pair();
    let mut raw = packet(Kind::Done, offset, len);
    raw[0] = kind;
    let (mut out, file) = Outgoing::new(4096).unwrap();
    out.write(0, head);
    a.socket.send(&raw, with_memory.then_some(file.as_fd())).unwrap();
    // The heads here start with the number of tensors.
    let wanted = usize::from(head.first().copied().unwrap_or(0));
    let result =
        b.receive(|| true).and_then(|message| Ok(b.tensors(Reader::new(&message.head), Some(wanted))?));
    match result {
        Err(Fault::Broken(why)) => assert!(why.contains(expected), "{why:?} has no {expected:?}"),
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

#[test]
fn hostile_messages_are_refused() {
    let place = |dtype: DType, dims: &[usize], offset: usize, n_bytes: usize| {
        let mut head = Vec::new();
        1usize.put(&mut head);
        dtype.put(&mut head);
        crate::codec::put_all(dims, &mut head);
        offset.put(&mut head);
        n_bytes.put(&mut head);
        head
    };
    check(0, 0, 8, &[], true, "no message 0");
    check(4, 0, 8, &[], false, "in no memory");
    check(4, 0, 4097, &[], true, "4097 bytes at 0 of 4096");
    check(4, usize::MAX, 8, &[], true, "8 bytes at");
    check(4, 0, usize::MAX, &[], true, "a head of");
    check(4, 0, 9, &[0; 9], true, "1 bytes more than expected");
    let cases = [
        (place(DType::F32, &[2], 4092, 8), "8 bytes at 4092 of 4096"),
        (place(DType::F32, &[2], usize::MAX, 8), "8 bytes at"),
        (place(DType::F32, &[1 << 40], 0, 8), "8 bytes for float32"),
        (place(DType::F32, &[usize::MAX, 2], 0, 8), "more elements than fit"),
        (place(DType::F32, &[1; 33], 0, 4), "33 dimensions"),
        (place(DType::Bool, &[1], 0, 1 << 50), "bytes for bool"),
        (place(DType::String, &[1 << 40], 0, 64), "strings in 64 bytes"),
        // The list of lengths starts with the bytes of the head itself: 1, then others.
        (place(DType::String, &[1], 0, 64), "1 strings in 64 bytes"),
        (place(DType::String, &[0], 0, 64), "0 strings in 64 bytes"),
        (place(DType::String, &[2], 0, 1 << 40), "bytes at 0 of 4096"),
    ];
    for (head, expected) in cases {
        check(4, 0, head.len(), &head, true, expected);
    }
}

#[test]
fn no_byte_is_copied_twice() {
    let check = |places: &[(usize, usize)], wanted: usize, expected: Result<(), &str>| {
        let (a, mut b) = pair();
        let mut head = Vec::new();
        places.len().put(&mut head);
        for &(offset, n_bytes) in places {
            let shape = Shape::vector(n_bytes).unwrap();
            Place { dtype: DType::U8, shape, offset, n_bytes }.put(&mut head);
        }
        let (mut out, file) = Outgoing::new(4096).unwrap();
        out.write(2048, &head);
        a.socket.send(&packet(Kind::Done, 2048, head.len()), Some(file.as_fd())).unwrap();
        let message = b.receive(|| true).unwrap();
        let result = b.tensors(Reader::new(&message.head), Some(wanted)).map(drop);
        assert_eq!(result, expected.map_err(Malformed::new), "{places:?}");
    };
    check(&[(64, 64), (0, 64), (64, 0)], 3, Ok(()));
    check(&[(0, 4096), (0, 4096)], 2, Err("4096 bytes at 0 and others at 0"));
    check(&[(64, 64), (0, 65), (1000, 1)], 3, Err("65 bytes at 0 and others at 64"));
    check(&[(0, 1), (1, 1 << 40)], 2, Err("1099511627776 bytes at 1 of 4096"));
    check(&[(0, 1), (1, 1)], 1, Err("2 tensors, expected 1"));
    check(&[(0, 1)], 2, Err("1 tensors, expected 2"));
}

#[test]
fn a_session_is_offered_with_its_socket() {
    let (a, mut b) = pair();
    let (mine, theirs) = Socket::pair().unwrap();
    offer(&a.socket, &theirs).unwrap();
    drop(theirs);
    let message = b.receive(|| true).unwrap();
    assert_eq!(message.kind, Kind::Session);
    let mut session = Channel::new(Arc::new(Socket::from_fd(message.socket.unwrap())));
    session.send(Kind::Run, &Run { signature: 0, outputs: vec![1].into() }, &[]).unwrap();
    let mut mine = Channel::new(Arc::new(mine));
    assert_eq!(mine.receive(|| true).unwrap().kind, Kind::Run);
    drop(session);
    assert!(matches!(mine.receive(|| true), Err(Fault::Ended)));
}

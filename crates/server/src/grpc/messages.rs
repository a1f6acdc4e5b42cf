//! The body of a call: what its messages take is reserved before it is received.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use salver_predict::{Code, Error};
use salver_wire::status;
use tokio::time::{Sleep, sleep_until};
use tonic::Status;

use super::unpack::Unpacker;
use crate::budget::Reservation;
use crate::clock;
use crate::core::Core;
use crate::metrics::Refused;

/// The flag and the length before each message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The body of a call.
pub(crate) struct Messages {
    inner: Incoming,
    core: Arc<Core>,
    reservation: Arc<Reservation>,
    prefixes: Prefixes,
    /// Whether a pause between messages is normal.
    pauses: bool,
    unpacker: Option<Unpacker>,
    waiting: Option<Waiting>,
    /// When waiting began for the first time.
    since: Option<Instant>,
}

/// A wait for bytes.
type Waiting = Pin<Box<Sleep>>;

impl Messages {
    pub(crate) fn new(
        inner: Incoming,
        core: Arc<Core>,
        reservation: Arc<Reservation>,
        pauses: bool,
        unpacker: Option<Unpacker>,
    ) -> Messages {
        let prefixes = Prefixes::default();
        Messages { inner, core, reservation, prefixes, pauses, unpacker, waiting: None, since: None }
    }

    /// Reserves what the messages that begin in `data` take.
    fn check(&mut self, data: &[u8]) -> Result<(), Status> {
        let (core, reservation) = (&self.core, &self.reservation);
        self.prefixes.see(data, |n_bytes| {
            let limit = core.config.limits.body_bytes;
            if n_bytes > limit {
                core.metrics.refuse(Refused::BodySize);
                let text = format!("message of {n_bytes} bytes is larger than the limit of {limit} bytes");
                return Err(Status::resource_exhausted(text));
            }
            reservation.grow_to(n_bytes).map_err(|error| {
                core.metrics.refuse(Refused::Budget);
                status::grpc(&error)
            })
        })
    }

    /// Whether the client has been silent for too long. Where pauses are normal they are so between messages only: what a
    /// message takes is reserved from its first bytes on.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.pauses && self.prefixes.is_between() {
            return Poll::Pending;
        }
        let limits = &self.core.config.limits;
        let since = &mut self.since;
        let waiting = self.waiting.get_or_insert_with(|| {
            let now = clock::now();
            let end = *since.get_or_insert(now) + limits.body_timeout;
            Box::pin(sleep_until((now + limits.read_timeout).min(end).into()))
        });
        waiting.as_mut().poll(cx).map(|()| {
            self.core.metrics.refuse(Refused::Slow);
            let text = format!("no message within {:?}", limits.read_timeout);
            status::grpc(&Error::client(Code::DeadlineExceeded, text))
        })
    }
}

impl Messages {
    /// The next bytes as they were sent, within all bounds.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = None;
                let checked = frame.data_ref().map_or(Ok(()), |data| self.check(data));
                if self.pauses && self.prefixes.is_between() {
                    self.since = None;
                }
                Poll::Ready(Some(checked.map(|()| frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let text = format!("the message ended early: {error}");
                Poll::Ready(Some(Err(Status::cancelled(text))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_too_slow(cx).map(|status| Some(Err(status))),
        }
    }

    /// The next bytes of messages that come compressed.
    fn poll_unpacked(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let limit = self.core.config.limits.decompressed_bytes;
            let unpacked = self.unpacker.as_mut().map_or(Ok(None), |u| u.next(limit, &self.reservation));
            let sent = match unpacked {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => ready!(self.poll_sent(cx)),
                Err(status) => return Poll::Ready(Some(Err(status))),
            };
            let Some(unpacker) = self.unpacker.as_mut() else { return Poll::Ready(sent) };
            match sent {
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
                    unpacker.push(data);
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(unpacker.rest().map(|bytes| Ok(Frame::data(bytes)))),
            }
        }
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.unpacker.is_some() { self.poll_unpacked(cx) } else { self.poll_sent(cx) }
    }

    fn size_hint(&self) -> SizeHint {
        if self.unpacker.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.unpacker.as_ref().is_none_or(Unpacker::is_empty)
    }
}

/// Finds where messages begin in a stream of bytes.
#[derive(Debug, Default)]
struct Prefixes {
    /// The part of a prefix that has come, and how much of it.
    prefix: [u8; PREFIX_BYTES],
    n_prefix: usize,
    /// Bytes of the current message that have not come.
    left: usize,
}

impl Prefixes {
    /// Whether no part of a message has come since the last one ended.
    fn is_between(&self) -> bool {
        self.left == 0 && self.n_prefix == 0
    }

    /// Calls `begin` with the length of each message that begins in `data`.
    fn see<E>(&mut self, mut data: &[u8], mut begin: impl FnMut(usize) -> Result<(), E>) -> Result<(), E> {
        while !data.is_empty() {
            if self.left > 0 {
                let n = self.left.min(data.len());
                self.left -= n;
                data = data.get(n..).unwrap_or_default();
                continue;
            }
            let (byte, rest) = (data[0], &data[1..]);
            self.prefix[self.n_prefix] = byte;
            self.n_prefix += 1;
            data = rest;
            if self.n_prefix == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.n_prefix = 0;
                begin(self.left)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let lengths = [3usize, 0, 300, 1];
        let mut bytes = Vec::new();
        for length in lengths {
            bytes.push(0);
            bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            bytes.extend(std::iter::repeat_n(7, length));
        }
        for size in [1, 2, 3, 4, 5, 6, 7, 100, bytes.len()] {
            let mut prefixes = Prefixes::default();
            let mut found = Vec::new();
            for chunk in bytes.chunks(size) {
                prefixes
                    .see(chunk, |n| {
                        found.push(n);
                        Ok::<(), ()>(())
                    })
                    .unwrap();
            }
            assert_eq!(found, lengths, "cut into {size}");
        }
    }
}

//! Bodies of answers that say when they are sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::stream::{Running, Sending, Streaming};

/// Keeps the connection busy, in the eyes of whoever watches it, until the body is sent or given up.
#[derive(Debug)]
pub(crate) enum Busy {
    /// The client is expected to take the bytes without pause.
    Sending { _guard: Sending },
    /// Bytes come when there is an answer, and there may be many.
    Running { _guard: Option<Running> },
    /// Bytes come whenever there is something to say.
    Streaming { _guard: Streaming },
}

#[derive(Debug)]
pub(crate) struct Answer<B> {
    inner: B,
    _busy: Busy,
}

impl<B> Answer<B> {
    pub(crate) fn new(inner: B, busy: Busy) -> Answer<B> {
        Answer { inner, _busy: busy }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

//! Bodies of answers that say when they are sent.
//!
//! hyper takes the bytes of a body and lets the body go before they are on the wire, so large pieces carry the guard
//! themselves.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::stream::{Running, Sending, Streaming};

/// Keeps the connection busy, in the eyes of whoever watches it, until the body is sent or given up.
#[derive(Debug)]
pub(crate) enum Busy {
    /// The client is expected to take the bytes without pause.
    Sending { guard: Sending },
    /// Bytes come when there is an answer, and there may be many.
    Running { _guard: Option<Running> },
    /// Bytes come whenever there is something to say.
    Streaming { _guard: Streaming },
}

#[derive(Debug)]
pub(crate) struct Answer<B> {
    inner: B,
    busy: Busy,
}

/// Pieces from this size on may wait for a client that does not take them; smaller ones fit the socket's buffer.
const LARGE_PIECE: usize = 64 << 10;

/// A piece of an answer that is being sent until its last reader lets it go.
struct Piece {
    bytes: Bytes,
    _guard: Sending,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<B> Answer<B> {
    pub(crate) fn new(inner: B, busy: Busy) -> Answer<B> {
        Answer { inner, busy }
    }

    fn guarded(&self, bytes: Bytes) -> Bytes {
        match &self.busy {
            Busy::Sending { guard } if bytes.len() >= LARGE_PIECE => {
                Bytes::from_owner(Piece { bytes, _guard: guard.another() })
            }
            _ => bytes,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| self.guarded(bytes)))))
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::stream::Activity;

    #[tokio::test]
    async fn a_large_piece_is_being_sent_until_it_is_let_go() {
        for (n_bytes, outlives_the_body) in [(LARGE_PIECE, 1), (LARGE_PIECE - 1, 0)] {
            let activity = Arc::<Activity>::default();
            let body = Full::new(Bytes::from(vec![7; n_bytes]));
            let mut answer = Answer::new(body, Busy::Sending { guard: activity.sending() });
            let piece = answer.frame().await.unwrap().unwrap().into_data().unwrap();
            drop(answer);
            assert_eq!((piece.len(), activity.counts().sending), (n_bytes, outlives_the_body));
            drop(piece);
            assert_eq!(activity.counts().sending, 0);
        }
    }
}

//! One connection, whatever it carries.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio_util::task::TaskTracker;

use crate::Limits;
use crate::stream::Stream;
use crate::watch::Verdict;

/// Spawns the streams of HTTP/2 connections where the worker can wait for them.
#[derive(Debug, Clone)]
pub(crate) struct Spawner(pub(crate) TaskTracker);

impl<F: Future<Output: Send + 'static> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// The largest request of which no more than this has to wait for the client to be told to go on.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME_BYTES: u32 = 64 << 10;
/// Heads are received up to so much above their bound: a connection that is closed with bytes unread loses its answer.
const HEAD_SLACK: usize = 64 << 10;

/// HTTP/1 and HTTP/2 on one port, told apart by the first bytes.
pub(crate) fn any_http(limits: &Limits, spawner: &Spawner) -> auto::Builder<Spawner> {
    let header_bytes = limits.header_bytes.max(8192).saturating_add(HEAD_SLACK);
    let mut builder = auto::Builder::new(spawner.clone());
    builder
        .http1()
        .max_buf_size(header_bytes)
        .max_headers(limits.headers)
        .pipeline_flush(true)
        .half_close(false)
        .header_read_timeout(None);
    builder
        .http2()
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX));
    builder
}

/// Serves until the client leaves, or the order comes to drain or to cut.
pub(crate) async fn serve<S, B>(stream: Stream, service: S, builder: &auto::Builder<Spawner>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = std::convert::Infallible>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let activity = Arc::clone(&stream.activity);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut draining = false;
    poll_fn(|cx| {
        match activity.ordered(cx) {
            Verdict::Keep => {}
            Verdict::Drain if draining => {}
            Verdict::Drain => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            Verdict::Cut => return Poll::Ready(()),
        }
        connection.as_mut().poll(cx).map(|result| {
            if let Err(error) = result {
                tracing::debug!(error = %Chain(&*error), "connection ended early");
            }
        })
    })
    .await;
}

/// An error with its causes.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

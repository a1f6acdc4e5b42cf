//! A connection's bytes, counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::watch::{Counts, Verdict};

/// What a connection is doing, and the order to end it. Written by the connection's worker only, so that no counter
/// is contended.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    read: AtomicU64,
    written: AtomicU64,
    read_at_end: AtomicU64,
    requests: AtomicU64,
    running: AtomicU32,
    sending: AtomicU32,
    streaming: AtomicU32,
    http2: AtomicBool,
    closed: AtomicBool,
    order: AtomicU8,
    waker: AtomicWaker,
}

const DRAIN: u8 = 1;
const CUT: u8 = 2;

impl Activity {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            read: self.read.load(Relaxed),
            written: self.written.load(Relaxed),
            read_at_end: self.read_at_end.load(Relaxed),
            requests: self.requests.load(Relaxed),
            running: self.running.load(Relaxed),
            sending: self.sending.load(Relaxed),
            streaming: self.streaming.load(Relaxed),
            http2: self.http2.load(Relaxed),
        }
    }

    /// Orders the connection's task; an order is never taken back.
    pub(crate) fn order(&self, verdict: Verdict) {
        let order = match verdict {
            Verdict::Keep => return,
            Verdict::Drain => DRAIN,
            Verdict::Cut => CUT,
        };
        if self.order.fetch_max(order, Relaxed) < order {
            self.waker.wake();
        }
    }

    /// The order for the connection's task, which is woken when it changes.
    pub(crate) fn ordered(&self, cx: &Context<'_>) -> Verdict {
        self.waker.register(cx.waker());
        match self.order.load(Relaxed) {
            0 => Verdict::Keep,
            DRAIN => Verdict::Drain,
            _ => Verdict::Cut,
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// A request runs until the guard is dropped.
    pub(crate) fn running(self: &Arc<Self>, version: http::Version) -> Running {
        self.running.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        if version == http::Version::HTTP_2 {
            self.http2.store(true, Relaxed);
        }
        Running(Arc::clone(self))
    }

    /// An answer is on its way until the guard is dropped.
    pub(crate) fn sending(self: &Arc<Self>) -> Sending {
        self.sending.fetch_add(1, Relaxed);
        Sending(Arc::clone(self))
    }

    /// An answer that lasts, such as a watch, is there until the guard is dropped.
    pub(crate) fn streaming(self: &Arc<Self>) -> Streaming {
        self.streaming.fetch_add(1, Relaxed);
        Streaming(Arc::clone(self))
    }

    fn count_read(&self, bytes: &[u8]) {
        if self.read.fetch_add(bytes.len() as u64, Relaxed) == 0 && bytes.starts_with(b"PRI") {
            self.http2.store(true, Relaxed);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.read_at_end.store(self.0.read.load(Relaxed), Relaxed);
        self.0.running.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Sending(Arc<Activity>);

impl Sending {
    /// A guard beside this one, for a part of the answer that outlives it.
    pub(crate) fn another(&self) -> Sending {
        self.0.sending()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.sending.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Streaming(Arc<Activity>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.streaming.fetch_sub(1, Relaxed);
    }
}

/// Any transport.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A transport whose bytes are counted.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) transport: Transport,
    pub(crate) activity: Arc<Activity>,
}

macro_rules! on_transport {
    ($self:ident, $io:ident => $body:expr) => {
        match &mut $self.transport {
            Transport::Tcp(io) => {
                let $io = Pin::new(io);
                $body
            }
            Transport::Unix(io) => {
                let $io = Pin::new(io);
                $body
            }
            Transport::Tls(io) => {
                let $io = Pin::new(&mut **io);
                $body
            }
        }
    };
}

impl Stream {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &result {
            self.activity.written.fetch_add(*n as u64, Relaxed);
        }
        result
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = on_transport!(self, io => io.poll_read(cx, buf));
        self.activity.count_read(buf.filled().get(before..).unwrap_or_default());
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = on_transport!(self, io => io.poll_write(cx, buf));
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = on_transport!(self, io => io.poll_write_vectored(cx, bufs));
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Tcp(io) => io.is_write_vectored(),
            Transport::Unix(io) => io.is_write_vectored(),
            Transport::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, io => io.poll_shutdown(cx))
    }
}

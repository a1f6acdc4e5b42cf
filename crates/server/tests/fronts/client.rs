//! Clients for one connection each.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// A reply that is all there.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> Reply {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply { status: parts.status, headers: parts.headers, body }
}

#[expect(clippy::disallowed_methods, reason = "the task ends with its connection")]
fn background(future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tokio::spawn(future).abort_handle()
}

pub(crate) async fn http1<B>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> http1::SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    background(async move { drop(connection.await) });
    sender
}

pub(crate) async fn http2<B>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> http2::SendRequest<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    background(async move { drop(connection.await) });
    sender
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = Request::builder().method(method).uri(path).header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

/// One request over a connection of its own.
pub(crate) async fn send(
    address: Option<SocketAddr>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let socket = TcpStream::connect(address.unwrap()).await.unwrap();
    let mut sender = http1(socket).await;
    read(sender.send_request(request(method, path, headers, body)).await.unwrap()).await
}

/// As [`send`], without saying how long the body is.
pub(crate) async fn send_chunks(address: Option<SocketAddr>, path: &str, chunks: Vec<Bytes>) -> Reply {
    let socket = TcpStream::connect(address.unwrap()).await.unwrap();
    let mut sender = http1(socket).await;
    let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = Request::post(path).header("host", "test").body(body).unwrap();
    read(sender.send_request(request).await.unwrap()).await
}

pub(crate) async fn get(address: Option<SocketAddr>, path: &str) -> Reply {
    send(address, "GET", path, &[], "").await
}

pub(crate) async fn post(address: Option<SocketAddr>, path: &str, body: impl Into<Bytes>) -> Reply {
    send(address, "POST", path, &[], body).await
}

/// A connection for the generated clients.
#[derive(Clone)]
pub(crate) struct Channel(http2::SendRequest<tonic::body::Body>);

impl Channel {
    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Channel {
        Channel(http2(io).await)
    }

    pub(crate) async fn to(address: Option<SocketAddr>) -> Channel {
        Channel::over(TcpStream::connect(address.unwrap()).await.unwrap()).await
    }
}

impl tower_service::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Where generated clients think they are.
pub(crate) fn origin() -> Uri {
    Uri::from_static("http://test")
}

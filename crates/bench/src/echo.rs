//! The bare servers: hyper and tonic as they come, reading the whole body and giving a small fixed answer. They are
//! the floor that no server on the same libraries can be below.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::Ipv4Addr;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::server::TcpIncoming;
use tower_service::Service;

use crate::load::Transport;

/// The answer of the JSON echo: about as long as ten probabilities.
const ANSWER: &[u8] = br#"{"predictions": [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]]}"#;

/// Serves until killed; the first line on standard output is the address.
pub(crate) fn run(transport: Transport) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        match transport {
            Transport::Rest => rest(listener).await,
            Transport::Grpc => grpc(listener).await,
        }
    })
}

async fn rest(listener: TcpListener) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = hyper::server::conn::http1::Builder::new();
        connections.spawn(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    std::hint::black_box(&body);
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

async fn grpc(listener: TcpListener) -> Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder().serve_with_incoming(EchoServer, incoming).await?;
    Ok(())
}

/// What the gRPC echo takes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ping {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) body: Bytes,
}

/// What it answers: forty bytes, as many as ten floats.
#[derive(Clone, PartialEq, prost::Message)]
struct Pong {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
}

#[derive(Debug, Clone, Copy)]
struct EchoServer;

impl Service<Request<Body>> for EchoServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let codec = tonic_prost::ProstCodec::<Pong, Ping>::default();
        Box::pin(async move { Ok(Grpc::new(codec).unary(EchoMethod, request).await) })
    }
}

struct EchoMethod;

impl UnaryService<Ping> for EchoMethod {
    type Response = Pong;
    type Future = Ready<Result<tonic::Response<Pong>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Ping>) -> Self::Future {
        std::hint::black_box(request.get_ref());
        ready(Ok(tonic::Response::new(Pong { body: Bytes::from_static(&[0; 40]) })))
    }
}

//! Opening the sockets.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Config, Error, ErrorKind};

const BACKLOG: i32 = 1024;

/// Where a server listens; a port 0 in the configuration is the real port here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses {
    /// gRPC.
    pub grpc: Option<SocketAddr>,
    /// gRPC over a UNIX socket.
    pub grpc_unix: Option<PathBuf>,
    /// REST.
    pub rest: Option<SocketAddr>,
    /// Health and metrics alone.
    pub metrics: Option<SocketAddr>,
}

/// The open sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) grpc: Option<TcpListener>,
    pub(crate) grpc_unix: Option<UnixListener>,
    pub(crate) rest: Option<TcpListener>,
    pub(crate) metrics: Option<TcpListener>,
}

impl Listeners {
    /// Opens all of them, or none.
    pub(crate) fn bind(config: &Config) -> Result<Listeners, Error> {
        Ok(Listeners {
            grpc: config.grpc.map(|address| tcp("gRPC", address)).transpose()?,
            grpc_unix: config.grpc_unix.as_deref().map(unix).transpose()?,
            rest: config.rest.map(|address| tcp("REST", address)).transpose()?,
            metrics: config.metrics.map(|address| tcp("metrics", address)).transpose()?,
        })
    }

    pub(crate) fn addresses(&self, config: &Config) -> Addresses {
        let of = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        Addresses {
            grpc: of(&self.grpc),
            grpc_unix: self.grpc_unix.as_ref().and_then(|_| config.grpc_unix.clone()),
            rest: of(&self.rest),
            metrics: of(&self.metrics),
        }
    }
}

fn tcp(what: &str, address: SocketAddr) -> Result<TcpListener, Error> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open()
        .map_err(|error| Error::new(ErrorKind::Bind, format!("cannot listen on {address} for {what}"), error))
}

fn unix(path: &Path) -> Result<UnixListener, Error> {
    let fail =
        |error| Error::new(ErrorKind::Bind, format!("cannot listen on the socket {}", path.display()), error);
    if is_stale(path) {
        std::fs::remove_file(path).map_err(fail)?;
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

/// Whether the path is a socket that nobody listens on any more.
fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err()
}

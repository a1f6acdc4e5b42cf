//! Small packets between two processes, each with at most one file descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};

/// Bytes of every packet.
pub(crate) const PACKET: usize = 24;

/// One end of a pair of sockets that keep packets apart.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// What came.
#[derive(Debug)]
pub(crate) enum Received {
    Packet([u8; PACKET], Option<OwnedFd>),
    /// A packet of another size, or with more than one file descriptor.
    Malformed,
    /// Nothing, within the time that [`Socket::set_patience`] allows.
    Nothing,
    /// The other end is closed.
    Closed,
}

impl Socket {
    pub(crate) fn pair() -> io::Result<(Socket, Socket)> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Socket(a), Socket(b)))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Bounds how long one call waits.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        set_socket_timeout(&self.0, Timeout::Send, Some(patience))?;
        Ok(())
    }

    /// Sends a packet. Blocks while the other end has too many unread ones.
    ///
    /// # Errors
    /// When the other end is closed or does not read.
    pub(crate) fn send(&self, packet: &[u8; PACKET], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: &[BorrowedFd<'_>] = fd.as_slice();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "there is space for one");
        }
        let parts = [IoSlice::new(packet)];
        loop {
            match rustix::net::sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for a packet.
    ///
    /// # Errors
    /// When the kernel says so; a closed end is none.
    pub(crate) fn receive(&self) -> io::Result<Received> {
        // One byte more than a packet has shows one that is longer.
        let mut bytes = [0u8; PACKET + 1];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => break message,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::CONNRESET) => return Ok(Received::Closed),
                Err(error) => return Err(error.into()),
            }
        };
        let fds = control.drain().filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let mut fds: Vec<OwnedFd> = fds.flatten().collect();
        let is_cut = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        Ok(match (message.bytes, <[u8; PACKET]>::try_from(&bytes[..PACKET])) {
            (0, _) if fds.is_empty() && !is_cut => Received::Closed,
            (PACKET, Ok(packet)) if fds.len() <= 1 && !is_cut => Received::Packet(packet, fds.pop()),
            _ => Received::Malformed,
        })
    }

    /// Closes both ends, whoever else holds them.
    pub(crate) fn close(&self) {
        if let Err(error) = rustix::net::shutdown(&self.0, Shutdown::Both) {
            tracing::debug!("a socket is closed before it is told to: {error}");
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_carry_files_and_odd_ones_are_told_apart() {
        let (a, b) = Socket::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&[7; PACKET], Some(file.as_fd())).unwrap();
        assert!(matches!(b.receive().unwrap(), Received::Packet([7, ..], Some(_))));
        for odd in [&[1u8][..], &[2; PACKET - 1], &[3; PACKET + 1], &[4; 4096]] {
            rustix::net::send(&a.0, odd, SendFlags::empty()).unwrap();
            assert!(matches!(b.receive().unwrap(), Received::Malformed), "{} bytes", odd.len());
        }
        let (fds, packet) = ([file.as_fd(); 3], [0; PACKET]);
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&a.0, &[IoSlice::new(&packet)], &mut control, SendFlags::empty()).unwrap();
        assert!(matches!(b.receive().unwrap(), Received::Malformed), "three files");
        b.set_patience(Duration::from_millis(1)).unwrap();
        assert!(matches!(b.receive().unwrap(), Received::Nothing));
        drop(a);
        assert!(matches!(b.receive().unwrap(), Received::Closed));
    }
}

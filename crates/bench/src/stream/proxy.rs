//! A network in between: bytes pass at once, or all answers come so much later, as from a server that is slow.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Pieces of answers that wait at most.
const MOST: usize = 4_096;

/// A listening port before a server. Its threads end with their connections, and the listening one when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    delay_us: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn before(server: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (delay_us, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (delay, over) = (Arc::clone(&delay_us), Arc::clone(&is_over));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // A connection that fails is its client's to notice.
                let _connected = client.and_then(|client| connect(client, server, &delay));
            }
        });
        Ok(Proxy { address, delay_us, is_over })
    }

    /// From now on answers come so much later.
    pub(crate) fn delay(&self, by: Duration) {
        self.delay_us.store(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the listening thread.
        let _woken = TcpStream::connect(self.address);
    }
}

fn connect(client: TcpStream, server: SocketAddr, delay: &Arc<AtomicU64>) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (sender, receiver) = sync_channel(MOST);
    let (client_in, server_in) = (client.try_clone()?, server.try_clone()?);
    let delay = Arc::clone(delay);
    std::thread::spawn(move || pass(client_in, server));
    std::thread::spawn(move || take(server_in, &sender, &delay));
    std::thread::spawn(move || give(client, &receiver));
    Ok(())
}

/// Requests, at once.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    // Either end may close; the other is then closed, too.
    let _copied = std::io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Both);
}

/// Answers, with the moment at which each piece is to go on.
fn take(mut from: TcpStream, to: &SyncSender<(Instant, Vec<u8>)>, delay: &AtomicU64) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut piece) {
        let due = Instant::now() + Duration::from_micros(delay.load(Ordering::Relaxed));
        if to.send((due, piece[..n].to_vec())).is_err() {
            break;
        }
    }
    let _closed = from.shutdown(Shutdown::Both);
}

fn give(mut to: TcpStream, from: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, piece)) = from.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    let _closed = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_later() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::before(server.local_addr().unwrap()).unwrap();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() {
                stream.write_all(&byte).unwrap();
            }
        });
        let mut client = TcpStream::connect(proxy.address).unwrap();
        for delay in [0, 30] {
            let delay = Duration::from_millis(delay);
            proxy.delay(delay);
            let start = Instant::now();
            client.write_all(&[7]).unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [7]);
            assert!(start.elapsed() >= delay);
        }
        drop(client);
        echo.join().unwrap();
    }
}

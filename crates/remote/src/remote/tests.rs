//! Names that stand for servers.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::address::Address;

fn addresses(remote: &Remote) -> Vec<Address> {
    let mut all: Vec<Address> = remote.status().peers.into_iter().map(|status| status.peer.address).collect();
    all.sort();
    all
}

#[test]
fn names_stand_for_all_their_addresses() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = |last: u8| SocketAddr::from(([127, 0, 0, last], 9));
        let tcp = |last: u8| Address::Tcp(address(last));
        // What the resolver says, one after the other, and what is known then.
        let script: Vec<(io::Result<Vec<SocketAddr>>, Vec<Address>)> = vec![
            (Ok(vec![address(1), address(2), address(1)]), vec![tcp(1), tcp(2)]),
            (Ok(vec![address(2), address(3)]), vec![tcp(2), tcp(3)]),
            (Ok(Vec::new()), vec![tcp(2), tcp(3)]),
            (Err(io::Error::other("no resolver")), vec![tcp(2), tcp(3)]),
            (Ok(vec![address(4)]), vec![tcp(4)]),
        ];
        let (said, known): (VecDeque<_>, Vec<_>) = script.into_iter().unzip();
        let said = Arc::new(Mutex::new(said));
        // The resolver is asked when the last answer was taken note of; it waits for leave to say the next one.
        let (asked, mut asks) = mpsc::channel(1);
        let leave = Arc::new(tokio::sync::Semaphore::new(0));
        let allowed = Arc::clone(&leave);
        let lookup: Lookup = Arc::new(move |host, port| {
            assert_eq!((host.as_str(), port), ("models", 9));
            let (said, asked, allowed) = (Arc::clone(&said), asked.clone(), Arc::clone(&allowed));
            Box::pin(async move {
                asked.send(()).await.unwrap();
                allowed.acquire().await.unwrap().forget();
                let next = said.lock().unwrap().pop_front();
                next.unwrap_or_else(|| Ok(Vec::new()))
            })
        });
        let settings = Settings {
            addresses: vec!["models:9".parse().unwrap()],
            resolve_every: Duration::from_millis(1),
            ..Settings::default()
        };
        let remote = Remote::with_lookup(settings, &lookup).unwrap();
        asks.recv().await.unwrap();
        assert_eq!(addresses(&remote), []);
        for expected in known {
            leave.add_permits(1);
            asks.recv().await.unwrap();
            assert_eq!(addresses(&remote), expected);
        }
        assert_eq!(&*remote.status().peers[0].peer.authority, "models:9");
    });
}

#[test]
fn peers_that_are_named_are_those_of_models_apart_too() {
    let spec = ModelSpec {
        name: salver_predict::ModelName::new("m").unwrap(),
        version: salver_predict::VersionChoice::Latest,
    };
    let apart = vec![Apart { role: "shadow".to_owned(), spec }];
    let remote = Remote::new(Settings { apart, ..Settings::default() }).unwrap();
    let peer = Peer::new(SocketAddr::from(([127, 0, 0, 1], 9)));
    remote.peers().set(std::slice::from_ref(&peer));
    let (_, of_shadow) = remote.apart().remove(0);
    for status in [remote.status(), of_shadow] {
        let known: Vec<_> = status.peers.iter().map(|status| &status.peer).collect();
        assert_eq!(known, [&peer]);
    }
}

#[test]
fn a_name_without_addresses_is_told() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lookup: Lookup = Arc::new(|_, _| Box::pin(async { Err(io::Error::other("no such name")) }));
        let settings = Settings { addresses: vec!["models:9".parse().unwrap()], ..Settings::default() };
        let remote = Remote::with_lookup(settings, &lookup).unwrap();
        let spec = ModelSpec {
            name: salver_predict::ModelName::new("m").unwrap(),
            version: salver_predict::VersionChoice::Latest,
        };
        let error = remote.resolve(&spec).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(error.message(), "nobody can be asked: 'models' cannot be looked up: no such name");
    });
}

#[test]
fn the_system_looks_names_up() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // The listener only makes sure that the port is one.
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = system()("localhost".to_owned(), port).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.port() == port), "{found:?}");
    });
}

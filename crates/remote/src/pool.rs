//! The peers that there are, and calls to them: choose, send, judge, and once more elsewhere.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use salver_predict::{Blame, Code, Error};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::address::Peer;
use crate::balance::{Balancer, Check, Counts, Id, Outcome, PeerState, Ticket};
use crate::budget::Budget;
use crate::clock::now;
use crate::connections::{Connections, lock};
use crate::dial::Dialer;
use crate::exchange::{Ask, Failure, Reply};
use crate::protocol::{Protocol, Transport};
use crate::random::Random;
use crate::settings::Settings;
use crate::verdict::{Retry, Verdict, verdict};

/// The pause before the first retry to the same peer, on average. It doubles each time.
const BACK_OFF: Duration = Duration::from_millis(20);

/// When to ask again after too many calls at once.
const BUSY: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Pool {
    /// Whose calls these are, where they are not everybody's.
    role: Option<String>,
    dialer: Arc<Dialer>,
    n_connections: NonZeroUsize,
    max_tries: NonZeroUsize,
    try_timeout: Option<Duration>,
    pub(crate) max_message: usize,
    protocol: OnceLock<Protocol>,
    book: Mutex<Book>,
    calls: Semaphore,
    /// Somebody went out, so that there may be an earlier check than was known.
    due: Notify,
    /// Whether calls need not wait for the first addresses any more.
    settled: watch::Sender<bool>,
}

/// What is decided under one lock, which is never held while anything is waited for.
#[derive(Debug)]
struct Book {
    balancer: Balancer,
    budget: Budget,
    random: Random,
    peers: HashMap<Id, Arc<Connections>>,
    /// Those from each source, `None` where it has not said anything yet.
    sources: Vec<Option<Vec<Peer>>>,
    /// What the last source said that had none.
    problem: Option<String>,
}

/// Figures of one peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// The peer.
    pub peer: Peer,
    /// Where it stands.
    pub state: PeerState,
    /// Its latency by peak EWMA; `None` before its first answer.
    pub estimate: Option<Duration>,
    /// Calls that wait for its answer.
    pub under_way: usize,
    /// What happened to it.
    pub counts: Counts,
}

/// Figures of all peers.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// In the order in which they became known.
    pub peers: Vec<PeerStatus>,
    /// Retries that were not made because there had been too many.
    pub retries_denied: u64,
    /// The protocol, once it is known.
    pub protocol: Option<Protocol>,
}

impl Pool {
    /// `n_sources` may offer peers.
    pub(crate) fn new(settings: &Settings, role: Option<String>, dialer: Dialer, n_sources: usize) -> Pool {
        let protocol = OnceLock::new();
        if let Some(known) = settings.known_protocol() {
            protocol.get_or_init(|| known);
        }
        let book = Book {
            balancer: Balancer::new(settings.balance.clone(), Random::new()),
            budget: Budget::new(settings.retry_share, now()),
            random: Random::new(),
            peers: HashMap::new(),
            sources: vec![None; n_sources],
            problem: None,
        };
        Pool {
            role,
            dialer: Arc::new(dialer),
            n_connections: settings.connections,
            max_tries: settings.max_tries,
            try_timeout: settings.try_timeout,
            max_message: settings.max_message,
            protocol,
            book: Mutex::new(book),
            calls: Semaphore::new(settings.max_calls.get().min(Semaphore::MAX_PERMITS)),
            due: Notify::new(),
            settled: watch::Sender::new(false),
        }
    }

    /// What is spoken, once it is known.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        self.protocol.get().copied()
    }

    /// It is known now; what was known before stays.
    pub(crate) fn speaks(&self, protocol: Protocol) {
        self.protocol.get_or_init(|| protocol);
    }

    /// All peers that one source knows of. Without any, those that it knew before stay: a registry that forgets or a name
    /// that is gone does not take away servers that answer.
    pub(crate) fn offer(&self, source: usize, found: Result<Vec<Peer>, String>) {
        let mut book = lock(&self.book);
        let Book { sources, problem, .. } = &mut *book;
        let Some(slot) = sources.get_mut(source) else { return };
        match found {
            Ok(peers) if !peers.is_empty() => *slot = Some(peers),
            Ok(_) => {
                slot.get_or_insert_default();
            }
            Err(why) => {
                slot.get_or_insert_default();
                *problem = Some(why);
            }
        }
        self.reconcile(&mut book);
        let is_settled = !book.peers.is_empty() || book.sources.iter().all(Option::is_some);
        drop(book);
        if is_settled {
            self.settled.send_replace(true);
        }
    }

    /// Makes the peers those of all sources.
    fn reconcile(&self, book: &mut Book) {
        let Book { balancer, peers, sources, .. } = book;
        let key = |peer: &Peer| (peer.address.clone(), Arc::clone(&peer.authority));
        let mut known: HashMap<_, Id> =
            peers.iter().map(|(id, connections)| (key(connections.peer()), *id)).collect();
        let mut kept = HashSet::new();
        for peer in sources.iter().flatten().flatten() {
            let id = *known.entry(key(peer)).or_insert_with(|| {
                let id = balancer.add(peer.weight);
                let dialer = Arc::clone(&self.dialer);
                let connections = Connections::new(peer.clone(), dialer, self.n_connections.get());
                peers.insert(id, Arc::new(connections));
                id
            });
            balancer.set_weight(id, peer.weight);
            kept.insert(id);
        }
        peers.retain(|id, _| {
            let is_kept = kept.contains(id);
            if !is_kept {
                balancer.remove(*id);
            }
            is_kept
        });
    }

    /// Sends a request to peers until one answers, the deadline passes or no further try may be made. Who answered is told
    /// with the answer.
    ///
    /// # Errors
    /// [`Code::ResourceExhausted`] for too many calls at once, [`Code::DeadlineExceeded`], [`Code::Unavailable`] when nobody
    /// can be asked, or what the last peer said.
    pub(crate) async fn call(&self, ask: &Ask, deadline: Instant) -> Result<(Reply, Id), Error> {
        let _permit = self.calls.try_acquire().map_err(|_| {
            let text = "too many calls to other servers are under way";
            Error::overloaded(Code::ResourceExhausted, text, BUSY)
        })?;
        self.settle(deadline).await?;
        lock(&self.book).budget.request();
        let mut tried = Vec::new();
        loop {
            let Some(mut under_way) = self.begin(&tried) else { return Err(self.nobody()) };
            let id = under_way.ticket.id;
            let failure = match self.attempt(&mut under_way, ask, deadline).await {
                Ok(reply) => {
                    under_way.outcome = Outcome::Answered;
                    return Ok((reply, id));
                }
                Err(failure) => failure,
            };
            let Verdict { outcome, retry, error } =
                verdict(failure, &under_way.connections.peer().address.to_string());
            under_way.outcome = outcome;
            drop(under_way);
            tried.push(id);
            match self.again(&tried, retry, deadline) {
                None => return Err(error),
                Some(at) => sleep_until(at.into()).await,
            }
        }
    }

    async fn attempt(
        &self,
        under_way: &mut UnderWay<'_>,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let patience = under_way.ticket.patience.into_iter().chain(self.try_timeout).min();
        let UnderWay { ticket, connections, .. } = under_way;
        let sent = async {
            let line = connections.line(ask.transport).await?;
            ticket.sent = Some(now());
            connections.send(line, ask, deadline).await
        };
        let (until, failure) = match patience.map(|patience| (now() + patience, patience)) {
            Some((until, patience)) if until < deadline => (until, Failure::Slow(patience)),
            _ => (deadline, Failure::Late),
        };
        timeout_at(until.into(), sent).await.unwrap_or(Err(failure))
    }

    /// Waits until there are addresses, or every source has said that it has none.
    async fn settle(&self, deadline: Instant) -> Result<(), Error> {
        if *self.settled.borrow() {
            return Ok(());
        }
        let mut settled = self.settled.subscribe();
        match timeout_at(deadline.into(), settled.wait_for(|settled| *settled)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.nobody()),
        }
    }

    fn nobody(&self) -> Error {
        let problem = lock(&self.book).problem.clone();
        let text = problem.unwrap_or_else(|| "no address of a server is known".to_owned());
        Error::new(Code::Unavailable, Blame::Peer, format!("nobody can be asked: {text}"))
    }

    fn begin(&self, tried: &[Id]) -> Option<UnderWay<'_>> {
        let mut book = lock(&self.book);
        let ticket = book.balancer.pick(now(), tried)?;
        let connections = Arc::clone(book.peers.get(&ticket.id)?);
        Some(UnderWay { pool: self, ticket, connections, outcome: Outcome::Dropped })
    }

    /// When the request may go out once more; `None` when it may not.
    fn again(&self, tried: &[Id], retry: Retry, deadline: Instant) -> Option<Instant> {
        let now = now();
        if tried.len() >= self.max_tries.get() || now >= deadline {
            return None;
        }
        let mut book = lock(&self.book);
        let wait = match (book.balancer.has_other(tried), retry) {
            (_, Retry::No) | (false, Retry::Elsewhere) => return None,
            (true, _) => Duration::ZERO,
            (false, Retry::Anywhere(pause)) => {
                let doubled = BACK_OFF.saturating_mul(1u32 << (tried.len() - 1).min(8));
                pause.max(doubled.mul_f64(0.5 + book.random.unit()))
            }
        };
        let at = now + wait.min(deadline - now);
        (at < deadline && book.budget.retry(now)).then_some(at)
    }

    /// Says whether what this peer answered turned out to be an answer.
    pub(crate) fn judge(&self, id: Id, is_answer: bool) {
        let mut book = lock(&self.book);
        match is_answer {
            true => book.balancer.confirm(id),
            false if book.balancer.blame(now(), id) => self.due.notify_one(),
            false => {}
        }
    }

    /// Checks peers that are out whether a connection comes about, for ever.
    pub(crate) async fn keep_checking(self: Arc<Pool>) {
        let mut checks = JoinSet::new();
        loop {
            let next = lock(&self.book).balancer.next_due();
            let next = next.unwrap_or_else(|| now() + Duration::from_secs(3600));
            // Either is a reason to look.
            drop(timeout_at(next.into(), self.due.notified()).await);
            for (id, connections) in self.due_now() {
                checks.spawn(Arc::clone(&self).check(id, connections));
            }
            while checks.try_join_next().is_some() {}
        }
    }

    fn due_now(&self) -> Vec<(Id, Arc<Connections>)> {
        let mut book = lock(&self.book);
        let due = book.balancer.due(now()).into_iter();
        due.filter_map(|id| Some((id, Arc::clone(book.peers.get(&id)?)))).collect()
    }

    async fn check(self: Arc<Pool>, id: Id, connections: Arc<Connections>) {
        let transport = self.protocol().map_or(Transport::Http2, Protocol::transport);
        let check = match connections.check(transport).await {
            Ok(()) => {
                tracing::info!(peer = %connections.peer().address, role = self.role.as_deref(), "can be connected to, and gets a call to try");
                Check::Connected
            }
            Err(failure) => {
                tracing::debug!(peer = %connections.peer().address, %failure, "still cannot be reached");
                Check::Unreachable
            }
        };
        lock(&self.book).balancer.checked(now(), id, check);
        self.due.notify_one();
    }

    pub(crate) fn status(&self) -> Status {
        let book = lock(&self.book);
        let one = |report: crate::balance::Report| {
            Some(PeerStatus {
                peer: book.peers.get(&report.id)?.peer().clone(),
                state: report.state,
                estimate: report.estimate,
                under_way: report.under_way,
                counts: report.counts,
            })
        };
        Status {
            peers: book.balancer.report(now()).into_iter().filter_map(one).collect(),
            retries_denied: book.budget.denied(),
            protocol: self.protocol(),
        }
    }
}

/// A call that is under way; dropped, it has ended.
#[derive(Debug)]
struct UnderWay<'a> {
    pool: &'a Pool,
    ticket: Ticket,
    connections: Arc<Connections>,
    outcome: Outcome,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let went_out = lock(&self.pool.book).balancer.done(now(), &self.ticket, self.outcome);
        if went_out {
            let role = self.pool.role.as_deref();
            tracing::warn!(peer = %self.connections.peer().address, role, outcome = ?self.outcome, "takes no calls for now");
            self.pool.due.notify_one();
        }
    }
}

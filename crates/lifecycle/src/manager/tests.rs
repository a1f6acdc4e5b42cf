use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use super::*;
use crate::{AspiredVersion, Cancel, ErrorKind, LoadError, Phase, SystemClock};

const LONG: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Good,
    Broken,
    Passing,
    Panic,
    UntilCancelled,
}

/// A loader whose every load waits until the test says how it ends.
#[derive(Default)]
struct Puppet {
    stage: Mutex<PuppetStage>,
    changed: Condvar,
}

#[derive(Default)]
struct PuppetStage {
    running: Vec<Id>,
    verdicts: HashMap<Id, Verdict>,
    n_loads: usize,
}

struct PuppetLoader {
    puppet: Arc<Puppet>,
    dropped: SyncSender<(Id, String)>,
}

#[derive(Debug)]
struct Toy {
    id: Id,
    dropped: SyncSender<(Id, String)>,
}

impl Drop for Toy {
    fn drop(&mut self) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.dropped.try_send((self.id.clone(), thread)).unwrap();
    }
}

impl Loader for PuppetLoader {
    type Source = ();
    type Servable = Toy;

    fn load(&self, id: &Id, (): &(), cancel: &Cancel) -> Result<Toy, LoadError> {
        match self.puppet.verdict(id) {
            Verdict::Good => Ok(Toy { id: id.clone(), dropped: self.dropped.clone() }),
            Verdict::Broken => Err(LoadError::permanent(ErrorKind::Invalid, "broken on purpose")),
            Verdict::Passing => Err(LoadError::transient(ErrorKind::Unavailable, "not yet")),
            Verdict::Panic => panic!("{id} fell over"),
            Verdict::UntilCancelled => {
                assert!(cancel.wait(LONG));
                Err(LoadError::cancelled())
            }
        }
    }
}

impl Puppet {
    fn verdict(&self, id: &Id) -> Verdict {
        let mut stage = self.stage.lock().unwrap();
        stage.running.push(id.clone());
        stage.n_loads += 1;
        self.changed.notify_all();
        loop {
            if let Some(verdict) = stage.verdicts.remove(id) {
                stage.running.retain(|other| other != id);
                return verdict;
            }
            stage = self.changed.wait(stage).unwrap();
        }
    }

    fn say(&self, id: &Id, verdict: Verdict) {
        self.stage.lock().unwrap().verdicts.insert(id.clone(), verdict);
        self.changed.notify_all();
    }

    fn wait_running(&self, id: &Id) {
        let stage = self.stage.lock().unwrap();
        let (_stage, late) =
            self.changed.wait_timeout_while(stage, LONG, |stage| !stage.running.contains(id)).unwrap();
        assert!(!late.timed_out(), "{id} was never loaded");
    }

    fn n_loads(&self) -> usize {
        self.stage.lock().unwrap().n_loads
    }
}

struct Room {
    manager: Arc<Manager<PuppetLoader>>,
    puppet: Arc<Puppet>,
    dropped: Receiver<(Id, String)>,
    now: Arc<Mutex<Instant>>,
}

impl Room {
    fn new(n_load_threads: usize) -> Self {
        Self::observed(n_load_threads, Box::new(|_, _| ()))
    }

    fn observed(n_load_threads: usize, observer: Observer) -> Self {
        let puppet = Arc::new(Puppet::default());
        let (sender, dropped) = sync_channel(1000);
        let loader = PuppetLoader { puppet: Arc::clone(&puppet), dropped: sender };
        let now = Arc::new(Mutex::new(SystemClock.now()));
        let clock = Arc::clone(&now);
        let config = Config {
            n_load_threads: NonZeroUsize::new(n_load_threads).unwrap(),
            retry_interval: LONG,
            ..Config::default()
        };
        let clock = Arc::new(move || *clock.lock().unwrap());
        let manager = Arc::new(Manager::with_observer(loader, &config, clock, observer).unwrap());
        Self { manager, puppet, dropped, now }
    }

    fn deadline(&self) -> Instant {
        *self.now.lock().unwrap() + LONG
    }

    fn advance(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
        self.manager.wake();
    }

    fn aspire(&self, name: &str, versions: &[u64]) {
        self.aspire_content(name, versions, 0);
    }

    fn aspire_content(&self, name: &str, versions: &[u64], fingerprint: u64) {
        let one = |v: &u64| AspiredVersion { version: Version::new(*v).unwrap(), source: (), fingerprint };
        let name = ModelName::new(name).unwrap();
        self.manager.aspire(Aspired { name, versions: versions.iter().map(one).collect() });
    }

    /// Blocks until the states of the name read so, from the highest version down.
    fn expect(&self, name: &str, expected: &[(u64, Phase)]) {
        let read = |states: &[VersionState]| -> Vec<_> {
            states.iter().map(|s| (s.version.get(), s.state.phase)).collect()
        };
        let done = self.manager.wait(self.deadline(), |states| {
            states.get(name).map_or_else(Vec::new, |states| read(states)) == expected
        });
        assert!(done, "{name}: got {:?}, expected {expected:?}", read(&self.manager.states(name)));
    }

    fn error(&self, name: &str) -> Option<LoadError> {
        self.manager.states(name)[0].state.error.clone()
    }

    fn load(&self, name: &str, version: u64) {
        self.puppet.say(&id(name, version), Verdict::Good);
    }

    fn next_dropped(&self) -> (Id, String) {
        self.dropped.recv_timeout(LONG).unwrap()
    }
}

fn id(name: &str, version: u64) -> Id {
    Id { name: ModelName::new(name).unwrap(), version: Version::new(version).unwrap() }
}

use Phase::{Available, End, Loading, Start, Unloading};

#[test]
fn readers_find_what_is_available() {
    let room = Room::new(4);
    room.aspire("m", &[1, 3]);
    room.load("m", 1);
    room.load("m", 3);
    room.expect("m", &[(3, Available), (1, Available)]);
    let check = |name: &str, version: Option<u64>, expected: Result<u64, &str>| {
        let handle = room.manager.handle(name, version.and_then(Version::new));
        let got = handle.map(|h| (h.id().version.get(), h.id.clone()));
        let got = got.as_ref().map(|(version, _)| *version).map_err(ToString::to_string);
        assert_eq!(got, expected.map_err(str::to_owned));
    };
    check("m", None, Ok(3));
    check("m", Some(1), Ok(1));
    check("m", Some(2), Err("Servable not found for request: Specific(m, 2)"));
    check("n", None, Err("Servable not found for request: Latest(n)"));
    assert_eq!(room.manager.available("m"), [3, 1].map(|v| Version::new(v).unwrap()));
    assert_eq!(room.manager.available("n"), []);
}

#[test]
fn the_old_version_serves_until_the_new_one_does() {
    let room = Room::new(2);
    room.aspire("m", &[1]);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    room.aspire("m", &[2]);
    room.puppet.wait_running(&id("m", 2));
    room.expect("m", &[(2, Loading), (1, Available)]);
    let handle = room.manager.handle("m", None).unwrap();
    assert_eq!(handle.id(), &id("m", 1));

    room.load("m", 2);
    room.expect("m", &[(2, Available), (1, Unloading)]);
    assert_eq!(room.manager.handle("m", None).unwrap().id(), &id("m", 2));
    assert!(room.manager.handle("m", Version::new(1)).is_err());
    assert_eq!(handle.id, id("m", 1));
    assert!(room.dropped.try_recv().is_err());

    drop(handle);
    room.expect("m", &[(2, Available), (1, End)]);
    let (dropped, thread) = room.next_dropped();
    assert_eq!(dropped, id("m", 1));
    assert!(thread.starts_with("unload-"), "dropped on {thread:?}");
}

#[test]
fn a_slow_model_delays_no_other() {
    let room = Room::new(2);
    room.aspire("slow", &[1, 2, 3]);
    room.puppet.wait_running(&id("slow", 3));
    for name in ["a", "b", "c"] {
        room.aspire(name, &[1]);
        room.load(name, 1);
        room.expect(name, &[(1, Available)]);
    }
    room.expect("slow", &[(3, Loading), (2, Start), (1, Start)]);
    for version in [1, 2, 3] {
        room.load("slow", version);
    }
    room.expect("slow", &[(3, Available), (2, Available), (1, Available)]);
}

#[test]
fn waiting_for_a_retry_holds_no_thread() {
    let room = Room::new(1);
    room.aspire("late", &[1]);
    room.puppet.say(&id("late", 1), Verdict::Passing);
    room.aspire("m", &[1]);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    room.expect("late", &[(1, Loading)]);
    assert_eq!(room.puppet.n_loads(), 2);

    room.load("late", 1);
    room.advance(LONG);
    room.expect("late", &[(1, Available)]);
    assert_eq!(room.puppet.n_loads(), 3);
}

#[test]
fn a_failed_version_waits_for_new_content() {
    let check = |verdict: Verdict, kind: ErrorKind, message: &str| {
        let room = Room::new(1);
        room.aspire("m", &[1]);
        room.puppet.say(&id("m", 1), verdict);
        room.expect("m", &[(1, End)]);
        assert_eq!(room.error("m"), Some(LoadError::permanent(kind, message)));

        room.aspire("m", &[1]);
        room.expect("m", &[(1, End)]);
        assert_eq!(room.puppet.n_loads(), 1);

        room.aspire_content("m", &[1], 1);
        room.load("m", 1);
        room.expect("m", &[(1, Available)]);
        assert_eq!(room.error("m"), None);
    };
    check(Verdict::Broken, ErrorKind::Invalid, "broken on purpose");
    check(Verdict::Panic, ErrorKind::Internal, "loader panicked: {name: m version: 1} fell over");
}

#[test]
fn what_is_no_longer_wanted_is_called_off() {
    let room = Room::new(1);
    room.aspire("running", &[1]);
    room.puppet.wait_running(&id("running", 1));
    room.aspire("queued", &[1]);
    room.expect("queued", &[(1, Start)]);
    room.aspire("queued", &[]);
    room.expect("queued", &[(1, End)]);
    room.puppet.say(&id("running", 1), Verdict::UntilCancelled);
    room.aspire("running", &[]);
    room.expect("running", &[(1, End)]);
    assert_eq!(room.error("running"), Some(LoadError::cancelled()));

    room.aspire("waiting", &[1]);
    room.puppet.say(&id("waiting", 1), Verdict::Passing);
    room.expect("waiting", &[(1, Loading)]);
    room.aspire("waiting", &[]);
    room.expect("waiting", &[(1, End)]);
    assert_eq!(room.puppet.n_loads(), 2);
}

#[test]
fn a_servable_that_came_too_late_is_never_published() {
    let room = Room::new(1);
    room.aspire("m", &[1]);
    room.puppet.wait_running(&id("m", 1));
    room.aspire("m", &[]);
    room.load("m", 1);
    room.expect("m", &[(1, End)]);
    assert_eq!(room.next_dropped().0, id("m", 1));
    assert_eq!(room.error("m"), None);
}

#[test]
fn a_version_wanted_again_waits_until_the_old_one_is_gone() {
    let room = Room::new(2);
    room.aspire("m", &[1]);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    let handle = room.manager.handle("m", None).unwrap();
    room.aspire("m", &[]);
    room.expect("m", &[(1, Unloading)]);
    room.aspire("m", &[1]);
    room.expect("m", &[(1, Unloading)]);
    let copy = handle.clone();
    drop(handle);
    room.expect("m", &[(1, Unloading)]);
    assert_eq!(room.puppet.n_loads(), 1);
    drop(copy);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    assert_eq!(room.puppet.n_loads(), 2);
}

#[test]
fn a_forgotten_name_goes() {
    let room = Room::new(1);
    room.aspire("m", &[1]);
    room.aspire("n", &[]);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    assert_eq!(room.manager.names(), ["m", "n"].map(|name| ModelName::new(name).unwrap()));
    let handle = room.manager.handle("m", None).unwrap();
    room.manager.forget(&id("m", 1).name);
    room.manager.forget(&id("n", 1).name);
    room.manager.forget(&id("never", 1).name);
    room.expect("m", &[(1, Unloading)]);
    assert_eq!(room.manager.names(), [id("m", 1).name]);
    drop(handle);
    room.expect("m", &[]);
    assert_eq!(room.manager.names(), []);
}

#[test]
fn a_published_state_is_true() {
    let manager: Arc<OnceLock<Weak<Manager<PuppetLoader>>>> = Arc::default();
    let (sender, seen) = sync_channel(100);
    let known = Arc::clone(&manager);
    let room = Room::observed(
        1,
        Box::new(move |id: &Id, state: &State| {
            let manager = known.get().and_then(Weak::upgrade).unwrap();
            sender.try_send((state.phase, manager.available(&id.name).contains(&id.version))).unwrap();
            assert!(state.phase != Start, "an observer's panic is contained");
        }),
    );
    manager.set(Arc::downgrade(&room.manager)).unwrap();
    room.aspire("m", &[1]);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    room.aspire("m", &[]);
    room.expect("m", &[(1, End)]);
    let expected = [(Start, false), (Loading, false), (Available, true), (Unloading, true), (End, false)];
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn shutdown_unloads_and_ends_the_threads() {
    let room = Room::new(2);
    room.aspire("m", &[1]);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    room.aspire("slow", &[1]);
    room.puppet.say(&id("slow", 1), Verdict::UntilCancelled);
    assert!(room.manager.shutdown(room.deadline()));
    assert_eq!(room.next_dropped().0, id("m", 1));
    room.aspire("n", &[1]);
    room.expect("n", &[]);
    assert!(room.manager.shutdown(room.deadline()));
}

#[test]
fn shutdown_does_not_wait_beyond_its_deadline() {
    let room = Room::new(1);
    room.aspire("m", &[1]);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    let handle = room.manager.handle("m", None).unwrap();
    let now = *room.now.lock().unwrap();
    assert!(!room.manager.shutdown(now));
    assert_eq!(handle.id, id("m", 1));
    drop(handle);
    assert_eq!(room.next_dropped().0, id("m", 1));
}

#[test]
fn readers_never_miss_while_versions_roll() {
    let room = Room::new(2);
    room.aspire("m", &[1]);
    room.load("m", 1);
    room.expect("m", &[(1, Available)]);
    let stop = AtomicBool::new(false);
    let n_reads = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let handle = room.manager.handle("m", None).expect("a version is always available");
                    assert_eq!(handle.id(), &handle.id);
                    n_reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for version in 2..50 {
            room.aspire("m", &[version]);
            room.load("m", version);
            let done = room.manager.wait(room.deadline(), |states| {
                let of = |v| states["m"].iter().find(|s| s.version.get() == v).map(|s| s.state.phase);
                of(version) == Some(Available) && of(version - 1) == Some(End)
            });
            assert!(done, "version {version}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(n_reads.load(Ordering::Relaxed) > 0);
    assert_eq!(room.manager.states("m").len(), 17);
    assert!(room.dropped.try_iter().all(|(_, thread)| thread.starts_with("unload-")));
}

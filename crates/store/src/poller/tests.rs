use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use salver_lifecycle::Version;
use tempfile::TempDir;

use super::*;
use crate::SourceErrorKind;

const LONG: Duration = Duration::from_secs(60);

struct Room {
    poller: Poller,
    folder: TempDir,
    aspired: Receiver<(String, Vec<(u64, PathBuf)>)>,
    statuses: Receiver<(String, SourceStatus)>,
}

impl Room {
    fn new(mode: PollMode) -> Self {
        let (aspired_sender, aspired) = sync_channel(100);
        let (status_sender, statuses) = sync_channel(100);
        let on_aspired = move |aspired: Aspired<PathBuf>| {
            let versions = aspired.versions.into_iter().map(|v| (v.version.get(), v.source)).collect();
            aspired_sender.try_send((aspired.name.to_string(), versions)).unwrap();
        };
        let on_status = move |name: &ModelName, status: &SourceStatus| {
            status_sender.try_send((name.to_string(), status.clone())).unwrap();
        };
        let poller = Poller::new(mode, Limits::default(), Box::new(on_aspired), Box::new(on_status)).unwrap();
        Self { poller, folder: tempfile::tempdir().unwrap(), aspired, statuses }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A model whose base path has its name, and whose content counts at once.
    fn watched(&self, name: &str) -> Watched {
        let settle = Duration::ZERO;
        Watched { settle, ..Watched::new(ModelName::new(name).unwrap(), self.path(name)) }
    }

    fn set(&self, names: &[&str]) {
        self.poller.set_models(names.iter().map(|name| self.watched(name)).collect());
    }

    /// Scans once and says what was newly aspired.
    fn poll(&self) -> Vec<(String, Vec<u64>)> {
        self.poller.poll_once();
        self.aspired.try_iter().map(|(name, versions)| (name, numbers(&versions))).collect()
    }

    fn next(&self) -> (String, Vec<u64>) {
        let (name, versions) = self.aspired.recv_timeout(LONG).unwrap();
        (name, numbers(&versions))
    }
}

fn numbers(versions: &[(u64, PathBuf)]) -> Vec<u64> {
    versions.iter().map(|(version, _)| *version).collect()
}

fn wish(name: &str, versions: &[u64]) -> (String, Vec<u64>) {
    (name.to_owned(), versions.to_vec())
}

#[test]
fn seconds_as_tensorflow_serving_means_them() {
    assert_eq!(PollMode::from_seconds(-1), PollMode::Never);
    assert_eq!(PollMode::from_seconds(0), PollMode::Once);
    assert_eq!(PollMode::from_seconds(3), PollMode::Every(Duration::from_secs(3)));
}

#[test]
fn folders_become_wishes() {
    let room = Room::new(PollMode::Never);
    room.write("a/1/model", "one");
    room.write("a/00002/model", "two");
    room.write("a/readme", "no version");
    room.write("b/1/model", "one");
    assert_eq!(room.poll(), []);
    room.set(&["a", "b"]);
    room.poller.poll_once();
    let first = room.aspired.try_recv().unwrap();
    assert_eq!(first, ("a".to_owned(), vec![(2, room.path("a/00002"))]));
    assert_eq!(room.poll(), [wish("b", &[1])]);
    assert_eq!(room.poll(), []);

    room.write("a/3/model", "three");
    assert_eq!(room.poll(), [wish("a", &[3])]);
    fs::remove_dir_all(room.path("a/3")).unwrap();
    assert_eq!(room.poll(), [wish("a", &[2])]);
    room.write("a/00002/model", "changed");
    assert_eq!(room.poll(), [wish("a", &[2])]);
    fs::remove_dir_all(room.path("b/1")).unwrap();
    assert_eq!(room.poll(), [wish("b", &[])]);
}

#[test]
fn young_content_counts_at_the_second_scan() {
    let room = Room::new(PollMode::Never);
    room.write("m/1/model", "one");
    let watched = Watched { settle: Duration::from_secs(3600), ..room.watched("m") };
    room.poller.set_models(vec![watched.clone()]);
    assert_eq!(room.poll(), [wish("m", &[])]);
    assert_eq!(room.poll(), [wish("m", &[1])]);

    let late = Room::new(PollMode::Never);
    late.poller.set_models(vec![watched]);
    late.poller.poll_at(wall_clock() + Duration::from_secs(7200));
    assert_eq!(late.next(), wish("m", &[1]));
}

#[test]
fn a_broken_base_path_is_its_own_models_trouble() {
    let room = Room::new(PollMode::Never);
    room.write("b/1/model", "one");
    let remote = Watched { base_path: "gs://bucket/c".into(), ..room.watched("c") };
    room.poller.set_models(vec![room.watched("a"), room.watched("b"), remote]);
    assert_eq!(room.poll(), [wish("b", &[1])]);
    let error = |name: &str| room.poller.status(name).unwrap().error.map(|error| error.kind);
    assert_eq!(error("a"), Some(SourceErrorKind::NotFound));
    assert_eq!(error("b"), None);
    assert_eq!(error("c"), Some(SourceErrorKind::Unsupported));
    assert_eq!(room.statuses.try_iter().count(), 3);
    assert_eq!(room.poll(), []);
    assert_eq!(room.statuses.try_iter().count(), 0);

    room.write("a/7/model", "seven");
    assert_eq!(room.poll(), [wish("a", &[7])]);
    assert_eq!(error("a"), None);
    fs::rename(room.path("a"), room.path("elsewhere")).unwrap();
    assert_eq!(room.poll(), []);
    assert_eq!(error("a"), Some(SourceErrorKind::NotFound));
    fs::rename(room.path("elsewhere"), room.path("a")).unwrap();
    assert_eq!(room.poll(), []);
    assert_eq!(error("a"), None);
}

#[test]
fn a_single_path_is_one_version() {
    let check = |path: &str, file: &str| {
        let room = Room::new(PollMode::Never);
        room.write(file, "one");
        let name = ModelName::new("m").unwrap();
        let watched = Watched::single(name, room.path(path), Version::new(1).unwrap());
        room.poller.set_models(vec![Watched { settle: Duration::ZERO, ..watched }]);
        room.poller.poll_once();
        assert_eq!(room.aspired.try_recv().unwrap(), ("m".to_owned(), vec![(1, room.path(path))]));
        room.write(file, "another");
        assert_eq!(room.poll(), [wish("m", &[1])]);
        fs::remove_file(room.path(file)).unwrap();
        assert_eq!(room.poll(), []);
    };
    check("m.onnx", "m.onnx");
    check("m", "m/7.bin");
}

#[test]
fn the_set_of_models_is_replaced() {
    let room = Room::new(PollMode::Never);
    for file in ["a/1/model", "a/2/model", "b/1/model", "c/5/model"] {
        room.write(file, "");
    }
    room.set(&["a", "b"]);
    assert_eq!(room.poll(), [wish("a", &[2]), wish("b", &[1])]);
    let all = Watched { policy: crate::VersionPolicy::All, ..room.watched("a") };
    let moved = Watched { base_path: room.path("c"), ..room.watched("b") };
    room.poller.set_models(vec![all, moved]);
    assert_eq!(room.poll(), [wish("a", &[2, 1]), wish("b", &[5])]);
    room.set(&[]);
    assert_eq!(room.poll(), []);
    assert!(room.poller.status("a").is_none() && room.poller.statuses().is_empty());
    room.set(&["a"]);
    assert_eq!(room.poll(), [wish("a", &[2])]);
}

#[test]
fn what_comes_too_late_is_dropped() {
    let room = Room::new(PollMode::Never);
    room.write("m/1/model", "one");
    room.set(&["m"]);
    let name = ModelName::new("m").unwrap();
    let state = room.poller.shared.lock();
    let (watched, number) = (state.sources[&name].watched.clone(), state.sources[&name].number);
    drop(state);
    let listing = list(&watched, &Limits::default());
    let mut content = |path: &Path| read_content(path, &Limits::default());
    let (seen, decision) = decide(&watched, listing, &mut content, &Seen::default(), wall_clock());
    room.set(&[]);
    room.set(&["m"]);
    room.poller.shared.deliver(&name, number, seen.clone(), decision.clone());
    assert!(room.aspired.try_recv().is_err());
    let number = room.poller.shared.lock().sources[&name].number;
    room.poller.shared.deliver(&name, number, seen, decision);
    assert_eq!(room.next(), wish("m", &[1]));
}

#[test]
fn the_thread_scans_by_itself() {
    let check = |mode: PollMode| {
        let room = Room::new(mode);
        room.write("m/1/model", "one");
        room.set(&["m"]);
        assert_eq!(room.next(), wish("m", &[1]), "{mode:?}");
        room.write("m/2/model", "two");
        if mode == PollMode::Once {
            room.poller.wake();
        }
        assert_eq!(room.next(), wish("m", &[2]), "{mode:?}");
        assert!(room.poller.shutdown(clock() + LONG));
        // The file may have been seen both empty and written.
        assert!(room.aspired.try_iter().all(|(_, versions)| numbers(&versions) == [2]));
        room.write("m/3/model", "three");
        room.poller.poll_once();
        assert!(room.aspired.try_recv().is_err());
    };
    check(PollMode::Every(Duration::from_millis(1)));
    check(PollMode::Once);
}

#[test]
fn scanning_once_waits_for_what_is_not_complete() {
    let room = Room::new(PollMode::Once);
    room.write("m/1/model", "one");
    let future = wall_clock() + Duration::from_secs(3600);
    let file = fs::File::options().append(true).open(room.path("m/1/model")).unwrap();
    file.set_modified(future).unwrap();
    let settle = Duration::from_millis(1);
    room.poller.set_models(vec![Watched { settle, ..room.watched("m") }]);
    assert_eq!(room.next(), wish("m", &[]));
    assert_eq!(room.next(), wish("m", &[1]));
}

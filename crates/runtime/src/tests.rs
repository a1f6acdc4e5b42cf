//! Installing from small wheels that are made here, finding, removing.

mod bad_wheels;
mod finding;
mod made;
mod pip;

use std::fs;
use std::time::{Duration, SystemTime};

use made::{Made, platform};
use tempfile::TempDir;

use crate::install::TEMPORARY;
use crate::{ErrorKind, Kind, Order, Origin, Outcome, Progress, Runtimes, Source, Version};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn order(kind: Kind, wheel: &std::path::Path) -> Order {
    Order { kind, version: None, source: Source::Wheel(wheel.to_path_buf()), again: false }
}

fn install(runtimes: &Runtimes, order: &Order) -> Result<Outcome, crate::Error> {
    runtimes.install(order, &platform(), NOW, &mut |_| {})
}

/// An empty folder for wheels and libraries, and the libraries in it.
fn place() -> (TempDir, Runtimes) {
    let dir = tempfile::tempdir().unwrap();
    let runtimes = Runtimes::new(dir.path().join("runtimes"));
    (dir, runtimes)
}

/// The names in a library's folder that are not the lock.
fn names(runtimes: &Runtimes, kind: Kind) -> Vec<String> {
    let entries = fs::read_dir(runtimes.folder().join(kind.name())).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".lock");
    names.sort();
    names
}

fn texts(errors: Vec<crate::Error>) -> Vec<String> {
    errors.into_iter().map(|error| error.to_string()).collect()
}

#[track_caller]
fn check_installed(kind: Kind, made: &Made, expected: &[&str]) {
    let (dir, runtimes) = place();
    let wheel = made.write(dir.path());
    let mut last = None;
    let now = NOW + Duration::from_secs(1_700_000_000);
    let outcome = runtimes
        .install(&order(kind, &wheel), &platform(), now, &mut |progress| last = Some(progress))
        .unwrap();
    let Outcome::Installed(found) = outcome else { panic!("{outcome:?}") };
    assert_eq!(found, runtimes.find(kind, None).unwrap());
    assert_eq!(found.origin, Origin::Installed);
    let mut files = Vec::new();
    for entry in fs::read_dir(&found.folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let licences = fs::read_dir(&path).unwrap().map(|licence| licence.unwrap().path());
            files.extend(licences);
        } else {
            files.push(path);
        }
    }
    let mut files: Vec<_> =
        files.iter().map(|path| path.strip_prefix(&found.folder).unwrap().to_str().unwrap()).collect();
    files.sort_unstable();
    assert_eq!(files, expected);
    assert!(found.has_hashes());
    assert_eq!(texts(found.verify()), Vec::<String>::new());
    assert!(matches!(last, Some(Progress::Unpacked { done, total }) if done == total), "{last:?}");
    let manifest = fs::read_to_string(found.folder.join("salver-runtime.json")).unwrap();
    for part in ["\"installed_at\": 1700000000", "\"wheel_sha256\": \"", wheel.to_str().unwrap()] {
        assert!(manifest.contains(part), "{part} in {manifest}");
    }
}

#[test]
fn the_libraries_and_licences_of_a_wheel_are_installed() {
    check_installed(
        Kind::OnnxRuntime,
        &Made::onnxruntime("1.32.0"),
        &[
            "LICENSES/LICENSE",
            "LICENSES/ThirdPartyNotices.txt",
            "libonnxruntime.so.1.32.0",
            "libonnxruntime_providers_shared.so",
            "salver-runtime.json",
        ],
    );
    check_installed(
        Kind::OpenVino,
        &Made::openvino("2026.4.1"),
        &[
            "LICENSES/LICENSE",
            "LICENSES/licensing-third.txt",
            "libopenvino.so.2641",
            "libopenvino_c.so.2641",
            "libopenvino_intel_cpu_plugin.so",
            "libtbb.so.12",
            "salver-runtime.json",
        ],
    );
    check_installed(
        Kind::TensorFlow,
        &Made::tensorflow("2.21.0"),
        &[
            "LICENSES/LICENSE",
            "LICENSES/THIRD_PARTY_NOTICES.txt",
            "libtensorflow_cc.so.2",
            "libtensorflow_framework.so.2",
            "salver-runtime.json",
        ],
    );
}

#[test]
fn what_is_there_is_not_installed_again_unless_asked() {
    let (dir, runtimes) = place();
    let kind = Kind::OnnxRuntime;
    let wheel = Made::onnxruntime("1.32.0").write(dir.path());
    let order = order(kind, &wheel);
    assert!(matches!(install(&runtimes, &order).unwrap(), Outcome::Installed(_)));
    assert!(matches!(install(&runtimes, &order).unwrap(), Outcome::AlreadyThere(_)));
    let again = Order { again: true, ..order.clone() };
    assert!(matches!(install(&runtimes, &again).unwrap(), Outcome::Installed(_)));
    // What is damaged is replaced without being asked.
    let library = runtimes.find(kind, None).unwrap().folder.join("libonnxruntime.so.1.32.0");
    fs::write(&library, b"\x7fELF").unwrap();
    assert!(matches!(install(&runtimes, &order).unwrap(), Outcome::Installed(_)));
    assert_eq!(names(&runtimes, kind), ["1.32.0"]);
}

#[test]
fn versions_lie_side_by_side_and_are_removed_one_by_one() {
    let (dir, runtimes) = place();
    let kind = Kind::OnnxRuntime;
    for version in ["1.9.0", "1.10.0"] {
        install(&runtimes, &order(kind, &Made::onnxruntime(version).write(dir.path()))).unwrap();
    }
    let found: Vec<_> = runtimes.list(kind).into_iter().map(|found| found.unwrap().version_text()).collect();
    assert_eq!(found, ["1.10.0", "1.9.0"]);
    let error = runtimes.remove(kind, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("name one with --version: 1.9.0, 1.10.0"), "{error}");
    let removed = runtimes.remove(kind, Some(&"1.9.0".parse().unwrap())).unwrap();
    assert!(removed.n_bytes > 0 && !removed.folder.exists());
    assert_eq!(runtimes.remove(kind, None).unwrap().version.as_str(), "1.10.0");
    assert_eq!(names(&runtimes, kind), Vec::<String>::new());
    assert_eq!(runtimes.remove(kind, None).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn one_of_several_installations_at_once_installs() {
    let (dir, runtimes) = place();
    let wheel = Made::openvino("2026.4.1").write(dir.path());
    let order = order(Kind::OpenVino, &wheel);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| install(&runtimes, &order).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let installed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Installed(_))).count();
    assert_eq!((installed, outcomes.len()), (1, 6));
    assert_eq!(names(&runtimes, Kind::OpenVino), ["2026.4.1"]);
}

#[test]
fn what_an_interrupted_installation_left_is_no_library_and_goes_with_the_next() {
    let (dir, runtimes) = place();
    let kind = Kind::OnnxRuntime;
    let left = runtimes.folder().join(kind.name()).join(format!("{TEMPORARY}abc")).join("new");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("libonnxruntime.so.1.32.0"), made::elf(b"half")).unwrap();
    assert!(runtimes.list(kind).is_empty());
    install(&runtimes, &order(kind, &Made::onnxruntime("1.32.0").write(dir.path()))).unwrap();
    assert_eq!(names(&runtimes, kind), ["1.32.0"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let runtimes = Runtimes::new(file.join("runtimes"));
    let wheel = Made::onnxruntime("1.32.0").write(dir.path());
    let error = install(&runtimes, &order(Kind::OnnxRuntime, &wheel)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("cannot create"), "{error}");
}

/// The wheels of the tested versions, where the variable names a folder that has them.
#[test]
#[expect(clippy::disallowed_methods, reason = "tests find files from outside by the environment")]
fn real_wheels_are_installed() {
    let Some(folder) = std::env::var_os("SALVER_WHEELS") else {
        println!("SALVER_WHEELS is not set: no wheel is tried");
        return;
    };
    let (_dir, runtimes) = place();
    for kind in Kind::ALL {
        let name = kind.packages()[0].replace('-', "_");
        let wheels = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut wheels = wheels
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{name}-")));
        let wheel = wheels.next().unwrap_or_else(|| panic!("no wheel of {name}"));
        let here = crate::Platform::here();
        runtimes.install(&order(kind, &wheel), &here, NOW, &mut |_| {}).unwrap();
        let found = runtimes.find(kind, None).unwrap();
        assert!(found.version.as_ref().is_some_and(|version: &Version| kind.is_tested(version)), "{found:?}");
        assert_eq!(texts(found.verify()), Vec::<String>::new());
    }
}

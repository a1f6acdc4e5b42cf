//! Which library is taken, and what is said when there is none.

use std::fs;
use std::path::Path;

use super::made::{Made, elf};
use super::{install, order, place, texts};
use crate::{Error, ErrorKind, Found, Kind, Origin, Runtimes, Version};

const KIND: Kind = Kind::OnnxRuntime;

fn put(folder: &Path, name: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), elf(b"library")).unwrap();
}

/// Libraries made by hand: installed versions, and one of the system.
fn made(installed: &[&str], system: Option<&str>) -> (tempfile::TempDir, Runtimes) {
    let (dir, runtimes) = place();
    for version in installed {
        put(&runtimes.folder().join(KIND.name()).join(version), &format!("libonnxruntime.so.{version}"));
    }
    let folder = dir.path().join("lib");
    if let Some(version) = system {
        put(&folder, &format!("libonnxruntime.so.{version}"));
    }
    let runtimes = runtimes.with_system(vec![dir.path().join("missing"), folder.clone(), folder]);
    (dir, runtimes)
}

fn told(found: Result<Found, Error>) -> Option<(String, Origin)> {
    found.ok().map(|found| (found.version_text(), found.origin))
}

#[track_caller]
fn check(installed: &[&str], system: Option<&str>, wanted: Option<&str>, expected: Option<(&str, Origin)>) {
    let (_dir, runtimes) = made(installed, system);
    let wanted: Option<Version> = wanted.map(|text| text.parse().unwrap());
    let found = told(runtimes.find(KIND, wanted.as_ref()));
    assert_eq!(
        found.as_ref().map(|(version, origin)| (version.as_str(), *origin)),
        expected,
        "{installed:?} {wanted:?}"
    );
}

#[test]
fn the_tested_version_is_preferred_then_the_newest_then_the_system() {
    use Origin::{Installed, System};
    check(&["1.9.0", "1.10.0"], None, None, Some(("1.10.0", Installed)));
    check(&["1.32.0", "1.40.0"], Some("1.50.0"), None, Some(("1.32.0", Installed)));
    check(&["1.32.0", "1.40.0"], None, Some("1.40.0"), Some(("1.40.0", Installed)));
    check(&["1.32.0"], Some("1.50.0"), Some("1.50.0"), Some(("1.50.0", System)));
    check(&[], Some("1.50.0"), None, Some(("1.50.0", System)));
    check(&["1.32.0"], None, Some("1.33.0"), None);
    check(&["notes", "1..0"], None, None, None);
    check(&[], None, None, None);
}

#[test]
fn a_path_that_a_person_gives_wins() {
    let (dir, runtimes) = made(&["1.32.0"], Some("1.50.0"));
    put(&dir.path().join("mine/capi"), "libonnxruntime.so.1.20.1");
    let expected = Some(("1.20.1".to_owned(), Origin::Given));
    for path in ["mine", "mine/capi", "mine/capi/libonnxruntime.so.1.20.1"] {
        let runtimes = runtimes.clone().with_path(KIND, dir.path().join(path));
        assert_eq!(told(runtimes.find(KIND, None)), expected, "{path}");
    }
    for path in ["lib/missing", "runtimes"] {
        let runtimes = runtimes.clone().with_path(KIND, dir.path().join(path));
        let error = runtimes.find(KIND, None).unwrap_err();
        assert!(error.to_string().contains("no libonnxruntime.so there"), "{error}");
    }
}

#[test]
fn a_link_tells_the_version_of_the_file_that_it_names() {
    let (dir, runtimes) = made(&[], Some("1.23.2"));
    let folder = dir.path().join("dev");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("../lib/libonnxruntime.so.1.23.2", folder.join("libonnxruntime.so")).unwrap();
    let runtimes = runtimes.with_path(KIND, &folder);
    assert_eq!(told(runtimes.find(KIND, None)), Some(("1.23.2".to_owned(), Origin::Given)));
}

#[test]
fn what_is_not_there_is_said_in_one_line_with_the_command() {
    let (_dir, runtimes) = made(&["1.32.0"], None);
    let folder = runtimes.folder().display();
    for (kind, version, expected) in [
        (
            Kind::OpenVino,
            None,
            format!(
                "openvino is not installed (not in {folder} and not among the system's libraries); \
                 install it with: salver runtime install openvino"
            ),
        ),
        (
            KIND,
            Some("1.31.0"),
            format!(
                "onnxruntime 1.31.0 is not installed (not in {folder} and not among the system's libraries; \
                 there is 1.32.0); install it with: salver runtime install onnxruntime --version 1.31.0"
            ),
        ),
    ] {
        let version: Option<Version> = version.map(|text: &str| text.parse().unwrap());
        let error = runtimes.find(kind, version.as_ref()).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, expected));
    }
}

/// Changes an installed library and expects what is said of it.
#[track_caller]
fn check_damage(change: impl FnOnce(&Path), at_a_glance: Option<&str>, verified: &str) {
    let (dir, runtimes) = place();
    install(&runtimes, &order(KIND, &Made::onnxruntime("1.32.0").write(dir.path()))).unwrap();
    let found = runtimes.find(KIND, None).unwrap();
    change(&found.folder);
    match (runtimes.find(KIND, None), at_a_glance) {
        (Ok(_), None) => {}
        (Err(error), Some(expected)) => {
            assert_eq!(error.kind(), ErrorKind::Damaged);
            let text = error.to_string();
            assert!(text.contains(expected), "{text}");
            assert!(text.ends_with("salver runtime install onnxruntime --version 1.32.0 --force"), "{text}");
        }
        (found, _) => panic!("{found:?}, expected {at_a_glance:?}"),
    }
    let wrong = texts(found.verify());
    assert!(wrong.len() == 1 && wrong[0].contains(verified), "{wrong:?}");
}

#[test]
fn damage_is_found() {
    let library = "libonnxruntime.so.1.32.0";
    check_damage(|folder| fs::remove_file(folder.join(library)).unwrap(), Some(library), library);
    let cut = |folder: &Path| fs::write(folder.join(library), elf(b"")).unwrap();
    check_damage(cut, Some("has 20 bytes, expected 300020"), "has 20 bytes");
    let text = |folder: &Path| fs::write(folder.join(library), vec![b'x'; 300_020]).unwrap();
    check_damage(text, Some("is not a library"), "is not a library");
    let changed = |folder: &Path| fs::write(folder.join(library), elf(&vec![8; 300_000])).unwrap();
    check_damage(changed, None, "libonnxruntime.so.1.32.0 has changed (sha256)");
    let manifest = |text: &'static str| {
        move |folder: &Path| fs::write(folder.join("salver-runtime.json"), text).unwrap()
    };
    check_damage(manifest("{"), Some("is no manifest"), "is no manifest");
    let outside = r#"{"name":"", "version":"", "package":"", "wheel":"", "wheel_sha256":"", "from":"",
        "installed_at":0, "files": {"../x": {"sha256": "", "bytes": 0}}}"#;
    check_damage(manifest(outside), Some("names '../x'"), "names '../x'");
}

/// Puts something that cannot be read where a library is looked for, and expects what is said of it.
#[track_caller]
fn check_unreadable(put: impl FnOnce(&Path), expected: &str) {
    let (_dir, runtimes) = place();
    let folder = runtimes.folder().join(KIND.name());
    fs::create_dir_all(&folder).unwrap();
    put(&folder);
    let error = runtimes.find(KIND, None).unwrap_err();
    let expected = format!("cannot read {}{expected}", folder.display());
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains(&expected), "{error} has no {expected:?}");
    assert!(!error.to_string().contains("salver runtime install"), "{error}");
    let listed = runtimes.list(KIND);
    assert_eq!(listed.len(), 1);
    let problem = match &listed[0] {
        Ok(found) => found.problem().unwrap(),
        Err(error) => Error::new(error.kind(), error.to_string()),
    };
    assert_eq!(problem.kind(), ErrorKind::Io);
    assert!(problem.to_string().contains(&expected), "{problem}");
}

/// A name that leads to itself: nobody can read it, whatever they may do.
fn loops(path: &Path) {
    std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap();
}

#[test]
fn what_cannot_be_read_is_not_taken_for_missing() {
    let file = |folder: &Path| {
        fs::remove_dir(folder).unwrap();
        fs::write(folder, "").unwrap();
    };
    check_unreadable(file, ": Not a directory");
    let folder = |folder: &Path| {
        fs::remove_dir(folder).unwrap();
        loops(folder);
    };
    check_unreadable(folder, ": Too many levels");
    check_unreadable(|folder| loops(&folder.join("1.32.0")), "/1.32.0: Too many levels");
    let inside = |name: &'static str| {
        move |folder: &Path| {
            put(&folder.join("1.32.0"), "libonnxruntime.so");
            loops(&folder.join("1.32.0").join(name));
        }
    };
    check_unreadable(inside("salver-runtime.json"), "/1.32.0/salver-runtime.json: Too many levels");
    let library = "libonnxruntime.so.1.32.0";
    check_unreadable(inside(library), "/1.32.0/libonnxruntime.so.1.32.0: Too many levels");
}

#[test]
fn a_folder_without_permission_is_said() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, runtimes) = made(&["1.32.0"], None);
    let folder = runtimes.folder().join(KIND.name());
    let allow = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    allow(0);
    if fs::read_dir(&folder).is_ok() {
        println!("this user may read everything: nothing is tried");
        return;
    }
    let error = runtimes.find(KIND, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("Permission denied"), "{error}");
    let given = Runtimes::new(dir.path().join("none")).with_path(KIND, &folder);
    assert_eq!(given.find(KIND, None).unwrap_err().kind(), ErrorKind::Io);
    // Names may be read, what they lead to not.
    allow(0o400);
    assert_eq!(runtimes.find(KIND, None).unwrap_err().kind(), ErrorKind::Io);
    allow(0o700);
    assert!(runtimes.find(KIND, None).is_ok());
}

#[test]
fn a_named_path_that_holds_nothing_is_listed_as_an_error() {
    let (dir, runtimes) = made(&["1.32.0"], None);
    let runtimes = runtimes.with_path(KIND, dir.path().join("nowhere"));
    let listed: Vec<_> =
        runtimes.list(KIND).into_iter().map(|found| found.map_err(|error| error.kind())).collect();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].as_ref().unwrap_err(), &ErrorKind::NotFound);
    assert_eq!(listed[1].as_ref().unwrap().version_text(), "1.32.0");
}

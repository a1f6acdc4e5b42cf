//! Getting wheels with a pip that is a script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::made::{Made, platform};
use super::{NOW, names, place};
use crate::{ErrorKind, Kind, Order, Outcome, Pip, Progress, Runtimes, Source, Version};

/// A program that is called as Python is and does what a script says for `download`: `$all` are the arguments, `$dest` the
/// folder for the wheel.
fn python(folder: &Path, download: &str) -> PathBuf {
    let path = folder.join("python");
    let script = format!(
        "#!/bin/sh\n[ \"$3\" = --version ] && exit 0\nall=\"$*\"\nwhile [ $# -gt 1 ]; do shift; \
         [ \"$1\" = --dest ] && dest=$2; done\n{download}\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn order(python: PathBuf, version: Option<&str>) -> Order {
    let version: Option<Version> = version.map(|text| text.parse().unwrap());
    Order {
        kind: Kind::OnnxRuntime,
        version,
        source: Source::Pip(Pip { python: Some(python) }),
        again: false,
    }
}

fn install(runtimes: &Runtimes, order: &Order) -> (Result<Outcome, crate::Error>, Vec<Progress>) {
    let mut seen = Vec::new();
    let outcome = runtimes.install(order, &platform(), NOW, &mut |progress| seen.push(progress));
    (outcome, seen)
}

fn wheels(dir: &Path, version: &str) -> PathBuf {
    let folder = dir.join("wheels");
    fs::create_dir_all(&folder).unwrap();
    Made::onnxruntime(version).write(&folder)
}

#[test]
fn the_tested_version_is_asked_for() {
    let (dir, runtimes) = place();
    let wheel = wheels(dir.path(), "1.32.0");
    let python = python(
        dir.path(),
        &format!("echo \"$all\" > {0}/all; cp {1} $dest", dir.path().display(), wheel.display()),
    );
    let (outcome, seen) = install(&runtimes, &order(python.clone(), None));
    assert!(matches!(outcome.unwrap(), Outcome::Installed(_)));
    let asked = fs::read_to_string(dir.path().join("all")).unwrap();
    assert!(asked.starts_with("-m pip download --no-deps --only-binary=:all:"), "{asked}");
    assert!(asked.contains(" onnxruntime==1.32.0 ") && !asked.contains("--platform"), "{asked}");
    assert!(matches!(&seen[0], Progress::Fetching { package, .. } if package == "onnxruntime==1.32.0"));
    // Nothing is asked for what is there.
    fs::remove_file(dir.path().join("all")).unwrap();
    assert!(matches!(install(&runtimes, &order(python, None)).0.unwrap(), Outcome::AlreadyThere(_)));
    assert!(!dir.path().join("all").exists());
    assert_eq!(names(&runtimes, Kind::OnnxRuntime), ["1.32.0"]);
}

#[test]
fn a_python_without_wheels_asks_for_those_of_another() {
    let (dir, runtimes) = place();
    let wheel = wheels(dir.path(), "1.31.0");
    let script = format!(
        "case \"$all\" in *--python-version=3.12*--platform=manylinux_2_28_*onnxruntime==1.31.0*) cp {} $dest;; \
         *) echo 'ERROR: No matching distribution found for onnxruntime' >&2; exit 1;; esac",
        wheel.display()
    );
    let (outcome, _) = install(&runtimes, &order(python(dir.path(), &script), Some("1.31.0")));
    let Outcome::Installed(found) = outcome.unwrap() else { panic!("it was not there") };
    assert_eq!((found.version_text().as_str(), found.is_tested()), ("1.31.0", false));
}

#[track_caller]
fn check_failure(script: &str, expected: &[&str]) {
    let (dir, runtimes) = place();
    let (outcome, _) = install(&runtimes, &order(python(dir.path(), script), Some("1.31.0")));
    let error = outcome.unwrap_err();
    for part in expected {
        assert!(error.to_string().contains(part), "expected '{part}': {error}");
    }
    assert!(!error.to_string().contains("asked again"), "{error}");
    assert_eq!(names(&runtimes, Kind::OnnxRuntime), Vec::<String>::new());
}

#[test]
fn what_pip_says_is_shown() {
    check_failure(
        "echo Collecting; echo 'ERROR: No matching distribution found for it' >&2; exit 1",
        &["could not download onnxruntime==1.31.0", "ERROR: No matching distribution found for it"],
    );
    check_failure(
        "echo 'ERROR: 407 Proxy Authentication Required' >&2; exit 1",
        &["-m pip could not download", "407 Proxy Authentication Required", "exit status: 1"],
    );
    check_failure(
        "[ -e $dest/../asked ] && { echo 'asked again' >&2; exit 1; }; touch $dest/../asked; \
         echo 'WARNING: Retrying (Retry(total=0)) after: Connection refused' >&2; \
         echo 'ERROR: No matching distribution found (from versions: none)' >&2; exit 1",
        &["Connection refused", "its index may not be reachable", "with --from"],
    );
    check_failure("exit 0", &["pip left 0 wheels, expected one"]);
    check_failure("echo not a wheel > $dest/a.whl", &["is not a wheel"]);
    check_failure("yes ERROR | head -c 1000000 >&2; exit 1", &["ERROR\n"]);
}

#[test]
fn a_python_without_pip_is_said() {
    let (dir, runtimes) = place();
    let (outcome, _) = install(&runtimes, &order(dir.path().join("no-python"), None));
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fetch);
    assert!(error.to_string().contains("no-python -m pip' does not run; or download a wheel"), "{error}");
}

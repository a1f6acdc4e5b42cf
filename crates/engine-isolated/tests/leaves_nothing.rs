//! What a hundred loads and ends leave behind. A program of its own, because it counts what the whole process has.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, ExitCode};
use std::sync::Arc;

use salver_engine::{Engine, LoadOptions, Registry};
use salver_engine_isolated::{IsolatedEngine, Spawn, serve};
use salver_engine_rten::RtenEngine;
use salver_testkit::conformance::Fixture;

const ROLE: &str = "SALVER_ISOLATED_TEST_ROLE";

/// Not a test: the program that workers run. Without the variable it does nothing.
#[test]
#[expect(clippy::disallowed_methods, reason = "the program of a test is told by a variable what it is")]
fn the_worker() {
    if std::env::var(ROLE).is_ok() {
        let engines = Registry::new(vec![Arc::new(RtenEngine::new())]);
        std::process::exit(i32::from(serve(&engines) != ExitCode::SUCCESS));
    }
}

#[test]
fn a_hundred_loads_leave_nothing() {
    let spawn = Spawn::new(|what| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "--nocapture", "the_worker", what]).env(ROLE, "worker");
        Ok(command)
    });
    let engine = IsolatedEngine::new(Arc::new(RtenEngine::new()), spawn);
    let fixture = Fixture::read("mlp");
    let load = || {
        let model = engine.load(&fixture.source(), &LoadOptions::default()).unwrap();
        drop((model.session().unwrap(), model.session().unwrap()));
    };
    load();
    let n_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let n_threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = (n_files(), n_threads());
    (0..100).for_each(|_| load());
    assert_eq!((n_files(), n_threads()), before);
    // Also such as ended and were not reaped: they keep their parent.
    let children = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (parent == std::process::id()).then_some(stat)
    });
    assert_eq!(children.collect::<Vec<_>>(), Vec::<String>::new());
}

//! Models that come and go leave nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "tensorflow/engine.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod engine;

use std::path::Path;

use engine::{load, own, run, strings};
use salver_engine::Engine;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn load_and_run(engine: &dyn Engine, path: &Path) {
    let model = load(engine, path).unwrap();
    let words = strings(&[1], &[b"one"]);
    let answer = run(&*model, "serving_default", &[("words", words)], "ended").unwrap();
    assert_eq!(answer, strings(&[1], &[b"one!"]));
}

#[test]
fn two_hundred_loads_take_no_more_memory_than_a_few() {
    let Some(engine) = engine::engine() else { return };
    let path = own("text");
    // The first loads reserve what is used again and again.
    (0..30).for_each(|_| load_and_run(&engine, &path));
    let before = resident();
    (0..200).for_each(|_| load_and_run(&engine, &path));
    let after = resident();
    println!("{} MiB, then {} MiB", before >> 20, after >> 20);
    assert!(after < before + before / 10, "{before} bytes, then {after}");
}

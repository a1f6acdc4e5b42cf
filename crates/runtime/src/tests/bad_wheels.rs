//! Wheels that are not taken.

use super::made::{Made, elf, elf_for};
use super::{install, names, order, place};
use crate::{ErrorKind, Kind, Order};

const KIND: Kind = Kind::OnnxRuntime;
const LIBRARY: &str = "onnxruntime/capi/libonnxruntime.so.1.32.0";

/// Nothing is installed and nothing is left behind.
#[track_caller]
fn check_bytes(bytes: &[u8], expected: &str) {
    let (dir, runtimes) = place();
    let path = dir.path().join("a.whl");
    std::fs::write(&path, bytes).unwrap();
    let error = install(&runtimes, &order(KIND, &path)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(expected), "expected '{expected}': {error}");
    assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    assert_eq!(names(&runtimes, KIND), Vec::<String>::new());
}

#[track_caller]
fn check(change: impl FnOnce(&mut Made), expected: &str) {
    let mut made = Made::onnxruntime("1.32.0");
    change(&mut made);
    check_bytes(&made.bytes(), expected);
}

#[test]
fn what_is_no_wheel_is_refused() {
    check_bytes(b"", "is not a wheel");
    check_bytes(b"<html>404 not found</html>", "is not a wheel");
    let sound = Made::onnxruntime("1.32.0").bytes();
    check_bytes(&sound[..sound.len() / 2], "is not a wheel");
    check(|made| made.without = vec!["/RECORD"], "0 lists of hashes");
    check(|made| made.without = vec!["/METADATA"], "METADATA");
    check(|made| made.without = vec!["/WHEEL"], "WHEEL");
    check(|made| made.files.push(("b-1.dist-info/RECORD".into(), Vec::new())), "2 lists of hashes");
    check(|made| made.version = "../../x".into(), "is not a wheel");
}

#[test]
fn the_wheel_of_something_else_is_refused() {
    check(|made| made.package = "numpy".into(), "holds the package numpy, expected onnxruntime");
    check(
        |made| made.tag = "cp311-cp311-win_amd64".into(),
        "is made for win_amd64, this machine is linux on",
    );
    let newer = format!("cp311-cp311-manylinux_2_99_{}", std::env::consts::ARCH);
    check(|made| made.tag = newer, "with glibc 2.28");
    check(|made| made.files.retain(|(name, _)| name != LIBRARY), "has no libonnxruntime.so (version 1.32.0");
    let elsewhere = |made: &mut Made| made.files[0].0 = format!("elsewhere/{LIBRARY}");
    check(elsewhere, "has no libonnxruntime.so");
}

#[test]
fn another_version_than_asked_for_is_refused() {
    let (dir, runtimes) = place();
    let wheel = Made::onnxruntime("1.31.0").write(dir.path());
    let order = Order { version: Some("1.32.0".parse().unwrap()), ..order(KIND, &wheel) };
    let error = install(&runtimes, &order).unwrap_err();
    assert!(error.to_string().contains("holds version 1.31.0, expected 1.32.0"), "{error}");
}

#[test]
fn a_file_without_its_hash_is_refused() {
    let line = |line: &str| vec![(LIBRARY.to_owned(), line.to_owned())];
    let wrong = format!("{LIBRARY},sha256={},5\n", "A".repeat(43));
    check(|made| made.record = line(&wrong), "does not have the hash");
    check(|made| made.record = line(""), "has no SHA-2 hash");
    check(|made| made.record = line(&format!("{LIBRARY},md5=abc,5\n")), "has no SHA-2 hash");
    check(|made| made.record = line(&format!("{LIBRARY},,\n")), "has no SHA-2 hash");
    check(|made| made.record = line(&format!("{LIBRARY},sha256=***,5\n")), "has no SHA-2 hash");
    check(|made| made.record = line(&format!("{LIBRARY},sha256=,5\n")), "does not have the hash");
}

#[test]
fn a_changed_byte_is_found() {
    let mut bytes = Made::onnxruntime("1.32.0").bytes();
    // In the packed bytes of the first file, behind its head of 30 bytes and its name.
    let at = 30 + LIBRARY.len() + 20;
    bytes[at] ^= 0x40;
    check_bytes(&bytes, LIBRARY);
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    for name in ["../evil.so", "/etc/evil", "onnxruntime/capi/../../evil", "a\\..\\b", "a//b"] {
        check(|made| made.files.push((name.to_owned(), Vec::new())), "a file is named");
    }
    let link = |made: &mut Made| made.links.push(LIBRARY.to_owned());
    check(link, "is a link, expected a file");
}

#[test]
fn what_is_no_library_for_this_machine_is_refused() {
    let library = |bytes: Vec<u8>| move |made: &mut Made| made.files[0].1 = bytes;
    check(library(b"text instead of a library".to_vec()), "libonnxruntime.so.1.32.0 is not a library");
    check(library(b"\x7fELF".to_vec()), "is too short for a library");
    check(library(elf_for(8, b"")), "is a library for architecture number 8");
    let other = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    check(library(elf_for(other, b"")), "this machine is");
    let mut program = elf(b"");
    program[16] = 2;
    check(library(program), "is not a shared library of 64 bits");
}

//! Whether a file is a whole shared library for this machine.
//!
//! Linux maps a library that was cut off without looking at its length, and the process ends when it touches what is not
//! there; so this is found out before. Format: the System V Application Binary Interface, chapter 4 ("Object Files") and 5
//! ("Program Header"), for 64-bit little-endian files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Program headers that are looked at; libraries have about ten.
const MAX_HEADERS: usize = 256;

/// The length of a program header.
const HEADER: usize = 56;

/// A header that says what is to be mapped into memory.
const PT_LOAD: u64 = 1;

/// Machines by their number in the file.
const MACHINES: &[(u64, &str)] = &[
    (3, "x86"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (22, "s390x"),
    (21, "powerpc64"),
];

/// What is wrong with the file, if that can be seen from outside.
pub(crate) fn fault(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is not a regular file".into());
    }
    check(&mut file, meta.len())
}

fn check(file: &mut (impl Read + Seek), len: u64) -> Result<(), String> {
    let head = read(file, 0, 64)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is not a 64-bit shared library".into());
    }
    let machine = number(&head, 18, 2);
    let name = MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name);
    if name != Some(std::env::consts::ARCH) {
        let name = name.map_or_else(|| format!("machine {machine}"), str::to_owned);
        return Err(format!("it is for {name}, expected {}", std::env::consts::ARCH));
    }
    let (start, n) = (number(&head, 32, 8), number(&head, 56, 2));
    let n = usize::try_from(n).ok().filter(|n| *n <= MAX_HEADERS).ok_or("it has too many parts")?;
    if number(&head, 54, 2) != HEADER as u64 || n == 0 {
        return Err("it is not a shared library".into());
    }
    let headers = read(file, start, n * HEADER)?;
    for header in headers.chunks_exact(HEADER).filter(|header| number(header, 0, 4) == PT_LOAD) {
        let end = number(header, 8, 8).checked_add(number(header, 32, 8)).ok_or("its parts lie nowhere")?;
        if end > len {
            return Err(format!("it is cut off: {len} bytes, expected at least {end}"));
        }
    }
    Ok(())
}

fn read(file: &mut (impl Read + Seek), start: u64, len: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; len];
    let done = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes));
    done.map_err(|_| "it is too short for a shared library".to_owned())?;
    Ok(bytes)
}

/// A little-endian number of `len` bytes; the callers' positions lie inside.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A file of one part, which ends at `end`.
    fn library(machine: u16, end: u64) -> Vec<u8> {
        let mut bytes = vec![0; 64 + HEADER];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = 1;
        bytes[64 + 32..64 + 40].copy_from_slice(&end.to_le_bytes());
        bytes
    }

    fn own() -> u16 {
        let found = MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH);
        found.and_then(|(number, _)| u16::try_from(*number).ok()).unwrap()
    }

    #[test]
    fn broken_files_are_told_before_they_are_loaded() {
        let cases = [
            (library(own(), 120), None),
            (library(own(), 121), Some("it is cut off: 120 bytes, expected at least 121")),
            (library(8, 120), Some("it is for machine 8, expected")),
            (library(own(), 120)[..100].to_vec(), Some("it is too short for a shared library")),
            (
                b"not a library, but a text of more than sixty-four letters, spaces and all".to_vec(),
                Some("it is not a 64-bit shared library"),
            ),
            (Vec::new(), Some("it is too short for a shared library")),
        ];
        for (bytes, expected) in cases {
            let len = bytes.len() as u64;
            let got = check(&mut Cursor::new(bytes), len);
            match expected {
                None => assert_eq!(got, Ok(())),
                Some(text) => {
                    assert!(got.as_ref().is_err_and(|got| got.starts_with(text)), "{got:?}, expected {text}")
                }
            }
        }
    }
}

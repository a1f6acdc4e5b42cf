//! Whether a file is a whole shared library. The system does not look: one that was cut short ends the process when it is
//! loaded.
//!
//! Format: <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const HEADER: usize = 64;
const SEGMENT: usize = 56;

/// Looks at the list of segments: all must lie inside the file.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let len = file.metadata().map_err(|error| error.to_string())?.len();
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(|_| format!("it is {len} bytes long and no library"))?;
    // 64 bits, little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is no library".into());
    }
    let (start, size, n) = (number(&header, 32, 8), number(&header, 54, 2), number(&header, 56, 2));
    if size < SEGMENT as u64 {
        return Err("it is no library that can be loaded".into());
    }
    let cut = || format!("it is cut short at {len} bytes");
    for at in 0..n {
        let mut segment = [0; SEGMENT];
        let place = at.checked_mul(size).and_then(|at| start.checked_add(at)).ok_or_else(cut)?;
        file.seek(SeekFrom::Start(place)).map_err(|error| error.to_string())?;
        file.read_exact(&mut segment).map_err(|_| cut())?;
        let end = number(&segment, 8, 8).checked_add(number(&segment, 32, 8));
        if end.is_none_or(|end| end > len) {
            return Err(cut());
        }
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize, n_bytes: usize) -> u64 {
    bytes[at..at + n_bytes].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_whole_library_are_told() {
        let mut library = [0; 200];
        library[..6].copy_from_slice(b"\x7fELF\x02\x01");
        // One segment, listed at byte 64, of the bytes from 120 on.
        (library[32], library[54], library[56]) = (64, 56, 1);
        (library[64 + 8], library[64 + 32]) = (120, 80);
        let dir = tempfile::tempdir().unwrap();
        for (content, expected) in [
            (&library[..], None),
            (&library[..199], Some("cut short")),
            (&library[..100], Some("cut short")),
            (&b"\x7fELF"[..], Some("no library")),
            (&[b'x'; 100][..], Some("no library")),
        ] {
            let path = dir.path().join("file");
            std::fs::write(&path, content).unwrap();
            let found = check(&path).err();
            match expected {
                None => assert_eq!(found, None),
                Some(part) => assert!(found.as_ref().is_some_and(|text| text.contains(part)), "{found:?}"),
            }
        }
    }
}

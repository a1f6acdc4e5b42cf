//! What this machine can open: the system, the processor's architecture and the C library; and whether a wheel or a
//! library file is made for it.

use std::io::Read;
use std::path::Path;

/// The system that libraries are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// As Rust names it: `linux`.
    pub os: String,
    /// As Rust names it: `x86_64`, `aarch64`.
    pub arch: String,
    /// The version of glibc that this process runs on, if it does.
    pub glibc: Option<(u32, u32)>,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Platform {
        Platform {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            glibc: glibc(),
        }
    }

    /// Whether a wheel with this tag has libraries for this machine. The first two parts of a tag are about Python and
    /// do not matter here. Platforms of one tag are between dots (PEP 425), those of Linux are told by PEP 600 and the
    /// names before it.
    pub(crate) fn takes(&self, tag: &str) -> bool {
        let platforms = tag.rsplit('-').next().unwrap_or_default();
        platforms.split('.').any(|platform| self.takes_platform(platform))
    }

    fn takes_platform(&self, platform: &str) -> bool {
        let Some(rest) = platform.strip_suffix(&format!("_{}", self.arch)) else { return false };
        if self.os != "linux" {
            return false;
        }
        let needs = match rest {
            "linux" => return true,
            "manylinux1" => (2, 5),
            "manylinux2010" => (2, 12),
            "manylinux2014" => (2, 17),
            _ => {
                let numbers = rest.strip_prefix("manylinux_").and_then(|rest| rest.split_once('_'));
                let Some((major, minor)) = numbers else { return false };
                let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { return false };
                (major, minor)
            }
        };
        self.glibc.is_none_or(|has| needs <= has)
    }

    /// The platforms that pip is asked for where the user's own Python has none that fits, the newest first.
    pub(crate) fn wheel_platforms(&self) -> Vec<String> {
        let newest = self.glibc.map_or(28, |(_, minor)| minor.min(60));
        let mut all: Vec<_> =
            (17..=newest).rev().map(|minor| format!("manylinux_2_{minor}_{}", self.arch)).collect();
        all.push(format!("manylinux2014_{}", self.arch));
        all
    }
}

/// Whether a file is a shared library for this architecture, by its first bytes (System V ABI, the head of an ELF file).
///
/// # Errors
/// What it is instead, as the end of a sentence.
pub(crate) fn check_library(path: &Path, arch: &str) -> Result<(), String> {
    let mut head = [0u8; 20];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    if let Err(error) = read {
        return Err(match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "is too short for a library".to_owned(),
            _ => format!("cannot be read: {error}"),
        });
    }
    if head[..4] != *b"\x7fELF" {
        return Err("is not a library (no ELF file)".to_owned());
    }
    let (class, order) = (head[4], head[5]);
    let kind = u16::from_le_bytes([head[16], head[17]]);
    // 64 bits, the lowest byte first, a shared object.
    if (class, order, kind) != (2, 1, 3) {
        return Err("is not a shared library of 64 bits".to_owned());
    }
    match u16::from_le_bytes([head[18], head[19]]) {
        62 if arch == "x86_64" => Ok(()),
        183 if arch == "aarch64" => Ok(()),
        62 => Err(format!("is a library for x86_64, this machine is {arch}")),
        183 => Err(format!("is a library for aarch64, this machine is {arch}")),
        other => Err(format!("is a library for architecture number {other}, this machine is {arch}")),
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.os, self.arch)?;
        match self.glibc {
            Some((major, minor)) => write!(f, " with glibc {major}.{minor}"),
            None => Ok(()),
        }
    }
}

/// The version of the C library that is mapped into this process: it writes its own version into its file.
fn glibc() -> Option<(u32, u32)> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name == "libc.so.6" || name.starts_with("libc-2.")
    })?;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(32 << 20).read_to_end(&mut bytes).ok()?;
    glibc_version(&bytes)
}

fn glibc_version(bytes: &[u8]) -> Option<(u32, u32)> {
    let banner = b"GNU C Library ";
    let start = bytes.windows(banner.len()).position(|window| window == banner)?;
    let end = bytes.len().min(start + 200);
    let text = String::from_utf8_lossy(&bytes[start..end]);
    let (_, behind) = text.split_once("release version ")?;
    let mut numbers = behind.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tag: &str, expected: bool) {
        let platform = Platform { os: "linux".to_owned(), arch: "x86_64".to_owned(), glibc: Some((2, 28)) };
        assert_eq!(platform.takes(tag), expected, "{tag}");
    }

    #[test]
    fn a_wheel_fits_by_its_platform_tag() {
        check("cp311-cp311-manylinux_2_28_x86_64", true);
        check("cp39-abi3-manylinux_2_27_x86_64", true);
        check("cp39-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64", true);
        check("py3-none-linux_x86_64", true);
        check("cp311-cp311-manylinux_2_34_x86_64", false);
        check("cp311-cp311-manylinux_3_0_x86_64", false);
        check("cp311-cp311-manylinux_2_28_aarch64", false);
        check("cp311-cp311-musllinux_1_2_x86_64", false);
        check("cp311-cp311-win_amd64", false);
        check("cp311-cp311-macosx_11_0_x86_64", false);
        check("py3-none-any", false);
        check("manylinux_x_x86_64", false);
        check("", false);
    }

    #[test]
    fn the_c_library_tells_its_version() {
        let text =
            b"\0\0GNU C Library (Debian GLIBC 2.36-9+deb12u13) stable release version 2.36.\nCopyright";
        assert_eq!(glibc_version(text), Some((2, 36)));
        assert_eq!(glibc_version(b"GNU C Library, and nothing else"), None);
        assert_eq!(glibc_version(b""), None);
    }
}

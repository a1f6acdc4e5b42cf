//! Wheels: zip files with a package, its description and a list of the hashes of its files (PEP 427).

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Algorithm, Context, SHA256, SHA384, SHA512};
use zip::ZipArchive;

use crate::kind::fits;
use crate::manifest::{Entry, LICENSES, hex};
use crate::{Error, Kind, Platform, Version};

const MAX_ENTRIES: usize = 200_000;

/// Largest description, and largest list of hashes.
const MAX_TEXT: u64 = 64 << 20;

/// Most bytes that are unpacked.
const MAX_UNPACKED: u64 = 16 << 30;

/// A wheel that is opened and understood, nothing of it unpacked yet.
#[derive(Debug)]
pub(crate) struct Wheel {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    /// The package's name in its normal form: small letters, `-` between words.
    pub(crate) package: String,
    pub(crate) version: Version,
    tags: Vec<String>,
    hashes: HashMap<String, Hash>,
}

#[derive(Debug)]
struct Hash {
    algorithm: &'static Algorithm,
    digest: Vec<u8>,
}

/// A file to unpack.
#[derive(Debug)]
struct Member {
    inside: String,
    /// Its path in the folder, with `/` between its parts.
    name: String,
    size: u64,
}

impl Wheel {
    /// Opens a wheel and reads its description.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Refused`] for what is no wheel, with the reason.
    pub(crate) fn open(path: &Path) -> Result<Wheel, Error> {
        let file = File::open(path).map_err(|error| Error::io("read", path, &error))?;
        if file.metadata().is_ok_and(|data| data.is_dir()) {
            return Err(Error::refused(path, "is a folder, expected a wheel (a .whl file)"));
        }
        let refuse = |why: String| Error::refused(path, format!("is not a wheel: {why}"));
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| refuse(error.to_string()))?;
        if zip.len() > MAX_ENTRIES {
            return Err(refuse(format!("{} files, expected at most {MAX_ENTRIES}", zip.len())));
        }
        if let Some(name) = zip.file_names().find(|name| !is_plain(name)) {
            return Err(refuse(format!("a file is named '{}'", name.escape_default())));
        }
        let mut folders: Vec<String> = zip
            .file_names()
            .filter_map(|name| name.strip_suffix(".dist-info/RECORD"))
            .map(str::to_owned)
            .collect();
        folders.retain(|folder| !folder.contains('/'));
        let [folder] = folders.as_slice() else {
            return Err(refuse(format!(
                "{} lists of hashes (NAME.dist-info/RECORD), expected one",
                folders.len()
            )));
        };
        let mut text = |name: &str| {
            let name = format!("{folder}.dist-info/{name}");
            text_of(&mut zip, &name).map_err(|why| refuse(format!("{name}: {why}")))
        };
        let (metadata, about, record) = (text("METADATA")?, text("WHEEL")?, text("RECORD")?);
        let field = |name: &str| fields(&metadata, name).next().map(str::to_owned);
        let package = field("Name").ok_or_else(|| refuse("METADATA has no Name".to_owned()))?;
        let version = field("Version").ok_or_else(|| refuse("METADATA has no Version".to_owned()))?;
        Ok(Wheel {
            package: normal(&package),
            version: version.parse().map_err(|error| refuse(format!("METADATA: {error}")))?,
            tags: fields(&about, "Tag").map(str::to_owned).collect(),
            hashes: hashes(&record),
            path: path.to_path_buf(),
            zip,
        })
    }

    /// Says whether this is the wheel of a library, for this machine.
    ///
    /// # Errors
    /// What it is instead.
    pub(crate) fn check(
        &self,
        kind: Kind,
        version: Option<&Version>,
        platform: &Platform,
    ) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::refused(&self.path, why));
        if !kind.packages().contains(&self.package.as_str()) {
            let expected = kind.packages().join(" or ");
            return refuse(format!("holds the package {}, expected {expected}", self.package));
        }
        if let Some(wanted) = version
            && *wanted != self.version
        {
            return refuse(format!("holds version {}, expected {wanted}", self.version));
        }
        if !self.tags.iter().any(|tag| platform.takes(tag)) {
            let mut made_for: Vec<_> = self.tags.iter().filter_map(|tag| tag.rsplit('-').next()).collect();
            made_for.dedup();
            return refuse(format!("is made for {}, this machine is {platform}", made_for.join(", ")));
        }
        Ok(())
    }

    /// Bytes of all that [`Wheel::unpack`] writes, as the wheel says.
    pub(crate) fn unpacked_size(&mut self, kind: Kind) -> Result<u64, Error> {
        Ok(self.members(kind)?.iter().fold(0, |sum, member| sum.saturating_add(member.size)))
    }

    /// Writes the libraries and licences into a folder that is empty, and makes sure that they are on the disk. Each file
    /// is compared with the wheel's list of hashes. `written` is told the bytes written so far.
    pub(crate) fn unpack(
        &mut self,
        kind: Kind,
        folder: &Path,
        written: &mut dyn FnMut(u64),
    ) -> Result<BTreeMap<String, Entry>, Error> {
        let members = self.members(kind)?;
        let licenses = folder.join(LICENSES);
        std::fs::create_dir(&licenses).map_err(|error| Error::io("create", &licenses, &error))?;
        let mut entries = BTreeMap::new();
        let mut done = 0;
        for member in members {
            let before = done;
            let entry = self.unpack_member(&member, folder, &mut |bytes| written(before + bytes))?;
            done += entry.bytes;
            entries.insert(member.name, entry);
        }
        sync_folder(&licenses)?;
        sync_folder(folder)?;
        Ok(entries)
    }

    fn unpack_member(
        &mut self,
        member: &Member,
        folder: &Path,
        written: &mut dyn FnMut(u64),
    ) -> Result<Entry, Error> {
        let (zip, wheel) = (&mut self.zip, &self.path);
        let refuse = |why: String| Error::refused(wheel, format!("{}: {why}", member.inside));
        let Some(expected) = self.hashes.get(&member.inside) else {
            return Err(refuse("has no SHA-2 hash in the wheel's RECORD".to_owned()));
        };
        let path = folder.join(&member.name);
        let io = |error: std::io::Error| Error::io("write", &path, &error);
        let mut out = File::create_new(&path).map_err(io)?;
        let mut from = zip.by_name(&member.inside).map_err(|error| refuse(error.to_string()))?;
        let (mut sha256, mut recorded) = (Context::new(&SHA256), Context::new(expected.algorithm));
        let (mut buffer, mut bytes) = (vec![0; 1 << 18], 0u64);
        loop {
            let n = from.read(&mut buffer).map_err(|error| refuse(format!("is damaged: {error}")))?;
            if n == 0 {
                break;
            }
            bytes += n as u64;
            // Space was looked for by the size that the wheel claims.
            if bytes > member.size {
                return Err(refuse(format!("is longer than the {} bytes that it claims", member.size)));
            }
            sha256.update(&buffer[..n]);
            recorded.update(&buffer[..n]);
            out.write_all(&buffer[..n]).map_err(io)?;
            written(bytes);
        }
        if recorded.finish().as_ref() != expected.digest {
            return Err(refuse("does not have the hash that the wheel's RECORD gives".to_owned()));
        }
        out.sync_all().map_err(io)?;
        Ok(Entry { sha256: hex(sha256.finish().as_ref()), bytes })
    }

    /// The files to take, each under a name of its own.
    fn members(&mut self, kind: Kind) -> Result<Vec<Member>, Error> {
        let mut chosen: BTreeMap<String, String> = BTreeMap::new();
        for inside in self.zip.file_names().filter(|name| !name.ends_with('/')) {
            if let Some(library) = kind.library(inside) {
                chosen.insert(library.to_owned(), inside.to_owned());
            } else if let Some(licence) = kind.licence(inside) {
                let mut name = format!("{LICENSES}/{licence}");
                while chosen.contains_key(&name) {
                    name.push_str(".more");
                }
                chosen.insert(name, inside.to_owned());
            }
        }
        for pattern in kind.needed() {
            if !chosen.keys().any(|name| fits(name, pattern)) {
                let name = pattern.trim_end_matches('*');
                let why = format!("has no {name} (version {} of {})", self.version, self.package);
                return Err(Error::refused(&self.path, why));
            }
        }
        let mut members = Vec::with_capacity(chosen.len());
        let mut total = 0u64;
        for (name, inside) in chosen {
            let refuse = |why: &str| Error::refused(&self.path, format!("{inside}: {why}"));
            let entry = self.zip.by_name(&inside).map_err(|error| refuse(&error.to_string()))?;
            if entry.is_symlink() || !entry.is_file() {
                return Err(refuse("is a link, expected a file"));
            }
            let size = entry.size();
            drop(entry);
            total = total.saturating_add(size);
            if total > MAX_UNPACKED {
                return Err(refuse("the wheel claims to hold more than 16 GiB"));
            }
            members.push(Member { inside, name, size });
        }
        Ok(members)
    }
}

/// Makes sure that the names in a folder are on the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| Error::io("write", folder, &error))
}

/// Whether a name stays in the folder that it is unpacked to, on any system.
fn is_plain(name: &str) -> bool {
    let path = name.strip_suffix('/').unwrap_or(name);
    !path.contains(['\\', '\0']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn text_of(zip: &mut ZipArchive<BufReader<File>>, name: &str) -> Result<String, String> {
    let entry = zip.by_name(name).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    entry.take(MAX_TEXT + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_TEXT {
        return Err(format!("has more than {MAX_TEXT} bytes"));
    }
    String::from_utf8(text).map_err(|error| error.to_string())
}

/// The values of a field of a description in the form of a mail's head, which ends at the first empty line.
fn fields<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().take_while(|line| !line.trim().is_empty());
    lines
        .filter_map(move |line| line.split_once(':'))
        .filter_map(move |(key, value)| key.trim().eq_ignore_ascii_case(name).then_some(value.trim()))
}

/// The normal form of a package's name (PEP 503).
fn normal(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

/// The hashes of a RECORD: lines `path,algorithm=digest,size`, the path in quotes where it has commas. Lines without a
/// hash that counts are left out: what has none is not unpacked.
fn hashes(record: &str) -> HashMap<String, Hash> {
    let line = |line: &str| {
        let (rest, _size) = line.rsplit_once(',')?;
        let (path, hash) = rest.rsplit_once(',')?;
        let path = match path.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"')?.replace("\"\"", "\""),
            None => path.to_owned(),
        };
        let (algorithm, digest) = hash.split_once('=')?;
        let algorithm = match algorithm {
            "sha256" => &SHA256,
            "sha384" => &SHA384,
            "sha512" => &SHA512,
            _ => return None,
        };
        let digest = URL_SAFE_NO_PAD.decode(digest.trim_end_matches('=')).ok()?;
        Some((path, Hash { algorithm, digest }))
    };
    record.lines().filter_map(line).collect()
}

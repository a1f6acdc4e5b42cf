//! The folder of installed libraries, and the other places where libraries are looked for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::install::TEMPORARY;
use crate::kind::fits;
use crate::manifest::Manifest;
use crate::platform::check_library;
use crate::{Error, ErrorKind, Kind, Version, pip};

/// Where libraries are looked for. `FOLDER/NAME/VERSION/` holds the files of a version, with a list of them
/// (`salver-runtime.json`) and their licences.
#[derive(Debug, Clone)]
pub struct Runtimes {
    folder: PathBuf,
    given: BTreeMap<Kind, PathBuf>,
    system: Vec<PathBuf>,
}

/// A library that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub kind: Kind,
    /// Its version, where files tell it.
    pub version: Option<Version>,
    /// The folder that holds its files.
    pub folder: PathBuf,
    /// How it was found.
    pub origin: Origin,
}

/// How a library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A person named its path.
    Given,
    /// It is in the folder of installed libraries.
    Installed,
    /// It is where the system keeps libraries.
    System,
}

/// A version that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Which.
    pub version: Version,
    /// The folder that is gone.
    pub folder: PathBuf,
    /// Bytes that were freed.
    pub n_bytes: u64,
}

impl Runtimes {
    /// Libraries installed in this folder, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Runtimes {
        Runtimes { folder: folder.into(), given: BTreeMap::new(), system: Vec::new() }
    }

    /// The same with a path for one library: a folder that holds it or the library file. It is used whatever is installed.
    #[must_use]
    pub fn with_path(mut self, kind: Kind, path: impl Into<PathBuf>) -> Runtimes {
        self.given.insert(kind, path.into());
        self
    }

    /// The same with folders that are looked through last, see [`system_folders`](Runtimes::system_folders).
    #[must_use]
    pub fn with_system(mut self, folders: Vec<PathBuf>) -> Runtimes {
        self.system = folders;
        self
    }

    /// Where the dynamic linker looks on its own and where OpenVINO's archives are unpacked, after the folders of
    /// `library_path` (the value of LD_LIBRARY_PATH).
    pub fn system_folders(library_path: Option<&OsStr>) -> Vec<PathBuf> {
        let arch = std::env::consts::ARCH;
        let mut all: Vec<PathBuf> = library_path.map(std::env::split_paths).into_iter().flatten().collect();
        all.retain(|folder| folder.is_absolute());
        all.extend([
            PathBuf::from("/usr/local/lib"),
            PathBuf::from(format!("/usr/lib/{arch}-linux-gnu")),
            PathBuf::from("/usr/lib64"),
            PathBuf::from("/usr/lib"),
        ]);
        let opt: Vec<_> = fs::read_dir("/opt/intel").into_iter().flatten().filter_map(Result::ok).collect();
        let mut openvino: Vec<_> = opt
            .iter()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("openvino"))
            .flat_map(|entry| {
                ["intel64", "aarch64"].map(|name| entry.path().join("runtime").join("lib").join(name))
            })
            .collect();
        openvino.sort();
        all.extend(openvino.into_iter().rev());
        all
    }

    /// The libraries that a person named the path of.
    pub fn named(&self) -> impl Iterator<Item = (Kind, &Path)> {
        self.given.iter().map(|(kind, path)| (*kind, path.as_path()))
    }

    /// The folder of installed libraries.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn folder_of(&self, kind: Kind, version: &Version) -> PathBuf {
        self.folder.join(kind.name()).join(version.as_str())
    }

    /// The library to use: the one that a person gave the path of; else among the installed ones the version asked for, or a
    /// version that Salver is tested with, or the newest; else the system's. Looks at names, sizes and first bytes.
    ///
    /// # Errors
    /// One line that says where it was looked for and the command that installs it ([`ErrorKind::NotFound`]), or what is
    /// wrong with what is there ([`ErrorKind::Damaged`]), or what cannot be read ([`ErrorKind::Io`]).
    pub fn find(&self, kind: Kind, version: Option<&Version>) -> Result<Found, Error> {
        let wanted = |found: &Found| version.is_none_or(|wanted| found.version.as_ref() == Some(wanted));
        let found = match self.given(kind)? {
            Some(given) => Some(given).filter(wanted),
            None => {
                let installed = self.installed(kind)?.into_iter().filter(wanted);
                installed
                    .max_by_key(Found::preference)
                    .or_else(|| self.in_system(kind).into_iter().find(wanted))
            }
        };
        let Some(found) = found else { return Err(self.not_found(kind, version)) };
        match found.problem() {
            None => Ok(found),
            Some(why) => Err(found.unusable(&why)),
        }
    }

    fn not_found(&self, kind: Kind, version: Option<&Version>) -> Error {
        let name = match version {
            Some(version) => format!("{kind} {version}"),
            None => kind.to_string(),
        };
        let others: Vec<_> =
            self.list(kind).iter().filter_map(|found| Some(found.as_ref().ok()?.version_text())).collect();
        let others = match others.is_empty() {
            true => String::new(),
            false => format!("; there is {}", others.join(", ")),
        };
        let flag = version.map(|version| format!(" --version {version}")).unwrap_or_default();
        let folder = self.folder.display();
        let text = format!(
            "{name} is not installed (not in {folder} and not among the system's libraries{others}); \
             install it with: salver runtime install {kind}{flag}"
        );
        Error::new(ErrorKind::NotFound, text)
    }

    /// Every library of a kind that is there, by preference. In the place of some there may be an error: of the path that a
    /// person named, which has no library ([`ErrorKind::NotFound`]), or of a folder that cannot be read ([`ErrorKind::Io`]).
    pub fn list(&self, kind: Kind) -> Vec<Result<Found, Error>> {
        let installed = match self.installed(kind) {
            Ok(mut installed) => {
                installed.sort_by_key(|found| std::cmp::Reverse(found.preference()));
                installed.into_iter().map(Ok).collect()
            }
            Err(error) => vec![Err(error)],
        };
        let given = self.given(kind).transpose();
        given.into_iter().chain(installed).chain(self.in_system(kind).into_iter().map(Ok)).collect()
    }

    /// The library at the path that a person gave for it.
    fn given(&self, kind: Kind) -> Result<Option<Found>, Error> {
        let Some(path) = self.given.get(&kind) else { return Ok(None) };
        let folder = if path.is_file() { path.parent().unwrap_or(Path::new("/")) } else { path.as_path() };
        let found = kind.subfolders().iter().find_map(|below| {
            let folder = if below.is_empty() { folder.to_path_buf() } else { folder.join(below) };
            at(kind, &folder, Origin::Given).transpose()
        });
        found.transpose()?.map(Some).ok_or_else(|| {
            let file = kind.needed()[0].trim_end_matches('*');
            let text = format!("{}: no {file} there, expected the libraries of {kind}", path.display());
            Error::new(ErrorKind::NotFound, text)
        })
    }

    /// The installed versions of a library, in no order.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the folder is there and cannot be read: what is in it is not known.
    fn installed(&self, kind: Kind) -> Result<Vec<Found>, Error> {
        let mut all = Vec::new();
        for name in names(&self.folder.join(kind.name()))?.unwrap_or_default() {
            let Ok(version) = name.parse::<Version>() else { continue };
            let folder = self.folder_of(kind, &version);
            let is_folder = match fs::metadata(&folder) {
                Ok(data) => data.is_dir(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(Error::io("read", &folder, &error)),
            };
            if is_folder && !name.starts_with(TEMPORARY) {
                all.push(Found { kind, version: Some(version), folder, origin: Origin::Installed });
            }
        }
        Ok(all)
    }

    /// The libraries of the system. Folders that cannot be read are passed over, as the dynamic linker does.
    fn in_system(&self, kind: Kind) -> Vec<Found> {
        let mut all: Vec<Found> = Vec::new();
        for folder in &self.system {
            // `/usr/lib64` may be another name of `/usr/lib`.
            let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            if !all.iter().any(|found| found.folder == folder) {
                all.extend(at(kind, &folder, Origin::System).ok().flatten());
            }
        }
        all
    }

    /// The installed version, if nothing is wrong with it at a glance.
    pub(crate) fn sound(&self, kind: Kind, version: &Version) -> Option<Found> {
        let installed = self.installed(kind).ok()?;
        let found = installed.into_iter().find(|found| found.version.as_ref() == Some(version))?;
        found.problem().is_none().then_some(found)
    }

    /// Removes an installed version; without one the only one that there is. A process that uses it keeps it until it ends.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Invalid`] when there are several to choose from, [`ErrorKind::Io`].
    pub fn remove(&self, kind: Kind, version: Option<&Version>) -> Result<Removed, Error> {
        let folder = self.folder.display();
        let mut there: Vec<_> = self.installed(kind)?.into_iter().filter_map(|found| found.version).collect();
        there.sort();
        let version = match (version, there.as_slice()) {
            (Some(version), there) if there.contains(version) => version.clone(),
            (None, [only]) => only.clone(),
            (None, [_, ..]) => {
                let names = there.iter().map(Version::as_str).collect::<Vec<_>>().join(", ");
                let text =
                    format!("several versions of {kind} are installed; name one with --version: {names}");
                return Err(Error::new(ErrorKind::Invalid, text));
            }
            (wanted, _) => {
                let version = wanted.map(|version| format!(" {version}")).unwrap_or_default();
                let text = format!("{kind}{version} is not installed in {folder}");
                return Err(Error::new(ErrorKind::NotFound, text));
            }
        };
        let _lock = self.lock(kind, &mut || {})?;
        let temporary = self.temporary(kind)?;
        let folder = self.folder_of(kind, &version);
        let n_bytes = pip::n_bytes(&folder, 4);
        let removing = temporary.path().join("old");
        fs::rename(&folder, &removing).map_err(|error| Error::io("remove", &folder, &error))?;
        temporary.close().map_err(|error| Error::io("remove", &removing, &error))?;
        Ok(Removed { version, folder, n_bytes })
    }
}

/// The library in a folder, if its files are there.
fn at(kind: Kind, folder: &Path, origin: Origin) -> Result<Option<Found>, Error> {
    let Some(main) = main_files(kind, folder)? else { return Ok(None) };
    let told = |path: &PathBuf| {
        // `libx.so` is a link to the file whose name has the version.
        kind.version_of_file(&path.canonicalize().ok()?).or_else(|| kind.version_of_file(path))
    };
    let listed = Manifest::read(folder).ok().flatten().and_then(|manifest| manifest.version.parse().ok());
    let version = listed.or_else(|| main.iter().find_map(told));
    Ok(Some(Found { kind, version, folder: folder.to_path_buf(), origin }))
}

/// The names in a folder, or none if there is no such folder.
///
/// # Errors
/// [`ErrorKind::Io`] when there is something that cannot be read.
fn names(folder: &Path) -> Result<Option<Vec<String>>, Error> {
    let cannot = |error: io::Error| Error::io("read", folder, &error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
    let names = entries.filter_map(|entry| name(entry).transpose()).collect::<io::Result<_>>();
    names.map(Some).map_err(cannot)
}

/// The files without which a library is of no use, or none if one is missing.
fn main_files(kind: Kind, folder: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    let Some(names) = names(folder)? else { return Ok(None) };
    let file = |pattern: &&'static str| {
        let fitting = names.iter().filter(|name| fits(name, pattern));
        // The longest name is the most exact one: `libx.so.1.2` before `libx.so`.
        fitting.max_by_key(|name| name.len()).map(|name| folder.join(name))
    };
    Ok(kind.needed().iter().map(file).collect())
}

impl Found {
    /// The greater, the rather it is taken.
    fn preference(&self) -> (bool, Option<Version>) {
        (self.is_tested(), self.version.clone())
    }

    /// Whether Salver is tested with this version.
    pub fn is_tested(&self) -> bool {
        self.version.as_ref().is_some_and(|version| self.kind.is_tested(version))
    }

    /// The version for a person.
    pub fn version_text(&self) -> String {
        self.version.as_ref().map_or_else(|| "unknown version".to_owned(), Version::to_string)
    }

    /// Bytes of its files; of a folder that it shares with others, those of its main libraries.
    pub fn n_bytes(&self) -> u64 {
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
        match self.origin {
            Origin::Installed => pip::n_bytes(&self.folder, 4),
            _ => {
                main_files(self.kind, &self.folder).ok().flatten().unwrap_or_default().iter().map(size).sum()
            }
        }
    }

    /// What is wrong with it as far as names, sizes and first bytes tell: [`ErrorKind::Damaged`], or [`ErrorKind::Io`] if
    /// something cannot be read, which installing again does not mend.
    pub fn problem(&self) -> Option<Error> {
        self.glance().err()
    }

    fn glance(&self) -> Result<(), Error> {
        if let Some(manifest) = Manifest::read(&self.folder)? {
            manifest.glance(&self.folder)?;
        }
        let Some(files) = main_files(self.kind, &self.folder)? else {
            let names = self.kind.needed().iter().map(|name| name.trim_end_matches('*'));
            let text = format!("{} should be there", names.collect::<Vec<_>>().join(" and "));
            return Err(Error::new(ErrorKind::Damaged, text));
        };
        for path in &files {
            File::open(path).map_err(|error| Error::of_file(path, &error))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            check_library(path, std::env::consts::ARCH)
                .map_err(|why| Error::new(ErrorKind::Damaged, format!("{name} {why}")))?;
        }
        Ok(())
    }

    /// Everything that is wrong with its files, by their hashes where those are known, as [`Found::problem`]. Reads all of
    /// them.
    pub fn verify(&self) -> Vec<Error> {
        if let Some(why) = self.problem() {
            return vec![why];
        }
        match Manifest::read(&self.folder) {
            Ok(Some(manifest)) => manifest.compare(&self.folder),
            _ => Vec::new(),
        }
    }

    /// Whether hashes of its files are known.
    pub fn has_hashes(&self) -> bool {
        matches!(Manifest::read(&self.folder), Ok(Some(_)))
    }

    /// The one line about what is wrong with it, and what to do.
    fn unusable(&self, why: &Error) -> Error {
        let (kind, folder) = (self.kind, self.folder.display());
        let fix = match (&self.origin, &self.version) {
            _ if why.kind() == ErrorKind::Io => String::new(),
            (Origin::Installed, Some(version)) => {
                format!("; install it again with: salver runtime install {kind} --version {version} --force")
            }
            _ => format!("; Salver's own copy comes with: salver runtime install {kind}"),
        };
        let text = format!("{kind} {} in {folder} cannot be used: {why}{fix}", self.version_text());
        Error::new(why.kind(), text)
    }
}

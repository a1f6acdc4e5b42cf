//! Installing: from nothing to a complete folder in one step, or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::manifest::{FILE_NAME, Manifest, sha256};
use crate::platform::check_library;
use crate::runtimes::{Found, Runtimes};
use crate::wheel::{Wheel, sync_folder};
use crate::{Error, ErrorKind, Kind, Pip, Platform, Version};

/// Beginning of the names of folders that are being made. What has such a name while the lock is free was left behind.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Space that is left over on the disk.
const SPARE: u64 = 16 << 20;

/// What to install.
#[derive(Debug, Clone)]
pub struct Order {
    /// The library.
    pub kind: Kind,
    /// Its version. Without one: the wheel's, or the one that Salver is tested with.
    pub version: Option<Version>,
    /// Where the wheel comes from.
    pub source: Source,
    /// Replace what is there even if nothing is wrong with it.
    pub again: bool,
}

/// Where a wheel comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The network, by way of pip.
    Pip(Pip),
    /// A file.
    Wheel(PathBuf),
}

/// What installing came to.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was installed.
    Installed(Found),
    /// It was there before.
    AlreadyThere(Found),
}

/// How far an installation is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Another installation of the same library has to end first.
    Waiting,
    /// A program was started to get the wheel.
    Fetching {
        /// The program.
        command: String,
        /// What it is asked for.
        package: String,
    },
    /// Bytes of the wheel that are there, about, and how many there will be.
    Downloaded {
        /// So far.
        done: u64,
        /// In the end, if it is known.
        total: Option<u64>,
    },
    /// Bytes of libraries that are written.
    Unpacked {
        /// So far.
        done: u64,
        /// In the end.
        total: u64,
    },
}

impl Runtimes {
    /// Installs a library. `now` is what the manifest gives as the time. Blocks for as long as the download takes.
    ///
    /// The folder of the version appears complete or not at all, also when the process is killed; what it leaves behind is
    /// removed by the next installation. Two installations of one library wait for each other.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a wheel that is not this library's or not for this machine, or is damaged;
    /// [`ErrorKind::Fetch`] with pip's own words; [`ErrorKind::Io`] when the folder cannot be written or the disk is full.
    pub fn install(
        &self,
        order: &Order,
        platform: &Platform,
        now: SystemTime,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, Error> {
        let version = match (&order.version, &order.source) {
            (Some(version), _) => Some(version.clone()),
            (None, Source::Pip(_)) => Some(order.kind.tested()[0].parse()?),
            (None, Source::Wheel(_)) => None,
        };
        let there = |version: &Version| self.sound(order.kind, version).filter(|_| !order.again);
        if let Some(found) = version.as_ref().and_then(there) {
            return Ok(Outcome::AlreadyThere(found));
        }
        // What a person can have mistaken is said before anything is made.
        if let Source::Wheel(path) = &order.source {
            let wheel = Wheel::open(path)?;
            wheel.check(order.kind, version.as_ref(), platform)?;
            if let Some(found) = there(&wheel.version) {
                return Ok(Outcome::AlreadyThere(found));
            }
        }
        let _lock = self.lock(order.kind, &mut || progress(Progress::Waiting))?;
        if let Some(found) = version.as_ref().and_then(there) {
            return Ok(Outcome::AlreadyThere(found));
        }
        let temporary = self.temporary(order.kind)?;
        let (path, from) = match (&order.source, &version) {
            (Source::Wheel(path), _) => (path.clone(), path.display().to_string()),
            (Source::Pip(pip), Some(version)) => {
                pip.fetch(order.kind, version, temporary.path(), platform, progress)?
            }
            (Source::Pip(_), None) => unreachable!("an order for pip has a version, see above"),
        };
        let mut wheel = Wheel::open(&path)?;
        wheel.check(order.kind, version.as_ref(), platform)?;
        if let Some(found) = there(&wheel.version) {
            return Ok(Outcome::AlreadyThere(found));
        }
        let made = temporary.path().join("new");
        fs::create_dir(&made).map_err(|error| Error::io("create", &made, &error))?;
        self.fill(order.kind, &made, &mut wheel, &Made { path: &path, from, now }, progress)?;
        let found = self.put(order.kind, &wheel.version, &made, temporary.path())?;
        Ok(Outcome::Installed(found))
    }

    /// Unpacks a wheel into a new folder and describes it.
    fn fill(
        &self,
        kind: Kind,
        folder: &Path,
        wheel: &mut Wheel,
        made: &Made<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let total = wheel.unpacked_size(kind)?;
        self.check_space(total)?;
        let files = wheel.unpack(kind, folder, &mut |done| progress(Progress::Unpacked { done, total }))?;
        for name in files.keys().filter(|name| !name.contains('/')) {
            check_library(&folder.join(name), std::env::consts::ARCH)
                .map_err(|why| Error::refused(made.path, format!("{name} {why}")))?;
        }
        let installed_at = made.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let manifest = Manifest {
            name: kind.name().to_owned(),
            version: wheel.version.to_string(),
            package: wheel.package.clone(),
            wheel: made.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            wheel_sha256: sha256(made.path).map_err(|error| Error::io("read", made.path, &error))?,
            from: made.from.clone(),
            installed_at: installed_at.as_secs(),
            files,
        };
        let path = folder.join(FILE_NAME);
        let text =
            serde_json::to_vec_pretty(&manifest).expect("a manifest is text, numbers and maps of text");
        fs::write(&path, text)
            .and_then(|()| File::open(&path)?.sync_all())
            .map_err(|error| Error::io("write", &path, &error))?;
        sync_folder(folder)
    }

    /// Gives the complete folder its name. A process that has the old one open keeps it.
    fn put(&self, kind: Kind, version: &Version, made: &Path, temporary: &Path) -> Result<Found, Error> {
        let (to, old) = (self.folder_of(kind, version), temporary.join("old"));
        let had = match fs::rename(&to, &old) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::io("replace", &to, &error)),
        };
        if let Err(error) = fs::rename(made, &to) {
            if had {
                fs::rename(&old, &to).map_err(|error| Error::io("put back", &to, &error))?;
            }
            return Err(Error::io("create", &to, &error));
        }
        sync_folder(&self.folder().join(kind.name()))?;
        self.sound(kind, version).ok_or_else(|| {
            Error::new(ErrorKind::Io, format!("{} changed while it was written", to.display()))
        })
    }

    fn check_space(&self, needed: u64) -> Result<(), Error> {
        let Ok(disk) = rustix::fs::statvfs(self.folder()) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= needed.saturating_add(SPARE) {
            return Ok(());
        }
        let text = format!(
            "{}: {} MB are free on this disk, {} MB are needed (another folder: --runtime_dir or the variable \
             SALVER_RUNTIMES)",
            self.folder().display(),
            free / 1_000_000,
            needed.saturating_add(SPARE) / 1_000_000
        );
        Err(Error::new(ErrorKind::Io, text))
    }

    /// Waits until nobody else installs or removes this library. The lock ends with the file, also when the process is
    /// killed.
    pub(crate) fn lock(&self, kind: Kind, waiting: &mut dyn FnMut()) -> Result<File, Error> {
        let folder = self.folder().join(kind.name());
        fs::create_dir_all(&folder).map_err(|error| Error::io("create", &folder, &error))?;
        let path = folder.join(".lock");
        let io = |error: std::io::Error| Error::io("lock", &path, &error);
        let file = File::options().create(true).append(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(io)?;
            }
            Err(fs::TryLockError::Error(error)) => return Err(io(error)),
        }
        Ok(file)
    }

    /// A folder for what is being made, on the disk where it will stay. Those that were left behind are removed: the caller
    /// has the lock.
    pub(crate) fn temporary(&self, kind: Kind) -> Result<tempfile::TempDir, Error> {
        let folder = self.folder().join(kind.name());
        let entries = fs::read_dir(&folder).map_err(|error| Error::io("read", &folder, &error))?;
        for entry in entries.filter_map(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                fs::remove_dir_all(entry.path())
                    .map_err(|error| Error::io("remove", &entry.path(), &error))?;
            }
        }
        tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(&folder)
            .map_err(|error| Error::io("create a folder in", &folder, &error))
    }
}

/// Where a wheel came from and when.
struct Made<'a> {
    path: &'a Path,
    from: String,
    now: SystemTime,
}

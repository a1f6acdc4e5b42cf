use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Limits;

/// What can be told of a version without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Stands for the relative path, size and modification time of every file. Comparable within one process.
    pub fingerprint: u64,
    /// How many files there are.
    pub n_files: usize,
    /// The latest modification of a file or folder.
    pub newest: Option<SystemTime>,
}

/// Looks through a file or a folder, following links. The error says what cannot be looked at.
pub(crate) fn read_content(path: &Path, limits: &Limits) -> Result<Content, String> {
    let mut walk = Walk { limits, n_entries: 0, folders: Vec::new(), content: Content::new() };
    let metadata = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    walk.add(path.to_owned(), PathBuf::new(), &metadata, 0);
    while let Some(folder) = walk.folders.pop() {
        walk.read_folder(&folder)?;
    }
    Ok(walk.content)
}

pub(crate) fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

struct Walk<'a> {
    limits: &'a Limits,
    n_entries: usize,
    folders: Vec<Folder>,
    content: Content,
}

struct Folder {
    path: PathBuf,
    /// Its path from the root of the walk.
    relative: PathBuf,
    depth: usize,
}

impl Content {
    fn new() -> Self {
        Self { fingerprint: 0, n_files: 0, newest: None }
    }

    /// Adds a file in a way that does not depend on the order.
    fn add_file(&mut self, relative: &Path, facts: Option<(u64, Option<SystemTime>)>) {
        let mut hasher = DefaultHasher::new();
        relative.hash(&mut hasher);
        facts.hash(&mut hasher);
        self.fingerprint = self.fingerprint.wrapping_add(hasher.finish());
        self.n_files += 1;
    }
}

impl Walk<'_> {
    fn add(&mut self, path: PathBuf, relative: PathBuf, metadata: &Metadata, depth: usize) {
        let modified = metadata.modified().ok();
        self.content.newest = self.content.newest.max(modified);
        if metadata.is_dir() {
            self.folders.push(Folder { path, relative, depth });
        } else {
            self.content.add_file(&relative, Some((metadata.len(), modified)));
        }
    }

    fn read_folder(&mut self, folder: &Folder) -> Result<(), String> {
        if folder.depth > self.limits.max_depth {
            return Err(format!(
                "{} lies more than {} folders deep",
                folder.path.display(),
                self.limits.max_depth
            ));
        }
        let entries = fs::read_dir(&folder.path).map_err(|error| cannot_read(&folder.path, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| cannot_read(&folder.path, &error))?;
            self.n_entries += 1;
            if self.n_entries > self.limits.max_entries {
                return Err(format!("more than {} files and folders", self.limits.max_entries));
            }
            self.read_entry(folder, entry.path(), &folder.relative.join(entry.file_name()))?;
        }
        Ok(())
    }

    fn read_entry(&mut self, folder: &Folder, path: PathBuf, relative: &Path) -> Result<(), String> {
        match fs::metadata(&path) {
            Ok(metadata) => {
                if !(metadata.is_dir() && leads_back(&path, &folder.path)) {
                    self.add(path, relative.to_owned(), &metadata, folder.depth + 1);
                }
                Ok(())
            }
            // A link to nothing, or an entry that went in this moment: its name is all that there is.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.content.add_file(relative, None);
                Ok(())
            }
            Err(error) => Err(cannot_read(&path, &error)),
        }
    }
}

/// Whether the folder at `path` is a link to a folder that holds it, so that a walk would never end.
fn leads_back(path: &Path, parent: &Path) -> bool {
    if !path.is_symlink() {
        return false;
    }
    match (fs::canonicalize(path), fs::canonicalize(parent)) {
        (Ok(target), Ok(parent)) => parent.starts_with(target),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { max_entries: 5, max_depth: 2 }
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn content_changes_with_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1");
        let read = || read_content(&path, &limits()).unwrap();
        write(&path.join("a"), "one");
        let first = read();
        assert_eq!(first.n_files, 1);
        assert!(first.newest.is_some());
        assert_eq!(read().fingerprint, first.fingerprint);

        write(&path.join("sub/b"), "two");
        let second = read();
        assert_eq!(second.n_files, 2);
        assert_ne!(second.fingerprint, first.fingerprint);

        write(&path.join("a"), "longer");
        let third = read();
        assert_ne!(third.fingerprint, second.fingerprint);

        let file = fs::File::options().append(true).open(path.join("a")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(read().fingerprint, third.fingerprint);
    }

    #[test]
    fn a_file_is_its_own_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write(&path, "one");
        let first = read_content(&path, &limits()).unwrap();
        write(&path, "three");
        assert_ne!(read_content(&path, &limits()).unwrap().fingerprint, first.fingerprint);
        assert_eq!(first.n_files, 1);
    }

    #[test]
    fn walks_have_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let check = |name: &str, n_files: usize, expected: Result<usize, &str>| {
            let path = folder.path().join(name);
            for n in 0..n_files {
                write(&path.join(format!("{n}")), "");
            }
            let got = read_content(&path, &limits()).map(|content| content.n_files);
            match expected {
                Ok(n_files) => assert_eq!(got, Ok(n_files), "{name}"),
                Err(text) => assert!(got.unwrap_err().contains(text), "{name}"),
            }
        };
        check("missing", 0, Err("cannot read"));
        check("full", 5, Ok(5));
        check("overfull", 6, Err("more than 5 files and folders"));
        fs::create_dir_all(folder.path().join("deep/a/b/c")).unwrap();
        check("deep", 0, Err("more than 2 folders deep"));
        fs::create_dir_all(folder.path().join("empty")).unwrap();
        check("empty", 0, Ok(0));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_round() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (data, path) = (folder.path().join("data"), folder.path().join("1"));
        write(&data.join("weights"), "w");
        write(&path.join("a"), "a");
        symlink(&data, path.join("linked")).unwrap();
        symlink(&path, path.join("round")).unwrap();
        symlink(folder.path(), path.join("up")).unwrap();
        symlink("nowhere", path.join("broken")).unwrap();
        let limits = Limits { max_entries: 6, max_depth: 1 };
        let content = read_content(&path, &limits).unwrap();
        assert_eq!(content.n_files, 3);
        write(&data.join("weights"), "changed");
        assert_ne!(read_content(&path, &limits).unwrap().fingerprint, content.fingerprint);
    }
}

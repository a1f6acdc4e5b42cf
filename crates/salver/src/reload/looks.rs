//! Files that others write while they are read here: which are whole, and which are there at all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file as it is at one moment; `None` where there is none.
pub(crate) type Stamp = Option<(u64, Option<SystemTime>)>;

/// The stamp of this file now.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()))
}

/// Files at this look and at the one before. A file that is the same at both is whole, as far as can be told: whoever wrote it has
/// paused for as long as lies between two looks.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    before: HashMap<PathBuf, Stamp>,
    now: HashMap<PathBuf, Stamp>,
}

impl Looks {
    /// The next look, at these files; others are forgotten.
    pub(crate) fn next(&mut self, paths: impl Iterator<Item = PathBuf>) {
        let looked_at = |path: PathBuf| {
            let stamp = stamp(&path);
            (path, stamp)
        };
        self.now_is(paths.map(looked_at).collect());
    }

    fn now_is(&mut self, now: HashMap<PathBuf, Stamp>) {
        self.before = std::mem::replace(&mut self.now, now);
    }

    /// Whether all of these were looked at twice and were the same.
    pub(crate) fn are_still<'a>(&self, mut paths: impl Iterator<Item = &'a PathBuf>) -> bool {
        paths.all(|path| self.now.get(path).is_some_and(|now| self.before.get(path) == Some(now)))
    }

    /// Whether these are as they were at this look, after they have been read.
    pub(crate) fn are_same<'a>(&self, mut paths: impl Iterator<Item = &'a PathBuf>) -> bool {
        paths.all(|path| self.now.get(path) == Some(&stamp(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_when_two_looks_find_the_same() {
        let paths = [PathBuf::from("a"), PathBuf::from("b")];
        let at = |n_bytes: u64| Some((n_bytes, Some(SystemTime::UNIX_EPOCH)));
        let mut looks = Looks::default();
        let steps: [(Stamp, bool); 7] = [
            (at(1), false),
            (at(1), true),
            (at(2), false),
            (at(3), false),
            (at(3), true),
            (None, false),
            (None, true),
        ];
        for (number, (now, expected)) in steps.into_iter().enumerate() {
            looks.now_is([(paths[0].clone(), now), (paths[1].clone(), None)].into());
            assert_eq!(looks.are_still(paths.iter()), expected, "look {number}");
        }
        assert!(!looks.are_still([PathBuf::from("c")].iter()), "never looked at");
    }

    #[test]
    fn what_changes_while_it_is_read_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = [dir.path().join("salver.toml")];
        let mut looks = Looks::default();
        looks.next(path.iter().cloned());
        assert!(looks.are_same(path.iter()));
        std::fs::write(&path[0], "lanes = 1").unwrap();
        assert!(!looks.are_same(path.iter()));
        looks.next(path.iter().cloned());
        assert!(looks.are_same(path.iter()) && !looks.are_still(path.iter()));
        std::fs::remove_file(&path[0]).unwrap();
        assert!(!looks.are_same(path.iter()));
    }
}

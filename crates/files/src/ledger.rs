//! Which byte an offset is: written by a source, read by a sink when it commits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use salver_records::Partition;

use crate::{Done, Fingerprint};

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spot {
    /// Bytes before it, unpacked.
    pub(crate) byte: u64,
    /// The line that begins there.
    pub(crate) line: i64,
}

/// What is known of one input.
#[derive(Debug)]
struct Track {
    name: Arc<str>,
    fingerprint: Option<Fingerprint>,
    /// All before it is done.
    base: Spot,
    /// The first offset that is not.
    base_next: i64,
    /// Records given since: offset, and the place after it. As many as are under way.
    given: VecDeque<(i64, Spot)>,
    /// No record comes after those given.
    ended: bool,
}

/// The places of all records under way, shared by a source and the sink that commits for it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tracks: Mutex<Vec<Track>>,
}

impl Ledger {
    fn tracks(&self) -> MutexGuard<'_, Vec<Track>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next input.
    pub(crate) fn add(&self, name: Arc<str>, fingerprint: Option<Fingerprint>, base: Spot) {
        self.tracks().push(Track {
            name,
            fingerprint,
            base,
            base_next: base.line,
            given: VecDeque::new(),
            ended: false,
        });
    }

    /// Records were given.
    pub(crate) fn give(&self, input: usize, records: &[(i64, Spot)]) {
        if let Some(track) = self.tracks().get_mut(input) {
            track.given.extend(records);
        }
    }

    /// The input will give no more.
    pub(crate) fn end(&self, input: usize) {
        if let Some(track) = self.tracks().get_mut(input) {
            track.ended = true;
        }
    }

    /// The place before the record of that offset; forgets what was given from there on. `None` if it is done already.
    pub(crate) fn back_to(&self, input: usize, next: i64) -> Option<Spot> {
        let mut tracks = self.tracks();
        let track = tracks.get_mut(input)?;
        while track.given.back().is_some_and(|(offset, _)| *offset >= next) {
            track.given.pop_back();
            track.ended = false;
        }
        match track.given.back() {
            Some((_, spot)) => Some(*spot),
            None => (next >= track.base_next).then_some(track.base),
        }
    }

    /// What to remember of a partition that is done up to `next`; `None` if it is not of this source.
    pub(crate) fn done(&self, partition: &Partition, next: i64) -> Option<Done> {
        let tracks = self.tracks();
        let track = tracks.get(usize::try_from(partition.number).ok()?)?;
        if *track.name != *partition.topic {
            return None;
        }
        let n_done = track.given.partition_point(|(offset, _)| *offset < next);
        let spot = n_done.checked_sub(1).map_or(track.base, |last| track.given[last].1);
        Some(Done {
            input: partition.topic.to_string(),
            partition: partition.number,
            next: spot.line,
            byte: Some(spot.byte),
            file: track.fingerprint,
            finished: track.ended && n_done == track.given.len(),
        })
    }

    /// A partition lasts up to `next`: its places are not needed any more.
    pub(crate) fn settle(&self, partition: &Partition, next: i64) {
        let mut tracks = self.tracks();
        let Some(track) = usize::try_from(partition.number).ok().and_then(|input| tracks.get_mut(input))
        else {
            return;
        };
        while let Some((offset, spot)) = track.given.pop_front_if(|(offset, _)| *offset < next) {
            track.base = spot;
            track.base_next = offset + 1;
        }
    }

    /// Whether all inputs are done, by what was remembered of them.
    pub(crate) fn covers(&self, all_done: &[Done]) -> bool {
        let tracks = self.tracks();
        !tracks.is_empty()
            && tracks.iter().enumerate().all(|(index, track)| {
                let done = all_done.iter().find(|done| usize::try_from(done.partition) == Ok(index));
                // The end of an input may be found after its last record is done, or without any record.
                done.is_some_and(|done| done.finished) || (track.ended && track.given.is_empty())
            })
    }
}

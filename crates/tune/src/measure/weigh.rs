//! What a model takes in a process of its own.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::Error;
use crate::feed::{Answered, Feed};
use crate::loaded::Loaded;
use crate::trial::{self, Length};
use crate::{Candidate, Footprint, Meter, Requests, Sharing};

/// Loads one candidate, runs a batch on each of its lanes, and says what that added to the process. Meant for a process that has
/// loaded nothing before: in others, what was freed is used again and not counted. Blocks.
///
/// # Errors
/// When the candidate does not load or fails, or the system does not say what a process holds.
pub fn weigh(
    candidate: &Candidate,
    sharing: Sharing,
    batch: NonZeroUsize,
    requests: &Requests<'_>,
    meter: &dyn Meter,
) -> Result<Footprint, Error> {
    let failed = |error: salver_engine::Error| Error::requests(error.to_string());
    let mut loaded = Loaded::load(0, candidate, sharing, meter).map_err(failed)?;
    let signatures = loaded.model.signatures().to_vec();
    let asked = requests(&signatures).map_err(Error::requests)?;
    let first =
        asked.into_iter().next().ok_or_else(|| Error::requests("there are no requests".to_owned()))?;
    let feed = Feed::new(&[Answered { request: first, answers: Vec::new() }], &signatures);
    let batches = feed.batches(if feed.is_joinable() { batch } else { NonZeroUsize::MIN });
    loaded.mark(meter);
    let bound = loaded.bind(&batches).map_err(failed)?;
    let length = Length {
        n_lanes: sharing.lanes.get(),
        time: Duration::from_millis(1),
        min_runs: 2,
        is_warmed_up: false,
    };
    trial::run(&mut loaded, &bound, length, meter).map_err(failed)?;
    drop(bound);
    loaded.settle(meter);
    loaded.footprint.ok_or_else(|| Error::requests("the system does not say what a process holds".to_owned()))
}

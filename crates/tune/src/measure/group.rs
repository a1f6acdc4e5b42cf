//! Measuring models that are loaded together: in turn, round after round.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use salver_engine::Precision;

use super::{Driver, Event};
use crate::Candidate;
use crate::feed::Batch;
use crate::loaded::{Bound, Loaded};
use crate::rounds::{Rounds, Standing, contenders};
use crate::trial::{self, Length};

/// Rounds after which figures get no better.
const MAX_ROUNDS: usize = 9;

/// One thing that is run in turn.
struct Slot<'a> {
    /// The position among the models of the group.
    model: usize,
    batches: Vec<Bound<'a>>,
    batch: NonZeroUsize,
    n_lanes: usize,
    rounds: Rounds,
    is_over: bool,
}

impl Driver<'_> {
    /// Measures all that the models of a group can do, for about so long, and notes it.
    pub(super) fn measure_group(
        &mut self,
        mut group: Vec<Loaded>,
        batches: &BTreeMap<NonZeroUsize, Vec<Batch>>,
        time: Duration,
    ) {
        let mut slots = self.slots(&group, batches);
        if slots.is_empty() {
            return;
        }
        let deadline = self.meter.now().saturating_add(time);
        let n_slots = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let turn = (time / n_slots / 4).clamp(super::TURN.0, super::TURN.1);
        for round in 0..MAX_ROUNDS {
            let n_left = slots.iter().filter(|slot| !slot.is_over).count();
            (self.observe)(Event::Stage { name: "measuring", n_steps: n_left });
            for turn_of in 0..slots.len() {
                // Each round starts elsewhere, so that nothing always runs behind the same neighbour.
                let at = (turn_of + round * (slots.len() / 3 + 1)) % slots.len();
                if slots[at].is_over {
                    continue;
                }
                if round > 0 && self.meter.now() >= deadline {
                    break;
                }
                self.run_slot(&mut slots[at], &mut group, turn);
            }
            if self.meter.now() >= deadline {
                break;
            }
            if round == 0 {
                self.drop_losers(&mut slots, &group);
            }
        }
        self.conclude(&slots, &group);
    }

    fn slots<'b>(&self, group: &[Loaded], batches: &'b BTreeMap<NonZeroUsize, Vec<Batch>>) -> Vec<Slot<'b>> {
        let mut slots = Vec::new();
        for (model, loaded) in group.iter().enumerate() {
            let n_lanes = loaded.sharing.lanes.get();
            for (index, &batch) in loaded.sizes.iter().enumerate() {
                let Some(bound) = batches.get(&batch).and_then(|all| loaded.bind(all).ok()) else { continue };
                // One caller is measured where the lanes are not all his.
                let lanes = if index == 0 && n_lanes > 1 { vec![1, n_lanes] } else { vec![n_lanes] };
                slots.extend(lanes.into_iter().map(|n_lanes| Slot {
                    model,
                    batches: bound.clone(),
                    batch,
                    n_lanes,
                    rounds: Rounds::default(),
                    is_over: false,
                }));
            }
        }
        slots
    }

    fn run_slot(&mut self, slot: &mut Slot<'_>, group: &mut [Loaded], turn: Duration) {
        let Some(loaded) = group.get_mut(slot.model) else { return };
        let sharing = loaded.sharing;
        let what = format!("{} threads, {} lanes, batch {}", sharing.threads, slot.n_lanes, slot.batch);
        self.step(loaded.candidate, &what);
        // What takes long has no use for a run that does not count.
        let is_warmed_up = slot.rounds.p50().is_none_or(|run| run < turn / 4);
        let length = Length { n_lanes: slot.n_lanes, time: turn, min_runs: 1, is_warmed_up };
        match trial::run(loaded, &slot.batches, length, self.meter) {
            Ok(trial) => slot.rounds.add(trial),
            Err(error) => {
                slot.is_over = true;
                slot.rounds = Rounds::default();
                let candidate = loaded.candidate;
                self.fail(candidate, Some(sharing), Some(slot.batch), error.to_string());
            }
        }
    }

    fn drop_losers(&self, slots: &mut [Slot<'_>], group: &[Loaded]) {
        let fair: Vec<(usize, Standing)> =
            (0..slots.len()).filter_map(|at| Some((at, self.standing(&slots[at], slots, group)?))).collect();
        let standings: Vec<Standing> = fair.iter().map(|(_, standing)| *standing).collect();
        let stays = contenders(&standings);
        // A model's time for one caller is wanted as long as anything of it is.
        let models: Vec<usize> = fair
            .iter()
            .zip(&stays)
            .filter(|(_, stays)| **stays)
            .map(|((at, _), _)| slots[*at].model)
            .collect();
        for ((at, _), stays) in fair.iter().zip(stays) {
            slots[*at].is_over = !stays;
        }
        for slot in slots.iter_mut().filter(|slot| is_one_caller(slot, group)) {
            slot.is_over = !models.contains(&slot.model);
        }
    }

    fn standing(&self, slot: &Slot<'_>, slots: &[Slot<'_>], group: &[Loaded]) -> Option<Standing> {
        let loaded = group.get(slot.model)?;
        let is_full = slot.n_lanes == loaded.sharing.lanes.get();
        Some(Standing {
            precision: loaded_precision(self.candidates, loaded),
            is_reference: loaded.candidate == self.reference,
            batch: slot.batch,
            one_caller: one_caller(slots, slot.model).filter(|_| is_full)?,
            rows_per_second: Some(slot.rounds.rows_per_second()).filter(|speed| *speed > 0.0)?,
        })
    }

    /// Makes rows of what was measured; they stand for the first figures of the same.
    fn conclude(&mut self, slots: &[Slot<'_>], group: &[Loaded]) {
        for slot in slots {
            let Some(loaded) = group.get(slot.model) else { continue };
            let is_full = slot.n_lanes == loaded.sharing.lanes.get();
            let Some(one_caller) = one_caller(slots, slot.model) else { continue };
            if !is_full || slot.rounds.n_rounds() == 0 {
                continue;
            }
            self.measured.retain(|one| {
                (one.candidate, one.sharing, one.batch) != (loaded.candidate, loaded.sharing, slot.batch)
            });
            self.add_measured(loaded, slot.batch, one_caller, &slot.rounds);
        }
    }
}

fn loaded_precision(candidates: &[Candidate], loaded: &Loaded) -> Precision {
    candidates[loaded.candidate].precision
}

fn is_one_caller(slot: &Slot<'_>, group: &[Loaded]) -> bool {
    group.get(slot.model).is_some_and(|loaded| slot.n_lanes < loaded.sharing.lanes.get())
}

/// The time for one caller with the smallest batch, while the model's other lanes rest.
fn one_caller(slots: &[Slot<'_>], model: usize) -> Option<Duration> {
    slots.iter().find(|slot| slot.model == model && slot.n_lanes == 1).and_then(|slot| slot.rounds.p50())
}

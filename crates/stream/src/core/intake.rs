//! What may be read, and what there is.

use std::time::Instant;

use super::{Core, Effect, HOLD, Intake, Seen, Totals};

impl<T, P> Core<T, P> {
    /// What may be read now.
    pub(crate) fn intake(&mut self, now: Instant) -> Intake {
        let Totals { n_bytes, n_records, .. } = self.totals();
        let is_full = self.bytes.look(n_bytes) | self.records.look(n_records);
        if !is_full {
            self.full_since = None;
            let all_paused = self.slots.values().all(|assigned| assigned.is_paused);
            return if all_paused { Intake::Paused } else { Intake::Open(self.bytes.room(n_bytes)) };
        }
        let since = *self.full_since.get_or_insert(now);
        if now < since + HOLD { Intake::Held } else { Intake::Paused }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        let is_held = self.intake(now) == Intake::Paused && self.full_since.is_some();
        let is_stopping = self.stopping.is_some();
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (slot, assigned) in &mut self.slots {
            // A source reads nothing more of what others shall have, and what it reads before it has gone back is left out.
            if assigned.is_draining() || assigned.is_rewinding() {
                continue;
            }
            let is_full = assigned.gate.look(assigned.tracker.len());
            let wanted = is_held || is_stopping || is_full || assigned.is_unsure();
            if wanted != assigned.is_paused {
                assigned.is_paused = wanted;
                if wanted { pause.push(*slot) } else { resume.push(*slot) }
            }
        }
        for (slots, effect) in [(pause, Effect::Pause as fn(_) -> _), (resume, Effect::Resume)] {
            if !slots.is_empty() {
                self.effects.push(effect(slots));
            }
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.slots.values().fold(Totals::default(), |totals, assigned| {
            let sizes = assigned.tracker.sizes();
            Totals {
                n_bytes: totals.n_bytes + sizes.n_bytes,
                n_records: totals.n_records + assigned.tracker.len(),
                n_started: totals.n_started + sizes.n_started,
                n_released: totals.n_released + sizes.n_released,
            }
        })
    }

    pub(crate) fn seen(&self) -> impl Iterator<Item = Seen> + '_ {
        self.slots.iter().map(|(slot, assigned)| Seen {
            slot: *slot,
            committed: assigned.tracker.position(),
            read: assigned.tracker.expected(),
            timestamp_ms: assigned.tracker.timestamp_ms(),
            n_in_flight: assigned.tracker.len(),
            is_paused: assigned.is_paused,
            is_ended: assigned.is_ended,
        })
    }
}

//! What is written and committed, and what is thrown away and begun again.

use std::collections::BTreeMap;
use std::time::Instant;

use salver_records::{Position, Severity, Slot};

use super::{AGAIN, Backoff, Core, Effect, FENCE, Phase, Sending, Ticket, Tracker, earliest};
use crate::Delivery;

/// Up to where partitions are written in a transaction: the number of the last record, and the offset behind it.
pub(super) type Through = BTreeMap<Slot, (u64, u64, i64)>;

/// A transaction, from the first record written into it until it is committed. With delivery at least once there is none.
#[derive(Debug)]
pub(super) enum Interval {
    Idle,
    Open { since: Instant, n_bytes: usize, through: Through },
    Committing { since: Instant, through: Through },
}

impl Interval {
    pub(super) fn is_open_with(&self, slot: Slot) -> bool {
        matches!(self, Interval::Open { through, .. } if through.contains_key(&slot))
    }

    pub(super) fn is_committing(&self, slot: Slot) -> bool {
        matches!(self, Interval::Committing { through, .. } if through.contains_key(&slot))
    }
}

fn positions(through: &Through) -> Vec<Position> {
    through.iter().map(|(slot, (_, _, next))| Position { slot: *slot, next: *next }).collect()
}

impl<T, P> Core<T, P> {
    /// Writes what may be written, and commits a transaction that is due.
    pub(super) fn flush(&mut self, now: Instant) {
        if self.held_until.is_some_and(|until| now < until) {
            return;
        }
        self.held_until = None;
        match self.delivery {
            Delivery::AtLeastOnce => self.send(),
            Delivery::ExactlyOnce => {
                if matches!(self.interval, Interval::Idle) && self.totals().n_records == 0 {
                    self.committed_at = now;
                }
                self.send_in_transaction(now);
                self.commit_if_due(now);
            }
        }
    }

    fn send(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let mut sent = Vec::with_capacity(self.outbox.len());
        while let Some((sending, ..)) = self.outbox.pop_front() {
            if self.assigned_of(sending.ticket).is_none() {
                continue;
            }
            if sending.n_outputs == 0 {
                self.settle_one(sending.ticket);
            }
            sent.push(sending);
        }
        if !sent.is_empty() {
            self.effects.push(Effect::Send(sent));
        }
    }

    fn send_in_transaction(&mut self, now: Instant) {
        if matches!(self.interval, Interval::Committing { .. }) || self.outbox.is_empty() {
            return;
        }
        let (since, mut n_bytes, mut through) = match std::mem::replace(&mut self.interval, Interval::Idle) {
            Interval::Open { since, n_bytes, through } => (since, n_bytes, through),
            _ => (now, 0, Through::new()),
        };
        let mut sent = Vec::with_capacity(self.outbox.len());
        while n_bytes < self.max_transaction_bytes {
            let Some((sending, offset, n)) = self.outbox.pop_front() else { break };
            let Sending { ticket, .. } = sending;
            if self.assigned_of(ticket).is_none() {
                continue;
            }
            n_bytes += n;
            through.insert(ticket.slot, (ticket.epoch, ticket.seq, offset.saturating_add(1)));
            sent.push(sending);
        }
        if !through.is_empty() {
            self.interval = Interval::Open { since, n_bytes, through };
        }
        if !sent.is_empty() {
            self.effects.push(Effect::Send(sent));
        }
    }

    fn commit_if_due(&mut self, now: Instant) {
        let Interval::Open { since, n_bytes, .. } = &self.interval else { return };
        let is_due = now >= *since + self.commit_interval || *n_bytes >= self.max_transaction_bytes;
        if !is_due && !self.is_pressed() {
            return;
        }
        if let Interval::Open { through, .. } = std::mem::replace(&mut self.interval, Interval::Idle) {
            self.effects.push(Effect::Commit(positions(&through)));
            self.interval = Interval::Committing { since: now, through };
        }
    }

    /// Whether a commit is waited for: a partition is asked back, or there is nothing else left to do.
    fn is_pressed(&self) -> bool {
        if self.slots.values().any(|one| one.is_draining() && one.tracker.sizes().n_started == 0) {
            return true;
        }
        self.is_last()
    }

    /// Whether nothing more comes to be written.
    fn is_last(&self) -> bool {
        let is_last =
            self.stopping.is_some() || self.slots.values().all(|one| one.is_active() && one.is_ended);
        is_last && self.outbox.is_empty() && self.n_waiting() == 0 && self.totals().n_started == 0
    }

    /// Outputs of these records last; a record of several outputs comes as many times. Appends when records were taken of
    /// which all lasts.
    pub(crate) fn acked(&mut self, generation: u64, tickets: &[Ticket], taken: &mut Vec<Instant>) {
        if generation != self.generation {
            return;
        }
        (self.n_failures, self.n_grave) = (0, 0);
        for ticket in tickets {
            taken.extend(self.settle_one(*ticket));
        }
    }

    fn settle_one(&mut self, ticket: Ticket) -> Option<Instant> {
        self.assigned_of(ticket)?.tracker.settle(ticket.seq)
    }

    /// The transaction is committed. Gives how long that took.
    pub(crate) fn committed(
        &mut self,
        generation: u64,
        now: Instant,
        taken: &mut Vec<Instant>,
    ) -> Option<std::time::Duration> {
        if generation != self.generation {
            return None;
        }
        let Interval::Committing { since, through } = std::mem::replace(&mut self.interval, Interval::Idle)
        else {
            return None;
        };
        (self.n_failures, self.n_grave) = (0, 0);
        self.committed_at = now;
        let mut positions = Vec::with_capacity(through.len());
        for (slot, (epoch, seq, next)) in through {
            // One that was lost meanwhile may have been given back: that is another reading.
            if let Some(assigned) = self.slots.get_mut(&slot).filter(|assigned| assigned.epoch == epoch) {
                assigned.tracker.settle_through(seq, taken);
                assigned.remembered = Some(next);
                positions.push(Position { slot, next });
            }
        }
        self.effects.push(Effect::Committed(positions));
        if self.is_fenced {
            self.fence(now);
        }
        Some(now.saturating_duration_since(since))
    }

    /// Writing has failed: nothing lasts of the transaction, or some output does not, or that is not known. What is under way
    /// is thrown away and comes again.
    pub(crate) fn failed(&mut self, generation: u64, severity: Severity, now: Instant) {
        if generation != self.generation {
            return;
        }
        if severity != Severity::Passing {
            self.n_grave += 1;
        }
        match severity {
            Severity::Fenced => self.fence(now),
            _ if self.is_fenced => self.fence(now),
            Severity::Doubtful => self.doubt(now, now),
            _ => self.roll_back(now),
        }
    }

    /// Begins again from what is committed.
    pub(super) fn roll_back(&mut self, now: Instant) {
        let epoch = self.throw_away(now);
        for assigned in self.slots.values_mut() {
            assigned.epoch = epoch;
            let position = assigned.tracker.position();
            assigned.tracker = Tracker::new(position);
            // Where nothing was taken nothing is to be read again.
            if assigned.is_ours() && position.is_some() {
                assigned.rewind(now);
            }
        }
        self.stop_again();
    }

    /// This process may hold nothing any more. A commit that is on its way may still succeed: nothing is read again before
    /// that is known, since it would be answered twice.
    pub(crate) fn fenced(&mut self, now: Instant) {
        match self.interval {
            Interval::Committing { .. } => self.is_fenced = true,
            _ => self.fence(now),
        }
    }

    /// Positions were refused that were committed outside of a transaction, as those of a process that is not of the group. It
    /// may have been the commit that was late for a rebalance: what is under way is thrown away when the next is refused, too.
    pub(crate) fn refused(&mut self, positions: &[Position], now: Instant) {
        let ours = |position: &Position| self.slots.get(&position.slot).is_some_and(super::Assigned::is_ours);
        self.n_refused += u32::from(positions.iter().any(ours));
        if self.n_refused > 1 {
            self.fenced(now);
        }
    }

    fn fence(&mut self, now: Instant) {
        self.doubt(now, now + FENCE);
    }

    /// Begins again from what the group says then.
    fn doubt(&mut self, now: Instant, at: Instant) {
        let epoch = self.throw_away(now);
        for assigned in self.slots.values_mut() {
            assigned.epoch = epoch;
            assigned.tracker = Tracker::new(assigned.tracker.position());
            // What others shall have is given up as far as it is.
            if !assigned.is_draining() {
                assigned.phase = Phase::Unsure { at };
            }
        }
        self.stop_again();
    }

    fn throw_away(&mut self, now: Instant) -> u64 {
        self.generation += 1;
        self.last_epoch += 1;
        self.outbox.clear();
        self.effects.retain(|effect| !matches!(effect, Effect::Send(_) | Effect::Commit(_)));
        self.interval = Interval::Idle;
        self.is_fenced = false;
        self.n_refused = 0;
        self.queues.iter_mut().for_each(std::collections::VecDeque::clear);
        self.held_until = Some(now + Backoff::of_failure(self.n_failures));
        self.n_failures += 1;
        if self.delivery == Delivery::ExactlyOnce {
            // What others shall have is theirs to read again.
            let draining = self.slots.iter().filter(|(_, one)| one.is_draining());
            let draining = draining.map(|(slot, _)| *slot).collect();
            self.leave(draining);
        }
        self.last_epoch
    }

    /// Gives partitions up.
    pub(super) fn leave(&mut self, slots: Vec<Slot>) {
        slots.iter().for_each(|slot| drop(self.slots.remove(slot)));
        if !slots.is_empty() {
            self.effects.push(Effect::GiveUp(slots));
        }
    }

    fn stop_again(&mut self) {
        if self.stopping.is_some() {
            self.slots.values_mut().for_each(|one| one.tracker.bar_all());
        }
    }

    /// Has the group asked how far partitions are, and the source go back. What could not be done is asked again later.
    pub(super) fn read_on(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        let (mut unsure, mut rewound) = (Vec::new(), Vec::new());
        for (slot, assigned) in &mut self.slots {
            match &mut assigned.phase {
                // What the group says counts once the commit has an outcome.
                Phase::Unsure { .. } if self.interval.is_committing(*slot) => {}
                Phase::Unsure { at } if now >= *at => {
                    *at = now + AGAIN;
                    unsure.push(*slot);
                }
                Phase::Rewinding { at } if now >= *at => {
                    *at = now + AGAIN;
                    rewound.extend(assigned.tracker.position().map(|next| Position { slot: *slot, next }));
                }
                _ => {}
            }
        }
        if !unsure.is_empty() {
            self.effects.push(Effect::Recall(unsure));
        }
        if !rewound.is_empty() {
            self.effects.push(Effect::Rewind(rewound));
        }
    }

    /// Up to where the group has committed these partitions, as far as it has. They are read on from there, or from what this
    /// process knows to last if that is more.
    pub(crate) fn recalled(&mut self, slots: &[Slot], committed: &[Position], now: Instant) {
        let mut moved = Vec::new();
        for slot in slots {
            let Some(assigned) = self.slots.get_mut(slot).filter(|assigned| assigned.is_unsure()) else {
                continue;
            };
            let found = committed.iter().find(|position| position.slot == *slot).map(|found| found.next);
            let known = assigned.tracker.position();
            if let Some(next) = found.filter(|_| found > known) {
                moved.push(Position { slot: *slot, next });
            }
            let position = known.max(found);
            assigned.tracker = Tracker::new(position);
            assigned.remembered = found.or(assigned.remembered);
            match position {
                Some(_) => assigned.rewind(now),
                None => assigned.phase = Phase::Active,
            }
        }
        if !moved.is_empty() {
            self.effects.push(Effect::Moved(moved));
        }
        self.read_on(now);
    }

    /// The source has gone back.
    pub(crate) fn rewound(&mut self, positions: &[Position]) {
        for Position { slot, next } in positions {
            if let Some(assigned) = self.slots.get_mut(slot)
                && assigned.is_rewinding()
                && assigned.tracker.position() == Some(*next)
            {
                assigned.phase = Phase::Active;
            }
        }
    }

    /// Gives up partitions that others shall have once all of them is finished and committed, or their time is over.
    pub(super) fn give_up(&mut self, now: Instant) {
        let (mut positions, mut done) = (Vec::new(), Vec::new());
        let mut any_over = false;
        for (slot, assigned) in &mut self.slots {
            let Phase::Draining { until, again } = &mut assigned.phase else { continue };
            let is_over = now >= *until;
            if is_over {
                any_over = true;
                assigned.tracker.bar_all();
            }
            let has_only_unknown = is_over && self.delivery == Delivery::AtLeastOnce;
            let is_done = assigned.tracker.is_quiet() || has_only_unknown;
            if !is_done || again.is_some_and(|again| now < again) {
                continue;
            }
            done.push(*slot);
            if self.delivery == Delivery::AtLeastOnce {
                *again = Some(now + AGAIN);
                positions.extend(assigned.news().map(|next| Position { slot: *slot, next }));
            }
        }
        if any_over {
            self.drop_queued();
        }
        match self.delivery {
            Delivery::ExactlyOnce => self.leave(done),
            Delivery::AtLeastOnce => {
                if !positions.is_empty() {
                    self.effects.push(Effect::Remember(positions));
                }
                if !done.is_empty() {
                    self.effects.push(Effect::Settle(done));
                }
            }
        }
    }

    /// What was committed of these partitions, which others shall have, lasts.
    pub(crate) fn settled(&mut self, slots: &[Slot], now: Instant) {
        let (mut done, mut left) = (Vec::new(), Vec::new());
        for slot in slots {
            let Some(assigned) = self.slots.get(slot).filter(|assigned| assigned.is_draining()) else {
                continue;
            };
            // What the source did not take at all is still to be committed.
            if assigned.news().is_none() { done.push(*slot) } else { left.push(*slot) }
        }
        self.leave(done);
        self.not_settled(&left, now);
    }

    /// It does not, or not yet: it is tried again until their time is over.
    pub(crate) fn not_settled(&mut self, slots: &[Slot], now: Instant) {
        let mut over = Vec::new();
        for slot in slots {
            if let Some(Phase::Draining { until, again }) = self.slots.get_mut(slot).map(|one| &mut one.phase)
            {
                *again = Some(now + AGAIN);
                if now >= *until {
                    over.push(*slot);
                }
            }
        }
        self.leave(over);
    }

    /// Commits positions outside of transactions, on a timer and when nothing is left to do.
    pub(super) fn remember(&mut self, now: Instant) {
        if self.delivery == Delivery::ExactlyOnce {
            return;
        }
        let is_due = now >= self.committed_at + self.commit_interval;
        let is_over = self.is_last() && self.totals().n_released == 0;
        if !is_due && !is_over {
            return;
        }
        let ours = self.slots.iter().filter(|(_, assigned)| assigned.is_ours());
        let news = ours.filter_map(|(slot, one)| one.news().map(|next| Position { slot: *slot, next }));
        let news: Vec<Position> = news.collect();
        if is_due {
            self.committed_at = now;
        }
        if !news.is_empty() {
            self.effects.push(Effect::Remember(news));
        }
    }

    /// Positions were taken by the source.
    pub(crate) fn remembered(&mut self, positions: &[Position]) {
        self.n_refused = 0;
        for position in positions {
            if let Some(assigned) = self.slots.get_mut(&position.slot) {
                assigned.remembered = Some(position.next);
            }
        }
        self.effects.push(Effect::Committed(positions.to_vec()));
    }

    /// When something will be due.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let mut wake = self.held_until.filter(|until| *until > now && !self.outbox.is_empty());
        if let Interval::Open { since, .. } = &self.interval {
            wake = earliest(wake, *since + self.commit_interval);
        }
        if self.delivery == Delivery::AtLeastOnce && self.slots.values().any(|one| one.news().is_some()) {
            wake = earliest(wake, self.committed_at + self.commit_interval);
        }
        // What is past and still waited for is told by others.
        let times = self.slots.values().flat_map(|assigned| match assigned.phase {
            Phase::Draining { until, again } => [Some(until), again],
            Phase::Unsure { at } | Phase::Rewinding { at } => [Some(at), None],
            Phase::Active => [None, None],
        });
        times.flatten().chain(self.stopping).filter(|until| *until > now).fold(wake, earliest)
    }
}

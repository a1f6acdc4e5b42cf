//! Records from being taken in to having their outputs, and the workers in between.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::Instant;

use salver_records::Slot;

use super::forming::{self, Form};
use super::tracker::{Chain, Ready};
use super::{Assigned, Core, Next, Part, Queued, Sending, Taken, Ticket, earliest};
use crate::{Delivery, NullKeys, Order};

impl<T, P> Core<T, P> {
    // Records

    /// Takes a record in, or leaves it out, since its partition is not held or comes again from an earlier offset.
    pub(crate) fn take(
        &mut self,
        slot: Slot,
        offset: i64,
        key: Option<&[u8]>,
        n_bytes: usize,
        timestamp_ms: Option<i64>,
        now: Instant,
    ) -> Taken {
        let chain = self.chain(key);
        let Some(assigned) = self.slots.get_mut(&slot).filter(|_| self.stopping.is_none()) else {
            return Taken::LeftOut;
        };
        if !assigned.is_active() {
            if !assigned.is_draining() {
                assigned.tracker.left_out(offset);
            }
            return Taken::LeftOut;
        }
        let seq = match assigned.tracker.take(offset, chain, n_bytes, now, timestamp_ms) {
            Ok(seq) => seq,
            Err(expected) => return Taken::WentBack { expected },
        };
        if assigned.remembered.is_none() {
            assigned.remembered = assigned.tracker.position();
        }
        Taken::In(Ticket { slot, epoch: assigned.epoch, seq })
    }

    fn chain(&self, key: Option<&[u8]>) -> Chain {
        match (self.delivery, self.order, key, self.null_keys) {
            (Delivery::ExactlyOnce, ..) | (_, Order::Partition, ..) => Chain::Whole,
            (_, Order::None, ..) | (_, Order::Key, None, NullKeys::Free) => Chain::Free,
            (_, Order::Key, Some(key), _) => Chain::Key(self.keys.hash_one(key)),
            (_, Order::Key, None, NullKeys::Partition) => Chain::Key(0),
        }
    }

    /// Lets a record that was taken in wait for a worker.
    pub(crate) fn enqueue(&mut self, part: Part, queued: Queued<T>) {
        self.queues[part.index()].push_back(queued);
    }

    pub(super) fn assigned_of(&mut self, ticket: Ticket) -> Option<&mut Assigned<P>> {
        self.slots.get_mut(&ticket.slot).filter(|assigned| assigned.epoch == ticket.epoch)
    }

    /// What comes of a record, which takes so many bytes more; `n_outputs` of it are to be written.
    pub(crate) fn finish(&mut self, ticket: Ticket, n_outputs: u32, n_bytes: usize, payload: P) {
        let mut ready = std::mem::take(&mut self.ready);
        if let Some(assigned) = self.assigned_of(ticket) {
            assigned.tracker.finish(ticket.seq, n_outputs, n_bytes, payload, &mut ready);
        }
        for one in ready.drain(..) {
            let Ready { seq, offset, taken, n_outputs, n_bytes, payload } = one;
            let ticket = Ticket { seq, ..ticket };
            self.outbox.push_back((Sending { ticket, taken, n_outputs, payload }, offset, n_bytes));
        }
        self.ready = ready;
    }

    /// The record ends the pipeline: it is never done, and nothing behind it is committed.
    pub(crate) fn bar(&mut self, ticket: Ticket) {
        if let Some(assigned) = self.assigned_of(ticket) {
            assigned.tracker.bar(ticket.seq);
        }
    }

    /// Records of one batch, in their order, that could not be tried for troubles that pass.
    pub(crate) fn again(&mut self, part: Part, batch: Vec<Queued<T>>, now: Instant) {
        self.backoffs[part.index()].failed(now, batch.len());
        let is_stopping = self.stopping.is_some();
        for mut queued in batch.into_iter().rev() {
            let (ticket, seq) = (queued.ticket, queued.ticket.seq);
            let Some(assigned) = self.assigned_of(ticket) else { continue };
            if is_stopping || !assigned.is_active() {
                assigned.tracker.bar(seq);
            } else if assigned.tracker.again(seq) {
                queued.n_attempts += 1;
                self.queues[part.index()].push_front(queued);
            }
        }
    }

    /// So many records of a part were answered.
    pub(crate) fn succeeded(&mut self, part: Part, n: usize) {
        self.backoffs[part.index()].succeeded(n);
    }

    /// Nothing of this part starts before then.
    pub(crate) fn hold(&mut self, part: Part, until: Instant) {
        self.backoffs[part.index()].hold(until);
    }

    /// Forgets what waits and is not to be done here any more.
    pub(super) fn drop_queued(&mut self) {
        for queue in &mut self.queues {
            queue.retain(|queued| {
                let Ticket { slot, epoch, seq } = queued.ticket;
                let assigned = self.slots.get(&slot).filter(|assigned| assigned.epoch == epoch);
                assigned.is_some_and(|assigned| assigned.tracker.is_waiting(seq))
            });
        }
    }

    // Workers

    /// What a worker should do now.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        let allowed = self.rate.as_mut().map_or(usize::MAX, |rate| rate.available(now));
        let mut wake: Option<Instant> = None;
        let mut heads =
            Part::ALL.map(|part| (self.queues[part.index()].front().map(|head| head.taken), part));
        heads.sort_by_key(|(taken, _)| *taken);
        for (taken, part) in heads {
            let Some(oldest) = taken else { continue };
            if let Some(until) = self.backoffs[part.index()].until(now) {
                wake = earliest(wake, until);
                continue;
            }
            let n_waiting = self.queues[part.index()].len().min(allowed);
            if n_waiting == 0 {
                wake = self.rate.map_or(wake, |rate| earliest(wake, rate.next()));
                continue;
            }
            match forming::form(now, &self.rules, n_waiting, oldest, &self.loads) {
                Form::Start { worker, n } => return Next::Start { worker, part, n },
                Form::Until(until) => wake = earliest(wake, until),
                Form::Busy => {}
            }
        }
        Next::Wait(wake)
    }

    /// Takes up to so many records out of the queue for a worker. May give none, and the worker nothing to do then.
    pub(crate) fn start(&mut self, worker: usize, part: Part, n: usize) -> Vec<Queued<T>> {
        let queue = &mut self.queues[part.index()];
        let mut batch: Vec<Queued<T>> = queue.drain(..n.min(queue.len())).collect();
        batch.retain(|queued| {
            let assigned = self.slots.get_mut(&queued.ticket.slot);
            assigned
                .filter(|assigned| assigned.epoch == queued.ticket.epoch)
                .is_some_and(|assigned| assigned.tracker.start(queued.ticket.seq).is_some())
        });
        if let Some(rate) = &mut self.rate {
            rate.take(batch.len());
        }
        if !batch.is_empty() {
            self.loads[worker] += 1;
        }
        batch
    }

    /// A worker is done with one of its batches.
    pub(crate) fn freed(&mut self, worker: usize) {
        self.loads[worker] = self.loads[worker].saturating_sub(1);
    }

    pub(crate) fn n_batches(&self) -> usize {
        self.loads.iter().sum()
    }

    pub(crate) fn n_waiting(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }
}

//! The core against a simulated broker: random delays, orders, failures, rebalances and crashes, from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use salver_records::{Position, Severity, Slot};

use super::{Core, Effect, Intake, Next, Part, Queued, Sending, Taken, Ticket};
use crate::{Config, Delivery, Ending, NullKeys, Order, Retry};

const N_PARTITIONS: usize = 3;
const N_WORKERS: usize = 2;
const RECORD_BYTES: usize = 100;
const MAX_BYTES: usize = 3000;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A record of the log: its offset, its key, and whether a filter leaves it out.
#[derive(Debug, Clone, Copy)]
struct Logged {
    offset: i64,
    key: Option<u8>,
    is_filtered: bool,
}

/// An output that lasts or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    slot: Slot,
    offset: i64,
    key: Option<u8>,
    /// Which reading of the partition it is of.
    life: u64,
}

/// A partition at the broker, and what the group knows of it.
#[derive(Debug, Clone)]
struct Shard {
    log: Vec<Logged>,
    committed: i64,
    /// The next offset to be read, while it is assigned.
    at: Option<i64>,
    is_paused: bool,
    is_revoking: bool,
    life: u64,
    /// Positions that were sent and are not kept yet.
    unsettled: Option<i64>,
    /// Others have it, which this process was not told.
    is_stolen: bool,
    /// Since it was stolen a commit was refused.
    is_known: bool,
    /// Where the group said that it begins, as it was lost.
    asked: Option<i64>,
    /// Which holding of the partition it is, as the group counts: one that a member loses and is given again under its name
    /// may be the same.
    tenure: u64,
}

impl Shard {
    fn end(&self) -> i64 {
        self.log.last().map_or(0, |last| last.offset + 1)
    }

    /// It is not with this process any more, as it knows.
    fn leave(&mut self) {
        (self.at, self.is_revoking, self.unsettled, self.is_stolen) = (None, false, None, false);
    }

    /// For the group it is another holding from now on: nothing that was sent or told before counts.
    fn change_hands(&mut self) {
        self.tenure += 1;
        self.asked = None;
    }
}

#[derive(Debug)]
enum Instruction {
    Send(u64, Vec<Sending<Written>>),
    /// With the holding of each partition and the membership that the group knew then.
    Commit(u64, Vec<(Position, u64)>, u64),
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faults {
    All,
    /// Partitions come and go in good order, and commits are tried again.
    Moves,
    None,
}

struct World {
    random: Random,
    config: Config,
    now: Instant,
    core: Core<Written, Written>,
    shards: Vec<Shard>,
    jobs: Vec<(usize, Part, Vec<Queued<Written>>)>,
    orders: VecDeque<Instruction>,
    /// The generation of the sink that has failed.
    dead: Option<u64>,
    generation: u64,
    transaction: Vec<Written>,
    /// Commits that the core has not heard of.
    reports: VecDeque<u64>,
    /// What lasts, in the order in which it was written.
    outputs: Vec<Written>,
    /// With how many outputs of the record are not acknowledged.
    unacked: Vec<(u64, Ticket, Written, u32)>,
    /// Offsets whose outputs last, per partition.
    durable: Vec<BTreeSet<i64>>,
    n_lives: u64,
    /// Changes when the process was out of its group.
    membership: u64,
    /// As it was when the group was asked how far it is, until a commit has succeeded.
    asked_as: Option<u64>,
    was_refused: bool,
    faults: Faults,
}

#[expect(clippy::disallowed_methods, reason = "any moment will do to start from")]
fn start() -> Instant {
    Instant::now()
}

impl World {
    fn new(seed: u64, config: Config) -> World {
        let mut random = Random(seed);
        let shard = |random: &mut Random| {
            let mut offset = 0;
            let n_records = random.below(120);
            let log = (0..n_records).map(|_| {
                offset += if random.chance(20) { 1 + random.below(5) as i64 } else { 1 };
                let key = (!random.chance(15)).then(|| random.below(4) as u8);
                Logged { offset, key, is_filtered: random.chance(10) }
            });
            let log = log.collect();
            Shard {
                log,
                committed: 0,
                at: None,
                is_paused: true,
                is_revoking: false,
                life: 0,
                unsettled: None,
                is_stolen: false,
                is_known: false,
                asked: None,
                tenure: 0,
            }
        };
        let shards: Vec<Shard> = (0..N_PARTITIONS).map(|_| shard(&mut random)).collect();
        let now = start();
        World {
            random,
            now,
            core: Core::new(&config, N_WORKERS, now),
            config,
            jobs: Vec::new(),
            orders: VecDeque::new(),
            dead: None,
            generation: 0,
            transaction: Vec::new(),
            reports: VecDeque::new(),
            outputs: Vec::new(),
            unacked: Vec::new(),
            durable: vec![BTreeSet::new(); shards.len()],
            shards,
            n_lives: 0,
            membership: 0,
            asked_as: None,
            was_refused: false,
            faults: Faults::All,
        }
    }

    fn slot(index: usize) -> Slot {
        Slot(u32::try_from(index).unwrap())
    }

    fn shard(&mut self, slot: Slot) -> &mut Shard {
        &mut self.shards[slot.0 as usize]
    }

    fn is_exact(&self) -> bool {
        self.config.delivery == Delivery::ExactlyOnce
    }

    fn fails(&mut self, percent: usize) -> bool {
        self.faults == Faults::All && self.random.chance(percent)
    }

    // The group

    fn assign(&mut self, index: usize) {
        self.n_lives += 1;
        let knows = self.random.chance(70);
        let shard = &mut self.shards[index];
        shard.leave();
        // Records before the position that was told are not there: a process without one begins with the first that it reads.
        let next = shard.asked.take().filter(|_| knows).unwrap_or(shard.committed);
        shard.at = Some(next);
        (shard.is_paused, shard.life) = (true, self.n_lives);
        let now = self.now;
        self.core.assigned(World::slot(index), knows.then_some(next), now);
    }

    fn rebalance(&mut self) {
        let index = self.random.below(self.shards.len());
        let slot = World::slot(index);
        let shard = &mut self.shards[index];
        match (shard.at, shard.is_revoking, self.random.below(5)) {
            (None, ..) => self.assign(index),
            (Some(_), _, 0) if self.faults == Faults::All => {
                self.membership += u64::from(shard.is_stolen);
                shard.leave();
                // It is given back to the same member, who may have been told where it begins by now, or anew.
                if self.random.chance(50) {
                    shard.asked = self.random.chance(50).then_some(shard.committed);
                } else {
                    shard.change_hands();
                }
                let now = self.now;
                self.core.lost(&[slot], now);
            }
            (Some(_), false, 1) if !shard.is_stolen => {
                shard.is_revoking = true;
                let now = self.now;
                self.core.revoking(&[slot], now);
            }
            (Some(_), false, 2) if self.faults == Faults::All => self.steal(index),
            (Some(_), _, 3) => self.give_back(index),
            _ => {}
        }
    }

    /// Others have a partition, do some of it, and this process is not told.
    fn steal(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        if !shard.is_stolen {
            (shard.is_stolen, shard.is_known) = (true, false);
            shard.change_hands();
            self.membership += 1;
        }
        let n = self.random.below(4);
        self.n_lives += 1;
        let life = self.n_lives;
        let shard = &mut self.shards[index];
        let undone = shard.log.iter().filter(|logged| logged.offset >= shard.committed).take(n);
        for Logged { offset, key, is_filtered } in undone.copied().collect::<Vec<_>>() {
            self.shards[index].committed = offset + 1;
            if !is_filtered {
                self.outputs.push(Written { slot: World::slot(index), offset, key, life });
                self.durable[index].insert(offset);
            }
        }
    }

    /// This process has it again as if nothing had been, once it knows that something was.
    fn give_back(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        if shard.is_stolen && shard.is_known {
            shard.is_stolen = false;
            self.membership += 1;
        }
    }

    /// Whether the group takes this process for a member.
    fn is_member(&mut self) -> bool {
        self.shards.iter_mut().for_each(|shard| shard.is_known = shard.is_stolen);
        !self.shards.iter().any(|shard| shard.is_stolen)
    }

    /// Everything in memory is lost; a new process begins. What was written one by one and not acknowledged may last.
    fn crash(&mut self) {
        self.core = Core::new(&self.config, N_WORKERS, self.now);
        self.jobs.clear();
        self.orders.clear();
        self.transaction.clear();
        self.reports.clear();
        self.unacked.clear();
        (self.dead, self.generation) = (None, 0);
        (self.asked_as, self.membership) = (None, self.membership + 1);
        for shard in &mut self.shards {
            shard.leave();
            shard.change_hands();
        }
        for index in 0..self.shards.len() {
            self.assign(index);
        }
    }

    /// Positions that were sent are kept.
    fn keep(&mut self) {
        for shard in &mut self.shards {
            shard.committed = shard.committed.max(shard.unsettled.take().unwrap_or(0));
        }
    }

    /// The process ends in good order, and another one begins.
    fn restart(&mut self) {
        self.core.stop(self.now, Duration::from_secs(3600));
        for _ in 0..100_000 {
            if self.core.ending(self.now).is_some() {
                break;
            }
            self.go_on();
        }
        assert_eq!(self.core.ending(self.now), Some(Ending::Stopped));
        self.keep();
        self.crash();
    }

    // The source

    fn poll(&mut self) {
        if !matches!(self.core.intake(self.now), Intake::Open(_) | Intake::Paused) {
            return;
        }
        let mut n_left = 1 + self.random.below(8);
        for index in 0..self.shards.len() {
            let shard = &mut self.shards[index];
            let Some(at) = shard.at.filter(|_| !shard.is_revoking && !shard.is_paused) else { continue };
            let (slot, life) = (World::slot(index), shard.life);
            let unread: Vec<Logged> =
                shard.log.iter().filter(|logged| logged.offset >= at).take(n_left).copied().collect();
            n_left -= unread.len();
            if let Some(last) = unread.last() {
                shard.at = Some(last.offset + 1);
            }
            let is_end = shard.log.iter().all(|logged| logged.offset < shard.at.unwrap());
            for Logged { offset, key, is_filtered } in unread {
                let now = self.now;
                let bytes = key.map(|key| [key]);
                let key_bytes = bytes.as_ref().map(|key| key.as_slice());
                let ticket = match self.core.take(slot, offset, key_bytes, RECORD_BYTES, None, now) {
                    Taken::In(ticket) => ticket,
                    Taken::LeftOut => continue,
                    Taken::WentBack { expected } => panic!("{slot:?} goes back from {expected} to {offset}"),
                };
                let work = Written { slot, offset, key, life };
                if is_filtered && self.random.chance(50) {
                    // As a window that is not whole yet: done before any worker has it.
                    self.core.finish(ticket, 0, 0, work);
                    continue;
                }
                let part = if key == Some(3) { Part::Canary } else { Part::Primary };
                self.core.enqueue(part, Queued { ticket, offset, taken: now, n_attempts: 0, work });
            }
            if is_end {
                self.core.ended(slot);
            }
        }
        let n_bytes = self.core.totals().n_bytes;
        assert!(n_bytes <= MAX_BYTES + 8 * RECORD_BYTES + 2 * MAX_BYTES, "{n_bytes}");
    }

    // Workers

    fn dispatch(&mut self) {
        while let Next::Start { worker, part, n } = self.core.next(self.now) {
            let batch = self.core.start(worker, part, n);
            assert!(batch.len() <= n);
            if !batch.is_empty() {
                self.jobs.push((worker, part, batch));
            }
        }
    }

    fn work(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let index = self.random.below(self.jobs.len());
        let (worker, part, batch) = self.jobs.swap_remove(index);
        self.core.freed(worker);
        if self.fails(5) {
            self.core.again(part, batch, self.now);
            return;
        }
        self.core.succeeded(part, batch.len());
        let mut batch: VecDeque<Queued<Written>> = batch.into();
        while !batch.is_empty() {
            let index = self.random.below(batch.len());
            let Some(Queued { ticket, work, .. }) = batch.remove(index) else { break };
            let is_filtered = self
                .shard(work.slot)
                .log
                .iter()
                .any(|logged| logged.offset == work.offset && logged.is_filtered);
            // Some answers come with a change of state.
            let n_outputs = if is_filtered { 0 } else { 1 + u32::from(work.offset % 3 == 0) };
            self.core.finish(ticket, n_outputs, RECORD_BYTES / 2, work);
        }
    }

    // The sink

    fn write(&mut self) {
        let Some(order) = self.orders.pop_front() else { return };
        let generation = match &order {
            Instruction::Send(generation, _) | Instruction::Commit(generation, ..) => *generation,
        };
        if generation < self.generation || self.dead == Some(generation) {
            return;
        }
        let fails = self.fails(6);
        let severity = if self.random.chance(50) { Severity::Fenced } else { Severity::Transaction };
        match order {
            _ if fails => self.fail(generation, severity),
            Instruction::Send(_, sendings) if self.is_exact() => {
                self.transaction
                    .extend(sendings.into_iter().filter(|one| one.n_outputs > 0).map(|one| one.payload));
            }
            Instruction::Send(_, sendings) => {
                for sending in sendings.into_iter().filter(|one| one.n_outputs > 0) {
                    self.outputs.push(sending.payload);
                    self.unacked.push((generation, sending.ticket, sending.payload, sending.n_outputs));
                }
            }
            Instruction::Commit(_, positions, membership) => {
                // The group is asked: positions of partitions that this process does not hold are refused.
                let is_member = self.is_member() && membership == self.membership;
                let mut is_held =
                    |(position, tenure): &(Position, u64)| self.shard(position.slot).tenure == *tenure;
                if !is_member || !positions.iter().all(&mut is_held) {
                    return self.fail(generation, Severity::Doubtful);
                }
                let is_unknown = self.fails(5);
                if is_unknown && self.random.chance(50) {
                    return self.fail(generation, Severity::Doubtful);
                }
                for (Position { slot, next }, _) in positions {
                    let shard = self.shard(slot);
                    assert!(next > shard.committed, "{slot:?} from {} to {next}", shard.committed);
                    shard.committed = next;
                }
                self.outputs.append(&mut self.transaction);
                if is_unknown {
                    return self.fail(generation, Severity::Doubtful);
                }
                self.reports.push_back(generation);
            }
        }
    }

    fn report(&mut self) {
        if let Some(generation) = self.reports.pop_front()
            && self.core.committed(generation, self.now, &mut Vec::new()).is_some()
        {
            self.asked_as = None;
        }
    }

    fn fail(&mut self, generation: u64, severity: Severity) {
        self.dead = Some(generation);
        self.transaction.clear();
        self.core.failed(generation, severity, self.now);
    }

    fn acknowledge(&mut self) {
        if self.unacked.is_empty() {
            return;
        }
        let index = self.random.below(self.unacked.len());
        let (generation, ticket, written, n_left) = &mut self.unacked[index];
        let (generation, ticket, written) = (*generation, *ticket, *written);
        *n_left -= 1;
        if *n_left == 0 {
            self.unacked.swap_remove(index);
            self.durable[written.slot.0 as usize].insert(written.offset);
        }
        self.core.acked(generation, &[ticket], &mut Vec::new());
    }

    // What the core says

    fn act(&mut self) {
        loop {
            let effects = self.core.effects();
            if self.core.generation() != self.generation {
                self.generation = self.core.generation();
                self.transaction.clear();
                self.orders.clear();
            }
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.do_one(effect);
            }
        }
    }

    fn do_one(&mut self, effect: Effect<Written>) {
        let generation = self.generation;
        match effect {
            Effect::Pause(slots) => slots.iter().for_each(|slot| self.shard(*slot).is_paused = true),
            Effect::Resume(slots) => slots.iter().for_each(|slot| self.shard(*slot).is_paused = false),
            Effect::Send(sendings) => self.orders.push_back(Instruction::Send(generation, sendings)),
            Effect::Commit(positions) => {
                let known =
                    positions.into_iter().map(|position| (position, self.shard(position.slot).tenure));
                let known = known.collect();
                let membership = self.asked_as.unwrap_or(self.membership);
                self.orders.push_back(Instruction::Commit(generation, known, membership));
            }
            Effect::Remember(positions) => self.remember(&positions),
            Effect::Committed(_) => {}
            Effect::Recall(slots) => {
                if !self.fails(20) {
                    self.asked_as = Some(self.membership);
                    let committed = |slot: &Slot| (*slot, self.shards[slot.0 as usize].committed);
                    let found = slots.iter().map(committed).filter(|(_, next)| *next > 0);
                    let found: Vec<Position> = found.map(|(slot, next)| Position { slot, next }).collect();
                    self.core.recalled(&slots, &found, self.now);
                }
            }
            Effect::Moved(_) => {}
            Effect::Rewind(positions) => {
                if self.fails(20) {
                    return;
                }
                for Position { slot, next } in &positions {
                    self.n_lives += 1;
                    let life = self.n_lives;
                    let shard = self.shard(*slot);
                    assert!(shard.at.is_some(), "{slot:?} is not held");
                    (shard.at, shard.life) = (Some(*next), life);
                }
                self.core.rewound(&positions);
            }
            Effect::Settle(slots) => {
                assert!(!self.is_exact());
                let fails = self.faults != Faults::None && self.random.chance(30);
                if fails || !self.is_member() {
                    return self.core.not_settled(&slots, self.now);
                }
                self.keep();
                self.core.settled(&slots, self.now);
            }
            Effect::GiveUp(slots) => {
                for slot in slots {
                    let must_last = self.faults == Faults::Moves;
                    let shard = self.shard(slot);
                    assert!(shard.is_revoking, "{slot:?} was not asked back");
                    assert!(!must_last || shard.unsettled.is_none(), "{slot:?} may not be committed");
                    shard.leave();
                    shard.change_hands();
                }
            }
        }
    }

    fn remember(&mut self, positions: &[Position]) {
        assert!(!self.is_exact());
        for Position { slot, next } in positions {
            let index = slot.0 as usize;
            let behind =
                self.shards[index].log.iter().filter(|logged| logged.offset < *next && !logged.is_filtered);
            for logged in behind {
                assert!(
                    self.durable[index].contains(&logged.offset),
                    "{slot:?} {} is not written",
                    logged.offset
                );
            }
        }
        if !self.is_member() {
            return self.core.refused(positions, self.now);
        }
        if self.faults != Faults::None && self.random.chance(20) {
            // One that is late for a rebalance is refused; the next is not.
            if !self.was_refused && self.random.chance(50) {
                self.was_refused = true;
                self.core.refused(positions, self.now);
            }
            return;
        }
        self.was_refused = false;
        for Position { slot, next } in positions {
            self.shard(*slot).unsettled = Some(*next);
        }
        if self.random.chance(70) {
            self.keep();
        }
        self.core.remembered(positions);
    }

    // Time

    fn step(&mut self) {
        match self.random.below(1000) {
            0..40 if self.faults != Faults::None => self.rebalance(),
            40..44 if self.faults == Faults::Moves => self.restart(),
            40..42 if self.faults == Faults::All => self.crash(),
            // As when a source does not take what it is told.
            42..46 if self.faults == Faults::All => self.core.fenced(self.now),
            _ => {}
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        match self.random.below(90) {
            0..20 => self.poll(),
            20..40 => self.dispatch(),
            40..60 => self.work(),
            60..75 => self.write(),
            75..85 if self.is_exact() => self.report(),
            75..85 => self.acknowledge(),
            _ => self.now += Duration::from_millis(self.random.below(40) as u64),
        }
        self.core.tick(self.now);
        self.act();
    }

    /// Runs with faults, then without, until all is done.
    fn run(&mut self, n_faulty: usize) {
        for index in 0..self.shards.len() {
            self.assign(index);
        }
        for _ in 0..n_faulty {
            self.step();
        }
        self.faults = Faults::None;
        for _ in 0..200_000 {
            self.step();
            // What others had and gave back, so that in the end all is here.
            for index in 0..self.shards.len() {
                self.give_back(index);
                if self.shards[index].at.is_none() {
                    self.assign(index);
                }
            }
            if self.core.ending(self.now).is_some() {
                return self.keep();
            }
        }
        panic!("no end: {:?} {:?}", self.core.totals(), self.core.seen().collect::<Vec<_>>());
    }

    fn check(&self, is_once: bool) {
        let mut lasts: BTreeMap<(Slot, Option<u8>, u64), i64> = BTreeMap::new();
        let mut seen: BTreeMap<(Slot, i64), usize> = BTreeMap::new();
        for written in &self.outputs {
            *seen.entry((written.slot, written.offset)).or_default() += 1;
            let key =
                if self.is_exact() || self.config.order == Order::Partition { None } else { written.key };
            let is_free = !self.is_exact()
                && (self.config.order == Order::None
                    || (self.config.order == Order::Key
                        && key.is_none()
                        && self.config.null_keys == NullKeys::Free));
            let last = lasts.insert((written.slot, key, written.life), written.offset);
            assert!(is_free || last.is_none_or(|last| last < written.offset), "{written:?} after {last:?}");
        }
        for (index, shard) in self.shards.iter().enumerate() {
            let slot = World::slot(index);
            for logged in &shard.log {
                let n = seen.get(&(slot, logged.offset)).copied().unwrap_or(0);
                let expected = if logged.is_filtered {
                    0..=0
                } else if is_once {
                    1..=1
                } else {
                    1..=99
                };
                assert!(expected.contains(&n), "{slot:?} {logged:?}: {n} times");
            }
            assert_eq!(shard.committed, shard.end(), "{slot:?}");
        }
        if self.is_exact() {
            for (index, shard) in self.shards.iter().enumerate() {
                let slot = World::slot(index);
                let offsets: Vec<i64> = self
                    .outputs
                    .iter()
                    .filter(|written| written.slot == slot)
                    .map(|written| written.offset)
                    .collect();
                assert!(offsets.is_sorted(), "{slot:?}: {offsets:?} of {} records", shard.log.len());
            }
        }
    }
}

fn config(delivery: Delivery, order: Order, null_keys: NullKeys) -> Config {
    let n = |n| NonZeroUsize::new(n).unwrap();
    Config {
        delivery,
        order,
        null_keys,
        commit_interval: Some(Duration::from_millis(100)),
        max_transaction_bytes: 1000,
        max_batch: n(4),
        max_bytes: MAX_BYTES,
        max_records: n(25),
        max_partition_records: n(15),
        drain: Duration::from_millis(300),
        max_failures: u32::MAX,
        retry: Retry { max_backoff: Duration::from_millis(100), ..Retry::default() },
        ..Config::default()
    }
}

fn check(seeds: std::ops::Range<u64>, n_faulty: usize, faults: Faults, config: &Config) {
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, config.clone());
            world.faults = faults;
            world.run(n_faulty);
            world.check(faults == Faults::Moves || config.delivery == Delivery::ExactlyOnce);
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn exactly_once_each_record_once_and_in_order() {
    let config = config(Delivery::ExactlyOnce, Order::Key, NullKeys::Free);
    check(0..150, 3000, Faults::All, &config);
    check(0..50, 0, Faults::None, &config);
}

#[test]
fn at_least_once_none_lost_and_keys_in_order() {
    for (order, null_keys) in [
        (Order::Key, NullKeys::Free),
        (Order::Key, NullKeys::Partition),
        (Order::Partition, NullKeys::Free),
        (Order::None, NullKeys::Free),
    ] {
        let config = config(Delivery::AtLeastOnce, order, null_keys);
        check(1000..1060, 3000, Faults::All, &config);
        check(1000..1020, 0, Faults::None, &config);
    }
}

#[test]
fn nothing_is_written_twice_while_scorers_merely_come_and_go() {
    for (delivery, order) in [
        (Delivery::AtLeastOnce, Order::Key),
        (Delivery::AtLeastOnce, Order::Partition),
        (Delivery::AtLeastOnce, Order::None),
        (Delivery::ExactlyOnce, Order::Key),
    ] {
        let drain = Duration::from_secs(3600);
        let config = Config { drain, ..config(delivery, order, NullKeys::Free) };
        check(2000..2060, 3000, Faults::Moves, &config);
    }
}

fn taken(taken: Taken) -> Ticket {
    let Taken::In(ticket) = taken else { panic!("{taken:?}") };
    ticket
}

/// A core with one partition of `n` records that wait.
fn waiting(config: &Config, n: i64, now: Instant) -> (Core<i64, i64>, Vec<Ticket>) {
    let mut core = Core::new(config, N_WORKERS, now);
    core.assigned(Slot(0), Some(0), now);
    let take = |offset| {
        let ticket = taken(core.take(Slot(0), offset, Some(&[1]), RECORD_BYTES, None, now));
        core.enqueue(Part::Primary, Queued { ticket, offset, taken: now, n_attempts: 0, work: offset });
        ticket
    };
    let tickets = (0..n).map(take).collect();
    (core, tickets)
}

fn start_all(core: &mut Core<i64, i64>, now: Instant) -> Vec<Queued<i64>> {
    let mut started = Vec::new();
    while let Next::Start { worker, part, n } = core.next(now) {
        started.extend(core.start(worker, part, n));
    }
    started
}

#[test]
fn what_is_revoked_waits_for_what_workers_have_and_no_longer() {
    let now = start();
    let config = config(Delivery::AtLeastOnce, Order::Key, NullKeys::Free);
    let (mut core, tickets) = waiting(&config, 20, now);
    let started = start_all(&mut core, now);
    assert!(started.len() < 20, "{}", started.len());
    core.revoking(&[Slot(0)], now);
    core.tick(now);
    assert!(core.effects().iter().all(|effect| !matches!(effect, Effect::GiveUp(_))));
    assert_eq!(core.n_waiting(), 0, "what no worker has is left to others");
    // One is answered and lasts, the others do not come back.
    core.finish(started[0].ticket, 1, 0, 0);
    core.tick(now);
    core.acked(0, &tickets[..1], &mut Vec::new());
    core.effects();
    let later = now + config.drain;
    core.tick(later);
    let effects = core.effects();
    let [Effect::Remember(positions), Effect::Settle(slots)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (positions.as_slice(), slots.as_slice()),
        (&[Position { slot: Slot(0), next: 1 }][..], &[Slot(0)][..])
    );
    // Its time is over, so this was tried once.
    core.not_settled(&[Slot(0)], later);
    assert!(matches!(core.effects().as_slice(), [Effect::GiveUp(slots)] if slots == &[Slot(0)]));
}

#[test]
fn a_record_at_fault_keeps_its_place() {
    for delivery in [Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
        let now = start();
        let config = config(delivery, Order::Key, NullKeys::Free);
        let (mut core, tickets) = waiting(&config, 4, now);
        let started = start_all(&mut core, now);
        assert_eq!(started.len(), 4);
        for (index, ticket) in tickets.iter().enumerate().filter(|(index, _)| *index != 2) {
            core.finish(*ticket, 1, 0, i64::try_from(index).unwrap());
        }
        core.bar(tickets[2]);
        core.stop(now, config.drain);
        core.tick(now);
        let mut sent = Vec::new();
        let mut positions = Vec::new();
        for _ in 0..3 {
            for effect in core.effects() {
                match effect {
                    Effect::Send(sendings) => sent.extend(sendings.iter().map(|one| one.payload)),
                    Effect::Remember(news) => {
                        core.remembered(&news);
                        positions = news;
                    }
                    Effect::Commit(news) => {
                        core.committed(0, now, &mut Vec::new());
                        positions = news;
                    }
                    _ => {}
                }
            }
            if delivery == Delivery::AtLeastOnce {
                core.acked(0, &tickets[..2], &mut Vec::new());
            }
            core.tick(now);
        }
        assert_eq!(sent, [0, 1], "the one behind it has the same key, or stands behind it");
        assert_eq!(positions, [Position { slot: Slot(0), next: 2 }]);
        assert_eq!(core.ending(now), Some(Ending::Stopped));
    }
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let now = start();
    let config = config(Delivery::ExactlyOnce, Order::Key, NullKeys::Free);
    let (mut core, _) = waiting(&config, 4, now);
    start_all(&mut core, now);
    core.stop(now, Duration::from_secs(5));
    core.tick(now);
    assert_eq!(core.ending(now), None);
    assert_eq!(core.ending(now + Duration::from_secs(5)), Some(Ending::Cut));
}

#[test]
fn intake_holds_then_pauses_and_goes_on_with_room() {
    let now = start();
    let config = config(Delivery::AtLeastOnce, Order::None, NullKeys::Free);
    let (mut core, tickets) = waiting(&config, 1, now);
    core.tick(now);
    assert!(matches!(core.effects().as_slice(), [Effect::Resume(_)]));
    assert!(matches!(core.intake(now), Intake::Open(_)));
    core.finish(tickets[0], 1, MAX_BYTES, 0);
    core.tick(now);
    assert_eq!(core.intake(now), Intake::Held);
    let later = now + super::HOLD;
    core.tick(later);
    assert!(
        core.effects().iter().any(|effect| matches!(effect, Effect::Pause(slots) if slots == &[Slot(0)]))
    );
    assert_eq!(core.intake(later), Intake::Paused);
    core.acked(0, &tickets, &mut Vec::new());
    core.tick(later);
    assert!(
        core.effects().iter().any(|effect| matches!(effect, Effect::Resume(slots) if slots == &[Slot(0)]))
    );
    assert!(matches!(core.intake(later), Intake::Open(_)));
}

/// What is done so far of one partition of four records, with delivery exactly once.
fn all_done(now: Instant) -> (Core<i64, i64>, Config) {
    let config = config(Delivery::ExactlyOnce, Order::Key, NullKeys::Free);
    let (mut core, tickets) = waiting(&config, 4, now);
    start_all(&mut core, now);
    for (ticket, payload) in tickets.into_iter().zip(0..) {
        core.finish(ticket, 1, 0, payload);
    }
    core.ended(Slot(0));
    (core, config)
}

#[test]
fn an_end_is_forgotten_with_what_is_thrown_away() {
    let check = |throw_away: fn(&mut Core<i64, i64>, Instant), ends_meanwhile| {
        let now = start();
        let (mut core, _) = all_done(now);
        throw_away(&mut core, now);
        if ends_meanwhile {
            core.ended(Slot(0));
        }
        let later = now + super::FENCE;
        core.tick(later);
        let mut rewound = false;
        for _ in 0..2 {
            for effect in core.effects() {
                match effect {
                    Effect::Recall(slots) => core.recalled(&slots, &[], later),
                    Effect::Rewind(to) => {
                        assert_eq!(to, [Position { slot: Slot(0), next: 0 }]);
                        core.rewound(&to);
                        rewound = true;
                    }
                    _ => {}
                }
            }
        }
        assert!(rewound);
        assert_eq!(core.ending(later), None);
        core.ended(Slot(0));
        assert_eq!(core.ending(later), Some(Ending::Finished), "when the source says so again");
    };
    check(|core, now| core.failed(0, Severity::Transaction, now), false);
    check(|core, now| core.failed(0, Severity::Fenced, now), false);
    check(|core, now| core.failed(0, Severity::Fenced, now), true);
}

#[test]
fn where_nothing_was_taken_the_first_record_left_out_is_kept_in_mind() {
    let now = start();
    let config = config(Delivery::ExactlyOnce, Order::Key, NullKeys::Free);
    let mut core = Core::<i64, i64>::new(&config, N_WORKERS, now);
    core.assigned(Slot(0), None, now);
    core.fenced(now);
    for offset in [10, 11] {
        assert_eq!(core.take(Slot(0), offset, None, RECORD_BYTES, None, now), Taken::LeftOut);
    }
    let later = now + super::FENCE;
    core.tick(later);
    assert!(core.effects().iter().any(|effect| matches!(effect, Effect::Recall(_))));
    core.recalled(&[Slot(0)], &[], later);
    let effects = core.effects();
    let [Effect::Rewind(to)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(to, &[Position { slot: Slot(0), next: 10 }]);
}

#[test]
fn what_was_held_for_a_commit_goes_with_its_partition() {
    let now = start();
    let (mut core, _) = all_done(now);
    core.tick(now);
    assert!(matches!(core.effects().as_slice(), [.., Effect::Send(_), Effect::Commit(_), Effect::Resume(_)]));
    // While that commits, another record is done, its partition is lost, and comes back.
    let ticket = taken(core.take(Slot(0), 4, None, RECORD_BYTES, None, now));
    core.finish(ticket, 1, 0, 4);
    core.lost(&[Slot(0)], now);
    core.assigned(Slot(0), Some(0), now);
    core.committed(0, now, &mut Vec::new());
    core.tick(now + Duration::from_secs(1));
    let effects = core.effects();
    assert!(
        !effects.iter().any(|effect| matches!(effect, Effect::Send(_) | Effect::Commit(_))),
        "{effects:?}"
    );
}

#[test]
fn a_partition_given_back_while_its_commit_is_on_its_way_is_asked_for_after_that() {
    let check = |is_heard_before: bool, is_committed: bool| {
        let now = start();
        let (mut core, _) = all_done(now);
        core.tick(now);
        core.effects();
        core.lost(&[Slot(0)], now);
        let hear = |core: &mut Core<i64, i64>| {
            if is_committed {
                core.committed(0, now, &mut Vec::new());
            } else {
                core.failed(0, Severity::Transaction, now);
            }
        };
        if is_heard_before {
            hear(&mut core);
        }
        core.assigned(Slot(0), Some(0), now);
        core.tick(now);
        if !is_heard_before {
            let effects = core.effects();
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Recall(_))), "{effects:?}");
            hear(&mut core);
            core.tick(now);
        }
        let effects = core.effects();
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Recall(_))), "{effects:?}");
        assert_eq!(core.take(Slot(0), 0, None, RECORD_BYTES, None, now), Taken::LeftOut);
        let next = if is_committed { 4 } else { 0 };
        core.recalled(&[Slot(0)], &[Position { slot: Slot(0), next }], now);
        let effects = core.effects();
        let to =
            effects.iter().find_map(|effect| if let Effect::Rewind(to) = effect { Some(to) } else { None });
        assert_eq!(to, Some(&vec![Position { slot: Slot(0), next }]));
    };
    for is_heard_before in [false, true] {
        check(is_heard_before, false);
        check(is_heard_before, true);
    }
}

#[test]
fn what_is_to_be_tried_again_is_left_at_the_end() {
    let now = start();
    let config = config(Delivery::AtLeastOnce, Order::Key, NullKeys::Free);
    let (mut core, _) = waiting(&config, 4, now);
    let started = start_all(&mut core, now);
    core.stop(now, Duration::from_secs(5));
    core.again(Part::Primary, started, now);
    core.tick(now);
    assert_eq!((core.n_waiting(), core.ending(now)), (0, Some(Ending::Stopped)));
}

#[test]
fn troubles_that_pass_are_never_too_many() {
    let check = |severity: Severity, expected: bool| {
        let now = start();
        let config = Config { max_failures: 3, ..config(Delivery::ExactlyOnce, Order::Key, NullKeys::Free) };
        let mut core = Core::<i64, i64>::new(&config, N_WORKERS, now);
        for _ in 0..10 {
            core.failed(core.generation(), severity, now);
        }
        assert!(core.is_failing());
        assert_eq!(core.is_hopeless(), expected, "{severity:?}");
    };
    check(Severity::Passing, false);
    check(Severity::Transaction, true);
    check(Severity::Doubtful, true);
}

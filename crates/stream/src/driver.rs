//! The driver's thread: owns the source and the core, and does what the core says.

mod effects;
mod intake;
mod report;
mod waiting;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use salver_predict::{Error as CallError, Target, Version};
use salver_records::{Error as PartError, Event, Group, Partition, Record, Slot, Source};
use tokio::sync::mpsc::Sender;

use crate::core::{Core, Intake, Next, Part, Queued, Seen, Share, Ticket};
use crate::deliver::Command;
use crate::model::{Models, Resolved};
use crate::pipeline::Control;
use crate::restore::Task;
use crate::score::{Job, Parcel, Scored, Scoring, Work};
use crate::shadow::ShadowQueue;
use crate::status::{Meter, add, set};
use crate::window::Restored;
use crate::{Ending, Error, ErrorKind, Retry, Windows, clock};
use waiting::{Held, Restoring};

/// The longest wait for anything.
const IDLE: Duration = Duration::from_millis(100);

/// The wait while something is under way: on one side only, so that the other is looked at soon.
const BUSY: Duration = Duration::from_millis(1);

/// The wait while only the sink has something to tell.
const WRITING: Duration = Duration::from_millis(5);

/// How often what others see is made anew.
const PUBLISH: Duration = Duration::from_millis(200);

/// Bytes read at a time at most, so that records start while others are read.
const MAX_READ: usize = 1 << 20;

/// Commands that the sink's thread may be behind; more wait here.
pub(crate) const MAX_COMMANDS: usize = 64;

/// What other threads tell the driver.
#[derive(Debug)]
pub(crate) enum Report {
    Scored(Box<Scored>),
    /// These outputs last.
    Lasting {
        generation: u64,
        tickets: Vec<Ticket>,
    },
    Committed {
        generation: u64,
    },
    Failed {
        generation: u64,
        error: PartError,
    },
    Found {
        part: Part,
        found: Result<Arc<dyn Target>, CallError>,
    },
    /// Somebody wants something of the driver.
    Wake,
    Stop(Error),
    /// The windows of a partition are there, or will not be.
    Restored {
        number: u64,
        restored: Result<Restored, PartError>,
    },
    /// They cannot be had for now.
    NotRestored {
        task: Box<Task>,
        error: PartError,
    },
    /// The sink's thread has ended.
    Ended,
}

/// A version that took over, and the partitions where it has not been used yet.
#[derive(Debug, Default)]
struct Switching {
    version: Option<Version>,
    before: Option<Version>,
    left: HashSet<Slot>,
}

pub(crate) struct Driver {
    pub(crate) core: Core<Work, Parcel>,
    pub(crate) source: Box<dyn Source>,
    pub(crate) windows: Option<Box<dyn Windows>>,
    pub(crate) models: Models,
    pub(crate) scoring: Arc<Scoring>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) control: Arc<Control>,
    pub(crate) drain: Duration,
    pub(crate) retry: Retry,
    pub(crate) workers: Vec<Sender<Job>>,
    pub(crate) commands: SyncSender<Command>,
    pub(crate) reports: Receiver<Report>,
    /// The thread that restores windows, if there are windows.
    pub(crate) restorer: Option<SyncSender<Task>>,
    pub(crate) canary: Option<Share>,
    pub(crate) shadow: Option<(Share, ShadowQueue)>,
    pub(crate) state: State,
}

/// What the driver remembers beside the core.
#[derive(Debug, Default)]
pub(crate) struct State {
    places: HashMap<Slot, Arc<Partition>>,
    /// Commands that the sink's thread has no room for.
    backlog: VecDeque<Command>,
    generation: u64,
    /// Who this process was when the group was last asked how far it is, until a commit has succeeded.
    member: Option<Group>,
    switching: [Switching; 2],
    records: Vec<Record>,
    events: Vec<Event>,
    taken: Vec<Instant>,
    published: Option<Instant>,
    /// Partitions that the core does not know yet, in the order in which they are restored.
    restoring: VecDeque<Restoring>,
    n_restorations: u64,
    is_restoring: bool,
    /// Of these, the ones of which the group is asked again how far they are, as the source does not know that it has moved.
    moved: HashSet<Slot>,
    /// Partitions with a record that cannot be read for now, and the generation in which that is so.
    held: HashMap<Slot, Held>,
    held_in: u64,
    failure: Option<Error>,
    has_source_trouble: bool,
}

impl Driver {
    /// Runs until the end. Blocks.
    ///
    /// # Errors
    /// Why the pipeline cannot go on.
    pub(crate) fn run(mut self) -> Result<Ending, Error> {
        let ended = self.run_to_end();
        self.meter.is_ready.store(false, Relaxed);
        self.publish(clock::now());
        self.gauge();
        self.close();
        match (ended, self.state.failure.take()) {
            (_, Some(failure)) => Err(failure),
            (ended, None) => ended,
        }
    }

    fn run_to_end(&mut self) -> Result<Ending, Error> {
        loop {
            let now = clock::now();
            self.heed(now);
            while let Ok(report) = self.reports.try_recv() {
                self.hear(report)?;
            }
            let mut wake = self.core.tick(now);
            self.act(now)?;
            let next = self.dispatch(now)?;
            wake = wake.into_iter().chain(next).chain(self.read_held(now)?).min();
            wake = wake.into_iter().chain(self.restore_next(now)?).min();
            self.hand_over();
            if self.core.is_hopeless() {
                let message = "writing failed too many times in a row; the log says why";
                return Err(Error::new(ErrorKind::Sink, message));
            }
            let ending = self.core.ending(now).filter(|ending| self.is_all_known(*ending));
            // The last positions are committed before the end is seen.
            if let Some(ending) = ending.filter(|ending| self.is_shadow_done(*ending, now)) {
                self.settle_last();
                return Ok(ending);
            }
            self.publish_if_due(now);
            match ending {
                Some(_) => self.wait_for_shadow()?,
                None => self.wait(wake)?,
            }
        }
    }

    /// Whether the core knows all there is to such an end.
    fn is_all_known(&self, ending: Ending) -> bool {
        ending != Ending::Finished || self.state.restoring.is_empty()
    }

    /// Whether nothing is waited for of the shadow at such an end: it is done with all there was, or the time is over.
    fn is_shadow_done(&mut self, ending: Ending, now: Instant) -> bool {
        let is_over = ending == Ending::Cut || self.core.stopping().is_some_and(|until| now >= until);
        self.shadow.as_mut().is_none_or(|(_, queue)| queue.end() || is_over)
    }

    /// Waits a moment; all else is done, and the source is asked for events alone.
    fn wait_for_shadow(&mut self) -> Result<(), Error> {
        self.read(Duration::ZERO, 1)?;
        self.wait_for_report(WRITING)
    }

    /// Looks at what was asked of the pipeline from outside.
    fn heed(&mut self, now: Instant) {
        if let Some(grace) = self.control.stop_asked()
            && !self.core.is_stopping()
        {
            self.core.stop(now, grace);
        }
    }

    /// Ends in good order because of an error: what is done is written and committed, the record at fault is not.
    fn fail(&mut self, error: Error, now: Instant) {
        tracing::error!("the stream ends: {error}");
        self.state.failure.get_or_insert(error);
        self.core.stop(now, self.drain);
    }

    // Workers

    /// Gives workers what they should do now. Gives when to look again.
    fn dispatch(&mut self, now: Instant) -> Result<Option<Instant>, Error> {
        if !self.models.are_known() {
            return self.find_models(now);
        }
        loop {
            let (worker, part, n) = match self.core.next(now) {
                Next::Start { worker, part, n } => (worker, part, n),
                Next::Wait(until) => return Ok(until),
            };
            let (answering, resolved) = self.models.resolve(part, now);
            let (target, scorer) = match resolved {
                Resolved::Ready(target, scorer) => (target, scorer),
                Resolved::Later(until) => {
                    self.core.hold(part, until);
                    continue;
                }
                Resolved::Gone => {
                    self.core.hold(part, now + IDLE);
                    continue;
                }
                Resolved::Stop(error) => return Err(error),
            };
            let batch = self.core.start(worker, part, n);
            if batch.is_empty() {
                continue;
            }
            self.leave_to_shadow(&batch);
            self.note_version(answering, scorer.id.version, &batch);
            self.measure_queue(&batch, now);
            match (part, answering) {
                (Part::Canary, Part::Canary) => add(&self.meter.counters.canary, batch.len()),
                (Part::Canary, Part::Primary) => add(&self.meter.counters.canary_away, batch.len()),
                (Part::Primary, _) => {}
            }
            let job = Job { worker, part: answering, scorer, target, batch };
            if self.workers[worker].try_send(job).is_err() {
                return Err(Error::new(ErrorKind::Internal, "a worker of the stream has ended"));
            }
        }
    }

    /// Before the first record a version of each part is found, so that a mapping that does not fit is known at once.
    fn find_models(&mut self, now: Instant) -> Result<Option<Instant>, Error> {
        for part in Part::ALL {
            if self.models.last(part).is_none()
                && let (_, Resolved::Stop(error)) = self.models.resolve(part, now)
            {
                return Err(error);
            }
        }
        Ok(Some(now + if self.models.are_known() { Duration::ZERO } else { IDLE }))
    }

    /// Leaves its share of a batch that starts to the shadow, which so gets records as fast as they are answered and no faster.
    /// Nobody can score what has no value, and what is tried again was left to it before.
    fn leave_to_shadow(&self, batch: &[Queued<Work>]) {
        let Some((share, queue)) = &self.shadow else { return };
        let is_wanted = |queued: &&Queued<Work>| {
            let Work { record, partition, .. } = &queued.work;
            let is_new = queued.n_attempts == 0 && record.value.is_some();
            is_new && share.has(record.key.as_deref(), &partition.topic, partition.number, record.offset)
        };
        let wanted: Vec<_> = batch.iter().filter(is_wanted).map(beside).collect();
        if !wanted.is_empty() {
            queue.offer(wanted);
        }
    }

    fn measure_queue(&self, batch: &[Queued<Work>], now: Instant) {
        for alike in batch.chunk_by(|a, b| a.taken == b.taken) {
            let waited =
                alike.first().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.taken));
            self.meter.stages.queue.record_n(waited, u64::try_from(alike.len()).unwrap_or(u64::MAX));
        }
    }

    /// Tells from which offset on another version answers.
    fn note_version(&mut self, part: Part, version: Version, batch: &[Queued<Work>]) {
        let switching = &mut self.state.switching[part.index()];
        if switching.version != Some(version) {
            switching.before = switching.version.replace(version);
            if switching.before.is_some() {
                add(&self.meter.counters.switches, 1);
                switching.left = self.core.seen().map(|seen| seen.slot).collect();
            }
        }
        if switching.left.is_empty() {
            return;
        }
        let Some(before) = switching.before else { return };
        let is_canary = part == Part::Canary;
        for queued in batch {
            if switching.left.remove(&queued.ticket.slot) {
                let (offset, partition) = (queued.offset, &queued.work.partition);
                let whose = if is_canary { " of the canary" } else { "" };
                tracing::info!(
                    "model version{whose} {before} -> {version} from offset {offset} of {partition}"
                );
            }
        }
    }

    // Waiting

    fn wait(&mut self, wake: Option<Instant>) -> Result<(), Error> {
        let now = clock::now();
        let longest = wake.map_or(IDLE, |wake| wake.saturating_duration_since(now).min(IDLE));
        let is_busy = self.core.n_batches() > 0 || self.core.totals().n_released > 0;
        let intake = if self.models.are_known() { self.core.intake(now) } else { Intake::Held };
        match intake {
            Intake::Held => self.wait_for_report(longest),
            Intake::Paused if is_busy => {
                self.read(Duration::ZERO, MAX_READ)?;
                self.wait_for_report(longest)
            }
            Intake::Paused => self.read(longest, MAX_READ).map(drop),
            Intake::Open(room) => {
                let room = room.clamp(1, MAX_READ);
                if !is_busy {
                    return self.read(longest, room).map(drop);
                }
                if self.core.n_batches() == 0 {
                    return self.read(longest.min(WRITING), room).map(drop);
                }
                if self.read(Duration::ZERO, room)? {
                    return Ok(());
                }
                self.wait_for_report(longest.min(BUSY))
            }
        }
    }

    fn wait_for_report(&mut self, longest: Duration) -> Result<(), Error> {
        match self.reports.recv_timeout(longest) {
            Ok(report) => self.hear(report),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(ErrorKind::Internal, "all threads of the stream have ended"))
            }
        }
    }

    // The sink

    fn command(&mut self, command: Command) {
        self.state.backlog.push_back(command);
    }

    /// Gives the sink's thread what it has room for, and says whether there is one.
    fn hand_over(&mut self) -> bool {
        while let Some(command) = self.state.backlog.pop_front() {
            match self.commands.try_send(command) {
                Ok(()) => {}
                Err(TrySendError::Full(command)) => {
                    self.state.backlog.push_front(command);
                    return true;
                }
                // It has reported why it ended.
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        true
    }

    /// Lets the sink's thread end, and waits for that a short time.
    fn close(&mut self) {
        self.workers.clear();
        self.shadow = None;
        let until = clock::now() + self.drain.max(Duration::from_secs(1));
        self.state.backlog.push_back(Command::End);
        loop {
            if !self.hand_over() {
                return;
            }
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                tracing::warn!("the sink has not ended in time");
                return;
            }
            match self.reports.recv_timeout(left.min(IDLE)) {
                Ok(Report::Ended) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    // What others see

    fn publish_if_due(&mut self, now: Instant) {
        if self.state.published.is_none_or(|at| now >= at + PUBLISH) {
            self.publish(now);
        }
        self.gauge();
    }

    fn gauge(&self) {
        let totals = self.core.totals();
        set(&self.meter.records_in_flight, totals.n_records);
        set(&self.meter.bytes_in_flight, totals.n_bytes);
        set(&self.meter.records_waiting, self.core.n_waiting());
        set(&self.meter.batches_in_flight, self.core.n_batches());
    }

    fn publish(&mut self, now: Instant) {
        self.state.published = Some(now);
        let lags: HashMap<Slot, i64> =
            self.source.lags().into_iter().map(|lag| (lag.slot, lag.end)).collect();
        let now_ms = clock::now_ms();
        let held = &self.state.held;
        let seen = self.core.seen();
        let seen =
            seen.map(|seen| Seen { is_paused: seen.is_paused || held.contains_key(&seen.slot), ..seen });
        let partitions = seen.map(|seen| report::partition(&seen, &self.state.places, &lags, now_ms));
        let restoring = self.state.restoring.iter().map(|one| one.status(&self.state.places, &lags, now));
        let published = crate::status::Published {
            partitions: partitions.chain(restoring).collect(),
            model: self.models.last(Part::Primary).map(|scorer| (*scorer.id).clone()),
            canary: self.models.last(Part::Canary).map(|scorer| (*scorer.id).clone()),
            commit_age: now.saturating_duration_since(self.core.committed_at()),
            n_restoring: self.state.restoring.len(),
        };
        self.meter.publish(published);
        if let Some(windows) = &self.windows {
            self.meter.state_bytes.store(windows.n_bytes(), Relaxed);
        }
        let is_well = !self.core.is_failing()
            && !self.core.is_stopping()
            && !self.state.has_source_trouble
            && self.state.restoring.is_empty();
        self.meter.is_ready.store(is_well && self.models.are_known(), Relaxed);
    }
}

/// The same work for the shadow, which reads the record anew and changes no state.
fn beside(queued: &Queued<Work>) -> Queued<Work> {
    let Queued { ticket, offset, taken, n_attempts, .. } = *queued;
    let Work { record, partition, window, .. } = &queued.work;
    let (record, partition, window) = (record.clone(), Arc::clone(partition), window.clone());
    let work = Work { record, partition, window, mapped: None, changes: Vec::new() };
    Queued { ticket, offset, taken, n_attempts, work }
}

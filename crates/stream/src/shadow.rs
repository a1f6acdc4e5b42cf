//! The shadow: scores some records a second time, beside everything else. It delays nobody: what it has no room for is left out.
//! What waits for it at the end of the pipeline is still scored, as long as there is time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use salver_predict::{ModelSpec, Predictor};
use salver_records::{Delivery, Output, Receipt, Sink};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use crate::core::{Part, Queued};
use crate::model::Scorers;
use crate::score::{Job, Scored, Scorer, Scoring, Work};
use crate::status::{Meter, add};
use crate::{Enter, Error, ErrorKind, Shadow};

/// Records that are enough to be scored together.
const BATCH: usize = 64;

/// Records that the shadow was left and of which nothing is known yet.
#[derive(Debug, Default)]
struct Open {
    /// Records that wait, or that the model is asked for, and their memory.
    n_records: usize,
    n_bytes: usize,
    /// Answers that were written and may not last yet.
    n_written: usize,
    /// Nothing is waited for any more: what was open has been counted.
    is_over: bool,
}

/// What the shadow's thread and the driver both count.
#[derive(Debug)]
struct Tally {
    open: Mutex<Open>,
    meter: Arc<Meter>,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// A batch was scored: so many answers are written, and of so many records there is none.
    fn scored(&self, (n_records, n_bytes): (usize, usize), n_written: usize, n_failed: usize) {
        let mut open = self.lock();
        if !open.is_over {
            open.n_records -= n_records;
            open.n_bytes -= n_bytes;
            open.n_written += n_written;
            add(&self.meter.counters.shadow_failed, n_failed);
        }
    }

    /// So many answers last, and so many do not.
    fn known(&self, n_lasting: usize, n_failed: usize) {
        let mut open = self.lock();
        if !open.is_over {
            open.n_written = open.n_written.saturating_sub(n_lasting + n_failed);
            add(&self.meter.counters.shadow_scored, n_lasting);
            add(&self.meter.counters.shadow_failed, n_failed);
        }
    }

    /// Counts what is open as left out.
    fn give_up(&self) {
        let mut open = self.lock();
        let left = std::mem::replace(&mut *open, Open { is_over: true, ..Open::default() });
        add(&self.meter.counters.shadow_dropped, left.n_records + left.n_written);
    }
}

/// Where records for the shadow are left.
#[derive(Debug)]
pub(crate) struct ShadowQueue {
    /// Until the end, when all of them are done.
    jobs: Option<Sender<Vec<Queued<Work>>>>,
    tally: Arc<Tally>,
    max_records: usize,
    max_bytes: usize,
    thread: JoinHandle<()>,
}

/// What a shadow works with.
pub(crate) struct ShadowParts {
    pub(crate) predictor: Arc<dyn Predictor>,
    pub(crate) spec: ModelSpec,
    pub(crate) scorers: Scorers,
    /// With settings that refuse nothing loudly and try nothing again.
    pub(crate) scoring: Scoring,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) enter: Enter,
    /// How long looking for a version may take.
    pub(crate) timeout: Duration,
    /// The pipeline's own, where the shadow is counted.
    pub(crate) meter: Arc<Meter>,
}

impl ShadowQueue {
    /// Starts the shadow's thread, which ends some time after this is dropped.
    ///
    /// # Errors
    /// When there is no runtime or no thread for it.
    pub(crate) fn start(settings: &Shadow, parts: ShadowParts) -> Result<ShadowQueue, Error> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Internal, format!("cannot start the shadow: {error}"))
        };
        let (max_records, max_bytes) = (settings.max_records.get(), settings.max_bytes);
        let (jobs, queue) = channel(max_records);
        let (meter, enter) = (Arc::clone(&parts.meter), Arc::clone(&parts.enter));
        let tally = Arc::new(Tally { open: Mutex::default(), meter });
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let runner = Runner { parts, tally: Arc::clone(&tally), n_sent: 0 };
        let work = Mutex::new(Some((runtime, runner, queue)));
        let body = move || {
            enter(&mut || {
                let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some((runtime, mut runner, queue)) = work {
                    runtime.block_on(runner.run(queue));
                }
            });
        };
        let thread = std::thread::Builder::new().name("shadow".into()).spawn(body).map_err(failed)?;
        Ok(ShadowQueue { jobs: Some(jobs), tally, max_records, max_bytes, thread })
    }

    /// Leaves records for the shadow, as many as it has room for.
    pub(crate) fn offer(&self, mut batch: Vec<Queued<Work>>) {
        let dropped = &self.tally.meter.counters.shadow_dropped;
        // Held until the batch is counted, which the thread takes off again.
        let mut open = self.tally.lock();
        let room = self.max_records.saturating_sub(open.n_records);
        add(dropped, batch.len().saturating_sub(room));
        batch.truncate(room);
        let (n, n_bytes) = (batch.len(), n_bytes(&batch));
        let Some(jobs) = self.jobs.as_ref().filter(|_| !open.is_over) else { return add(dropped, n) };
        if n == 0 {
            return;
        }
        if open.n_bytes + n_bytes <= self.max_bytes && jobs.try_send(batch).is_ok() {
            open.n_records += n;
            open.n_bytes += n_bytes;
        } else {
            add(dropped, n);
        }
    }

    /// Nothing comes for the shadow any more. Gives whether it is done with all there was, and that lasts; to be asked again.
    pub(crate) fn end(&mut self) -> bool {
        if self.tally.lock().n_records == 0 {
            self.jobs = None;
        }
        self.thread.is_finished()
    }
}

/// What the shadow is not done with is left out.
impl Drop for ShadowQueue {
    fn drop(&mut self) {
        self.tally.give_up();
    }
}

fn n_bytes(batch: &[Queued<Work>]) -> usize {
    let window = |work: &Work| work.window.as_ref().map_or(0, salver_tensor::Tensor::n_bytes);
    batch.iter().map(|queued| queued.work.record.n_bytes() + window(&queued.work)).sum()
}

struct Runner {
    parts: ShadowParts,
    tally: Arc<Tally>,
    n_sent: u64,
}

impl Runner {
    async fn run(&mut self, mut queue: Receiver<Vec<Queued<Work>>>) {
        let mut deliveries = Vec::new();
        while let Some(mut batch) = queue.recv().await {
            while batch.len() < BATCH
                && let Ok(more) = queue.try_recv()
            {
                batch.extend(more);
            }
            if self.tally.is_over() {
                return;
            }
            let (n, n_bytes) = (batch.len(), n_bytes(&batch));
            let (n_written, n_failed) = self.score(batch).await;
            self.tally.scored((n, n_bytes), n_written, n_failed);
            self.look(&mut deliveries);
        }
        if let Err(error) = self.parts.sink.flush() {
            tracing::warn!("the shadow's sink does not end well: {error}");
        }
        self.look(&mut deliveries);
    }

    /// Gives how many answers were written, and of how many records there is none that should have one.
    async fn score(&mut self, batch: Vec<Queued<Work>>) -> (usize, usize) {
        let n = batch.len();
        let scored = match self.ask(batch).await {
            Ok(scored) => scored,
            Err(message) => {
                tracing::debug!("the shadow has no answers: {message}");
                return (0, n);
            }
        };
        let n_filtered = self.parts.scoring.meter.counters.filtered.swap(0, Relaxed);
        let n_filtered = usize::try_from(n_filtered).unwrap_or(usize::MAX);
        let outputs = scored.done.into_iter().flat_map(|(_, parcel)| parcel.outputs);
        let mut n_written = 0;
        for answer in outputs.filter(|outgoing| outgoing.output == Output::Main) {
            match self.parts.sink.send(answer, Receipt(self.n_sent)) {
                Ok(()) => {
                    self.n_sent += 1;
                    n_written += 1;
                }
                Err(error) => tracing::debug!("an answer of the shadow is not written: {error}"),
            }
        }
        (n_written, n.saturating_sub(n_written + n_filtered))
    }

    async fn ask(&mut self, batch: Vec<Queued<Work>>) -> Result<Scored, String> {
        let parts = &mut self.parts;
        let found = timeout(parts.timeout, parts.predictor.resolve(&parts.spec)).await;
        let found =
            found.map_err(|_| format!("looking for a version had no answer within {:?}", parts.timeout))?;
        let target = found.map_err(|error| error.message().to_owned())?;
        let scorer: Arc<Scorer> = parts.scorers.of(&*target)?;
        let job = Job { worker: 0, part: Part::Primary, scorer, target, batch };
        Ok(parts.scoring.score(job).await)
    }

    /// Counts answers that last, and those that do not.
    fn look(&mut self, deliveries: &mut Vec<Delivery>) {
        self.parts.sink.deliveries(Duration::ZERO, deliveries);
        let (n, n_lasting) = (deliveries.len(), deliveries.iter().filter(|one| one.result.is_ok()).count());
        deliveries.clear();
        self.tally.known(n_lasting, n - n_lasting);
    }
}

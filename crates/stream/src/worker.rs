//! A worker: a thread that decodes, asks the model and encodes, several batches at a time while it waits for answers.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Builder;
use tokio::sync::mpsc::Receiver;

use crate::driver::Report;
use crate::score::{Job, Scored, Scoring};
use crate::watch::Watch;
use crate::{Enter, Error, ErrorKind};

/// Starts a worker's thread. It ends when its jobs do; what it has under way then is dropped.
///
/// # Errors
/// When there is no runtime or no thread for it.
pub(crate) fn start(
    index: usize,
    enter: &Enter,
    scoring: &Arc<Scoring>,
    jobs: Receiver<Job>,
    reports: &SyncSender<Report>,
) -> Result<(), Error> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Internal, format!("cannot start worker {index} of the stream: {error}"))
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let work = Mutex::new(Some((runtime, jobs)));
    let (enter, scoring, reports) = (Arc::clone(enter), Arc::clone(scoring), reports.clone());
    let thread = std::thread::Builder::new().name(format!("scorer-{index}"));
    let body = move || {
        enter(&mut || {
            let watch = Watch::new("a worker of the stream", &reports);
            let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((runtime, jobs)) = work {
                runtime.block_on(run(&scoring, jobs, &reports));
            }
            drop(watch);
        });
    };
    thread.spawn(body).map(drop).map_err(failed)
}

async fn run(scoring: &Scoring, mut jobs: Receiver<Job>, reports: &SyncSender<Report>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(scored) = running.next(), if !running.is_empty() => {
                let scored: Scored = scored;
                if reports.send(Report::Scored(Box::new(scored))).is_err() {
                    return;
                }
            }
            job = jobs.recv() => match job {
                Some(job) => running.push(scoring.score(job)),
                None => return,
            },
        }
    }
}

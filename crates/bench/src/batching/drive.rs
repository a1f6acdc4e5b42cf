//! Load on one model of a server, with what it took of the machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use salver_load::{
    Call, Check, Load, Plan, ProcessTree, Protocol, Subject, Summary, Target, ask, describe, listening_on,
};
use salver_tensor::{Signature, Tensor};
use salver_wire::client::Named;

use super::stage::MOST_ROWS;
use crate::engines::Made;
use crate::server::Server;

/// How long single questions may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is sent before a window counts for nothing, unless a case asks for longer.
const WARM_UP: Duration = Duration::from_millis(400);
/// The most requests of an open loop on their way.
pub(crate) const MAX_IN_FLIGHT: usize = 20_000;
/// Different requests that take turns.
const N_CALLS: usize = 8;

/// A model of a server, and what it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    target: Target,
    process: ProcessTree,
    pub(crate) calls: Vec<Call>,
    /// What decodes answers, where they are looked at.
    pub(crate) decoding: Option<(Subject, Arc<Signature>)>,
    pub(crate) check: Option<Check>,
    /// Threads that send.
    pub(crate) threads: usize,
    /// What is sent before counts for nothing.
    warm_up: Duration,
}

/// What a window of load gave.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) summary: Summary,
    /// Processors that this process used meanwhile.
    pub(crate) generator: f64,
}

/// An open loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) per_second: f64,
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    /// What an answer may take at most.
    pub(crate) deadline: Option<Duration>,
    /// Whether the server is told of it.
    pub(crate) is_told: bool,
}

impl Ask {
    /// Asks the model for predictions of these inputs, one after the other. It has one input.
    pub(crate) fn new(server: &Server, model: &str, inputs: &[Tensor]) -> Result<Ask> {
        let target: Target = server.grpc.to_string().parse()?;
        let subject = Subject::new(Protocol::TfsGrpc, model, None)?;
        let described = describe(&target, &subject, PATIENCE)?;
        let signature = Arc::clone(described.signature("").map_err(|error| anyhow::anyhow!("{error}"))?);
        let input = signature.inputs().first().context("the model has no input")?.name.to_string();
        let calls = inputs.iter().map(|tensor| Ok(subject.call(&vec![(input.clone(), tensor.clone())])?));
        let calls = calls.collect::<Result<Vec<_>>>()?;
        let mut ask = Ask::of_calls(server, calls)?;
        ask.decoding = Some((subject, signature));
        Ok(ask)
    }

    /// Asks the model for predictions of single rows of its input.
    pub(crate) fn rows_of(server: &Server, made: &Made) -> Result<Ask> {
        Ask::rows_by_name(server, made, made.name)
    }

    /// The same of a model that is served by another name.
    pub(crate) fn rows_by_name(server: &Server, made: &Made, name: &str) -> Result<Ask> {
        let all = made.input(MOST_ROWS)?;
        let rows =
            (0..N_CALLS).map(|at| all.rows(at * (MOST_ROWS / N_CALLS), 1).context("a row of the input"));
        let ask = Ask::new(server, name, &rows.collect::<Result<Vec<_>>>()?)?;
        ask.answer(0).with_context(|| format!("{name} does not answer"))?;
        Ok(ask)
    }

    pub(crate) fn of_calls(server: &Server, calls: Vec<Call>) -> Result<Ask> {
        let process = listening_on(server.grpc.port()).context("the server's process is not seen")?;
        Ok(Ask {
            target: server.grpc.to_string().parse()?,
            process: ProcessTree::new(process)?,
            calls,
            decoding: None,
            check: None,
            threads: 1,
            warm_up: WARM_UP,
        })
    }

    /// The same with so many threads that send.
    pub(crate) fn with_threads(self, threads: usize) -> Ask {
        Ask { threads, ..self }
    }

    /// The same with a warm-up in which a closed loop comes to its pace: two rounds of so many requests at such a rate.
    pub(crate) fn with_warm_up(self, in_flight: usize, per_second: f64) -> Ask {
        let seconds = 2.0 * in_flight as f64 / per_second.max(1.0);
        Ask { warm_up: Duration::from_secs_f64(seconds.clamp(0.4, 6.0)), ..self }
    }

    /// What the server answers to the call with this number.
    pub(crate) fn answer(&self, call: usize) -> Result<Named> {
        let (subject, signature) = self.decoding.as_ref().context("answers are not decoded")?;
        let answer = ask(&self.target, &self.calls[call], PATIENCE)?;
        Ok(subject.decode(signature, &answer)?)
    }

    /// Keeps so many requests on their way. An error of the server's is an error here.
    pub(crate) fn closed(&self, in_flight: usize, time: Duration) -> Result<Window> {
        let window = self.closed_with_errors(in_flight, time)?;
        let (counts, summary) = (&window.summary.counts, &window.summary);
        if counts.total() == 0 {
            bail!("no request left in {:.1} s with {in_flight} in flight", summary.seconds);
        }
        if counts.ok != counts.total() {
            let why = summary.errors.first().map_or("", |(text, _)| text.as_str());
            bail!("{} of {} requests were not answered: {why}", counts.total() - counts.ok, counts.total());
        }
        Ok(window)
    }

    /// The same, and errors are counted.
    pub(crate) fn closed_with_errors(&self, in_flight: usize, time: Duration) -> Result<Window> {
        self.run(self.plan(Load::Closed { in_flight }, time))
    }

    /// Sends at random moments.
    pub(crate) fn open(&self, offer: Offer) -> Result<Window> {
        let mut plan = self.plan(Load::poisson(offer.per_second, offer.seed), offer.time);
        // With two queues of the same length, what leaves later is what came later, whichever connection it takes.
        plan.connections = 4;
        plan.max_in_flight = MAX_IN_FLIGHT;
        plan.deadline = offer.deadline.filter(|_| offer.is_told);
        self.run(plan)
    }

    fn plan(&self, load: Load, time: Duration) -> Plan {
        let mut plan = Plan::new(self.target.clone(), self.calls.clone(), load);
        plan.timing.warm_up = self.warm_up;
        plan.timeout = PATIENCE;
        plan.timing.window = Duration::from_millis(100);
        plan.timing = plan.timing.fixed(time);
        plan.threads = self.threads;
        plan.check.clone_from(&self.check);
        plan.server = Some(self.process);
        plan
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is made for this run")]
    fn run(&self, plan: Plan) -> Result<Window> {
        let (start, cpu) = (Instant::now(), process_cpu());
        let summary = salver_load::run(&plan)?;
        let generator = (process_cpu() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
        Ok(Window { summary, generator })
    }
}

/// CPU time that this process has used.
pub(crate) fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Window {
    /// Rows of good answers per second.
    pub(crate) fn rows(&self) -> f64 {
        self.summary.rows
    }

    /// Microseconds of the server's CPU time for each good answer.
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.summary.server.map_or(0.0, |server| server.cpu_micros_per_ok)
    }

    /// Why its figures are the generator's.
    pub(crate) fn invalid(&self) -> String {
        self.summary.invalid.join("; ")
    }
}

/// What a closed loop reaches: the median of some windows.
pub(crate) fn capacity(ask: &Ask, in_flight: usize, time: Duration, n: usize) -> Result<f64> {
    let rates = (0..n).map(|_| Ok(ask.closed(in_flight, time)?.rows())).collect::<Result<Vec<_>>>()?;
    Ok(crate::stats::median(rates))
}

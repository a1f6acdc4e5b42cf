//! Rounds: in each, every server is started, asked in every way it speaks, and ended, in an order that moves on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::answers::difference;
use super::poisson::{self, Offer, settle};
use super::side::{Side, Stage};
use super::tree::Tree;
use crate::body::Interface;
use crate::engines::Made;
use crate::load::{Call, Target, Transport, closed_loop, once};
use crate::stats::{micros, quantile};
use crate::subject::Subject;

/// The interfaces in the order of the tables.
pub(crate) const INTERFACES: [Interface; 4] =
    [Interface::OipGrpcRaw, Interface::OipRestBinary, Interface::OipRestJson, Interface::RestJson];

/// Of the largest number expected, how far an answer may be.
const TOLERANCE: f64 = 1e-3;
/// In flight while a server warms up.
const WARM: usize = 4;

/// How calls are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    Closed {
        in_flight: usize,
    },
    /// `times` the closed-loop rate of the server `of`.
    Open {
        of: Side,
        times: f64,
    },
}

/// One window of load.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) model: &'static str,
    pub(crate) round: usize,
    pub(crate) side: Side,
    pub(crate) interface: Interface,
    pub(crate) load: Load,
    pub(crate) seen: Seen,
}

/// What was seen in it. Rates are per second; a closed loop offers what is answered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) offered: f64,
    pub(crate) answered: f64,
    pub(crate) good: f64,
    pub(crate) late: f64,
    pub(crate) refused: f64,
    pub(crate) failed: f64,
    pub(crate) unanswered: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
    /// CPU time of all processes per answered request.
    pub(crate) cpu_micros: f64,
    /// Most resident memory of all processes, in bytes.
    pub(crate) peak: f64,
    /// How late the generator itself was.
    pub(crate) lag_micros: f64,
}

/// A start of a server.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) model: &'static str,
    pub(crate) side: Side,
    /// From starting the process to the end of the first answer.
    pub(crate) seconds: f64,
    /// Resident memory of all processes after it, in bytes.
    pub(crate) memory: f64,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) records: Vec<Record>,
    pub(crate) starts: Vec<Started>,
    /// The largest relative difference to TensorFlow's answer, per model and server.
    pub(crate) differences: Vec<(&'static str, Side, f64)>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// One model with what is asked of it.
pub(crate) struct Asked<'a> {
    pub(crate) model: &'a Made,
    pub(crate) subject: Subject,
    pub(crate) expected: Vec<f32>,
}

impl Asked<'_> {
    /// The call of an open loop. Salver is told of the deadline; the peers do not plan by one.
    fn call(&self, (side, interface): (Side, Interface), stage: &Stage<'_>) -> Call {
        let mut call = interface.call(&self.subject, self.model.name);
        let deadline = stage.settings.deadline_ms;
        match call.transport {
            _ if stage.settings.no_deadline || !side.is_salver() => {}
            Transport::Grpc => call.headers.push(("grpc-timeout", format!("{deadline}m"))),
            Transport::Rest => call.headers.push(("x-request-timeout-ms", deadline.to_string())),
        }
        call
    }

    /// The call of a closed loop, which has no deadline: every answer counts.
    fn patient(&self, interface: Interface) -> Call {
        interface.call(&self.subject, self.model.name)
    }
}

impl Results {
    /// One round of one model over these servers.
    pub(crate) fn round(&mut self, stage: &Stage<'_>, asked: &Asked<'_>, sides: &[Side], round: usize) {
        let order: Vec<Side> = (0..sides.len()).map(|at| sides[(at + round) % sides.len()]).collect();
        for &side in &order {
            let done = self.closed(stage, asked, side, round);
            self.note(asked, side, done);
        }
        for &interface in INTERFACES.iter().filter(|interface| stage.settings.is_open(**interface)) {
            for &side in &order {
                for of in self.loads_of(sides, interface, side) {
                    let done = self.open(stage, asked, (side, interface, of), round);
                    self.note(asked, side, done);
                }
            }
        }
    }

    /// What went wrong is told, and the other servers are measured all the same.
    fn note(&mut self, asked: &Asked<'_>, side: Side, done: Result<()>) {
        if let Err(error) = done {
            let text = format!("{}, {}: {error:#}", asked.model.title, side.label());
            println!("  failed: {text}");
            self.failures.push(text);
        }
    }

    /// A server bears multiples of its own rate; Salver with ONNX Runtime those of each peer too.
    fn loads_of(&self, sides: &[Side], interface: Interface, side: Side) -> Vec<Side> {
        let is_asked = |of: Side| of == side || (side == Side::Salver && !of.is_salver());
        let speaks = |of: &Side| of.speaks(interface) && side.speaks(interface);
        sides.iter().copied().filter(|of| is_asked(*of) && speaks(of)).collect()
    }

    /// Starts a server and compares its answers with TensorFlow's before anything is measured.
    fn start(&mut self, stage: &Stage<'_>, asked: &Asked<'_>, side: Side) -> Result<Tree> {
        let tree = stage.start(side, asked.model)?;
        let mut most = 0.0_f64;
        for (at, &interface) in INTERFACES.iter().filter(|interface| side.speaks(**interface)).enumerate() {
            let call = asked.patient(interface);
            let answer = once(tree.address(call.transport), &call).with_context(|| tree.said())?;
            if at == 0 {
                let seconds = tree.started.elapsed().as_secs_f64();
                let memory = tree.memory() as f64;
                self.starts.push(Started { model: asked.model.name, side, seconds, memory });
            }
            let far = difference(interface, &answer, &asked.expected).context(interface.label())?;
            ensure!(far <= TOLERANCE, "{}: the answer differs by {far:.1e}", interface.label());
            most = most.max(far);
        }
        self.differences.push((asked.model.name, side, most));
        Ok(tree)
    }

    fn closed(&mut self, stage: &Stage<'_>, asked: &Asked<'_>, side: Side, round: usize) -> Result<()> {
        let tree = self.start(stage, asked, side)?;
        let window = Duration::from_millis(stage.settings.window_ms);
        for &interface in INTERFACES.iter().filter(|interface| side.speaks(**interface)) {
            let call = asked.patient(interface);
            closed_loop(&tree, &call, WARM, window / 2).context(interface.label())?;
            for &in_flight in &stage.settings.in_flight {
                let seen = closed_window(&tree, &call, in_flight, window)
                    .with_context(|| format!("{}, {in_flight} in flight", interface.label()))?;
                let load = Load::Closed { in_flight };
                self.keep(asked, round, (side, interface, load), seen);
            }
        }
        Ok(())
    }

    fn open(
        &mut self,
        stage: &Stage<'_>,
        asked: &Asked<'_>,
        (side, interface, of): (Side, Interface, Side),
        round: usize,
    ) -> Result<()> {
        let model = asked.model.name;
        let rate = self
            .rate(model, round, of, interface)
            .with_context(|| format!("no closed-loop rate of {}", of.label()))?;
        let tree = self.start(stage, asked, side)?;
        let call = asked.call((side, interface), stage);
        closed_loop(&tree, &asked.patient(interface), WARM, Duration::from_millis(stage.settings.window_ms))?;
        let deadline = Duration::from_millis(stage.settings.deadline_ms);
        for &times in &stage.settings.times {
            settle(&tree, &asked.patient(interface), deadline.max(Duration::from_secs_f64(16.0 / rate)))?;
            let time = Duration::from_millis(stage.settings.open_ms);
            let offer = Offer { per_second: rate * times, time, deadline };
            let seen = open_window(&tree, &call, offer, &mut self.failures)?;
            ensure!(
                !tree.has_ended(),
                "it has ended at {:.0} calls a second:\n{}",
                offer.per_second,
                tree.said()
            );
            self.keep(asked, round, (side, interface, Load::Open { of, times }), seen);
        }
        Ok(())
    }

    fn keep(
        &mut self,
        asked: &Asked<'_>,
        round: usize,
        (side, interface, load): (Side, Interface, Load),
        seen: Seen,
    ) {
        println!(
            "  {}, {}, {load:?}: {:.0} offered/s, {:.0} good/s, {:.0} answered/s, p50 {:.2} ms, p99 {:.2} ms, \
             CPU {:.0} us, {:.0} MB",
            side.label(),
            interface.label(),
            seen.offered,
            seen.good,
            seen.answered,
            seen.p50_micros / 1e3,
            seen.p99_micros / 1e3,
            seen.cpu_micros,
            seen.peak / 1e6,
        );
        self.records.push(Record { model: asked.model.name, round, side, interface, load, seen });
    }

    /// The best rate of a server's closed loops in this round.
    fn rate(&self, model: &str, round: usize, side: Side, interface: Interface) -> Option<f64> {
        let own = self.records.iter().filter(|record| {
            let is_closed = matches!(record.load, Load::Closed { .. });
            is_closed && record.round == round && record.model == model
        });
        let rates = own.filter(|record| record.side == side && record.interface == interface);
        rates.map(|record| record.seen.answered).max_by(f64::total_cmp)
    }
}

fn closed_window(tree: &Tree, call: &Call, in_flight: usize, time: Duration) -> Result<Seen> {
    let (window, peak) = tree.peak(|| closed_loop(tree, call, in_flight, time));
    let mut window = window?;
    let n = window.latencies.len() as f64;
    let per_second = n / window.wall.as_secs_f64();
    Ok(Seen {
        offered: per_second,
        answered: per_second,
        good: per_second,
        p50_micros: quantile(&mut window.latencies, 0.5),
        p99_micros: quantile(&mut window.latencies, 0.99),
        cpu_micros: micros(window.cpu) / n,
        peak: peak as f64,
        ..Seen::default()
    })
}

fn open_window(tree: &Tree, call: &Call, offer: Offer, failures: &mut Vec<String>) -> Result<Seen> {
    let before = tree.cpu()?;
    let (outcome, peak) = tree.peak(|| poisson::offer(tree, call, offer));
    let cpu = tree.cpu()?.saturating_sub(before);
    let mut outcome = outcome?;
    if let Some(failure) = &outcome.failure {
        failures
            .push(format!("{} calls failed at {:.0} a second: {failure}", outcome.failed, offer.per_second));
    }
    let rate = |n: usize| n as f64 / offer.time.as_secs_f64();
    let answered = outcome.good + outcome.late;
    Ok(Seen {
        offered: rate(outcome.offered()),
        answered: rate(answered),
        good: rate(outcome.good),
        late: rate(outcome.late),
        refused: rate(outcome.refused),
        failed: rate(outcome.failed),
        unanswered: rate(outcome.unanswered),
        p50_micros: quantile(&mut outcome.latencies, 0.5),
        p99_micros: quantile(&mut outcome.latencies, 0.99),
        cpu_micros: micros(cpu) / answered.max(1) as f64,
        peak: peak as f64,
        lag_micros: quantile(&mut outcome.lags, 0.99),
    })
}

//! What is simulated: engines, traces, and the settings of all policies.

use std::num::NonZeroUsize;
use std::time::Duration;

use salver_batch::{Batching, Policy, Priorities};

use crate::scheduler::{Clipper, FixedWait, Nexus, Salver};
use crate::{
    Arrivals, Curve, Engine, Mix, Phases, Random, Request, START_UP, Scheduler, Stalls, Summary, Tail, Trace,
    run,
};

/// Tasks that may wait, under all policies.
const MAX_QUEUE: usize = 1000;

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Salver's policy with the scenario's settings.
    Salver,
    /// The same, with tasks that wait for others as long as their deadlines allow.
    Deferred,
    /// The same without batches, as a server has it that does not batch.
    Unbatched,
    /// [`FixedWait`], with a time-out of a twentieth of the objective.
    FixedWait,
    /// [`Clipper`], with half of the objective for a batch: a task waits for one and is part of the next.
    Clipper,
    /// [`Nexus`].
    Nexus,
}

impl Who {
    /// Those that are compared in every scenario.
    pub const COMPARED: [Who; 4] = [Who::Salver, Who::FixedWait, Who::Clipper, Who::Nexus];

    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Who::Salver => "Salver",
            Who::Deferred => "Salver, deferred",
            Who::Unbatched => "Salver, unbatched",
            Who::FixedWait => "fixed wait",
            Who::Clipper => "Clipper",
            Who::Nexus => "Nexus",
        }
    }
}

/// One engine and one way in which requests come.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Short.
    pub name: &'static str,
    /// A sentence or two.
    pub about: &'static str,
    /// The truth.
    pub engine: Engine,
    /// Lanes.
    pub n_lanes: usize,
    /// Rows in a batch at most.
    pub max_batch: usize,
    /// The latency that baselines aim at, which is most requests' time.
    pub objective: Duration,
    /// When requests come.
    pub arrivals: Arrivals,
    /// What they want.
    pub mix: Mix,
    /// What Salver's policy is told beyond the batch size.
    pub priorities: Priorities,
    /// Whether callers take turns.
    pub is_fair: bool,
    /// How many times longer traces are than others', so that what is rare comes often enough in them.
    pub longer: usize,
}

impl Scenario {
    /// Poisson arrivals of single rows with one deadline.
    pub fn new(
        name: &'static str,
        about: &'static str,
        curve: Curve,
        max_batch: usize,
        objective: Duration,
    ) -> Scenario {
        Scenario {
            name,
            about,
            engine: Engine::new(curve, 0.1),
            n_lanes: 2,
            max_batch,
            objective,
            arrivals: Arrivals::Poisson,
            mix: Mix::plain(objective),
            priorities: Priorities::Strict,
            is_fair: false,
            longer: 1,
        }
    }

    /// Rows per second that the engine can do at most.
    pub fn capacity(&self) -> f64 {
        self.n_lanes as f64 * self.engine.capacity(self.max_batch, &self.mix.shapes)
    }

    /// A trace with `load` times the capacity. It has time for about `n` requests at capacity, and for some
    /// objectives.
    pub fn trace(&self, load: f64, n: usize, random: &mut Random) -> Trace {
        let rate = self.capacity() / self.mix.mean_rows();
        let n_objectives = (n as f64 / 150.0).clamp(10.0, 30.0);
        let seconds = (n as f64 / rate).max(n_objectives * self.objective.as_secs_f64());
        Trace::new(self.arrivals, &self.mix, load * rate, Duration::from_secs_f64(seconds), random)
    }

    /// Salver's settings.
    pub fn policy(&self, who: Who) -> Policy {
        let batching = Batching {
            max_batch_size: NonZeroUsize::new(self.max_batch).unwrap_or(NonZeroUsize::MIN),
            is_deferred: who == Who::Deferred,
            ..Batching::default()
        };
        Policy {
            max_queue: NonZeroUsize::new(MAX_QUEUE).unwrap_or(NonZeroUsize::MIN),
            priorities: self.priorities.clone(),
            is_fair: self.is_fair,
            batching: (who != Who::Unbatched).then_some(batching),
            ..Policy::default()
        }
    }

    /// A policy that is ready to start.
    pub fn scheduler(&self, who: Who, random: &mut Random) -> Box<dyn Scheduler> {
        let (engine, objective) = (&self.engine, self.objective);
        match who {
            Who::Salver | Who::Deferred | Who::Unbatched => {
                Box::new(Salver::new(self.policy(who), self.n_lanes).swept(engine, random))
            }
            Who::FixedWait => Box::new(FixedWait::new(self.max_batch, objective / 20, MAX_QUEUE)),
            Who::Clipper => Box::new(Clipper::new(self.max_batch, objective / 2, MAX_QUEUE)),
            Who::Nexus => Box::new(Nexus::new(engine.clone(), self.max_batch, objective, MAX_QUEUE)),
        }
    }

    /// Runs a trace of about `n` requests at capacity. For one seed and load all policies see the same requests.
    pub fn simulate(&self, who: Who, load: f64, n: usize, seed: u64) -> Outcome {
        let mut random = Random::new(seed ^ load.to_bits());
        let trace = self.trace(load, n, &mut random.fork());
        let mut scheduler = self.scheduler(who, &mut random.fork());
        let history = run(&trace, &self.engine, self.n_lanes, scheduler.as_mut(), random);
        let from = trace.length.mul_f64(START_UP);
        let of = |is_counted: &dyn Fn(&Request) -> bool| {
            let worth = |shape| self.engine.worth(shape, &self.mix.shapes);
            Summary::of(&trace, &history, self.n_lanes, from, worth, is_counted)
        };
        let part = |name: String, is_counted: &dyn Fn(&Request) -> bool| (name, of(is_counted));
        let mut parts = Vec::new();
        if self.mix.priorities.len() > 1 {
            let each = self.mix.priorities.iter();
            parts.extend(each.map(|&(_, p)| part(format!("priority {p}"), &|request| request.priority == p)));
        }
        if self.mix.callers.len() > 1 {
            let each = self.mix.callers.iter();
            parts.extend(each.map(|&(_, c)| part(format!("caller {c}"), &|request| request.caller == c)));
        }
        if self.mix.timeouts.len() > 1 {
            let name = |timeout: Option<Duration>| timeout.map_or("no deadline".into(), |t| format!("{t:?}"));
            let each = self.mix.timeouts.iter();
            parts.extend(each.map(|&(_, t)| part(name(t), &|request| request.timeout == t)));
        }
        if self.mix.shapes.len() > 1 {
            let each = self.mix.shapes.iter();
            parts.extend(each.map(|&(_, s)| part(format!("shape {s}"), &|request| request.shape == s)));
        }
        Outcome {
            load,
            who,
            all: of(&|_| true),
            parts,
            max_waiting: history.max_waiting,
            n_idle: history.n_idle,
        }
    }
}

/// What came of one policy under one load.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// In multiples of capacity.
    pub load: f64,
    /// The policy.
    pub who: Who,
    /// Of all requests.
    pub all: Summary,
    /// Of the requests of one priority, caller, deadline or shape, where there are several.
    pub parts: Vec<(String, Summary)>,
    /// The most tasks that waited.
    pub max_waiting: usize,
    /// How often a lane was left free although tasks waited.
    pub n_idle: usize,
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// 4 ms and a quarter for each row: two lanes do 6,400 rows/s in batches of 64.
fn affine(name: &'static str, about: &'static str) -> Scenario {
    let curve = Curve::Affine { fixed: 4e-3, per_row: 0.25e-3 };
    Scenario::new(name, about, curve, 64, ms(100))
}

/// All scenarios, by what they vary.
pub fn all() -> Vec<Scenario> {
    let mut all = arrivals();
    all.extend(run_times());
    all.extend(mixes());
    all.extend(engines());
    all
}

fn arrivals() -> Vec<Scenario> {
    vec![
        affine(
            "poisson",
            "A run takes 4 ms and 0.25 ms for each row; 2 lanes, batches of at most 64, deadlines of 100 ms.",
        ),
        Scenario {
            arrivals: Arrivals::Bursts { on: ms(50), off: ms(100) },
            longer: 12,
            ..affine(
                "bursts",
                "The same engine. Requests come for 50 ms on average, three times as dense, then none for 100 ms.",
            )
        },
        Scenario {
            arrivals: Arrivals::Day { swing: 0.8 },
            longer: 4,
            ..affine(
                "day",
                "The same engine. The load goes from a fifth of its mean to 1.8 times and back in 2.5 s, five times.",
            )
        },
        Scenario {
            arrivals: Arrivals::HeavyTail { alpha: 1.4 },
            longer: 6,
            ..affine(
                "heavy gaps",
                "The same engine. Gaps between requests have a Pareto tail (1.4): crowds and silences.",
            )
        },
    ]
}

fn run_times() -> Vec<Scenario> {
    let with = |scenario: Scenario, longer: usize, edit: fn(&mut Engine)| {
        let mut scenario = Scenario { longer, ..scenario };
        edit(&mut scenario.engine);
        scenario
    };
    vec![
        with(
            affine(
                "heavy runs",
                "The same engine, but one run in fifty takes longer, by a Pareto factor (1.2) of up to 20.",
            ),
            6,
            |engine| engine.tail = Some(Tail { share: 0.02, alpha: 1.2, most: 20.0 }),
        ),
        with(
            affine(
                "stalls",
                "The same engine, but after 2 s of work on average a lane stands still for 200 ms.",
            ),
            25,
            |engine| engine.stalls = Some(Stalls { every: ms(2000), takes: ms(200) }),
        ),
        with(
            affine(
                "noisy neighbour",
                "The same engine, but in every other 2 s runs take twice as long. Capacity is that of the better times.",
            ),
            10,
            |engine| engine.phases = Some(Phases { length: ms(2000), factor: 2.0 }),
        ),
        with(
            affine("unsteady", "The same engine, but run times vary without measure (lognormal, sigma 1.2)."),
            4,
            |engine| engine.sigma = 1.2,
        ),
    ]
}

fn mixes() -> Vec<Scenario> {
    let weighted = Priorities::Weighted([8, 4, 2, 1, 1, 1, 1, 1, 1]);
    vec![
        affine(
            "mixed deadlines",
            "The same engine. A fifth of the requests have 30 ms, three fifths 100 ms, a fifth a second.",
        )
        .mixed(|mix| mix.timeouts = vec![(0.2, Some(ms(30))), (0.6, Some(ms(100))), (0.2, Some(ms(1000)))]),
        Scenario {
            engine: Engine { shapes: vec![1.0, 2.0, 4.0], ..affine("", "").engine },
            ..affine(
                "mixed shapes",
                "The same engine. Three shapes that cost 1, 2 and 4 times as much come as 7:2:1, at random.",
            )
            .mixed(|mix| mix.shapes = vec![(0.7, 0), (0.2, 1), (0.1, 2)])
        },
        affine("mixed rows", "The same engine. Requests have 1, 4 or 16 rows, as 8:3:1.")
            .mixed(|mix| mix.rows = vec![(8.0, 1), (3.0, 4), (1.0, 16)]),
        affine(
            "strict priorities",
            "The same engine. Requests of priority 1, 5 and 9 come as 1:2:2; strict.",
        )
        .mixed(|mix| mix.priorities = vec![(1.0, 1), (2.0, 5), (2.0, 9)]),
        Scenario {
            priorities: weighted,
            ..affine(
                "weighted priorities",
                "The same engine. Requests of priority 1, 2, 3 and 4 come as 1:1:1:1 and weigh 8:4:2:1.",
            )
            .mixed(|mix| mix.priorities = vec![(1.0, 1), (1.0, 2), (1.0, 3), (1.0, 4)])
        },
        Scenario {
            is_fair: true,
            ..affine(
                "greedy caller",
                "The same engine. One caller sends nine requests of ten, another the tenth; they take turns.",
            )
            .mixed(|mix| mix.callers = vec![(9.0, 1), (1.0, 2)])
        },
    ]
}

fn engines() -> Vec<Scenario> {
    let crayfish = Curve::Measured(vec![(1, 9.7e-6), (8, 1.6e-6), (32, 0.7e-6)]);
    let mobilenet = Curve::Measured(vec![(1, 1.0 / 285.0), (8, 1.0 / 250.0), (32, 1.0 / 236.0)]);
    let inception = Curve::Measured(vec![(1, 36e-3), (8, 37e-3), (32, 38e-3)]);
    let gpu = Curve::Flat { least: 5e-3, per_row: 0.15e-3 };
    let deep = Curve::Affine { fixed: 4e-3, per_row: 0.25e-3 };
    vec![
        Scenario::new(
            "Crayfish",
            "A small network as measured: 9.7, 1.6 and 0.7 µs a row in batches of 1, 8 and 32. Deadlines of 1 ms.",
            crayfish,
            32,
            ms(1),
        ),
        Scenario::new(
            "MobileNetV2",
            "As measured: 285 rows/s one by one, 236 in batches of 32. Deadlines of 100 ms.",
            mobilenet,
            32,
            ms(100),
        ),
        Scenario::new(
            "Inception v3",
            "As measured: 36 ms one by one, no less in batches. Deadlines of 400 ms, about ten runs.",
            inception,
            32,
            ms(400),
        ),
        Scenario::new(
            "GPU",
            "A run takes 5 ms, and 0.15 ms for each row once that is more. One lane, deadlines of 50 ms.",
            gpu.clone(),
            128,
            ms(50),
        )
        .on(1),
        Scenario::new(
            "GPU, tight",
            "The same with deadlines of 15 ms, three of the shortest runs.",
            gpu,
            128,
            ms(15),
        )
        .on(1),
        Scenario::new("four lanes", "The engine of the first scenario on 4 lanes.", deep, 64, ms(100)).on(4),
    ]
}

impl Scenario {
    fn mixed(mut self, edit: impl FnOnce(&mut Mix)) -> Scenario {
        edit(&mut self.mix);
        self
    }

    fn on(mut self, n_lanes: usize) -> Scenario {
        self.n_lanes = n_lanes;
        self
    }
}

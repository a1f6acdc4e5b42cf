//! CPU time per request, throughput and latency of each interface, beside a bare echo of a body of the same size.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::Common;
use crate::body::{Interface, echo_of};
use crate::load::{Call, Transport, closed_loop, once};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::stats::{digits, median, micros, quantile};
use crate::subject::Subject;

/// The aim: CPU per request less the model's own time, over the echo's.
const AIM: f64 = 1.5;

#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Rounds; each measures every interface and its echo once, and the figures are medians over rounds
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Length of one window of load with 16 in flight, in milliseconds; with one in flight it is half of that
    #[arg(long, default_value_t = 600)]
    window_ms: u64,
    /// Only interfaces and payloads whose label holds this text
    #[arg(long, default_value = "")]
    only: String,
    /// Measure the echoes against themselves, without Salver: shows the noise of the method
    #[arg(long)]
    echo_only: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { rounds: 7, window_ms: 600, only: String::new(), echo_only: false }
    }
}

/// The servers of one run.
struct Servers {
    rest_echo: Server,
    grpc_echo: Server,
    salver: Option<Server>,
}

impl Servers {
    fn echo(&self, transport: Transport) -> &Server {
        match transport {
            Transport::Rest => &self.rest_echo,
            Transport::Grpc => &self.grpc_echo,
        }
    }
}

/// One line of the result: an interface with a payload.
struct Cell {
    subject: &'static str,
    interface: Interface,
    call: Call,
    echo: Call,
    own_micros: f64,
    rounds: Vec<[Sides; 2]>,
}

/// The figures of one side in one round.
#[derive(Debug, Clone, Copy)]
struct Sides {
    cpu_micros: f64,
    per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
    /// With one in flight.
    alone_cpu_micros: f64,
    alone_p50_micros: f64,
    alone_p99_micros: f64,
}

pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let subjects = [Subject::tiny(common)?, Subject::picture()];
    let folder = tempfile::tempdir()?;
    let servers = start(common, settings, &subjects, folder.path())?;
    let mut cells = cells(&subjects, settings)?;
    for cell in &cells {
        check(cell, &servers)?;
    }
    for round in 0..settings.rounds {
        println!("round {} of {}", round + 1, settings.rounds);
        for cell in &mut cells {
            let sides = measure(cell, &servers, round % 2 == 1, Duration::from_millis(settings.window_ms))
                .with_context(|| format!("{} {}", cell.subject, cell.interface.label()))?;
            cell.rounds.push(sides);
        }
    }
    report(&cells, settings).publish(common)
}

fn start(
    common: &Common,
    settings: &Settings,
    subjects: &[Subject],
    folder: &std::path::Path,
) -> Result<Servers> {
    let (models, log) = (folder.join("models"), folder.join("log"));
    for subject in subjects {
        subject.install(&models, subject.name, 1)?;
    }
    let salver = match settings.echo_only {
        true => None,
        false => {
            let mut salver = Server::salver(&common.salver, &models, &[], &log)?;
            salver.wait_ready(&log)?;
            Some(salver)
        }
    };
    Ok(Servers {
        rest_echo: Server::echo(Transport::Rest)?,
        grpc_echo: Server::echo(Transport::Grpc)?,
        salver,
    })
}

fn cells(subjects: &[Subject], settings: &Settings) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for subject in subjects {
        let own_micros = match settings.echo_only {
            true => 0.0,
            false => micros(crate::model::own_time(subject)?),
        };
        for interface in Interface::ALL {
            let call = interface.call(subject, subject.name);
            let label = format!("{} {}", subject.label, interface.label());
            if label.contains(&settings.only) {
                let echo = echo_of(&call);
                cells.push(Cell {
                    subject: subject.label,
                    interface,
                    call,
                    echo,
                    own_micros,
                    rounds: Vec::new(),
                });
            }
        }
    }
    Ok(cells)
}

/// The side that is compared with the echo: Salver, or the echo itself.
fn measured<'a>(cell: &'a Cell, servers: &'a Servers) -> (&'a Server, &'a Call) {
    match &servers.salver {
        Some(salver) => (salver, &cell.call),
        None => (servers.echo(cell.interface.transport()), &cell.echo),
    }
}

/// Both sides answer before anything is measured.
fn check(cell: &Cell, servers: &Servers) -> Result<()> {
    let transport = cell.interface.transport();
    let (server, call) = measured(cell, servers);
    once(server.address(transport), call)
        .with_context(|| format!("{} {} is not answered", cell.subject, cell.interface.label()))?;
    once(servers.echo(transport).address(transport), &cell.echo).context("the echo does not answer")?;
    Ok(())
}

/// The echo and the measured server one after the other; which comes first changes from round to round.
fn measure(cell: &Cell, servers: &Servers, turned: bool, window: Duration) -> Result<[Sides; 2]> {
    let echo = || sides(servers.echo(cell.interface.transport()), &cell.echo, window).context("of the echo");
    let (server, call) = measured(cell, servers);
    let other = || sides(server, call, window).context("of the measured server");
    match turned {
        false => Ok([echo()?, other()?]),
        true => {
            let other = other()?;
            Ok([echo()?, other])
        }
    }
}

fn sides(server: &Server, call: &Call, window: Duration) -> Result<Sides> {
    let load = |in_flight, time| {
        let window = closed_loop(server, call, in_flight, time);
        window.with_context(|| if server.has_ended() { "the server has ended" } else { "the server runs" })
    };
    let (mut full, mut alone) = (load(16, window)?, load(1, window / 2)?);
    Ok(Sides {
        cpu_micros: micros(full.cpu) / full.latencies.len() as f64,
        per_second: full.latencies.len() as f64 / full.wall.as_secs_f64(),
        p50_micros: quantile(&mut full.latencies, 0.5),
        p99_micros: quantile(&mut full.latencies, 0.99),
        alone_cpu_micros: micros(alone.cpu) / alone.latencies.len() as f64,
        alone_p50_micros: quantile(&mut alone.latencies, 0.5),
        alone_p99_micros: quantile(&mut alone.latencies, 0.99),
    })
}

impl Cell {
    /// The median over rounds of one figure of one side.
    fn figure(&self, side: usize, figure: fn(&Sides) -> f64) -> f64 {
        median(self.rounds.iter().map(|round| figure(&round[side])))
    }

    /// The median over rounds of the ratio within a round.
    fn ratio(&self) -> f64 {
        median(self.rounds.iter().map(|[echo, other]| (other.cpu_micros - self.own_micros) / echo.cpu_micros))
    }

    fn cpu_row(&self) -> Vec<String> {
        let (echo, other) = (self.figure(0, |s| s.cpu_micros), self.figure(1, |s| s.cpu_micros));
        let mut row = vec![format!("{}, {}", self.subject, self.interface.label())];
        row.extend([echo, other, self.own_micros, other - self.own_micros].map(digits));
        row.push(format!("{:.2}", self.ratio()));
        row.push(if self.ratio() <= AIM { "yes" } else { "no" }.to_owned());
        row
    }

    fn rate_row(&self) -> Vec<String> {
        let mut row = vec![format!("{}, {}", self.subject, self.interface.label())];
        let figures: [fn(&Sides) -> f64; 3] =
            [|s| s.per_second, |s| s.alone_p50_micros, |s| s.alone_p99_micros];
        for figure in figures {
            row.extend([0, 1].map(|side| digits(self.figure(side, figure))));
        }
        row
    }

    fn value(&self) -> Value {
        let side = |side| {
            json!({
                "cpu_micros": self.figure(side, |s| s.cpu_micros),
                "requests_per_second": self.figure(side, |s| s.per_second),
                "p50_micros": self.figure(side, |s| s.p50_micros),
                "p99_micros": self.figure(side, |s| s.p99_micros),
                "one_in_flight": {
                    "cpu_micros": self.figure(side, |s| s.alone_cpu_micros),
                    "p50_micros": self.figure(side, |s| s.alone_p50_micros),
                    "p99_micros": self.figure(side, |s| s.alone_p99_micros),
                },
            })
        };
        json!({
            "model": self.subject,
            "interface": self.interface.label(),
            "request_bytes": self.call.body.len(),
            "model_micros": self.own_micros,
            "echo": side(0),
            "salver": side(1),
            "ratio": self.ratio(),
        })
    }
}

fn report(cells: &[Cell], settings: &Settings) -> Report {
    Report {
        name: "serve",
        title: "Serving: CPU time, throughput and latency of each interface",
        notes: vec![
            format!(
                "Closed loop with 16 requests in flight, {} rounds of {} ms per side; the sides alternate and every \
                 figure is the median over the rounds. CPU time is that of the server's process alone, from the \
                 scheduler's nanoseconds. The load generator runs on the same cores.",
                settings.rounds, settings.window_ms
            ),
            "The echo is bare hyper for REST and bare tonic for gRPC: a process of its own that reads a body of the \
             same size and gives a small fixed answer. The model's own time is that of one run inside the engine's \
             thread pool, in process. The ratio is (Salver - model) / echo within a round; the aim is 1.5."
                .to_owned(),
        ],
        tables: vec![
            Table {
                title: "Server CPU time per request, in µs".to_owned(),
                head: vec!["request", "echo", "Salver", "model", "Salver - model", "ratio", "within 1.5"],
                rows: cells.iter().map(Cell::cpu_row).collect(),
            },
            Table {
                title: "Requests per second with 16 in flight; latency in µs with one in flight".to_owned(),
                head: vec![
                    "request",
                    "echo /s",
                    "Salver /s",
                    "echo p50",
                    "Salver p50",
                    "echo p99",
                    "Salver p99",
                ],
                rows: cells.iter().map(Cell::rate_row).collect(),
            },
        ],
        figures: cells.iter().map(Cell::value).collect(),
    }
}

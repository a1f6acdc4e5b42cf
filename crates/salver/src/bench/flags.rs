//! What can be said to `salver bench`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use salver_load::{Goal, Protocol, Target, read_time};
use salver_wire::json::Format;

/// Measure a server: send it requests at a rate and see what comes back.
///
/// Works against any server that speaks the TensorFlow Serving interfaces or the Open Inference Protocol. In an open loop
/// (--rate, --trace), requests leave at moments of their own and latency counts from the moment a request was meant to leave; in
/// a closed loop (--concurrency), each answer is followed by the next request. See docs/bench.md.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("load").args(["rate", "concurrency", "trace", "rates", "find_rate"])))]
pub(crate) struct BenchArgs {
    /// The server: HOST:PORT, grpc://HOST:PORT or http://HOST:PORT.
    #[arg(value_name = "SERVER")]
    pub(super) target: Target,
    /// The model to ask.
    #[arg(long, short = 'm', value_name = "NAME")]
    pub(super) model: String,
    /// Its version; the highest unless it is given.
    #[arg(long, value_name = "N")]
    pub(super) model_version: Option<i64>,
    /// Its signature; serving_default unless it is given.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) signature: String,
    /// tfs-grpc, tfs-rest, oip-grpc, oip-rest or oip-rest-binary. Default: TensorFlow Serving's, by the address.
    #[arg(long, value_name = "NAME")]
    pub(super) protocol: Option<Protocol>,

    /// Open loop: requests per second.
    #[arg(long, value_name = "RATE", help_heading = "Load")]
    pub(super) rate: Option<f64>,
    /// How the moments of an open loop are spread.
    #[arg(long, value_enum, default_value_t = Spread::Poisson, help_heading = "Load")]
    pub(super) arrivals: Spread,
    /// Open loop: moments in seconds, one on each line, or a CSV file with a column `time`.
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    pub(super) trace: Option<PathBuf>,
    /// How many times as fast as recorded the trace is played.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, help_heading = "Load")]
    pub(super) trace_speed: f64,
    /// Closed loop: so many requests are always on their way. What is done unless something else is said, with 8.
    #[arg(long, short = 'c', value_name = "N", help_heading = "Load")]
    pub(super) concurrency: Option<usize>,
    /// Open loops, one after the other: requests per second, between commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Load")]
    pub(super) rates: Vec<f64>,
    /// Search for the highest rate that meets --goal.
    #[arg(long, requires = "goal", help_heading = "Load")]
    pub(super) find_rate: bool,
    /// Where the search begins, in requests per second; by default, from a short look.
    #[arg(long, value_name = "RATE", requires = "find_rate", help_heading = "Load")]
    pub(super) start_rate: Option<f64>,
    /// How near the search comes, as a share of the rate.
    #[arg(long, value_name = "SHARE", default_value_t = 0.03, help_heading = "Load")]
    pub(super) precision: f64,
    /// Of all random numbers.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub(super) seed: u64,

    /// Counted from the moment a request was meant to leave; what is left of it is sent along, and later answers are late. As 100ms, 1.5s.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Requests")]
    pub(super) deadline: Option<Duration>,
    /// Rows of each request that is made up.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Requests")]
    pub(super) batch: usize,
    /// The whole shape of an input, as image:1,224,224,3; open dimensions are 1 otherwise. May be repeated.
    #[arg(long, value_name = "INPUT:DIMS", value_parser = shape, help_heading = "Requests")]
    pub(super) shape: Vec<(String, Vec<usize>)>,
    /// A value for string inputs. May be repeated.
    #[arg(long, value_name = "TEXT", help_heading = "Requests")]
    pub(super) text: Vec<String>,
    /// How many different requests are made up and sent in turn.
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Requests")]
    pub(super) bodies: usize,
    /// What is sent instead: JSON (one body, or one on each line), a serialized request, or records of PredictionLog such as
    /// tf_serving_warmup_requests. May be repeated.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["batch", "shape", "text", "bodies"], help_heading = "Requests")]
    pub(super) body: Vec<PathBuf>,
    /// How TensorFlow Serving's JSON is laid out.
    #[arg(long, value_enum, default_value_t = Layout::Row, help_heading = "Requests")]
    pub(super) format: Layout,
    /// One more header, or of gRPC metadata. May be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE", value_parser = header, help_heading = "Requests")]
    pub(super) headers: Vec<(String, String)>,

    /// What is sent before this time is over counts for nothing. Default: 2s, with a trace 0s.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Time")]
    pub(super) warm_up: Option<Duration>,
    /// The length of a window.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time, help_heading = "Time")]
    pub(super) window: Duration,
    /// Measure for so long. Default: until windows are alike, with a trace to its end.
    #[arg(long, short = 'd', value_name = "TIME", value_parser = time, help_heading = "Time")]
    pub(super) duration: Option<Duration>,
    /// Give up waiting for windows that are alike.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, help_heading = "Time")]
    pub(super) max_duration: Duration,
    /// How many windows in a row have to be alike.
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "Time")]
    pub(super) stable_windows: usize,
    /// How far rates and 99th percentiles of windows that are alike may be apart, as a share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, help_heading = "Time")]
    pub(super) stable_within: f64,
    /// How long an answer is waited for.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, help_heading = "Time")]
    pub(super) timeout: Duration,

    /// Threads that send.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Generator")]
    pub(super) threads: usize,
    /// Connections for gRPC. REST has one for each request on its way.
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Generator")]
    pub(super) connections: usize,
    /// The most requests of an open loop on their way; more are counted as not sent.
    #[arg(long, value_name = "N", default_value_t = 4096, help_heading = "Generator")]
    pub(super) max_in_flight: usize,
    /// The server's process, for its processor time and memory. Default: the one that listens, if it is on this machine.
    #[arg(long, value_name = "PID", help_heading = "Generator")]
    pub(super) pid: Option<u32>,

    /// Hold equal requests to equal answers. Costs the generator the decoding of all answers.
    #[arg(long, help_heading = "Judgement")]
    pub(super) check: bool,
    /// Hold all answers to this one: a body as the server sends it (of gRPC, the serialized message). For one request in --body.
    #[arg(long, value_name = "FILE", requires = "body", help_heading = "Judgement")]
    pub(super) expect: Option<PathBuf>,
    /// How far numbers of answers may be apart, as a share of their size.
    #[arg(long, value_name = "SHARE", default_value_t = 1e-4, help_heading = "Judgement")]
    pub(super) tolerance: f64,
    /// What has to hold, as p99=50ms,errors=0.1%; else the exit code is 3. Errors are requests without an answer in time.
    #[arg(long, value_name = "BOUNDS", help_heading = "Judgement")]
    pub(super) goal: Option<Goal>,
    /// End with exit code 3 when this happened, between commas.
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',', help_heading = "Judgement")]
    pub(super) fail_on: Vec<FailOn>,

    /// Write all figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) json: Option<PathBuf>,
    /// Write a report with plots.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) html: Option<PathBuf>,
}

/// How moments are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Spread {
    /// At random, as callers do who know nothing of each other.
    Poisson,
    /// Evenly.
    Constant,
}

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Layout {
    /// By rows: `instances`.
    Row,
    /// By tensors: `inputs`.
    Columnar,
}

impl From<Layout> for Format {
    fn from(layout: Layout) -> Format {
        match layout {
            Layout::Row => Format::Row,
            Layout::Columnar => Format::Columnar,
        }
    }
}

/// What may not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FailOn {
    /// A request that failed or was answered wrongly.
    Errors,
    /// A request that was refused, or past its deadline at the server.
    Refused,
    /// An answer after its deadline, or a request that could not leave before it.
    Late,
    /// A run that is not valid.
    Invalid,
}

impl BenchArgs {
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or_else(|| self.target.default_protocol())
    }

    pub(super) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.shape.iter().cloned().collect()
    }
}

fn time(text: &str) -> Result<Duration, String> {
    read_time(text).ok_or_else(|| format!("'{text}' is no time, expected one such as 100ms, 1.5s or 2m"))
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = || format!("'{text}' is no shape of an input, expected one such as image:1,224,224,3");
    let (name, dims) = text.rsplit_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let dims = dims.trim_matches(['[', ']']);
    let dims = match dims.is_empty() {
        true => Ok(Vec::new()),
        false => dims.split(',').map(|dim| dim.trim().parse::<usize>()).collect(),
    };
    dims.map(|dims| (name.to_owned(), dims)).map_err(|_| wrong())
}

fn header(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    parts
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("'{text}' is no header, expected NAME:VALUE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_headers_are_read() {
        assert_eq!(shape("x:1,2"), Ok(("x".to_owned(), vec![1, 2])));
        assert_eq!(shape("a:b:[3]"), Ok(("a:b".to_owned(), vec![3])));
        assert_eq!(shape("x:"), Ok(("x".to_owned(), vec![])));
        assert_eq!(header("x-priority: high:1"), Ok(("x-priority".to_owned(), "high:1".to_owned())));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["x", ":1", "x:1,a", "x:-1"] {
            assert!(shape(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
        assert!(header("x").is_err() && header(":x").is_err() && time("3").is_err());
    }
}

//! What can be said to `salver stream` on the command line. Text only; [`super::file`] holds the same and more as a file, and
//! [`super::config`] puts both together.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::place::Place;
use crate::flags::LogFormat;
use crate::runtime::RuntimeDir;

/// Score a stream: records of a Kafka topic, a file or standard input in, answers out.
///
/// The model runs in this process (--model PATH) or on servers that are asked (--remote HOST:PORT --model NAME). Order is kept
/// per key, records are joined to batches, and positions are committed only once answers last. See docs/stream.md.
#[derive(Debug, Clone, Args)]
pub(crate) struct StreamArgs {
    /// Where records come from: kafka://HOST:PORT/TOPIC (several brokers between commas), a .jsonl or .csv file, or - for
    /// standard input.
    #[arg(long, value_name = "PLACE", help_heading = "Records")]
    pub(super) from: Option<Place>,
    /// Where answers go, in the same forms.
    #[arg(long, value_name = "PLACE", help_heading = "Records")]
    pub(super) to: Option<Place>,
    /// Where records go that cannot be answered: a topic beside that of --to, a file, or none. Default: OUTPUT.dead.jsonl
    /// beside a file, none else; then such a record ends the run.
    #[arg(long, value_name = "PLACE", help_heading = "Records")]
    pub(super) dead_letters: Option<String>,
    /// TOML file that says the same as the flags, and more; flags win over it.
    #[arg(long, value_name = "FILE", help_heading = "Records")]
    pub(super) config: Option<PathBuf>,
    /// What the values of records are: json, csv, raw, predict_request, example, image, avro or protobuf. Default: csv
    /// for CSV files, json otherwise.
    #[arg(long, value_name = "FORMAT", help_heading = "Records")]
    pub(super) format: Option<String>,

    /// The model: a model file, a version folder or a folder with versions; with --remote, its name there.
    #[arg(long, short = 'm', value_name = "PATH|NAME", help_heading = "Model")]
    pub(super) model: Option<String>,
    /// Servers to ask instead of running the model here: HOST:PORT, between commas. They speak TensorFlow Serving's gRPC or
    /// REST, or the Open Inference Protocol.
    #[arg(long, value_name = "HOSTS", help_heading = "Model")]
    pub(super) remote: Option<String>,
    /// The version; the highest that is available unless it is given. With --remote, a label will do.
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub(super) model_version: Option<String>,
    /// The signature; serving_default unless it is given.
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(super) signature: Option<String>,
    /// Time that one answer may take, in milliseconds.
    #[arg(long, value_name = "MS", help_heading = "Model")]
    pub(super) timeout_ms: Option<u64>,

    /// Engine: auto, embedded, onnxruntime, openvino or tensorflow. Default: what the model's salver.toml says, else auto.
    #[arg(long, value_name = "NAME", help_heading = "Engines")]
    pub(super) engine: Option<String>,
    /// Precision: f32, bf16 or int8. Default: what the model's salver.toml says, else f32.
    #[arg(long, value_name = "NAME", help_heading = "Engines")]
    pub(super) precision: Option<String>,
    #[command(flatten)]
    pub(super) dir: RuntimeDir,
    /// Look for new versions every so many seconds; 0 looks once.
    #[arg(long = "file_system_poll_wait_seconds", value_name = "SECONDS", help_heading = "Engines")]
    pub(super) poll_seconds: Option<u64>,

    /// Each answer at least once, or exactly once. Default: exactly once where both ends can do it (topic to topic, file to
    /// file).
    #[arg(long, value_enum, help_heading = "Delivery")]
    pub(super) delivery: Option<Delivery>,
    /// Consumer group. Default: salver-MODEL; a replay has one of its own.
    #[arg(long, value_name = "NAME", help_heading = "Delivery")]
    pub(super) group: Option<String>,
    /// Time between two commits, in milliseconds. Default: 100 with exactly once, else 1000.
    #[arg(long, value_name = "MS", help_heading = "Delivery")]
    pub(super) commit_ms: Option<u64>,
    /// Time that what is under way gets to finish after SIGTERM, in seconds. Default: 30.
    #[arg(long, value_name = "SECONDS", help_heading = "Delivery")]
    pub(super) grace: Option<u64>,
    /// Begin a file anew: forget how far an earlier run came, and write over what it wrote.
    #[arg(long, help_heading = "Delivery")]
    pub(super) restart: bool,

    /// Records that are joined to one call of the model at most. Default: 64.
    #[arg(long, value_name = "N", help_heading = "Speed")]
    pub(super) batch: Option<NonZeroUsize>,
    /// Threads that decode records, call the model and encode answers. Default: one per processor.
    #[arg(long, value_name = "N", help_heading = "Speed")]
    pub(super) workers: Option<NonZeroUsize>,
    /// Calls of the model that each of them has under way at a time. Default: 2; with --remote 8.
    #[arg(long, value_name = "N", help_heading = "Speed")]
    pub(super) in_flight: Option<NonZeroUsize>,

    /// Read a part of the topic, then exit: from this offset of every partition, or earliest.
    #[arg(long, value_name = "OFFSET", help_heading = "Replay", conflicts_with = "from_time")]
    pub(super) from_offset: Option<String>,
    /// The same from the first record of this time: 2026-11-23T08:00:00Z, or milliseconds since 1970.
    #[arg(long, value_name = "TIME", help_heading = "Replay")]
    pub(super) from_time: Option<String>,
    /// The same until before this time or offset, or what is there when the run starts (end, the default).
    #[arg(long, value_name = "TIME|OFFSET|end", help_heading = "Replay")]
    pub(super) until: Option<String>,
    /// The same of these partitions alone, between commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Replay")]
    pub(super) partitions: Vec<i32>,
    /// Records per second at most.
    #[arg(long, value_name = "N", help_heading = "Replay")]
    pub(super) rate: Option<f64>,

    /// Show what becomes of the first record, and how many of the first 100 can be read; then exit. Nothing is written or
    /// committed.
    #[arg(long, alias = "check", help_heading = "Tools")]
    pub(super) dry_run: bool,
    /// Print all settings, as a file that --config takes; then exit.
    #[arg(long, help_heading = "Tools")]
    pub(super) print_config: bool,
    /// A progress bar or a live line on a terminal and lines in the log elsewhere (auto), or neither (off).
    #[arg(long, value_enum, default_value_t = Progress::Auto, help_heading = "Tools")]
    pub(super) progress: Progress,

    /// Port for /metrics, /livez and /readyz. Default: none.
    #[arg(long = "metrics_port", alias = "metrics-port", value_name = "PORT", help_heading = "Telemetry")]
    pub(super) metrics_port: Option<u16>,
    /// Address that the port is bound on. Default: 0.0.0.0.
    #[arg(long, value_name = "ADDRESS", help_heading = "Telemetry")]
    pub(super) host: Option<IpAddr>,
    /// Form of the log.
    #[arg(long = "log_format", value_enum, default_value_t = LogFormat::Text, help_heading = "Telemetry")]
    pub(super) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,salver_stream=debug`.
    #[arg(long = "log_level", default_value = "info", help_heading = "Telemetry")]
    pub(super) log_level: String,
}

/// How often each record is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Delivery {
    /// Answers are written again after a crash.
    AtLeastOnce,
    /// Answers and positions last together or not at all.
    ExactlyOnce,
}

/// What a person sees while records are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// By where standard error goes.
    Auto,
    /// Only what the log says.
    Off,
}

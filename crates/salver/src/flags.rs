//! The command line: what can be said, with its defaults. Text only; [`crate::config`] gives it meaning.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::batching::Mode;
use crate::bench::BenchArgs;
use crate::convert::ConvertArgs;
use crate::doctor::DoctorArgs;
use crate::inspect::InspectArgs;
use crate::runtime::{RuntimeArgs, RuntimeDir};
use crate::stream::StreamArgs;
use crate::tune::TuneArgs;
use crate::worker::WorkerArgs;

/// A model server: trained models behind REST and gRPC.
#[derive(Debug, Parser)]
#[command(name = "salver", version, about, long_about = None, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve models over REST and gRPC.
    ///
    /// Each PATH is a model file, a version folder, a folder with numeric version folders, or a folder of models.
    Serve(Box<ServeArgs>),
    Stream(Box<StreamArgs>),
    /// Show what is in a model: signatures, operators, sizes, costs.
    Inspect(InspectArgs),
    /// Write a model as ONNX.
    Convert(ConvertArgs),
    EngineWorker(WorkerArgs),
    /// Find out on what a model runs best on this machine, and keep that beside the model.
    Tune(Box<TuneArgs>),
    Bench(Box<BenchArgs>),
    Runtime(RuntimeArgs),
    Doctor(DoctorArgs),
}

/// A flag that is a switch: `--name`, `--name=true` or `--name=false`.
macro_rules! switches {
    ($($(#[$meta:meta])* $name:ident = $default:literal;)*) => {
        /// Switches of TensorFlow Serving and Salver, in the form `--name`, `--name=true` or `--name=false`.
        #[derive(Debug, Clone, Args)]
        pub(crate) struct Switches {
            $(
                $(#[$meta])*
                #[arg(
                    long = stringify!($name), default_value_t = $default, num_args = 0..=1, require_equals = true,
                    default_missing_value = "true", value_name = "BOOL",
                )]
                pub(crate) $name: bool,
            )*
        }
    };
}

switches! {
    /// Join concurrent requests as TensorFlow Serving does, by its parameters, in place of Salver's own batching.
    #[arg(help_heading = "Batching")]
    enable_batching = false;
    /// The same by the batching_params.pbtxt in each version folder; a version without it is not batched.
    #[arg(help_heading = "Batching")]
    enable_per_model_batching_parameters = false;
    /// Let a new label point at a version that is not available yet when a configuration is applied again.
    #[arg(help_heading = "Models")]
    allow_version_labels_for_unavailable_models = false;
    /// Replay assets.extra/tf_serving_warmup_requests before a version becomes available.
    #[arg(help_heading = "Models")]
    enable_model_warmup = true;
    /// Add CORS headers to REST answers.
    #[arg(help_heading = "Network")]
    rest_api_enable_cors_support = false;
    /// Serve REST over TLS too, with the certificates of --ssl_config_file.
    #[arg(help_heading = "Network")]
    rest_api_tls = false;
    /// Answer Predict with packed tensor bytes instead of one field per element.
    #[arg(help_heading = "Network")]
    enable_serialization_as_tensor_content = false;
    /// Serve grpc.health.v1.
    #[arg(help_heading = "Network")]
    enable_grpc_healthcheck_service = true;
    /// Let requests change what is served: reload over gRPC, load and unload of the model repository.
    #[arg(help_heading = "Network")]
    model_control = true;
    /// Behave as TensorFlow Serving does also where that is a fault (see docs/compatibility.md).
    #[arg(help_heading = "Compatibility")]
    strict_compatibility = false;
    /// Log one line per request.
    #[arg(help_heading = "Telemetry")]
    access_log = false;
    /// Require that a signature's method name fits the call.
    #[arg(help_heading = "Compatibility")]
    enable_signature_method_name_check = false;
    #[arg(hide = true)]
    flush_filesystem_caches = true;
    #[arg(hide = true)]
    remove_unused_fields_from_bundle_metagraph = true;
    #[arg(hide = true)]
    prefer_tflite_model = false;
    #[arg(hide = true)]
    use_alts_credentials = false;
    #[arg(hide = true)]
    xla_cpu_compilation_enabled = false;
    #[arg(hide = true)]
    xla_gpu_compilation_enabled = false;
    #[arg(hide = true)]
    enable_profiler = true;
    #[arg(hide = true)]
    skip_initialize_tpu = false;
}

/// Everything that `salver serve` takes. Names and defaults of TensorFlow Serving's flags are its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Model files, version folders, model folders or folders of models.
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) switches: Switches,

    /// Port for gRPC; 0 turns it off.
    #[arg(long = "port", default_value_t = 8500, help_heading = "Network")]
    pub(crate) port: u16,
    /// Port for REST; 0 turns it off.
    #[arg(long = "rest_api_port", default_value_t = 8501, help_heading = "Network")]
    pub(crate) rest_api_port: u16,
    /// Address that the ports are bound on.
    #[arg(long = "host", default_value = "0.0.0.0", help_heading = "Network")]
    pub(crate) host: std::net::IpAddr,
    /// Also serve gRPC on this UNIX socket.
    #[arg(
        long = "grpc_socket_path",
        default_value = "",
        hide_default_value = true,
        help_heading = "Network"
    )]
    pub(crate) grpc_socket_path: String,
    /// Port for metrics of their own; they are on the REST port in any case.
    #[arg(long = "metrics_port", help_heading = "Network")]
    pub(crate) metrics_port: Option<u16>,
    /// Text proto with key, certificate and client authority for TLS.
    #[arg(long = "ssl_config_file", default_value = "", hide_default_value = true, help_heading = "Network")]
    pub(crate) ssl_config_file: String,
    /// Time that a REST request may take, in milliseconds.
    #[arg(long = "rest_api_timeout_in_ms", default_value_t = 30_000, help_heading = "Network")]
    pub(crate) rest_api_timeout_in_ms: u64,
    /// How REST answers write NaN and infinities, for which JSON has no form.
    #[arg(long = "rest_api_non_finite", value_enum, default_value_t = NonFinite::Literal, help_heading = "Network")]
    pub(crate) rest_api_non_finite: NonFinite,
    /// Time that requests in flight get to finish after SIGTERM, in seconds.
    #[arg(long = "grace_period_seconds", default_value_t = 30, help_heading = "Network")]
    pub(crate) grace_period_seconds: u64,

    /// Which graph of a SavedModel is loaded: its tags, all of them, between commas.
    #[arg(long = "saved_model_tags", default_value = "serve", help_heading = "Models")]
    pub(crate) saved_model_tags: String,
    /// Name of the model, when one model is served.
    #[arg(long = "model_name", help_heading = "Models")]
    pub(crate) model_name: Option<String>,
    /// Folder with the model's numeric version folders; as PATH.
    #[arg(long = "model_base_path", default_value = "", hide_default_value = true, help_heading = "Models")]
    pub(crate) model_base_path: String,
    /// Text proto that lists the models to serve; not together with PATH, and instead of the two flags above.
    #[arg(
        long = "model_config_file",
        default_value = "",
        hide_default_value = true,
        help_heading = "Models"
    )]
    pub(crate) model_config_file: String,
    /// Read the model config file again every so many seconds; 0 reads it once.
    #[arg(long = "model_config_file_poll_wait_seconds", default_value_t = 0, help_heading = "Models")]
    pub(crate) model_config_file_poll_wait_seconds: u64,
    /// Look for new versions every so many seconds; 0 looks once, a negative number never.
    #[arg(
        long = "file_system_poll_wait_seconds",
        default_value_t = 1,
        allow_negative_numbers = true,
        help_heading = "Models"
    )]
    pub(crate) file_system_poll_wait_seconds: i64,
    /// Threads that load models; 0 picks a number.
    #[arg(long = "num_load_threads", default_value_t = 0, help_heading = "Models")]
    pub(crate) num_load_threads: usize,
    /// Threads that drop models; 0 picks a number.
    #[arg(long = "num_unload_threads", default_value_t = 0, help_heading = "Models")]
    pub(crate) num_unload_threads: usize,
    /// How often a load is tried again after an error that can pass.
    #[arg(long = "max_num_load_retries", default_value_t = 5, help_heading = "Models")]
    pub(crate) max_num_load_retries: u32,
    /// First pause between two tries; it doubles with each.
    #[arg(long = "load_retry_interval_micros", default_value_t = 1_000_000, help_heading = "Models")]
    pub(crate) load_retry_interval_micros: u64,
    /// How often each warm-up record is replayed; 0 means once.
    #[arg(long = "num_request_iterations_for_warmup", default_value_t = 0, help_heading = "Models")]
    pub(crate) num_request_iterations_for_warmup: u32,
    /// Unload a version before its successor loads, for machines that cannot hold both.
    #[arg(long = "version_transition", value_enum, default_value_t = Transition::AvailabilityPreserving, help_heading = "Models")]
    pub(crate) version_transition: Transition,

    /// Join concurrent requests: natural (what comes while a model is busy is its next batch), deferred (requests wait as long as
    /// their deadlines allow) or off. Default: what --config and the salver.toml of a version say, else natural.
    #[arg(long = "batching", value_enum, help_heading = "Batching")]
    pub(crate) batching: Option<Mode>,
    /// Rows of requests that are joined at most; 1 joins none. Default: what --config and the salver.toml of a version say,
    /// else 128.
    #[arg(long = "max_batch_size", help_heading = "Batching")]
    pub(crate) max_batch_size: Option<NonZeroUsize>,
    /// Time that a request has which brings no deadline, in milliseconds. Default: what --config and the salver.toml of a
    /// version say, else no end.
    #[arg(long = "default_timeout_ms", allow_negative_numbers = true, help_heading = "Batching")]
    pub(crate) default_timeout_ms: Option<f64>,
    /// Time that batches of rising size are tried before a version is available, to know what they cost, in milliseconds; 0
    /// tries none. Whether requests may be joined at all is checked in any case, which costs a few runs.
    #[arg(long = "batch_trial_ms", default_value_t = 300, help_heading = "Batching")]
    pub(crate) batch_trial_ms: u64,
    /// Header (and gRPC metadata) that says who asks, for callers that take turns.
    #[arg(long = "caller_header", default_value = "salver-caller", help_heading = "Batching")]
    pub(crate) caller_header: String,
    /// Text proto with batching parameters; needs --enable_batching.
    #[arg(
        long = "batching_parameters_file",
        default_value = "",
        hide_default_value = true,
        help_heading = "Batching"
    )]
    pub(crate) batching_parameters_file: String,

    /// Engine for all models: auto, embedded, onnxruntime, openvino or tensorflow. Default: what --config and the
    /// salver.toml of a version say, else auto.
    #[arg(long = "engine", help_heading = "Engines")]
    pub(crate) engine: Option<String>,
    /// Precision for all models: f32, bf16 or int8. Default: what --config and the salver.toml of a version say, else f32.
    #[arg(long = "precision", help_heading = "Engines")]
    pub(crate) precision: Option<String>,
    /// TOML file with settings for all models and for some by name (see docs/engines.md).
    #[arg(long = "config", default_value = "", hide_default_value = true, help_heading = "Engines")]
    pub(crate) config: String,
    #[command(flatten)]
    pub(crate) dir: RuntimeDir,
    /// Run each model's engine in a process of its own, so that one that crashes takes no other with it. Default: what
    /// --config and the salver.toml of a version say, else false.
    #[arg(
        long = "isolate", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        help_heading = "Engines"
    )]
    pub(crate) isolate: Option<bool>,
    /// Keep the lanes of each model on processors of their own. Default: what --config and the salver.toml of a version
    /// say, else false.
    #[arg(
        long = "pin", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        help_heading = "Threads"
    )]
    pub(crate) pin: Option<bool>,

    /// Threads that serve the network; 0 means one per processor.
    #[arg(long = "worker_threads", default_value_t = 0, help_heading = "Threads")]
    pub(crate) worker_threads: usize,
    /// Threads that the runs of all models use together; 0 means one per processor.
    #[arg(long = "compute_threads", default_value_t = 0, help_heading = "Threads")]
    pub(crate) compute_threads: usize,
    /// Runs of one model at a time; 0 means as many as there are processors for, unless settings say so.
    #[arg(long = "lanes", default_value_t = 0, help_heading = "Threads")]
    pub(crate) lanes: usize,
    /// Threads that one run of a model uses; 0 means 1, unless settings say so.
    #[arg(long = "tensorflow_intra_op_parallelism", default_value_t = 0, help_heading = "Threads")]
    pub(crate) tensorflow_intra_op_parallelism: i64,
    /// Kept for compatibility: one operator of a run is computed at a time.
    #[arg(long = "tensorflow_inter_op_parallelism", default_value_t = 0, help_heading = "Threads")]
    pub(crate) tensorflow_inter_op_parallelism: i64,
    /// As --tensorflow_intra_op_parallelism; not to be combined with it.
    #[arg(long = "tensorflow_session_parallelism", default_value_t = 0, help_heading = "Threads")]
    pub(crate) tensorflow_session_parallelism: i64,

    /// Largest request body in bytes.
    #[arg(long = "max_body_bytes", default_value_t = 256 << 20, help_heading = "Limits")]
    pub(crate) max_body_bytes: usize,
    /// Largest request body in bytes after decompression.
    #[arg(long = "max_decompressed_bytes", default_value_t = 256 << 20, help_heading = "Limits")]
    pub(crate) max_decompressed_bytes: usize,
    /// Bytes of request bodies held at one time.
    #[arg(long = "max_bytes_in_flight", default_value_t = 1 << 30, help_heading = "Limits")]
    pub(crate) max_bytes_in_flight: usize,
    /// Requests that may wait for one model. Default: what --config and the salver.toml of a version say, else 1000.
    #[arg(long = "max_queue", help_heading = "Limits")]
    pub(crate) max_queue: Option<usize>,
    /// Deepest nesting of a JSON body.
    #[arg(long = "max_json_depth", default_value_t = 64, help_heading = "Limits")]
    pub(crate) max_json_depth: usize,
    /// Most elements that one tensor of a request may have.
    #[arg(long = "max_tensor_elements", default_value_t = 1 << 28, help_heading = "Limits")]
    pub(crate) max_tensor_elements: usize,
    /// Open connections.
    #[arg(long = "max_connections", default_value_t = 10_000, help_heading = "Limits")]
    pub(crate) max_connections: usize,
    /// Bytes of a request's headers.
    #[arg(long = "max_header_bytes", default_value_t = 64 << 10, help_heading = "Limits")]
    pub(crate) max_header_bytes: usize,
    /// Time that a client may take to send headers, or to make progress with a body, in milliseconds.
    #[arg(long = "client_timeout_in_ms", default_value_t = 30_000, help_heading = "Limits")]
    pub(crate) client_timeout_in_ms: u64,

    /// Form of the log.
    #[arg(long = "log_format", value_enum, default_value_t = LogFormat::Text, help_heading = "Telemetry")]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,salver_servable=debug`.
    #[arg(long = "log_level", default_value = "info", help_heading = "Telemetry")]
    pub(crate) log_level: String,
    /// Text proto that sets the path of the metrics on the REST port.
    #[arg(
        long = "monitoring_config_file",
        default_value = "",
        hide_default_value = true,
        help_heading = "Telemetry"
    )]
    pub(crate) monitoring_config_file: String,

    #[command(flatten)]
    pub(crate) without_effect: WithoutEffect,
}

/// TensorFlow Serving's flags that are taken and have nothing to act on here; each that is set gets a note in the log.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
pub(crate) struct WithoutEffect {
    #[arg(long, hide = true)]
    rest_api_num_threads: Option<i64>,
    #[arg(long, hide = true)]
    tensorflow_session_config_file: Option<String>,
    #[arg(long, hide = true)]
    per_process_gpu_memory_fraction: Option<f32>,
    #[arg(long, hide = true)]
    platform_config_file: Option<String>,
    #[arg(long, hide = true)]
    grpc_channel_arguments: Option<String>,
    #[arg(long, hide = true)]
    grpc_max_threads: Option<i64>,
    #[arg(long, hide = true)]
    num_tflite_pools: Option<i64>,
    #[arg(long, hide = true)]
    num_tflite_interpreters_per_pool: Option<i64>,
    #[arg(long, hide = true)]
    thread_pool_factory_config_file: Option<String>,
    #[arg(long, hide = true)]
    mixed_precision: Option<String>,
}

/// Which of two versions of a model gives way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transition {
    /// Load the new version, then unload the old one.
    AvailabilityPreserving,
    /// Unload the old version, then load the new one.
    ResourcePreserving,
}

/// How numbers are written that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NonFinite {
    /// As TensorFlow Serving does: NaN, Infinity, -Infinity. Many JSON readers take them, some do not.
    Literal,
    /// As null.
    Null,
    /// As strings.
    String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object per line.
    Json,
}

impl WithoutEffect {
    /// The flags that were given, each with why it does nothing.
    pub(crate) fn notes(&self) -> Vec<(&'static str, &'static str)> {
        let all = [
            (
                self.rest_api_num_threads.is_some(),
                "rest_api_num_threads",
                "--worker_threads sets the threads of both interfaces",
            ),
            (
                self.tensorflow_session_config_file.is_some(),
                "tensorflow_session_config_file",
                "models do not run in a TensorFlow session here",
            ),
            (
                self.per_process_gpu_memory_fraction.is_some(),
                "per_process_gpu_memory_fraction",
                "models run on the processor",
            ),
            (
                self.platform_config_file.is_some(),
                "platform_config_file",
                "a model's platform is told by its content",
            ),
            (
                self.grpc_channel_arguments.is_some(),
                "grpc_channel_arguments",
                "limits have flags of their own",
            ),
            (
                self.grpc_max_threads.is_some(),
                "grpc_max_threads",
                "--worker_threads sets the threads of both interfaces",
            ),
            (
                self.num_tflite_pools.is_some(),
                "num_tflite_pools",
                "TensorFlow Lite models are not loaded by this version",
            ),
            (
                self.num_tflite_interpreters_per_pool.is_some(),
                "num_tflite_interpreters_per_pool",
                "TensorFlow Lite models are not loaded by this version",
            ),
            (
                self.thread_pool_factory_config_file.is_some(),
                "thread_pool_factory_config_file",
                "--lanes and --tensorflow_intra_op_parallelism set the threads of a model",
            ),
            (
                self.mixed_precision.is_some(),
                "mixed_precision",
                "--precision sets what models are computed in",
            ),
        ];
        all.into_iter().filter(|(given, ..)| *given).map(|(_, name, why)| (name, why)).collect()
    }
}

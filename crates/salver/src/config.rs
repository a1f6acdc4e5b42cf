//! From flags to a checked configuration. Files named by flags are read here, and the environment; nothing is started.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use salver_lifecycle as lifecycle;
use salver_predict::{ModelConfig, VersionPolicy};
use salver_server as server;
use salver_store::PollMode;
use salver_wire::{json, text_config, tfs};

use crate::flags::{self, LogFormat, ServeArgs, Transition};

/// The environment variables that TensorFlow Serving's container takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) model_name: Option<String>,
    pub(crate) model_base_path: Option<String>,
}

impl Environment {
    /// Reads the process's environment.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub(crate) fn read() -> Environment {
        let get = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Environment { model_name: get("MODEL_NAME"), model_base_path: get("MODEL_BASE_PATH") }
    }
}

/// Where the models come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Models {
    /// Paths on the command line, told by content, with the name for an only model.
    Paths { paths: Vec<PathBuf>, name: Option<String> },
    /// One base path that is watched even while it is missing.
    BasePath { name: String, path: PathBuf },
    /// A text proto, read again at this interval.
    File { path: PathBuf, poll: Option<Duration> },
}

/// Everything that `salver serve` does, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) models: Models,
    pub(crate) server: server::Config,
    pub(crate) lifecycle: lifecycle::Config,
    pub(crate) poll: PollMode,
    pub(crate) n_workers: NonZeroUsize,
    pub(crate) lanes: salver_batch::Config,
    pub(crate) per_model_batching: bool,
    /// How often each warm-up record runs, if they run at all.
    pub(crate) warmup: Option<NonZeroUsize>,
    pub(crate) allow_labels_for_unavailable: bool,
    pub(crate) strict: bool,
    pub(crate) grace: Duration,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
    /// What a person should know about flags that were taken and do nothing.
    pub(crate) notes: Vec<String>,
}

/// Checks flags and files and puts them together.
///
/// # Errors
/// Names the flag, its value and what was expected.
pub(crate) fn resolve(args: &ServeArgs, environment: &Environment) -> anyhow::Result<Config> {
    if args.switches.use_alts_credentials {
        bail!("--use_alts_credentials: ALTS is not supported; use --ssl_config_file for TLS");
    }
    Ok(Config {
        models: models(args, environment)?,
        server: server_config(args)?,
        lifecycle: lifecycle_config(args),
        poll: PollMode::from_seconds(args.file_system_poll_wait_seconds),
        n_workers: n_workers(args),
        lanes: lanes(args)?,
        per_model_batching: args.switches.enable_per_model_batching_parameters,
        warmup: args.switches.enable_model_warmup.then(|| {
            usize::try_from(args.num_request_iterations_for_warmup)
                .ok()
                .and_then(NonZeroUsize::new)
                .unwrap_or(NonZeroUsize::MIN)
        }),
        allow_labels_for_unavailable: args.switches.allow_version_labels_for_unavailable_models,
        strict: args.switches.strict_compatibility,
        grace: Duration::from_secs(args.grace_period_seconds),
        log_format: args.log_format,
        log_level: args.log_level.clone(),
        notes: args
            .without_effect
            .notes()
            .into_iter()
            .map(|(name, why)| format!("--{name} has no effect: {why}"))
            .collect(),
    })
}

fn models(args: &ServeArgs, environment: &Environment) -> anyhow::Result<Models> {
    let given = |text: &str| Some(text).filter(|text| !text.is_empty()).map(PathBuf::from);
    if let Some(path) = given(&args.model_config_file) {
        if !args.paths.is_empty() {
            bail!("--model_config_file={} and PATH name models both; give one of them", path.display());
        }
        let seconds = args.model_config_file_poll_wait_seconds;
        let poll = (seconds > 0).then(|| Duration::from_secs(seconds));
        return Ok(Models::File { path, poll });
    }
    if let Some(path) = given(&args.model_base_path) {
        if !args.paths.is_empty() {
            bail!("--model_base_path={} and PATH name models both; give one of them", path.display());
        }
        let name = args.model_name.clone().unwrap_or_else(|| "default".to_owned());
        return Ok(Models::BasePath { name, path: absolute(&path)? });
    }
    if !args.paths.is_empty() {
        return Ok(Models::Paths { paths: args.paths.clone(), name: args.model_name.clone() });
    }
    if environment.model_name.is_none() && environment.model_base_path.is_none() {
        bail!(
            "no models: give PATH, --model_base_path, --model_config_file or the environment variables MODEL_NAME and \
             MODEL_BASE_PATH"
        );
    }
    // The container's rule: the base path of the model is MODEL_BASE_PATH/MODEL_NAME, by default /models/model.
    let name = environment.model_name.clone().unwrap_or_else(|| "model".to_owned());
    let base = environment.model_base_path.clone().unwrap_or_else(|| "/models".to_owned());
    let path = absolute(&Path::new(&base).join(&name))?;
    Ok(Models::BasePath { name: args.model_name.clone().unwrap_or(name), path })
}

/// Relative paths are as the shell means them; the rooms below take absolute ones only.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    if path.to_string_lossy().contains("://") {
        return Ok(path.to_path_buf());
    }
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// The configuration of one watched base path.
pub(crate) fn model_config(name: &str, path: &Path) -> ModelConfig {
    ModelConfig {
        name: name.to_owned(),
        base_path: path.display().to_string(),
        // A model that is named by its path says nothing of its platform; what it is will be told by its content.
        platform: "onnx".to_owned(),
        policy: VersionPolicy::Latest(1),
        labels: std::collections::BTreeMap::new(),
    }
}

fn n_workers(args: &ServeArgs) -> NonZeroUsize {
    NonZeroUsize::new(args.worker_threads).unwrap_or_else(n_processors)
}

fn n_processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn lifecycle_config(args: &ServeArgs) -> lifecycle::Config {
    let default = lifecycle::Config::default();
    lifecycle::Config {
        policy: match args.version_transition {
            Transition::AvailabilityPreserving => lifecycle::Policy::AvailabilityPreserving,
            Transition::ResourcePreserving => lifecycle::Policy::ResourcePreserving,
        },
        n_load_threads: NonZeroUsize::new(args.num_load_threads).unwrap_or(default.n_load_threads),
        n_unload_threads: NonZeroUsize::new(args.num_unload_threads).unwrap_or(default.n_unload_threads),
        max_retries: args.max_num_load_retries,
        retry_interval: Duration::from_micros(args.load_retry_interval_micros),
        ..default
    }
}

fn server_config(args: &ServeArgs) -> anyhow::Result<server::Config> {
    let at = |port: u16| (port != 0).then(|| SocketAddr::new(args.host, port));
    let grpc_unix = Some(&args.grpc_socket_path).filter(|path| !path.is_empty()).map(PathBuf::from);
    if args.port == 0 && grpc_unix.is_none() && args.rest_api_port == 0 {
        bail!("nothing to listen on: --port=0 and --rest_api_port=0 without --grpc_socket_path");
    }
    if args.port == args.rest_api_port && args.port != 0 {
        bail!("--port and --rest_api_port are both {}, expected two ports", args.port);
    }
    let tls = tls(args)?;
    if args.switches.rest_api_tls && tls.is_none() {
        bail!("--rest_api_tls needs --ssl_config_file");
    }
    let client_timeout = Duration::from_millis(args.client_timeout_in_ms);
    Ok(server::Config {
        grpc: at(args.port),
        grpc_unix,
        rest: at(args.rest_api_port),
        metrics: args.metrics_port.map(|port| SocketAddr::new(args.host, port)),
        rest_tls: tls.clone().filter(|_| args.switches.rest_api_tls),
        grpc_tls: tls,
        workers: n_workers(args),
        metrics_path: metrics_path(args)?,
        cors: args.switches.rest_api_enable_cors_support,
        strict_compat: args.switches.strict_compatibility,
        access_log: args.switches.access_log,
        tensor_content: args.switches.enable_serialization_as_tensor_content,
        check_method_name: args.switches.enable_signature_method_name_check,
        grpc_health: args.switches.enable_grpc_healthcheck_service,
        model_control: args.switches.model_control,
        non_finite: match args.rest_api_non_finite {
            flags::NonFinite::Literal => json::NonFinite::Literal,
            flags::NonFinite::Null => json::NonFinite::Null,
            flags::NonFinite::String => json::NonFinite::String,
        },
        rest_timeout: Duration::from_millis(args.rest_api_timeout_in_ms),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        limits: server::Limits {
            body_bytes: args.max_body_bytes,
            decompressed_bytes: args.max_decompressed_bytes,
            bytes_in_flight: args.max_bytes_in_flight,
            connections: args.max_connections,
            header_bytes: args.max_header_bytes,
            header_timeout: client_timeout,
            read_timeout: client_timeout,
            json_depth: args.max_json_depth,
            tensor_elements: args.max_tensor_elements,
            ..server::Limits::default()
        },
        ..server::Config::default()
    })
}

fn tls(args: &ServeArgs) -> anyhow::Result<Option<server::Tls>> {
    let Some((path, text)) = read_file("ssl_config_file", &args.ssl_config_file)? else { return Ok(None) };
    let ssl = text_config::ssl_config(&text).with_context(|| invalid(&path))?;
    Ok(Some(server::Tls {
        key: ssl.server_key,
        cert: ssl.server_cert,
        custom_ca: Some(ssl.custom_ca).filter(|pem| !pem.is_empty()),
        client_verify: ssl.client_verify,
    }))
}

fn metrics_path(args: &ServeArgs) -> anyhow::Result<String> {
    let default = server::Config::default().metrics_path;
    let Some((path, text)) = read_file("monitoring_config_file", &args.monitoring_config_file)? else {
        return Ok(default);
    };
    let monitoring = text_config::monitoring_config(&text).with_context(|| invalid(&path))?;
    let path = monitoring.prometheus_config.map(|prometheus| prometheus.path).unwrap_or_default();
    Ok(Some(path).filter(|path| !path.is_empty()).unwrap_or(default))
}

/// Reads and checks the list of models of a `--model_config_file`.
///
/// # Errors
/// TensorFlow Serving's text for a file that is no such text proto, with where it goes wrong.
pub(crate) fn read_model_config_file(path: &Path) -> anyhow::Result<Vec<ModelConfig>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parsed =
        text_config::model_server_config(&text).with_context(|| invalid(&path.display().to_string()))?;
    Ok(tfs::resolve_models(parsed)?)
}

fn invalid(path: &str) -> String {
    format!("Invalid protobuf file: '{path}'")
}

/// The path and the text of a file that a flag names, if it names one.
fn read_file(flag: &str, path: &str) -> anyhow::Result<Option<(String, String)>> {
    if path.is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("--{flag}={path}"))?;
    Ok(Some((path.to_owned(), text)))
}

/// Threads of one run: TensorFlow Serving's two ways to say it exclude each other.
fn threads_per_run(args: &ServeArgs) -> anyhow::Result<NonZeroUsize> {
    let (session, intra, inter) = (
        args.tensorflow_session_parallelism,
        args.tensorflow_intra_op_parallelism,
        args.tensorflow_inter_op_parallelism,
    );
    if session != 0 && (intra != 0 || inter != 0) {
        bail!(
            "--tensorflow_session_parallelism={session} cannot be combined with --tensorflow_intra_op_parallelism or \
             --tensorflow_inter_op_parallelism"
        );
    }
    let threads = if session != 0 { session } else { intra };
    let threads = usize::try_from(threads)
        .with_context(|| format!("{threads} threads for one run, expected 0 or a positive number"))?;
    Ok(NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN))
}

/// How each model runs: queue, lanes, and batching where it is asked for.
fn lanes(args: &ServeArgs) -> anyhow::Result<salver_batch::Config> {
    let threads = threads_per_run(args)?;
    let n_lanes = NonZeroUsize::new(args.lanes)
        .unwrap_or_else(|| NonZeroUsize::new(n_processors().get() / threads).unwrap_or(NonZeroUsize::MIN));
    let max_queue = NonZeroUsize::new(args.max_queue).context("--max_queue=0, expected a positive number")?;
    let mut lanes = salver_batch::Config {
        n_lanes,
        threads,
        max_queue,
        max_queued_bytes: args.max_bytes_in_flight,
        n_inline: n_workers(args),
        ..salver_batch::Config::default()
    };
    let file = read_file("batching_parameters_file", &args.batching_parameters_file)?;
    if file.is_some() && !args.switches.enable_batching {
        bail!("--batching_parameters_file needs --enable_batching");
    }
    if args.switches.enable_batching && !args.switches.enable_per_model_batching_parameters {
        lanes.batching = Some(salver_batch::Batching::default());
    }
    if let Some((path, text)) = file {
        apply_batching_parameters(&mut lanes, &text).with_context(|| invalid(&path))?;
    }
    Ok(lanes)
}

/// Puts a `BatchingParameters` text proto into the configuration of a model's lanes. What the file leaves out keeps
/// TensorFlow Serving's default.
///
/// # Errors
/// When the text is no such proto or a value is out of range.
pub(crate) fn apply_batching_parameters(lanes: &mut salver_batch::Config, text: &str) -> anyhow::Result<()> {
    let given = text_config::batching_parameters(text)?;
    let default = salver_batch::Batching::default();
    let max_batch_size = positive("max_batch_size", given.max_batch_size)?.unwrap_or(default.max_batch_size);
    let timeout = given.batch_timeout_micros.unwrap_or(0);
    let timeout = u64::try_from(timeout)
        .with_context(|| format!("batch_timeout_micros is {timeout}, expected 0 or a positive number"))?;
    let allowed_batch_sizes = given
        .allowed_batch_sizes
        .iter()
        .map(|&size| {
            usize::try_from(size).with_context(|| format!("allowed_batch_sizes has {size}, expected sizes"))
        })
        .collect::<anyhow::Result<_>>()?;
    if let Some(n_lanes) = positive("num_batch_threads", given.num_batch_threads)? {
        lanes.n_lanes = n_lanes;
    }
    if let Some(n_batches) = positive("max_enqueued_batches", given.max_enqueued_batches)? {
        // TensorFlow Serving counts the queue in batches; a queued request has at least one row.
        lanes.max_queue = n_batches.saturating_mul(max_batch_size);
    }
    lanes.batching = Some(salver_batch::Batching {
        max_batch_size,
        batch_timeout: Duration::from_micros(timeout),
        allowed_batch_sizes,
        enable_large_batch_splitting: given.enable_large_batch_splitting.unwrap_or(false),
        pad_variable_length_inputs: given.pad_variable_length_inputs,
    });
    lanes.check()?;
    Ok(())
}

/// The lanes of one version with `batching_params.pbtxt` in its folder; without that file it is not batched.
///
/// # Errors
/// When the file cannot be read or used.
pub(crate) fn per_model_lanes(
    common: &salver_batch::Config,
    version: &Path,
) -> anyhow::Result<salver_batch::Config> {
    let path = version.join("batching_params.pbtxt");
    let mut lanes = salver_batch::Config { batching: None, ..common.clone() };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            // Threads are set for all models by the global file.
            apply_batching_parameters(&mut lanes, &text)
                .with_context(|| invalid(&path.display().to_string()))?;
            lanes.n_lanes = common.n_lanes;
            Ok(lanes)
        }
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(lanes)
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn positive(name: &str, value: Option<i64>) -> anyhow::Result<Option<NonZeroUsize>> {
    let Some(value) = value else { return Ok(None) };
    let number = usize::try_from(value).ok().and_then(NonZeroUsize::new);
    number.map(Some).with_context(|| format!("{name} is {value}, expected a positive number"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::flags::{Cli, Command};

    fn resolved(args: &[&str], environment: &Environment) -> anyhow::Result<Config> {
        let Command::Serve(args) = Cli::parse_from(["salver", "serve"].iter().chain(args)).command;
        resolve(&args, environment)
    }

    fn check_error(args: &[&str], expected: &str) {
        let error = format!("{:#}", resolved(args, &Environment::default()).unwrap_err());
        assert!(error.contains(expected), "{args:?}: {error}");
    }

    #[test]
    fn models_come_from_one_place() {
        let from = |args: &[&str], environment: &Environment| resolved(args, environment).unwrap().models;
        let none = Environment::default();
        assert_eq!(
            from(&["a", "b"], &none),
            Models::Paths { paths: vec!["a".into(), "b".into()], name: None }
        );
        assert_eq!(
            from(&["--model_base_path=/m/net"], &none),
            Models::BasePath { name: "default".into(), path: "/m/net".into() }
        );
        let container = Environment { model_name: Some("net".into()), model_base_path: Some("/all".into()) };
        assert_eq!(from(&[], &container), Models::BasePath { name: "net".into(), path: "/all/net".into() });
        let file = Models::File { path: "c".into(), poll: Some(Duration::from_secs(3)) };
        assert_eq!(
            from(&["--model_config_file=c", "--model_config_file_poll_wait_seconds=3"], &container),
            file
        );
        check_error(&[], "no models: give PATH");
        check_error(&["a", "--model_base_path=/m"], "name models both");
        check_error(&["a", "--model_config_file=/m"], "name models both");
    }

    #[test]
    fn flags_reach_the_rooms() {
        let args = [
            "a",
            "--model_control=false",
            "--enable_grpc_healthcheck_service=false",
            "--enable_signature_method_name_check",
            "--rest_api_non_finite=null",
            "--max_body_bytes=1000",
            "--client_timeout_in_ms=7",
            "--max_queue=3",
            "--lanes=5",
            "--tensorflow_intra_op_parallelism=2",
            "--max_num_load_retries=1",
            "--version_transition=resource-preserving",
        ];
        let Config { server, lanes, lifecycle, .. } = resolved(&args, &Environment::default()).unwrap();
        assert!(!server.model_control && !server.grpc_health && server.check_method_name);
        assert_eq!((server.non_finite, server.limits.body_bytes), (json::NonFinite::Null, 1000));
        assert_eq!(server.limits.header_timeout, Duration::from_millis(7));
        assert_eq!((lanes.max_queue.get(), lanes.n_lanes.get(), lanes.threads.get()), (3, 5, 2));
        assert_eq!((lifecycle.max_retries, lifecycle.policy), (1, lifecycle::Policy::ResourcePreserving));
    }

    #[test]
    fn contradictions_are_refused() {
        check_error(&["a", "--use_alts_credentials"], "ALTS is not supported");
        check_error(&["a", "--port=0", "--rest_api_port=0"], "nothing to listen on");
        check_error(&["a", "--port=8501"], "are both 8501");
        check_error(&["a", "--rest_api_tls"], "needs --ssl_config_file");
        check_error(&["a", "--ssl_config_file=no/such"], "--ssl_config_file=no/such");
        check_error(&["a", "--max_queue=0"], "expected a positive number");
        let parallelism = ["a", "--tensorflow_session_parallelism=2", "--tensorflow_intra_op_parallelism=2"];
        check_error(&parallelism, "cannot be combined");
    }

    #[test]
    fn batching_parameters_are_read() {
        let mut lanes = salver_batch::Config::default();
        let text = "max_batch_size { value: 8 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 3 }
                    num_batch_threads { value: 4 } allowed_batch_sizes: [4, 8]";
        apply_batching_parameters(&mut lanes, text).unwrap();
        let batching = lanes.batching.unwrap();
        assert_eq!((lanes.n_lanes.get(), lanes.max_queue.get(), batching.max_batch_size.get()), (4, 24, 8));
        assert_eq!(
            (batching.batch_timeout, batching.allowed_batch_sizes),
            (Duration::from_micros(500), vec![4, 8])
        );

        for (text, expected) in [
            ("max_batch_size { value: 0 }", "max_batch_size is 0"),
            ("max_batch_size { value: 4 } allowed_batch_sizes: 2", "Last entry in allowed_batch_sizes"),
            ("max_batch { value: 4 }", "max_batch"),
        ] {
            let error = apply_batching_parameters(&mut salver_batch::Config::default(), text).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
        check_error(&["a", "--batching_parameters_file=/dev/null"], "needs --enable_batching");
    }
}

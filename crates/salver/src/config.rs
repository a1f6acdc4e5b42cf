//! From flags to a checked configuration. Files named by flags are read here, and the environment; nothing is started.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use salver_engine::LoadOptions;
use salver_lifecycle as lifecycle;
use salver_predict::{ModelConfig, VersionPolicy};
use salver_runtime::Runtimes;
use salver_server as server;
use salver_store::PollMode;
use salver_wire::{json, text_config, tfs};

use crate::batching::{BatchingSettings, Parameters};
use crate::flags::{self, LogFormat, ServeArgs, Transition};
use crate::settings::{self, ConfigFile, Settings};

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

/// A variable of the process's environment that settings name, for what should not stand in a file.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
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
    pub(crate) load: LoadOptions,
    pub(crate) server: server::Config,
    pub(crate) lifecycle: lifecycle::Config,
    pub(crate) poll: PollMode,
    pub(crate) n_workers: NonZeroUsize,
    /// Where native libraries are looked for.
    pub(crate) runtimes: Runtimes,
    pub(crate) lanes: salver_batch::Config,
    /// Whether TensorFlow Serving's files say how requests are joined.
    pub(crate) compat: Compat,
    /// What flags say for all models, over everything else.
    pub(crate) flags: Settings,
    /// Files with settings, which are read again while models are served.
    pub(crate) sources: Sources,
    /// What they say at the start.
    pub(crate) files: Files,
    /// How long batches are tried before a version is available.
    pub(crate) batch_trial: Duration,
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
    let sources = Sources::of(args)?;
    Ok(Config {
        models: models(args, environment)?,
        load: load_options(args),
        server: server_config(args)?,
        lifecycle: lifecycle_config(args),
        poll: PollMode::from_seconds(args.file_system_poll_wait_seconds),
        n_workers: n_workers(args),
        runtimes: args.dir.runtimes(),
        lanes: lanes(args)?,
        compat: Compat::of(args),
        flags: flag_settings(args)?,
        files: sources.read()?,
        sources,
        batch_trial: Duration::from_millis(args.batch_trial_ms),
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

fn load_options(args: &ServeArgs) -> LoadOptions {
    let mut options = LoadOptions::default();
    let tags = args.saved_model_tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    options.saved_model_tags = tags.map(str::to_owned).collect();
    options
}

/// The path that a flag names, if it names one.
fn given(text: &str) -> Option<PathBuf> {
    Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// What the flags say of all models.
fn flag_settings(args: &ServeArgs) -> anyhow::Result<Settings> {
    let settings = Settings {
        engine: args.engine.clone(),
        precision: args.precision.clone(),
        threads: NonZeroUsize::new(threads_per_run(args)?),
        lanes: NonZeroUsize::new(args.lanes),
        pin: args.pin,
        isolate: args.isolate,
        max_batch_size: args.max_batch_size,
        batching: BatchingSettings {
            mode: args.batching,
            timeout_ms: args.default_timeout_ms,
            max_queue: args
                .max_queue
                .map(|n| NonZeroUsize::new(n).context("--max_queue=0, expected a positive number"))
                .transpose()?,
            ..BatchingSettings::default()
        },
        ..Settings::default()
    };
    settings.check().context("flags")?;
    Ok(settings)
}

fn models(args: &ServeArgs, environment: &Environment) -> anyhow::Result<Models> {
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
        caller_header: args.caller_header.parse().with_context(|| {
            format!("--caller_header={}, expected the name of a header", args.caller_header)
        })?,
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

/// Threads of one run, 0 if that is left open: TensorFlow Serving's two ways to say it exclude each other.
fn threads_per_run(args: &ServeArgs) -> anyhow::Result<usize> {
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
    usize::try_from(threads)
        .with_context(|| format!("{threads} threads for one run, expected 0 or a positive number"))
}

/// As many lanes as keep so many processors busy with runs of so many threads.
fn lanes_for(cores: NonZeroUsize, threads: NonZeroUsize) -> NonZeroUsize {
    NonZeroUsize::new((cores.get() / threads).min(salver_batch::MAX_THREADS)).unwrap_or(NonZeroUsize::MIN)
}

/// How each model runs, as far as flags say it for all of them.
fn lanes(args: &ServeArgs) -> anyhow::Result<salver_batch::Config> {
    let threads = NonZeroUsize::new(threads_per_run(args)?).unwrap_or(NonZeroUsize::MIN);
    let cores = NonZeroUsize::new(args.compute_threads).unwrap_or_else(n_processors);
    let n_lanes = NonZeroUsize::new(args.lanes).unwrap_or_else(|| lanes_for(cores, threads));
    let policy = salver_batch::Policy::default();
    let lanes = salver_batch::Config {
        n_lanes,
        threads,
        cores: Some(salver_batch::Cores::new(cores)),
        n_inline: n_workers(args),
        policy: salver_batch::Policy {
            max_queued_bytes: policy.max_queued_bytes.min(args.max_bytes_in_flight),
            ..policy
        },
        ..salver_batch::Config::default()
    };
    lanes.check()?;
    Ok(lanes)
}

/// Whether TensorFlow Serving's files say how requests are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compat {
    /// Salver's own settings do.
    Off,
    /// One file for all models.
    All,
    /// A file in each version folder; a version without it is not batched.
    PerModel,
}

impl Compat {
    fn of(args: &ServeArgs) -> Compat {
        match (args.switches.enable_per_model_batching_parameters, args.switches.enable_batching) {
            (true, _) => Compat::PerModel,
            (false, true) => Compat::All,
            (false, false) => Compat::Off,
        }
    }
}

/// Files with settings that flags name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    config: Option<PathBuf>,
    batching_parameters: Option<PathBuf>,
}

/// What they say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Files {
    /// The file of `--config`.
    pub(crate) config: ConfigFile,
    /// The file of `--batching_parameters_file`.
    pub(crate) parameters: Option<Parameters>,
}

impl Sources {
    fn of(args: &ServeArgs) -> anyhow::Result<Sources> {
        let batching_parameters = given(&args.batching_parameters_file);
        if batching_parameters.is_some() && !args.switches.enable_batching {
            bail!("--batching_parameters_file needs --enable_batching");
        }
        Ok(Sources { config: given(&args.config), batching_parameters })
    }

    /// Where they lie.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.config.iter().chain(&self.batching_parameters).cloned().collect()
    }

    /// Reads them.
    ///
    /// # Errors
    /// When one is not there or wrong.
    pub(crate) fn read(&self) -> anyhow::Result<Files> {
        let config = self.config.as_deref().map(settings::read_config).transpose()?.unwrap_or_default();
        let parameters = self.batching_parameters.as_ref().map(|path| {
            let path = path.display().to_string();
            let text =
                read_file("batching_parameters_file", &path)?.map(|(_, text)| text).unwrap_or_default();
            Parameters::parse(&text).with_context(|| invalid(&path))
        });
        Ok(Files { config, parameters: parameters.transpose()? })
    }
}

/// Where a version's own `BatchingParameters` lie.
pub(crate) fn per_model_file(version: &Path) -> PathBuf {
    version.join("batching_params.pbtxt")
}

/// What `batching_params.pbtxt` in a version folder says, if it is there.
///
/// # Errors
/// When the file cannot be read or used.
pub(crate) fn per_model_parameters(version: &Path) -> anyhow::Result<Option<Parameters>> {
    let path = per_model_file(version);
    match std::fs::read_to_string(&path) {
        Ok(text) => Parameters::parse(&text).map(Some).with_context(|| invalid(&path.display().to_string())),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The lanes of one version with what its settings say; `n_lanes` is for models that say nothing of it.
pub(crate) fn with_settings(
    lanes: salver_batch::Config,
    settings: &Settings,
    n_lanes: Option<NonZeroUsize>,
) -> salver_batch::Config {
    let threads = settings.threads.unwrap_or(lanes.threads);
    let cores =
        lanes.cores.as_ref().and_then(|cores| NonZeroUsize::new(cores.n())).unwrap_or_else(n_processors);
    let n_lanes = match (settings.lanes.or(n_lanes), settings.threads) {
        (Some(n_lanes), _) => n_lanes,
        (None, Some(threads)) if threads != lanes.threads => lanes_for(cores, threads),
        (None, _) => lanes.n_lanes,
    };
    salver_batch::Config { threads, n_lanes, pinned: settings.pin.unwrap_or(lanes.pinned), ..lanes }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::flags::{Cli, Command};

    fn resolved(args: &[&str], environment: &Environment) -> anyhow::Result<Config> {
        let command = Cli::parse_from(["salver", "serve"].iter().chain(args)).command;
        let Command::Serve(args) = command else { panic!("the command is serve") };
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
            "--caller_header=X-Api-Key",
            "--lanes=5",
            "--tensorflow_intra_op_parallelism=2",
            "--max_num_load_retries=1",
            "--version_transition=resource-preserving",
        ];
        let Config { server, lanes, lifecycle, .. } = resolved(&args, &Environment::default()).unwrap();
        assert!(!server.model_control && !server.grpc_health && server.check_method_name);
        assert_eq!((server.non_finite, server.limits.body_bytes), (json::NonFinite::Null, 1000));
        assert_eq!(server.limits.header_timeout, Duration::from_millis(7));
        assert_eq!(server.caller_header.as_str(), "x-api-key");
        assert_eq!((lanes.n_lanes.get(), lanes.threads.get()), (5, 2));
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
        check_error(&["a", "--caller_header=a b"], "expected the name of a header");
        check_error(&["a", "--default_timeout_ms=-1"], "batching.timeout_ms = -1");
        check_error(&["a", "--batching_parameters_file=/dev/null"], "needs --enable_batching");
        let parallelism = ["a", "--tensorflow_session_parallelism=2", "--tensorflow_intra_op_parallelism=2"];
        check_error(&parallelism, "cannot be combined");
    }
}

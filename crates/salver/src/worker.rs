//! `salver engine-worker`: the process that one model of an isolated engine runs in. The server starts it; people only see
//! it in lists of processes.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use salver_engine::{Engine, Registry};
use salver_engine_isolated::{IsolatedEngine, Spawn, serve};
use salver_runtime::Runtimes;

use crate::flags::LogFormat;
use crate::runtime::{self, RuntimeDir};
use crate::{parts, telemetry};

/// The name of the command.
const COMMAND: &str = "engine-worker";

/// This program, also after its file was replaced by another version, which may speak otherwise.
const PROGRAM: &str = "/proc/self/exe";

#[derive(Debug, Args)]
#[command(hide = true, about = "Run one model for a server that starts this")]
pub(crate) struct WorkerArgs {
    /// The engine and the model, for whoever looks at a list of processes.
    what: String,
    #[command(flatten)]
    dir: RuntimeDir,
    #[arg(long = "log_format", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[arg(long = "log_level", default_value = "info")]
    log_level: String,
}

/// Serves the model that the server names over standard input, until the server is gone or drops it.
pub(crate) fn run(args: &WorkerArgs) -> ExitCode {
    if let Err(error) = telemetry::start_log(args.log_format, &args.log_level) {
        crate::print(&mut std::io::stderr(), &format!("salver: {} for {}: {error:#}", COMMAND, args.what));
        return ExitCode::FAILURE;
    }
    serve(&parts::engines(&args.dir.runtimes()))
}

/// The same engines, each model in a process of its own, whose log lines look as the server's.
pub(crate) fn apart(
    engines: &Registry,
    runtimes: &Runtimes,
    log_format: LogFormat,
    log_level: &str,
) -> Registry {
    let format = log_format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut options: Vec<OsString> =
        vec![format!("--log_format={format}").into(), format!("--log_level={log_level}").into()];
    options.extend(runtime::flags(runtimes));
    let spawn = Spawn::new(move |what| {
        let mut command = Command::new(PROGRAM);
        command.arg0(env!("CARGO_BIN_NAME")).arg(COMMAND).args(&options).arg("--").arg(what);
        Ok(command)
    });
    let apart = |inner: &Arc<dyn Engine>| -> Arc<dyn Engine> {
        Arc::new(IsolatedEngine::new(Arc::clone(inner), spawn.clone()))
    };
    Registry::new(engines.engines().iter().map(apart).collect())
}

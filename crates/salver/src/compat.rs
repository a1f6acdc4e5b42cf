//! The command line of `tensorflow_model_server`: its rules differ from those of every other program.
//!
//! Only `--name=value` is a flag; a switch may stand alone. `--` ends the flags. An argument that is not known is
//! printed together with the usage, and the server starts all the same; a value that is not understood ends the
//! program with status 255 (TensorFlow's `core/util/command_line_flags.cc` is the source of these rules).

use std::ffi::OsString;

use clap::{Command, CommandFactory, FromArgMatches, Parser};

use crate::flags::ServeArgs;

/// The name that turns these rules on.
pub(crate) const PROGRAM: &str = "tensorflow_model_server";

#[derive(Debug, Parser)]
#[command(
    name = PROGRAM, about = "A model server in TensorFlow Serving's place: Salver under its name.", long_about = None,
    disable_help_flag = true, disable_version_flag = true, args_override_self = true
)]
struct Compatible {
    #[command(flatten)]
    serve: ServeArgs,
}

/// What a command line of `tensorflow_model_server` asks for.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Serve; the arguments that were not understood are to be reported.
    Serve(Box<ServeArgs>, Vec<String>),
    /// Print the version.
    Version,
    /// Print the usage and end with status 255; with the reason, if there is one.
    Usage(Option<String>),
}

/// The usage text.
pub(crate) fn usage() -> String {
    Compatible::command().render_help().to_string()
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Outcome {
    let command = Compatible::command();
    let mut known: Vec<OsString> = vec![PROGRAM.into()];
    let mut unknown = Vec::new();
    let mut flags_ended = false;
    for arg in args {
        let text = arg.to_string_lossy().into_owned();
        match text.as_str() {
            "--" if !flags_ended => flags_ended = true,
            "--help" if !flags_ended => return Outcome::Usage(None),
            "--version" | "--version=true" if !flags_ended => return Outcome::Version,
            "--version=false" if !flags_ended => {}
            _ if !flags_ended && is_known(&command, &text) => known.push(arg),
            _ => unknown.push(text),
        }
    }
    let parsed =
        command.try_get_matches_from(known).and_then(|matches| Compatible::from_arg_matches(&matches));
    match parsed {
        Ok(parsed) => Outcome::Serve(Box::new(parsed.serve), unknown),
        Err(error) => Outcome::Usage(Some(first_line(&error))),
    }
}

fn first_line(error: &clap::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Whether `--name=value`, or for a switch `--name`, is a flag of the program.
fn is_known(command: &Command, text: &str) -> bool {
    let Some(rest) = text.strip_prefix("--") else { return false };
    let (name, has_value) = rest.split_once('=').map_or((rest, false), |(name, _)| (name, true));
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(name))
        .is_some_and(|arg| has_value || arg.get_num_args().is_some_and(|range| range.min_values() == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(args: &[&str]) -> Outcome {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn every_flag_of_tensorflow_serving_is_taken() {
        let flags = [
            "--port=1",
            "--grpc_socket_path=/s",
            "--rest_api_port=2",
            "--rest_api_num_threads=8",
            "--rest_api_timeout_in_ms=5",
            "--rest_api_enable_cors_support",
            "--enable_batching=true",
            "--batching_parameters_file=b",
            "--enable_per_model_batching_parameters=false",
            "--allow_version_labels_for_unavailable_models",
            "--model_config_file=c",
            "--model_config_file_poll_wait_seconds=3",
            "--model_name=m",
            "--model_base_path=/m",
            "--num_load_threads=2",
            "--num_unload_threads=2",
            "--max_num_load_retries=1",
            "--load_retry_interval_micros=9",
            "--file_system_poll_wait_seconds=-1",
            "--flush_filesystem_caches=false",
            "--tensorflow_session_parallelism=1",
            "--tensorflow_intra_op_parallelism=1",
            "--tensorflow_inter_op_parallelism=1",
            "--tensorflow_session_config_file=t",
            "--per_process_gpu_memory_fraction=0.5",
            "--saved_model_tags=serve",
            "--use_alts_credentials=false",
            "--ssl_config_file=s",
            "--platform_config_file=p",
            "--grpc_channel_arguments=a=1,b=2",
            "--grpc_max_threads=4",
            "--enable_model_warmup=true",
            "--num_request_iterations_for_warmup=2",
            "--monitoring_config_file=m",
            "--remove_unused_fields_from_bundle_metagraph=true",
            "--prefer_tflite_model=false",
            "--num_tflite_pools=1",
            "--num_tflite_interpreters_per_pool=1",
            "--enable_signature_method_name_check=false",
            "--xla_cpu_compilation_enabled=false",
            "--xla_gpu_compilation_enabled=false",
            "--enable_profiler=true",
            "--thread_pool_factory_config_file=x",
            "--mixed_precision=bfloat16",
            "--skip_initialize_tpu=false",
            "--enable_grpc_healthcheck_service=true",
            "--enable_serialization_as_tensor_content=false",
        ];
        let Outcome::Serve(args, unknown) = parse_all(&flags) else { panic!("refused") };
        assert_eq!(unknown, Vec::<String>::new());
        assert_eq!((args.port, args.rest_api_port, args.file_system_poll_wait_seconds), (1, 2, -1));
        assert!(args.switches.rest_api_enable_cors_support && args.switches.enable_batching);
        assert_eq!(args.without_effect.notes().len(), 10);
    }

    #[test]
    fn what_is_not_understood_is_reported_and_serving_goes_on() {
        for arg in ["--nosuch=1", "-port=1", "--port", "8500", "--noenable_batching", "model"] {
            let Outcome::Serve(args, unknown) = parse_all(&[arg, "--model_name=m"]) else {
                panic!("{arg} refused")
            };
            assert_eq!((unknown, args.port), (vec![arg.to_owned()], 8500));
            assert_eq!(args.model_name.as_deref(), Some("m"));
        }
        let Outcome::Serve(args, unknown) = parse_all(&["--port=7", "--", "--port=8"]) else {
            panic!("refused")
        };
        assert_eq!((args.port, unknown), (7, vec!["--port=8".to_owned()]));
    }

    #[test]
    fn bad_values_help_and_version_end_the_program() {
        for arg in ["--port=x", "--enable_batching=1", "--port=70000"] {
            assert!(matches!(parse_all(&[arg]), Outcome::Usage(Some(_))), "{arg}");
        }
        assert!(matches!(parse_all(&["--help"]), Outcome::Usage(None)));
        assert!(matches!(parse_all(&["--version"]), Outcome::Version));
    }
}

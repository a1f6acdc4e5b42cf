//! Any text as each of the configuration files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salver_wire::{text_config, tfs};

fuzz_target!(|text: &str| {
    match text_config::model_server_config(text) {
        Ok(config) => drop(tfs::resolve_models(config)),
        Err(error) => assert!(error.line() > 0 && error.column() > 0),
    }
    let _ = text_config::batching_parameters(text);
    let _ = text_config::monitoring_config(text);
    let _ = text_config::platform_configs(text);
    let _ = text_config::session_config(text);
    let _ = text_config::ssl_config(text);
});

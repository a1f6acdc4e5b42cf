//! Memory before and after many reloads of a model (item 22 of the conformance list).

use anyhow::{Context, Result, bail};
use clap::Args;
use prost::Message;
use serde_json::json;

use crate::Common;
use crate::body::{Interface, grpc};
use crate::load::{Call, once};
use salver_wire::proto::tensorflow::serving::file_system_storage_path_source_config::ServableVersionPolicy;
use salver_wire::proto::tensorflow::serving::file_system_storage_path_source_config::servable_version_policy::{
    PolicyChoice, Specific,
};
use salver_wire::proto::tensorflow::serving::model_server_config::Config;
use salver_wire::proto::tensorflow::serving::{
    ModelConfig, ModelConfigList, ModelServerConfig, ReloadConfigRequest, ReloadConfigResponse,
};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::stats::digits;
use crate::subject::Subject;

#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// How often the model is loaded again
    #[arg(long, default_value_t = 100)]
    reloads: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { reloads: 100 }
    }
}

pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let subject = Subject::tiny(common)?;
    let folder = tempfile::tempdir()?;
    let (models, log) = (folder.path().join("models"), folder.path().join("log"));
    for version in [1, 2] {
        subject.install(&models, subject.name, version)?;
    }
    let mut server = Server::salver(&common.salver, &models, &[], &log)?;
    server.wait_ready(&log)?;
    let base = models.join(subject.name).display().to_string();
    let predict = Interface::GrpcPacked.call(&subject, subject.name);
    let mut points = Vec::new();
    for reload in 0..=settings.reloads {
        let version = i64::from(reload % 2) + 1;
        let answer = once(server.grpc, &reload_to(subject.name, &base, version))?;
        succeeded(&answer).with_context(|| crate::server::tail(&log))?;
        once(server.grpc, &predict).context("no prediction after a reload")?;
        if reload % (settings.reloads / 10).max(1) == 0 {
            points.push((reload, server.memory()?));
        }
    }
    report(&points).publish(common)
}

/// Asks for exactly this version: the other one is unloaded.
fn reload_to(name: &str, base_path: &str, version: i64) -> Call {
    let policy = PolicyChoice::Specific(Specific { versions: vec![version] });
    let model = ModelConfig {
        name: name.to_owned(),
        base_path: base_path.to_owned(),
        model_platform: "onnx".to_owned(),
        model_version_policy: Some(ServableVersionPolicy { policy_choice: Some(policy) }),
        ..ModelConfig::default()
    };
    let config = Config::ModelConfigList(ModelConfigList { config: vec![model] });
    let request = ReloadConfigRequest {
        config: Some(ModelServerConfig { config: Some(config) }),
        ..ReloadConfigRequest::default()
    };
    grpc("/tensorflow.serving.ModelService/HandleReloadConfigRequest", &request)
}

fn succeeded(answer: &[u8]) -> Result<()> {
    let answer = ReloadConfigResponse::decode(answer.get(5..).context("the answer is empty")?)?;
    match answer.status {
        Some(status) if status.error_code != 0 => bail!("reload refused: {}", status.error_message),
        _ => Ok(()),
    }
}

fn report(points: &[(u32, u64)]) -> Report {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let rows =
        points.iter().map(|(reload, bytes)| vec![reload.to_string(), digits(megabytes(*bytes))]).collect();
    let growth = match (points.get(1), points.last()) {
        (Some((from, first)), Some((to, last))) if to > from => {
            (*last as f64 - *first as f64) / f64::from(to - from) / 1e3
        }
        _ => 0.0,
    };
    Report {
        name: "memory",
        title: "Memory over reloads",
        notes: vec![format!(
            "Two versions of a model are loaded in turn by HandleReloadConfigRequest, each unloading the other, with \
             a prediction after each. Resident memory grows by {growth:.1} kB per reload between the second point \
             and the last.",
        )],
        tables: vec![Table { title: "Resident memory".to_owned(), head: vec!["reloads", "MB"], rows }],
        figures: json!({ "reloads_and_bytes": points, "kilobytes_per_reload": growth }),
    }
}

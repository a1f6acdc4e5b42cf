//! Which models answer, and who runs them.

use std::num::NonZeroUsize;

use anyhow::{Context, bail};
use salver_predict::{ModelName, ModelSpec, VersionChoice};
use salver_stream as stream;

use super::Where;
use super::times::millis;
use crate::stream::embedded::{self, Wanted};
use crate::stream::file::Sections;
use crate::stream::flags::StreamArgs;

/// Calls that may wait for each that is under way.
const WAITING: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not zero");

pub(super) fn primary(sections: &Sections) -> anyhow::Result<ModelSpec> {
    let model = &sections.model;
    let is_remote = !sections.remote.hosts.is_empty();
    let name = match (&model.path, &model.name, is_remote) {
        (Some(path), _, true) => bail!(
            "model.path = '{}' and remote.hosts are both set: the model runs here or there",
            path.display()
        ),
        (None, Some(name), true) => ModelName::new(name).context("model.name is empty")?,
        (None, None, true) => {
            bail!("--model is missing: its name on the servers (or model.name in the file)")
        }
        (Some(_), Some(name), false) => ModelName::new(name).context("model.name is empty")?,
        (Some(path), None, false) => embedded::name_of(path)?,
        (None, Some(name), false) => {
            bail!("model.name = '{name}' without model.path and without remote.hosts")
        }
        (None, None, false) => bail!("--model is missing: where the model lies (or model.path in the file)"),
    };
    let version = match (model.version, &model.label) {
        (Some(_), Some(_)) => bail!("model.version and model.label are both set, expected one of them"),
        (Some(version), None) => VersionChoice::Number(version),
        (None, Some(_)) if !is_remote => bail!("model.label is for remote.hosts; use model.version"),
        (None, Some(label)) => VersionChoice::Label(label.clone()),
        (None, None) => VersionChoice::Latest,
    };
    Ok(ModelSpec { name, version })
}

pub(super) fn models(
    args: &StreamArgs,
    sections: &Sections,
    pipeline: &stream::Config,
    primary: &ModelSpec,
) -> anyhow::Result<Where> {
    if !sections.remote.hosts.is_empty() {
        return Ok(Where::There(Box::new(remote(sections, pipeline, primary)?)));
    }
    let model = &sections.model;
    let n_workers = pipeline.n_workers();
    let calls = n_workers.saturating_mul(pipeline.in_flight).saturating_mul(WAITING);
    Ok(Where::Here(Box::new(embedded::Settings {
        models: wanted(sections, primary)?,
        engine: model.engine.clone(),
        precision: model.precision.clone(),
        isolate: model.isolate,
        threads: model.threads,
        lanes: model.lanes,
        tags: model.saved_model_tags.clone(),
        config: model.settings.clone(),
        dir: args.dir.clone(),
        poll_seconds: model.poll_seconds.unwrap_or(1),
        workers: n_workers,
        calls,
        log_format: args.log_format,
        log_level: args.log_level.clone(),
    })))
}

/// All models that are loaded here, with those of canary and shadow.
fn wanted(sections: &Sections, primary: &ModelSpec) -> anyhow::Result<Vec<Wanted>> {
    let path = sections.model.path.clone().context("model.path is missing")?;
    let mut versions: Vec<_> = sections.model.version.into_iter().collect();
    let mut others = Vec::new();
    let canary =
        sections.canary.as_ref().map(|part| ("canary", &part.path, &part.model, part.version, &part.label));
    let shadow =
        sections.shadow.as_ref().map(|part| ("shadow", &part.path, &part.model, part.version, &part.label));
    for (key, path, model, version, label) in canary.into_iter().chain(shadow) {
        if label.is_some() || model.is_some() {
            bail!("{key}.label and {key}.model are for remote.hosts; use {key}.version or {key}.path");
        }
        match (path, version) {
            (Some(path), version) => others.push(Wanted {
                name: embedded::name_of(path).with_context(|| format!("{key}.path"))?,
                path: path.clone(),
                versions: version.into_iter().collect(),
            }),
            (None, Some(version)) if sections.model.version.is_some() => versions.push(version),
            (None, Some(version)) => {
                bail!(
                    "{key}.version = {version} needs model.version too, so that both are loaded and neither is the other"
                )
            }
            (None, None) => {}
        }
    }
    versions.sort_unstable();
    versions.dedup();
    others.dedup();
    let mut all = vec![Wanted { name: primary.name.clone(), path, versions }];
    all.extend(others);
    Ok(all)
}

fn remote(
    sections: &Sections,
    pipeline: &stream::Config,
    primary: &ModelSpec,
) -> anyhow::Result<salver_remote::Settings> {
    let said = &sections.remote;
    let default = salver_remote::Settings::default();
    let addresses =
        said.hosts.iter().map(|host| host.parse().with_context(|| format!("remote.hosts: '{host}'")));
    let protocol = said
        .protocol
        .as_deref()
        .map(|name| name.parse().with_context(|| format!("remote.protocol = '{name}'")));
    let tls = said.ca_file.as_ref().map(|roots| {
        let identity = match (&said.certificate_file, &said.key_file) {
            (Some(certificate), Some(key)) => {
                Some(salver_remote::Identity { certificate: certificate.clone(), key: key.clone() })
            }
            (None, None) => None,
            _ => bail!("remote.certificate_file and remote.key_file belong together"),
        };
        Ok(salver_remote::Tls { roots: roots.clone(), server_name: said.server_name.clone(), identity })
    });
    let calls = pipeline.n_workers().saturating_mul(pipeline.in_flight);
    Ok(salver_remote::Settings {
        addresses: addresses.collect::<anyhow::Result<_>>()?,
        protocol: protocol.transpose()?,
        connections: said.connections.unwrap_or(default.connections),
        threads: said.threads.unwrap_or(default.threads),
        tls: tls.transpose()?,
        max_calls: default.max_calls.max(calls.saturating_mul(WAITING)),
        connect_timeout: millis("remote.connect_timeout_ms", said.connect_timeout_ms)?
            .unwrap_or(default.connect_timeout),
        try_timeout: millis("remote.try_timeout_ms", said.try_timeout_ms)?,
        timeout: pipeline.timeout,
        max_tries: said.max_tries.unwrap_or(default.max_tries),
        retry_share: said.retry_share.unwrap_or(default.retry_share),
        headers: super::headers::headers(&said.headers, &crate::config::variable)?,
        apart: apart(pipeline, primary)?,
        ..default
    })
}

/// Canary and shadow are asked apart: a model that fails, or that a server does not have, is no reason to ask that server less for
/// the primary one.
fn apart(pipeline: &stream::Config, primary: &ModelSpec) -> anyhow::Result<Vec<salver_remote::Apart>> {
    let canary = pipeline.canary.iter().map(|canary| ("canary", canary));
    let shadow = pipeline.shadow.iter().map(|shadow| ("shadow", &shadow.part));
    let parts = canary.chain(shadow).map(|(role, part)| {
        let spec = part.spec(primary);
        if spec == *primary {
            bail!("[{role}] names what [model] does, expected another version or model");
        }
        Ok(salver_remote::Apart { role: role.to_owned(), spec })
    });
    parts.collect()
}

//! The Open Inference Protocol's statistics, read from the metrics.

use salver_predict::{Error, ModelId, State};
use salver_wire::oip;
use salver_wire::oip_grpc::ModelCounters;

use crate::core::Core;

/// The statistics of a version, of all versions of a model that answer requests, or of all models for an empty name.
/// Requests are counted, not batches: a front does not see which requests ran together.
pub(crate) async fn collect(
    core: &Core,
    name: &str,
    version: &str,
) -> Result<Vec<(ModelId, ModelCounters)>, Error> {
    let ids = match (name, version) {
        ("", _) => available(core, |_| true),
        (name, "") => {
            core.resolve(&oip::request_spec(name, "")?, None).await?;
            available(core, |model| model == name)
        }
        (name, version) => {
            vec![core.resolve(&oip::request_spec(name, version)?, None).await?.id().clone()]
        }
    };
    Ok(ids.into_iter().map(|id| (id.clone(), core.metrics.counters(&id))).collect())
}

fn available(core: &Core, wanted: impl Fn(&str) -> bool) -> Vec<ModelId> {
    let models = core.models.list().into_iter().filter(|model| wanted(model.name.as_str()));
    models
        .flat_map(|model| {
            let versions = model.versions.into_iter().filter(|version| version.state == State::Available);
            versions.map(move |version| ModelId { name: model.name.clone(), version: version.version })
        })
        .collect()
}

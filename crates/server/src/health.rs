//! `grpc.health.v1`, kept true to the state of the models.

use std::collections::BTreeSet;

use salver_predict::ModelStatus;
use tokio::sync::Mutex;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The names that stand for the whole server: by their full names, and as TensorFlow Serving writes them.
const SERVICES: [&str; 6] = [
    "",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "inference.GRPCInferenceService",
    "PredictionService",
    "ModelService",
];

/// What was last published.
#[derive(Debug)]
pub(crate) struct Health {
    reporter: HealthReporter,
    published: Mutex<Option<Published>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Published {
    ready: bool,
    models: BTreeSet<(String, bool)>,
}

impl Health {
    pub(crate) fn new(reporter: HealthReporter) -> Health {
        Health { reporter, published: Mutex::new(None) }
    }

    /// Publishes the state of the server and of each model by its name, where it changed.
    pub(crate) async fn update(&self, ready: bool, models: &[ModelStatus]) {
        let models = models.iter().map(|model| (model.name.to_string(), model.is_ready())).collect();
        let next = Published { ready, models };
        let mut published = self.published.lock().await;
        if published.as_ref() == Some(&next) {
            return;
        }
        for service in SERVICES {
            self.reporter.set_service_status(service, serving(ready)).await;
        }
        let before = published.take().map(|published| published.models).unwrap_or_default();
        let mut reporter = self.reporter.clone();
        for (name, _) in before.iter().filter(|(name, _)| !SERVICES.contains(&name.as_str())) {
            if !next.models.iter().any(|(other, _)| other == name) {
                reporter.clear_service_status(name).await;
            }
        }
        for (name, ready) in next.models.iter().filter(|(name, _)| !SERVICES.contains(&name.as_str())) {
            reporter.set_service_status(name, serving(*ready)).await;
        }
        *published = Some(next);
    }

    /// Publishes that nothing is served any more.
    pub(crate) async fn stop(&self) {
        let published = self.published.lock().await;
        let models = published.iter().flat_map(|published| published.models.iter());
        for name in SERVICES.into_iter().chain(models.map(|(name, _)| name.as_str())) {
            self.reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
    }
}

fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

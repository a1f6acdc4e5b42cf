//! `inference.GRPCInferenceService`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::Stream;
use salver_predict::{Code, Error, ModelName, Target, select_outputs};
use salver_wire::proto::inference as pb;
use salver_wire::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use salver_wire::{oip, oip_grpc, status};
use tonic::{Request, Response, Status, Streaming};

use super::Arrival;
use super::model::check_control;
use super::predict::no_arrival;
use crate::clock;
use crate::core::{Core, Question};
use crate::metrics::Api;
use crate::terms::Terms;

#[derive(Debug, Clone)]
pub(crate) struct Inference {
    core: Arc<Core>,
}

/// What the Open Inference Protocol calls the parts of it that are served.
pub(crate) const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];

/// The name of this server, by the protocol.
pub(crate) const SERVER_NAME: &str = "salver";

/// Rows that `config` says fit in one request; the protocol has no way of saying that there is no bound.
pub(crate) const MAX_BATCH_SIZE: u32 = 128;

impl Inference {
    pub(crate) fn new(core: Arc<Core>) -> Inference {
        Inference { core }
    }

    async fn infer(
        &self,
        message: pb::ModelInferRequest,
        arrival: &Arrival,
        terms: Result<Terms, Error>,
    ) -> Result<pb::ModelInferResponse, Error> {
        let name = ModelName::new(&message.model_name);
        if let (Some(entry), Some(name)) = (&arrival.entry, &name) {
            entry.asked(name);
        }
        let answered = async { self.answer(message, arrival, terms?).await }.await;
        answered.inspect_err(|error| self.core.failed(Api::GrpcInfer, name.as_ref(), error))
    }

    async fn answer(
        &self,
        mut message: pb::ModelInferRequest,
        arrival: &Arrival,
        terms: Terms,
    ) -> Result<pb::ModelInferResponse, Error> {
        let core = &*self.core;
        let spec = oip::request_spec(&message.model_name, &message.model_version)?;
        let timeout = oip_grpc::timeout(&message).and_then(|timeout| arrival.started.checked_add(timeout));
        let terms = terms.with(timeout, oip_grpc::priority(&message));
        let target = core.resolve(&spec, terms.until).await?;
        if let Some(entry) = &arrival.entry {
            entry.answered_by(target.id());
        }
        let signature = Arc::clone(target.signature("")?);
        let contents = oip_grpc::contents_of(&message);
        let outputs = select_outputs(&signature, &oip_grpc::output_names(&message)?)?;
        let id = std::mem::take(&mut message.id);
        let inputs = oip_grpc::decode_inputs(message, &signature)?;
        let question = Question { target, signature, inputs, outputs, terms };
        let answered = core.ask(Api::GrpcInfer, arrival.started, question).await?;
        let response = oip_grpc::encode_response(
            id,
            answered.target.id(),
            &answered.signature,
            &answered.outputs,
            &answered.tensors,
            contents,
        )?;
        core.succeeded(&answered);
        Ok(response)
    }

    async fn target(&self, name: &str, version: &str) -> Result<Arc<dyn Target>, Status> {
        let found = async { self.core.resolve(&oip::request_spec(name, version)?, None).await };
        found.await.map_err(|error| status::grpc(&error))
    }
}

/// The versions of a model that answer requests.
pub(crate) fn ready_versions(core: &Core, name: &str) -> Vec<String> {
    let status = core.models.status(name);
    let versions = status.into_iter().flat_map(|status| status.versions);
    let ready = versions.filter(|version| version.state == salver_predict::State::Available);
    ready.map(|version| version.version.to_string()).collect()
}

/// Whether a model, or one version of it, answers requests.
pub(crate) async fn is_ready(core: &Core, name: &str, version: &str) -> Result<bool, Error> {
    match core.resolve(&oip::request_spec(name, version)?, None).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Code::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::ModelStreamInferResponse, Status>> + Send>>;

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.core.models.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let asked = request.get_ref();
        let ready = is_ready(&self.core, &asked.name, &asked.version).await;
        let ready = ready.map_err(|error| status::grpc(&error))?;
        Ok(Response::new(pb::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        Ok(Response::new(pb::ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: self.core.config.server_version.clone(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let asked = request.get_ref();
        let target = self.target(&asked.name, &asked.version).await?;
        let versions = ready_versions(&self.core, &asked.name);
        let response = oip_grpc::metadata_response(&*target, versions);
        response.map(Response::new).map_err(|error| status::grpc(&error))
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let Some(arrival) = extensions.get::<Arrival>() else { return Err(no_arrival()) };
        let answer = self.infer(message, arrival, arrival.terms(&metadata)).await;
        answer.map(Response::new).map_err(|error| status::grpc(&error))
    }

    type ModelStreamInferStream = Answers;

    /// Answers one request after the other, in their order, until the client ends or the server shuts down.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (metadata, extensions, messages) = request.into_parts();
        let Some(arrival) = extensions.get::<Arrival>().cloned() else { return Err(no_arrival()) };
        let terms = arrival.terms(&metadata);
        let this = self.clone();
        let mut stop = this.core.stop.subscribe();
        let stopped = Box::pin(async move { drop(stop.wait_for(Option::is_some).await) });
        let answers = messages.take_until(stopped).then(move |message| {
            let (this, arrival) = (this.clone(), Arrival { started: clock::now(), ..arrival.clone() });
            let terms = terms.clone();
            async move {
                let answer = this.infer(message?, &arrival, terms).await;
                let error_message = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
                Ok(pb::ModelStreamInferResponse { error_message, infer_response: answer.ok() })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let asked = request.get_ref();
        let target = self.target(&asked.name, &asked.version).await?;
        let response = oip_grpc::config_response(&*target, MAX_BATCH_SIZE);
        response.map(Response::new).map_err(|error| status::grpc(&error))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Result<Response<pb::ModelStatisticsResponse>, Status> {
        let asked = request.get_ref();
        let statistics = crate::statistics::collect(&self.core, &asked.name, &asked.version).await;
        let statistics = statistics.map_err(|error| status::grpc(&error))?;
        Ok(Response::new(oip_grpc::statistics_response(&statistics)))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Result<Response<pb::RepositoryIndexResponse>, Status> {
        let models = self.core.models.list();
        Ok(Response::new(oip_grpc::index_response(request.get_ref(), &models)))
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<Response<pb::RepositoryModelLoadResponse>, Status> {
        let load = async {
            check_control(&self.core)?;
            self.core.models.load(&request.get_ref().model_name).await
        };
        load.await.map_err(|error| status::grpc(&error))?;
        Ok(Response::new(pb::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<Response<pb::RepositoryModelUnloadResponse>, Status> {
        let unload = async {
            check_control(&self.core)?;
            self.core.models.unload(&request.get_ref().model_name).await
        };
        unload.await.map_err(|error| status::grpc(&error))?;
        Ok(Response::new(pb::RepositoryModelUnloadResponse {}))
    }
}

//! `tensorflow.serving.PredictionService`.

use std::sync::Arc;
use std::time::Instant;

use salver_predict::{Code, Error, ModelName, select_outputs};
use salver_wire::proto::tensorflow::serving::prediction_service_server::PredictionService;
use salver_wire::proto::tensorflow::serving::{
    ClassificationRequest, ClassificationResponse, GetModelMetadataRequest, GetModelMetadataResponse,
    ModelSpec, MultiInferenceRequest, MultiInferenceResponse, PredictRequest, PredictResponse,
    RegressionRequest, RegressionResponse,
};
use salver_wire::{status, tfs};
use tonic::{Request, Response, Status};

use super::{Arrival, deadline};
use crate::core::{Answered, Core, Question};
use crate::metrics::Api;

#[derive(Debug)]
pub(crate) struct Prediction {
    core: Arc<Core>,
}

impl Prediction {
    pub(crate) fn new(core: Arc<Core>) -> Prediction {
        Prediction { core }
    }

    async fn answer(
        &self,
        message: PredictRequest,
        arrival: &Arrival,
        deadline: Option<Instant>,
    ) -> Result<Answered, Error> {
        let core = &*self.core;
        let spec = tfs::request_spec(message.model_spec.as_ref())?;
        let target = core.resolve(&spec, deadline).await?;
        if let Some(entry) = &arrival.entry {
            entry.answered_by(target.id());
        }
        let signature = Arc::clone(target.signature(tfs::signature_name(message.model_spec.as_ref()))?);
        if core.config.check_method_name {
            tfs::check_method_name(&signature)?;
        }
        let inputs = tfs::decode_inputs(message.inputs, &signature, core.config.limits.decompressed_bytes)?;
        arrival.reservation.grow_to(inputs.iter().map(salver_tensor::Tensor::n_bytes).sum())?;
        let outputs = select_outputs(&signature, &message.output_filter)?;
        let question = Question { target, signature, inputs, outputs, deadline };
        core.ask(Api::GrpcPredict, arrival.started, question).await
    }

    /// Checks the model and then refuses: these calls need models of TensorFlow's own formats.
    async fn refuse(&self, what: &str, spec: Option<&ModelSpec>, deadline: Option<Instant>) -> Status {
        let checked = async {
            let target = self.core.resolve(&tfs::request_spec(spec)?, deadline).await?;
            target.signature(tfs::signature_name(spec)).map(drop)
        };
        let error = match checked.await {
            Err(error) => error,
            Ok(()) => Error::client(
                Code::Unimplemented,
                format!(
                    "{what} takes tensorflow.Example messages, which no model served here reads; use Predict"
                ),
            ),
        };
        status::grpc(&error)
    }
}

#[tonic::async_trait]
impl PredictionService for Prediction {
    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let Some(arrival) = extensions.get::<Arrival>() else { return Err(no_arrival()) };
        let name = message.model_spec.as_ref().and_then(|spec| ModelName::new(&spec.name));
        if let (Some(entry), Some(name)) = (&arrival.entry, &name) {
            entry.asked(name);
        }
        match self.answer(message, arrival, deadline(arrival.started, &metadata)).await {
            Ok(answered) => {
                let encoding = if self.core.config.tensor_content {
                    tfs::Encoding::Content
                } else {
                    tfs::Encoding::Fields
                };
                let response = tfs::encode_response(
                    answered.target.id(),
                    &answered.signature,
                    &answered.outputs,
                    &answered.tensors,
                    encoding,
                );
                self.core.succeeded(&answered);
                Ok(Response::new(response))
            }
            Err(error) => {
                self.core.failed(Api::GrpcPredict, name.as_ref(), &error);
                Err(status::grpc(&error))
            }
        }
    }

    async fn get_model_metadata(
        &self,
        request: Request<GetModelMetadataRequest>,
    ) -> Result<Response<GetModelMetadataResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let deadline = extensions.get::<Arrival>().and_then(|arrival| deadline(arrival.started, &metadata));
        let spec = tfs::metadata_spec(&message).map_err(|error| status::grpc(&error))?;
        let target = self.core.resolve(&spec, deadline).await.map_err(|error| status::grpc(&error))?;
        Ok(Response::new(tfs::metadata_response(target.id(), target.signatures())))
    }

    async fn classify(
        &self,
        request: Request<ClassificationRequest>,
    ) -> Result<Response<ClassificationResponse>, Status> {
        let message = request.into_inner();
        Err(self.refuse("Classify", message.model_spec.as_ref(), None).await)
    }

    async fn regress(
        &self,
        request: Request<RegressionRequest>,
    ) -> Result<Response<RegressionResponse>, Status> {
        let message = request.into_inner();
        Err(self.refuse("Regress", message.model_spec.as_ref(), None).await)
    }

    async fn multi_inference(
        &self,
        request: Request<MultiInferenceRequest>,
    ) -> Result<Response<MultiInferenceResponse>, Status> {
        let message = request.into_inner();
        let none = ModelSpec::default();
        let spec = message.tasks.first().map_or(Some(&none), |task| task.model_spec.as_ref());
        Err(self.refuse("MultiInference", spec, None).await)
    }
}

/// Every call comes through [`super::handle`], which adds it.
pub(crate) fn no_arrival() -> Status {
    Status::internal("the call did not come through this server's front")
}

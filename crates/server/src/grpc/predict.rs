//! `tensorflow.serving.PredictionService`.

use std::sync::Arc;

use futures_util::future::try_join_all;
use salver_predict::{Error, ModelName, Target, select_outputs};
use salver_tensor::Tensor;
use salver_wire::proto::tensorflow::serving::inference_result::Result as Outcome;
use salver_wire::proto::tensorflow::serving::prediction_service_server::PredictionService;
use salver_wire::proto::tensorflow::serving::{
    ClassificationRequest, ClassificationResponse, GetModelMetadataRequest, GetModelMetadataResponse,
    InferenceResult, Input, ModelSpec, MultiInferenceRequest, MultiInferenceResponse, PredictRequest,
    PredictResponse, RegressionRequest, RegressionResponse,
};
use salver_wire::status;
use salver_wire::tfs::{self, Method};
use tonic::{Request, Response, Status};

use super::{Arrival, deadline};
use crate::core::{Answered, Core, Question};
use crate::examples::{self, Asked, Inferred};
use crate::metrics::Api;
use crate::terms::Terms;

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
        terms: Terms,
    ) -> Result<Answered, Error> {
        let core = &*self.core;
        let target = self.find(message.model_spec.as_ref(), arrival, &terms).await?;
        let signature = Arc::clone(target.signature(tfs::signature_name(message.model_spec.as_ref()))?);
        if core.config.check_method_name {
            tfs::check_method_name(&signature)?;
        }
        let inputs = tfs::decode_inputs(message.inputs, &signature, core.config.limits.decompressed_bytes)?;
        arrival.reservation.grow_to(inputs.iter().map(Tensor::n_bytes).sum())?;
        let outputs = select_outputs(&signature, &message.output_filter)?;
        let question = Question { target, signature, inputs, outputs, terms };
        core.ask(Api::GrpcPredict, arrival.started, question).await
    }

    /// Finds the version that is meant.
    async fn find(
        &self,
        spec: Option<&ModelSpec>,
        arrival: &Arrival,
        terms: &Terms,
    ) -> Result<Arc<dyn Target>, Error> {
        let target = self.core.resolve(&tfs::request_spec(spec)?, terms.until).await?;
        if let Some(entry) = &arrival.entry {
            entry.answered_by(target.id());
        }
        Ok(target)
    }

    /// The examples of a request, within the memory that there is.
    fn examples(&self, input: Option<Input>, arrival: &Arrival) -> Result<Tensor, Error> {
        let tensor = tfs::example_tensor(input, self.core.config.limits.decompressed_bytes)?;
        arrival.reservation.grow_to(examples::n_bytes(&tensor))?;
        Ok(tensor)
    }

    /// Answers a classify or regress request: who answered, and what.
    async fn infer(
        &self,
        method: Method,
        request: Request<Examples>,
    ) -> Result<(ModelSpec, Inferred), Status> {
        let api = match method {
            Method::Classify => Api::GrpcClassify,
            Method::Regress => Api::GrpcRegress,
        };
        let (metadata, extensions, Examples { spec, input }) = request.into_parts();
        let Some(arrival) = extensions.get::<Arrival>() else { return Err(no_arrival()) };
        let name = asked(arrival, spec.as_ref());
        let answer = async {
            let terms = arrival.terms(&metadata)?;
            let target = self.find(spec.as_ref(), arrival, &terms).await?;
            let task = examples::task(&self.core, &*target, tfs::signature_name(spec.as_ref()), method)?;
            let tensor = self.examples(input, arrival)?;
            let (started, target, examples) = (arrival.started, &target, &tensor);
            examples::infer(&self.core, &Asked { api, started, target, examples, terms }, task).await
        };
        match answer.await {
            Ok((answered, inferred)) => {
                self.core.succeeded(&answered);
                Ok((answered_by(&answered), inferred))
            }
            Err(error) => Err(self.failed(api, name.as_ref(), &error)),
        }
    }

    /// Runs the signatures of all tasks side by side, on one version.
    async fn infer_all(
        &self,
        message: MultiInferenceRequest,
        arrival: &Arrival,
        terms: Terms,
    ) -> Result<Vec<(Answered, Inferred)>, Error> {
        let none = ModelSpec::default();
        let spec = message.tasks.first().map_or(Some(&none), |task| task.model_spec.as_ref());
        let target = self.find(spec, arrival, &terms).await?;
        let tasks = tfs::plan_tasks(&message, target.signatures())?;
        let tensor = self.examples(message.input, arrival)?;
        let (api, started) = (Api::GrpcMultiInference, arrival.started);
        let asked = Asked { api, started, target: &target, examples: &tensor, terms };
        try_join_all(tasks.into_iter().map(|task| examples::infer(&self.core, &asked, task))).await
    }

    fn failed(&self, api: Api, name: Option<&ModelName>, error: &Error) -> Status {
        self.core.failed(api, name, error);
        status::grpc(error)
    }
}

/// Notes which model is asked for.
fn asked(arrival: &Arrival, spec: Option<&ModelSpec>) -> Option<ModelName> {
    let name = spec.and_then(|spec| ModelName::new(&spec.name));
    if let (Some(entry), Some(name)) = (&arrival.entry, &name) {
        entry.asked(name);
    }
    name
}

fn answered_by(answered: &Answered) -> ModelSpec {
    tfs::effective_spec(answered.target.id(), answered.signature.name())
}

#[tonic::async_trait]
impl PredictionService for Prediction {
    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let Some(arrival) = extensions.get::<Arrival>() else { return Err(no_arrival()) };
        let name = asked(arrival, message.model_spec.as_ref());
        let answer = async { self.answer(message, arrival, arrival.terms(&metadata)?).await };
        match answer.await {
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
            Err(error) => Err(self.failed(Api::GrpcPredict, name.as_ref(), &error)),
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
        let (model_spec, inferred) = self.infer(Method::Classify, request.map(Examples::from)).await?;
        let result = match inferred {
            Inferred::Classes(result) => Some(result),
            Inferred::Values(_) => None,
        };
        Ok(Response::new(ClassificationResponse { model_spec: Some(model_spec), result }))
    }

    async fn regress(
        &self,
        request: Request<RegressionRequest>,
    ) -> Result<Response<RegressionResponse>, Status> {
        let (model_spec, inferred) = self.infer(Method::Regress, request.map(Examples::from)).await?;
        let result = match inferred {
            Inferred::Values(result) => Some(result),
            Inferred::Classes(_) => None,
        };
        Ok(Response::new(RegressionResponse { model_spec: Some(model_spec), result }))
    }

    async fn multi_inference(
        &self,
        request: Request<MultiInferenceRequest>,
    ) -> Result<Response<MultiInferenceResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let Some(arrival) = extensions.get::<Arrival>() else { return Err(no_arrival()) };
        let name = asked(arrival, message.tasks.first().and_then(|task| task.model_spec.as_ref()));
        let answer = async { self.infer_all(message, arrival, arrival.terms(&metadata)?).await };
        match answer.await {
            Ok(inferred) => {
                self.core.all_succeeded(inferred.iter().map(|(answered, _)| answered));
                let results = inferred.into_iter().map(|(answered, inferred)| InferenceResult {
                    model_spec: Some(answered_by(&answered)),
                    result: Some(match inferred {
                        Inferred::Classes(result) => Outcome::ClassificationResult(result),
                        Inferred::Values(result) => Outcome::RegressionResult(result),
                    }),
                });
                Ok(Response::new(MultiInferenceResponse { results: results.collect() }))
            }
            Err(error) => Err(self.failed(Api::GrpcMultiInference, name.as_ref(), &error)),
        }
    }
}

/// What classify and regress requests have in common.
struct Examples {
    spec: Option<ModelSpec>,
    input: Option<Input>,
}

impl From<ClassificationRequest> for Examples {
    fn from(request: ClassificationRequest) -> Examples {
        Examples { spec: request.model_spec, input: request.input }
    }
}

impl From<RegressionRequest> for Examples {
    fn from(request: RegressionRequest) -> Examples {
        Examples { spec: request.model_spec, input: request.input }
    }
}

/// Every call comes through [`super::handle`], which adds it.
pub(crate) fn no_arrival() -> Status {
    Status::internal("the call did not come through this server's front")
}

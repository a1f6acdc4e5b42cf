//! `tensorflow.serving.ModelService`.

use std::sync::Arc;

use salver_predict::{Code, Error};
use salver_wire::proto::tensorflow::serving::model_service_server::ModelService;
use salver_wire::proto::tensorflow::serving::{
    GetModelStatusRequest, GetModelStatusResponse, ReloadConfigRequest, ReloadConfigResponse,
};
use salver_wire::{status, tfs};
use tonic::{Request, Response, Status};

use crate::core::Core;

#[derive(Debug)]
pub(crate) struct ModelAdmin {
    core: Arc<Core>,
}

impl ModelAdmin {
    pub(crate) fn new(core: Arc<Core>) -> ModelAdmin {
        ModelAdmin { core }
    }
}

/// Refuses to change what is served, where the configuration does not allow it.
pub(crate) fn check_control(core: &Core) -> Result<(), Error> {
    if core.config.model_control {
        return Ok(());
    }
    let text = "changing the served models over the network is switched off";
    Err(Error::client(Code::PermissionDenied, text))
}

#[tonic::async_trait]
impl ModelService for ModelAdmin {
    async fn get_model_status(
        &self,
        request: Request<GetModelStatusRequest>,
    ) -> Result<Response<GetModelStatusResponse>, Status> {
        let response = tfs::status_response(request.get_ref(), |name| self.core.models.status(name));
        response.map(Response::new).map_err(|error| status::grpc(&error))
    }

    /// Waits until every new model is available or has ended, whatever the caller's deadline. The caller may leave;
    /// whether the change then goes on is up to whoever makes it.
    async fn handle_reload_config_request(
        &self,
        request: Request<ReloadConfigRequest>,
    ) -> Result<Response<ReloadConfigResponse>, Status> {
        let reload = async {
            check_control(&self.core)?;
            let models = tfs::reload_models(request.into_inner())?;
            self.core.models.reload(models).await
        };
        reload.await.map_err(|error| status::grpc(&error))?;
        let ok = tfs::status_proto(Code::Ok, String::new());
        Ok(Response::new(ReloadConfigResponse { status: Some(ok), ..ReloadConfigResponse::default() }))
    }
}

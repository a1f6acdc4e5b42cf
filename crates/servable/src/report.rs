//! The life-cycle's states as fronts know them.

use std::sync::Arc;

use salver_lifecycle::{ErrorKind, Phase, VersionState};
use salver_predict::{Code, ModelId, State, Version, VersionStatus};

use crate::{Loaded, ServableInfo, SignatureCosts, SignatureSnapshot};

/// One version of one model, for metrics and pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSnapshot {
    /// The model and the version.
    pub id: ModelId,
    /// Its state.
    pub state: State,
    /// What it has done, if it is available.
    pub servable: Option<ServableSnapshot>,
}

/// What a loaded model has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServableSnapshot {
    /// What is known of it.
    pub info: ServableInfo,
    /// Its queue and its runs.
    pub lanes: salver_batch::Snapshot,
    /// How it lets requests in and joins them, as it is now.
    pub policy: Arc<salver_batch::Policy>,
    /// What its runs cost, by signature.
    pub costs: Vec<SignatureCosts>,
    /// Its answers, by signature in the model's order.
    pub signatures: Vec<SignatureSnapshot>,
}

impl ServableSnapshot {
    pub(crate) fn of(loaded: &Loaded) -> ServableSnapshot {
        ServableSnapshot {
            info: loaded.info().clone(),
            lanes: loaded.lane_stats(),
            policy: loaded.policy(),
            costs: loaded.costs(),
            signatures: loaded.signature_stats(),
        }
    }
}

pub(crate) fn state(phase: Phase) -> State {
    match phase {
        Phase::Start => State::Start,
        Phase::Loading => State::Loading,
        Phase::Available => State::Available,
        Phase::Unloading => State::Unloading,
        Phase::End => State::End,
    }
}

pub(crate) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Cancelled => Code::Cancelled,
        _ => Code::Internal,
    }
}

pub(crate) fn version_status(version: &VersionState) -> VersionStatus {
    VersionStatus {
        version: Version(version.version.get()),
        state: state(version.state.phase),
        error: version.state.error.as_ref().map(|error| (code(error.kind), error.message.clone())),
    }
}

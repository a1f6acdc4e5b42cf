//! A model that is a closure.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_engine::{DEFAULT_SIGNATURE, Error, ErrorKind, Model, Session};
use salver_tensor::{DType, Dims, Signature, Tensor, TensorSpec};

use super::{enter_here, is_entered_here};

type Function = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>, Error> + Send + Sync;

/// A model of one signature that computes at once. The closure takes all inputs and returns all outputs, both in the
/// signature's order.
#[derive(Clone)]
pub struct FnModel {
    signatures: [Arc<Signature>; 1],
    function: Arc<Function>,
    abandon: Option<Arc<dyn Fn() + Send + Sync>>,
    has_loops: bool,
}

impl FnModel {
    /// A model that is this closure.
    pub fn new<F>(signature: Signature, function: F) -> Arc<FnModel>
    where
        F: Fn(&[Tensor]) -> Result<Vec<Tensor>, Error> + Send + Sync + 'static,
    {
        let (signatures, function) = ([Arc::new(signature)], Arc::new(function));
        FnModel { signatures, function, abandon: None, has_loops: false }.into()
    }

    /// The same model with a closure that is called when it is abandoned.
    pub fn abandoned_by<F>(&self, abandon: F) -> Arc<FnModel>
    where
        F: Fn() + Send + Sync + 'static,
    {
        FnModel { abandon: Some(Arc::new(abandon)), ..self.clone() }.into()
    }

    /// The same model, of which a run may take any time.
    pub fn with_loops(&self) -> Arc<FnModel> {
        FnModel { has_loops: true, ..self.clone() }.into()
    }

    /// TensorFlow Serving's test model: `y = x / 2 + 2` over `float32 [?]`.
    pub fn half_plus_two() -> Arc<FnModel> {
        FnModel::new(half_plus_two_signature(), |inputs| {
            let wrong = || Error::new(ErrorKind::InvalidInput, "expected one float32 input");
            let x = inputs.first().ok_or_else(wrong)?;
            let elements = x.to_slice::<f32>().ok_or_else(wrong)?;
            let y = elements.iter().map(|x| x / 2.0 + 2.0).collect();
            let y = Tensor::from_vec(x.shape().clone(), y)
                .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
            Ok(vec![y])
        })
    }
}

/// The signature of [`FnModel::half_plus_two`].
pub fn half_plus_two_signature() -> Signature {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        tensor_name: format!("{name}:0").into(),
        dtype: DType::F32,
        dims: Dims::new(vec![None]),
        default: None,
    };
    Signature::new(DEFAULT_SIGNATURE, "tensorflow/serving/predict", vec![spec("x")], vec![spec("y")])
}

impl fmt::Debug for FnModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnModel").field("signatures", &self.signatures).finish_non_exhaustive()
    }
}

impl Model for FnModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(FnSession { function: self.function.clone() }))
    }

    fn enter(&self, _threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        enter_here(body);
    }

    fn is_entered(&self) -> bool {
        is_entered_here()
    }

    fn has_loops(&self) -> bool {
        self.has_loops
    }

    fn n_bytes(&self) -> u64 {
        0
    }

    fn abandon(&self) {
        if let Some(abandon) = &self.abandon {
            abandon();
        }
    }
}

struct FnSession {
    function: Arc<Function>,
}

impl Session for FnSession {
    fn run(&mut self, _signature: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        let all = (self.function)(inputs)?;
        outputs
            .iter()
            .map(|&at| all.get(at).cloned())
            .collect::<Option<_>>()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the closure returned too few outputs"))
    }
}

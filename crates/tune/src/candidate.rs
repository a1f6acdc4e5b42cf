//! What is measured: candidates and requests.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_engine::{Error, Model, Precision};
use salver_tensor::{Signature, Tensor};

/// Loads the model for so many threads per run and so many runs at a time. Blocks.
pub type Load = Arc<dyn Fn(NonZeroUsize, NonZeroUsize) -> Result<Arc<dyn Model>, Error> + Send + Sync>;

/// An engine and a precision.
#[derive(Clone)]
pub struct Candidate {
    /// The engine's name, for tables and settings.
    pub engine: Arc<str>,
    /// What it computes in.
    pub precision: Precision,
    /// How it loads the model.
    pub load: Load,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidate({} {})", self.engine, self.precision)
    }
}

/// Says what is asked of a model that has these signatures; each request names one of them.
pub type Requests<'a> = dyn Fn(&[Arc<Signature>]) -> Result<Vec<Request>, String> + 'a;

/// What is asked of the model.
#[derive(Debug, Clone)]
pub struct Request {
    /// The signature's name.
    pub signature: Arc<str>,
    /// All its inputs, sorted by name, with any number of rows.
    pub inputs: Vec<Tensor>,
}

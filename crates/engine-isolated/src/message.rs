//! What server and worker say to each other.

use std::sync::Arc;

use salver_engine::{Error, LoadOptions, ModelSource};
use salver_tensor::Signature;

use crate::codec::{Malformed, Reader, Wire, put_all};

/// The kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To the worker, the first and once: a [`Load`]. Answered with [`Kind::Done`] and a [`Loaded`].
    Load = 1,
    /// To the worker: make a session that listens on the socket that comes along. Answered there with [`Kind::Done`].
    Session = 2,
    /// To a session: a [`Run`] and its inputs. Answered with [`Kind::Done`] and the outputs.
    Run = 3,
    /// What was asked for.
    Done = 4,
    /// An [`Error`] instead of what was asked for.
    Failed = 5,
}

impl Kind {
    pub(crate) fn from_code(code: u8) -> Option<Kind> {
        [Kind::Load, Kind::Session, Kind::Run, Kind::Done, Kind::Failed]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// Which model is to be loaded, by which engine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Load {
    pub(crate) engine: String,
    pub(crate) source: ModelSource,
    pub(crate) options: LoadOptions,
}

impl Wire for Load {
    fn put(&self, out: &mut Vec<u8>) {
        self.engine.put(out);
        self.source.put(out);
        self.options.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Load, Malformed> {
        Ok(Load { engine: Wire::get(from)?, source: Wire::get(from)?, options: Wire::get(from)? })
    }
}

/// What a model says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) signatures: Vec<Arc<Signature>>,
    pub(crate) refused: Vec<(Arc<str>, Error)>,
    pub(crate) n_bytes: u64,
}

impl Wire for Loaded {
    fn put(&self, out: &mut Vec<u8>) {
        self.signatures.put(out);
        self.refused.put(out);
        self.n_bytes.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Loaded, Malformed> {
        Ok(Loaded { signatures: Wire::get(from)?, refused: Wire::get(from)?, n_bytes: Wire::get(from)? })
    }
}

/// Which signature is to be run and which of its outputs are wanted. The inputs lie beside it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run<'a> {
    pub(crate) signature: usize,
    pub(crate) outputs: std::borrow::Cow<'a, [usize]>,
}

impl Wire for Run<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        self.signature.put(out);
        put_all(&self.outputs, out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Run { signature: Wire::get(from)?, outputs: Vec::get(from)?.into() })
    }
}

/// Nothing but the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nothing;

impl Wire for Nothing {
    fn put(&self, out: &mut Vec<u8>) {
        0u8.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Nothing, Malformed> {
        u8::get(from).map(|_| Nothing)
    }
}

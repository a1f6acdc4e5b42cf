//! Ranges of a model's values: measured, kept in a file, and what `int8` makes of them.

mod file;

use std::collections::BTreeMap;
use std::path::Path;

use salver_engine::{Error, ErrorKind, LoadOptions, Model, ModelSource, Precision};
use salver_graph::{Passes, SignatureGraph};
use salver_tensor::{Signature, Tensor};

use crate::engine_error;
use crate::model::{GraphModel, Shapes};
use crate::parts::Parts;
use crate::read;

/// The ranges that the values of a model took in some requests, by signature.
///
/// A range is the smallest and the largest element that a value had in any of the requests. Nothing is cut off: what lies
/// outside of them later becomes the nearest bound, so the requests should be ones that the model is made for, a few
/// hundred of them rather than a few, without outliers that do not matter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranges {
    pub(crate) signatures: BTreeMap<String, salver_graph::Ranges>,
}

impl Ranges {
    /// The signatures that were measured.
    pub fn signatures(&self) -> impl Iterator<Item = &str> {
        self.signatures.keys().map(String::as_str)
    }

    /// How many values were measured.
    pub fn n_values(&self) -> usize {
        self.signatures.values().map(|ranges| ranges.values.len()).sum()
    }

    /// The content of a ranges file, ready to be read by people as well.
    pub fn to_json(&self) -> String {
        file::to_json(self)
    }

    /// Reads the content of a ranges file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] when it is not one, or of another version.
    pub fn from_json(text: &[u8]) -> Result<Ranges, Error> {
        file::from_json(text)
    }

    /// Reads a ranges file. Blocks.
    ///
    /// # Errors
    /// As [`Ranges::from_json`], and when the file cannot be read; the error names it.
    pub fn read(path: &Path) -> Result<Ranges, Error> {
        file::read(path)
    }
}

/// One request: the signature and its inputs by name.
pub type Request = (String, Vec<(String, Tensor)>);

/// Runs requests through a model, as `float32` on `parts`, and gives the ranges that its values took. `requests` gives
/// one after the other. Signatures that no request names are not measured, and stay in floats in `int8`. Blocks until all
/// requests are run.
///
/// # Errors
/// When the model cannot be loaded, a request does not fit it, there are no requests, or nothing in the model can be
/// computed in `int8`.
pub fn calibrate(
    source: &ModelSource,
    options: &LoadOptions,
    parts: &Parts,
    requests: &mut (dyn FnMut() -> Option<Request> + Send),
) -> Result<Ranges, Error> {
    let mut options = options.clone();
    (options.precision, options.ranges) = (Precision::F32, None);
    let model = read::import(source, &options)?;
    let mut measured = BTreeMap::new();
    let mut turn = |signature: SignatureGraph| {
        let (signature, _) = signature.optimised(&Passes::all());
        let (with_points, names) = signature.with_calibration_points();
        let ranges = salver_graph::Ranges::new(&signature.graph);
        measured.insert(signature.name, Measured { names, ranges, n_requests: 0 });
        Ok(with_points)
    };
    let model = GraphModel::turned(model, Shapes::Checked, parts, &options, &mut turn)
        .map_err(|error| read::in_source(&source.path, error))?;
    if measured.values().all(|signature| signature.names.is_empty()) {
        return Err(read::in_source(&source.path, nothing()));
    }
    let mut result = Ok(());
    // Sessions run best on a thread that has entered the engine.
    model.enter(options.threads, &mut || result = run(&model, &mut measured, requests));
    result.map_err(|error| read::in_source(&source.path, error))?;
    let run = measured.into_iter().filter(|(_, signature)| signature.n_requests > 0);
    let signatures: BTreeMap<_, _> = run.map(|(name, signature)| (name, signature.ranges)).collect();
    if signatures.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "there are no requests to measure ranges with"));
    }
    Ok(Ranges { signatures })
}

fn nothing() -> Error {
    let message = "nothing in the model can be computed in int8: it has no convolution and no large product with \
                   constant weights between its inputs and outputs";
    Error::new(ErrorKind::Unsupported, message)
}

/// One signature while it is measured.
struct Measured {
    /// Names of outputs with the names of the values that they are.
    names: Vec<(String, String)>,
    ranges: salver_graph::Ranges,
    n_requests: usize,
}

fn run(
    model: &GraphModel,
    measured: &mut BTreeMap<String, Measured>,
    requests: &mut (dyn FnMut() -> Option<Request> + Send),
) -> Result<(), Error> {
    let mut session = model.session()?;
    while let Some((name, inputs)) = requests() {
        let unknown = || Error::new(ErrorKind::InvalidInput, format!("the model has no signature '{name}'"));
        let at = model.signatures().iter().position(|signature| **signature.name() == *name);
        let at = at.ok_or_else(unknown)?;
        let (signature, into) = (&model.signatures()[at], measured.get_mut(&name).ok_or_else(unknown)?);
        let inputs = in_order(signature, inputs)?;
        let lost = || Error::new(ErrorKind::Internal, "the engine lost a value that is measured");
        let outputs = into.names.iter().map(|(output, _)| signature.output_index(output).ok_or_else(lost));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let values = session.run(at, &inputs, &outputs)?;
        for ((_, value), tensor) in into.names.iter().zip(values) {
            into.ranges.include(value, &tensor.to_slice::<f32>().ok_or_else(lost)?);
        }
        into.n_requests += 1;
    }
    Ok(())
}

/// The inputs in the signature's order.
fn in_order(signature: &Signature, mut given: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, Error> {
    let refuse = |message: String| Error::new(ErrorKind::InvalidInput, message);
    let mut ordered = Vec::with_capacity(signature.inputs().len());
    for spec in signature.inputs() {
        let at = given.iter().position(|(name, _)| **name == *spec.name);
        let tensor = at.map(|at| given.swap_remove(at).1).or_else(|| spec.default.clone());
        let tensor = tensor.ok_or_else(|| refuse(format!("a request lacks input '{}'", spec.name)))?;
        if tensor.dtype() != spec.dtype || !spec.dims.accepts(tensor.shape()) {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            let expected = format!("{}{:?}", spec.dtype, spec.dims);
            return Err(refuse(format!("input '{}' is {dtype}{shape}, expected {expected}", spec.name)));
        }
        ordered.push(tensor);
    }
    match given.first() {
        Some((name, _)) => {
            let signature = signature.name();
            Err(refuse(format!("a request has input '{name}', which signature '{signature}' has not")))
        }
        None => Ok(ordered),
    }
}

/// Makes signatures of a model ones that compute in `int8`.
pub(crate) struct Quantising {
    ranges: Ranges,
    n_quantised: usize,
}

impl Quantising {
    /// As the options say. `None` when they say another precision.
    pub(crate) fn new(options: &LoadOptions) -> Result<Option<Quantising>, Error> {
        if options.precision != Precision::Int8 {
            return Ok(None);
        }
        let path = options.ranges.as_deref().ok_or_else(|| {
            let message = "int8 needs a file with the ranges that the model's values take; \
                           'salver tune MODEL --allow int8' makes it";
            Error::new(ErrorKind::Unsupported, message)
        })?;
        let ranges = Ranges::read(path)?;
        Ok(Some(Quantising { ranges, n_quantised: 0 }))
    }

    /// A signature that went through the passes, as far as it can be in `int8`. One that was not measured stays.
    pub(crate) fn turn(&mut self, signature: SignatureGraph) -> Result<SignatureGraph, Error> {
        let name = signature.name.clone();
        let Some(ranges) = self.ranges.signatures.get(&name) else {
            tracing::info!("signature '{name}' stays in floats: its ranges were not measured");
            return Ok(signature);
        };
        let (graph, report) =
            salver_graph::quantise(&signature.graph, ranges).map_err(|error| stale(&error))?;
        self.n_quantised += report.quantised.len();
        let (n, n_kept) = (report.quantised.len(), report.kept.len());
        tracing::info!("signature '{name}': {n} products and convolutions in int8, {n_kept} in floats");
        for (node, why) in &report.kept {
            tracing::debug!("node '{node}' stays in floats: {why}");
        }
        Ok(SignatureGraph { graph, ..signature })
    }

    /// Whether anything became `int8`.
    ///
    /// # Errors
    /// When nothing did.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        if self.n_quantised == 0 { Err(nothing()) } else { Ok(()) }
    }
}

fn stale(error: &salver_graph::Error) -> Error {
    let inner = engine_error(error);
    Error::new(inner.kind(), format!("{error}; 'salver tune MODEL --allow int8' measures them again"))
}

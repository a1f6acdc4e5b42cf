//! OpenVINO, as the documentation of the crate `openvino` calls it: tensors are copied in and out.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use openvino::{
    CompiledModel, Core, DeviceType, ElementType, InferRequest, RwPropertyKey, Shape, Tensor as OvTensor,
};
use salver_engine::Precision;
use salver_tensor::{DType, Element, Shape as OwnShape, Tensor};

use super::Direct;

/// Loads an ONNX file, or a SavedModel's folder, whose inputs and outputs are numbers. Inputs come and outputs go in the
/// order of their names.
pub(crate) fn open(
    folder: &Path,
    model: &Path,
    threads: NonZeroUsize,
    precision: Precision,
) -> Result<Direct> {
    let library = library(folder)?;
    openvino_sys::library::load_from(library).map_err(|error| anyhow!("{error}"))?;
    let mut core = Core::new()?;
    let precision = match precision {
        Precision::Bf16 => "bf16",
        Precision::F32 => "f32",
        other => bail!("{other} is not called directly"),
    };
    let threads = threads.to_string();
    let properties = [
        (RwPropertyKey::InferenceNumThreads, threads.as_str()),
        (RwPropertyKey::NumStreams, "1"),
        (RwPropertyKey::HintInferencePrecision, precision),
    ];
    core.set_properties(&DeviceType::CPU, properties)?;
    let path = model.to_str().context("the model's path is text")?;
    let read = core.read_model_from_file(path, "").with_context(|| format!("OpenVINO cannot load {path}"))?;
    let mut compiled = core.compile_model(&read, DeviceType::CPU)?;
    let mut runner = Runner {
        inputs: by_name(compiled.get_input_size()?, |at| compiled.get_input_by_index(at)?.get_name())?,
        outputs: by_name(compiled.get_output_size()?, |at| compiled.get_output_by_index(at)?.get_name())?,
        lent: Vec::new(),
        request: compiled.create_infer_request()?,
        _compiled: compiled,
        _core: core,
    };
    Ok(Box::new(move |tensors| runner.run(tensors)))
}

/// The library's file, whatever version its name ends in.
fn library(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let is_it = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("libopenvino_c.so"))
    };
    let found = entries.filter_map(|entry| Some(entry.ok()?.path())).find(is_it);
    found.with_context(|| format!("no libopenvino_c.so in {}", folder.display()))
}

/// Positions in the order of names.
fn by_name(n: usize, name: impl Fn(usize) -> Result<String, openvino::InferenceError>) -> Result<Vec<usize>> {
    let mut named = (0..n).map(|at| Ok((name(at)?, at))).collect::<Result<Vec<_>>>()?;
    named.sort();
    Ok(named.into_iter().map(|(_, at)| at).collect())
}

struct Runner {
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    /// The inputs' memory, for the shapes of the last run.
    lent: Vec<(OwnShape, OvTensor)>,
    request: InferRequest,
    // They are dropped in this order, the last one last.
    _compiled: CompiledModel,
    _core: Core,
}

impl Runner {
    fn run(&mut self, tensors: &[Tensor]) -> Result<Vec<Tensor>> {
        if !self.lent.iter().map(|(shape, _)| shape).eq(tensors.iter().map(Tensor::shape)) {
            self.lend(tensors)?;
        }
        for ((_, lent), tensor) in self.lent.iter_mut().zip(tensors) {
            let bytes = tensor.bytes().context("an input of numbers")?;
            lent.get_raw_data_mut()?.copy_from_slice(bytes);
        }
        self.request.infer()?;
        self.outputs.iter().map(|&at| tensor(&self.request.get_output_tensor_by_index(at)?)).collect()
    }

    /// Makes memory of these shapes.
    fn lend(&mut self, tensors: &[Tensor]) -> Result<()> {
        self.lent.clear();
        for (&at, tensor) in self.inputs.iter().zip(tensors) {
            let dims: Vec<i64> =
                tensor.shape().dims().iter().map(|&dim| i64::try_from(dim)).collect::<Result<_, _>>()?;
            let elem = match tensor.dtype() {
                DType::F32 => ElementType::F32,
                DType::I32 => ElementType::I32,
                DType::I64 => ElementType::I64,
                other => bail!("an input of {other}"),
            };
            let lent = OvTensor::new(elem, &Shape::new(&dims)?)?;
            self.request.set_input_tensor_by_index(at, &lent)?;
            self.lent.push((tensor.shape().clone(), lent));
        }
        Ok(())
    }
}

fn tensor(given: &OvTensor) -> Result<Tensor> {
    match given.get_element_type()? {
        ElementType::F32 => owned::<f32>(given),
        ElementType::I32 => owned::<i32>(given),
        ElementType::I64 => owned::<i64>(given),
        other => bail!("an output of {other}"),
    }
}

fn owned<T: Element>(given: &OvTensor) -> Result<Tensor> {
    let shape = given.get_shape()?;
    let dims: Vec<usize> =
        shape.get_dimensions().iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>()?;
    Ok(Tensor::from_vec(OwnShape::new(&dims)?, given.get_data::<T>()?.to_vec())?)
}

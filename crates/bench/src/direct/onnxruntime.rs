//! ONNX Runtime, as the documentation of the crate `ort` calls it.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef};
use salver_engine::Library;
use salver_tensor::{DType, Element, Shape, Tensor};

use super::Direct;

/// Loads an ONNX file whose inputs and outputs are numbers. Inputs come and outputs go in the order of their names.
/// The library's environment is the one that Salver's engine made, since a process has one.
pub(crate) fn open(folder: &Path, model: &Path, threads: NonZeroUsize) -> Result<Direct> {
    let environment = salver_engine_onnxruntime::environment(&Library::at(folder))?;
    let mut builder = Session::builder(&environment)?
        .with_intra_threads(threads.get())
        .map_err(|error| anyhow!("{error}"))?;
    let mut session = builder
        .commit_from_file(model)
        .with_context(|| format!("ONNX Runtime cannot load {}", model.display()))?;
    let (inputs, outputs) = (places(session.inputs()), by_name(session.outputs()));
    Ok(Box::new(move |tensors| {
        let values = inputs.iter().map(|&at| value(tensors.get(at).context("an input is missing")?));
        let values = values.collect::<Result<Vec<_>>>()?;
        let given = session.run(values.as_slice())?;
        outputs.iter().map(|&at| tensor(&given[at])).collect()
    }))
}

/// Positions in the order of names.
fn by_name(outlets: &[Outlet]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..outlets.len()).collect();
    order.sort_by_key(|&at| outlets[at].name());
    order
}

/// For each, its position in the order of names.
fn places(outlets: &[Outlet]) -> Vec<usize> {
    let mut places = vec![0; outlets.len()];
    for (place, at) in by_name(outlets).into_iter().enumerate() {
        places[at] = place;
    }
    places
}

fn value(tensor: &Tensor) -> Result<SessionInputValue<'_>> {
    let dims = tensor.shape().dims();
    Ok(match tensor.dtype() {
        DType::F32 => {
            TensorRef::from_array_view((dims, tensor.as_slice::<f32>().context("aligned")?))?.into()
        }
        DType::I32 => {
            TensorRef::from_array_view((dims, tensor.as_slice::<i32>().context("aligned")?))?.into()
        }
        DType::I64 => {
            TensorRef::from_array_view((dims, tensor.as_slice::<i64>().context("aligned")?))?.into()
        }
        other => bail!("an input of {other}"),
    })
}

fn tensor(value: &DynValue) -> Result<Tensor> {
    match value.dtype().tensor_type() {
        Some(TensorElementType::Float32) => owned(value.try_extract_tensor::<f32>()?),
        Some(TensorElementType::Int32) => owned(value.try_extract_tensor::<i32>()?),
        Some(TensorElementType::Int64) => owned(value.try_extract_tensor::<i64>()?),
        other => bail!("an output of {other:?}"),
    }
}

fn owned<T: Element>((dims, elements): (&ort::value::Shape, &[T])) -> Result<Tensor> {
    let dims: Vec<usize> = dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>()?;
    Ok(Tensor::from_vec(Shape::new(&dims)?, elements.to_vec())?)
}

//! rten, as its own documentation calls it.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rten::{ModelOptions, RunOptions, ThreadPool, Value, ValueView};
use rten_tensor::prelude::*;
use rten_tensor::{Tensor as RtenTensor, TensorView};
use salver_tensor::{DType, Element, Shape, Tensor};

use super::Direct;

/// Loads an ONNX file whose inputs and outputs are numbers of 32 bits.
pub(crate) fn open(model: &Path, threads: NonZeroUsize) -> Result<Direct> {
    let model = ModelOptions::with_all_ops()
        .load_file(model)
        .with_context(|| format!("rten cannot load {}", model.display()))?;
    let pool = Arc::new(ThreadPool::with_num_threads(threads.get()));
    Ok(Box::new(move |inputs| {
        let values = model.input_ids().iter().zip(inputs).map(|(&id, tensor)| Ok((id, view(tensor)?.into())));
        let values = values.collect::<Result<Vec<_>>>()?;
        let options = RunOptions::default().with_thread_pool(Some(pool.clone()));
        let outputs = model.run(values, model.output_ids(), Some(options))?;
        outputs.into_iter().map(tensor).collect()
    }))
}

fn view(tensor: &Tensor) -> Result<ValueView<'_>> {
    let dims = tensor.shape().dims();
    Ok(match tensor.dtype() {
        DType::F32 => TensorView::from_data(dims, tensor.as_slice::<f32>().context("aligned")?).into(),
        DType::I32 => TensorView::from_data(dims, tensor.as_slice::<i32>().context("aligned")?).into(),
        other => bail!("an input of {other}"),
    })
}

fn tensor(value: Value) -> Result<Tensor> {
    match value {
        Value::FloatTensor(tensor) => owned(tensor),
        Value::Int32Tensor(tensor) => owned(tensor),
        other => bail!("an output of {}", other.dtype()),
    }
}

fn owned<T: Element>(tensor: RtenTensor<T>) -> Result<Tensor> {
    let shape = Shape::new(tensor.shape())?;
    Ok(Tensor::from_vec(shape, tensor.into_data())?)
}

//! The engine, and short ways to load and run.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "libraries and test data lie where the environment says"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use salver_engine::{Engine, Error, Library, LoadOptions, Model, ModelSource};
use salver_engine_tensorflow::{TESTED, TensorFlowEngine};
use salver_tensor::{Element, Shape, Tensor};

/// The folder with the tested version, or a line that says that nothing is tested.
pub(crate) fn library() -> Option<PathBuf> {
    let found = std::env::var_os("SALVER_RUNTIMES")
        .map(|folder| Path::new(&folder).join("tensorflow").join(TESTED[0]))
        .filter(|folder| folder.is_dir());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "TensorFlow is not in SALVER_RUNTIMES");
        println!("TensorFlow is not in SALVER_RUNTIMES: nothing is tested");
    }
    found
}

pub(crate) fn engine() -> Option<TensorFlowEngine> {
    library().map(|folder| TensorFlowEngine::new(Library::at(&folder)))
}

/// The folder with the models that others made, or a line that says that nothing is tested.
pub(crate) fn test_data() -> Option<PathBuf> {
    let found = std::env::var_os("SALVER_TESTDATA").map(PathBuf::from);
    if found.is_none() {
        println!("SALVER_TESTDATA is not set: nothing is tested");
    }
    found
}

/// A model of this crate's `testdata`.
pub(crate) fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

pub(crate) fn load(engine: &dyn Engine, path: &Path) -> Result<Arc<dyn Model>, Error> {
    engine.load(&ModelSource::find(path)?, &LoadOptions::default())
}

/// Runs a signature with inputs by name and gives an output by name.
pub(crate) fn run(
    model: &dyn Model,
    signature: &str,
    inputs: &[(&str, Tensor)],
    output: &str,
) -> Result<Tensor, Error> {
    let at = model.signatures().iter().position(|found| &**found.name() == signature);
    let at = at.unwrap_or_else(|| panic!("no signature '{signature}' ({:?})", model.refused()));
    let signature = &model.signatures()[at];
    let given: Vec<Tensor> = signature
        .inputs()
        .iter()
        .map(|spec| {
            let named = inputs.iter().find(|(name, _)| *name == &*spec.name);
            named.map(|(_, tensor)| tensor.clone()).or(spec.default.clone()).unwrap()
        })
        .collect();
    let output = signature.output_index(output).unwrap();
    Ok(model.session()?.run(at, &given, &[output])?.remove(0))
}

pub(crate) fn tensor<T: Element>(dims: &[usize], elements: &[T]) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), elements.to_vec()).unwrap()
}

pub(crate) fn strings(dims: &[usize], elements: &[&[u8]]) -> Tensor {
    let elements = elements.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
    Tensor::from_strings(Shape::new(dims).unwrap(), elements).unwrap()
}

pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_slice::<f32>().unwrap().into_owned()
}

//! Damaged models are errors or models, never a panic, and what loads answers or fails in order.

use proptest::prelude::*;
use proptest::sample::Index;
use salver_engine::Model;
use salver_engine_rten::load_bytes;
use salver_tensor::{Shape, Tensor};
use salver_testkit::conformance::Fixture;

/// Without loops: a damaged count may make one run, rightly, for as long as there is time and memory.
const MODELS: &[&str] =
    &["mlp", "branch", "shape_math", "conv_defaults", "softmax_11_1", "picks", "pads", "quantised", "gru"];

/// Runs a model on zeros of the sizes that it states, with 2 for the open ones.
fn run_on_zeros(model: &dyn Model) {
    let signature = &model.signatures()[0];
    let zeros = signature.inputs().iter().map(|spec| {
        let dims: Vec<_> = spec.dims.known().unwrap_or_default().iter().map(|dim| dim.unwrap_or(2)).collect();
        let shape = Shape::new(&dims).ok().filter(|shape| shape.n_elements() < 1 << 20)?;
        let n_bytes = shape.n_elements() * spec.dtype.size()?;
        Tensor::from_bytes(spec.dtype, shape, vec![0; n_bytes].into()).ok()
    });
    let Some(inputs) = zeros.collect::<Option<Vec<_>>>() else { return };
    let outputs: Vec<_> = (0..signature.outputs().len()).collect();
    if let Ok(answers) = model.session().expect("a session costs nothing").run(0, &inputs, &outputs) {
        assert_eq!(answers.len(), outputs.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn damaged_models_are_errors_or_models(
        which in 0..MODELS.len(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut bytes = std::fs::read(Fixture::read(MODELS[which]).path()).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(model) = load_bytes(bytes) {
            run_on_zeros(&*model);
        }
    }
}

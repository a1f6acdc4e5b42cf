//! The models of the conformance suite as TensorFlow writes them, imported here: each is answered rightly.

use salver_engine::Engine;
use salver_engine_graph::{GraphEngine, Parts};
use salver_engine_rten::RtenEngine;
use salver_testkit::conformance::{Verdict, judge_suite};

#[test]
fn imported_models_answer_as_the_suite_says() {
    let rten = RtenEngine::new();
    let parts = Parts::new(rten.name(), salver_engine_rten::supports_in, salver_engine_rten::load_graph);
    let verdicts = judge_suite(&GraphEngine::new(parts));
    let others: Vec<_> = verdicts.iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Right)).collect();
    assert!(verdicts.len() > 90, "{} models", verdicts.len());
    assert!(others.is_empty(), "{others:#?}");
}

//! Loops of real files become recurrent nodes that compute the same.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use salver_graph::{Error, Graph, Passes, evaluate, loops_that_stay};
use salver_tensor::{Shape, Tensor};
use salver_tensorflow::import::import_saved_model;
use salver_tensorflow::read::{Files, SERVE};

struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(std::fs::read(self.0.join(name)).ok().map(Bytes::from))
    }
}

fn n_of(graph: &Graph, op: &str) -> usize {
    let mut n = 0;
    graph.body().visit(&mut |node| n += usize::from(node.is(op)));
    n
}

/// 120 steps of 14 numbers between -2 and 2, for so many rows.
fn windows(n_rows: usize) -> Tensor {
    let numbers = (0..n_rows * 120 * 14).map(|at| ((at * 7919) % 1000) as f32 / 250.0 - 2.0);
    let shape = Shape::new(&[n_rows, 120, 14]).expect("a few rows");
    Tensor::from_vec(shape, numbers.collect()).expect("as many as the shape says")
}

/// Keras 2.1 in TensorFlow 1.7: control flow of nodes, a tensor array, three products per gate, dropout, a hard sigmoid
/// of four operators and `relu` for the new value.
#[test]
fn the_weather_models_are_one_gru() {
    #[expect(clippy::disallowed_methods, reason = "the one place where this test learns of real models")]
    let Some(root) = std::env::var_os("SALVER_TESTDATA") else {
        eprintln!("skipped: SALVER_TESTDATA is not set");
        return;
    };
    for version in ["1", "2"] {
        let folder = Path::new(&root).join("jena/savedmodel/weather").join(version);
        let files = Folder(folder);
        let bytes = files.read("saved_model.pb").unwrap().expect("a SavedModel");
        let model = import_saved_model(bytes, &[SERVE], &files).unwrap();
        let signature = &model.signatures[0];
        assert_eq!(n_of(&signature.graph, "Loop"), 1);

        let (optimised, _) = signature.optimised(&Passes::all());
        assert_eq!(loops_that_stay(&optimised.graph), [""; 0]);
        assert_eq!((n_of(&optimised.graph, "Loop"), n_of(&optimised.graph, "GRU")), (0, 1));
        let gru = optimised.graph.body().nodes.iter().find(|node| node.is("GRU")).unwrap();
        assert_eq!(gru.attributes.texts("activations").unwrap().unwrap(), ["HardSigmoid", "Relu"]);

        let input = windows(3);
        let by_loop = evaluate(&signature.graph, std::slice::from_ref(&input)).unwrap();
        let by_node = evaluate(&optimised.graph, &[input]).unwrap();
        let (expected, got) = (by_loop[0].to_slice::<f32>().unwrap(), by_node[0].to_slice::<f32>().unwrap());
        assert_eq!(by_loop[0].shape(), by_node[0].shape());
        for (got, expected) in got.iter().zip(expected.iter()) {
            assert!((got - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{got} and {expected}");
        }
    }
}

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::ErrorKind;
use crate::on_disk::{Folder, shared};
use crate::read::Bundle;

const TWO_TAGS: &[u8] = include_bytes!("../../../testdata/two_tags.pb");

#[test]
fn graphs_are_chosen_by_their_tags() {
    let model = saved_model_bytes("saved_model.pb", Bytes::from_static(TWO_TAGS)).unwrap();
    let check = |tags: &[&str], node: &str| {
        let graph = meta_graph(model.clone(), tags).unwrap().graph_def.unwrap();
        assert!(graph.node.iter().any(|n| n.name == node), "{tags:?}");
    };
    check(&[SERVE], "y1");
    check(&["gpu", SERVE], "y2");
    let error = meta_graph(model, &["train"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no graph with the tags [train]; there are graphs with [serve], [gpu, serve]"
    );
}

#[test]
fn a_cut_saved_model_is_refused_with_its_name() {
    for at in 0..TWO_TAGS.len() {
        let bytes = Bytes::from_static(&TWO_TAGS[..at]);
        match saved_model_bytes("saved_model.pb", bytes) {
            Err(error) => assert!(error.to_string().starts_with("saved_model.pb: "), "cut at {at}: {error}"),
            // Between two graphs it cannot be seen.
            Ok(model) => assert_eq!(model.meta_graphs.len(), 1, "cut at {at}"),
        }
    }
}

#[test]
fn a_changed_saved_model_never_panics() {
    for at in 0..TWO_TAGS.len() {
        for bits in [0x01, 0x80, 0xff] {
            let mut bytes = TWO_TAGS.to_vec();
            bytes[at] ^= bits;
            if let Ok(model) = saved_model_bytes("m", bytes.into()) {
                drop(meta_graph(model, &[SERVE]));
            }
        }
    }
}

#[test]
fn text_is_read_as_text() {
    let text = "# a comment\nnode { name: \"a\" op: \"Const\" attr { key: \"value\" value { tensor { dtype: DT_FLOAT \
                tensor_shape { dim { size: 2 } } float_val: 1.5 } } } }\nversions { producer: 21 }";
    let graph = graph_def("g.pbtxt", Bytes::from_static(text.as_bytes())).unwrap();
    assert_eq!(graph.node[0].op, "Const");
    let check = |text: String, kind: ErrorKind, start: &str| {
        let error = graph_def("g.pbtxt", text.into()).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().starts_with(start), "{error}");
    };
    check(
        "node { nome: \"a\" }".to_owned(),
        ErrorKind::Invalid,
        "g.pbtxt: not a tensorflow.GraphDef in text form: ",
    );
    check(
        "node { name: \"a".to_owned(),
        ErrorKind::Invalid,
        "g.pbtxt: not a tensorflow.GraphDef in text form: ",
    );
    let deep = format!("node {{\n{}", "experimental_type { args ".repeat(4000));
    check(deep, ErrorKind::TooLarge, "g.pbtxt: line 2: nested deeper than 64 levels");
    // As deep as is allowed.
    let depth = 62;
    let deep = format!("node {{ experimental_type {{ {} {} }} }}", "args {".repeat(depth), "}".repeat(depth));
    assert!(graph_def("g.pbtxt", deep.into()).is_ok());
}

#[test]
fn loose_ends_are_refused() {
    let check = |text: &'static str, message: &str| {
        let error = graph_def("g.pb", Bytes::from_static(text.as_bytes())).unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    check("node { name: 'a' op: 'Relu' input: 'b:1' }", "g.pb: there is no node 'b', an input of node 'a'");
    check("versions { }", "g.pb: the graph has no nodes; the file may be cut off or hold something else");
    let empty = graph_def("g.pb", Bytes::new()).unwrap_err();
    assert_eq!(empty.place(), Some("g.pb"));
}

#[test]
fn a_folder_without_a_model_is_refused() {
    let error = saved_model(&Folder(PathBuf::from("/nonexistent"))).unwrap_err();
    assert_eq!(error.message(), "there is neither saved_model.pb nor saved_model.pbtxt");
}

#[test]
fn real_saved_models_are_read_with_their_variables() {
    let Some(root) = shared("") else { return };
    // Folder, nodes of the graph, tensors of the checkpoint (0: there is none).
    let models = [
        ("tfserving/saved_model_half_plus_two_cpu/00000123", 5),
        ("tfserving/saved_model_half_plus_two_tf2_cpu/00000123", 4),
        ("tfserving/saved_model_half_plus_three/00000123", 3),
        ("tfserving/saved_model_counter/00000123", 1),
        ("tfserving/matrix_half_plus_two/1", 0),
        ("jena/savedmodel/weather/1", 14),
        ("jena/savedmodel/weather/2", 14),
        ("crayfish/savedmodel_ffnn/1", 15),
    ];
    let mut seen = HashMap::new();
    for (path, _) in models {
        let folder = Folder(root.join(path));
        let graph = meta_graph(saved_model(&folder).unwrap(), &[SERVE]).unwrap();
        assert!(!graph.signature_def.is_empty(), "{path}");
        let mut n = 0;
        if let Some(bundle) = Bundle::open(&folder, "variables/variables").unwrap() {
            for name in bundle.names() {
                assert!(bundle.read(name).unwrap().is_some(), "{path} {name}");
                n += 1;
            }
        }
        seen.insert(path, n);
    }
    assert_eq!(seen, HashMap::from(models));
}

#[test]
fn real_frozen_graphs_are_read() {
    let Some(root) = shared("") else { return };
    let check = |path: &str, n_nodes: usize| {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        let bytes = std::fs::read(root.join(path)).unwrap();
        assert_eq!(graph_def(name, bytes.into()).unwrap().node.len(), n_nodes, "{path}");
    };
    check("retrain/mobilenet_v1_0.25_128_frozen_graph.pb", 555);
    check("retrain/mobilenet025_128_retrained_graph.pb", 560);
    check("retrain/mobilenet025_128_optimized_graph.pb", 420);
    check("fraud/autoencoder_fraud.pb", 29);
}

//! Inputs that would lead OpenVINO outside of a tensor, or into other numbers than ONNX's: they are refused.

use salver_engine::{Engine, Error, ErrorKind, LoadOptions, ModelSource};
use salver_engine_openvino::{OpenVinoEngine, supports_in};
use salver_graph::{Attributes, Builder, Dim, Graph, ValueId, evaluate, onnx};
use salver_tensor::{DType, Element, Shape, Tensor};

use crate::installed;

fn list<T: Element>(dims: &[usize], items: &[T]) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), items.to_vec()).unwrap()
}

fn open(rank: usize) -> Option<Vec<Dim>> {
    Some(vec![Dim::Unknown; rank])
}

fn fixed(dims: &[usize]) -> Option<Vec<Dim>> {
    Some(dims.iter().map(|&dim| Dim::Fixed(dim)).collect())
}

fn none() -> Attributes {
    Attributes::new()
}

/// A graph of one output, made of a builder.
fn graph(make: impl FnOnce(&mut Builder) -> ValueId) -> Graph {
    let mut b = Builder::new();
    let y = make(&mut b);
    b.finish(&[("y", y)]).unwrap()
}

/// Whether the engine says that it has all nodes.
fn is_taken(graph: &Graph) -> bool {
    graph.body().nodes.iter().all(|node| supports_in(graph, node))
}

/// Loads the graph as an ONNX file.
fn load_file(engine: &OpenVinoEngine, graph: &Graph) -> Result<(), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(
        &path,
        onnx::bytes(graph, &onnx::Labels::default(), onnx::Weights::BesideWhenLarge("w")).unwrap().model,
    )
    .unwrap();
    engine.load(&ModelSource::find(&path).unwrap(), &LoadOptions::default()).map(drop)
}

/// Sizes and positions that a request gives, where OpenVINO does not look at them, and numbers that it does not compute.
#[test]
fn what_a_request_could_break_is_not_taken() {
    let data = |b: &mut Builder| b.input("x", DType::F32, fixed(&[3, 4]));
    let ints = |b: &mut Builder, dims: Option<Vec<Dim>>| b.input("i", DType::I64, dims);
    let two = |op: &'static str, dims: Option<Vec<Dim>>| {
        graph(|b| {
            let (x, i) = (data(b), ints(b, dims));
            b.op("y", op, &[x, i], none()).unwrap()
        })
    };
    let pair = |op: &'static str, dtype: DType| {
        graph(|b| {
            let (x, z) = (b.input("x", dtype, open(1)), b.input("z", dtype, open(1)));
            b.op("y", op, &[x, z], none()).unwrap()
        })
    };
    let scattered = |op: &'static str, index: Option<Vec<Dim>>, updates: Option<Vec<Dim>>| {
        graph(|b| {
            let (x, i) = (data(b), ints(b, index));
            let u = b.input("u", DType::F32, updates);
            b.op("y", op, &[x, i, u], none()).unwrap()
        })
    };
    let mut graphs = vec![
        ("positions in two dimensions", two("GatherND", fixed(&[5, 2]))),
        ("a shape", two("Reshape", fixed(&[2]))),
        ("a shape to expand to", two("Expand", fixed(&[2]))),
        ("repeats", two("Tile", fixed(&[2]))),
        ("pads", two("Pad", fixed(&[4]))),
        ("elements of unknown size", scattered("ScatterElements", open(2), open(2))),
        ("points in two dimensions", scattered("ScatterND", fixed(&[5, 2]), fixed(&[5]))),
        (
            "a mask of unknown size",
            graph(|b| {
                let (x, c) = (data(b), b.input("c", DType::Bool, open(1)));
                b.op("y", "Compress", &[x, c], none().with("axis", 0i64)).unwrap()
            }),
        ),
        (
            "a size to fill",
            graph(|b| {
                let i = ints(b, fixed(&[2]));
                b.op("y", "ConstantOfShape", &[i], none()).unwrap()
            }),
        ),
        (
            "positions in a dimension that is open",
            graph(|b| {
                let (x, i) = (b.input("x", DType::F32, open(2)), ints(b, open(1)));
                b.op("y", "Gather", &[x, i], none()).unwrap()
            }),
        ),
        (
            "a constant position outside of the tensor",
            graph(|b| {
                let (x, i) = (data(b), b.constant("i", list(&[1], &[3i64])));
                b.op("y", "Gather", &[x, i], none()).unwrap()
            }),
        ),
        (
            "the largest of nothing",
            graph(|b| {
                let x = b.input("x", DType::F32, open(2));
                b.op("y", "ReduceMax", &[x], none()).unwrap()
            }),
        ),
    ];
    for op in ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"] {
        graphs.push(("large whole numbers compared", pair(op, DType::I32)));
        graphs.push(("large whole numbers compared", pair(op, DType::I64)));
    }
    for op in ["Add", "Sub", "Mul"] {
        graphs.push(("8-bit numbers", pair(op, DType::U8)));
        graphs.push(("8-bit numbers", pair(op, DType::I8)));
    }
    for (what, graph) in &graphs {
        assert!(!is_taken(graph), "{what}: {}", graph.body().nodes[0].op);
    }
    let Some(engine) = installed::engine() else { return };
    for (what, graph) in &graphs {
        let error = load_file(&engine, graph).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}");
    }
}

/// Arithmetic whose results may leave 32 bits, though each step is small.
#[test]
fn chains_that_leave_32_bits_are_refused_in_files() {
    let Some(engine) = installed::engine() else { return };
    let chain = |factor: i64, n: usize, from: &dyn Fn(&mut Builder) -> ValueId| {
        graph(|b| {
            let mut y = from(b);
            let by = b.constant("by", list(&[], &[factor]));
            for at in 0..n {
                y = b.op(&format!("m{at}"), "Mul", &[y, by], none()).unwrap();
            }
            y
        })
    };
    let flags = |b: &mut Builder| {
        let x = b.input("x", DType::Bool, open(1));
        b.op("cast", "Cast", &[x], none().with("to", DType::I64)).unwrap()
    };
    let best = |b: &mut Builder| {
        let x = b.input("x", DType::F32, fixed(&[2, 100]));
        b.op("best", "ArgMax", &[x], none().with("axis", 1i64)).unwrap()
    };
    for (what, graph, is_taken) in [
        ("a flag times 2^16", chain(65536, 1, &flags), true),
        ("a flag times 2^32", chain(65536, 2, &flags), false),
        ("a position times 6e4", chain(60000, 1, &best), true),
        ("a position times 3.6e9", chain(60000, 2, &best), false),
    ] {
        let result = load_file(&engine, &graph).map_err(|error| error.kind());
        assert_eq!(result, if is_taken { Ok(()) } else { Err(ErrorKind::Unsupported) }, "{what}");
    }
}

/// Runs a graph whose inputs are `x` and `i`, in this order.
fn run(engine: &OpenVinoEngine, graph: &Graph, inputs: &[Tensor]) -> Result<Tensor, Error> {
    let model = engine.load_graph(graph, &LoadOptions::default())?;
    let signature = model.signatures()[0].clone();
    let mut sorted = inputs.to_vec();
    for (&id, tensor) in graph.inputs().iter().zip(inputs) {
        sorted[signature.input_index(&graph.value(id).name).unwrap()] = tensor.clone();
    }
    Ok(model.session()?.run(0, &sorted, &[0])?.remove(0))
}

/// Positions are looked at before OpenVINO has them, and those that are right are answered as ONNX says.
#[test]
fn positions_outside_of_a_tensor_are_wrong_inputs() {
    let Some(engine) = installed::engine() else { return };
    let table = || list(&[3, 2], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let picked = |op: &'static str, dims: &[usize]| {
        let table = table();
        graph(move |b| {
            let (x, i) = (b.constant("t", table), b.input("i", DType::I64, fixed(dims)));
            b.op("y", op, &[x, i], none()).unwrap()
        })
    };
    let wrapped = graph(|b| {
        let (x, i) = (b.constant("t", table()), b.input("i", DType::I32, open(1)));
        let (zero, n) = (b.constant("zero", list(&[], &[0i32])), b.constant("n", list(&[], &[3i32])));
        let is_below = b.op("less", "Less", &[i, zero], none()).unwrap();
        let plus = b.op("plus", "Add", &[i, n], none()).unwrap();
        let at = b.op("where", "Where", &[is_below, plus, i], none()).unwrap();
        b.op("y", "Gather", &[x, at], none()).unwrap()
    });
    let scattered = graph(|b| {
        let x = b.input("x", DType::F32, fixed(&[3]));
        let i = b.input("i", DType::I64, fixed(&[1]));
        let u = b.constant("u", list(&[1], &[9f32]));
        b.op("y", "ScatterElements", &[x, i, u], none()).unwrap()
    });
    let wide = |i: i64, dims: &[usize]| list(dims, &[i]);
    let ends = [i64::from(i32::MIN), -1_000_000, -4, 3, 500_000_000, i64::from(i32::MAX)];
    let right = [-3i64, -1, 0, 2];
    for i in ends.into_iter().chain(right) {
        let x = list(&[3], &[1f32, 2.0, 3.0]);
        let narrow = list(&[1], &[i32::try_from(i).unwrap()]);
        for (graph, inputs) in [
            (&picked("Gather", &[1]), vec![wide(i, &[1])]),
            (&picked("GatherND", &[1, 1]), vec![wide(i, &[1, 1])]),
            (&wrapped, vec![narrow]),
            (&scattered, vec![x, wide(i, &[1])]),
        ] {
            let last = graph.body().nodes.last().unwrap().op.clone();
            assert!(is_taken(graph), "{last}");
            match run(&engine, graph, &inputs) {
                Ok(got) => {
                    assert!(right.contains(&i), "{last} of {i}: {got:?}");
                    assert_eq!(got, evaluate(graph, &inputs).unwrap()[0], "{last} of {i}");
                }
                Err(error) => {
                    assert!(!right.contains(&i), "{last} of {i}: {error}");
                    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
                    assert!(error.to_string().contains("expected a position from -3 to 2"), "{error}");
                }
            }
        }
    }
}

/// Dimensions of one name are looked at where nothing else keeps OpenVINO from reading past the end of one of them.
#[test]
fn dimensions_of_one_name_are_of_one_size() {
    let Some(engine) = installed::engine() else { return };
    let n = || Some(vec![Dim::symbol("n")]);
    let masked = graph(|b| {
        let (x, c) = (b.input("x", DType::F32, n()), b.input("c", DType::Bool, n()));
        b.op("y", "Compress", &[x, c], none().with("axis", 0i64)).unwrap()
    });
    let first = graph(|b| {
        let (x, i) = (b.input("x", DType::F32, n()), b.constant("i", list(&[1], &[1i64])));
        b.op("y", "Gather", &[x, i], none()).unwrap()
    });
    let largest = graph(|b| {
        let x = b.input("x", DType::F32, n());
        b.op("y", "ReduceMax", &[x], none()).unwrap()
    });
    assert!(is_taken(&masked) && is_taken(&first) && is_taken(&largest));
    for size in [0usize, 1, 2, 3, 50] {
        let x = list(&[size], &vec![1f32; size]);
        let mask = Tensor::from_bools(Shape::vector(2).unwrap(), &[true, false]).unwrap();
        for (graph, inputs, is_right) in [
            (&masked, vec![x.clone(), mask], size == 2),
            (&first, vec![x.clone()], size >= 2),
            (&largest, vec![x], size >= 1),
        ] {
            match run(&engine, graph, &inputs) {
                Ok(got) => assert!(is_right && got == evaluate(graph, &inputs).unwrap()[0], "{got:?}"),
                Err(error) => {
                    assert!(!is_right && error.kind() == ErrorKind::InvalidInput, "{size}: {error}");
                }
            }
        }
    }
}

/// What is not a number is neither greater nor smaller than any.
#[test]
fn what_is_not_a_number_compares_as_false() {
    let Some(engine) = installed::engine() else { return };
    let a = list(&[4], &[f32::NAN, 1.0, f32::NAN, 2.0]);
    let b = list(&[4], &[1f32, f32::NAN, f32::NAN, 1.0]);
    for op in ["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"] {
        let graph = graph(|g| {
            let (x, z) = (g.input("x", DType::F32, open(1)), g.input("z", DType::F32, open(1)));
            g.op("y", op, &[x, z], none()).unwrap()
        });
        let inputs = [a.clone(), b.clone()];
        assert_eq!(run(&engine, &graph, &inputs).unwrap(), evaluate(&graph, &inputs).unwrap()[0], "{op}");
    }
}

/// A session holds on to no memory of a run that is over.
#[test]
fn inputs_are_let_go_after_a_run() {
    let Some(engine) = installed::engine() else { return };
    for dims in [open(1), fixed(&[4096])] {
        let graph = graph(|b| {
            let x = b.input("x", DType::F32, dims);
            b.op("y", "Neg", &[x], none()).unwrap()
        });
        let model = engine.load_graph(&graph, &LoadOptions::default()).unwrap();
        let mut session = model.session().unwrap();
        for _ in 0..3 {
            let memory = bytes::Bytes::from(vec![0u8; 4 * 4096]);
            let input = Tensor::from_bytes(DType::F32, Shape::vector(4096).unwrap(), memory.clone()).unwrap();
            session.run(0, &[input], &[0]).unwrap();
            assert!(memory.is_unique());
        }
    }
}

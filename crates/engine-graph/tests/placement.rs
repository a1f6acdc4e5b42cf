//! Imported graphs, split between an engine and the host, give what the graph means.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use salver_engine::{Error, ErrorKind, Model, Session};
use salver_engine_graph::{GraphEngine, Parts};
use salver_graph::{Attributes, Builder, Dim, Graph, Node, Port, SignatureGraph, State, ValueId, evaluate};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};

/// An engine that has some operators, and does what the graph says.
#[derive(Debug, Default)]
struct Fake {
    lacks: Vec<&'static str>,
    /// Operators that it claims to have and refuses at load.
    refuses: Vec<&'static str>,
    parts: Arc<Mutex<Vec<Graph>>>,
    n_loads: AtomicUsize,
}

#[derive(Debug)]
struct FakeModel {
    graph: Arc<Graph>,
    signatures: [Arc<Signature>; 1],
}

struct FakeSession(Arc<Graph>, Arc<Signature>);

impl Fake {
    fn engine(self: Arc<Fake>) -> GraphEngine {
        let other = Arc::clone(&self);
        let supports = move |_: &Graph, node: &Node| !other.lacks.contains(&node.op.as_str());
        GraphEngine::new(Parts::new("fake", supports, move |part, _| self.load(part)))
    }

    fn load(&self, part: &Graph) -> Result<Arc<dyn Model>, Error> {
        self.n_loads.fetch_add(1, Ordering::Relaxed);
        if part.body().nodes.iter().any(|node| self.refuses.contains(&node.op.as_str())) {
            return Err(Error::new(ErrorKind::Unsupported, "not this one"));
        }
        for value in part.values() {
            assert!(matches!(value.dtype, DType::F32 | DType::I32 | DType::I64 | DType::Bool), "{value:?}");
        }
        self.parts.lock().unwrap().push(part.clone());
        let spec = |name: &str, id: ValueId| TensorSpec {
            name: name.into(),
            tensor_name: name.into(),
            dtype: part.value(id).dtype,
            dims: Dims::unknown(),
            default: None,
        };
        let inputs = part.inputs().iter().map(|&id| spec(&part.value(id).name, id)).collect();
        let outputs = part.outputs().map(|(name, id)| spec(name, id)).collect();
        let signature = Arc::new(Signature::new("part", "", inputs, outputs));
        Ok(Arc::new(FakeModel { graph: Arc::new(part.clone()), signatures: [signature] }))
    }
}

impl Model for FakeModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(FakeSession(self.graph.clone(), self.signatures[0].clone())))
    }

    fn enter(&self, _: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        body();
    }

    fn is_entered(&self) -> bool {
        true
    }

    fn n_bytes(&self) -> u64 {
        self.graph.n_constant_bytes()
    }
}

impl Session for FakeSession {
    fn run(&mut self, _: usize, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, Error> {
        let FakeSession(graph, signature) = self;
        // The signature sorts by name, the graph does not.
        let value = |id: &ValueId| inputs[signature.input_index(&graph.value(*id).name).unwrap()].clone();
        let inputs: Vec<Tensor> = graph.inputs().iter().map(value).collect();
        let results =
            evaluate(graph, &inputs).map_err(|e| Error::new(ErrorKind::InvalidInput, e.to_string()))?;
        let names: Vec<&str> = graph.outputs().map(|(name, _)| name).collect();
        let result = |&at: &usize| {
            let name = &signature.outputs()[at].name;
            results[names.iter().position(|known| *known == &**name).unwrap()].clone()
        };
        Ok(outputs.iter().map(result).collect())
    }
}

fn port(b: &Builder, name: &str, value: ValueId) -> Port {
    Port {
        name: name.into(),
        tensor_name: format!("{name}:0"),
        value,
        dtype: b.dtype(value),
        dims: Dims::unknown(),
        default: None,
    }
}

/// A model of one signature with these ends.
fn model(b: Builder, inputs: &[(&str, ValueId)], outputs: &[(&str, ValueId)]) -> salver_graph::Model {
    let ports = |ends: &[(&str, ValueId)]| ends.iter().map(|(name, id)| port(&b, name, *id)).collect();
    let (inputs, out) = (ports(inputs), ports(outputs));
    let signature = SignatureGraph {
        name: "serving_default".into(),
        method_name: "tensorflow/serving/predict".into(),
        inputs,
        outputs: out,
        graph: b.finish(outputs).unwrap(),
        state_inputs: vec![],
        state_outputs: vec![],
    };
    salver_graph::Model { signatures: vec![signature], ..salver_graph::Model::default() }
}

#[test]
fn int64_that_may_leave_32_bits_runs_on_the_host() {
    let int = |b: &mut Builder, value: i64| b.i64(value);
    // What is computed from the position of the largest element, and whether the engine gets it.
    type Make = fn(&mut Builder, ValueId) -> ValueId;
    let cases: &[(&str, Make, bool)] = &[
        (
            "one more",
            |b, at| {
                let one = b.i64(1);
                b.op("n", "Add", &[at, one], Attributes::new()).unwrap()
            },
            true,
        ),
        (
            "times a large number",
            |b, at| {
                let large = b.i64(1_000_003);
                let n = b.op("n", "Mul", &[at, large], Attributes::new()).unwrap();
                b.op("m", "Mul", &[n, large], Attributes::new()).unwrap()
            },
            false,
        ),
        (
            "three times itself, thirty times",
            |b, at| {
                let (trips, three) = (b.i64(30), b.i64(3));
                b.begin_block().unwrap();
                b.block_input("iter", DType::I64, Some(vec![]));
                let go = b.block_input("go", DType::Bool, Some(vec![]));
                let carried = b.block_input("carried", DType::I64, Some(vec![Dim::symbol("batch")]));
                let next = b.op("next", "Mul", &[carried, three], Attributes::new()).unwrap();
                let body = b.end_block(&[go, next]);
                let inputs = [Some(trips), None, Some(at)];
                b.with_blocks("loop", "Loop", &inputs, Attributes::new(), vec![("body", body)], 1).unwrap()[0]
            },
            false,
        ),
    ];
    for (name, make, on_engine) in cases {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, rows());
        let attributes = Attributes::new().with("axis", 1i64).with("keepdims", 0i64);
        let at = b.op("at", "ArgMax", &[x], attributes).unwrap();
        let one = int(&mut b, 1);
        let at = b.op("from_one", "Add", &[at, one], Attributes::new()).unwrap();
        let y = make(&mut b, at);
        let model = model(b, &[("x", x)], &[("y", y)]);
        let input = floats(&[3, 4], 1);
        let expected = evaluate(&model.signatures[0].graph, std::slice::from_ref(&input)).unwrap();
        let fake = Arc::new(Fake::default());
        let loaded = fake.clone().engine().load_imported(model).unwrap();
        assert_eq!(run(&loaded, &[input]), expected, "{name}");
        let parts = fake.parts.lock().unwrap();
        let ops = parts.iter().flat_map(|part| part.body().nodes.iter().map(|node| node.op.clone()));
        assert!(!ops.clone().any(|op| op == "Mul" || op == "Loop"), "{name}");
        assert_eq!(ops.filter(|op| op == "Add").count() == 2, *on_engine, "{name}");
    }
}

fn floats(dims: &[usize], seed: u32) -> Tensor {
    let shape = Shape::new(dims).unwrap();
    let n = shape.n_elements();
    Tensor::from_vec(shape, (0..n).map(|at| ((at as f32 + seed as f32) * 0.37).sin()).collect()).unwrap()
}

fn rows() -> Option<Vec<Dim>> {
    Some(vec![Dim::symbol("batch"), Dim::Fixed(4)])
}

fn run(model: &Arc<dyn Model>, inputs: &[Tensor]) -> Vec<Tensor> {
    let n_outputs = model.signatures()[0].outputs().len();
    model.session().unwrap().run(0, inputs, &(0..n_outputs).collect::<Vec<_>>()).unwrap()
}

#[test]
fn what_the_engine_lacks_runs_on_the_host() {
    // Columns: what the engine lacks, what it refuses at load, parts that it ends up with.
    let cases: &[(&[&str], &[&str], usize)] = &[
        (&[], &[], 1),
        (&["Selu"], &[], 2),
        (&["MatMul"], &[], 1),
        (&[], &["Selu"], 2),
        (&["Selu", "MatMul", "Tanh"], &[], 0),
    ];
    for (lacks, refuses, n_parts) in cases {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, rows());
        let w = b.constant("w", floats(&[4, 4], 3));
        let h = b.op("first", "MatMul", &[x, w], Attributes::new()).unwrap();
        let h = b.op("second", "Selu", &[h], Attributes::new()).unwrap();
        let h = b.op("third", "Tanh", &[h], Attributes::new()).unwrap();
        let y = b.op("fourth", "MatMul", &[h, w], Attributes::new()).unwrap();
        let model = model(b, &[("x", x)], &[("y", y)]);
        let input = floats(&[3, 4], 1);
        let expected = evaluate(&model.signatures[0].graph, std::slice::from_ref(&input)).unwrap();
        let fake = Arc::new(Fake { lacks: lacks.to_vec(), refuses: refuses.to_vec(), ..Fake::default() });
        let loaded = fake.clone().engine().load_imported(model).unwrap();
        assert_eq!(run(&loaded, &[input]), expected, "{lacks:?} {refuses:?}");
        let parts = fake.parts.lock().unwrap();
        let kept: Vec<usize> = parts.iter().map(|part| part.body().nodes.len()).collect();
        assert_eq!(kept[kept.len() - n_parts..].len(), *n_parts, "{lacks:?} {refuses:?}: {kept:?}");
        assert_eq!(kept.is_empty(), *n_parts == 0, "{lacks:?} {refuses:?}: {kept:?}");
    }
}

#[test]
fn types_that_the_engine_does_not_hold_run_on_the_host() {
    let mut b = Builder::new();
    let ids = b.input("ids", DType::I64, Some(vec![Dim::symbol("batch")]));
    let table = b.constant("table", floats(&[10, 4], 0));
    let big = b.constant("big", Tensor::from_vec(Shape::scalar(), vec![2_654_435_761i64]).unwrap());
    let ten = b.i64(10);
    let product = b.op("hash", "Mul", &[ids, big], Attributes::new()).unwrap();
    let index = b.op("index", "Mod", &[product, ten], Attributes::new()).unwrap();
    let row = b.op("row", "Gather", &[table, index], Attributes::new()).unwrap();
    let w = b.constant("w", floats(&[4, 2], 5));
    let y = b.op("y", "MatMul", &[row, w], Attributes::new()).unwrap();
    let model = model(b, &[("ids", ids)], &[("y", y)]);
    let input = Tensor::from_vec(Shape::vector(3).unwrap(), vec![5_000_000_000i64, -3, 7]).unwrap();
    let expected = evaluate(&model.signatures[0].graph, std::slice::from_ref(&input)).unwrap();
    let fake = Arc::new(Fake::default());
    let loaded = fake.clone().engine().load_imported(model).unwrap();
    assert_eq!(run(&loaded, &[input]), expected);
    let parts = fake.parts.lock().unwrap();
    let ops: Vec<&str> = parts.iter().flat_map(|g| g.body().nodes.iter().map(|n| n.op.as_str())).collect();
    assert!(ops.contains(&"MatMul") && !ops.contains(&"Mul"), "{ops:?}");
}

#[test]
fn state_goes_from_one_run_to_the_next_and_counts_each_once() {
    let mut b = Builder::new();
    let delta = b.input("delta", DType::F32, Some(vec![]));
    let counter = b.input("counter", DType::F32, Some(vec![]));
    let next = b.op("next", "Add", &[counter, delta], Attributes::new()).unwrap();
    let inputs = vec![port(&b, "delta", delta)];
    let outputs = vec![port(&b, "output", next)];
    let signature = SignatureGraph {
        name: "incr".into(),
        method_name: "tensorflow/serving/predict".into(),
        inputs,
        outputs,
        graph: b.finish(&[("output", next)]).unwrap(),
        state_inputs: vec![(0, counter)],
        state_outputs: vec![(0, next)],
    };
    let scalar = |value: f32| Tensor::from_vec(Shape::scalar(), vec![value]).unwrap();
    let state = vec![State { name: "counter".into(), initial: scalar(0.0) }];
    let model = salver_graph::Model { signatures: vec![signature], state, ..salver_graph::Model::default() };
    let loaded = Arc::new(Fake::default()).engine().load_imported(model).unwrap();
    assert_eq!(run(&loaded, &[scalar(2.0)]), [scalar(2.0)]);
    let n_threads = 4;
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                let mut session = loaded.session().unwrap();
                for _ in 0..50 {
                    session.run(0, &[scalar(1.0)], &[0]).unwrap();
                }
            });
        }
    });
    assert_eq!(run(&loaded, &[scalar(0.0)]), [scalar(202.0)]);
}

#[test]
fn equal_signatures_share_their_parts() {
    let make = || {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, rows());
        let w = b.constant("w", floats(&[4, 4], 3));
        let y = b.op("y", "MatMul", &[x, w], Attributes::new()).unwrap();
        model(b, &[("x", x)], &[("y", y)]).signatures.remove(0)
    };
    let mut other = make();
    other.name = "serve".into();
    let model = salver_graph::Model { signatures: vec![make(), other], ..salver_graph::Model::default() };
    let fake = Arc::new(Fake::default());
    let loaded = fake.clone().engine().load_imported(model).unwrap();
    assert_eq!(loaded.signatures().len(), 2);
    assert_eq!(fake.n_loads.load(Ordering::Relaxed), 1);
    assert_eq!(loaded.n_bytes(), 64);
}

/// One step of a random graph: an operator and which of the values so far it takes.
#[derive(Debug, Clone)]
struct Pick {
    op: usize,
    a: usize,
    b: usize,
}

const OPS: &[&str] = &["Add", "Mul", "Selu", "Tanh", "MatMul", "Double", "Loop", "If", "Sub", "Reshape"];

fn add(b: &mut Builder, at: usize, pick: &Pick, known: &[ValueId], w: ValueId) -> ValueId {
    let name = format!("n{at}");
    let (x, y) = (known[pick.a % known.len()], known[pick.b % known.len()]);
    let none = Attributes::new;
    match OPS[pick.op % OPS.len()] {
        op @ ("Add" | "Mul" | "Sub") => b.op(&name, op, &[x, y], none()).unwrap(),
        op @ ("Selu" | "Tanh") => b.op(&name, op, &[x], none()).unwrap(),
        "MatMul" => b.op(&name, "MatMul", &[x, w], none()).unwrap(),
        "Reshape" => {
            let to = b.i64s(&[-1, 4]);
            b.op(&name, "Reshape", &[x, to], none()).unwrap()
        }
        "Double" => {
            let wide = b.op(&name, "Cast", &[x], none().with("to", DType::F64)).unwrap();
            let sum = b.op(&name, "Add", &[wide, wide], none()).unwrap();
            b.op(&name, "Cast", &[sum], none().with("to", DType::F32)).unwrap()
        }
        "If" => {
            let zero = b.f32(0.1);
            let total =
                b.ops(&name, "", "ReduceSum", &[Some(x)], none().with("keepdims", 0i64), 1).unwrap()[0];
            let is_more = b.op(&name, "Greater", &[total, zero], none()).unwrap();
            b.begin_block().unwrap();
            let yes = b.op(&name, "Selu", &[y], none()).unwrap();
            let yes = b.end_block(&[yes]);
            b.begin_block().unwrap();
            let no = b.op(&name, "Add", &[y, x], none()).unwrap();
            let no = b.end_block(&[no]);
            let blocks = vec![("then_branch", yes), ("else_branch", no)];
            b.with_blocks(&name, "If", &[Some(is_more)], none(), blocks, 1).unwrap()[0]
        }
        _ => {
            let trips = b.i64(3);
            b.begin_block().unwrap();
            b.block_input("iter", DType::I64, Some(vec![]));
            let go = b.block_input("go", DType::Bool, Some(vec![]));
            let carried = b.block_input("carried", DType::F32, rows());
            let next = b.op(&name, "MatMul", &[carried, w], none()).unwrap();
            let next = b.op(&name, "Add", &[next, y], none()).unwrap();
            let scan = b.op(&name, "Selu", &[next], none()).unwrap();
            let body = b.end_block(&[go, next, scan]);
            let yes = b.constant("yes", Tensor::from_bools(Shape::scalar(), &[true]).unwrap());
            let inputs = [Some(trips), Some(yes), Some(x)];
            let ends = b.with_blocks(&name, "Loop", &inputs, none(), vec![("body", body)], 2).unwrap();
            let axes = b.i64s(&[0]);
            let sum =
                b.ops(&name, "", "ReduceSum", &[Some(ends[1]), Some(axes)], none().with("keepdims", 0i64), 1);
            b.op(&name, "Add", &[sum.unwrap()[0], ends[0]], none()).unwrap()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_split_graph_means_what_the_whole_means(
        picks in prop::collection::vec((0..OPS.len(), 0usize..20, 0usize..20), 1..14),
        lacks in prop::sample::subsequence(vec!["Selu", "Tanh", "MatMul", "Add", "Loop", "If", "Reshape"], 0..4),
        n_rows in 1usize..4,
    ) {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, rows());
        let z = b.input("a", DType::F32, rows());
        let w = b.constant("w", floats(&[4, 4], 9));
        let mut known = vec![x, z];
        for (at, (op, p, q)) in picks.into_iter().enumerate() {
            let value = add(&mut b, at, &Pick { op, a: p, b: q }, &known, w);
            known.push(value);
        }
        let (last, middle) = (known[known.len() - 1], known[known.len() / 2]);
        let model = model(b, &[("x", x), ("a", z)], &[("y", last), ("m", middle)]);
        let (one, two) = (floats(&[n_rows, 4], 1), floats(&[n_rows, 4], 8));
        let mut expected = evaluate(&model.signatures[0].graph, &[one.clone(), two.clone()]).unwrap();
        expected.reverse();
        let fake = Fake { lacks, ..Fake::default() };
        let loaded = Arc::new(fake).engine().load_imported(model).unwrap();
        // Inputs and outputs are in the order of their names.
        let got = run(&loaded, &[two, one]);
        prop_assert_eq!(got, expected);
    }
}

/// An engine that is not there, or does not compute as it is asked.
#[derive(Debug)]
struct Away;

impl salver_engine::Engine for Away {
    fn name(&self) -> &'static str {
        "away"
    }

    fn supports(&self, _: salver_engine::Format) -> bool {
        false
    }

    fn open(&self) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Unsupported, "the library is not there"))
    }

    fn is_present(&self) -> bool {
        false
    }

    fn load(
        &self,
        _: &salver_engine::ModelSource,
        _: &salver_engine::LoadOptions,
    ) -> Result<Arc<dyn Model>, Error> {
        self.open()?;
        unreachable!("it does not open")
    }
}

#[test]
fn an_engine_that_is_not_there_is_no_reason_to_run_on_the_host() {
    let refuse = |_: &salver_graph::Graph, _: &salver_engine::LoadOptions| {
        Err(Error::new(ErrorKind::Unsupported, "the library is not there"))
    };
    let engine = GraphEngine::new(Parts::new("away", |_, _| true, refuse).of_engine(Away));
    assert!(!salver_engine::Engine::is_present(&engine));
    let source = salver_engine::ModelSource {
        path: "/no/such/model".into(),
        format: salver_engine::Format::SavedModel,
    };
    let error =
        salver_engine::Engine::load(&engine, &source, &salver_engine::LoadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "the library is not there");
}

//! Loops in many arrangements of the same algebra: each becomes one node that computes the same.

use std::collections::HashMap;

use proptest::prelude::*;
use salver_kernels::Attributes;
use salver_tensor::{DType, Shape, Tensor};

use super::counts::{Count, Counts};
use super::{loops_that_stay, recurrent};
use crate::ir::{Dim, Graph, ValueId};
use crate::{Builder, evaluate};

const FEATURES: usize = 3;
const UNITS: usize = 4;
const STEPS: usize = 5;
const BATCH: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Rnn,
    Gru { linear_before_reset: bool },
    Lstm,
}

/// How the gates' weighted sums are written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sums {
    /// One product for all gates, split.
    Fused,
    /// One product for all gates, sliced.
    Sliced,
    /// A product for each gate.
    Apart,
    /// One product of the input and the state side by side.
    Joined,
}

/// How the gates' activation is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Gates {
    Sigmoid,
    Hard,
    HardClip,
    HardMinMax,
    HardRelu,
    HardSixth,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Written {
    Scan,
    Scattered,
    ScatteredBackwards,
    LastOnly,
}

#[derive(Debug, Clone)]
struct Arrangement {
    kind: Kind,
    sums: Sums,
    gates: Gates,
    /// The activation of the new value; empty for none.
    new: &'static str,
    update: usize,
    rotate: usize,
    bias: bool,
    given_state: bool,
    backwards: bool,
    counted: bool,
    carried_weights: bool,
    masks: bool,
    open_steps: bool,
    /// The loop reads `[batch, steps, features]`.
    batch_first: bool,
    written: Written,
    seed: u64,
}

const PLAIN: Arrangement = Arrangement {
    kind: Kind::Gru { linear_before_reset: false },
    sums: Sums::Fused,
    gates: Gates::Sigmoid,
    new: "Tanh",
    update: 0,
    rotate: 0,
    bias: true,
    given_state: false,
    backwards: false,
    counted: false,
    carried_weights: false,
    masks: false,
    open_steps: true,
    batch_first: false,
    written: Written::Scan,
    seed: 1,
};

struct Random(u64);

impl Random {
    fn tensor(&mut self, dims: &[usize]) -> Tensor {
        let shape = Shape::new(dims).unwrap();
        let next = |_| {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let elements: Vec<f32> = (0..shape.n_elements()).map(next).collect();
        Tensor::from_vec(shape, elements).unwrap()
    }
}

/// A builder with few words.
struct Maker {
    b: Builder,
    random: Random,
}

impl Maker {
    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.b.op("cell", op, inputs, Attributes::new()).unwrap()
    }

    fn with(&mut self, op: &str, inputs: &[ValueId], name: &str, value: i64) -> ValueId {
        self.b.op("cell", op, inputs, Attributes::new().with(name, value)).unwrap()
    }

    fn number(&mut self, number: f32) -> ValueId {
        self.b.f32(number)
    }

    fn weights(&mut self, dims: &[usize]) -> ValueId {
        let tensor = self.random.tensor(dims);
        self.b.constant("weights", tensor)
    }

    fn columns(&mut self, of: ValueId, start: usize, end: usize) -> ValueId {
        let (start, end, axes) =
            (self.b.i64s(&[0, start as i64]), self.b.i64s(&[i64::MAX, end as i64]), self.b.i64s(&[0, 1]));
        self.op("Slice", &[of, start, end, axes])
    }

    /// `n` weighted sums of the input and the state.
    fn sums(&mut self, a: &Arrangement, x: ValueId, h: ValueId, n: usize) -> Vec<ValueId> {
        let bias = |maker: &mut Maker, sum: ValueId, width: usize| {
            if !a.bias {
                return sum;
            }
            let bias = maker.weights(&[width]);
            maker.op("Add", &[sum, bias])
        };
        match a.sums {
            Sums::Apart => (0..n)
                .map(|_| {
                    let (w, r) = (self.weights(&[FEATURES, UNITS]), self.weights(&[UNITS, UNITS]));
                    let (x, h) = (self.op("MatMul", &[x, w]), self.op("MatMul", &[h, r]));
                    let x = bias(self, x, UNITS);
                    self.op("Add", &[h, x])
                })
                .collect(),
            _ => {
                let width = n * UNITS;
                let all = if a.sums == Sums::Joined {
                    let both = self.with("Concat", &[x, h], "axis", 1);
                    let w = self.weights(&[FEATURES + UNITS, width]);
                    self.op("MatMul", &[both, w])
                } else {
                    let (w, r) = (self.weights(&[FEATURES, width]), self.weights(&[UNITS, width]));
                    let (x, h) = (self.op("MatMul", &[x, w]), self.op("MatMul", &[h, r]));
                    self.op("Add", &[x, h])
                };
                let all = bias(self, all, width);
                match a.sums {
                    Sums::Sliced => {
                        (0..n).map(|at| self.columns(all, at * UNITS, (at + 1) * UNITS)).collect()
                    }
                    _ if n == 1 => vec![all],
                    _ => {
                        let sizes = self.b.i64s(&vec![UNITS as i64; n]);
                        let attributes = Attributes::new().with("axis", -1i64);
                        self.b.ops("split", "", "Split", &[Some(all), Some(sizes)], attributes, n).unwrap()
                    }
                }
            }
        }
    }

    fn gate(&mut self, a: &Arrangement, x: ValueId) -> ValueId {
        let (zero, one) = (self.number(0.0), self.number(1.0));
        if a.gates == Gates::Sigmoid || a.gates == Gates::Hard {
            return self.op(if a.gates == Gates::Hard { "HardSigmoid" } else { "Sigmoid" }, &[x]);
        }
        if a.gates == Gates::HardSixth {
            let (three, six, sixth) = (self.number(3.0), self.number(6.0), self.number(1.0 / 6.0));
            let x = self.op("Add", &[x, three]);
            let x = self.op("Clip", &[x, zero, six]);
            return self.op("Mul", &[x, sixth]);
        }
        let (fifth, half) = (self.number(0.2), self.number(0.5));
        let x = self.op("Mul", &[fifth, x]);
        let x = self.op("Add", &[x, half]);
        match a.gates {
            Gates::HardClip => self.op("Clip", &[x, zero, one]),
            Gates::HardMinMax => {
                let x = self.op("Min", &[x, one]);
                self.op("Max", &[x, zero])
            }
            _ => {
                let x = self.op("Relu", &[x]);
                self.op("Min", &[one, x])
            }
        }
    }

    fn activate(&mut self, op: &str, x: ValueId) -> ValueId {
        if op.is_empty() { x } else { self.op(op, &[x]) }
    }

    fn gru(&mut self, a: &Arrangement, x: ValueId, h: ValueId, before: bool) -> ValueId {
        let sums = self.sums(a, x, h, 2);
        let z = self.gate(a, sums[a.rotate % 2]);
        let r = self.gate(a, sums[(a.rotate + 1) % 2]);
        let (w, recurrent) = (self.weights(&[FEATURES, UNITS]), self.weights(&[UNITS, UNITS]));
        let xw = self.op("MatMul", &[x, w]);
        let state = if !before && a.sums == Sums::Joined {
            let reset = self.op("Mul", &[r, h]);
            let both = self.with("Concat", &[x, reset], "axis", 1);
            let w = self.weights(&[FEATURES + UNITS, UNITS]);
            self.op("MatMul", &[both, w])
        } else if before {
            let weighted = self.op("MatMul", &[h, recurrent]);
            let bias = self.weights(&[1, UNITS]);
            let weighted = if a.bias { self.op("Add", &[weighted, bias]) } else { weighted };
            self.op("Mul", &[r, weighted])
        } else {
            let reset = self.op("Mul", &[h, r]);
            self.op("MatMul", &[reset, recurrent])
        };
        let sum = if !before && a.sums == Sums::Joined { state } else { self.op("Add", &[xw, state]) };
        let bias = self.weights(&[UNITS]);
        let sum = if a.bias { self.op("Add", &[bias, sum]) } else { sum };
        let g = self.activate(a.new, sum);
        let one = self.number(1.0);
        let (zh, zg) = (self.op("Mul", &[z, h]), self.op("Mul", &[g, z]));
        match a.update {
            0 => {
                let rest = self.op("Sub", &[one, z]);
                let rest = self.op("Mul", &[rest, g]);
                self.op("Add", &[zh, rest])
            }
            1 => {
                let sum = self.op("Add", &[zh, g]);
                self.op("Sub", &[sum, zg])
            }
            2 => {
                let rest = self.op("Sub", &[one, z]);
                let rest = self.op("Mul", &[rest, h]);
                self.op("Add", &[zg, rest])
            }
            3 => {
                let rest = self.op("Sub", &[h, zh]);
                self.op("Add", &[rest, zg])
            }
            4 => {
                let rest = self.op("Sub", &[h, g]);
                let rest = self.op("Mul", &[rest, z]);
                self.op("Add", &[rest, g])
            }
            _ => {
                let rest = self.op("Sub", &[g, h]);
                let rest = self.op("Mul", &[z, rest]);
                self.op("Add", &[h, rest])
            }
        }
    }

    fn lstm(&mut self, a: &Arrangement, x: ValueId, h: ValueId, c: ValueId) -> (ValueId, ValueId) {
        let mut sums = self.sums(a, x, h, 4);
        sums.rotate_left(a.rotate % 4);
        let (i, f, o) = (self.gate(a, sums[0]), sums[1], self.gate(a, sums[2]));
        let one = self.number(1.0);
        let f = self.op("Add", &[f, one]);
        let f = self.gate(a, f);
        let g = self.activate(a.new, sums[3]);
        let (kept, new) = (self.op("Mul", &[c, f]), self.op("Mul", &[i, g]));
        let c = self.op("Add", &[kept, new]);
        let out = self.activate(a.new, c);
        (self.op("Mul", &[out, o]), c)
    }
}

/// The whole graph: inputs `x [batch, steps, features]` and, if given, `h`; outputs `all`, `last` and, of an LSTM, `c`.
fn graph(a: &Arrangement) -> Graph {
    let mut m = Maker { b: Builder::new(), random: Random(a.seed) };
    let steps = if a.open_steps { Dim::symbol("steps") } else { Dim::Fixed(STEPS) };
    let batch = Dim::symbol("batch");
    let x = m.b.input("x", DType::F32, Some(vec![batch.clone(), steps, Dim::Fixed(FEATURES)]));
    let perm = Attributes::new().with("perm", [1i64, 0, 2]);
    let sequence = m.b.op("sequence", "Transpose", &[x], perm).unwrap();
    let shape = m.op("Shape", &[sequence]);
    let (zero, one) = (m.b.i64(0), m.b.i64(1));
    let n_steps = m.op("Gather", &[shape, zero]);
    let (first, second, units) = (m.b.i64s(&[0]), m.b.i64s(&[1]), m.b.i64s(&[UNITS as i64]));
    let rows = m.op("Gather", &[shape, second]);
    let state_shape = m.with("Concat", &[rows, units], "axis", 0);
    let empty = m.number(0.0);
    let zeros = m.op("Expand", &[empty, state_shape]);
    let state_dims = Some(vec![batch.clone(), Dim::Fixed(UNITS)]);
    let h0 = if a.given_state { m.b.input("h", DType::F32, state_dims.clone()) } else { zeros };
    let mask = m.number(1.0);
    let mask = m.op("Expand", &[mask, state_shape]);
    let weights = m.weights(&[UNITS, UNITS]);
    let count = Tensor::from_vec(Shape::scalar(), vec![0i32]).unwrap();
    let count = m.b.constant("count", count);
    let length = if a.written == Written::LastOnly { first } else { m.op("Gather", &[shape, first]) };
    let length = if a.written == Written::LastOnly { second } else { length };
    let stack_shape = m.with("Concat", &[length, rows, units], "axis", 0);
    let stack = m.op("Expand", &[empty, stack_shape]);
    let stack_dims = m.b.dims(stack).map(<[Dim]>::to_vec);

    m.b.begin_block().unwrap();
    let i = m.b.block_input("i", DType::I64, Some(vec![]));
    let go = m.b.block_input("go", DType::Bool, Some(vec![]));
    let h = m.b.block_input("h_now", DType::F32, state_dims.clone());
    let c = m.b.block_input("c_now", DType::F32, state_dims);
    let t = m.b.block_input("t", DType::I32, Some(vec![]));
    let w = m.b.block_input("w", DType::F32, Some(vec![Dim::Fixed(UNITS), Dim::Fixed(UNITS)]));
    let s = m.b.block_input("s", DType::F32, stack_dims);
    let i32_one = m.b.constant("one", Tensor::from_vec(Shape::scalar(), vec![1i32]).unwrap());
    let next_t = m.op("Add", &[t, i32_one]);
    let at = if a.counted {
        m.b.op("at", "Cast", &[t], Attributes::new().with("to", DType::I64)).unwrap()
    } else {
        i
    };
    let reversed = {
        let last = m.op("Sub", &[n_steps, one]);
        m.op("Sub", &[last, at])
    };
    let at = if a.backwards { reversed } else { at };
    let step = match a.batch_first {
        true => m.with("Gather", &[x, at], "axis", 1),
        false => m.op("Gather", &[sequence, at]),
    };
    let state = if a.masks { m.op("Mul", &[h, mask]) } else { h };
    let state = if a.carried_weights { m.op("MatMul", &[state, w]) } else { state };
    let (h_next, c_next) = match a.kind {
        Kind::Rnn => {
            let sum = m.sums(a, step, state, 1)[0];
            (m.activate(a.new, sum), c)
        }
        Kind::Gru { linear_before_reset } => (m.gru(a, step, state, linear_before_reset), c),
        Kind::Lstm => m.lstm(a, step, state, c),
    };
    let place = match a.written {
        Written::ScatteredBackwards => reversed,
        Written::LastOnly => zero,
        _ => i,
    };
    let place_shape = m.b.i64s(&[1, 1]);
    let place = m.op("Reshape", &[place, place_shape]);
    let update = m.op("Unsqueeze", &[h_next, first]);
    let s_next = m.op("ScatterND", &[s, place, update]);
    let body = m.b.end_block(&[go, h_next, c_next, next_t, w, s_next, h_next]);
    let go = m.b.constant("true", Tensor::from_bools(Shape::scalar(), &[true]).unwrap());
    let inputs = [n_steps, go, h0, zeros, count, weights, stack].map(Some);
    let outputs =
        m.b.with_blocks("layer", "Loop", &inputs, Attributes::new(), vec![("body", body)], 6).unwrap();
    let all = if a.written == Written::Scan { outputs[5] } else { outputs[4] };
    let mut named = vec![("all", all), ("h", outputs[0]), ("t", outputs[2])];
    if a.kind == Kind::Lstm {
        named.push(("c", outputs[1]));
    }
    if a.written == Written::Scan {
        let last = m.op("Sub", &[outputs[2], i32_one]);
        named.push(("last", m.op("Gather", &[all, last])));
    }
    m.b.finish(&named).unwrap()
}

fn ops(graph: &Graph) -> Vec<String> {
    let mut ops = Vec::new();
    graph.body().visit(&mut |node| ops.push(node.op.clone()));
    ops
}

fn assert_close(got: &[Tensor], expected: &[Tensor], of: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got.shape(), expected.shape(), "{of:?}");
        let Some(expected) = expected.to_slice::<f32>() else {
            assert_eq!(got, expected, "{of:?}");
            continue;
        };
        for (a, b) in got.to_slice::<f32>().unwrap().iter().zip(expected.iter()) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} and {b}: {of:?}");
        }
    }
}

/// The loop becomes one node, which computes the same.
fn check(a: &Arrangement) -> Graph {
    let before = graph(a);
    let mut after = before.clone();
    assert_eq!(loops_that_stay(&before), [""; 0], "{a:?}");
    assert_eq!(recurrent(&mut after), 1);
    let op = match a.kind {
        Kind::Rnn => "RNN",
        Kind::Gru { .. } => "GRU",
        Kind::Lstm => "LSTM",
    };
    let ops = ops(&after);
    assert!(!ops.contains(&"Loop".into()) && ops.iter().filter(|name| *name == op).count() == 1, "{ops:?}");
    let mut random = Random(a.seed + 77);
    let mut inputs = vec![random.tensor(&[BATCH, STEPS, FEATURES])];
    if a.given_state {
        inputs.push(random.tensor(&[BATCH, UNITS]));
    }
    assert_close(&evaluate(&after, &inputs).unwrap(), &evaluate(&before, &inputs).unwrap(), a);
    after
}

fn any_arrangement() -> impl Strategy<Value = Arrangement> {
    let kinds = prop_oneof![
        Just(Kind::Rnn),
        Just(Kind::Gru { linear_before_reset: false }),
        Just(Kind::Gru { linear_before_reset: true }),
        Just(Kind::Lstm),
    ];
    let sums = prop_oneof![Just(Sums::Fused), Just(Sums::Sliced), Just(Sums::Apart), Just(Sums::Joined)];
    let gates = prop_oneof![
        Just(Gates::Sigmoid),
        Just(Gates::Hard),
        Just(Gates::HardClip),
        Just(Gates::HardMinMax),
        Just(Gates::HardRelu),
        Just(Gates::HardSixth),
    ];
    let written = prop_oneof![
        Just(Written::Scan),
        Just(Written::Scattered),
        Just(Written::ScatteredBackwards),
        Just(Written::LastOnly),
    ];
    let new = prop_oneof![Just("Tanh"), Just("Relu"), Just("Sigmoid"), Just("Softsign"), Just("Elu")];
    let flags = prop::array::uniform7(any::<bool>());
    (kinds, sums, gates, written, new, 0..6usize, 0..4usize, flags, 1..1000u64).prop_map(
        |(kind, sums, gates, written, new, update, rotate, flags, seed)| Arrangement {
            kind,
            sums,
            gates,
            new,
            update,
            rotate,
            bias: flags[0],
            given_state: flags[1],
            backwards: flags[2],
            counted: flags[3],
            carried_weights: false,
            masks: flags[5],
            open_steps: flags[6],
            batch_first: flags[4],
            written,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_arrangement_is_recognised(arrangement in any_arrangement()) {
        check(&arrangement);
    }
}

#[test]
fn a_cell_without_activation_is_recognised() {
    for kind in [
        Kind::Rnn,
        Kind::Gru { linear_before_reset: false },
        Kind::Gru { linear_before_reset: true },
        Kind::Lstm,
    ] {
        for update in 0..4 {
            check(&Arrangement { kind, new: "", update, ..PLAIN });
        }
    }
}

#[test]
fn weights_that_the_loop_carries_are_constants() {
    check(&Arrangement { kind: Kind::Rnn, carried_weights: true, ..PLAIN });
}

#[test]
fn the_last_step_is_taken_from_the_state() {
    let after = check(&PLAIN);
    assert!(
        !ops(&after).contains(&"Gather".into())
            || after
                .body()
                .nodes
                .iter()
                .all(|node| { !(node.is("Gather") && node.outputs == [after.body().outputs[3]]) })
    );
}

#[test]
fn constants_of_a_hard_sigmoid_are_told() {
    let hard = |gates: Gates| {
        let after = check(&Arrangement { gates, ..PLAIN });
        let gru = after.body().nodes.iter().find(|node| node.is("GRU")).unwrap().clone();
        let number = |name: &str| gru.attributes.floats(name).unwrap().unwrap()[0];
        (number("activation_alpha"), number("activation_beta"))
    };
    for (gates, alpha) in [
        (Gates::Hard, 0.2),
        (Gates::HardClip, 0.2),
        (Gates::HardMinMax, 0.2),
        (Gates::HardRelu, 0.2),
        (Gates::HardSixth, 1.0 / 6.0),
    ] {
        let (a, b) = hard(gates);
        assert!((a - alpha).abs() < 1e-7 && b == 0.5, "{gates:?}: {a} {b}");
    }
}

/// What a step makes of its input and the states: the new states and its output.
type Cell = fn(&mut Maker, ValueId, &[ValueId]) -> (Vec<ValueId>, ValueId);

/// A loop over `[steps, batch, 4]` with states `[batch, 4]`: what the body makes of the step's input and the states are
/// the new states and the output of the step. `longer` is how many steps the sequence has more than the loop.
fn by_hand(n_states: usize, longer: i64, cell: Cell) -> Graph {
    let mut m = Maker { b: Builder::new(), random: Random(5) };
    let dims = |first: &str| Some(vec![Dim::symbol(first), Dim::symbol("batch"), Dim::Fixed(UNITS)]);
    let x = m.b.input("x", DType::F32, dims("steps"));
    let state = m.b.input("state", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(UNITS)]));
    let shape = m.op("Shape", &[x]);
    let (zero, longer) = (m.b.i64(0), m.b.i64(longer));
    let n_steps = m.op("Gather", &[shape, zero]);
    let n_steps = m.op("Sub", &[n_steps, longer]);
    m.b.begin_block().unwrap();
    let i = m.b.block_input("i", DType::I64, Some(vec![]));
    let go = m.b.block_input("go", DType::Bool, Some(vec![]));
    let state_dims = m.b.dims(state).map(<[Dim]>::to_vec);
    let now: Vec<_> = (0..n_states).map(|_| m.b.block_input("now", DType::F32, state_dims.clone())).collect();
    let step = m.op("Gather", &[x, i]);
    let (next, output) = cell(&mut m, step, &now);
    let mut ends = vec![go];
    ends.extend(&next);
    ends.push(output);
    let body = m.b.end_block(&ends);
    let mut inputs = vec![Some(n_steps), None];
    inputs.extend(vec![Some(state); n_states]);
    let blocks = vec![("body", body)];
    let outputs = m.b.with_blocks("layer", "Loop", &inputs, Attributes::new(), blocks, n_states + 1).unwrap();
    let named: Vec<_> = outputs.iter().map(|&id| ("out", id)).collect();
    m.b.finish(&named).unwrap()
}

fn rnn(m: &mut Maker, x: ValueId, h: ValueId) -> ValueId {
    let (w, r) = (m.weights(&[UNITS, UNITS]), m.weights(&[UNITS, UNITS]));
    let (x, h) = (m.op("MatMul", &[x, w]), m.op("MatMul", &[h, r]));
    let sum = m.op("Add", &[x, h]);
    m.op("Tanh", &[sum])
}

fn check_by_hand(before: &Graph, expected: &[&str]) {
    let mut after = before.clone();
    assert_eq!(loops_that_stay(before), [""; 0]);
    assert_eq!(recurrent(&mut after), 1);
    let ops: Vec<_> =
        ops(&after).into_iter().filter(|op| ["RNN", "GRU", "LSTM", "Loop"].contains(&op.as_str())).collect();
    assert_eq!(ops, expected);
    let mut random = Random(9);
    let inputs = [random.tensor(&[STEPS, BATCH, UNITS]), random.tensor(&[BATCH, UNITS])];
    assert_close(&evaluate(&after, &inputs).unwrap(), &evaluate(before, &inputs).unwrap(), &expected);
}

#[test]
fn cells_on_top_of_each_other_become_one_node_each() {
    let graph = by_hand(3, 0, |m, x, states| {
        let first = rnn(m, x, states[0]);
        let second = rnn(m, first, states[1]);
        let third = rnn(m, second, states[2]);
        (vec![first, second, third], third)
    });
    check_by_hand(&graph, &["RNN", "RNN", "RNN"]);
}

#[test]
fn cells_side_by_side_become_one_node_each() {
    let graph = by_hand(2, 0, |m, x, states| {
        let (a, b) = (rnn(m, x, states[0]), rnn(m, x, states[1]));
        (vec![a, b], a)
    });
    check_by_hand(&graph, &["RNN", "RNN"]);
}

#[test]
fn a_cell_may_read_more_than_one_sequence() {
    let graph = by_hand(2, 0, |m, x, states| {
        let first = rnn(m, x, states[0]);
        let both = m.with("Concat", &[x, first], "axis", 1);
        let w = m.weights(&[2 * UNITS, UNITS]);
        let sum = m.op("MatMul", &[both, w]);
        let second = m.op("Add", &[sum, states[1]]);
        let second = m.op("Sigmoid", &[second]);
        (vec![first, second], second)
    });
    check_by_hand(&graph, &["RNN", "RNN"]);
}

#[test]
fn a_sequence_that_is_weighted_before_the_loop_is_taken_as_it_is() {
    let graph = by_hand(1, 0, |m, x, states| {
        let r = m.weights(&[UNITS, UNITS]);
        let h = m.op("MatMul", &[states[0], r]);
        let sum = m.op("Add", &[h, x]);
        let next = m.op("Tanh", &[sum]);
        (vec![next], next)
    });
    check_by_hand(&graph, &["RNN"]);
}

#[test]
fn a_loop_that_ends_before_its_sequence_reads_no_more() {
    let graph = by_hand(1, 2, |m, x, states| {
        let next = rnn(m, x, states[0]);
        (vec![next], next)
    });
    check_by_hand(&graph, &["RNN"]);
}

#[test]
fn what_is_no_cell_stays_a_loop() {
    let check = |cell: Cell, expected: &str| {
        let graph = by_hand(2, 0, cell);
        let mut after = graph.clone();
        assert_eq!(recurrent(&mut after), 0);
        assert_eq!(after, graph);
        assert_eq!(loops_that_stay(&graph), [format!("loop 'layer' stays a loop: {expected}")]);
    };
    check(
        |m, x, states| {
            let next = m.op("Add", &[states[0], states[1]]);
            let next = m.op("Mul", &[next, x]);
            (vec![next, x], next)
        },
        "the state is gated, but not as in a GRU",
    );
    check(
        |m, x, states| {
            let next = rnn(m, x, states[0]);
            let next = m.op("Erf", &[next]);
            (vec![next, next], next)
        },
        "Erf node 'cell': not an operator of a recurrent cell",
    );
    check(
        |m, x, states| {
            let next = rnn(m, x, states[0]);
            let output = m.b.op("negative", "Neg", &[next], Attributes::new()).unwrap();
            (vec![next, next], output)
        },
        "value 'negative' leaves the loop but is no state",
    );
    // A peephole: a gate that sees the cell state.
    check(
        |m, x, states| {
            let (h, c) = (states[0], states[1]);
            let gate = |m: &mut Maker, h: ValueId| {
                let w = m.weights(&[UNITS, UNITS]);
                let h = m.op("MatMul", &[h, w]);
                let sum = m.op("Add", &[x, h]);
                m.op("Sigmoid", &[sum])
            };
            let (i, f, o, g) = (gate(m, c), gate(m, h), gate(m, h), gate(m, h));
            let (kept, new) = (m.op("Mul", &[f, c]), m.op("Mul", &[i, g]));
            let c = m.op("Add", &[kept, new]);
            let out = m.op("Tanh", &[c]);
            let h = m.op("Mul", &[o, out]);
            (vec![h, c], h)
        },
        "a gate takes another loop variable, beside the input and the state",
    );
}

#[test]
fn a_count_that_doubles_at_each_node_is_given_up() {
    let mut b = Builder::new();
    let first = b.input("i", DType::I64, Some(vec![]));
    let mut last = first;
    for _ in 0..40 {
        last = b.op("double", "Add", &[last, last], Attributes::new()).unwrap();
    }
    let graph = b.finish(&[("last", last)]).unwrap();
    let producers = graph.body().nodes.iter().map(|node| (node.outputs[0], node)).collect();
    let known = HashMap::from([(first, Count::ITERATION)]);
    let counts = Counts { graph: &graph, producers: &producers, known };
    let value = |at: usize| graph.body().nodes[at].outputs[0];
    assert_eq!(counts.of(value(4)), Some(Count { iterations: 32, steps: 0, add: 0 }));
    assert_eq!(counts.of(value(39)), None);
}

#[test]
fn a_state_of_a_claimed_width_takes_no_memory() {
    let mut b = Builder::new();
    let huge = Some(vec![Dim::symbol("batch"), Dim::Fixed(1 << 40)]);
    let state = b.input("state", DType::F32, huge.clone());
    let steps = b.input("steps", DType::I64, Some(vec![]));
    b.begin_block().unwrap();
    b.block_input("i", DType::I64, Some(vec![]));
    let go = b.block_input("go", DType::Bool, Some(vec![]));
    let now = b.block_input("now", DType::F32, huge);
    let next = b.op("next", "Tanh", &[now], Attributes::new()).unwrap();
    let body = b.end_block(&[go, next]);
    let inputs = [Some(steps), None, Some(state)];
    let outputs =
        b.with_blocks("layer", "Loop", &inputs, Attributes::new(), vec![("body", body)], 1).unwrap();
    let graph = b.finish(&[("last", outputs[0])]).unwrap();
    assert_eq!(
        loops_that_stay(&graph),
        ["loop 'layer' stays a loop: loop variable 'now' is no state of a cell"]
    );
}

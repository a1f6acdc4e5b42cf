//! How far answers are from those of the reference.

use std::sync::Arc;

use half::{bf16, f16};
use salver_tensor::{DType, Signature, Tensor};

/// How far one candidate's answers are from the reference's, over all requests that it answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agreement {
    /// One entry per output of each signature that was asked.
    pub outputs: Vec<OutputAgreement>,
    /// Rows that were compared.
    pub n_rows: usize,
}

/// How far one output is from the reference's.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputAgreement {
    /// The signature's name.
    pub signature: Arc<str>,
    /// The output's name.
    pub output: Arc<str>,
    /// The largest absolute value that the reference gave, of those that are finite. 0 for what are no floats.
    pub scale: f64,
    /// The largest difference. Infinite where only one of two numbers is finite, or one is no number. 0 for what are no
    /// floats.
    pub max_absolute: f64,
    /// Elements that are equal, for integers, booleans and strings; `None` for floats.
    pub equal: Option<Share>,
    /// Rows in which the largest element is at the same place, for floats of rank 2 with two columns or more.
    pub top_1: Option<Share>,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// How many are.
    pub n: usize,
    /// How many there are.
    pub of: usize,
}

impl Share {
    /// As a number from 0 to 1; 1 of nothing.
    pub fn fraction(self) -> f64 {
        if self.of == 0 { 1.0 } else { self.n as f64 / self.of as f64 }
    }

    fn add(&mut self, other: Share) {
        self.n += other.n;
        self.of += other.of;
    }
}

impl OutputAgreement {
    /// The largest difference, relative to the largest value of the reference: 0 where nothing differs.
    pub fn max_relative(&self) -> f64 {
        if self.max_absolute == 0.0 { 0.0 } else { self.max_absolute / self.scale }
    }
}

impl Agreement {
    /// The largest absolute difference of all outputs.
    pub fn max_absolute(&self) -> f64 {
        self.outputs.iter().map(|output| output.max_absolute).fold(0.0, f64::max)
    }

    /// The largest relative difference of all outputs.
    pub fn max_relative(&self) -> f64 {
        self.outputs.iter().map(OutputAgreement::max_relative).fold(0.0, f64::max)
    }

    /// Rows of all outputs with classes in which the largest is at the same place; `None` when no output has classes.
    pub fn top_1(&self) -> Option<Share> {
        sum(self.outputs.iter().filter_map(|output| output.top_1))
    }

    /// Elements of all outputs of integers, booleans and strings that are equal; `None` when there are none.
    pub fn equal(&self) -> Option<Share> {
        sum(self.outputs.iter().filter_map(|output| output.equal))
    }

    /// Compares the answers to one request, both in the signature's order.
    ///
    /// # Errors
    /// When they cannot be compared: another number of outputs, another element type or shape.
    pub(crate) fn add(
        &mut self,
        signature: &Signature,
        expected: &[Tensor],
        got: &[Tensor],
    ) -> Result<(), String> {
        if expected.len() != got.len() || expected.len() != signature.outputs().len() {
            return Err(format!("{} outputs, expected {}", got.len(), expected.len()));
        }
        for ((spec, expected), got) in signature.outputs().iter().zip(expected).zip(got) {
            let one = compare(expected, got).map_err(|why| format!("output '{}': {why}", spec.name))?;
            self.merge_output(OutputAgreement {
                signature: Arc::clone(signature.name()),
                output: Arc::clone(&spec.name),
                ..one
            });
        }
        self.n_rows += expected.iter().filter_map(|output| output.shape().n_rows()).min().unwrap_or(1);
        Ok(())
    }

    fn merge_output(&mut self, one: OutputAgreement) {
        let same =
            |known: &&mut OutputAgreement| known.signature == one.signature && known.output == one.output;
        let Some(known) = self.outputs.iter_mut().find(same) else { return self.outputs.push(one) };
        known.scale = known.scale.max(one.scale);
        known.max_absolute = known.max_absolute.max(one.max_absolute);
        merge_shares(&mut known.equal, one.equal);
        merge_shares(&mut known.top_1, one.top_1);
    }

    /// Takes over the differences of the same requests asked in another way, without counting their rows again.
    pub(crate) fn widen(&mut self, other: &Agreement) {
        for one in &other.outputs {
            let mut one = one.clone();
            // A share that is no worse says nothing new.
            let known = self
                .outputs
                .iter()
                .find(|known| known.signature == one.signature && known.output == one.output);
            if let Some(known) = known {
                let is_worse = |new: Option<Share>, old: Option<Share>| {
                    new.zip(old).is_none_or(|(new, old)| new.fraction() < old.fraction())
                };
                one.equal = one.equal.filter(|_| is_worse(one.equal, known.equal));
                one.top_1 = one.top_1.filter(|_| is_worse(one.top_1, known.top_1));
            }
            self.merge_output(one);
        }
    }
}

fn merge_shares(known: &mut Option<Share>, new: Option<Share>) {
    match (known, new) {
        (Some(known), Some(new)) => known.add(new),
        (known @ None, new) => *known = new,
        (Some(_), None) => {}
    }
}

fn sum(shares: impl Iterator<Item = Share>) -> Option<Share> {
    shares.reduce(|mut all, share| {
        all.add(share);
        all
    })
}

fn compare(expected: &Tensor, got: &Tensor) -> Result<OutputAgreement, String> {
    if (expected.dtype(), expected.shape()) != (got.dtype(), got.shape()) {
        return Err(format!(
            "{} {}, the reference gives {} {}",
            got.dtype(),
            got.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    let nothing = OutputAgreement {
        signature: "".into(),
        output: "".into(),
        scale: 0.0,
        max_absolute: 0.0,
        equal: None,
        top_1: None,
    };
    match (floats(expected), floats(got)) {
        (Some(expected_floats), Some(got_floats)) => {
            let pairs = || expected_floats.iter().copied().zip(got_floats.iter().copied());
            Ok(OutputAgreement {
                scale: expected_floats.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f64::max),
                max_absolute: pairs().map(|(a, b)| difference(a, b)).fold(0.0, f64::max),
                top_1: n_classes(expected).map(|n| top_1(&expected_floats, &got_floats, n)),
                ..nothing
            })
        }
        _ => Ok(OutputAgreement { equal: Some(equal(expected, got)), ..nothing }),
    }
}

/// All elements; complex numbers as two each.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let pairs = |pairs: &[[f64; 2]]| pairs.iter().flatten().copied().collect();
    match tensor.dtype() {
        DType::F16 => tensor.to_slice::<f16>().map(|all| all.iter().map(|x| x.to_f64()).collect()),
        DType::BF16 => tensor.to_slice::<bf16>().map(|all| all.iter().map(|x| x.to_f64()).collect()),
        DType::F32 => tensor.to_slice::<f32>().map(|all| all.iter().map(|&x| f64::from(x)).collect()),
        DType::F64 => tensor.to_slice::<f64>().map(|all| all.to_vec()),
        DType::C64 => {
            tensor.to_slice::<[f32; 2]>().map(|all| all.iter().flatten().map(|&x| f64::from(x)).collect())
        }
        DType::C128 => tensor.to_slice::<[f64; 2]>().map(|all| pairs(&all)),
        _ => None,
    }
}

fn difference(a: f64, b: f64) -> f64 {
    if a == b || a.is_nan() && b.is_nan() {
        0.0
    } else if a.is_finite() && b.is_finite() {
        (a - b).abs()
    } else {
        f64::INFINITY
    }
}

/// The columns of a tensor of classes.
fn n_classes(tensor: &Tensor) -> Option<usize> {
    let is_real = !matches!(tensor.dtype(), DType::C64 | DType::C128);
    match tensor.shape().dims() {
        [_, n] if *n >= 2 && is_real => Some(*n),
        _ => None,
    }
}

/// A row agrees when the candidate's largest element is one of the reference's largest.
fn top_1(expected: &[f64], got: &[f64], n_classes: usize) -> Share {
    let mut share = Share::default();
    for (expected, got) in expected.chunks_exact(n_classes).zip(got.chunks_exact(n_classes)) {
        let chosen = expected[largest(got)];
        let best = expected[largest(expected)];
        share.add(Share { n: usize::from(chosen == best || chosen.is_nan() && best.is_nan()), of: 1 });
    }
    share
}

/// The place of the first of the largest elements; what is no number counts as the smallest.
fn largest(row: &[f64]) -> usize {
    let mut best = 0;
    for (at, x) in row.iter().enumerate() {
        if *x > row[best] || row[best].is_nan() && !x.is_nan() {
            best = at;
        }
    }
    best
}

fn equal(expected: &Tensor, got: &Tensor) -> Share {
    let n = match (expected.bytes(), got.bytes(), expected.dtype().size()) {
        (Some(a), Some(b), Some(size)) => {
            a.chunks_exact(size).zip(b.chunks_exact(size)).filter(|(a, b)| a == b).count()
        }
        _ => {
            let (a, b) = (expected.strings().unwrap_or_default(), got.strings().unwrap_or_default());
            a.iter().zip(b).filter(|(a, b)| a == b).count()
        }
    };
    Share { n, of: expected.shape().n_elements() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use salver_tensor::{Dims, Shape, TensorSpec};

    fn tensor(dims: &[usize], elements: &[f32]) -> Tensor {
        Tensor::from_vec(Shape::new(dims).unwrap(), elements.to_vec()).unwrap()
    }

    fn signature(n_outputs: usize) -> Signature {
        let spec = |at: usize| TensorSpec {
            name: format!("y{at}").into(),
            tensor_name: "y".into(),
            dtype: DType::F32,
            dims: Dims::unknown(),
            default: None,
        };
        Signature::new("s", "m", Vec::new(), (0..n_outputs).map(spec).collect())
    }

    fn agreement(expected: &Tensor, got: &Tensor) -> Agreement {
        let mut agreement = Agreement::default();
        agreement.add(&signature(1), std::slice::from_ref(expected), std::slice::from_ref(got)).unwrap();
        agreement
    }

    #[test]
    fn differences_of_floats() {
        let check = |expected: &[f32], got: &[f32], absolute: f64, relative: f64| {
            let agreement = agreement(&tensor(&[expected.len()], expected), &tensor(&[got.len()], got));
            assert_eq!(
                (agreement.max_absolute(), agreement.max_relative()),
                (absolute, relative),
                "{expected:?}"
            );
            assert_eq!((agreement.top_1(), agreement.equal()), (None, None));
        };
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        check(&[1.0, -4.0], &[1.5, -4.0], 0.5, 0.125);
        check(&[0.0, 0.0], &[0.0, -0.0], 0.0, 0.0);
        check(&[0.0], &[0.5], 0.5, f64::INFINITY);
        check(&[nan, inf, 2.0], &[nan, inf, 2.0], 0.0, 0.0);
        check(&[nan, 2.0], &[1.0, 2.0], f64::INFINITY, f64::INFINITY);
        check(&[inf, 2.0], &[-inf, 2.0], f64::INFINITY, f64::INFINITY);
        check(&[], &[], 0.0, 0.0);
    }

    #[test]
    fn the_class_is_compared_row_by_row() {
        let check = |expected: &[f32], got: &[f32], n: usize| {
            let agreement = agreement(&tensor(&[2, 2], expected), &tensor(&[2, 2], got));
            assert_eq!(
                (agreement.top_1(), agreement.n_rows),
                (Some(Share { n, of: 2 }), 2),
                "{expected:?} {got:?}"
            );
        };
        check(&[0.1, 0.9, 0.8, 0.2], &[0.2, 0.8, 0.6, 0.4], 2);
        check(&[0.1, 0.9, 0.8, 0.2], &[0.2, 0.8, 0.4, 0.6], 1);
        // A tie of the reference may be broken either way; a tie of the candidate is its first.
        check(&[0.5, 0.5, 0.9, 0.1], &[0.4, 0.6, 0.5, 0.5], 2);
        check(&[0.5, f32::NAN, 0.9, 0.1], &[0.4, 0.2, f32::NAN, 0.5], 1);
        let one_column = agreement(&tensor(&[2, 1], &[0.1, 0.2]), &tensor(&[2, 1], &[0.2, 0.1]));
        assert_eq!(one_column.top_1(), None);
    }

    #[test]
    fn what_is_no_float_is_equal_or_not() {
        let ints = |elements: &[i64]| {
            Tensor::from_vec(Shape::new(&[elements.len()]).unwrap(), elements.to_vec()).unwrap()
        };
        let words = |words: &[&'static str]| {
            let all = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
            Tensor::from_strings(Shape::new(&[words.len()]).unwrap(), all).unwrap()
        };
        for (expected, got, n) in [
            (ints(&[1, 2, 3]), ints(&[1, 5, 3]), 2),
            (words(&["a", "b", "c"]), words(&["a", "b", "c"]), 3),
            (words(&["a", "b", "c"]), words(&["a", "", "b"]), 1),
        ] {
            let agreement = agreement(&expected, &got);
            assert_eq!(agreement.equal(), Some(Share { n, of: 3 }));
            assert_eq!((agreement.max_absolute(), agreement.top_1()), (0.0, None));
        }
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        let mut agreement = Agreement::default();
        let one = [tensor(&[2], &[0.0, 1.0])];
        let check = |agreement: &mut Agreement, got: &[Tensor], expected: &str| {
            assert_eq!(agreement.add(&signature(1), &one, got).unwrap_err(), expected);
        };
        check(&mut agreement, &[], "0 outputs, expected 1");
        check(
            &mut agreement,
            &[tensor(&[1], &[0.0])],
            "output 'y0': float32 [1], the reference gives float32 [2]",
        );
        let doubles = Tensor::from_vec(Shape::new(&[2]).unwrap(), vec![0.0f64, 1.0]).unwrap();
        check(&mut agreement, &[doubles], "output 'y0': float64 [2], the reference gives float32 [2]");
    }

    #[test]
    fn asking_again_widens_but_does_not_count() {
        let rows = |a: f32, b: f32| tensor(&[1, 2], &[a, b]);
        let mut known = agreement(&rows(0.0, 1.0), &rows(0.0, 1.0));
        known.widen(&agreement(&rows(0.0, 1.0), &rows(0.25, 1.0)));
        assert_eq!((known.max_absolute(), known.n_rows), (0.25, 1));
        assert_eq!(known.top_1(), Some(Share { n: 1, of: 1 }));
        known.widen(&agreement(&rows(0.0, 1.0), &rows(1.0, 0.0)));
        assert_eq!(known.top_1(), Some(Share { n: 1, of: 2 }));
    }

    proptest! {
        /// However requests are cut, differences and shares are those of the whole.
        #[test]
        fn requests_add_up(
            rows in prop::collection::vec((any::<[i8; 3]>(), any::<[i8; 3]>()), 1..20),
            cut in 0usize..20,
        ) {
            let floats = |rows: &[[i8; 3]]| {
                tensor(&[rows.len(), 3], &rows.iter().flatten().map(|&x| f32::from(x)).collect::<Vec<_>>())
            };
            let (expected, got): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let (expected, got) = (floats(&expected), floats(&got));
            let whole = agreement(&expected, &got);
            let n = expected.shape().dims()[0];
            let cut = cut.min(n);
            let mut parts = Agreement::default();
            for (start, len) in [(0, cut), (cut, n - cut)] {
                let (a, b) = (expected.rows(start, len).unwrap(), got.rows(start, len).unwrap());
                parts.add(&signature(1), &[a], &[b]).unwrap();
            }
            prop_assert_eq!(whole, parts);
        }
    }
}

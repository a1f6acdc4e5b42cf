//! Whether answers are what they should be.

use std::sync::{Arc, OnceLock};

use half::{bf16, f16};
use salver_tensor::{DType, Element, Signature, Tensor};
use salver_wire::client::Named;

use crate::ask::Answer;
use crate::budget::{Budget, Held};
use crate::call::Subject;

/// Bytes of answers that are kept at one time: those that are being read, and the ones that others are held to.
const MAX_KEPT: usize = 512 << 20;

/// What is said of an answer that does not fit.
const TOO_LARGE: &str = "answer too large to check";

/// Compares answers: those of one call with each other, or with one that is given. It costs the generator the decoding of
/// every answer.
#[derive(Debug, Clone)]
pub struct Check {
    subject: Subject,
    signature: Arc<Signature>,
    tolerance: f64,
    /// By call.
    expected: Arc<[OnceLock<Expected>]>,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Expected {
    outputs: Named,
    /// Its share of what may be kept; what the user gave takes none.
    _held: Option<Held>,
}

impl Check {
    /// Holds each answer to the first one of its call. Numbers with a fraction may differ by `tolerance` of their size, or
    /// of 1 where they are smaller. `n_calls` is the number of calls of the plan. 512 MiB of answers are kept at one time at most,
    /// all threads together; an answer beyond that counts as wrong.
    pub fn new(subject: Subject, signature: Arc<Signature>, tolerance: f64, n_calls: usize) -> Check {
        let expected = (0..n_calls).map(|_| OnceLock::new()).collect();
        Check { subject, signature, tolerance, expected, budget: Budget::new(MAX_KEPT) }
    }

    /// The same with another bound on the bytes of answers that are kept at one time.
    #[must_use]
    pub fn keep_at_most(self, n_bytes: usize) -> Check {
        Check { budget: Budget::new(n_bytes), ..self }
    }

    /// What the answers that are read for it are kept in.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Holds the answers of the call with this number to this one. The first that is given counts.
    pub fn expect(&self, call: usize, mut outputs: Named) {
        outputs.sort_by(|one, other| one.0.cmp(&other.0));
        if let Some(slot) = self.expected.get(call) {
            slot.get_or_init(|| Expected { outputs, _held: None });
        }
    }

    /// What is wrong with an answer of the call with this number.
    pub(crate) fn judge(&self, call: usize, answer: &Answer) -> Option<String> {
        if answer.is_cut {
            return Some(TOO_LARGE.to_owned());
        }
        let named = match self.subject.decode(&self.signature, answer) {
            Ok(named) => named,
            Err(error) => return Some(error.to_string()),
        };
        let slot = self.expected.get(call)?;
        let expected = match slot.get() {
            Some(expected) => expected,
            None => {
                let mut held = Held::none(&self.budget);
                let n_bytes: usize = named.iter().map(|(_, tensor)| tensor.n_bytes()).sum();
                if !held.take(n_bytes.max(answer.body.len())) {
                    return Some(TOO_LARGE.to_owned());
                }
                slot.get_or_init(|| Expected { outputs: named.clone(), _held: Some(held) })
            }
        };
        difference(&expected.outputs, &named, self.tolerance).map(|what| format!("call {call}: {what}"))
    }
}

fn difference(expected: &Named, found: &Named, tolerance: f64) -> Option<String> {
    let names = |named: &Named| named.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if names(expected) != names(found) {
        return Some(format!("outputs are {}, expected {}", names(found), names(expected)));
    }
    expected.iter().zip(found).find_map(|((name, expected), (_, found))| {
        of_tensors(expected, found, tolerance).map(|what| format!("output '{name}' {what}"))
    })
}

fn of_tensors(expected: &Tensor, found: &Tensor, tolerance: f64) -> Option<String> {
    if (expected.dtype(), expected.shape()) != (found.dtype(), found.shape()) {
        let of = |tensor: &Tensor| format!("{}{}", tensor.dtype(), tensor.shape());
        return Some(format!("is {}, expected {}", of(found), of(expected)));
    }
    match expected.dtype() {
        _ if expected == found => None,
        DType::F32 => floats::<f32>(expected, found, tolerance, f64::from),
        DType::F64 => floats::<f64>(expected, found, tolerance, |number| number),
        DType::F16 => floats::<f16>(expected, found, tolerance, f64::from),
        DType::BF16 => floats::<bf16>(expected, found, tolerance, f64::from),
        _ => Some("differs".to_owned()),
    }
}

fn floats<E: Element>(
    expected: &Tensor,
    found: &Tensor,
    tolerance: f64,
    wide: impl Fn(E) -> f64,
) -> Option<String> {
    let (expected, found) = (expected.to_slice::<E>()?, found.to_slice::<E>()?);
    let differs = |(at, (expected, found)): (usize, (&E, &E))| {
        let (expected, found) = (wide(*expected), wide(*found));
        let is_near = (expected - found).abs() <= tolerance * expected.abs().max(1.0)
            || expected == found
            || (expected.is_nan() && found.is_nan());
        (!is_near).then(|| format!("is {found} at element {at}, expected {expected}"))
    };
    expected.iter().zip(found.iter()).enumerate().find_map(differs)
}

#[cfg(test)]
mod tests {
    use salver_tensor::Shape;

    use super::*;

    fn named(name: &str, numbers: &[f32]) -> Named {
        let shape = Shape::vector(numbers.len()).unwrap();
        vec![(name.to_owned(), Tensor::from_vec(shape, numbers.to_vec()).unwrap())]
    }

    #[test]
    fn answers_are_compared() {
        let check = |expected: &Named, found: &Named, what: Option<&str>| {
            assert_eq!(difference(expected, found, 0.01).as_deref(), what);
        };
        let a = named("y", &[1.0, 1000.0, f32::NAN]);
        check(&a, &a, None);
        check(&a, &named("y", &[1.009, 1009.0, f32::NAN]), None);
        check(
            &a,
            &named("y", &[1.0, 1011.0, f32::NAN]),
            Some("output 'y' is 1011 at element 1, expected 1000"),
        );
        check(&a, &named("y", &[1.0, 1000.0, 0.0]), Some("output 'y' is 0 at element 2, expected NaN"));
        check(&a, &named("z", &[1.0]), Some("outputs are z, expected y"));
        check(&a, &named("y", &[1.0]), Some("output 'y' is float32[1], expected float32[3]"));
        let integers = |n: i32| vec![("y".to_owned(), Tensor::from_vec(Shape::scalar(), vec![n]).unwrap())];
        check(&integers(1), &integers(1), None);
        check(&integers(1000), &integers(1001), Some("output 'y' differs"));
    }
}

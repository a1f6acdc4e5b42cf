//! The functions that the gates of a recurrent layer go through.

use crate::Error;
use crate::call::Call;
use crate::number::Float;

/// A function with its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Activation {
    kind: Kind,
    alpha: f32,
    beta: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Affine,
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    ScaledTanh,
    Selu,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu,
}

/// Constants that a function takes from the attributes, and those it has otherwise.
fn named(name: &str) -> Option<(Kind, [Option<f32>; 2])> {
    Some(match name.to_ascii_lowercase().as_str() {
        "affine" => (Kind::Affine, [Some(1.0), Some(0.0)]),
        "elu" => (Kind::Elu, [Some(1.0), None]),
        "hardsigmoid" => (Kind::HardSigmoid, [Some(0.2), Some(0.5)]),
        "leakyrelu" => (Kind::LeakyRelu, [Some(0.01), None]),
        "relu" => (Kind::Relu, [None; 2]),
        "scaledtanh" => (Kind::ScaledTanh, [Some(1.0), Some(1.0)]),
        "selu" => (Kind::Selu, [None; 2]),
        "sigmoid" => (Kind::Sigmoid, [None; 2]),
        "softplus" => (Kind::Softplus, [None; 2]),
        "softsign" => (Kind::Softsign, [None; 2]),
        "tanh" => (Kind::Tanh, [None; 2]),
        "thresholdedrelu" => (Kind::ThresholdedRelu, [Some(1.0), None]),
        _ => return None,
    })
}

/// The functions of all directions, `defaults` of each unless others are named. Constants are handed out in order to
/// those functions that take some.
pub(super) fn read(
    call: &Call<'_>,
    n_directions: usize,
    defaults: &[&str],
) -> Result<Vec<Activation>, Error> {
    let names: Vec<&str> = match call.attributes.texts("activations")? {
        Some(names) if !names.is_empty() => names.iter().map(String::as_str).collect(),
        _ => defaults.repeat(n_directions),
    };
    if names.len() != defaults.len() * n_directions {
        let n = defaults.len() * n_directions;
        return Err(Error::invalid(format!("{} activations, expected {n}", names.len())));
    }
    let mut alphas = call.attributes.floats("activation_alpha")?.unwrap_or_default().iter();
    let mut betas = call.attributes.floats("activation_beta")?.unwrap_or_default().iter();
    names
        .into_iter()
        .map(|name| {
            let (kind, [alpha, beta]) = named(name)
                .ok_or_else(|| Error::unsupported(format!("activation '{name}' of {}", call.op)))?;
            let alpha = alpha.map_or(0.0, |default| alphas.next().copied().unwrap_or(default));
            let beta = beta.map_or(0.0, |default| betas.next().copied().unwrap_or(default));
            Ok(Activation { kind, alpha, beta })
        })
        .collect()
}

impl Activation {
    /// Replaces the elements, first brought between `-clip` and `clip`.
    pub(super) fn apply<T: Float>(&self, elements: &mut [T], clip: Option<T>) {
        if let Some(clip) = clip {
            let low = clip.neg();
            elements.iter_mut().for_each(|x| {
                let bounded = if *x < low { low } else { *x };
                *x = if bounded > clip { clip } else { bounded };
            });
        }
        let (alpha, beta) = (T::of(self.alpha), T::of(self.beta));
        let (zero, one) = (T::default(), T::ONE);
        let elements = elements.iter_mut();
        match self.kind {
            Kind::Sigmoid => elements.for_each(|x| *x = x.sigmoid()),
            Kind::Tanh => elements.for_each(|x| *x = x.tanh()),
            Kind::Relu => elements.for_each(|x| *x = x.greater(zero)),
            Kind::Affine => elements.for_each(|x| *x = alpha.mul(*x).add(beta)),
            Kind::LeakyRelu => elements.for_each(|x| *x = if *x < zero { alpha.mul(*x) } else { *x }),
            Kind::ThresholdedRelu => elements.for_each(|x| *x = if *x > alpha { *x } else { zero }),
            Kind::Elu => {
                elements.for_each(|x| *x = if *x < zero { alpha.mul(x.exp().sub(one)) } else { *x });
            }
            Kind::Selu => {
                let (alpha, gamma) = (T::of(1.673_263_2), T::of(1.050_701));
                elements.for_each(|x| {
                    *x = gamma.mul(if *x < zero { alpha.mul(x.exp().sub(one)) } else { *x });
                });
            }
            Kind::HardSigmoid => {
                elements.for_each(|x| {
                    let line = alpha.mul(*x).add(beta).greater(zero);
                    *x = line.lesser(one);
                });
            }
            Kind::ScaledTanh => elements.for_each(|x| *x = alpha.mul(beta.mul(*x).tanh())),
            Kind::Softplus => {
                elements.for_each(|x| *x = x.greater(zero).add(one.add(x.abs().neg().exp()).ln()));
            }
            Kind::Softsign => elements.for_each(|x| *x = x.div(one.add(x.abs()))),
        }
    }
}

//! `exp`, `tanh` and the logistic function in `f32`, without branches, so that the compiler makes vector code of loops
//! over them. Within 2 units in the last place. Range reduction and polynomials are those of the Cephes library
//! (`expf.c`, `tanhf.c`).

/// Adding this to a small number rounds it to an integer, which then lies in the low bits.
const ROUND: f32 = 12_582_912.0;

/// e to the power of `x`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Comparisons written so that NaN passes through.
    let bounded = if x > 88.8 { 88.8 } else { x };
    let bounded = if bounded < -104.0 { -104.0 } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let power = p * r * r + r + 1.0;
    // Two factors, since the exponent may lie outside of what one normal number holds.
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = exponent >> 1;
    let scale = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    power * scale(half) * scale(exponent.wrapping_sub(half))
}

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let square = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * square + 2.063_909e-2;
    p = p * square - 5.373_971_5e-2;
    p = p * square + 1.333_144_2e-1;
    p = p * square - 3.333_328e-1;
    let near = p * square * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    if size < 0.625 { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, fast: fn(f32) -> f32, exact: fn(f64) -> f64) {
        let samples = (-20_000..20_000).map(|i| i as f32 * 0.006).chain([0.0, -0.0, 1e-30, -1e-7]);
        for x in samples {
            let (got, want) = (f64::from(fast(x)), exact(f64::from(x)));
            if want.abs() > f64::from(f32::MAX) {
                assert_eq!(got, f64::INFINITY, "{name}({x})");
                continue;
            }
            let tolerance = (want.abs() * 3e-7).max(1e-38);
            assert!((got - want).abs() <= tolerance, "{name}({x}) is {got}, expected {want}");
        }
        assert!(fast(f32::NAN).is_nan(), "{name}(NaN)");
    }

    #[test]
    fn close_to_the_exact_functions() {
        check("exp", exp, f64::exp);
        check("tanh", tanh, f64::tanh);
        check("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        for (got, want) in [
            (exp(f32::INFINITY), f32::INFINITY),
            (exp(f32::NEG_INFINITY), 0.0),
            (tanh(f32::INFINITY), 1.0),
            (tanh(f32::NEG_INFINITY), -1.0),
            (sigmoid(f32::INFINITY), 1.0),
            (sigmoid(f32::NEG_INFINITY), 0.0),
        ] {
            assert_eq!(got, want);
        }
    }
}

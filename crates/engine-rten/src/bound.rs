//! Ranges of numbers, to tell whether whole numbers stay within 32 bits.

use crate::element::Elem;

/// The range that all elements of a tensor lie in. Arithmetic on it is sound up to the rounding of `f64`, which is
/// far below the margins it is used with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bound {
    pub(crate) lo: f64,
    pub(crate) hi: f64,
    pub(crate) kind: Kind,
}

/// Where the numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anywhere.
    Plain,
    /// Constants of a magnitude that sizes are commonly multiplied with or added to.
    Small,
    /// Sizes of tensors, positions in them, and numbers computed from these and [`Kind::Small`] only. No tensor that
    /// exists has more than 2^31 elements, so these fit 32 bits.
    Size,
}

const I32_LO: f64 = -2_147_483_648.0;
const I32_HI: f64 = 2_147_483_647.0;
const SMALL: f64 = 65_536.0;

impl Bound {
    pub(crate) const ANY: Bound = Bound { lo: f64::NEG_INFINITY, hi: f64::INFINITY, kind: Kind::Plain };
    pub(crate) const I32: Bound = Bound { lo: I32_LO, hi: I32_HI, kind: Kind::Plain };
    pub(crate) const SIZE: Bound = Bound { lo: 0.0, hi: I32_HI, kind: Kind::Size };
    pub(crate) const UNIT: Bound = Bound { lo: 0.0, hi: 1.0, kind: Kind::Plain };
    pub(crate) const ZERO: Bound = Bound { lo: 0.0, hi: 0.0, kind: Kind::Small };

    pub(crate) fn new(lo: f64, hi: f64) -> Bound {
        if lo.is_nan() || hi.is_nan() { Bound::ANY } else { Bound { lo, hi, kind: Kind::Plain } }
    }

    /// The range of a constant.
    pub(crate) fn constant(lo: f64, hi: f64) -> Bound {
        let bound = Bound::new(lo, hi);
        let kind = if bound.magnitude() <= SMALL { Kind::Small } else { Kind::Plain };
        Bound { kind, ..bound }
    }

    /// All values of an element type, as the engine keeps it.
    pub(crate) fn of(elem: Elem) -> Bound {
        match elem {
            Elem::Bool => Bound::UNIT,
            Elem::Int8 => Bound::new(-128.0, 127.0),
            Elem::Uint8 => Bound::new(0.0, 255.0),
            Elem::Int32 | Elem::Int64 => Bound::I32,
            _ => Bound::ANY,
        }
    }

    pub(crate) fn magnitude(self) -> f64 {
        self.lo.abs().max(self.hi.abs())
    }

    pub(crate) fn is_within(self, other: Bound) -> bool {
        self.lo >= other.lo && self.hi <= other.hi
    }

    /// The smallest range around both.
    pub(crate) fn hull(self, other: Bound) -> Bound {
        let kind = match (self.kind, other.kind) {
            (a, b) if a == b => a,
            (Kind::Size, Kind::Small) | (Kind::Small, Kind::Size) => Kind::Size,
            _ => Kind::Plain,
        };
        Bound { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi), kind }
    }

    pub(crate) fn neg(self) -> Bound {
        Bound { lo: -self.hi, hi: -self.lo, kind: self.kind }
    }

    pub(crate) fn abs(self) -> Bound {
        let lo = if self.lo <= 0.0 && self.hi >= 0.0 { 0.0 } else { self.lo.abs().min(self.hi.abs()) };
        Bound { lo, hi: self.magnitude(), kind: self.kind }
    }

    pub(crate) fn add(self, other: Bound) -> Bound {
        self.combined(other, Bound::new(self.lo + other.lo, self.hi + other.hi))
    }

    pub(crate) fn sub(self, other: Bound) -> Bound {
        self.add(other.neg())
    }

    pub(crate) fn mul(self, other: Bound) -> Bound {
        let ends = [self.lo * other.lo, self.lo * other.hi, self.hi * other.lo, self.hi * other.hi];
        if ends.iter().any(|end| end.is_nan()) {
            return Bound::ANY;
        }
        let bound = ends.iter().fold(Bound::new(ends[0], ends[0]), |b, &end| Bound {
            lo: b.lo.min(end),
            hi: b.hi.max(end),
            ..b
        });
        self.combined(other, bound)
    }

    /// Division that does not grow: by whole numbers, or by numbers of a magnitude of at least one.
    pub(crate) fn div_shrinking(self, other: Bound) -> Bound {
        let most = self.magnitude();
        let lo = if self.lo >= 0.0 && other.lo >= 0.0 { 0.0 } else { -most };
        self.combined(other, Bound::new(lo, most))
    }

    /// The remainder of a division by whole numbers.
    pub(crate) fn modulo(self, other: Bound) -> Bound {
        let most = other.magnitude();
        let lo = if self.lo >= 0.0 && other.lo >= 0.0 { 0.0 } else { -most };
        Bound::new(lo, most)
    }

    pub(crate) fn clip(self, lo: f64, hi: f64) -> Bound {
        let (lo, hi) = (lo.max(self.lo).min(hi), hi.min(self.hi).max(lo));
        Bound { lo, hi, kind: self.kind }
    }

    /// The kind of a result of two operands; what comes from sizes is kept within 32 bits.
    fn combined(self, other: Bound, result: Bound) -> Bound {
        match (self.kind, other.kind) {
            (Kind::Size, Kind::Size | Kind::Small) | (Kind::Small, Kind::Size) => {
                Bound { kind: Kind::Size, ..result.clip(-I32_HI, I32_HI) }
            }
            (Kind::Small, Kind::Small) => Bound::constant(result.lo, result.hi),
            _ => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(
        op: fn(Bound, Bound) -> Bound,
        exact: fn(f64, f64) -> f64,
        a: [f64; 2],
        b: [f64; 2],
        t: [f64; 2],
    ) {
        let bound = |[x, y]: [f64; 2]| Bound::new(x.min(y), x.max(y));
        let (x, y) = (a[0] + (a[1] - a[0]) * t[0], b[0] + (b[1] - b[0]) * t[1]);
        let (result, value) = (op(bound(a), bound(b)), exact(x, y));
        let slack = 1e-9 * (1.0 + value.abs() + result.magnitude());
        assert!(result.lo - slack <= value && value <= result.hi + slack, "{value} outside {result:?}");
    }

    proptest! {
        #[test]
        fn results_lie_in_the_range(
            a in prop::array::uniform2(-1e9..1e9f64),
            b in prop::array::uniform2(-1e9..1e9f64),
            t in prop::array::uniform2(0.0..1.0f64),
        ) {
            check(Bound::add, |x, y| x + y, a, b, t);
            check(Bound::sub, |x, y| x - y, a, b, t);
            check(Bound::mul, |x, y| x * y, a, b, t);
            check(|x, _| x.abs(), |x, _| x.abs(), a, b, t);
            check(Bound::hull, |x, _| x, a, b, t);
            check(Bound::hull, |_, y| y, a, b, t);
        }
    }

    #[test]
    fn sizes_stay_sizes_with_small_constants_only() {
        let (two, big) = (Bound::constant(2.0, 2.0), Bound::constant(1e9, 1e9));
        assert_eq!(Bound::SIZE.mul(two).kind, Kind::Size);
        assert!(Bound::SIZE.mul(two).is_within(Bound::I32));
        assert!(!Bound::SIZE.mul(big).is_within(Bound::I32));
        assert!(!Bound::SIZE.add(Bound::I32).is_within(Bound::I32));
        assert!(!two.mul(big).mul(big).is_within(Bound::I32));
    }
}

//! Elements that are computed with.
//!
//! Integers wrap around. Half-width floats are computed in `f32` and rounded once per operator.

use half::{bf16, f16};
use salver_tensor::Element;

use crate::fast;

/// What can be added and multiplied: all numbers, complex ones too.
pub(crate) trait Ring: Element {
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn neg(self) -> Self;
    /// Integers truncate; the caller has refused an integer zero as divisor.
    fn div(self, other: Self) -> Self;
}

/// What has an order.
pub(crate) trait Number: Ring + PartialOrd + Default {
    /// One.
    const ONE: Self;
    /// The smallest value, of floats minus infinity.
    const LOWEST: Self;
    /// The greatest value, of floats infinity.
    const HIGHEST: Self;
    /// Whether this is an integer type.
    const INTEGER: bool;
    /// The remainder of a division that truncates, with the sign of the dividend.
    fn remainder(self, other: Self) -> Self;
    /// The remainder of a division that rounds down, with the sign of the divisor.
    fn modulo(self, other: Self) -> Self;
    fn abs(self) -> Self;
    /// -1, 0, 1, or NaN.
    fn sign(self) -> Self;
    /// Whether this is no number.
    fn is_nan(self) -> bool;
    /// The nearest `f64`.
    fn to_f64(self) -> f64;
    /// As `as` does: integers truncate and saturate, NaN becomes 0.
    fn from_f64(value: f64) -> Self;

    /// The lesser; NaN if one is.
    fn lesser(self, other: Self) -> Self {
        if self < other || self.is_nan() { self } else { other }
    }

    /// The greater; NaN if one is.
    fn greater(self, other: Self) -> Self {
        if self > other || self.is_nan() { self } else { other }
    }
}

/// Integers.
pub(crate) trait Int: Number + Ord {
    /// The value, exact.
    fn to_i128(self) -> i128;
    /// The low bits.
    fn wrap(value: i128) -> Self;
}

/// Floats.
pub(crate) trait Real: Number {}

macro_rules! ints {
    ($($sign:ident: $($int:ty),*;)*) => {$($(
        impl Ring for $int {
            fn add(self, other: $int) -> $int {
                self.wrapping_add(other)
            }
            fn sub(self, other: $int) -> $int {
                self.wrapping_sub(other)
            }
            fn mul(self, other: $int) -> $int {
                self.wrapping_mul(other)
            }
            fn neg(self) -> $int {
                self.wrapping_neg()
            }
            fn div(self, other: $int) -> $int {
                self.wrapping_div(other)
            }
        }

        impl Number for $int {
            const ONE: $int = 1;
            const LOWEST: $int = <$int>::MIN;
            const HIGHEST: $int = <$int>::MAX;
            const INTEGER: bool = true;
            fn remainder(self, other: $int) -> $int {
                self.wrapping_rem(other)
            }
            ints!(@$sign $int);
            fn is_nan(self) -> bool {
                false
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn from_f64(value: f64) -> $int {
                value as $int
            }
        }

        impl Int for $int {
            fn to_i128(self) -> i128 {
                self.into()
            }
            fn wrap(value: i128) -> $int {
                value as $int
            }
        }
    )*)*};
    (@signed $int:ty) => {
        fn modulo(self, other: $int) -> $int {
            let rest = self.wrapping_rem(other);
            if rest != 0 && (rest < 0) != (other < 0) { rest.wrapping_add(other) } else { rest }
        }
        fn abs(self) -> $int {
            self.wrapping_abs()
        }
        fn sign(self) -> $int {
            self.signum()
        }
    };
    (@unsigned $int:ty) => {
        fn modulo(self, other: $int) -> $int {
            self.wrapping_rem(other)
        }
        fn abs(self) -> $int {
            self
        }
        fn sign(self) -> $int {
            self.min(1)
        }
    };
}

ints! {
    signed: i8, i16, i32, i64;
    unsigned: u8, u16, u32, u64;
}

macro_rules! floats {
    ($($float:ty),*) => {$(
        impl Ring for $float {
            fn add(self, other: $float) -> $float {
                self + other
            }
            fn sub(self, other: $float) -> $float {
                self - other
            }
            fn mul(self, other: $float) -> $float {
                self * other
            }
            fn neg(self) -> $float {
                -self
            }
            fn div(self, other: $float) -> $float {
                self / other
            }
        }

        impl Number for $float {
            const ONE: $float = 1.0;
            const LOWEST: $float = <$float>::NEG_INFINITY;
            const HIGHEST: $float = <$float>::INFINITY;
            const INTEGER: bool = false;
            fn remainder(self, other: $float) -> $float {
                self % other
            }
            fn modulo(self, other: $float) -> $float {
                let rest = self % other;
                if rest != 0.0 && (rest < 0.0) != (other < 0.0) { rest + other } else { rest }
            }
            fn abs(self) -> $float {
                <$float>::abs(self)
            }
            fn sign(self) -> $float {
                if self > 0.0 { 1.0 } else if self < 0.0 { -1.0 } else { self + 0.0 }
            }
            fn is_nan(self) -> bool {
                <$float>::is_nan(self)
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn from_f64(value: f64) -> $float {
                value as $float
            }
        }

        impl Real for $float {}
    )*};
}

floats!(f32, f64);

/// The floats that are computed with in their own width.
pub(crate) trait Float: Real {
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn tanh(self) -> Self;
    /// The logistic function.
    fn sigmoid(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// From a number of 32 bits.
    fn of(value: f32) -> Self;
}

impl Float for f32 {
    fn exp(self) -> f32 {
        fast::exp(self)
    }
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    fn tanh(self) -> f32 {
        fast::tanh(self)
    }
    fn sigmoid(self) -> f32 {
        fast::sigmoid(self)
    }
    fn erf(self) -> f32 {
        libm::erff(self)
    }
    fn of(value: f32) -> f32 {
        value
    }
}

impl Float for f64 {
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn sigmoid(self) -> f64 {
        1.0 / (1.0 + f64::exp(-self))
    }
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    fn of(value: f32) -> f64 {
        value.into()
    }
}

macro_rules! halves {
    ($($half:ty),*) => {$(
        impl Ring for $half {
            fn add(self, other: $half) -> $half {
                <$half>::from_f32(self.to_f32() + other.to_f32())
            }
            fn sub(self, other: $half) -> $half {
                <$half>::from_f32(self.to_f32() - other.to_f32())
            }
            fn mul(self, other: $half) -> $half {
                <$half>::from_f32(self.to_f32() * other.to_f32())
            }
            fn neg(self) -> $half {
                -self
            }
            fn div(self, other: $half) -> $half {
                <$half>::from_f32(self.to_f32() / other.to_f32())
            }
        }

        impl Number for $half {
            const ONE: $half = <$half>::ONE;
            const LOWEST: $half = <$half>::NEG_INFINITY;
            const HIGHEST: $half = <$half>::INFINITY;
            const INTEGER: bool = false;
            fn remainder(self, other: $half) -> $half {
                <$half>::from_f32(self.to_f32() % other.to_f32())
            }
            fn modulo(self, other: $half) -> $half {
                <$half>::from_f32(self.to_f32().modulo(other.to_f32()))
            }
            fn abs(self) -> $half {
                <$half>::from_f32(self.to_f32().abs())
            }
            fn sign(self) -> $half {
                <$half>::from_f32(self.to_f32().sign())
            }
            fn is_nan(self) -> bool {
                <$half>::is_nan(self)
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn from_f64(value: f64) -> $half {
                <$half>::from_f64(value)
            }
        }

        impl Real for $half {}
    )*};
}

halves!(f16, bf16);

macro_rules! complex {
    ($($float:ty),*) => {$(
        impl Ring for [$float; 2] {
            fn add(self, other: Self) -> Self {
                [self[0] + other[0], self[1] + other[1]]
            }
            fn sub(self, other: Self) -> Self {
                [self[0] - other[0], self[1] - other[1]]
            }
            fn mul(self, other: Self) -> Self {
                let ([a, b], [c, d]) = (self, other);
                [a * c - b * d, a * d + b * c]
            }
            fn neg(self) -> Self {
                [-self[0], -self[1]]
            }
            fn div(self, other: Self) -> Self {
                let ([a, b], [c, d]) = (self, other);
                let square = c * c + d * d;
                [(a * c + b * d) / square, (b * c - a * d) / square]
            }
        }
    )*};
}

complex!(f32, f64);

/// Evaluates an expression in which `$T` is the Rust type of an element type, if that is one of those listed.
macro_rules! by_type {
    ($dtype:expr, $otherwise:expr, [$($variant:ident = $rust:ty),* $(,)?], $T:ident => $body:expr) => {
        match $dtype {
            $(salver_tensor::DType::$variant => {
                type $T = $rust;
                $body
            })*
            other => Err($otherwise(other)),
        }
    };
}
pub(crate) use by_type;

/// As [`by_type`], for integers.
macro_rules! by_int {
    ($dtype:expr, $otherwise:expr, $T:ident => $body:expr) => {
        $crate::number::by_type!(
            $dtype, $otherwise,
            [I8 = i8, I16 = i16, I32 = i32, I64 = i64, U8 = u8, U16 = u16, U32 = u32, U64 = u64],
            $T => $body
        )
    };
}
pub(crate) use by_int;

/// As [`by_type`], for floats.
macro_rules! by_real {
    ($dtype:expr, $otherwise:expr, $T:ident => $body:expr) => {
        $crate::number::by_type!(
            $dtype, $otherwise,
            [F16 = half::f16, BF16 = half::bf16, F32 = f32, F64 = f64],
            $T => $body
        )
    };
}
pub(crate) use by_real;

/// As [`by_type`], for integers and floats.
macro_rules! by_number {
    ($dtype:expr, $otherwise:expr, $T:ident => $body:expr) => {
        $crate::number::by_type!(
            $dtype, $otherwise,
            [
                I8 = i8, I16 = i16, I32 = i32, I64 = i64, U8 = u8, U16 = u16, U32 = u32, U64 = u64,
                F16 = half::f16, BF16 = half::bf16, F32 = f32, F64 = f64,
            ],
            $T => $body
        )
    };
}
pub(crate) use by_number;

/// As [`by_type`], for integers, floats and complex numbers.
macro_rules! by_ring {
    ($dtype:expr, $otherwise:expr, $T:ident => $body:expr) => {
        $crate::number::by_type!(
            $dtype, $otherwise,
            [
                I8 = i8, I16 = i16, I32 = i32, I64 = i64, U8 = u8, U16 = u16, U32 = u32, U64 = u64,
                F16 = half::f16, BF16 = half::bf16, F32 = f32, F64 = f64, C64 = [f32; 2], C128 = [f64; 2],
            ],
            $T => $body
        )
    };
}
pub(crate) use by_ring;

/// As [`by_type`], for the floats that are computed with in their own width.
macro_rules! by_float {
    ($dtype:expr, $otherwise:expr, $T:ident => $body:expr) => {
        $crate::number::by_type!($dtype, $otherwise, [F32 = f32, F64 = f64], $T => $body)
    };
}
pub(crate) use by_float;

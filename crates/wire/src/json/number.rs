//! Numbers as TensorFlow Serving prints them.

use std::io::Write as _;

/// How values that JSON has no number for are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NonFinite {
    /// `NaN`, `Infinity`, `-Infinity`, as TensorFlow Serving does; not legal JSON.
    #[default]
    Literal,
    /// `null`.
    Null,
    /// `"NaN"`, `"Infinity"`, `"-Infinity"`.
    String,
}

/// A number with a fraction: printed with 6 significant digits if those give the same number back, else with as many
/// as always do.
pub(crate) trait Float: Copy {
    /// Appends the number.
    fn write(self, out: &mut Vec<u8>, non_finite: NonFinite);
}

/// Significant digits tried first.
const SHORT: i32 = 6;

macro_rules! floats {
    ($($rust:ty: $long:literal),*) => {$(
        impl Float for $rust {
            fn write(self, out: &mut Vec<u8>, non_finite: NonFinite) {
                if !self.is_finite() {
                    return write_non_finite(out, self.is_nan(), self.is_sign_negative(), non_finite);
                }
                if self.is_sign_negative() {
                    out.push(b'-');
                }
                let positive = self.abs();
                let shortest = Digits::new(ryu::Buffer::new().format_finite(positive).as_bytes());
                let short = if positive.is_normal() {
                    // 6 digits or fewer survive the way to a normal number and back, so the shortest digits that
                    // give the number are the 6 digits if those give it.
                    shortest.filter(|digits| digits.len <= 6)
                } else {
                    // `{:e}` with a precision rounds exactly, as C does.
                    Digits::printed(SHORT, |out, decimals| write!(out, "{positive:.decimals$e}"))
                        .filter(|digits| digits.parse::<$rust>() == Some(positive))
                };
                if let Some(digits) = short {
                    return digits.write(out, SHORT);
                }
                const FRACTION: u32 = <$rust>::MANTISSA_DIGITS - 1;
                let bits = u64::from(positive.to_bits());
                let mantissa = bits & ((1 << FRACTION) - 1) | 1 << FRACTION;
                let power = i32::try_from(bits >> FRACTION).ok().filter(|_| positive.is_normal());
                const BIAS: i32 = <$rust>::MAX_EXP - 1 + FRACTION.cast_signed();
                let power = power.and_then(|biased| biased.checked_sub(BIAS));
                let quick = shortest.zip(power).and_then(|(shortest, power)| {
                    Digits::rounded(mantissa, power, shortest.exponent, $long)
                });
                let digits = quick.or_else(|| {
                    Digits::printed($long, |out, decimals| write!(out, "{positive:.decimals$e}"))
                });
                digits.expect("the formatter prints digits").write(out, $long);
            }
        }
    )*};
}

floats!(f32: 9, f64: 17);

fn write_non_finite(out: &mut Vec<u8>, is_nan: bool, is_negative: bool, non_finite: NonFinite) {
    let text = match (is_nan, is_negative) {
        (true, _) => "NaN",
        (false, false) => "Infinity",
        (false, true) => "-Infinity",
    };
    let quote: &[u8] = if non_finite == NonFinite::String { b"\"" } else { b"" };
    let text = if non_finite == NonFinite::Null { "null" } else { text };
    out.extend_from_slice(quote);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(quote);
}

/// The significant digits of a number, without zeros at either end (zero itself has one digit).
#[derive(Debug, Clone, Copy)]
struct Digits {
    digits: [u8; 24],
    len: usize,
    /// The power of ten of the first digit.
    exponent: i32,
}

impl Digits {
    /// Reads a plain or scientific decimal without a sign; `None` when it is neither.
    fn new(text: &[u8]) -> Option<Digits> {
        let mut read = Digits { digits: [b'0'; 24], len: 0, exponent: 0 };
        let mut before_point = 0i32;
        let mut seen_point = false;
        let mut bytes = text.iter();
        for &byte in bytes.by_ref() {
            match byte {
                b'.' => seen_point = true,
                b'e' => break,
                b'0' if read.len == 0 => before_point = before_point.checked_sub(i32::from(seen_point))?,
                _ => {
                    *read.digits.get_mut(read.len)? = byte;
                    read.len = read.len.checked_add(1)?;
                    before_point = before_point.checked_add(i32::from(!seen_point))?;
                }
            }
        }
        let exponent = std::str::from_utf8(bytes.as_slice()).ok()?;
        let exponent: i32 = if exponent.is_empty() { 0 } else { exponent.parse().ok()? };
        if read.len == 0 {
            return Some(Digits { len: 1, exponent: 0, ..read });
        }
        read.exponent = exponent.checked_add(before_point)?.checked_sub(1)?;
        let zeros = read.digits.get(..read.len)?.iter().rev().take_while(|&&digit| digit == b'0').count();
        read.len = read.len.checked_sub(zeros)?;
        Some(read)
    }

    /// `mantissa * 2^power` exactly rounded to `precision` digits, ties to even, in integer arithmetic; `None` where 128
    /// bits do not hold it. `exponent` is the power of ten of the first digit, or one more.
    fn rounded(mantissa: u64, power: i32, exponent: i32, precision: i32) -> Option<Digits> {
        let limit = 10u128.checked_pow(precision.unsigned_abs())?;
        let scale = precision.checked_sub(1)?.checked_sub(exponent)?;
        let scaled = u128::from(mantissa).checked_mul(10u128.checked_pow(u32::try_from(scale).ok()?)?)?;
        let shift = u32::try_from(power.checked_neg()?).ok()?;
        let whole = scaled.checked_shr(shift)?;
        if whole < limit / 10 {
            let exponent = exponent.checked_sub(1)?;
            // The exponent was one too high, which the shortest digits are at most.
            return (whole >= limit / 100)
                .then(|| Digits::rounded(mantissa, power, exponent, precision))
                .flatten();
        }
        let rest = scaled.checked_sub(whole.checked_shl(shift)?)?;
        let half = 1u128.checked_shl(shift.checked_sub(1)?)?;
        let is_up = rest > half || rest == half && whole % 2 == 1;
        let whole = whole.checked_add(u128::from(is_up))?;
        Digits::of_integer(u64::try_from(whole).ok()?, exponent, whole >= limit)
    }

    /// The digits of an integer whose first has the given power of ten, or one more if rounding carried.
    fn of_integer(mut integer: u64, exponent: i32, has_carried: bool) -> Option<Digits> {
        let mut read = Digits { digits: [b'0'; 24], len: 0, exponent: 0 };
        read.exponent = exponent.checked_add(i32::from(has_carried))?;
        while integer != 0 && integer.is_multiple_of(10) {
            integer /= 10;
        }
        read.len = usize::try_from(integer.checked_ilog10()?.checked_add(1)?).ok()?;
        for digit in read.digits.get_mut(..read.len)?.iter_mut().rev() {
            *digit = b'0'.checked_add(u8::try_from(integer % 10).ok()?)?;
            integer /= 10;
        }
        Some(read)
    }

    /// The digits of a number that is printed with `precision` of them.
    fn printed(
        precision: i32,
        print: impl FnOnce(&mut &mut [u8], usize) -> std::io::Result<()>,
    ) -> Option<Digits> {
        let mut buffer = [0u8; 40];
        let mut rest = buffer.as_mut_slice();
        print(&mut rest, usize::try_from(precision.checked_sub(1)?).ok()?).ok()?;
        let n_left = rest.len();
        Digits::new(buffer.get(..40usize.checked_sub(n_left)?)?)
    }

    fn as_bytes(&self) -> &[u8] {
        self.digits.get(..self.len).unwrap_or_default()
    }

    /// The number that the digits stand for.
    fn parse<T: std::str::FromStr>(&self) -> Option<T> {
        let digits = std::str::from_utf8(self.as_bytes()).ok()?;
        let scale = i32::try_from(self.len).ok()?.checked_sub(1)?;
        format!("{digits}e{}", self.exponent.checked_sub(scale)?).parse().ok()
    }

    /// Appends the digits by the rules of C's `%g`, with `.0` where there is neither a point nor an exponent.
    fn write(&self, out: &mut Vec<u8>, precision: i32) {
        let digits = self.as_bytes();
        match usize::try_from(self.exponent) {
            Ok(exponent) if self.exponent < precision => {
                let n_whole = exponent.saturating_add(1);
                let (whole, fraction) = digits.split_at(n_whole.min(digits.len()));
                out.extend_from_slice(whole);
                out.resize(out.len().saturating_add(n_whole.saturating_sub(digits.len())), b'0');
                out.push(b'.');
                out.extend_from_slice(if fraction.is_empty() { b"0" } else { fraction });
            }
            Err(_) if self.exponent >= -4 => {
                const ZEROS: &[u8] = b"0.000";
                let n_zeros = usize::try_from(self.exponent.unsigned_abs()).unwrap_or(0);
                out.extend_from_slice(ZEROS.get(..n_zeros.saturating_add(1)).unwrap_or(ZEROS));
                out.extend_from_slice(digits);
            }
            _ => self.write_scientific(out),
        }
    }

    fn write_scientific(&self, out: &mut Vec<u8>) {
        let (first, rest) = self.as_bytes().split_at(1.min(self.len));
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let sign = if self.exponent < 0 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", self.exponent.unsigned_abs())
            .expect("a vector takes all that is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(number: impl Float) -> String {
        let mut out = Vec::new();
        number.write(&mut out, NonFinite::Literal);
        String::from_utf8(out).unwrap()
    }

    /// `testdata/numbers.py` says where the file is from.
    #[test]
    fn numbers_are_printed_as_by_c() {
        for line in include_str!("../../testdata/numbers.txt").lines() {
            let (kind, rest) = line.split_once(' ').unwrap();
            let (bits, expected) = rest.split_once(' ').unwrap();
            let bits = u64::from_str_radix(bits, 16).unwrap();
            let printed = match kind {
                "f32" => print(f32::from_bits(u32::try_from(bits).unwrap())),
                _ => print(f64::from_bits(bits)),
            };
            assert_eq!(printed, expected, "{line}");
        }
    }
}

//! Numbers as text, as C's `printf` writes them.

use bytes::Bytes;
use half::{bf16, f16};
use salver_tensor::{DType, Tensor};

use super::tf_name;
use crate::Error;
use crate::call::{Call, read};

/// The widest field and the most digits.
const MAX_WIDTH: i64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Notation {
    Fixed,
    Scientific,
    Shortest,
}

struct Format {
    notation: Notation,
    precision: usize,
    width: usize,
    /// One of printf's flags.
    flag: Option<u8>,
}

pub(super) fn as_string(call: &Call<'_>) -> Result<Tensor, Error> {
    let input = call.input(0)?;
    let dtype = input.dtype();
    let format = format(call, dtype)?;
    macro_rules! integers {
        ($type:ty) => {
            read::<$type>(input).iter().map(|value| format.integer(&value.to_string())).collect()
        };
    }
    let texts: Vec<String> = match dtype {
        DType::I8 => integers!(i8),
        DType::I16 => integers!(i16),
        DType::I32 => integers!(i32),
        DType::I64 => integers!(i64),
        DType::U8 => integers!(u8),
        DType::U16 => integers!(u16),
        DType::U32 => integers!(u32),
        DType::U64 => integers!(u64),
        DType::F16 => read::<f16>(input).iter().map(|value| format.float(value.to_f64())).collect(),
        DType::BF16 => read::<bf16>(input).iter().map(|value| format.float(value.to_f64())).collect(),
        DType::F32 => read::<f32>(input).iter().map(|&value| format.float(f64::from(value))).collect(),
        DType::F64 => read::<f64>(input).iter().map(|&value| format.float(value)).collect(),
        DType::Bool => {
            let bytes = input.bytes().map(|bytes| &bytes[..]).unwrap_or_default();
            bytes.iter().map(|&byte| if byte == 0 { "false" } else { "true" }.to_owned()).collect()
        }
        DType::String => {
            let padded = call.strings(0)?.iter().map(|text| format.text(text)).collect();
            return Ok(Tensor::from_strings(input.shape().clone(), padded)?);
        }
        DType::C64 | DType::C128 => return Err(call.no_type(dtype)),
    };
    let texts = texts.into_iter().map(Bytes::from).collect();
    Ok(Tensor::from_strings(input.shape().clone(), texts)?)
}

fn format(call: &Call<'_>, dtype: DType) -> Result<Format, Error> {
    let attributes = call.attributes;
    let precision = attributes.int("precision", -1)?;
    let width = attributes.int("width", -1)?;
    let scientific = attributes.flag("scientific", false)?;
    let shortest = attributes.flag("shortest", false)?;
    let fill = attributes.text("fill", "")?;
    let is_float = matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64);
    let shown = tf_name(dtype);
    if !is_float && (scientific || shortest) {
        let text = format!("scientific and shortest format not supported for datatype {shown}");
        return Err(Error::invalid(text));
    }
    if scientific && shortest {
        return Err(Error::invalid("Cannot select both scientific and shortest notation"));
    }
    if !is_float && precision >= 0 {
        return Err(Error::invalid(format!("precision not supported for datatype {shown}")));
    }
    if precision > MAX_WIDTH || width > MAX_WIDTH {
        return Err(Error::unsupported(format!("width and precision beyond {MAX_WIDTH}")));
    }
    let flag = match fill.as_bytes() {
        [] => None,
        &[flag @ (b' ' | b'+' | b'-' | b'0' | b'#')] => Some(flag),
        [_] => return Err(Error::invalid(format!("Fill argument not supported: \"{fill}\""))),
        _ => return Err(Error::invalid("Fill string must be one or fewer characters")),
    };
    Ok(Format {
        notation: match (scientific, shortest) {
            (true, _) => Notation::Scientific,
            (_, true) => Notation::Shortest,
            _ => Notation::Fixed,
        },
        precision: usize::try_from(precision).unwrap_or(6),
        width: usize::try_from(width).unwrap_or(0),
        flag,
    })
}

impl Format {
    fn integer(&self, digits: &str) -> String {
        let (negative, digits) = digits.strip_prefix('-').map_or((false, digits), |digits| (true, digits));
        self.field(negative, digits, true)
    }

    fn float(&self, value: f64) -> String {
        let magnitude = value.abs();
        if !value.is_finite() {
            let word = if value.is_nan() { "nan" } else { "inf" };
            return self.field(value.is_sign_negative(), word, false);
        }
        let digits = match self.notation {
            Notation::Fixed => format!("{magnitude:.*}", self.precision),
            Notation::Scientific => scientific(magnitude, self.precision),
            Notation::Shortest => self.shortest(magnitude),
        };
        self.field(value.is_sign_negative(), &digits, true)
    }

    /// `%g`: the notation that is shorter, without zeros at the end.
    fn shortest(&self, magnitude: f64) -> String {
        let precision = self.precision.max(1);
        let text = scientific(magnitude, precision - 1);
        let exponent: i64 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
        let digits = precision as i64;
        let text = match exponent < digits && exponent >= -4 {
            true => format!("{magnitude:.*}", usize::try_from(digits - 1 - exponent).unwrap_or(0)),
            false => text,
        };
        let (digits, exponent) = text.split_once('e').map_or((&*text, None), |(a, b)| (a, Some(b)));
        let digits = match (self.flag, digits.contains('.')) {
            (Some(b'#'), false) => format!("{digits}."),
            (Some(b'#'), true) | (_, false) => digits.to_owned(),
            (_, true) => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        };
        exponent.map_or(digits.clone(), |exponent| format!("{digits}e{exponent}"))
    }

    /// Sign and digits in a field of the wanted width.
    fn field(&self, negative: bool, digits: &str, may_fill: bool) -> String {
        let sign = match (negative, self.flag) {
            (true, _) => "-",
            (_, Some(b'+')) => "+",
            (_, Some(b' ')) => " ",
            _ => "",
        };
        let lack = self.width.saturating_sub(sign.len() + digits.len());
        match self.flag {
            Some(b'-') => format!("{sign}{digits}{}", " ".repeat(lack)),
            Some(b'0') if may_fill => format!("{sign}{}{digits}", "0".repeat(lack)),
            _ => format!("{}{sign}{digits}", " ".repeat(lack)),
        }
    }

    fn text(&self, text: &Bytes) -> Bytes {
        let lack = self.width.saturating_sub(text.len());
        if lack == 0 {
            return text.clone();
        }
        let blanks = " ".repeat(lack).into_bytes();
        Bytes::from(match self.flag {
            Some(b'-') => [&**text, &blanks].concat(),
            _ => [&*blanks, text].concat(),
        })
    }
}

/// `%e`: at least two digits in the exponent, with its sign.
fn scientific(magnitude: f64, precision: usize) -> String {
    let text = format!("{magnitude:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

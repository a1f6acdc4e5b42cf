//! Records and tensors on one line each.

use half::{bf16, f16};
use salver_tensor::{DType, Tensor};

/// Elements that are shown.
const MAX_ELEMENTS: usize = 8;

/// The width of names.
const NAME: usize = 16;

/// Content as text, on one line; what is no text as bytes.
pub(super) fn content(bytes: &[u8], most: usize) -> String {
    let cut = bytes.get(..most).unwrap_or(bytes);
    let rest = if cut.len() < bytes.len() { " ..." } else { "" };
    let readable = std::str::from_utf8(cut).ok().or_else(|| {
        // A cut may go through a letter.
        let error = std::str::from_utf8(cut).err()?;
        let whole = cut.get(..error.valid_up_to())?;
        let is_cut = error.error_len().is_none() && cut.len() < bytes.len();
        std::str::from_utf8(whole).ok().filter(|_| is_cut)
    });
    match readable
        .filter(|text| !text.contains(|letter: char| letter.is_control() && !letter.is_whitespace()))
    {
        Some(text) => format!("{}{rest}", text.trim_end().replace(['\n', '\r'], "⏎")),
        None => {
            let shown = cut.iter().take(32).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            format!("{shown}{}", if bytes.len() > 32 { " ..." } else { "" })
        }
    }
}

/// A name, a type, a shape and the first elements.
pub(super) fn tensor(name: &str, tensor: &Tensor) -> String {
    let elements = elements(tensor);
    let n = tensor.shape().n_elements();
    let rest = if n > elements.len() { format!(" ... ({n} elements)") } else { String::new() };
    let kind = format!("{} {:?}", tensor.dtype(), tensor.shape().dims());
    format!("{name:<NAME$}  {kind:<20}  {}{rest}", elements.join(" "))
}

fn elements(tensor: &Tensor) -> Vec<String> {
    macro_rules! shown {
        ($type:ty, $each:expr) => {
            tensor
                .to_slice::<$type>()
                .map(|all| all.iter().take(MAX_ELEMENTS).map($each).collect())
                .unwrap_or_default()
        };
    }
    match tensor.dtype() {
        DType::F32 => shown!(f32, |number| float(f64::from(*number))),
        DType::F64 => shown!(f64, |number| float(*number)),
        DType::F16 => shown!(f16, |number| float(number.to_f64())),
        DType::BF16 => shown!(bf16, |number| float(number.to_f64())),
        DType::I8 => shown!(i8, ToString::to_string),
        DType::I16 => shown!(i16, ToString::to_string),
        DType::I32 => shown!(i32, ToString::to_string),
        DType::I64 => shown!(i64, ToString::to_string),
        DType::U8 => shown!(u8, ToString::to_string),
        DType::U16 => shown!(u16, ToString::to_string),
        DType::U32 => shown!(u32, ToString::to_string),
        DType::U64 => shown!(u64, ToString::to_string),
        DType::Bool => {
            let bytes = tensor.bytes().map(|bytes| bytes.as_ref()).unwrap_or_default();
            bytes.iter().take(MAX_ELEMENTS).map(|&byte| (byte != 0).to_string()).collect()
        }
        DType::String => {
            let texts = tensor.strings().unwrap_or_default();
            texts.iter().take(MAX_ELEMENTS).map(|text| content(text, 24)).collect()
        }
        DType::C64 | DType::C128 => Vec::new(),
    }
}

/// Six digits are enough to look at.
fn float(number: f64) -> String {
    let is_plain = number == 0.0 || (1e-4..1e7).contains(&number.abs());
    let text = if is_plain { format!("{number:.6}") } else { format!("{number:.5e}") };
    if text.contains('.') && is_plain {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use salver_tensor::Shape;

    use super::*;

    #[test]
    fn content_is_one_line() {
        let check = |bytes: &[u8], most: usize, expected: &str| assert_eq!(content(bytes, most), expected);
        check(b"{\"a\": 1}\n", 100, "{\"a\": 1}");
        check(b"a\nb", 100, "a⏎b");
        check("äöü".as_bytes(), 3, "ä ...");
        check(b"abcdef", 3, "abc ...");
        check(&[0xff, 0xd8, 0x00], 100, "ff d8 00");
        check(b"", 100, "");
    }

    #[test]
    fn tensors_show_their_first_elements() {
        let check = |tensor: Tensor, expected: &str| {
            let shown = super::tensor("x", &tensor);
            let parts: Vec<_> = shown.split_whitespace().collect();
            assert_eq!(parts.join(" "), expected);
        };
        let vector = |n| Shape::new(&[1, n]).unwrap();
        let floats = vec![0.5_f32, 0.0, 1e-9, 12.0];
        check(Tensor::from_vec(vector(4), floats).unwrap(), "x float32 [1, 4] 0.5 0 1.00000e-9 12");
        let many = (0..20_i64).collect();
        check(
            Tensor::from_vec(vector(20), many).unwrap(),
            "x int64 [1, 20] 0 1 2 3 4 5 6 7 ... (20 elements)",
        );
        check(Tensor::from_bools(vector(2), &[true, false]).unwrap(), "x bool [1, 2] true false");
        let texts = vec![Bytes::from_static(b"hello")];
        check(Tensor::from_strings(vector(1), texts).unwrap(), "x string [1, 1] hello");
    }
}

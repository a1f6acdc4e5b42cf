//! The answer to a predict request, written straight from its tensors.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use half::{bf16, f16};
use salver_predict::{Error, dtype_name};
use salver_tensor::{DType, Element, Tensor};

use super::decode::Format;
use super::number::{Float as _, NonFinite};

/// How the elements of one tensor are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) non_finite: NonFinite,
    /// Whether strings are written as base64 objects.
    pub(crate) b64: bool,
}

/// Writes the answer to a predict request: `{"predictions": [...]}` by rows, `{"outputs": ...}` by tensors. Each output
/// comes with its name; several are keyed by name, in the order given.
///
/// # Errors
/// [`salver_predict::Code::InvalidArgument`] with TensorFlow Serving's texts: no outputs, a complex output, or by rows an output
/// without rows or with another number of them than the first.
pub fn encode_predict(
    format: Format,
    outputs: &[(&str, &Tensor)],
    non_finite: NonFinite,
) -> Result<Vec<u8>, Error> {
    if outputs.is_empty() {
        return Err(Error::invalid("Cannot convert empty tensor map to JSON"));
    }
    let mut out = Vec::with_capacity(guess_size(outputs));
    let (key, write): (&[u8], Write) = match format {
        Format::Row => (b"{\"predictions\": ", write_rows),
        Format::Columnar => (b"{\"outputs\": ", write_columns),
    };
    out.extend_from_slice(key);
    write(&mut out, outputs, non_finite)?;
    out.extend_from_slice(b"}\n");
    Ok(out)
}

type Write = fn(&mut Vec<u8>, &[(&str, &Tensor)], NonFinite) -> Result<(), Error>;

fn guess_size(outputs: &[(&str, &Tensor)]) -> usize {
    let elements = outputs.iter().map(|(name, tensor)| {
        tensor
            .n_bytes()
            .saturating_add(name.len())
            .saturating_add(tensor.shape().n_elements().saturating_mul(8))
    });
    elements.fold(64, usize::saturating_add)
}

fn write_columns(out: &mut Vec<u8>, outputs: &[(&str, &Tensor)], non_finite: NonFinite) -> Result<(), Error> {
    if let [(name, tensor)] = outputs {
        return write_tensor(out, name, tensor, non_finite);
    }
    for (i, (name, tensor)) in outputs.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"{" } else { b", " });
        write_string(out, name.as_bytes());
        out.extend_from_slice(b": ");
        write_tensor(out, name, tensor, non_finite)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_rows(out: &mut Vec<u8>, outputs: &[(&str, &Tensor)], non_finite: NonFinite) -> Result<(), Error> {
    let n_rows = check_rows(outputs)?;
    if let [(name, tensor)] = outputs {
        return write_tensor(out, name, tensor, non_finite);
    }
    for row in 0..n_rows {
        out.extend_from_slice(if row == 0 { b"[" } else { b", " });
        for (i, (name, tensor)) in outputs.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"{" } else { b", " });
            write_string(out, name.as_bytes());
            out.extend_from_slice(b": ");
            let row = tensor.rows(row, 1).and_then(|row| drop_rows(&row));
            let row = row.ok_or_else(|| inconsistent(name, tensor, n_rows))?;
            write_tensor(out, name, &row, non_finite)?;
        }
        out.push(b'}');
    }
    out.extend_from_slice(if n_rows == 0 { b"[]" } else { b"]" });
    Ok(())
}

/// The only row of a tensor, without the dimension that counts rows.
fn drop_rows(row: &Tensor) -> Option<Tensor> {
    let shape = salver_tensor::Shape::new(row.shape().row_dims()).ok()?;
    row.reshape(shape).ok()
}

/// The number of rows that every output has.
fn check_rows(outputs: &[(&str, &Tensor)]) -> Result<usize, Error> {
    let mut expected = None;
    for (name, tensor) in outputs {
        let Some(n_rows) = tensor.shape().n_rows() else {
            return Err(Error::invalid(format!("Tensor name: {name} has no shape information ")));
        };
        if *expected.get_or_insert(n_rows) != n_rows {
            return Err(inconsistent(name, tensor, expected.unwrap_or(0)));
        }
        check_empty(tensor.shape().dims())?;
    }
    Ok(expected.unwrap_or(0))
}

fn inconsistent(name: &str, tensor: &Tensor, expected: usize) -> Error {
    let n_rows = tensor.shape().n_rows().unwrap_or(0);
    Error::invalid(format!(
        "Tensor name: {name} has inconsistent batch size: {n_rows} expecting batch size: {expected}"
    ))
}

fn write_tensor(out: &mut Vec<u8>, name: &str, tensor: &Tensor, non_finite: NonFinite) -> Result<(), Error> {
    let style = Style { non_finite, b64: name.ends_with("_bytes") };
    write_list(out, tensor, tensor.shape().dims(), style)
}

/// How many empty lists or rows without elements an answer may have: they take space that no element accounts for.
const MAX_EMPTY: usize = 1 << 16;

/// Refuses dimensions such as `[2^40, 0]`.
fn check_empty(dims: &[usize]) -> Result<(), Error> {
    if !dims.contains(&0) {
        return Ok(());
    }
    let n_lists = dims.iter().take_while(|&&dim| dim != 0).fold(1usize, |n, &dim| n.saturating_mul(dim));
    if n_lists > MAX_EMPTY {
        return Err(Error::invalid(format!(
            "output of shape {dims:?} has too many empty lists to write as JSON"
        )));
    }
    Ok(())
}

/// Writes the elements as lists nested by `dims`, whose product is the number of elements.
pub(crate) fn write_list(
    out: &mut Vec<u8>,
    tensor: &Tensor,
    dims: &[usize],
    style: Style,
) -> Result<(), Error> {
    check_empty(dims)?;
    match tensor.dtype() {
        DType::Bool => {
            let write = |out: &mut Vec<u8>, byte: &u8| {
                out.extend_from_slice(if *byte == 0 { b"false".as_slice() } else { b"true" });
            };
            nested(out, dims, tensor.bytes().map(|bytes| &**bytes).unwrap_or_default(), write);
        }
        DType::I8 => write_elements::<i8>(out, tensor, dims, write_integer),
        DType::I16 => write_elements::<i16>(out, tensor, dims, write_integer),
        DType::I32 => write_elements::<i32>(out, tensor, dims, write_integer),
        DType::I64 => write_elements::<i64>(out, tensor, dims, write_integer),
        DType::U8 => write_elements::<u8>(out, tensor, dims, write_integer),
        DType::U16 => write_elements::<u16>(out, tensor, dims, write_integer),
        DType::U32 => write_elements::<u32>(out, tensor, dims, write_integer),
        DType::U64 => write_elements::<u64>(out, tensor, dims, write_integer),
        DType::F16 => {
            write_elements::<f16>(out, tensor, dims, |out, x| x.to_f32().write(out, style.non_finite));
        }
        DType::BF16 => {
            write_elements::<bf16>(out, tensor, dims, |out, x| x.to_f32().write(out, style.non_finite));
        }
        DType::F32 => write_elements::<f32>(out, tensor, dims, |out, x| x.write(out, style.non_finite)),
        DType::F64 => write_elements::<f64>(out, tensor, dims, |out, x| x.write(out, style.non_finite)),
        DType::String => {
            let strings = tensor.strings().unwrap_or_default();
            if style.b64 {
                nested(out, dims, strings, write_b64);
            } else {
                nested(out, dims, strings, |out, string: &Bytes| write_string(out, string));
            }
        }
        DType::C64 | DType::C128 => {
            let name = dtype_name(tensor.dtype());
            return Err(Error::invalid(format!("Failed to write JSON value for tensor type: {name}")));
        }
    }
    Ok(())
}

fn write_elements<E: Element>(
    out: &mut Vec<u8>,
    tensor: &Tensor,
    dims: &[usize],
    write: impl Fn(&mut Vec<u8>, &E) + Copy,
) {
    nested(out, dims, &tensor.to_slice::<E>().unwrap_or_default(), write);
}

/// Recursion ends at the bound on a shape's rank.
fn nested<E>(out: &mut Vec<u8>, dims: &[usize], elements: &[E], write: impl Fn(&mut Vec<u8>, &E) + Copy) {
    let Some((&len, inner)) = dims.split_first() else {
        if let [element] = elements {
            write(out, element);
        }
        return;
    };
    out.push(b'[');
    if inner.is_empty() {
        for (i, element) in elements.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            write(out, element);
        }
    } else {
        let stride = elements.len().checked_div(len).unwrap_or(0);
        let mut rest = elements;
        for i in 0..len {
            let (first, others) = rest.split_at(stride.min(rest.len()));
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            nested(out, inner, first, write);
            rest = others;
        }
    }
    out.push(b']');
}

fn write_integer<E: std::fmt::Display>(out: &mut Vec<u8>, element: &E) {
    write!(out, "{element}").expect("a vector takes all that is written");
}

fn write_b64(out: &mut Vec<u8>, bytes: &Bytes) {
    out.extend_from_slice(b"{\"b64\": \"");
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.extend_from_slice(b"\"}");
}

/// Writes a string with its quotes. Byte sequences that are not UTF-8 become U+FFFD.
pub(crate) fn write_string(out: &mut Vec<u8>, string: &[u8]) {
    out.push(b'"');
    for chunk in string.utf8_chunks() {
        write_escaped(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let must_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| must_escape(byte)) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = from.split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => write!(out, "\\u{byte:04x}").expect("a vector takes all that is written"),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}

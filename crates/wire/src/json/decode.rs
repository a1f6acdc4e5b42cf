//! The body of a predict request.

use std::sync::Arc;

use jiter::Peek;
use salver_predict::{Code, Error, check_inputs};
use salver_tensor::{Signature, Tensor};

use super::column::ValueDims;
use super::{Column, Limits, Text, column};

/// The layout of a request's tensors, which its answer has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `instances`: one value (or one object of values) per row.
    Row,
    /// `inputs`: one value per tensor.
    Columnar,
}

/// A predict request.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The signature asked for.
    pub signature: Arc<Signature>,
    /// All inputs of the signature, in its order, checked against it.
    pub inputs: Vec<Tensor>,
    /// How the answer is laid out.
    pub format: Format,
}

/// Reads the body of a predict request. `resolve` finds a signature by the name in the body, which is empty when the
/// body has none; it is called once, or twice when the name stands behind the tensors. Bytes after the object are
/// ignored, and so are keys with no meaning here.
///
/// # Errors
/// [`Code::InvalidArgument`] with TensorFlow Serving's texts, [`Code::Unimplemented`] for complex inputs, or the error of
/// `resolve`. Of several errors the first in this order is reported: syntax, type of the signature's name, `resolve`,
/// absence of tensors, their contents.
pub fn decode_predict(
    body: &[u8],
    mut resolve: impl FnMut(&str) -> Result<Arc<Signature>, Error>,
    limits: Limits,
) -> Result<Decoded, Error> {
    let mut text = Text::new(body, limits);
    let mut found = Found::default();
    found.read(&mut text, &mut resolve)?;
    let name = found.name.unwrap_or(Ok(String::new()))?;
    match found.tensors {
        Some(tensors) if tensors.name == name => {
            let signature = tensors.signature?;
            check_keys(&text, found.has_both)?;
            finish(signature, tensors.format, tensors.inputs)
        }
        Some(tensors) => {
            // The name stands behind the tensors and is not the one they were read by.
            let signature = resolve(&name)?;
            check_keys(&text, found.has_both)?;
            text.seek(tensors.at, 1);
            let inputs = read_tensors(&mut text, tensors.format, &signature);
            finish(signature, tensors.format, inputs)
        }
        None => {
            resolve(&name)?;
            Err(Error::invalid("Missing 'inputs' or 'instances' key"))
        }
    }
}

/// Checks what comes before the look-up of the model: the syntax, the outermost value and the signature's name. For
/// a request whose model was not found, because a malformed body is reported first.
///
/// # Errors
/// [`Code::InvalidArgument`].
pub fn check_request(body: &[u8], limits: Limits) -> Result<(), Error> {
    let mut found = Found::default();
    let mut no_signature = |_: &str| Err(Error::client(Code::NotFound, ""));
    found.read(&mut Text::new(body, limits), &mut no_signature)?;
    found.name.transpose().map(drop)
}

fn finish(
    signature: Arc<Signature>,
    format: Format,
    inputs: Result<Vec<Tensor>, Error>,
) -> Result<Decoded, Error> {
    let inputs = inputs?;
    check_inputs(&signature, &inputs)?;
    Ok(Decoded { signature, inputs, format })
}

fn check_keys(text: &Text<'_>, has_both: bool) -> Result<(), Error> {
    if !has_both {
        return Ok(());
    }
    Err(of_body(text, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"))
}

/// An error about the body as a whole, which its text shows.
pub(super) fn of_body(text: &Text<'_>, what: &str) -> Error {
    Error::invalid(format!("JSON Value: {} {what}", text.show_at(0)))
}

/// Checks that the body begins as an object.
pub(super) fn open_body(text: &mut Text<'_>) -> Result<(), Error> {
    let peek = match text.peek() {
        Ok(peek) => peek,
        Err(_) => return Err(Error::invalid("JSON Parse error: The document is empty")),
    };
    if peek != Peek::Object {
        let shown = text.show();
        text.skip(peek)?;
        return Err(Error::invalid(format!("JSON Value: {shown} Is not object")));
    }
    Ok(())
}

/// What the outermost object holds.
#[derive(Default)]
struct Found {
    /// The signature's name, or the error that it is no string.
    name: Option<Result<String, Error>>,
    tensors: Option<Tensors>,
    has_both: bool,
}

/// The value of `instances` or `inputs`.
struct Tensors {
    at: usize,
    format: Format,
    /// The name of the signature that the value was read by.
    name: String,
    signature: Result<Arc<Signature>, Error>,
    inputs: Result<Vec<Tensor>, Error>,
}

enum Key {
    SignatureName,
    Tensors(Format),
    Other,
}

impl Key {
    fn of(key: &str) -> Key {
        match key {
            "signature_name" => Key::SignatureName,
            "instances" => Key::Tensors(Format::Row),
            "inputs" => Key::Tensors(Format::Columnar),
            _ => Key::Other,
        }
    }
}

impl Found {
    /// Reads the outermost object to its end. Errors are of syntax alone; others are kept beside what was found.
    fn read(
        &mut self,
        text: &mut Text<'_>,
        resolve: &mut impl FnMut(&str) -> Result<Arc<Signature>, Error>,
    ) -> Result<(), Error> {
        open_body(text)?;
        let mut key = text.object_first(Key::of)?;
        while let Some(found) = key {
            let peek = text.peek()?;
            match found {
                Key::SignatureName if self.name.is_none() => self.read_name(text, peek)?,
                Key::Tensors(format) => self.read_value(text, peek, format, resolve)?,
                _ => text.skip(peek)?,
            }
            key = text.object_step(Key::of)?;
        }
        Ok(())
    }

    fn read_name(&mut self, text: &mut Text<'_>, peek: Peek) -> Result<(), Error> {
        self.name = Some(if peek == Peek::String {
            Ok(text.string()?.to_owned())
        } else {
            text.skip(peek)?;
            Err(of_body(text, "not formatted correctly. 'signature_name' key must be a string value."))
        });
        Ok(())
    }

    fn read_value(
        &mut self,
        text: &mut Text<'_>,
        peek: Peek,
        format: Format,
        resolve: &mut impl FnMut(&str) -> Result<Arc<Signature>, Error>,
    ) -> Result<(), Error> {
        if let Some(first) = &self.tensors {
            self.has_both |= first.format != format;
            return text.skip(peek);
        }
        let (at, depth) = (text.at(), text.depth());
        let name = self.name.as_ref().and_then(|name| name.as_ref().ok()).cloned().unwrap_or_default();
        let signature = resolve(&name);
        let inputs = match &signature {
            Ok(signature) => read_tensors(text, format, signature),
            Err(error) => Err(error.clone()),
        };
        if inputs.is_err() {
            text.seek(at, depth);
            text.skip(peek)?;
        }
        self.tensors = Some(Tensors { at, format, name, signature, inputs });
        Ok(())
    }
}

/// Reads the value that starts here. After an error the position is unspecified.
pub(crate) fn read_tensors(
    text: &mut Text<'_>,
    format: Format,
    signature: &Signature,
) -> Result<Vec<Tensor>, Error> {
    let peek = text.peek()?;
    match format {
        Format::Columnar => read_inputs(text, peek, signature),
        Format::Row => read_instances(text, peek, signature),
    }
}

fn read_inputs(text: &mut Text<'_>, peek: Peek, signature: &Signature) -> Result<Vec<Tensor>, Error> {
    if peek == Peek::Object && !text.is_b64() {
        return read_named_inputs(text, signature);
    }
    let [input] = signature.inputs() else {
        return Err(Error::invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per \
             tensorinfo_map",
        ));
    };
    let mut column = column(input.dtype, text.n_left());
    let dims = column.read(text, peek)?;
    Ok(vec![column.finish(&dims)?])
}

fn read_named_inputs(text: &mut Text<'_>, signature: &Signature) -> Result<Vec<Tensor>, Error> {
    let specs = signature.inputs();
    let mut inputs: Vec<Option<Tensor>> = vec![None; specs.len()];
    let mut key = text.object_first(|key| signature.input_index(key))?;
    while let Some(index) = key {
        let peek = text.peek()?;
        let spec = index.and_then(|index| specs.get(index).zip(inputs.get_mut(index)));
        match spec {
            Some((spec, slot @ None)) => {
                let mut column = column(spec.dtype, text.n_left());
                let dims = column.read(text, peek)?;
                *slot = Some(column.finish(&dims)?);
            }
            _ => text.skip(peek)?,
        }
        key = text.object_step(|key| signature.input_index(key))?;
    }
    let missing = |name: &str| Error::invalid(format!("Missing named input: {name} in 'inputs' object."));
    specs
        .iter()
        .zip(inputs)
        .map(|(spec, input)| input.or_else(|| spec.default.clone()).ok_or_else(|| missing(&spec.name)))
        .collect()
}

fn read_instances(text: &mut Text<'_>, peek: Peek, signature: &Signature) -> Result<Vec<Tensor>, Error> {
    if peek != Peek::Array {
        return Err(of_body(text, "Expecting 'instances' to be an list/array"));
    }
    let Some(first) = text.array_first()? else {
        return Err(of_body(text, "No values in 'instances' array"));
    };
    if is_named(text, first) {
        return read_named_rows(text, first, signature);
    }
    let [input] = signature.inputs() else {
        return Err(Error::invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per \
             tensorinfo_map",
        ));
    };
    let mut rows = Rows::new(column(input.dtype, text.n_left()));
    let mut next = Some(first);
    let mut n_rows = 0usize;
    while let Some(peek) = next {
        if is_named(text, peek) {
            return Err(Error::invalid(format!(
                "Expecting value/list but got object at item {n_rows} of input list"
            )));
        }
        rows.read(text, peek).map_err(|error| in_element(n_rows, "", error))?;
        n_rows = n_rows.saturating_add(1);
        next = text.array_step()?;
    }
    Ok(vec![rows.finish(n_rows)?])
}

/// Whether an instance is an object of named values: every object but one in base64 form.
fn is_named(text: &Text<'_>, peek: Peek) -> bool {
    peek == Peek::Object && !text.is_b64()
}

fn in_element(n: usize, key: &str, error: Error) -> Error {
    let code = match error.code() {
        Code::Unimplemented => "UNIMPLEMENTED",
        _ => "INVALID_ARGUMENT",
    };
    error.within(&format!("Failed to process element: {n}{key} of 'instances' list. Error: {code}: "))
}

fn read_named_rows(text: &mut Text<'_>, first: Peek, signature: &Signature) -> Result<Vec<Tensor>, Error> {
    let mut named = NamedRows::new(signature);
    let mut next = Some(first);
    while let Some(peek) = next {
        if !is_named(text, peek) {
            let n = named.n_rows;
            return Err(Error::invalid(format!("Expecting object but got list at item {n} of input list")));
        }
        named.read_row(text)?;
        next = text.array_step()?;
    }
    named.finish()
}

/// The inputs of a list of objects.
struct NamedRows<'a> {
    signature: &'a Signature,
    inputs: Vec<NamedRow>,
    n_rows: usize,
}

struct NamedRow {
    rows: Rows,
    /// In how many rows this input came.
    n_seen: usize,
}

impl NamedRows<'_> {
    fn new(signature: &Signature) -> NamedRows<'_> {
        let inputs = signature
            .inputs()
            .iter()
            .map(|spec| NamedRow { rows: Rows::new(column(spec.dtype, 0)), n_seen: 0 })
            .collect();
        NamedRows { signature, inputs, n_rows: 0 }
    }

    fn read_row(&mut self, text: &mut Text<'_>) -> Result<(), Error> {
        let at = text.at();
        let n = self.n_rows;
        let signature = self.signature;
        // An unknown name is kept for the message.
        let index_of = |key: &str| signature.input_index(key).ok_or_else(|| key.to_owned());
        let mut key = text.object_first(index_of)?;
        while let Some(index) = key {
            let index = index.map_err(|name| unknown_name(n, &name))?;
            self.read_value(text, index)?;
            key = text.object_step(index_of)?;
        }
        self.n_rows = self.n_rows.saturating_add(1);
        // All rows so far have an input, or it has a default and none has it.
        let is_complete = signature.inputs().iter().zip(&self.inputs).all(|(spec, input)| {
            input.n_seen == self.n_rows || (input.n_seen == 0 && spec.default.is_some())
        });
        if is_complete { Ok(()) } else { Err(self.wrong_keys(text, at)) }
    }

    fn read_value(&mut self, text: &mut Text<'_>, index: usize) -> Result<(), Error> {
        let peek = text.peek()?;
        let n = self.n_rows;
        match self.inputs.get_mut(index) {
            Some(input) if input.n_seen <= n => {
                let name = self.signature.inputs().get(index).map_or("", |spec| &*spec.name);
                let read = input.rows.read(text, peek);
                read.map_err(|error| in_element(n, &format!(" key: {name}"), error))?;
                input.n_seen = input.n_seen.saturating_add(1);
                Ok(())
            }
            _ => text.skip(peek),
        }
    }

    #[cold]
    fn wrong_keys(&self, text: &Text<'_>, at: usize) -> Error {
        let names: Vec<&str> = self.signature.inputs().iter().map(|spec| &*spec.name).collect();
        Error::invalid(format!(
            "Failed to process element: {} of 'instances' list. JSON object: {} keys must be equal to: {}",
            self.n_rows.saturating_sub(1),
            text.show_at(at),
            names.join(",")
        ))
    }

    fn finish(self) -> Result<Vec<Tensor>, Error> {
        let n_rows = self.n_rows;
        let specs = self.signature.inputs();
        let tensor = |(spec, input): (&salver_tensor::TensorSpec, NamedRow)| match &spec.default {
            Some(default) if input.n_seen == 0 => Ok(default.clone()),
            _ => input.rows.finish(n_rows),
        };
        specs.iter().zip(self.inputs).map(tensor).collect()
    }
}

#[cold]
fn unknown_name(n: usize, name: &str) -> Error {
    let error = Error::invalid(format!("JSON object: does not have named input: {name}"));
    in_element(n, &format!(" key: {name}"), error)
}

/// One input, row by row: every row must have the shape of the first.
struct Rows {
    column: Box<dyn Column>,
    dims: Option<ValueDims>,
}

impl Rows {
    fn new(column: Box<dyn Column>) -> Rows {
        Rows { column, dims: None }
    }

    fn read(&mut self, text: &mut Text<'_>, peek: Peek) -> Result<(), Error> {
        let before = self.column.len();
        let dims = self.column.read(text, peek)?;
        match &self.dims {
            None => self.dims = Some(dims),
            Some(first) if *first == dims => {}
            Some(first) => {
                let got = self.column.len().saturating_sub(before);
                return Err(wrong_row(first, &dims, got));
            }
        }
        Ok(())
    }

    fn finish(self, n_rows: usize) -> Result<Tensor, Error> {
        let mut dims = ValueDims::from_slice(&[n_rows]);
        dims.extend(self.dims.unwrap_or_default());
        self.column.finish(&dims)
    }
}

#[cold]
fn wrong_row(first: &[usize], got: &[usize], n_got: usize) -> Error {
    let n_first = first.iter().fold(1usize, |product, &dim| product.saturating_mul(dim));
    Error::invalid(if n_first == n_got {
        format!("Expecting shape {} but got: {}", list(first), list(got))
    } else {
        format!("Expecting tensor size: {n_first} but got: {n_got}")
    })
}

fn list(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    format!("[{}]", dims.join(","))
}

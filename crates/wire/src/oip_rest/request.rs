//! Inference requests.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use jiter::Peek;
use salver_predict::{Code, Error, bind_inputs, select_outputs};
use salver_tensor::{DType, MAX_RANK, Shape, Signature, Tensor};

use crate::json::{Limits, Scalar as _, Text, column};
use crate::oip;

/// An inference request.
#[derive(Debug, Clone, Default)]
pub struct Infer {
    /// The request's id, which the response repeats; empty when there is none.
    pub id: String,
    /// The inputs by name, in the order sent.
    pub inputs: Vec<(String, Tensor)>,
    /// The outputs asked for; empty for all.
    pub outputs: Vec<RequestedOutput>,
    /// Whether outputs that do not say otherwise are sent as binary data.
    pub binary_outputs: bool,
    /// How long the client waits for an answer, if it says so.
    pub timeout: Option<Duration>,
    /// How urgent it is, 1 first to 9 last, if the client says so.
    pub priority: Option<u8>,
}

/// One output that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// Whether it is sent as binary data; `None` when the request's own setting counts.
    pub binary: Option<bool>,
}

impl Infer {
    /// Reads a request. `header_len` is the value of [`super::HEADER_LEN`]; without it all of the body is JSON.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for what is no request, with the name of the input at fault;
    /// [`Code::Unimplemented`] for shared memory and classification.
    pub fn decode(body: &Bytes, header_len: Option<usize>, limits: Limits) -> Result<Infer, Error> {
        let header_len = header_len.unwrap_or(body.len());
        let Some(header) = body.get(..header_len) else {
            return Err(short(body.len(), header_len));
        };
        let mut read = Infer::default();
        let mut drafts = Vec::new();
        let mut text = Text::new(header, limits);
        members(&mut text, "the request", |text, key, peek| match key {
            "id" => string(text, peek, "id").map(|id| read.id = id),
            "inputs" => {
                items(text, peek, "inputs", |text| read_tensor(text, "input").map(|input| drafts.push(input)))
            }
            "outputs" => {
                items(text, peek, "outputs", |text| read_output(text).map(|output| read.outputs.push(output)))
            }
            "parameters" => read.read_parameters(text),
            _ => text.skip(peek),
        })?;
        read.inputs = finish_tensors("input", drafts, &mut text, body.slice(header_len..), limits)?;
        Ok(read)
    }

    fn read_parameters(&mut self, text: &mut Text<'_>) -> Result<(), Error> {
        members(text, "parameters", |text, key, peek| match key {
            "binary_data_output" => boolean(text, peek, key).map(|binary| self.binary_outputs = binary),
            // In microseconds; clients send 0 for none.
            "timeout" => number(text, peek, key).map(|micros| {
                self.timeout = (micros > 0).then(|| Duration::from_micros(micros));
            }),
            "priority" => number(text, peek, key).map(|number| self.priority = oip::priority(number)),
            _ => text.skip(peek),
        })
    }

    /// The inputs in the signature's order, checked against it; they are taken out of the request.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a name that is missing, unknown or given twice. Element types and shapes are the
    /// target's to check.
    pub fn bind(&mut self, signature: &Signature) -> Result<Vec<Tensor>, Error> {
        let mut seen = BTreeSet::new();
        if let Some((name, _)) = self.inputs.iter().find(|(name, _)| !seen.insert(name)) {
            return Err(Error::invalid(format!("input '{name}' is given twice")));
        }
        bind_inputs(signature, std::mem::take(&mut self.inputs))
    }

    /// The positions of the outputs asked for in the signature.
    ///
    /// # Errors
    /// As [`select_outputs`].
    pub fn select(&self, signature: &Signature) -> Result<Vec<usize>, Error> {
        let names: Vec<&str> = self.outputs.iter().map(|output| output.name.as_str()).collect();
        select_outputs(signature, &names)
    }
}

/// One tensor as far as it is read.
#[derive(Default)]
struct Draft {
    /// What it is: `input` or `output`.
    role: &'static str,
    name: String,
    dtype: Option<DType>,
    shape: Option<Shape>,
    data: Option<Data>,
    binary_size: Option<usize>,
}

enum Data {
    /// The elements, read, and the lengths of the lists that they came in.
    Read(Tensor),
    /// The value comes before the element type: where it starts, and how deep.
    At(usize, usize),
}

fn read_tensor(text: &mut Text<'_>, role: &'static str) -> Result<Draft, Error> {
    let mut draft = Draft { role, ..Draft::default() };
    let read = members(text, &format!("an {role}"), |text, key, peek| match key {
        "name" => string(text, peek, key).map(|name| draft.name = name),
        "datatype" => read_datatype(text, peek).map(|dtype| draft.dtype = Some(dtype)),
        "shape" => read_shape(text, peek).map(|shape| draft.shape = Some(shape)),
        "parameters" => draft.read_parameters(text),
        "data" => draft.read_data(text, peek),
        _ => text.skip(peek),
    });
    read.map_err(|error| draft.blame(error))?;
    Ok(draft)
}

impl Draft {
    fn blame(&self, error: Error) -> Error {
        if self.name.is_empty() { error } else { error.within(&format!("{} '{}': ", self.role, self.name)) }
    }

    fn read_parameters(&mut self, text: &mut Text<'_>) -> Result<(), Error> {
        members(text, "parameters", |text, key, peek| match key {
            "binary_data_size" => {
                let size = usize::try_from(number(text, peek, key)?);
                self.binary_size = Some(size.unwrap_or(usize::MAX));
                Ok(())
            }
            "shared_memory_region" => Err(unsupported(key)),
            _ => text.skip(peek),
        })
    }

    fn read_data(&mut self, text: &mut Text<'_>, peek: Peek) -> Result<(), Error> {
        self.data = Some(match self.dtype {
            Some(dtype) => Data::Read(read_elements(text, peek, dtype)?),
            None => {
                let at = Data::At(text.at(), text.depth());
                text.skip(peek)?;
                at
            }
        });
        Ok(())
    }

    /// The tensor; binary data is taken off the front of `binary`.
    fn finish(self, text: &mut Text<'_>, binary: &mut Bytes) -> Result<(String, Tensor), Error> {
        if self.name.is_empty() {
            return Err(Error::invalid(format!("an {} has no name", self.role)));
        }
        let dtype = self.dtype.ok_or_else(|| self.blame(Error::invalid("has no datatype")))?;
        let shape = self.shape.clone().ok_or_else(|| self.blame(Error::invalid("has no shape")))?;
        let tensor = match (&self.data, self.binary_size) {
            (Some(_), Some(_)) => Err(Error::invalid("has both data and binary_data_size")),
            (None, None) if shape.n_elements() > 0 => Err(Error::invalid("has no data")),
            (None, size) => take_binary(binary, size.unwrap_or(0), dtype, shape),
            (Some(Data::Read(elements)), None) => reshape(elements, shape),
            (Some(Data::At(at, depth)), None) => {
                text.seek(*at, *depth);
                text.peek()
                    .and_then(|peek| read_elements(text, peek, dtype))
                    .and_then(|read| reshape(&read, shape))
            }
        };
        let tensor = tensor.map_err(|error| self.blame(error))?;
        Ok((self.name, tensor))
    }
}

fn finish_tensors(
    role: &str,
    drafts: Vec<Draft>,
    text: &mut Text<'_>,
    mut binary: Bytes,
    limits: Limits,
) -> Result<Vec<(String, Tensor)>, Error> {
    let mut inputs = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let (name, tensor) = draft.finish(text, &mut binary)?;
        if tensor.shape().n_elements() > limits.max_elements {
            let max = limits.max_elements;
            return Err(Error::invalid(format!("{role} '{name}': tensor has more than {max} elements")));
        }
        inputs.push((name, tensor));
    }
    if !binary.is_empty() {
        return Err(Error::invalid(format!("{} bytes of binary data belong to no {role}", binary.len())));
    }
    Ok(inputs)
}

fn take_binary(binary: &mut Bytes, size: usize, dtype: DType, shape: Shape) -> Result<Tensor, Error> {
    if size > binary.len() {
        return Err(Error::invalid(format!(
            "binary_data_size is {size}, but only {} bytes of binary data are left",
            binary.len()
        )));
    }
    let raw = binary.split_to(size);
    let tensor = if dtype == DType::String {
        let strings = oip::split_bytes(shape.n_elements(), raw).map_err(Error::invalid)?;
        Tensor::from_strings(shape, strings)
    } else {
        Tensor::from_bytes(dtype, shape, raw)
    };
    tensor.map_err(|error| Error::invalid(error.to_string()))
}

/// The elements of a list, flat or nested.
fn read_elements(text: &mut Text<'_>, peek: Peek, dtype: DType) -> Result<Tensor, Error> {
    if peek != Peek::Array {
        return Err(Error::invalid(format!("data is {}, expected a list", text.show())));
    }
    let mut column = column(dtype, text.n_left());
    let dims = column.read(text, peek)?;
    column.finish(&dims)
}

/// Flat data takes any shape with that number of elements; nested data must be nested as the shape says.
fn reshape(elements: &Tensor, shape: Shape) -> Result<Tensor, Error> {
    let given = elements.shape();
    let fits = given.rank() == 1 || given == &shape || shape.n_elements() == 0;
    if !fits || given.n_elements() != shape.n_elements() {
        return Err(Error::invalid(format!("data has shape {given}, expected {shape}")));
    }
    elements.reshape(shape).map_err(|error| Error::invalid(error.to_string()))
}

/// The outputs of a response, for clients; `header_len` as in [`Infer::decode`].
///
/// # Errors
/// As [`Infer::decode`].
pub(crate) fn decode_outputs(
    body: &Bytes,
    header_len: Option<usize>,
    limits: Limits,
) -> Result<Vec<(String, Tensor)>, Error> {
    let header_len = header_len.unwrap_or(body.len());
    let Some(header) = body.get(..header_len) else {
        return Err(short(body.len(), header_len));
    };
    let mut drafts = Vec::new();
    let mut text = Text::new(header, limits);
    members(&mut text, "the response", |text, key, peek| match key {
        "outputs" => items(text, peek, key, |text| read_tensor(text, "output").map(|one| drafts.push(one))),
        _ => text.skip(peek),
    })?;
    finish_tensors("output", drafts, &mut text, body.slice(header_len..), limits)
}

fn short(n_bytes: usize, header_len: usize) -> Error {
    Error::invalid(format!("the body has {n_bytes} bytes, fewer than the {header_len} of its JSON part"))
}

fn read_output(text: &mut Text<'_>) -> Result<RequestedOutput, Error> {
    let mut output = RequestedOutput { name: String::new(), binary: None };
    members(text, "an output", |text, key, peek| match key {
        "name" => string(text, peek, key).map(|name| output.name = name),
        "parameters" => members(text, key, |text, key, peek| match key {
            "binary_data" => boolean(text, peek, key).map(|binary| output.binary = Some(binary)),
            "classification" | "shared_memory_region" => Err(unsupported(key)),
            _ => text.skip(peek),
        }),
        _ => text.skip(peek),
    })?;
    if output.name.is_empty() {
        return Err(Error::invalid("an output has no name"));
    }
    Ok(output)
}

fn read_datatype(text: &mut Text<'_>, peek: Peek) -> Result<DType, Error> {
    let name = string(text, peek, "datatype")?;
    oip::dtype(&name).ok_or_else(|| {
        let known: Vec<&str> = DType::ALL.iter().filter_map(|dtype| oip::datatype(*dtype)).collect();
        Error::invalid(format!("datatype is '{name}', expected one of {}", known.join(", ")))
    })
}

fn read_shape(text: &mut Text<'_>, peek: Peek) -> Result<Shape, Error> {
    let mut dims = Vec::new();
    items(text, peek, "shape", |text| {
        if dims.len() == MAX_RANK {
            return Err(Error::invalid(format!("shape has more than {MAX_RANK} dimensions")));
        }
        let peek = text.peek()?;
        let dim = number(text, peek, "shape")?;
        dims.push(usize::try_from(dim).unwrap_or(usize::MAX));
        Ok(())
    })?;
    Shape::new(&dims).map_err(|error| Error::invalid(error.to_string()))
}

fn unsupported(parameter: &str) -> Error {
    Error::client(Code::Unimplemented, format!("parameter '{parameter}' is not supported"))
}

/// Reads the object that starts here, member by member.
fn members(
    text: &mut Text<'_>,
    what: &str,
    mut f: impl FnMut(&mut Text<'_>, &str, Peek) -> Result<(), Error>,
) -> Result<(), Error> {
    if text.peek()? != Peek::Object {
        return Err(Error::invalid(format!("{what} is {}, expected an object", text.show())));
    }
    let mut key = text.object_first(str::to_owned)?;
    while let Some(name) = key {
        let peek = text.peek()?;
        f(text, &name, peek)?;
        key = text.object_step(str::to_owned)?;
    }
    Ok(())
}

/// Reads the list that starts here, item by item.
fn items(
    text: &mut Text<'_>,
    peek: Peek,
    what: &str,
    mut f: impl FnMut(&mut Text<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if peek != Peek::Array {
        return Err(Error::invalid(format!("{what} is {}, expected a list", text.show())));
    }
    let mut next = text.array_first()?;
    while next.is_some() {
        f(text)?;
        next = text.array_step()?;
    }
    Ok(())
}

fn string(text: &mut Text<'_>, peek: Peek, what: &str) -> Result<String, Error> {
    if peek != Peek::String {
        return Err(Error::invalid(format!("{what} is {}, expected a string", text.show())));
    }
    text.string().map(str::to_owned)
}

fn boolean(text: &mut Text<'_>, peek: Peek, what: &str) -> Result<bool, Error> {
    bool::read(text, peek).map_err(|fault| Error::from(fault).within(&format!("{what}: ")))
}

fn number(text: &mut Text<'_>, peek: Peek, what: &str) -> Result<u64, Error> {
    u64::read(text, peek).map_err(|fault| Error::from(fault).within(&format!("{what}: ")))
}

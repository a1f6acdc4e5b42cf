//! The examples of a request as one tensor.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

use bytes::{BufMut, Bytes};
use prost::DecodeError;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, skip_field};
use salver_predict::Error;
use salver_tensor::{Shape, Tensor};

use crate::proto::tensorflow::Features;
use crate::proto::tensorflow::serving::{Input, input};

/// A `tensorflow.Example` as its bytes. The model parses it; here it is only passed on, so it is never taken apart.
///
/// Two of them joined mean what protobuf's merging means: of features of one name the last counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SerializedExample(Vec<u8>);

/// The field `features`, the only one.
const FEATURES: u32 = 1;

impl SerializedExample {
    /// The example's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn push(&mut self, features: &[u8]) {
        encode_key(FEATURES, WireType::LengthDelimited, &mut self.0);
        encode_varint(features.len() as u64, &mut self.0);
        self.0.extend_from_slice(features);
    }
}

impl From<&Features> for SerializedExample {
    fn from(features: &Features) -> SerializedExample {
        let mut example = SerializedExample::default();
        example.push(&features.encode_to_vec());
        example
    }
}

impl Message for SerializedExample {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl bytes::Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != FEATURES {
            return skip_field(wire_type, tag, buf, ctx);
        }
        let mut features = Bytes::new();
        prost::encoding::bytes::merge(wire_type, &mut features, buf, ctx)?;
        self.push(&features);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// The examples of a request, one serialised example per element: what a model that takes examples is fed. A context is
/// put in front of each example, so that an example's own features count. All of them together may take `max_bytes`.
///
/// # Errors
/// [`salver_predict::Code::InvalidArgument`] when there are no examples or they take more.
pub fn example_tensor(input: Option<Input>, max_bytes: usize) -> Result<Tensor, Error> {
    let (examples, context) = match input.and_then(|input| input.kind) {
        Some(input::Kind::ExampleList(list)) => (list.examples, Vec::new()),
        Some(input::Kind::ExampleListWithContext(list)) => {
            (list.examples, list.context.unwrap_or_default().0)
        }
        None => (Vec::new(), Vec::new()),
    };
    if examples.is_empty() {
        return Err(Error::invalid("Input is empty."));
    }
    let of_examples = examples.iter().map(|example| example.0.len()).fold(0, usize::saturating_add);
    let n_bytes = context.len().saturating_mul(examples.len()).saturating_add(of_examples);
    if n_bytes > max_bytes {
        return Err(Error::invalid(format!(
            "the examples and their context take {n_bytes} bytes, at most {max_bytes} are allowed"
        )));
    }
    let joined = |SerializedExample(example): SerializedExample| match context.as_slice() {
        [] => Bytes::from(example),
        context => Bytes::from([context, &example].concat()),
    };
    let shape = Shape::vector(examples.len()).map_err(|error| Error::invalid(error.to_string()))?;
    Tensor::from_strings(shape, examples.into_iter().map(joined).collect())
        .map_err(|error| Error::invalid(error.to_string()))
}

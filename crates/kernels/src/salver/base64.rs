//! Base64 in the alphabet for addresses (`-` and `_`).

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use salver_tensor::Tensor;

use super::text::each;
use crate::Error;
use crate::call::Call;

/// Bits left over in the last character are ignored, as TensorFlow does.
const PLAIN: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);
const PADDED: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, GeneralPurposeConfig::new());

pub(super) fn encode(call: &Call<'_>) -> Result<Tensor, Error> {
    let engine = if call.attributes.flag("pad", false)? { PADDED } else { PLAIN };
    each(call, |text| Bytes::from(engine.encode(text)))
}

/// Padding may be there or not.
pub(super) fn decode(call: &Call<'_>) -> Result<Tensor, Error> {
    let decoded = call.strings(0)?.iter().map(decoded).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::from_strings(call.input(0)?.shape().clone(), decoded)?)
}

fn decoded(text: &Bytes) -> Result<Bytes, Error> {
    let bare = match &text[..] {
        [bare @ .., b'=', b'='] if text.len().is_multiple_of(4) => bare,
        [bare @ .., b'='] if text.len().is_multiple_of(4) => bare,
        all => all,
    };
    if bare.len() % 4 == 1 {
        return Err(Error::invalid("Base64 string length cannot be 1 modulo 4."));
    }
    let decoded = PLAIN.decode(bare).map_err(|_| Error::invalid("Invalid character found in base64."))?;
    Ok(Bytes::from(decoded))
}

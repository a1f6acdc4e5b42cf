//! Elements that are moved, not computed with.
//!
//! Moving needs the width of an element only, so that each mover exists once per width and once for strings.

use std::borrow::Cow;

use bytemuck::Pod;
use bytes::Bytes;
use salver_tensor::{DType, Shape, Tensor};

use crate::Error;

/// An element of some width, or a string. The default is what zero bits or an empty text mean.
pub(crate) trait Datum: Clone + Default + 'static {
    /// The elements of a tensor of this width.
    fn read(tensor: &Tensor) -> Cow<'_, [Self]>;
    /// A tensor of an element type of this width.
    fn tensor(dtype: DType, shape: Shape, elements: Vec<Self>) -> Result<Tensor, Error>;
}

struct Owned<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

macro_rules! widths {
    ($($width:ty),*) => {
        $(impl Datum for $width {
            fn read(tensor: &Tensor) -> Cow<'_, [$width]> {
                let bytes = tensor.bytes().expect("by_width chose this type for a fixed size");
                match bytemuck::try_cast_slice(bytes) {
                    Ok(elements) => Cow::Borrowed(elements),
                    Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
                }
            }

            fn tensor(dtype: DType, shape: Shape, elements: Vec<$width>) -> Result<Tensor, Error> {
                Ok(Tensor::from_bytes(dtype, shape, Bytes::from_owner(Owned(elements)))?)
            }
        })*
    };
}

widths!(u8, u16, u32, u64, [u64; 2]);

impl Datum for Bytes {
    fn read(tensor: &Tensor) -> Cow<'_, [Bytes]> {
        Cow::Borrowed(tensor.strings().expect("by_width chose this type for strings"))
    }

    fn tensor(_: DType, shape: Shape, elements: Vec<Bytes>) -> Result<Tensor, Error> {
        Ok(Tensor::from_strings(shape, elements)?)
    }
}

/// Evaluates an expression in which `$T` is the [`Datum`] that stands for an element type.
macro_rules! by_width {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype.size() {
            #[allow(clippy::clone_on_copy)] // not every width is a copy
            Some(1) => {
                type $T = u8;
                $body
            }
            #[allow(clippy::clone_on_copy)] // not every width is a copy
            Some(2) => {
                type $T = u16;
                $body
            }
            #[allow(clippy::clone_on_copy)] // not every width is a copy
            Some(4) => {
                type $T = u32;
                $body
            }
            #[allow(clippy::clone_on_copy)] // not every width is a copy
            Some(8) => {
                type $T = u64;
                $body
            }
            #[allow(clippy::clone_on_copy)] // not every width is a copy
            Some(_) => {
                type $T = [u64; 2];
                $body
            }
            #[allow(clippy::clone_on_copy)] // not every width is a copy
            None => {
                type $T = bytes::Bytes;
                $body
            }
        }
    };
}
pub(crate) use by_width;

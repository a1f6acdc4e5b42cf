//! Nested lists as the elements of one tensor.

use bytes::Bytes;
use half::{bf16, f16};
use jiter::Peek;
use salver_predict::{Code, Error, dtype_name};
use salver_tensor::{DType, MAX_RANK, Shape, Tensor};
use smallvec::SmallVec;

use super::scalar::Scalar;
use super::text::{Fault, Text};

/// The dimensions of one value: the lengths of its nested lists.
pub(crate) type ValueDims = SmallVec<[usize; 6]>;

/// Collects the elements of one tensor from one value or several.
pub(crate) trait Column {
    /// Reads the value that starts here (a scalar, or lists nested evenly) and appends its elements. After an error
    /// the position is unspecified.
    fn read(&mut self, text: &mut Text<'_>, peek: Peek) -> Result<ValueDims, Error>;

    /// The number of elements so far.
    fn len(&self) -> usize;

    /// The tensor of all elements.
    fn finish(self: Box<Self>, dims: &[usize]) -> Result<Tensor, Error>;
}

/// An empty column for elements of a type. `n_bytes` is the text that there is at most for it, from which memory is
/// reserved; a wrong guess costs time only.
pub(crate) fn column(dtype: DType, n_bytes: usize) -> Box<dyn Column> {
    match dtype {
        DType::Bool => Elements::<bool>::boxed(n_bytes),
        DType::I8 => Elements::<i8>::boxed(n_bytes),
        DType::I16 => Elements::<i16>::boxed(n_bytes),
        DType::I32 => Elements::<i32>::boxed(n_bytes),
        DType::I64 => Elements::<i64>::boxed(n_bytes),
        DType::U8 => Elements::<u8>::boxed(n_bytes),
        DType::U16 => Elements::<u16>::boxed(n_bytes),
        DType::U32 => Elements::<u32>::boxed(n_bytes),
        DType::U64 => Elements::<u64>::boxed(n_bytes),
        DType::F16 => Elements::<f16>::boxed(n_bytes),
        DType::BF16 => Elements::<bf16>::boxed(n_bytes),
        DType::F32 => Elements::<f32>::boxed(n_bytes),
        DType::F64 => Elements::<f64>::boxed(n_bytes),
        // Strings may be long: no guess.
        DType::String => Elements::<Bytes>::boxed(0),
        DType::C64 | DType::C128 => Box::new(Unsupported(dtype)),
    }
}

/// The columns of types that JSON has no form for.
struct Unsupported(DType);

impl Column for Unsupported {
    fn read(&mut self, text: &mut Text<'_>, _: Peek) -> Result<ValueDims, Error> {
        let message = format!("Conversion of JSON Value: {} to type: {}", text.show(), dtype_name(self.0));
        Err(Error::client(Code::Unimplemented, message))
    }

    fn len(&self) -> usize {
        0
    }

    fn finish(self: Box<Self>, _: &[usize]) -> Result<Tensor, Error> {
        let message = format!("Conversion of JSON Value to type: {}", dtype_name(self.0));
        Err(Error::client(Code::Unimplemented, message))
    }
}

struct Elements<E>(Vec<E>);

impl<E: Scalar + 'static> Elements<E> {
    /// Numbers with their comma rarely take fewer bytes of text than this; a vector that is too small grows.
    const TEXT_PER_ELEMENT: usize = 8;

    fn boxed(n_bytes: usize) -> Box<dyn Column> {
        Box::new(Elements::<E>(Vec::with_capacity(n_bytes / Self::TEXT_PER_ELEMENT)))
    }
}

impl<E: Scalar> Column for Elements<E> {
    fn read(&mut self, text: &mut Text<'_>, peek: Peek) -> Result<ValueDims, Error> {
        let max_elements = text.limits().max_elements;
        if peek != Peek::Array {
            if self.0.len() >= max_elements {
                return Err(too_many(max_elements));
            }
            self.0.push(E::read(text, peek)?);
            return Ok(ValueDims::new());
        }
        let mut nest = Nest { elements: &mut self.0, lens: SmallVec::new(), rank: None, max_elements };
        nest.list(text, 0)?;
        Ok(nest.lens.into_iter().map(|len| len.unwrap_or(0)).collect())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn finish(mut self: Box<Self>, dims: &[usize]) -> Result<Tensor, Error> {
        let shape = Shape::new(dims).map_err(|error| Error::invalid(error.to_string()))?;
        if self.0.len() < self.0.capacity() / 2 {
            self.0.shrink_to_fit();
        }
        E::tensor(shape, self.0).map_err(|error| Error::invalid(error.to_string()))
    }
}

#[cold]
fn too_many(max_elements: usize) -> Error {
    Error::invalid(format!("tensor has more than {max_elements} elements"))
}

/// One value made of lists.
struct Nest<'a, E> {
    elements: &'a mut Vec<E>,
    /// By level, the length of its first list, once that is closed.
    lens: SmallVec<[Option<usize>; 6]>,
    /// How many lists each element lies in, once an element or an empty list has shown it.
    rank: Option<usize>,
    max_elements: usize,
}

impl<E: Scalar> Nest<'_, E> {
    /// Reads the list that starts here and lies inside `level` others. Recursion ends at [`MAX_RANK`].
    fn list(&mut self, text: &mut Text<'_>, level: usize) -> Result<(), Fault> {
        let start = (text.at(), text.depth());
        let expected = self.enter(level)?;
        let inner = level.saturating_add(1);
        let mut n_read = 0usize;
        let mut next = text.array_first()?;
        while let Some(peek) = next {
            if expected.is_some_and(|expected| n_read >= expected) {
                return Err(uneven(text, start, level, expected).into());
            }
            let room = expected.map_or(usize::MAX, |expected| expected.saturating_sub(n_read));
            if peek == Peek::Array {
                let (n_lists, after) = self.lists(text, inner, room)?;
                n_read = n_read.saturating_add(n_lists);
                next = after;
            } else {
                self.leaf(text, inner)?;
                let before = self.elements.len();
                next = self.leaves(text, peek, room)?;
                n_read = n_read.saturating_add(self.elements.len().saturating_sub(before));
            }
        }
        if n_read == 0 {
            self.rank.get_or_insert(inner);
        }
        match expected {
            Some(expected) if expected != n_read => Err(uneven(text, start, level, Some(expected)).into()),
            _ => {
                if let Some(len) = self.lens.get_mut(level) {
                    *len = Some(n_read);
                }
                Ok(())
            }
        }
    }

    /// Reads lists until the list around them ends, something else comes or `room` of them are read. Innermost lists,
    /// of which there may be one for every few elements, take a short way once their length is known.
    fn lists(
        &mut self,
        text: &mut Text<'_>,
        level: usize,
        room: usize,
    ) -> Result<(usize, Option<Peek>), Fault> {
        let mut n_read = 0usize;
        loop {
            match self.lens.get(level).copied().flatten() {
                Some(len) if self.rank == Some(level.saturating_add(1)) => self.row(text, level, len)?,
                _ => self.list(text, level)?,
            }
            n_read = n_read.saturating_add(1);
            match text.array_step()? {
                Some(Peek::Array) if n_read < room => {}
                next => return Ok((n_read, next)),
            }
        }
    }

    /// Reads the innermost list that starts here and should have `len` elements.
    #[inline]
    fn row(&mut self, text: &mut Text<'_>, level: usize, len: usize) -> Result<(), Fault> {
        let start = (text.at(), text.depth());
        let before = self.elements.len();
        let first = text.array_first()?.filter(|&peek| peek != Peek::Array);
        if let Some(peek) = first {
            let next = self.leaves(text, peek, len)?;
            if next.is_none() && self.elements.len() == before.saturating_add(len) {
                return Ok(());
            }
        }
        // An empty list, or one that is wrong in some way, takes the long way.
        self.elements.truncate(before);
        text.seek(start.0, start.1);
        self.list(text, level)
    }

    /// Reads elements until the list ends, a list comes, or `room` elements or as many as the bound allows are read.
    #[inline(always)]
    fn leaves(&mut self, text: &mut Text<'_>, mut peek: Peek, room: usize) -> Result<Option<Peek>, Fault> {
        if self.elements.len() >= self.max_elements {
            return Err(too_many(self.max_elements).into());
        }
        let stop = self.elements.len().saturating_add(room).min(self.max_elements);
        loop {
            self.elements.push(E::read(text, peek)?);
            match text.array_step()? {
                Some(next) if next != Peek::Array && self.elements.len() < stop => peek = next,
                next => return Ok(next),
            }
        }
    }

    /// The length that a list on this level must have, if it is known already.
    fn enter(&mut self, level: usize) -> Result<Option<usize>, Fault> {
        if let Some(rank) = self.rank.filter(|&rank| level >= rank) {
            return Err(Error::invalid(format!(
                "Encountered list at unexpected level: {level} expected < {rank}"
            ))
            .into());
        }
        if level >= MAX_RANK {
            return Err(Error::invalid(format!("lists are nested deeper than {MAX_RANK} levels")).into());
        }
        if self.lens.len() == level {
            self.lens.push(None);
        }
        Ok(self.lens.get(level).copied().flatten())
    }

    /// Checks that elements may stand on this level.
    fn leaf(&mut self, text: &Text<'_>, level: usize) -> Result<(), Fault> {
        match self.rank {
            Some(rank) if rank != level => Err(Error::invalid(format!(
                "JSON Value: {} found at incorrect level: {} in the JSON DOM. Expected at level: {rank}",
                text.show(),
                level.saturating_add(1)
            ))
            .into()),
            _ => {
                self.rank = Some(level);
                Ok(())
            }
        }
    }
}

/// Counts the values of the list that starts at `start`, whose length is wrong.
#[cold]
fn uneven(text: &mut Text<'_>, start: (usize, usize), level: usize, expected: Option<usize>) -> Error {
    text.seek(start.0, start.1);
    match count(text) {
        Err(error) => error,
        Ok(n) => Error::invalid(format!(
            "Encountered list at unexpected size: {n} at level: {level} expected size: {}",
            expected.unwrap_or(0)
        )),
    }
}

fn count(text: &mut Text<'_>) -> Result<usize, Error> {
    let mut n = 0usize;
    let mut next = text.array_first()?;
    while let Some(peek) = next {
        n = n.saturating_add(1);
        text.skip(peek)?;
        next = text.array_step()?;
    }
    Ok(n)
}

//! Lists of numbers, nested evenly: what most of a large record is.

use jiter::{NumberAny, NumberInt, Peek};
use smallvec::SmallVec;

use super::read::Pass;
use super::text::Text;
use crate::Refused;
use crate::value::Numbers;

/// What an even list collects.
pub(super) trait Leaves {
    /// Reads numbers until the list ends or something else comes; `None` where a number is not what is collected.
    fn read(&mut self, text: &mut Text<'_>, peek: Peek) -> Result<Option<Option<Peek>>, Refused>;
    fn len(&self) -> usize;
    fn reserve(&mut self, n: usize);
}

/// Doubles, whatever was written.
pub(super) struct Floats(pub(super) Vec<f64>);

impl Leaves for Floats {
    #[inline]
    fn read(&mut self, text: &mut Text<'_>, mut peek: Peek) -> Result<Option<Option<Peek>>, Refused> {
        loop {
            match text.jiter.known_float(peek) {
                Ok(number) if number.is_finite() => self.0.push(number),
                _ => return Ok(None),
            }
            match text.jiter.array_step() {
                Ok(Some(next)) if next.is_num() => peek = next,
                Ok(next) => return Ok(Some(next)),
                Err(error) => return Err(text.wrong(&error)),
            }
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn reserve(&mut self, n: usize) {
        self.0.reserve(n);
    }
}

/// Numbers that stay what they are: integers while all are, and no integer beside floats that a double does not hold.
#[derive(Default)]
pub(super) struct Exact {
    numbers: Vec<Number>,
    has_float: bool,
    has_large: bool,
}

#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

/// Beyond this a double does not hold every integer.
const EXACT: u64 = 1 << 53;

impl Leaves for Exact {
    fn read(&mut self, text: &mut Text<'_>, mut peek: Peek) -> Result<Option<Option<Peek>>, Refused> {
        loop {
            match text.jiter.known_number(peek) {
                Ok(NumberAny::Int(NumberInt::Int(number))) => {
                    self.has_large |= number.unsigned_abs() > EXACT;
                    self.numbers.push(Number::Int(number));
                }
                Ok(NumberAny::Float(number)) if number.is_finite() => {
                    self.has_float = true;
                    self.numbers.push(Number::Float(number));
                }
                _ => return Ok(None),
            }
            if self.has_float && self.has_large {
                return Ok(None);
            }
            match text.jiter.array_step() {
                Ok(Some(next)) if next.is_num() => peek = next,
                Ok(next) => return Ok(Some(next)),
                Err(error) => return Err(text.wrong(&error)),
            }
        }
    }

    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn reserve(&mut self, n: usize) {
        self.numbers.reserve(n);
    }
}

impl Exact {
    #[expect(
        clippy::cast_precision_loss,
        reason = "among floats there are only integers that a double holds"
    )]
    pub(super) fn finish(self) -> Numbers {
        let numbers = self.numbers.into_iter();
        if self.has_float {
            let float = |number| match number {
                Number::Int(number) => number as f64,
                Number::Float(number) => number,
            };
            return Numbers::Floats(numbers.map(float).collect());
        }
        let int = |number| match number {
            Number::Int(number) => Some(number),
            Number::Float(_) => None,
        };
        Numbers::Ints(numbers.filter_map(int).collect())
    }
}

/// The lengths of lists, by level, once the first list of the level is closed.
#[derive(Default)]
pub(super) struct Even {
    pub(super) lens: SmallVec<[Option<usize>; 4]>,
    /// How many lists each number lies in, once one has shown it.
    rank: Option<usize>,
}

/// How deep lists of numbers are followed here; no tensor has more dimensions.
const MAX_RANK: usize = salver_tensor::MAX_RANK;

impl Even {
    /// Reads the list that starts here; `false` if it is not even. Recursion ends at [`MAX_RANK`].
    pub(super) fn list<L: Leaves>(
        &mut self,
        pass: &mut Pass<'_, '_>,
        level: usize,
        into: &mut L,
    ) -> Result<bool, Refused> {
        if level >= MAX_RANK || self.rank.is_some_and(|rank| level >= rank) {
            return Ok(false);
        }
        pass.open()?;
        if self.lens.len() == level {
            self.lens.push(None);
        }
        let inner = level + 1;
        let mut n_read = 0;
        let mut next = pass.text.array_first()?;
        while let Some(peek) = next {
            if peek == Peek::Array {
                if !self.list(pass, inner, into)? {
                    return Ok(false);
                }
                n_read += 1;
                next = pass.text.array_step()?;
            } else if peek.is_num() && self.rank.is_none_or(|rank| rank == inner) && self.lens.len() == inner
            {
                self.rank = Some(inner);
                let before = into.len();
                if before == 0 {
                    // A number with its comma takes two bytes at least, and mostly about eight.
                    into.reserve(((pass.text.body.len() - pass.text.at()) / 8).min(FIRST));
                }
                match into.read(&mut pass.text, peek)? {
                    Some(after) => next = after,
                    None => return Ok(false),
                }
                let n = into.len() - before;
                pass.take(n)?;
                n_read += n;
            } else {
                return Ok(false);
            }
        }
        pass.depth -= 1;
        let known = self.lens.get_mut(level);
        Ok(known.is_some_and(|known| *known.get_or_insert(n_read) == n_read))
    }
}

/// Room for so many numbers is reserved at once at most.
const FIRST: usize = 4096;

//! Avro's binary encoding to values.
//! Source: the Avro specification 1.12, "Binary Encoding".
//!
//! Lengths and counts in the bytes are claims: memory is taken for what is there. Depth and the number of values are bounded, as
//! a schema may hold itself and a value may take no byte at all.

use std::sync::Arc;

use bytes::Bytes;

use super::At;
use super::resolve::{Fields, Op, Program};
use crate::error::show;
use crate::value::{Array, Lens, Numbers, Value};

/// How deep values may lie in each other.
const MAX_DEPTH: usize = 96;
/// How many values a record may hold beyond those that its bytes speak for.
const FREE_VALUES: usize = 65_536;
/// For how many items of a list room is made at once.
const AT_ONCE: usize = 1024;

/// Why a record cannot be read: the field, and what was wrong.
#[derive(Debug)]
struct Trouble {
    /// The names on the way, innermost first.
    path: Vec<Arc<str>>,
    what: String,
}

impl Trouble {
    #[cold]
    fn new(what: impl Into<String>) -> Trouble {
        Trouble { path: Vec::new(), what: what.into() }
    }

    #[cold]
    fn within(mut self, name: &Arc<str>) -> Trouble {
        self.path.push(Arc::clone(name));
        self
    }
}

impl Program {
    /// Reads one record, which takes all the bytes from `start` on. `Err` with the field and what was wrong with it.
    pub(in crate::schema) fn read(&self, record: &Bytes, start: usize) -> Result<Value, String> {
        let n_bytes = record.len().saturating_sub(start);
        let budget = n_bytes.saturating_mul(4).saturating_add(FREE_VALUES);
        let mut reader = Reader { program: self, record, at: start, budget };
        let explain = |trouble: Trouble| {
            let path: Vec<&str> = trouble.path.iter().rev().map(|name| &**name).collect();
            if path.is_empty() {
                trouble.what
            } else {
                // The keys of maps are the record's own.
                format!("field `{}`: {}", show(path.join(".").as_bytes()), trouble.what)
            }
        };
        let value = reader.value(self.root(), 0).map_err(explain)?;
        match record.len() - reader.at {
            0 => Ok(value),
            left => Err(format!("{left} bytes are left over after the record")),
        }
    }
}

struct Reader<'a> {
    program: &'a Program,
    record: &'a Bytes,
    at: usize,
    /// How many more values may come.
    budget: usize,
}

impl Reader<'_> {
    fn value(&mut self, op: At, depth: usize) -> Result<Value, Trouble> {
        if depth > MAX_DEPTH {
            return Err(Trouble::new(format!("values lie more than {MAX_DEPTH} deep")));
        }
        self.budget =
            self.budget.checked_sub(1).ok_or_else(|| Trouble::new("more values than its bytes speak for"))?;
        let program = self.program;
        Ok(match program.op(op) {
            Op::Null => Value::Null,
            Op::Boolean => Value::Bool(self.boolean()?),
            Op::Int => Value::Int(
                i32::try_from(self.long()?).map_err(|_| Trouble::new("an int has more than 32 bits"))?.into(),
            ),
            Op::Long => Value::Int(self.long()?.into()),
            #[allow(
                clippy::cast_precision_loss,
                reason = "Avro lets a reader take a long for a float, at its precision"
            )]
            Op::LongAsFloat => Value::Float(self.long()? as f64),
            Op::Float => Value::Float(f32::from_le_bytes(self.chunk()?).into()),
            Op::Double => Value::Float(f64::from_le_bytes(self.chunk()?)),
            Op::Bytes => Value::Bytes(self.bytes()?),
            Op::Text => Value::Text(self.text()?),
            Op::Fixed(size) => Value::Bytes(self.take(*size)?),
            Op::Decimal { size, scale } => {
                let bytes = match size {
                    Some(size) => self.take(*size)?,
                    None => self.bytes()?,
                };
                decimal(&bytes, *scale).map_err(Trouble::new)?
            }
            Op::Uuid => Value::text(&crate::schema::framing::guid_text(&self.chunk()?)),
            Op::Duration => self.duration()?,
            Op::Enum(symbols) => Value::Text(self.symbol(symbols)?),
            Op::Array(items) => self.array(*items, depth)?,
            Op::Map(values) => self.map(*values, depth)?,
            Op::Union(branches) => {
                let branch = self.long()?;
                let at = usize::try_from(branch).ok().and_then(|branch| branches.get(branch)).copied();
                let at = at.ok_or_else(|| {
                    Trouble::new(format!("branch {branch} of a union of {}", branches.len()))
                })?;
                self.value(at, depth + 1)?
            }
            Op::Same(op) => self.value(*op, depth + 1)?,
            Op::Record(fields) => self.record(fields, depth)?,
            Op::Never(why) => return Err(Trouble::new(why.clone())),
        })
    }

    fn record(&mut self, fields: &Fields, depth: usize) -> Result<Value, Trouble> {
        let mut values = Vec::with_capacity(fields.steps.len() + fields.defaults.len());
        for (name, op) in &fields.steps {
            match name {
                Some(name) => {
                    let value = self.value(*op, depth + 1).map_err(|trouble| trouble.within(name))?;
                    values.push((Arc::clone(name), value));
                }
                None => drop(self.value(*op, depth + 1)?),
            }
        }
        values.extend(fields.defaults.iter().cloned());
        Ok(Value::Map(values))
    }

    /// The number of items in the next block of an array or a map; 0 at the end.
    fn block(&mut self) -> Result<usize, Trouble> {
        let mut n = self.long()?;
        if n < 0 {
            // Its size in bytes follows, for those who skip it.
            self.long()?;
            n = n
                .checked_neg()
                .ok_or_else(|| Trouble::new("a block has a number of items that cannot be"))?;
        }
        let n = usize::try_from(n).ok().filter(|n| *n <= self.budget);
        n.ok_or_else(|| Trouble::new("a block has more items than its bytes speak for"))
    }

    fn array(&mut self, items: At, depth: usize) -> Result<Value, Trouble> {
        match self.program.op(items) {
            Op::Float => self.floats(|chunk: [u8; 4]| f32::from_le_bytes(chunk).into()),
            Op::Double => self.floats(f64::from_le_bytes),
            Op::Int | Op::Long => self.longs(matches!(self.program.op(items), Op::Int)),
            _ => {
                let mut values = Vec::new();
                loop {
                    let n = self.block()?;
                    if n == 0 {
                        return Ok(pack(values));
                    }
                    // Lists lie in lists, and each may claim what is left of the record.
                    values.reserve(n.min(self.left()).min(AT_ONCE));
                    for _ in 0..n {
                        values.push(self.value(items, depth + 1)?);
                    }
                }
            }
        }
    }

    fn floats<const N: usize>(&mut self, number: impl Fn([u8; N]) -> f64) -> Result<Value, Trouble> {
        let mut numbers = Vec::new();
        loop {
            let n = self.block()?;
            if n == 0 {
                return Ok(Value::floats(numbers));
            }
            let size = n.checked_mul(N).ok_or_else(|| Trouble::new("a block is too long"))?;
            let start = self.skip(size)?;
            let bytes = self.record.get(start..self.at).unwrap_or_default();
            numbers.extend(bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)));
        }
    }

    fn longs(&mut self, is_int: bool) -> Result<Value, Trouble> {
        let mut numbers = Vec::new();
        loop {
            let n = self.block()?;
            if n == 0 {
                return Ok(Value::ints(numbers));
            }
            numbers.reserve(n.min(self.left()));
            for _ in 0..n {
                let number = self.long()?;
                if is_int && i32::try_from(number).is_err() {
                    return Err(Trouble::new("an int has more than 32 bits"));
                }
                numbers.push(number);
            }
        }
    }

    fn map(&mut self, values: At, depth: usize) -> Result<Value, Trouble> {
        let mut entries = Vec::new();
        loop {
            let n = self.block()?;
            if n == 0 {
                return Ok(Value::Map(entries));
            }
            for _ in 0..n {
                let key = self.text()?;
                let value = self.value(values, depth + 1).map_err(|trouble| trouble.within(&key))?;
                entries.push((key, value));
            }
        }
    }

    fn symbol(&mut self, symbols: &[Option<Arc<str>>]) -> Result<Arc<str>, Trouble> {
        let number = self.long()?;
        let symbol = usize::try_from(number).ok().and_then(|number| symbols.get(number));
        let symbol =
            symbol.ok_or_else(|| Trouble::new(format!("symbol {number} of an enum of {}", symbols.len())))?;
        symbol
            .clone()
            .ok_or_else(|| Trouble::new(format!("the reader's enum has no symbol for number {number}")))
    }

    fn duration(&mut self) -> Result<Value, Trouble> {
        let mut part =
            || -> Result<Value, Trouble> { Ok(Value::Int(u32::from_le_bytes(self.chunk()?).into())) };
        Ok(Value::Map(vec![
            ("months".into(), part()?),
            ("days".into(), part()?),
            ("milliseconds".into(), part()?),
        ]))
    }

    fn boolean(&mut self) -> Result<bool, Trouble> {
        match self.chunk()? {
            [0u8] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Trouble::new(format!("a boolean is {other}, expected 0 or 1"))),
        }
    }

    fn text(&mut self) -> Result<Arc<str>, Trouble> {
        let start = self.length()?;
        let bytes = self.record.get(start..self.at).unwrap_or_default();
        std::str::from_utf8(bytes).map(Arc::from).map_err(|_| Trouble::new("text is not UTF-8"))
    }

    fn bytes(&mut self) -> Result<Bytes, Trouble> {
        let start = self.length()?;
        Ok(self.record.slice(start..self.at))
    }

    /// Reads a length and goes past as many bytes; gives where they start.
    fn length(&mut self) -> Result<usize, Trouble> {
        let length = self.long()?;
        let length =
            usize::try_from(length).map_err(|_| Trouble::new(format!("a length of {length} bytes")))?;
        self.skip(length)
    }

    fn take(&mut self, n: usize) -> Result<Bytes, Trouble> {
        let start = self.skip(n)?;
        Ok(self.record.slice(start..self.at))
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Trouble> {
        let start = self.skip(N)?;
        self.record.get(start..).and_then(<[u8]>::first_chunk).copied().ok_or_else(|| self.cut(N))
    }

    fn left(&self) -> usize {
        self.record.len() - self.at
    }

    /// Goes past bytes that are there; gives where they start.
    fn skip(&mut self, n: usize) -> Result<usize, Trouble> {
        if n > self.left() {
            return Err(self.cut(n));
        }
        let start = self.at;
        self.at += n;
        Ok(start)
    }

    #[cold]
    fn cut(&self, n: usize) -> Trouble {
        Trouble::new(format!("{n} bytes were expected where {} are left", self.left()))
    }

    fn long(&mut self) -> Result<i64, Trouble> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.record.get(self.at).ok_or_else(|| self.cut(1))?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(Trouble::new("a number has more than 64 bits"))
    }
}

/// Lists of numbers of one length, as one array.
fn pack(items: Vec<Value>) -> Value {
    let even = |(first, other): (&Array, &Array)| {
        first.lens == other.lens
            && std::mem::discriminant(&first.numbers) == std::mem::discriminant(&other.numbers)
    };
    let first = match items.first() {
        Some(Value::Array(first)) => first,
        _ => return Value::List(items),
    };
    if !items.iter().all(|item| matches!(item, Value::Array(other) if even((first, other)))) {
        return Value::List(items);
    }
    let mut lens = Lens::from_slice(&[items.len()]);
    lens.extend_from_slice(&first.lens);
    let mut numbers = match &first.numbers {
        Numbers::Floats(_) => Numbers::Floats(Vec::new()),
        Numbers::Ints(_) => Numbers::Ints(Vec::new()),
    };
    for item in items {
        match (&mut numbers, item) {
            (Numbers::Floats(all), Value::Array(Array { numbers: Numbers::Floats(mut more), .. })) => {
                all.append(&mut more)
            }
            (Numbers::Ints(all), Value::Array(Array { numbers: Numbers::Ints(mut more), .. })) => {
                all.append(&mut more)
            }
            _ => {}
        }
    }
    Value::Array(Array { lens, numbers })
}

/// The number of a decimal: whole if nothing comes after its point, else the nearest float.
pub(super) fn decimal(bytes: &[u8], scale: u32) -> Result<Value, String> {
    if bytes.len() > 16 {
        return Err(format!("a decimal of {} bytes, expected 16 at most", bytes.len()));
    }
    let fill = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 16];
    let start = all.len() - bytes.len();
    all.get_mut(start..).unwrap_or_default().copy_from_slice(bytes);
    let unscaled = i128::from_be_bytes(all);
    if scale == 0 {
        return Ok(Value::Int(unscaled));
    }
    // Through text, since dividing would round twice.
    format!("{unscaled}e-{scale}").parse().map(Value::Float).map_err(|_| "a decimal is not a number".into())
}

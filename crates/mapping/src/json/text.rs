//! A position in a JSON text.

use std::sync::Arc;

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, NumberAny, NumberInt, Peek};

use crate::Refused;
use crate::error::show;
use crate::value::Value;

fn jiter(text: &[u8]) -> Jiter<'_> {
    Jiter::new(text).with_allow_inf_nan()
}

/// A position in the text.
pub(super) struct Text<'j> {
    pub(super) body: &'j [u8],
    /// Where the parser's text starts in `body`.
    base: usize,
    pub(super) jiter: Jiter<'j>,
}

impl<'j> Text<'j> {
    pub(super) fn new(body: &'j [u8]) -> Text<'j> {
        Text { body, base: 0, jiter: jiter(body) }
    }

    pub(super) fn at(&self) -> usize {
        self.base + self.jiter.current_index()
    }

    pub(super) fn seek(&mut self, at: usize) {
        self.base = at;
        self.jiter = jiter(self.body.get(at..).unwrap_or_default());
    }

    #[cold]
    pub(super) fn wrong(&self, error: &JiterError) -> Refused {
        let at = self.base.saturating_add(error.index);
        let rest = self.body.get(at.min(self.body.len())..).unwrap_or_default();
        let what = match &error.error_type {
            JiterErrorType::JsonError(JsonErrorType::RecursionLimitExceeded) => {
                "lists and objects are nested too deep".to_owned()
            }
            JiterErrorType::JsonError(JsonErrorType::NumberOutOfRange) => {
                "a whole number has more digits than are read".to_owned()
            }
            other => other.to_string(),
        };
        Refused::format(format!("not JSON at byte {at}: {what}, before `{}`", show(rest)))
    }

    pub(super) fn peek(&mut self) -> Result<Peek, Refused> {
        self.jiter.peek().map_err(|error| self.wrong(&error))
    }

    pub(super) fn finish(&mut self) -> Result<(), Refused> {
        self.jiter.finish().map_err(|error| self.wrong(&error))
    }

    pub(super) fn skip(&mut self, peek: Peek) -> Result<(), Refused> {
        self.jiter.known_skip(peek).map_err(|error| self.wrong(&error))
    }

    pub(super) fn array_first(&mut self) -> Result<Option<Peek>, Refused> {
        self.jiter.known_array().map_err(|error| self.wrong(&error))
    }

    pub(super) fn array_step(&mut self) -> Result<Option<Peek>, Refused> {
        self.jiter.array_step().map_err(|error| self.wrong(&error))
    }

    /// What `f` makes of the next name of an object that is open already, or is opened here.
    pub(super) fn key<R>(&mut self, is_first: bool, f: impl FnOnce(&str) -> R) -> Result<Option<R>, Refused> {
        let key = if is_first { self.jiter.known_object() } else { self.jiter.next_key() };
        match key {
            Ok(key) => Ok(key.map(f)),
            Err(error) => Err(self.wrong(&error)),
        }
    }

    pub(super) fn string(&mut self) -> Result<Arc<str>, Refused> {
        match self.jiter.known_str() {
            Ok(text) => Ok(text.into()),
            Err(error) => Err(self.wrong(&error)),
        }
    }

    pub(super) fn float(&mut self, peek: Peek) -> Result<f64, Refused> {
        match self.jiter.known_float(peek) {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(number) if number.is_nan() || self.is_word() => Ok(number),
            Ok(_) => Err(self.too_big()),
            Err(error) => Err(self.wrong(&error)),
        }
    }

    /// Whether the infinity that was read was written so.
    #[cold]
    pub(super) fn is_word(&self) -> bool {
        self.at().checked_sub(1).and_then(|at| self.body.get(at)) == Some(&b'y')
    }

    #[cold]
    pub(super) fn too_big(&self) -> Refused {
        Refused::format(format!(
            "not JSON at byte {}: the number before it is too large for a double",
            self.at()
        ))
    }

    pub(super) fn number(&mut self, peek: Peek) -> Result<Value, Refused> {
        let start = self.at();
        match self.jiter.known_number(peek) {
            Ok(NumberAny::Int(NumberInt::Int(number))) => Ok(Value::Int(i128::from(number))),
            Ok(NumberAny::Float(number)) if number.is_infinite() && !self.is_word() => Err(self.too_big()),
            Ok(NumberAny::Float(number)) => Ok(Value::Float(number)),
            Err(error) => {
                self.seek(start);
                self.long_number(peek, &error)
            }
        }
    }

    /// A whole number that 64 bits with a sign do not hold.
    #[cold]
    pub(super) fn long_number(&mut self, peek: Peek, error: &JiterError) -> Result<Value, Refused> {
        let digits = match self.jiter.known_number_bytes(peek) {
            Ok(digits) => std::str::from_utf8(digits).unwrap_or_default(),
            Err(error) => return Err(self.wrong(&error)),
        };
        let number = digits.parse().map(Value::Int).ok();
        let number = number.or_else(|| digits.parse().ok().filter(|n: &f64| n.is_finite()).map(Value::Float));
        number.ok_or_else(|| self.wrong(error))
    }
}

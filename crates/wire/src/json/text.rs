//! A position in a JSON text: the pull parser with a bound on nesting, and errors in TensorFlow Serving's words.

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, Peek};
use salver_predict::Error;
use smallvec::SmallVec;

use super::Limits;

/// How much of an offending value an error message shows, in bytes.
const SHOWN: usize = 256;

/// An error on its way out of a loop over elements: one pointer, so that results of small values stay in registers.
#[derive(Debug)]
pub(crate) struct Fault(Box<Error>);

impl From<Error> for Fault {
    #[cold]
    fn from(error: Error) -> Fault {
        Fault(Box::new(error))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        *fault.0
    }
}

/// Reads one JSON text. Every method that consumes a value expects to stand on its first byte, as after a `Some`
/// from one of the methods that peek.
#[derive(Debug)]
pub(crate) struct Text<'j> {
    body: &'j [u8],
    /// Where `jiter`'s text starts in `body`.
    base: usize,
    pub(super) jiter: Jiter<'j>,
    depth: usize,
    limits: Limits,
}

impl<'j> Text<'j> {
    pub(crate) fn new(body: &'j [u8], limits: Limits) -> Text<'j> {
        Text { body, base: 0, jiter: jiter(body), depth: 0, limits }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The offset of the next byte that is read.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.base.saturating_add(self.jiter.current_index())
    }

    /// Bytes that are still to be read.
    pub(crate) fn n_left(&self) -> usize {
        self.body.len().saturating_sub(self.at())
    }

    fn rest(&self) -> &'j [u8] {
        self.body.get(self.at()..).unwrap_or_default()
    }

    /// The byte before the position.
    pub(crate) fn last_byte(&self) -> Option<u8> {
        self.at().checked_sub(1).and_then(|at| self.body.get(at)).copied()
    }

    /// How many lists and objects are open.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Goes to the start of a value that lies inside `depth` lists and objects.
    pub(crate) fn seek(&mut self, at: usize, depth: usize) {
        self.base = at;
        self.jiter = jiter(self.body.get(at..).unwrap_or_default());
        self.depth = depth;
    }

    /// The kind of the next value.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Peek, Error> {
        self.jiter.peek().map_err(|error| syntax(&error, self.base))
    }

    /// Opens a list; the kind of its first value, or `None` when it is empty and closed again.
    #[inline]
    pub(crate) fn array_first(&mut self) -> Result<Option<Peek>, Fault> {
        self.open()?;
        let first = self.jiter.known_array().map_err(|error| syntax(&error, self.base))?;
        self.close_if(first.is_none());
        Ok(first)
    }

    /// The kind of the next value of the open list, or `None` at its end.
    #[inline]
    pub(crate) fn array_step(&mut self) -> Result<Option<Peek>, Fault> {
        let next = match self.jiter.array_step() {
            Ok(next) => next,
            Err(error) => return Err(syntax(&error, self.base).into()),
        };
        if next.is_none() {
            self.close_if(true);
        }
        Ok(next)
    }

    /// Opens an object; what `f` makes of its first key, or `None` when it is empty and closed again.
    pub(crate) fn object_first<R>(&mut self, f: impl FnOnce(&str) -> R) -> Result<Option<R>, Error> {
        self.open()?;
        let first = self.jiter.known_object().map_err(|error| syntax(&error, self.base))?.map(f);
        self.close_if(first.is_none());
        Ok(first)
    }

    /// What `f` makes of the next key of the open object, or `None` at its end.
    pub(crate) fn object_step<R>(&mut self, f: impl FnOnce(&str) -> R) -> Result<Option<R>, Error> {
        let next = self.jiter.next_key().map_err(|error| syntax(&error, self.base))?.map(f);
        self.close_if(next.is_none());
        Ok(next)
    }

    #[inline]
    fn open(&mut self) -> Result<(), Fault> {
        if self.depth >= self.limits.max_depth {
            return Err(self.too_deep().into());
        }
        self.depth = self.depth.saturating_add(1);
        Ok(())
    }

    #[cold]
    fn too_deep(&self) -> Error {
        let (max, at) = (self.limits.max_depth, self.at());
        Error::invalid(format!("JSON Parse error: nested deeper than {max} levels at offset: {at}"))
    }

    #[inline]
    fn close_if(&mut self, ended: bool) {
        self.depth = self.depth.saturating_sub(usize::from(ended));
    }

    /// Reads a string.
    pub(crate) fn string(&mut self) -> Result<&str, Error> {
        let base = self.base;
        self.jiter.known_str().map_err(|error| syntax(&error, base))
    }

    /// Reads the forms of infinity and not-a-number that `rapidjson` takes and the pull parser does not.
    #[cold]
    pub(crate) fn special(&mut self) -> Option<f64> {
        const FORMS: [(&[u8], f64); 3] =
            [(b"Inf", f64::INFINITY), (b"-Inf", f64::NEG_INFINITY), (b"-NaN", f64::NAN)];
        let rest = self.rest();
        let (form, value) = FORMS.into_iter().find(|(form, _)| rest.starts_with(form))?;
        // What follows is told by the next step: `Infx` fails there, as `truex` does.
        self.seek(self.at().saturating_add(form.len()), self.depth);
        Some(value)
    }

    /// Reads a value of any kind and checks its syntax. Nesting costs one bit per level, not stack.
    pub(crate) fn skip(&mut self, peek: Peek) -> Result<(), Error> {
        let outside = self.depth;
        let mut is_list: SmallVec<[bool; 64]> = SmallVec::new();
        let mut next = Some(peek);
        loop {
            if let Some(peek) = next {
                next = match peek {
                    Peek::Array => {
                        is_list.push(true);
                        self.array_first()?
                    }
                    Peek::Object => {
                        is_list.push(false);
                        let key = self.object_first(|_| ())?;
                        self.value_after(key)?
                    }
                    scalar => {
                        self.skip_scalar(scalar)?;
                        None
                    }
                };
                if next.is_some() {
                    continue;
                }
                // An empty list or object has closed itself; a scalar stands inside what is still open.
                is_list.truncate(self.depth.saturating_sub(outside));
            }
            match is_list.last() {
                None => return Ok(()),
                Some(true) => next = self.array_step()?,
                Some(false) => {
                    let key = self.object_step(|_| ())?;
                    next = self.value_after(key)?;
                }
            }
            is_list.truncate(self.depth.saturating_sub(outside));
        }
    }

    fn value_after(&mut self, key: Option<()>) -> Result<Option<Peek>, Error> {
        key.map(|()| self.peek()).transpose()
    }

    fn skip_scalar(&mut self, peek: Peek) -> Result<(), Error> {
        if peek == Peek::String {
            return self.string().map(drop);
        }
        match self.jiter.known_skip(peek) {
            Ok(()) => Ok(()),
            Err(error) => self.special().map(drop).ok_or_else(|| syntax(&error, self.base)),
        }
    }

    /// Whether the object that starts here is exactly `{"b64": "..."}`. Reads nothing.
    pub(crate) fn is_b64(&self) -> bool {
        let mut ahead = self.jiter.clone();
        matches!(ahead.known_object(), Ok(Some("b64")))
            && ahead.peek().is_ok_and(|peek| peek == Peek::String)
            && ahead.known_bytes().is_ok()
            && matches!(ahead.next_key_bytes(), Ok(None))
    }

    /// `JSON Value: 1.5 Type: Number is not of expected type: bool`, for the value that starts here.
    #[cold]
    pub(crate) fn mismatch(&self, expected: &str) -> Error {
        let kind = self.jiter.clone().peek().map_or("Null", kind);
        Error::invalid(format!(
            "JSON Value: {} Type: {kind} is not of expected type: {expected}",
            self.show_at(self.at())
        ))
    }

    /// The value that starts here as an error message shows it: laid out, and cut at [`SHOWN`] bytes.
    #[cold]
    pub(crate) fn show(&self) -> String {
        self.show_at(self.at())
    }

    /// As [`Text::show`], for a value that starts elsewhere.
    #[cold]
    pub(crate) fn show_at(&self, at: usize) -> String {
        let mut text = Text::new(self.body.get(at..).unwrap_or_default(), self.limits);
        let mut shown = Vec::new();
        // A value that is not JSON is shown as far as it is.
        text.peek().and_then(|peek| text.lay_out(peek, &mut shown)).ok();
        let cut = shown.len() > SHOWN;
        shown.truncate(SHOWN);
        let mut shown = String::from_utf8_lossy(&shown).into_owned();
        if cut {
            shown.push_str("...");
        }
        shown
    }

    /// Writes a value with 4 spaces per level and lists on one line; `false` once there is enough of it. Recursion
    /// ends at the limit of nesting.
    fn lay_out(&mut self, peek: Peek, out: &mut Vec<u8>) -> Result<bool, Error> {
        match peek {
            Peek::Array => self.lay_out_list(out),
            Peek::Object => self.lay_out_object(out),
            scalar => {
                let start = self.at();
                self.skip_scalar(scalar)?;
                let shown = self.body.get(start..self.at()).unwrap_or_default();
                out.extend_from_slice(shown.get(..SHOWN.saturating_add(1)).unwrap_or(shown));
                Ok(out.len() <= SHOWN)
            }
        }
    }

    fn lay_out_list(&mut self, out: &mut Vec<u8>) -> Result<bool, Error> {
        out.push(b'[');
        let mut next = self.array_first()?;
        while let Some(peek) = next {
            if !self.lay_out(peek, out)? {
                return Ok(false);
            }
            next = self.array_step()?;
            if next.is_some() {
                out.extend_from_slice(b", ");
            }
        }
        out.push(b']');
        Ok(true)
    }

    fn lay_out_object(&mut self, out: &mut Vec<u8>) -> Result<bool, Error> {
        out.push(b'{');
        let mut key = self.object_first(str::to_owned)?;
        let indent = self.depth.saturating_mul(4);
        let is_empty = key.is_none();
        while let Some(name) = key {
            out.push(b'\n');
            out.resize(out.len().saturating_add(indent), b' ');
            super::write_string(out, name.as_bytes());
            out.extend_from_slice(b": ");
            let peek = self.peek()?;
            if !self.lay_out(peek, out)? {
                return Ok(false);
            }
            key = self.object_step(str::to_owned)?;
            if key.is_some() {
                out.push(b',');
            }
        }
        if !is_empty {
            out.push(b'\n');
            out.resize(out.len().saturating_add(indent.saturating_sub(4)), b' ');
        }
        out.push(b'}');
        Ok(true)
    }
}

fn jiter(text: &[u8]) -> Jiter<'_> {
    Jiter::new(text).with_allow_inf_nan()
}

/// What `rapidjson` calls the kinds of values.
pub(super) fn kind(peek: Peek) -> &'static str {
    match peek {
        Peek::Null => "Null",
        Peek::False => "False",
        Peek::True => "True",
        Peek::Object => "Object",
        Peek::Array => "Array",
        Peek::String => "String",
        _ => "Number",
    }
}

/// A syntax error in the words of `rapidjson`, which clients of TensorFlow Serving know.
#[cold]
fn syntax(error: &JiterError, base: usize) -> Error {
    use JsonErrorType as E;
    let text = match &error.error_type {
        JiterErrorType::WrongType { .. } => "Invalid value.",
        JiterErrorType::JsonError(error) => match error {
            E::EofWhileParsingString => "Missing a closing quotation mark in string.",
            E::EofWhileParsingList | E::ExpectedListCommaOrEnd => {
                "Missing a comma or ] after an array element."
            }
            E::EofWhileParsingObject | E::ExpectedObjectCommaOrEnd => {
                "Missing a comma or } after an object member."
            }
            E::ExpectedColon => "Missing a colon after a name of object member.",
            E::KeyMustBeAString => "Missing a name for object member.",
            E::InvalidEscape => "Invalid escape character in string.",
            E::LoneLeadingSurrogateInHexEscape | E::UnexpectedEndOfHexEscape => {
                "The surrogate pair in string is invalid."
            }
            E::InvalidUnicodeCodePoint | E::ControlCharacterWhileParsingString => {
                "Invalid encoding in string."
            }
            E::NumberOutOfRange => "Number too big to be stored in double.",
            _ => "Invalid value.",
        },
    };
    Error::invalid(format!("JSON Parse error: {text} at offset: {}", base.saturating_add(error.index)))
}

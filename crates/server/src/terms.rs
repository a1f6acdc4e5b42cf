//! What a request says of itself besides its content: by when it must be answered, how urgent it is, who asks.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Instant;

use http::{HeaderMap, HeaderName};
use salver_predict::{Asker, Error};

/// How urgent a request is: 1 (served first) to 9.
pub(crate) const PRIORITY: &str = "salver-priority";

/// Who asks; any text.
pub(crate) const CALLER: &str = "salver-caller";

/// The terms of one request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms {
    /// When the client has no more use for the answer, if it says so.
    pub(crate) deadline: Option<Instant>,
    /// When this server gives up on it; never after the deadline.
    pub(crate) until: Option<Instant>,
    pub(crate) asker: Asker,
}

impl Terms {
    /// A request of which only the deadline counts.
    pub(crate) fn by(deadline: Option<Instant>, asker: Asker) -> Terms {
        Terms { deadline, until: deadline, asker }
    }

    /// The same with what the request's own body says.
    pub(crate) fn with(self, deadline: Option<Instant>, priority: Option<u8>) -> Terms {
        let sooner = |known: Option<Instant>| [known, deadline].into_iter().flatten().min();
        let asker = Asker { priority: priority.unwrap_or(self.asker.priority), ..self.asker };
        Terms { deadline: sooner(self.deadline), until: sooner(self.until), asker }
    }
}

/// Reads who asks from headers or metadata.
#[derive(Debug)]
pub(crate) struct Askers {
    priority: HeaderName,
    caller: HeaderName,
    /// Texts become numbers in a way that nobody outside can foresee, so that no caller can pass as another.
    hash: RandomState,
}

impl Askers {
    pub(crate) fn new(caller: HeaderName) -> Askers {
        Askers { priority: HeaderName::from_static(PRIORITY), caller, hash: RandomState::new() }
    }

    /// # Errors
    /// For a priority that is none.
    pub(crate) fn read(&self, headers: &HeaderMap) -> Result<Asker, Error> {
        let mut asker = Asker::default();
        if let Some(value) = headers.get(&self.priority) {
            asker.priority = priority(value.as_bytes())?;
        }
        if let Some(value) = headers.get(&self.caller) {
            asker.caller = self.hash.hash_one(value.as_bytes()).max(1);
        }
        Ok(asker)
    }
}

fn priority(text: &[u8]) -> Result<u8, Error> {
    match text.trim_ascii() {
        [digit @ b'1'..=b'9'] => Ok(digit - b'0'),
        other => {
            let text: String = String::from_utf8_lossy(other).chars().take(32).collect();
            Err(Error::invalid(format!(
                "{PRIORITY} is '{text}', expected a number from 1 (first) to 9 (last)"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    fn read(askers: &Askers, pairs: &[(&'static str, &'static str)]) -> Result<Asker, Error> {
        let pairs = pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        askers.read(&pairs.collect())
    }

    #[test]
    fn priorities_are_1_to_9() {
        let askers = Askers::new(HeaderName::from_static(CALLER));
        assert_eq!(read(&askers, &[]), Ok(Asker::default()));
        for (text, expected) in [("1", 1), ("9", 9), (" 3 ", 3)] {
            assert_eq!(read(&askers, &[(PRIORITY, text)]).unwrap().priority, expected);
        }
        for text in ["0", "10", "-1", "1.0", "high", ""] {
            let error = read(&askers, &[(PRIORITY, text)]).unwrap_err();
            let expected =
                format!("salver-priority is '{text}', expected a number from 1 (first) to 9 (last)");
            assert_eq!(error.message(), expected);
        }
    }

    #[test]
    fn callers_are_told_apart_by_the_header_that_is_set() {
        let askers = Askers::new(HeaderName::from_static("x-api-key"));
        let caller = |pairs| read(&askers, pairs).unwrap().caller;
        assert_eq!(caller(&[]), 0);
        assert_eq!(caller(&[(CALLER, "a")]), 0);
        let [a, b] = [caller(&[("x-api-key", "a")]), caller(&[("x-api-key", "b")])];
        assert!(a != 0 && b != 0 && a != b);
        assert_eq!(a, caller(&[("x-api-key", "a")]));
    }

    #[test]
    fn the_soonest_deadline_counts() {
        let now = crate::clock::now();
        let at = |seconds| now.checked_add(Duration::from_secs(seconds));
        let rest = Terms { deadline: None, until: at(30), asker: Asker::default() };
        let check = |terms: Terms, expected: (Option<Instant>, Option<Instant>, u8)| {
            assert_eq!((terms.deadline, terms.until, terms.asker.priority), expected);
        };
        check(rest.with(None, None), (None, at(30), 5));
        check(rest.with(at(1), Some(2)), (at(1), at(1), 2));
        check(rest.with(at(60), None), (at(60), at(30), 5));
        check(Terms::by(at(5), Asker::default()).with(at(7), None), (at(5), at(5), 5));
    }
}

//! What is known of each signature: whether its rows may be joined.

use std::sync::atomic::{AtomicU8, Ordering};

/// Whether rows of a signature may be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It could not be found out. [`crate::Batching::joins_unchecked`] says what then.
    Unknown,
    /// Rows are answered alike alone and joined, as far as was tried.
    Independent,
    /// Never: its signature does not allow it, or answers depend on what a row is joined with.
    Never,
}

/// One for each signature. A later verdict replaces one that stands before it in [`Verdict`], never the other way.
pub(crate) struct Verdicts(Vec<AtomicU8>);

impl Verdicts {
    /// Of signatures that are joinable, or not, by their dimensions.
    pub(crate) fn new(joinable: impl Iterator<Item = bool>) -> Verdicts {
        let first = |joinable| if joinable { Verdict::Unknown } else { Verdict::Never };
        Verdicts(joinable.map(|joinable| AtomicU8::new(first(joinable) as u8)).collect())
    }

    pub(crate) fn get(&self, signature: usize) -> Verdict {
        match self.0.get(signature).map(|verdict| verdict.load(Ordering::Relaxed)) {
            Some(known) if known == Verdict::Independent as u8 => Verdict::Independent,
            Some(known) if known == Verdict::Unknown as u8 => Verdict::Unknown,
            _ => Verdict::Never,
        }
    }

    pub(crate) fn never(&self, signature: usize) {
        self.raise(signature, Verdict::Never);
    }

    pub(crate) fn independent(&self, signature: usize) {
        self.raise(signature, Verdict::Independent);
    }

    fn raise(&self, signature: usize, to: Verdict) {
        if let Some(verdict) = self.0.get(signature) {
            verdict.fetch_max(to as u8, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_never_be_joined_stays_so() {
        let verdicts = Verdicts::new([true, false].into_iter());
        let check = |expected: [Verdict; 3]| assert_eq!([0, 1, 2].map(|at| verdicts.get(at)), expected);
        check([Verdict::Unknown, Verdict::Never, Verdict::Never]);
        (0..3).for_each(|at| verdicts.independent(at));
        check([Verdict::Independent, Verdict::Never, Verdict::Never]);
        verdicts.never(0);
        verdicts.independent(0);
        check([Verdict::Never; 3]);
    }
}

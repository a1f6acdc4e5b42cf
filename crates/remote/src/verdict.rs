//! What a failed call means: for the peer, for the request, for the caller.

use std::time::Duration;

use salver_predict::{Blame, Code, Error};

use crate::balance::Outcome;
use crate::exchange::{Failure, Pause};

/// Whether the same request may go out once more. A prediction changes nothing that others see, so it may be repeated after a
/// connection broke, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    No,
    /// To a peer that has not had it.
    Elsewhere,
    /// To any peer; to the same one not before this time has passed.
    Anywhere(Duration),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) retry: Retry,
    pub(crate) error: Error,
}

/// A peer that does not have the model (yet) is left alone for this long.
const ABSENT: Duration = Duration::from_secs(1);

/// `peer` is who failed, for the text.
pub(crate) fn verdict(failure: Failure, peer: &str) -> Verdict {
    let text = format!("{peer}: {failure}");
    let ours = |code| Error::new(code, Blame::Peer, text.clone());
    let at_once = Retry::Anywhere(Duration::ZERO);
    let (outcome, retry, error) = match failure {
        Failure::Unreachable(_) => (Outcome::Unreachable, at_once, ours(Code::Unavailable)),
        Failure::Slow(_) => (Outcome::Failed, at_once, ours(Code::Unavailable)),
        Failure::Broken(_) => (Outcome::Failed, at_once, ours(Code::Unavailable)),
        Failure::Garbage(_) => (Outcome::Failed, Retry::No, ours(Code::Internal)),
        Failure::TooLarge(_) => (Outcome::Objected, Retry::No, ours(Code::ResourceExhausted)),
        Failure::Late => (Outcome::Late, Retry::No, ours(Code::DeadlineExceeded)),
        Failure::Wrong(_) => (Outcome::Dropped, Retry::No, Error::client(Code::InvalidArgument, text)),
        Failure::Status { error, pause } => return of_status(error, pause, peer),
    };
    Verdict { outcome, retry, error }
}

fn of_status(error: Error, pause: Pause, peer: &str) -> Verdict {
    let (outcome, retry) = match (error.code(), pause) {
        (Code::Unavailable | Code::ResourceExhausted, Pause::For(pause)) => {
            (Outcome::Refused(pause), Retry::Anywhere(pause))
        }
        (Code::Unavailable, Pause::Unsaid) => (Outcome::Failed, Retry::Anywhere(Duration::ZERO)),
        (Code::Unavailable, Pause::Never) => (Outcome::Failed, Retry::No),
        (Code::NotFound, _) => (Outcome::Refused(ABSENT), Retry::Elsewhere),
        (Code::Internal | Code::Unknown | Code::DataLoss, _) => (Outcome::Failed, Retry::No),
        (Code::DeadlineExceeded, _) => (Outcome::Late, Retry::No),
        _ => (Outcome::Objected, Retry::No),
    };
    // What a model says of a request is the same from everybody.
    let error = if error.blame() == Blame::Client { error } else { error.within(&format!("{peer}: ")) };
    let error = match pause {
        Pause::For(pause) => error.with_retry_after(pause),
        Pause::Unsaid | Pause::Never => error,
    };
    Verdict { outcome, retry, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_judged() {
        let text = || "x".to_owned();
        let status = |code, pause| Failure::Status { error: Error::new(code, Blame::Peer, "x"), pause };
        let second = Duration::from_secs(1);
        let (paused, at_once) = (Pause::For(second), Retry::Anywhere(Duration::ZERO));
        let cases = [
            (Failure::Unreachable(text()), Outcome::Unreachable, at_once, Code::Unavailable),
            (Failure::Broken(text()), Outcome::Failed, at_once, Code::Unavailable),
            (Failure::Slow(second), Outcome::Failed, at_once, Code::Unavailable),
            (Failure::Garbage(text()), Outcome::Failed, Retry::No, Code::Internal),
            (Failure::TooLarge(5), Outcome::Objected, Retry::No, Code::ResourceExhausted),
            (Failure::Late, Outcome::Late, Retry::No, Code::DeadlineExceeded),
            (Failure::Wrong(text()), Outcome::Dropped, Retry::No, Code::InvalidArgument),
            (status(Code::Unavailable, Pause::Unsaid), Outcome::Failed, at_once, Code::Unavailable),
            (status(Code::Unavailable, Pause::Never), Outcome::Failed, Retry::No, Code::Unavailable),
            (
                status(Code::Unavailable, paused),
                Outcome::Refused(second),
                Retry::Anywhere(second),
                Code::Unavailable,
            ),
            (
                status(Code::ResourceExhausted, paused),
                Outcome::Refused(second),
                Retry::Anywhere(second),
                Code::ResourceExhausted,
            ),
            // A message that is too large for the server, or a quota.
            (
                status(Code::ResourceExhausted, Pause::Unsaid),
                Outcome::Objected,
                Retry::No,
                Code::ResourceExhausted,
            ),
            (
                status(Code::NotFound, Pause::Unsaid),
                Outcome::Refused(ABSENT),
                Retry::Elsewhere,
                Code::NotFound,
            ),
            (
                status(Code::InvalidArgument, Pause::Unsaid),
                Outcome::Objected,
                Retry::No,
                Code::InvalidArgument,
            ),
            (status(Code::Internal, Pause::Unsaid), Outcome::Failed, Retry::No, Code::Internal),
            (status(Code::DeadlineExceeded, paused), Outcome::Late, Retry::No, Code::DeadlineExceeded),
        ];
        for (failure, outcome, retry, code) in cases {
            let shown = format!("{failure:?}");
            let verdict = verdict(failure, "a:1");
            assert_eq!((verdict.outcome, verdict.retry), (outcome, retry), "{shown}");
            assert_eq!(verdict.error.code(), code, "{shown}");
            assert!(verdict.error.message().starts_with("a:1: "), "{shown}: {}", verdict.error);
            assert_eq!(verdict.error.retry_after().is_some(), shown.contains("For("), "{shown}");
        }
        let error = Error::invalid("input 'x' has 3 dimensions");
        let verdict = verdict(Failure::Status { error: error.clone(), pause: Pause::Unsaid }, "a:1");
        assert_eq!(verdict.error, error);
    }
}

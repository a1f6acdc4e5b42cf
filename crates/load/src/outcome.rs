//! What became of a request.

use std::time::Duration;

/// The classes that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered within the deadline, or answered where there is none.
    Ok,
    /// Answered after the deadline.
    Late,
    /// Answered, but not what was expected.
    Wrong,
    /// The server said that it has no room: `UNAVAILABLE` or `RESOURCE_EXHAUSTED`, 503 or 429.
    Refused,
    /// The server said that the deadline is past: `DEADLINE_EXCEEDED` or 504.
    Expired,
    /// Any other error, a broken connection, or no answer in the time that one is waited for.
    Failed,
    /// It did not leave: as many as are allowed were on their way, or the generator was too late.
    NotSent,
    /// It did not leave, because its deadline was over before it could.
    Overdue,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Outcome; 8] = [
        Outcome::Ok,
        Outcome::Late,
        Outcome::Wrong,
        Outcome::Refused,
        Outcome::Expired,
        Outcome::Failed,
        Outcome::NotSent,
        Outcome::Overdue,
    ];
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// With this gRPC status.
    Grpc(i32),
    /// With this HTTP status.
    Http(u16),
    /// Without an answer.
    None,
}

/// The class of a reply that came `latency` after the request was meant to leave.
pub fn classify(reply: Reply, latency: Duration, deadline: Option<Duration>) -> Outcome {
    const GRPC_OK: i32 = 0;
    const DEADLINE_EXCEEDED: i32 = 4;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const UNAVAILABLE: i32 = 14;
    match reply {
        Reply::Grpc(GRPC_OK) | Reply::Http(200) => match deadline {
            Some(deadline) if latency > deadline => Outcome::Late,
            _ => Outcome::Ok,
        },
        Reply::Grpc(RESOURCE_EXHAUSTED | UNAVAILABLE) | Reply::Http(429 | 503) => Outcome::Refused,
        Reply::Grpc(DEADLINE_EXCEEDED) | Reply::Http(504) => Outcome::Expired,
        Reply::Grpc(_) | Reply::Http(_) | Reply::None => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_their_classes() {
        let ms = Duration::from_millis;
        for (reply, latency, deadline, expected) in [
            (Reply::Grpc(0), 5, None, Outcome::Ok),
            (Reply::Grpc(0), 5, Some(5), Outcome::Ok),
            (Reply::Http(200), 6, Some(5), Outcome::Late),
            (Reply::Grpc(14), 500, Some(5), Outcome::Refused),
            (Reply::Grpc(8), 1, None, Outcome::Refused),
            (Reply::Http(429), 1, None, Outcome::Refused),
            (Reply::Http(503), 1, None, Outcome::Refused),
            (Reply::Grpc(4), 1, None, Outcome::Expired),
            (Reply::Http(504), 1, None, Outcome::Expired),
            (Reply::Grpc(3), 1, None, Outcome::Failed),
            (Reply::Http(404), 1, None, Outcome::Failed),
            (Reply::Http(302), 1, None, Outcome::Failed),
            (Reply::None, 1, None, Outcome::Failed),
        ] {
            assert_eq!(classify(reply, ms(latency), deadline.map(ms)), expected, "{reply:?}");
        }
    }
}

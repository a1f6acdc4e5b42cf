//! Which connections have been quiet for too long. Pure: the worker looks at each connection once a second.

use std::time::{Duration, Instant};

use crate::Limits;

/// What a connection has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Bytes read.
    pub(crate) read: u64,
    /// Bytes written.
    pub(crate) written: u64,
    /// Bytes read when the last request ended.
    pub(crate) read_at_end: u64,
    /// Requests seen.
    pub(crate) requests: u64,
    /// Requests that are being received or answered.
    pub(crate) running: u32,
    /// Answers that are not wholly taken by the client.
    pub(crate) sending: u32,
    /// Answers that last, such as watches.
    pub(crate) streaming: u32,
    /// Whether it speaks HTTP/2, where bytes between requests are normal.
    pub(crate) http2: bool,
}

impl Counts {
    /// Whether somebody waits for an answer that will end.
    pub(crate) fn is_answering(&self) -> bool {
        self.running > 0 || self.sending > 0
    }
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// Say that no further request is answered, finish what runs, close.
    Drain,
    /// Close now.
    Cut,
}

/// What was true of a connection when it was last looked at.
#[derive(Debug)]
pub(crate) struct Seen {
    counts: Counts,
    /// Since when no byte was written.
    unwritten: Instant,
    /// Since when nothing runs.
    idle: Instant,
    /// Since when the head of a request is unfinished.
    partial: Option<Instant>,
}

impl Seen {
    pub(crate) fn new(now: Instant) -> Seen {
        Seen { counts: Counts::default(), unwritten: now, idle: now, partial: Some(now) }
    }

    pub(crate) fn look(&mut self, now: Instant, counts: Counts, limits: &Limits) -> Verdict {
        let before = std::mem::replace(&mut self.counts, counts);
        let over = |since: Instant, timeout: Duration| now.saturating_duration_since(since) >= timeout;
        if counts.sending == 0 || counts.written != before.written {
            self.unwritten = now;
        }
        if over(self.unwritten, limits.write_timeout) {
            return Verdict::Cut;
        }
        let busy = counts.is_answering() || counts.streaming > 0;
        if busy || counts.requests != before.requests {
            self.idle = now;
        }
        let is_partial = !busy && !counts.http2 && (counts.requests == 0 || counts.read > counts.read_at_end);
        let new_head = counts.requests != before.requests;
        self.partial = is_partial.then(|| self.partial.filter(|_| !new_head).unwrap_or(now));
        if self.partial.is_some_and(|since| over(since, limits.header_timeout)) {
            return Verdict::Cut;
        }
        if over(self.idle, limits.idle_timeout) { Verdict::Drain } else { Verdict::Keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Counts = Counts {
        read: 0,
        written: 0,
        read_at_end: 0,
        requests: 0,
        running: 0,
        sending: 0,
        streaming: 0,
        http2: false,
    };

    /// Looks at the same counts once a second and gives the second and the verdict that ended it.
    fn ends(history: &[(u64, Counts)]) -> (u64, Verdict) {
        let limits = Limits {
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(100),
            ..Limits::default()
        };
        #[expect(clippy::disallowed_methods, reason = "any start will do")]
        let start = Instant::now();
        let mut seen = Seen::new(start);
        for second in 0..1000 {
            let counts =
                history.iter().rev().find(|(at, _)| *at <= second).map_or(NONE, |(_, counts)| *counts);
            match seen.look(start + Duration::from_secs(second), counts, &limits) {
                Verdict::Keep => {}
                verdict => return (second, verdict),
            }
        }
        (1000, Verdict::Keep)
    }

    #[test]
    fn quiet_connections_end() {
        let served = Counts { read: 100, read_at_end: 100, requests: 1, written: 9, ..NONE };
        let cases = [
            ("nothing was sent", vec![(0, NONE)], (10, Verdict::Cut)),
            ("half a head", vec![(0, NONE), (3, Counts { read: 5, ..NONE })], (10, Verdict::Cut)),
            ("idle", vec![(0, served)], (100, Verdict::Drain)),
            (
                "half a second head",
                vec![(0, served), (50, Counts { read: 101, ..served })],
                (60, Verdict::Cut),
            ),
            ("HTTP/2 with pings", vec![(0, Counts { http2: true, read: 24, ..NONE })], (100, Verdict::Drain)),
            ("a long run", vec![(0, Counts { running: 1, ..served })], (1000, Verdict::Keep)),
            ("a watch", vec![(0, Counts { streaming: 1, ..served })], (1000, Verdict::Keep)),
            ("an answer nobody takes", vec![(5, Counts { sending: 1, ..served })], (35, Verdict::Cut)),
        ];
        for (name, history, expected) in cases {
            let got = ends(&history);
            assert!(
                got.1 == expected.1 && got.0.abs_diff(expected.0) <= 1,
                "{name}: {got:?} != {expected:?}"
            );
        }
    }

    #[test]
    fn an_answer_that_is_taken_slowly_is_kept() {
        let history: Vec<_> = (0..1000)
            .map(|second| (second, Counts { requests: 1, sending: 1, written: second, ..NONE }))
            .collect();
        assert_eq!(ends(&history).1, Verdict::Keep);
    }
}

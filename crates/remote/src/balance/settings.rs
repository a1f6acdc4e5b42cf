//! What can be set.

use std::num::NonZeroU32;
use std::time::Duration;

/// How peers are weighed and when they go out.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// After this time a share of 1/e is left of a peak: 10 s, as Linkerd has it.
    pub decay: Duration,
    /// What a call is taken to need when no peer has answered yet: 30 ms.
    pub first_estimate: Duration,
    /// Failures in a row after which a peer goes out: 5.
    pub max_failures: NonZeroU32,
    /// The share of failures above which a peer goes out, by about the last 32 calls: 0.5.
    pub max_failure_rate: f64,
    /// How long a peer is out for the first time, give or take a fifth: 1 s. It doubles each time.
    pub ejection: Duration,
    /// The longest time that failures put a peer out for: 30 s.
    pub max_ejection: Duration,
    /// The longest time between two attempts to connect to a peer that cannot be reached: 5 s.
    pub max_reconnect: Duration,
    /// The share of peers that failures may put out together: 0.5. A single peer never goes out for failures.
    pub max_share_out: f64,
    /// The longest time that a peer may ask to be left alone for: 10 s.
    pub max_hold: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            decay: Duration::from_secs(10),
            first_estimate: Duration::from_millis(30),
            max_failures: NonZeroU32::new(5).unwrap_or(NonZeroU32::MIN),
            max_failure_rate: 0.5,
            ejection: Duration::from_secs(1),
            max_ejection: Duration::from_secs(30),
            max_reconnect: Duration::from_secs(5),
            max_share_out: 0.5,
            max_hold: Duration::from_secs(10),
        }
    }
}

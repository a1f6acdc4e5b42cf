//! The one place of this room where the clock is read.

use std::time::Instant;

#[expect(
    clippy::disallowed_methods,
    reason = "what drives connections reads the clock; decisions take it as an argument"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

//! The one place where this room reads the clock.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the driver's clock; everything else takes `now`")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

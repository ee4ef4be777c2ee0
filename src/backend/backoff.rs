//! How long to wait before a model server is asked again for what it has failed to do.
//!
//! Invariant: no wait is longer than minutes, so that what was away for a day is found again soon.

use std::time::Duration;

/// The first wait after a failure is up to this, the next up to twice this (full jitter)…
pub(super) const WAIT_MIN: Duration = Duration::from_secs(1);

/// …and none is longer.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5 * 60);

/// The wait after so many failures in a row, the last one not counted.
pub(super) fn wait_after(failures: u32, random: &mut fastrand::Rng) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    let ceiling = WAIT_MIN.saturating_mul(factor).min(WAIT_MAX);
    ceiling.mul_f64(random.f64())
}

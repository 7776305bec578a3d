//! Waits between attempts. A registry that fails has no event to wait for, but may say when to come again (`Retry-After`),
//! and whoever has given up is not waited for. Uses: options.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::HeaderMap;

use crate::options::Options;

/// The most that is waited for a registry that says when to come again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most that is waited when it does not say.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The attempts of all that goes on with one registry at a time.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    not_before: Option<Instant>,
    given_up: bool,
}

/// After how many seconds the registry wants to be asked again: not after a date, as hardly one does.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_secs(headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?))
}

/// Whether this is longer than anybody waits.
pub(crate) fn is_too_long(wait: Duration) -> bool {
    wait > PATIENCE
}

impl Attempts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody asks again before so long has passed.
    pub(crate) fn not_within(&self, wait: Duration) {
        let then = Instant::now() + wait.min(PATIENCE);
        let mut state = self.state();
        state.not_before = state.not_before.max(Some(then));
    }

    /// Waits before the next attempt, after so many failures in a row. False: all has been given up.
    pub(crate) fn wait(&self, failures: u32, options: &Options) -> bool {
        let factor = 1 << failures.clamp(1, 6).saturating_sub(1);
        let own = Instant::now() + (options.pause * factor).min(PAUSE_MAX);
        let mut state = self.state();
        loop {
            if state.given_up {
                return false;
            }
            let left =
                state.not_before.max(Some(own)).and_then(|then| then.checked_duration_since(Instant::now()));
            match left {
                Some(left) if !left.is_zero() => {
                    state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                _ => return true,
            }
        }
    }

    /// Ends all waits: something else has failed.
    pub(crate) fn give_up(&self) {
        self.state().given_up = true;
        self.changed.notify_all();
    }

    /// Whether all has been given up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.state().given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_all_is_given_up() {
        let options = Options { pause: Duration::from_secs(3600), ..Options::default() };
        let attempts = Attempts::default();
        attempts.not_within(Duration::from_secs(3600));
        let waited = std::thread::scope(|scope| {
            let waits = scope.spawn(|| attempts.wait(1, &options));
            attempts.give_up();
            waits.join()
        });
        assert!(!waited.unwrap());
        assert!(attempts.is_given_up());
    }

    #[test]
    fn a_registry_says_in_seconds_when_to_come_again() {
        for (value, expected) in [
            ("0", Some(0)),
            (" 30 ", Some(30)),
            ("3600", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("99999999999999999999", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", value.parse().unwrap());
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{value}");
        }
        assert!(is_too_long(Duration::from_secs(3600)) && !is_too_long(PATIENCE));
    }
}

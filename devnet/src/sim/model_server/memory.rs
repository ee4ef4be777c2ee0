//! What a model server has in memory: loads, `keep_alive`, `num_ctx`, evictions and restarts.
//!
//! Invariant: one load at a time; a load whose request is closed comes to nothing; a model that was loaded with another
//! `num_ctx` than the one asked for is loaded anew.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    super::{http, wire::End},
    MODEL,
};
use crate::journal::lock;

/// How long a model stays that nobody asks for, where nobody says otherwise.
const KEPT: Duration = Duration::from_secs(300);

/// What is asked for where nobody says otherwise, in tokens.
const CONTEXT: u64 = 4_096;

/// What a request says of the model's loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    context: u64,
    /// `None`: for ever.
    keep: Option<Duration>,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    loaded: Option<Loaded>,
    is_loading: bool,
}

#[derive(Clone, Copy)]
struct Loaded {
    context: u64,
    /// `None`: for ever.
    until: Option<Instant>,
}

/// The one load that is under way.
struct Loading<'a>(&'a Shared);

impl Default for Wish {
    /// Of whoever cannot say anything about that: the model stays.
    fn default() -> Self {
        Self {
            context: CONTEXT,
            keep: None,
        }
    }
}

impl Wish {
    /// What the body of a request wishes.
    pub(super) fn of(body: &Value) -> Self {
        Self {
            context: body["options"]["num_ctx"].as_u64().unwrap_or(CONTEXT),
            keep: keep(&body["keep_alive"]),
        }
    }

    /// Whether the model is to leave the memory at once.
    pub(super) fn is_farewell(self) -> bool {
        self.keep == Some(Duration::ZERO)
    }
}

/// Seconds as a number, or a duration of Go's with one unit; less than nothing is for ever.
fn keep(value: &Value) -> Option<Duration> {
    let text = match value {
        Value::Number(seconds) => format!("{seconds}s"),
        Value::String(text) => text.clone(),
        _ => return Some(KEPT),
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "h" => 3_600.0,
        "m" => 60.0,
        "ms" => 0.001,
        _ => 1.0,
    };
    let seconds: f64 = digits.parse().ok()?;
    Duration::try_from_secs_f64(seconds * unit).ok()
}

impl Memory {
    /// Whether a request of this wish is served at once.
    pub(super) fn is_ready(&self, wish: Wish) -> bool {
        let mut state = lock(&self.0.state);
        state.expire();
        state.loaded.is_some_and(|it| it.context == wish.context)
    }

    /// Has the model loaded, which takes this time if it is not.
    pub(super) async fn load(&self, end: &mut End, wish: Wish, time: Duration) -> io::Result<()> {
        let loading = loop {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if self.is_ready(wish) {
                return Ok(());
            }
            if let Some(loading) = self.begin() {
                break loading;
            }
            tokio::select! {
                biased;
                () = http::hung_up(end) => return Err(io::ErrorKind::BrokenPipe.into()),
                () = changed => {}
            }
        };
        if !time.is_zero() {
            tokio::select! {
                biased;
                () = http::hung_up(end) => return Err(io::ErrorKind::BrokenPipe.into()),
                () = sleep(time) => {}
            }
        }
        lock(&loading.0.state).loaded = Some(Loaded {
            context: wish.context,
            until: wish.keep.map(|keep| Instant::now() + keep),
        });
        Ok(())
    }

    fn begin(&self) -> Option<Loading<'_>> {
        let is_free = !std::mem::replace(&mut lock(&self.0.state).is_loading, true);
        is_free.then(|| Loading(&self.0))
    }

    /// A request has come or has ended: from now on the model is kept for as long as this wishes.
    pub(super) fn keep(&self, wish: Wish) {
        let mut state = lock(&self.0.state);
        if let Some(loaded) = &mut state.loaded {
            loaded.until = wish.keep.map(|keep| Instant::now() + keep);
        }
    }

    /// Forgets the model. Tells whether there was one.
    pub(super) fn forget(&self) -> bool {
        lock(&self.0.state).loaded.take().is_some()
    }

    /// The answer to `/api/ps`.
    pub(super) fn list(&self) -> Value {
        let mut state = lock(&self.0.state);
        state.expire();
        let models = state.loaded.map(|loaded| {
            json!({
                "name": MODEL, "model": MODEL, "digest": "d1", "size": 4_000_000_000_u64,
                "size_vram": 4_000_000_000_u64, "context_length": loaded.context,
                "expires_at": "2124-01-06T00:00:00Z",
            })
        });
        json!({"models": models.into_iter().collect::<Vec<_>>()})
    }
}

impl State {
    fn expire(&mut self) {
        let is_over = |loaded: &Loaded| loaded.until.is_some_and(|until| until <= Instant::now());
        self.loaded.take_if(|loaded| is_over(loaded));
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_loading = false;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_is_seconds_or_a_duration_and_less_than_nothing_is_for_ever() {
        for (value, kept) in [
            (json!(null), Some(KEPT)),
            (json!(0), Some(Duration::ZERO)),
            (json!("0"), Some(Duration::ZERO)),
            (json!(90), Some(Duration::from_secs(90))),
            (json!("30m"), Some(Duration::from_secs(1_800))),
            (json!("500ms"), Some(Duration::from_millis(500))),
            (json!(-1), None),
            (json!("-1m"), None),
        ] {
            assert_eq!(keep(&value), kept, "{value}");
        }
    }
}

//! What happened, in order, and a way to wait for it.
//!
//! Invariant: a waiter sees every entry exactly once, those before it began to wait included.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

/// How long a waiting call waits before it panics with what was seen instead. Far above what anything here takes, so
/// that it only ever ends a test that would fail anyway.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many of the last entries a panic shows.
const SHOWN: usize = 12;

pub(crate) struct Journal<T> {
    entries: Mutex<Vec<Arc<T>>>,
    length: watch::Sender<usize>,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            length: watch::Sender::new(0),
        }
    }
}

impl<T: Debug> Journal<T> {
    pub(crate) fn push(&self, entry: Arc<T>) {
        let mut entries = lock(&self.entries);
        entries.push(entry);
        self.length.send_replace(entries.len());
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        lock(&self.entries).clone()
    }

    /// The first entry from `from` on that matches, with its place; waits for it if there is none yet.
    pub(crate) async fn find(
        &self,
        from: usize,
        what: &str,
        matches: impl Fn(&T) -> bool,
    ) -> (usize, Arc<T>) {
        let mut next = from;
        let found = tokio::time::timeout(PATIENCE, async {
            let mut length = self.length.subscribe();
            loop {
                length.borrow_and_update();
                while let Some(entry) = self.get(next) {
                    next += 1;
                    if matches(&entry) {
                        return (next - 1, entry);
                    }
                }
                // Cannot fail: `self` holds the sender.
                let _ = length.changed().await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!(
                "waited {PATIENCE:?} for {what}; the last of what was seen:\n{}",
                self.tail()
            ),
        }
    }

    fn get(&self, index: usize) -> Option<Arc<T>> {
        lock(&self.entries).get(index).cloned()
    }

    pub(crate) fn tail(&self) -> String {
        let entries = lock(&self.entries);
        let shown = &entries[entries.len().saturating_sub(SHOWN)..];
        shown.iter().map(|entry| format!("  {entry:?}\n")).collect()
    }
}

/// Locks state that is whole between any two statements, so one panicking test thread does not fail the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `holds`, on state that announces its changes through a watch channel.
pub(crate) async fn wait_until<T: Clone + Debug>(
    mut changes: watch::Receiver<T>,
    what: &str,
    holds: impl FnMut(&T) -> bool,
) -> T {
    let last = changes.clone();
    match tokio::time::timeout(PATIENCE, changes.wait_for(holds)).await {
        Ok(Ok(value)) => value.clone(),
        Ok(Err(_)) => panic!(
            "stopped while somebody waited for {what}; last seen: {:?}",
            *last.borrow()
        ),
        Err(_) => panic!(
            "waited {PATIENCE:?} for {what}; last seen: {:?}",
            *last.borrow()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_finds_what_was_before_it_and_what_comes_after() {
        let journal = Arc::new(Journal::default());
        journal.push(Arc::new(1));
        assert_eq!(journal.find(0, "a one", |entry| *entry == 1).await.0, 0);

        let waiter = tokio::spawn({
            let journal = Arc::clone(&journal);
            async move { journal.find(1, "a two", |entry| *entry == 2).await.0 }
        });
        tokio::task::yield_now().await;
        journal.push(Arc::new(3));
        journal.push(Arc::new(2));
        assert_eq!(waiter.await.ok(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited 60s for a two; the last of what was seen:\n  1\n")]
    async fn a_wait_that_is_in_vain_ends_with_what_was_seen() {
        let journal = Journal::default();
        journal.push(Arc::new(1));
        journal.find(0, "a two", |entry| *entry == 2).await;
    }
}

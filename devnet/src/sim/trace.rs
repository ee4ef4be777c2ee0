//! What happened, line by line, in virtual time.
//!
//! Invariant: a line holds nothing that differs between two runs of one seed: no masks, no addresses, no real time.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use crate::journal::lock;

/// Where everybody tells what they see. The hash is kept always, the lines only where somebody will read them.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Lines>>);

struct Lines {
    began: Instant,
    hash: u64,
    kept: Option<Vec<String>>,
}

impl Trace {
    /// A trace that begins now. `keep`: the lines, too.
    pub fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            began: Instant::now(),
            hash: 0xCBF2_9CE4_8422_2325,
            kept: keep.then(Vec::new),
        })))
    }

    /// Tells something.
    pub fn say(&self, what: fmt::Arguments<'_>) {
        let mut lines = lock(&self.0);
        let at = lines.began.elapsed().as_millis();
        let line = format!("{at:>9} ms  {what}");
        // FNV-1a.
        lines.hash = line.bytes().fold(lines.hash, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        if let Some(kept) = &mut lines.kept {
            kept.push(line);
        }
    }

    /// A moment in milliseconds since the beginning.
    pub fn millis(&self, moment: Instant) -> u128 {
        moment
            .saturating_duration_since(lock(&self.0).began)
            .as_millis()
    }

    /// A number that two equal traces share.
    pub fn hash(&self) -> u64 {
        lock(&self.0).hash
    }

    /// The lines, where they were kept.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.0).kept.clone().unwrap_or_default()
    }
}

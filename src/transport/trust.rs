//! Whom TLS trusts just now, for a process that runs for months while the file of roots is replaced.
//!
//! Invariant: there is always something to connect with. A file that cannot be used, or is not read in time, does not take
//! away the last good roots, and says so; nobody waits for it on the thread that serves chats.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use rustls::ClientConfig;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    TlsError, client_config,
    tls::{read_roots, trusting},
};

/// How long a connection waits for the file before it takes the last good roots, and how long the first read that hangs is
/// waited for until another is begun beside it. Each further one is given twice as long: so there are never many of them,
/// and the file is read within twice the time for which it could not be.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The TLS settings for the next connection.
pub struct Trust {
    /// `None`: they do not change.
    file: Option<PathBuf>,
    /// How the file is read.
    read: fn(&Path) -> Result<Vec<u8>, TlsError>,
    state: Arc<Mutex<State>>,
}

struct State {
    config: Arc<ClientConfig>,
    /// What the file held when these were made.
    text: Vec<u8>,
    /// What is wrong with the file now.
    trouble: Option<String>,
    /// The youngest read, while it has not come to its end. Whoever connects meanwhile waits for it, too.
    reading: Option<Reading>,
    /// How long the next read is the youngest, if it hangs.
    patience: Duration,
    /// How many reads were begun: the next one's number.
    begun: u64,
    /// The number of the youngest read that has come to its end: what an older one brings is out of date.
    ended: Option<u64>,
}

struct Reading {
    number: u64,
    done: Shared<BoxFuture<'static, ()>>,
    /// When another is begun beside it.
    hangs_from: Instant,
}

impl From<Arc<ClientConfig>> for Trust {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self::new(None, config, Vec::new())
    }
}

impl Trust {
    /// The built-in roots, and those in the file; that is read again for every connection.
    ///
    /// # Errors
    /// The file cannot be used: there are no good roots to keep yet.
    pub fn with_file(file: Option<&Path>) -> Result<Self, TlsError> {
        let Some(file) = file else {
            return Ok(client_config(None)?.into());
        };
        let text = read_roots(file)?;
        let config = trusting(file, &text)?;
        Ok(Self::new(Some(file.to_owned()), config, text))
    }

    fn new(file: Option<PathBuf>, config: Arc<ClientConfig>, text: Vec<u8>) -> Self {
        let state = State {
            config,
            text,
            trouble: None,
            reading: None,
            patience: READ_LIMIT,
            begun: 0,
            ended: None,
        };
        Self {
            file,
            read: read_roots,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// What to connect with: what the file says now, else the last good one.
    pub async fn current(&self) -> Arc<ClientConfig> {
        self.read_again().await;
        Arc::clone(&lock(&self.state).config)
    }

    /// Reads the file again, if there is one.
    pub async fn read_again(&self) {
        let Some(reading) = self.reading() else {
            return;
        };
        let read = timeout(READ_LIMIT, reading).await;
        let mut state = lock(&self.state);
        if read.is_err() && state.reading.is_some() {
            let limit = humantime::format_duration(READ_LIMIT);
            let slow = format!("PIN_TLS_CA_FILE could not be read within {limit}");
            state.set_trouble(Some(slow));
        }
    }

    /// The read that is under way, begun now if none was, or if that hangs.
    fn reading(&self) -> Option<Shared<BoxFuture<'static, ()>>> {
        let file = self.file.clone()?;
        let mut state = lock(&self.state);
        let now = Instant::now();
        if let Some(reading) = &state.reading {
            if now < reading.hangs_from {
                return Some(reading.done.clone());
            }
            state.patience *= 2;
        }
        let number = state.begun;
        state.begun += 1;
        let (read, shared) = (self.read, Arc::clone(&self.state));
        let reading = spawn_blocking(move || take(&file, read(&file), number, &shared));
        // It sets the state, unless it has panicked.
        let done = reading.map(|_| ()).boxed().shared();
        state.reading = Some(Reading {
            number,
            done: done.clone(),
            hangs_from: now + state.patience,
        });
        Some(done)
    }

    /// What is wrong with the file, though the last good roots still serve.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }
}

/// Takes what a read has brought.
fn take(file: &Path, read: Result<Vec<u8>, TlsError>, number: u64, state: &Mutex<State>) {
    let is_known = |text: &Vec<u8>| *text == lock(state).text;
    let made = match read {
        Ok(text) if is_known(&text) => Ok(None),
        Ok(text) => trusting(file, &text).map(|config| Some((config, text))),
        Err(error) => Err(error),
    };
    let mut state = lock(state);
    if !state.end(number) {
        return;
    }
    match made {
        Ok(None) => state.set_trouble(None),
        Ok(Some((config, text))) => {
            info!("PIN_TLS_CA_FILE has changed: its certificates are trusted from now on");
            state.config = config;
            state.text = text;
            state.set_trouble(None);
        }
        Err(error) => state.set_trouble(Some(error.to_string())),
    }
}

impl State {
    /// A read has come to its end. Whether it is the youngest that has.
    fn end(&mut self, number: u64) -> bool {
        if self.ended >= Some(number) {
            return false;
        }
        self.ended = Some(number);
        if self
            .reading
            .as_ref()
            .is_some_and(|reading| reading.number == number)
        {
            self.reading = None;
            self.patience = READ_LIMIT;
        }
        true
    }

    /// Told when it is new, and when it is over.
    fn set_trouble(&mut self, trouble: Option<String>) {
        if self.trouble == trouble {
            return;
        }
        match &trouble {
            Some(error) => {
                warn!(%error, "the root certificates cannot be read: the last good ones are used");
            }
            None => info!("the root certificates can be read again"),
        }
        self.trouble = trouble;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, thread};

    use tokio::time::advance;

    use super::*;

    /// How long the file server in the test keeps silent.
    const OUTAGE: Duration = Duration::from_millis(50);

    fn bundle(name: &str) -> String {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        made.cert.pem()
    }

    /// A file server that hangs while there is a file beside the one that is asked for; then it has what was there before.
    fn slow(file: &Path) -> Result<Vec<u8>, TlsError> {
        let held = read_roots(file);
        let hangs = file.with_extension("hangs");
        if fs::remove_file(&hangs).is_ok() {
            // With the folder a test that has failed is over.
            while file.exists() && !file.with_extension("released").exists() {
                thread::sleep(OUTAGE);
            }
        }
        held
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_hangs_keeps_the_file_from_being_read_for_a_while_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, bundle("old")).unwrap();
        let mut trust = Trust::with_file(Some(&file)).unwrap();
        trust.read = slow;
        let old = trust.current().await;
        assert_eq!(trust.trouble(), None);

        let hangs = file.with_extension("hangs");
        fs::write(&hangs, "").unwrap();
        // Or the next read might be the one that hangs.
        let begun = async {
            while hangs.exists() {
                thread::sleep(OUTAGE);
            }
            advance(READ_LIMIT).await;
        };
        let (kept, ()) = tokio::join!(trust.current(), begun);
        assert!(Arc::ptr_eq(&kept, &old));
        assert!(
            trust
                .trouble()
                .unwrap()
                .contains("could not be read within 5s")
        );

        fs::write(&file, bundle("new")).unwrap();
        let new = trust.current().await;
        assert!(!Arc::ptr_eq(&new, &old), "the file is not read again");
        assert_eq!(trust.trouble(), None);

        // What the old read brings at last does not count.
        fs::write(file.with_extension("released"), "").unwrap();
        while Arc::strong_count(&trust.state) > 1 {
            thread::sleep(OUTAGE);
        }
        assert!(Arc::ptr_eq(&lock(&trust.state).config, &new));
    }
}

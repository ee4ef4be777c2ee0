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
use tokio::{task::spawn_blocking, time::timeout};
use tracing::{info, warn};

use super::{
    TlsError, client_config,
    tls::{read_roots, trusting},
};

/// How long a connection waits for the file before it takes the last good roots.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The TLS settings for the next connection.
pub struct Trust {
    /// `None`: they do not change.
    file: Option<PathBuf>,
    state: Arc<Mutex<State>>,
}

struct State {
    config: Arc<ClientConfig>,
    /// What the file held when these were made.
    text: Vec<u8>,
    /// What is wrong with the file now.
    trouble: Option<String>,
    /// A read that has not come to its end. There is one at a time, however often somebody connects.
    reading: Option<Shared<BoxFuture<'static, ()>>>,
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
        };
        Self {
            file,
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
        if read.is_ok() {
            state.reading = None;
        } else {
            let limit = humantime::format_duration(READ_LIMIT);
            let slow = format!("PIN_TLS_CA_FILE could not be read within {limit}");
            state.set_trouble(Some(slow));
        }
    }

    /// The read that is under way, begun now if none was.
    fn reading(&self) -> Option<Shared<BoxFuture<'static, ()>>> {
        let file = self.file.clone()?;
        let state = Arc::clone(&self.state);
        let begin = || {
            let read = spawn_blocking(move || read_again(&file, &state));
            // It sets the state, unless it has panicked.
            read.map(|_| ()).boxed().shared()
        };
        Some(lock(&self.state).reading.get_or_insert_with(begin).clone())
    }

    /// What is wrong with the file, though the last good roots still serve.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }
}

fn read_again(file: &Path, state: &Mutex<State>) {
    let read = read_roots(file);
    if let Ok(text) = &read
        && *text == lock(state).text
    {
        return lock(state).set_trouble(None);
    }
    let made = read.and_then(|text| Ok((trusting(file, &text)?, text)));
    let mut state = lock(state);
    match made {
        Ok((config, text)) => {
            info!("PIN_TLS_CA_FILE has changed: its certificates are trusted from now on");
            state.config = config;
            state.text = text;
            state.set_trouble(None);
        }
        Err(error) => state.set_trouble(Some(error.to_string())),
    }
}

impl State {
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

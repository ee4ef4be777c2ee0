//! The secret as it is now, for a process that runs for months while files are rotated.
//!
//! Invariant: there is always a secret to log in with. A read that fails, or that waits for a person or a file server,
//! does not take away the last good one, and nobody waits for it on the thread that serves chats.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{SecretError, SecretSource};

/// How long a login waits for the secret before it takes the last good one. A keyring may ask a person to unlock it.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// What one look at the secret's place gives.
struct Look {
    /// Taken before the read: a change in between is then seen as one.
    seen: Option<Fingerprint>,
    secret: Result<SecretString, SecretError>,
}

/// Reads the secret anew for each login and keeps the last good one.
pub struct SecretKeeper {
    /// `None`: it was given as a value and cannot change.
    look: Option<Arc<dyn Fn() -> Look + Send + Sync>>,
    /// Where a file is that may change; a keyring never tells.
    file: Option<Arc<Path>>,
    last_good: SecretString,
    seen: Option<Fingerprint>,
    /// A read that has not come to its end. There is one at a time, however often somebody asks.
    reading: Option<JoinHandle<Look>>,
}

impl SecretKeeper {
    /// Reads the secret for the first time. Blocks as [`SecretSource::read`] does.
    ///
    /// # Errors
    /// It cannot be had: there is none to keep yet.
    pub fn new(source: SecretSource) -> Result<Self, SecretError> {
        match &source {
            SecretSource::Value(secret) => Ok(Self {
                look: None,
                file: None,
                last_good: secret.clone(),
                seen: None,
                reading: None,
            }),
            SecretSource::File { path, .. } => {
                let file: Arc<Path> = Arc::from(path.as_path());
                let at = Arc::clone(&file);
                let look = move || Look {
                    seen: Fingerprint::of(&at),
                    secret: source.read(),
                };
                Self::looking(look, Some(file))
            }
            #[cfg(feature = "keyring")]
            SecretSource::Keyring { .. } => {
                let look = move || Look {
                    seen: None,
                    secret: source.read(),
                };
                Self::looking(look, None)
            }
        }
    }

    fn looking(
        look: impl Fn() -> Look + Send + Sync + 'static,
        file: Option<Arc<Path>>,
    ) -> Result<Self, SecretError> {
        let first = look();
        Ok(Self {
            look: Some(Arc::new(look)),
            file,
            last_good: first.secret?,
            seen: first.seen,
            reading: None,
        })
    }

    /// The secret to log in with. If it could not be read just now this is the last good one, and the error says why.
    pub async fn current(&mut self) -> (SecretString, Option<SecretError>) {
        let look = self.look.clone();
        let problem = match look {
            None => None,
            Some(look) => self.look_again(look).await.err(),
        };
        (self.last_good.clone(), problem)
    }

    async fn look_again(
        &mut self,
        look: Arc<dyn Fn() -> Look + Send + Sync>,
    ) -> Result<(), SecretError> {
        let reading = self
            .reading
            .get_or_insert_with(|| spawn_blocking(move || look()));
        let Ok(read) = timeout(READ_LIMIT, reading).await else {
            return Err(SecretError::Slow(READ_LIMIT));
        };
        self.reading = None;
        // It ends with a look, unless that has panicked.
        let look = read.map_err(|_| SecretError::Slow(READ_LIMIT))?;
        self.seen = look.seen;
        self.last_good = look.secret?;
        Ok(())
    }

    /// Whether the secret's file has changed since it was last read, so that a refused login is worth another try. One
    /// look at the file's metadata.
    pub async fn changed(&self) -> bool {
        let Some(file) = self.file.clone() else {
            return false;
        };
        let now = spawn_blocking(move || Fingerprint::of(&file)).await;
        now.is_ok_and(|now| now != self.seen)
    }
}

/// What changes when a file is written or, as Kubernetes does, replaced.
#[derive(Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            // Also a file that is only made readable has changed.
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{
        Mutex,
        mpsc::{Receiver, channel},
    };

    use secrecy::ExposeSecret as _;

    use super::*;

    /// A keyring that answers when it is told to, and the first time at once.
    fn slow(answers: Receiver<&'static str>) -> SecretKeeper {
        let answers = Mutex::new(answers);
        let look = move || Look {
            seen: None,
            secret: Ok(SecretString::from(answers.lock().unwrap().recv().unwrap())),
        };
        SecretKeeper::looking(look, None).unwrap()
    }

    #[tokio::test]
    async fn while_a_keyring_asks_a_person_the_last_good_secret_serves_and_nobody_waits_on_this_thread()
     {
        let (answer, answers) = channel();
        answer.send("first").unwrap();
        let mut keeper = slow(answers);
        // Nobody answers: what else is to be done on this thread is done all the same.
        let mut ticks = 0;
        tokio::select! {
            biased;
            _ = keeper.current() => unreachable!("it has not been answered"),
            () = async {
                while ticks < 10 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    ticks += 1;
                }
            } => {}
        }
        assert_eq!(ticks, 10);
        answer.send("second").unwrap();
        let (secret, problem) = keeper.current().await;
        assert_eq!(
            secret.expose_secret(),
            "second",
            "the read that was under way"
        );
        assert!(problem.is_none());
    }

    #[tokio::test]
    async fn a_read_that_takes_too_long_is_told_and_not_begun_a_second_time() {
        let (answer, answers) = channel();
        answer.send("first").unwrap();
        let mut keeper = slow(answers);
        tokio::time::pause();
        // A clock that stands still does not go on by itself while a thread is at work.
        for _ in 0..3 {
            let (secret, problem) = tokio::select! {
                biased;
                current = keeper.current() => current,
                () = move_the_clock_on() => unreachable!(),
            };
            assert_eq!(secret.expose_secret(), "first");
            assert!(
                problem.unwrap().to_string().contains("unlock"),
                "what to do"
            );
        }
        answer.send("second").unwrap();
        tokio::time::resume();
        assert_eq!(keeper.current().await.0.expose_secret(), "second");
    }

    /// For as long as it is polled.
    async fn move_the_clock_on() {
        loop {
            tokio::task::yield_now().await;
            tokio::time::advance(READ_LIMIT).await;
        }
    }
}

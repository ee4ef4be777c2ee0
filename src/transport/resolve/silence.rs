//! Which DNS servers were silent a moment ago, so that the next question does not wait for them again.
//!
//! Invariant: a server is put off for [`PUT_OFF`] at most, and only behind one that was not silent: where all were, or
//! none, the order is the file's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a server that was silent is asked last. Short, since the order of servers may have a meaning, and a silence
/// costs a second at most once in this time.
const PUT_OFF: Duration = Duration::from_secs(60);

/// What is remembered of servers. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Silence(Arc<Mutex<HashMap<SocketAddr, Heard>>>);

/// What was last known of one.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// When it last said anything at all.
    answered: Option<Instant>,
    /// When it was last waited for in vain.
    silent: Option<Instant>,
}

impl Silence {
    /// Sorts those to the end that were silent a moment ago, and forgets all servers but these.
    pub(super) fn put_last(&self, servers: &mut [SocketAddr]) {
        let mut known = self.known();
        known.retain(|server, _| servers.contains(server));
        servers.sort_by_key(|server| known.get(server).is_some_and(Heard::is_put_off));
    }

    /// The server has answered.
    pub(super) fn answered(&self, server: SocketAddr) {
        let heard = Heard {
            answered: Some(Instant::now()),
            silent: None,
        };
        self.known().insert(server, heard);
    }

    /// The server has not answered what it was asked at `asked`. If it has answered something else since, a datagram was
    /// lost, and the server is there.
    pub(super) fn silent_since(&self, server: SocketAddr, asked: Instant) {
        let mut known = self.known();
        let heard = known.entry(server).or_default();
        if heard.answered.is_none_or(|answered| answered < asked) {
            heard.silent = Some(Instant::now());
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SocketAddr, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn is_put_off(&self) -> bool {
        self.silent.is_some_and(|at| at.elapsed() < PUT_OFF)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn server(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 53))
    }

    fn order(silence: &Silence) -> Vec<SocketAddr> {
        let mut servers = [1, 2, 3].map(server);
        silence.put_last(&mut servers);
        servers.to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_asked_last_until_it_answers_or_a_minute_is_over() {
        let silence = Silence::default();
        silence.silent_since(server(1), Instant::now());
        assert_eq!(order(&silence), [2, 3, 1].map(server));
        silence.answered(server(1));
        assert_eq!(order(&silence), [1, 2, 3].map(server));
        advance(Duration::from_secs(1)).await;
        silence.silent_since(server(1), Instant::now());
        assert_eq!(order(&silence), [2, 3, 1].map(server));
        advance(PUT_OFF).await;
        assert_eq!(order(&silence), [1, 2, 3].map(server));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_datagram_is_no_silence_where_another_question_was_answered() {
        let silence = Silence::default();
        let asked = Instant::now();
        silence.answered(server(1));
        advance(Duration::from_secs(1)).await;
        silence.silent_since(server(1), asked);
        assert_eq!(order(&silence), [1, 2, 3].map(server));
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_silent_the_order_is_the_files_and_others_are_forgotten() {
        let silence = Silence::default();
        for n in 1..=9 {
            silence.silent_since(server(n), Instant::now());
        }
        assert_eq!(order(&silence), [1, 2, 3].map(server));
        assert_eq!(silence.known().len(), 3);
    }
}

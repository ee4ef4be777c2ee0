//! Asks the DNS about a name: which complete names it may stand for, both families of each, server by server.
//!
//! A server's turn comes when those before it have failed or kept silent for a second; its predecessors may still answer.
//! So a dead server costs a second, once and not for each name, and a lost datagram too; and a server that is there decides
//! alone: where two see different names (a company's own before a public one), the order in resolv.conf is meant.

use std::{collections::BTreeMap, net::SocketAddr, pin::pin, time::Duration};

use domain::base::Name;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    error::{LookupFailure, NameError, ServerFailure},
    exchange::{self, Answer, Family, Question},
    resolv_conf::ResolvConf,
    silence::Silence,
};

/// The silence after which the next server is asked as well. Most answers take milliseconds, and one that has to be
/// found first rarely takes longer.
const SILENCE: Duration = Duration::from_secs(1);

/// How long addresses of one family wait for the other's: RFC 8305's resolution delay.
const OTHER_FAMILY: Duration = Duration::from_millis(50);

/// One look-up: whom to ask, and until when.
pub(super) struct Lookup {
    pub(super) conf: ResolvConf,
    pub(super) silence: Silence,
    pub(super) deadline: Instant,
}

impl Lookup {
    /// The addresses of `host`, which is a name; port 0.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<SocketAddr>, NameError> {
        let mut told = NameError::NoSuchName;
        for name in complete_names(host, &self.conf) {
            match self.addresses_of(&name).await {
                Ok(addresses) => return Ok(addresses),
                Err(silence) if silence.is_silence() => return Err(silence),
                // What one name had to say is told only if all the others do not exist.
                Err(NameError::NoSuchName) => {}
                Err(error) => told = error,
            }
        }
        Err(told)
    }

    /// The addresses of one complete name. One family that fails does not fail the other.
    async fn addresses_of(&self, name: &Name<Vec<u8>>) -> Result<Vec<SocketAddr>, NameError> {
        let mut questions: FuturesUnordered<_> = [Family::V6, Family::V4]
            .into_iter()
            .map(|family| {
                let (name, tcp) = (name.clone(), self.conf.tcp);
                self.ask_in_turn(Question { name, family, tcp })
            })
            .collect();
        let mut known = Known::default();
        // Each question ends by the deadline itself, and with a reason.
        let mut end = self.deadline + SILENCE;
        while let Ok(Some(answer)) = timeout_at(end, questions.next()).await {
            if let Some(patience) = patience(&answer) {
                end = end.min(Instant::now() + patience);
            }
            known.add(answer);
        }
        known.into_result()
    }

    /// Asks one server after the other until one has an answer.
    async fn ask_in_turn(&self, question: Question) -> Result<Answer, NameError> {
        let mut turns = self.turns().into_iter();
        let mut asked = FuturesUnordered::new();
        let mut troubles = BTreeMap::<usize, ServerFailure>::new();
        let silence = self.longest_silence();
        loop {
            if let Some((place, server)) = turns.next() {
                let answer = self.ask(server, &question, silence);
                asked.push(async move { (place, server, answer.await) });
            }
            let silence = async {
                match turns.len() {
                    0 => std::future::pending().await,
                    _ => sleep(silence).await,
                }
            };
            tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some((_, _, Ok(answer))) => return Ok(answer),
                    Some((place, server, Err(trouble))) => {
                        troubles.insert(place, ServerFailure::new(server, trouble));
                    }
                    None => return Err(NameError::Unanswered(troubles.into_values().collect())),
                },
                () = silence => {}
            }
        }
    }

    /// Asks one server, and keeps in mind whether it says anything.
    async fn ask(
        &self,
        server: SocketAddr,
        question: &Question,
        silence: Duration,
    ) -> Result<Answer, LookupFailure> {
        let began = Instant::now();
        let end = self.deadline.min(began + self.conf.timeout);
        let mut answer = pin!(exchange::ask(server, question, end));
        let answer = match timeout(silence, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => {
                self.silence.silent_since(server, began);
                answer.await
            }
        };
        match answer {
            Ok(_) | Err(LookupFailure::Refused(_)) => self.silence.answered(server),
            Err(LookupFailure::Silent) => self.silence.silent_since(server, began),
            // That is said at once, and takes nobody's time.
            Err(LookupFailure::Unreachable(_)) => {}
        }
        answer
    }

    /// How long a server is waited for before the next is asked as well: in a short time each still has its turn.
    fn longest_silence(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let servers = u32::try_from(self.conf.servers.len()).unwrap_or(u32::MAX);
        SILENCE.min(left / servers.saturating_add(1))
    }

    /// The servers, each with its place in the order, as often as each is asked.
    fn turns(&self) -> Vec<(usize, SocketAddr)> {
        let mut servers = self.conf.servers.clone();
        if self.conf.rotate {
            let first = fastrand::usize(..servers.len());
            servers.rotate_left(first);
        }
        self.silence.put_last(&mut servers);
        let round: Vec<_> = servers.into_iter().enumerate().collect();
        round.repeat(self.conf.attempts)
    }
}

/// The names to try, in libc's order. What cannot be a name (a label of 64 bytes, two dots in a row) is left out.
fn complete_names(host: &str, conf: &ResolvConf) -> Vec<Name<Vec<u8>>> {
    if !could_be_a_name(host) {
        return Vec::new();
    }
    let dots = host.matches('.').count();
    let searched = conf.search.iter().map(|suffix| format!("{host}.{suffix}"));
    let names: Vec<_> = if host.ends_with('.') {
        vec![host.to_owned()]
    } else if dots >= conf.ndots {
        [host.to_owned()].into_iter().chain(searched).collect()
    } else {
        searched.chain([host.to_owned()]).collect()
    };
    let names = names.iter();
    names
        .filter_map(|name| Name::vec_from_str(name).ok())
        .collect()
}

/// Neither the root, nor in the syntax of zone files, nor in a script that has to be written as `xn--`.
fn could_be_a_name(host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    !host.trim_matches('.').is_empty() && host.bytes().all(plain)
}

/// How long the other family is waited for after this answer; `None` is as long as it takes.
fn patience(answer: &Result<Answer, NameError>) -> Option<Duration> {
    match answer {
        Ok(Answer::Addresses(_)) => Some(OTHER_FAMILY),
        // This should hold for both families; some servers only mean the one that they were asked for.
        Ok(Answer::NoSuchName) => Some(SILENCE),
        Ok(Answer::NoAddress) | Err(_) => None,
    }
}

/// What is known of one name.
#[derive(Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    no_such_name: bool,
    error: Option<NameError>,
}

impl Known {
    fn add(&mut self, answer: Result<Answer, NameError>) {
        match answer {
            Ok(Answer::Addresses(found)) => {
                let found = found.into_iter().map(|ip| SocketAddr::new(ip, 0));
                self.addresses.extend(found);
            }
            Ok(Answer::NoSuchName) => self.no_such_name = true,
            Ok(Answer::NoAddress) => {}
            Err(error) => self.error = Some(error),
        }
    }

    fn into_result(self) -> Result<Vec<SocketAddr>, NameError> {
        if !self.addresses.is_empty() {
            Ok(self.addresses)
        } else if self.no_such_name {
            Err(NameError::NoSuchName)
        } else {
            Err(self.error.unwrap_or(NameError::NoAddress))
        }
    }
}

//! Which of an endpoint's addresses is tried first: as the DNS has them, changed by what became of those tried before.
//!
//! Invariant: every address is tried, only its turn changes, and no more is kept than a few addresses of a few endpoints.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Endpoint;

/// How many endpoints' addresses are remembered. There are a gateway, a proxy and some backends.
const MAX_ENDPOINTS: usize = 64;

/// How many addresses of one are suspects at once.
const MAX_SUSPECTS: usize = 16;

/// How long a suspect comes last. Longer than an attempt at each address takes, short enough for one that was mended to
/// be used again the same day.
const SUSPECTED_FOR: Duration = Duration::from_secs(600);

/// What has become of addresses.
#[derive(Default)]
pub(super) struct AddressOrder(Mutex<HashMap<(String, u16), Learnt>>);

#[derive(Default)]
struct Learnt {
    /// The address that worked where another came first.
    worked: Option<SocketAddr>,
    /// The one that was reached last.
    reached: Option<SocketAddr>,
    /// Those that were reached and then of no use, and when; the oldest first.
    suspects: Vec<(SocketAddr, Instant)>,
}

impl AddressOrder {
    /// The addresses in the order in which to try them: the one that has worked first, families taking turns. Suspects come
    /// last, and before them the rest of their family, whose way may be the same.
    pub(super) fn of(&self, endpoint: &Endpoint, mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut all = self.lock();
        let Some(learnt) = all.get_mut(&key(endpoint)) else {
            return in_turns(found);
        };
        learnt.forget_old_suspects();
        found.sort_by_key(|address| learnt.worked != Some(*address));
        found.sort_by_key(|address| learnt.has_suspects_of_family(*address));
        let (mut suspects, others): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|address| learnt.suspected(*address).is_some());
        suspects.sort_by_key(|address| learnt.suspected(*address));
        let mut order = in_turns(others);
        order.append(&mut suspects);
        order
    }

    /// An address was reached. It is begun with from now on, if `first` is another, or stood back as a suspect. Where the
    /// first works, the DNS decides, which may spread its clients over several.
    pub(super) fn reached(
        &self,
        endpoint: &Endpoint,
        first: Option<SocketAddr>,
        reached: SocketAddr,
    ) {
        let mut all = self.lock();
        if all.len() >= MAX_ENDPOINTS && !all.contains_key(&key(endpoint)) {
            return;
        }
        let learnt = all.entry(key(endpoint)).or_default();
        learnt.reached = Some(reached);
        if first != Some(reached) || !learnt.suspects.is_empty() {
            learnt.worked = Some(reached);
        }
    }

    /// The address that was reached last was of no use.
    pub(super) fn suspect(&self, endpoint: &Endpoint) {
        let mut all = self.lock();
        let Some(learnt) = all.get_mut(&key(endpoint)) else {
            return;
        };
        let Some(reached) = learnt.reached.take() else {
            return;
        };
        learnt.suspects.retain(|(address, _)| *address != reached);
        if learnt.suspects.len() == MAX_SUSPECTS {
            learnt.suspects.remove(0);
        }
        learnt.suspects.push((reached, Instant::now()));
        learnt.worked = learnt.worked.filter(|worked| *worked != reached);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, u16), Learnt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Learnt {
    fn forget_old_suspects(&mut self) {
        self.suspects
            .retain(|(_, since)| since.elapsed() < SUSPECTED_FOR);
    }

    /// Its place among the suspects.
    fn suspected(&self, address: SocketAddr) -> Option<usize> {
        let mut suspects = self.suspects.iter();
        suspects.position(|(suspect, _)| *suspect == address)
    }

    fn has_suspects_of_family(&self, address: SocketAddr) -> bool {
        let mut suspects = self.suspects.iter();
        suspects.any(|(suspect, _)| suspect.is_ipv4() == address.is_ipv4())
    }
}

/// The families taking turns, beginning with that of the first address.
fn in_turns(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen_of_family = [0, 0];
    addresses.sort_by_cached_key(|address| {
        let seen = &mut seen_of_family[usize::from(address.is_ipv4())];
        *seen += 1;
        *seen
    });
    addresses
}

fn key(endpoint: &Endpoint) -> (String, u16) {
    (endpoint.host.clone(), endpoint.port)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn addresses() -> [SocketAddr; 4] {
        let texts = [
            "[2001:db8::6]:1",
            "[2001:db8::7]:1",
            "192.0.2.4:1",
            "192.0.2.5:1",
        ];
        texts.map(|text| text.parse().unwrap())
    }

    fn gateway() -> Endpoint {
        Endpoint {
            host: "gateway.example".to_owned(),
            port: 1,
            tls: true,
        }
    }

    #[test]
    fn both_families_get_their_chance_early() {
        let [six, seven, four, five] = addresses();
        assert_eq!(
            in_turns(vec![six, seven, four, five]),
            [six, four, seven, five]
        );
        assert_eq!(in_turns(vec![four, five]), [four, five]);
    }

    #[test]
    fn what_worked_where_the_first_did_not_is_tried_first_the_next_time() {
        let (order, gateway, [six, _, four, _]) = (AddressOrder::default(), gateway(), addresses());
        order.reached(&gateway, Some(six), six);
        assert_eq!(order.of(&gateway, vec![six, four]), [six, four]);
        order.reached(&gateway, Some(six), four);
        assert_eq!(order.of(&gateway, vec![six, four]), [four, six]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_was_of_no_use_comes_last_for_a_while_and_its_family_after_the_other() {
        let (order, gateway, [six, seven, four, _]) =
            (AddressOrder::default(), gateway(), addresses());
        let found = || vec![six, seven, four];
        order.reached(&gateway, Some(six), six);
        order.suspect(&gateway);
        assert_eq!(order.of(&gateway, found()), [four, seven, six]);
        assert_eq!(order.of(&gateway, vec![six]), [six], "there is no other");

        // What is of no use itself is no better, even if it was what worked.
        order.reached(&gateway, Some(four), four);
        order.suspect(&gateway);
        assert_eq!(order.of(&gateway, found()), [seven, six, four]);
        order.reached(&gateway, Some(seven), seven);
        order.suspect(&gateway);
        assert_eq!(order.of(&gateway, found()), [six, four, seven]);

        order.reached(&gateway, Some(six), six);
        advance(SUSPECTED_FOR).await;
        assert_eq!(
            order.of(&gateway, vec![seven, six]),
            [six, seven],
            "it has worked"
        );
        order.reached(&gateway, Some(six), six);
        assert_eq!(order.of(&gateway, vec![four, six]), [six, four]);
    }

    #[test]
    fn only_so_much_is_kept() {
        let (order, mut gateway, [six, ..]) = (AddressOrder::default(), gateway(), addresses());
        for port in 0..1000 {
            order.reached(&gateway, None, SocketAddr::new(six.ip(), port));
            order.suspect(&gateway);
        }
        assert_eq!(order.lock()[&key(&gateway)].suspects.len(), MAX_SUSPECTS);
        for port in 0..1000 {
            gateway.port = port;
            order.reached(&gateway, None, six);
        }
        assert_eq!(order.lock().len(), MAX_ENDPOINTS);
    }
}

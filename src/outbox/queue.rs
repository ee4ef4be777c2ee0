//! A queue of things about requests, from which all that is about one of them can be taken out.
//!
//! Invariant: what leaves leaves in the order in which it came, and every operation takes time in the logarithm of what
//! waits (and in what it takes out), so that a peer cannot make it scan.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::protocol::RequestId;

#[derive(Debug)]
pub(super) struct Queue<T> {
    /// By its place in the order.
    items: BTreeMap<u64, (RequestId, T)>,
    /// The places of each request's items, in order.
    places: HashMap<RequestId, VecDeque<u64>>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn push(&mut self, request_id: RequestId, item: T) {
        let place = self.next;
        self.next += 1;
        match self.places.get_mut(&request_id) {
            Some(places) => places.push_back(place),
            None => drop(
                self.places
                    .insert(request_id.clone(), VecDeque::from([place])),
            ),
        }
        self.items.insert(place, (request_id, item));
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.items.first_key_value().map(|(_, (_, item))| item)
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let (_, (request_id, item)) = self.items.pop_first()?;
        self.leave(&request_id);
        Some(item)
    }

    /// Takes out the first item about a request.
    pub(super) fn pop_first_about(&mut self, request_id: &RequestId) -> Option<T> {
        let place = self.leave(request_id)?;
        self.items.remove(&place).map(|(_, item)| item)
    }

    /// Takes out what is about a request and matches, in order.
    pub(super) fn remove_about(
        &mut self,
        request_id: &RequestId,
        matches: impl Fn(&T) -> bool,
    ) -> Vec<T> {
        let Some(places) = self.places.remove(request_id) else {
            return Vec::new();
        };
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = places.into_iter().partition(|place| {
            let item = self.items.get(place);
            item.is_none_or(|(_, item)| matches(item))
        });
        if !kept.is_empty() {
            self.places.insert(request_id.clone(), kept);
        }
        let gone = gone.into_iter();
        gone.filter_map(|place| self.items.remove(&place).map(|(_, item)| item))
            .collect()
    }

    /// The first item about a request leaves; gives its place.
    fn leave(&mut self, request_id: &RequestId) -> Option<u64> {
        let places = self.places.get_mut(request_id)?;
        let place = places.pop_front();
        if places.is_empty() {
            self.places.remove(request_id);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> RequestId {
        RequestId::new(&format!("r{n}")).unwrap()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Pop,
        PopAbout(u8),
        Remove(u8, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_u8).prop_map(Step::Push),
            1 => Just(Step::Pop),
            1 => (0..4_u8).prop_map(Step::PopAbout),
            1 => (0..4_u8, any::<bool>()).prop_map(|(n, all)| Step::Remove(n, all)),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_list_from_which_the_items_of_a_request_can_be_taken(steps in prop::collection::vec(step(), 0..60)) {
            let mut queue = Queue::default();
            let mut list: Vec<(u8, usize)> = Vec::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(about) => {
                        queue.push(id(about), n);
                        list.push((about, n));
                    }
                    Step::Pop => {
                        let expected = (!list.is_empty()).then(|| list.remove(0).1);
                        prop_assert_eq!(queue.pop_front(), expected);
                    }
                    Step::PopAbout(about) => {
                        let place = list.iter().position(|(of, _)| *of == about);
                        let expected = place.map(|place| list.remove(place).1);
                        prop_assert_eq!(queue.pop_first_about(&id(about)), expected);
                    }
                    Step::Remove(about, all) => {
                        let goes = |of: u8, item: usize| of == about && (all || item.is_multiple_of(2));
                        let expected: Vec<_> = list.iter().filter(|(of, item)| goes(*of, *item)).map(|(_, item)| *item).collect();
                        list.retain(|(of, item)| !goes(*of, *item));
                        prop_assert_eq!(queue.remove_about(&id(about), |item| all || item.is_multiple_of(2)), expected);
                    }
                }
                prop_assert_eq!(queue.len(), list.len());
                prop_assert_eq!(queue.front(), list.first().map(|(_, item)| item));
            }
            // Nothing is kept of requests that are not in it.
            while queue.pop_front().is_some() {}
            prop_assert!(queue.places.is_empty());
        }
    }
}

//! A queue of things about requests, from which all that is about one of them can be taken out.
//!
//! It is a list. Only while somebody takes things out of the middle of a long one, which is when a peer cancels while the
//! link takes nothing, is it known where each request's things are.
//!
//! Invariant: what leaves leaves in the order in which it came. However long it is, a peer cannot make it scan what waits
//! more than once, nor keep what is gone.

use std::collections::{HashMap, VecDeque};

use crate::protocol::RequestId;

/// A queue of so many entries is looked through faster than anything could be known about it.
const SHORT: usize = 32;

#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// `None` where something was taken out. The first is never `None`.
    entries: VecDeque<Option<Entry<T>>>,
    /// The place of the first; places are never used again.
    first: u64,
    /// How many are not `None`.
    len: usize,
    /// The places of each request's entries, in order, while that is worth it: until the queue is empty.
    places: Option<HashMap<RequestId, VecDeque<u64>>>,
}

#[derive(Debug)]
struct Entry<T> {
    request_id: RequestId,
    item: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            len: 0,
            places: None,
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, request_id: RequestId, item: T) {
        if let Some(places) = &mut self.places {
            let place = self.first + self.entries.len() as u64;
            places
                .entry(request_id.clone())
                .or_default()
                .push_back(place);
        }
        self.entries.push_back(Some(Entry { request_id, item }));
        self.len += 1;
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.entries.front()?.as_ref().map(|entry| &entry.item)
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        self.pop(self.first)
    }

    /// Takes out the first item about a request.
    pub(crate) fn pop_first_about(&mut self, request_id: &RequestId) -> Option<T> {
        let is_first = self
            .at(self.first)
            .is_some_and(|entry| entry.request_id == *request_id);
        let place = if is_first {
            self.first
        } else {
            *self.places_about(request_id).first()?
        };
        self.pop(place)
    }

    /// Takes out what is about a request and matches, in order.
    pub(crate) fn remove_about(
        &mut self,
        request_id: &RequestId,
        matches: impl Fn(&T) -> bool,
    ) -> Vec<T> {
        let (mut removed, mut kept) = (Vec::new(), VecDeque::new());
        for place in self.places_about(request_id) {
            if self.at(place).is_some_and(|entry| matches(&entry.item)) {
                removed.extend(self.take(place).map(|entry| entry.item));
            } else {
                kept.push_back(place);
            }
        }
        if let Some(places) = &mut self.places {
            places.remove(request_id);
            if !kept.is_empty() {
                places.insert(request_id.clone(), kept);
            }
        }
        self.tidy();
        removed
    }

    fn at(&self, place: u64) -> Option<&Entry<T>> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        self.entries.get(index)?.as_ref()
    }

    /// The places of a request's entries, in order.
    fn places_about(&mut self, request_id: &RequestId) -> Vec<u64> {
        if self.entries.len() > SHORT {
            let places = self.all_places().get(request_id);
            return places
                .map(|places| places.iter().copied().collect())
                .unwrap_or_default();
        }
        let is_about = |entry: &Option<Entry<T>>| {
            entry
                .as_ref()
                .is_some_and(|entry| entry.request_id == *request_id)
        };
        (self.first..)
            .zip(&self.entries)
            .filter_map(|(place, entry)| is_about(entry).then_some(place))
            .collect()
    }

    fn all_places(&mut self) -> &HashMap<RequestId, VecDeque<u64>> {
        self.places.get_or_insert_with(|| {
            let mut places = HashMap::<_, VecDeque<_>>::new();
            for (place, entry) in (self.first..).zip(&self.entries) {
                if let Some(entry) = entry {
                    let of_request = places.entry(entry.request_id.clone()).or_default();
                    of_request.push_back(place);
                }
            }
            places
        })
    }

    /// Takes out the entry at this place, which is the first of its request.
    fn pop(&mut self, place: u64) -> Option<T> {
        let entry = self.take(place)?;
        if let Some(places) = &mut self.places
            && let Some(of_request) = places.get_mut(&entry.request_id)
        {
            of_request.pop_front();
            if of_request.is_empty() {
                places.remove(&entry.request_id);
            }
        }
        self.tidy();
        Some(entry.item)
    }

    fn take(&mut self, place: u64) -> Option<Entry<T>> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        let entry = self.entries.get_mut(index)?.take()?;
        self.len -= 1;
        Some(entry)
    }

    /// Lets go of the places of what is gone, once they are more than those of what is there.
    fn tidy(&mut self) {
        while self.entries.front().is_some_and(Option::is_none) {
            self.entries.pop_front();
            self.first += 1;
        }
        if self.len == 0 {
            self.places = None;
        }
        if self.entries.len() > SHORT && self.entries.len() > 2 * self.len {
            self.entries.retain(Option::is_some);
            self.places = None;
        }
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
        fn it_is_a_list_from_which_the_items_of_a_request_can_be_taken(steps in prop::collection::vec(step(), 0..400)) {
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
            prop_assert!(queue.places.is_none() && queue.entries.is_empty());
        }
    }
}

//! Families of metrics whose labels are closed sets. All their series are made at start, so counting is an array
//! access and one atomic addition, and every series is there at 0 before the first event.
//!
//! Invariant: no label's value is unbounded. What is not a closed set is capped: facts here, models in `by_model`.

use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{Mutex, PoisonError},
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::label::Label;

/// The longest value of a label that somebody else has chosen, in bytes.
pub(super) const MAX_VALUE_BYTES: usize = 256;

/// How many keys an [`InfoBy`] holds: nodes of one operator, far beyond what one machine serves.
pub(super) const MAX_INFO_KEYS: usize = 64;

/// A metric that can be made and registered under a name.
pub(super) trait Family: Sized {
    /// What it needs beside name and help: nothing, names of labels, buckets, or both.
    type Spec;

    /// Makes it, with all series that it can have from the start, and registers it.
    ///
    /// # Errors
    /// The name is not valid or is taken: a mistake in the list of metrics.
    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        spec: Self::Spec,
    ) -> prometheus::Result<Self>;
}

pub(super) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

macro_rules! plain_family {
    ($($metric:ty),+) => {$(
        impl Family for $metric {
            type Spec = ();

            fn register(registry: &Registry, name: String, help: &str, (): ()) -> prometheus::Result<Self> {
                registered(registry, Self::new(name, help)?)
            }
        }
    )+};
}

plain_family!(IntCounter, IntGauge, Gauge);

impl Family for Histogram {
    /// The buckets' upper bounds.
    type Spec = &'static [f64];

    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        buckets: Self::Spec,
    ) -> prometheus::Result<Self> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        registered(registry, Self::with_opts(opts)?)
    }
}

/// Counters that differ in one label from a closed set.
pub struct CounterBy<L> {
    counters: Box<[IntCounter]>,
    label: PhantomData<L>,
}

impl<L: Label> CounterBy<L> {
    /// The counter of `label`.
    pub fn of(&self, label: L) -> &IntCounter {
        &self.counters[label.index()]
    }
}

impl<L: Label> Family for CounterBy<L> {
    /// The label's name.
    type Spec = &'static str;

    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        label: Self::Spec,
    ) -> prometheus::Result<Self> {
        let family = registered(
            registry,
            IntCounterVec::new(Opts::new(name, help), &[label])?,
        )?;
        let counters = L::ALL
            .iter()
            .map(|value| family.with_label_values(&[value.as_str()]))
            .collect();
        Ok(Self {
            counters,
            label: PhantomData,
        })
    }
}

/// Counters that differ in two labels, both from closed sets.
pub struct CounterByPair<A, B> {
    counters: Box<[IntCounter]>,
    labels: PhantomData<(A, B)>,
}

impl<A: Label, B: Label> CounterByPair<A, B> {
    /// The counter of the pair.
    pub fn of(&self, first: A, second: B) -> &IntCounter {
        &self.counters[first.index() * B::ALL.len() + second.index()]
    }
}

impl<A: Label, B: Label> Family for CounterByPair<A, B> {
    /// The labels' names.
    type Spec = [&'static str; 2];

    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        labels: Self::Spec,
    ) -> prometheus::Result<Self> {
        let family = registered(
            registry,
            IntCounterVec::new(Opts::new(name, help), &labels)?,
        )?;
        let pairs = A::ALL.iter().flat_map(|first| {
            B::ALL
                .iter()
                .map(move |second| [first.as_str(), second.as_str()])
        });
        let counters = pairs.map(|pair| family.with_label_values(&pair)).collect();
        Ok(Self {
            counters,
            labels: PhantomData,
        })
    }
}

/// Histograms that differ in one label from a closed set.
pub struct HistogramBy<L> {
    histograms: Box<[Histogram]>,
    label: PhantomData<L>,
}

impl<L: Label> HistogramBy<L> {
    /// The histogram of `label`.
    pub fn of(&self, label: L) -> &Histogram {
        &self.histograms[label.index()]
    }
}

impl<L: Label> Family for HistogramBy<L> {
    /// The label's name and the buckets' upper bounds.
    type Spec = (&'static str, &'static [f64]);

    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        (label, buckets): Self::Spec,
    ) -> prometheus::Result<Self> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let family = registered(registry, HistogramVec::new(opts, &[label])?)?;
        let histograms = L::ALL
            .iter()
            .map(|value| family.with_label_values(&[value.as_str()]))
            .collect();
        Ok(Self {
            histograms,
            label: PhantomData,
        })
    }
}

/// A choice from a closed set, as one gauge per word: 1 for the one that was told last, 0 for all others.
pub struct OneOf<L> {
    gauges: Box<[IntGauge]>,
    current: Mutex<Option<L>>,
}

impl<L: Label> OneOf<L> {
    /// Tells the choice. A scrape at the same moment may see two of them, but never none once there was one.
    pub fn set(&self, choice: L) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.gauges[choice.index()].set(1);
        if let Some(old) = current.replace(choice)
            && old != choice
        {
            self.gauges[old.index()].set(0);
        }
    }

    /// What was told last.
    pub fn get(&self) -> Option<L> {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Label> Family for OneOf<L> {
    /// The label's name.
    type Spec = &'static str;

    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        label: Self::Spec,
    ) -> prometheus::Result<Self> {
        let family = registered(registry, IntGaugeVec::new(Opts::new(name, help), &[label])?)?;
        let gauges = L::ALL
            .iter()
            .map(|value| family.with_label_values(&[value.as_str()]))
            .collect();
        Ok(Self {
            gauges,
            current: Mutex::new(None),
        })
    }
}

/// Facts that change now and then: a gauge that is always 1, whose labels are the facts. At most one series per key;
/// setting a key replaces its facts.
pub struct InfoBy<const N: usize> {
    family: IntGaugeVec,
    current: Mutex<HashMap<String, [String; N]>>,
}

impl<const N: usize> InfoBy<N> {
    /// Tells the facts of `key`. A scrape at the same moment may see none of them, but never two. Beyond 64 keys, new
    /// ones are left out.
    pub fn set(&self, key: &str, values: [&str; N]) {
        let values = values.map(shortened);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let old = current.get(key);
        if old == Some(&values) || (old.is_none() && current.len() >= MAX_INFO_KEYS) {
            return;
        }
        if let Some(old) = current.insert(shortened(key), values.clone()) {
            // It exists, since whatever is in `current` got its series below.
            let _ = self.family.remove_label_values(&old);
        }
        self.family.with_label_values(&values).set(1);
    }

    /// Takes back all facts.
    pub fn clear(&self) {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.family.reset();
    }
}

impl<const N: usize> Family for InfoBy<N> {
    /// The labels' names.
    type Spec = [&'static str; N];

    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        labels: Self::Spec,
    ) -> prometheus::Result<Self> {
        let family = registered(registry, IntGaugeVec::new(Opts::new(name, help), &labels)?)?;
        Ok(Self {
            family,
            current: Mutex::default(),
        })
    }
}

/// Gauges by labels that are few by nature. A gauge starts with its first use.
pub struct GaugeBy<const N: usize>(IntGaugeVec);

impl<const N: usize> GaugeBy<N> {
    /// The gauge with these labels.
    pub fn of(&self, labels: [&str; N]) -> IntGauge {
        self.0.with_label_values(&labels.map(shortened))
    }
}

impl<const N: usize> Family for GaugeBy<N> {
    /// The labels' names.
    type Spec = [&'static str; N];

    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        labels: Self::Spec,
    ) -> prometheus::Result<Self> {
        let family = IntGaugeVec::new(Opts::new(name, help), &labels)?;
        Ok(Self(registered(registry, family)?))
    }
}

fn shortened(value: &str) -> String {
    let ends = value.char_indices().map(|(start, c)| start + c.len_utf8());
    let end = ends
        .take_while(|end| *end <= MAX_VALUE_BYTES)
        .last()
        .unwrap_or(0);
    value[..end].to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::protocol::Operation;

    pub(crate) fn made<F: Family>(spec: F::Spec) -> (Registry, F) {
        let registry = Registry::new();
        let family = F::register(&registry, "test_total".into(), "A test.", spec).unwrap();
        (registry, family)
    }

    pub(crate) fn series(registry: &Registry) -> usize {
        registry
            .gather()
            .iter()
            .map(|family| family.get_metric().len())
            .sum()
    }

    #[test]
    fn counting_one_pair_counts_no_other() {
        let (registry, family) = made::<CounterByPair<Operation, Operation>>(["a", "b"]);
        family.of(Operation::Speech, Operation::Interview).inc();
        assert_eq!(series(&registry), 9);
        assert_eq!(family.of(Operation::Speech, Operation::Interview).get(), 1);
        assert_eq!(family.of(Operation::Interview, Operation::Speech).get(), 0);
    }

    #[test]
    fn of_a_choice_one_word_is_1_and_the_rest_is_0() {
        let (registry, family) = made::<OneOf<Operation>>("operation");
        assert_eq!((series(&registry), family.get()), (3, None));
        for told in [Operation::Chat, Operation::Speech, Operation::Speech] {
            family.set(told);
            let ones = |gauge: &&IntGauge| gauge.get() == 1;
            assert_eq!(family.gauges.iter().filter(ones).count(), 1);
            assert_eq!(family.gauges[told.index()].get(), 1);
            assert_eq!(family.get(), Some(told));
        }
    }

    #[test]
    fn facts_are_replaced_and_bounded() {
        let (registry, family) = made::<InfoBy<2>>(["alias", "id"]);
        family.set("gpu", ["gpu", ""]);
        family.set("gpu", ["gpu", "node_1"]);
        assert_eq!(series(&registry), 1);
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        assert!(
            text.contains(r#"test_total{alias="gpu",id="node_1"} 1"#),
            "{text}"
        );
        for i in 0..2 * MAX_INFO_KEYS {
            let alias = format!("alias-{i}");
            family.set(&alias, [&alias, "é".repeat(MAX_VALUE_BYTES).as_str()]);
        }
        assert_eq!(series(&registry), MAX_INFO_KEYS);
        family.clear();
        assert_eq!(series(&registry), 0);
    }
}

//! Families of metrics whose labels are closed sets. All their series are made at start, so counting is an array
//! access and one atomic addition, and every series is there at 0 before the first event.
//!
//! Invariant: no label's value is unbounded. Models are the one set that is not closed; it is capped.

use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    sync::{Mutex, PoisonError, RwLock},
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::label::Label;

/// How many models a family tells apart during the life of the process; the rest is `other`. An operator offers
/// dozens; names that come and go must not fill the memory of Prometheus.
pub(super) const MAX_MODELS: usize = 1_000;

/// The longest value of a label that somebody else has chosen, in bytes.
const MAX_VALUE_BYTES: usize = 256;

/// How many keys an [`InfoBy`] holds: nodes of one operator, far beyond what one machine serves.
const MAX_INFO_KEYS: usize = 64;

/// The word for models that are not offered.
const OTHER: &str = "other";

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

fn registered<C: Collector + Clone + 'static>(
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

/// The models that a family has series for.
#[derive(Default)]
struct KnownModels(RwLock<HashSet<Box<str>>>);

impl KnownModels {
    /// The word for a model: its name while there is room for it, else `other`.
    fn word<'a>(&self, model: Option<&'a str>) -> &'a str {
        match model {
            Some(name) if self.is_known(name) || self.admit(name) => name,
            _ => OTHER,
        }
    }

    fn is_known(&self, name: &str) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
    }

    fn admit(&self, name: &str) -> bool {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let room =
            known.contains(name) || (known.len() < MAX_MODELS && name.len() <= MAX_VALUE_BYTES);
        if room {
            known.insert(name.into());
        }
        room
    }
}

/// Counters per model. A model's series starts with its first use.
pub struct CounterByModel {
    known: KnownModels,
    family: IntCounterVec,
}

impl CounterByModel {
    /// The counter of an offered model, by its full name; `None` for any other.
    pub fn of(&self, model: Option<&str>) -> IntCounter {
        self.family.with_label_values(&[self.known.word(model)])
    }

    /// The sum over all models.
    pub fn total(&self) -> u64 {
        sum(&self.family)
    }
}

impl Family for CounterByModel {
    type Spec = ();

    fn register(registry: &Registry, name: String, help: &str, (): ()) -> prometheus::Result<Self> {
        let family = registered(
            registry,
            IntCounterVec::new(Opts::new(name, help), &["model"])?,
        )?;
        Ok(Self {
            known: KnownModels::default(),
            family,
        })
    }
}

/// Gauges per model. A model's series starts with its first use.
pub struct GaugeByModel {
    known: KnownModels,
    family: IntGaugeVec,
}

impl GaugeByModel {
    /// The gauge of a model, by its full name.
    pub fn of(&self, model: &str) -> IntGauge {
        self.family
            .with_label_values(&[self.known.word(Some(model))])
    }
}

impl Family for GaugeByModel {
    type Spec = ();

    fn register(registry: &Registry, name: String, help: &str, (): ()) -> prometheus::Result<Self> {
        let family = registered(
            registry,
            IntGaugeVec::new(Opts::new(name, help), &["model"])?,
        )?;
        Ok(Self {
            known: KnownModels::default(),
            family,
        })
    }
}

/// Counters per model and a label from a closed set. A pair's series starts with its first use.
pub struct CounterByModelAnd<L> {
    known: KnownModels,
    family: IntCounterVec,
    label: PhantomData<L>,
}

impl<L: Label> CounterByModelAnd<L> {
    /// The counter of `label` for an offered model, by its full name; `None` for any other.
    pub fn of(&self, model: Option<&str>, label: L) -> IntCounter {
        self.family
            .with_label_values(&[self.known.word(model), label.as_str()])
    }

    /// The sum over all models and labels.
    pub fn total(&self) -> u64 {
        sum(&self.family)
    }
}

impl<L: Label> Family for CounterByModelAnd<L> {
    /// The second label's name.
    type Spec = &'static str;

    fn register(
        registry: &Registry,
        name: String,
        help: &str,
        label: Self::Spec,
    ) -> prometheus::Result<Self> {
        let family = registered(
            registry,
            IntCounterVec::new(Opts::new(name, help), &["model", label])?,
        )?;
        Ok(Self {
            known: KnownModels::default(),
            family,
            label: PhantomData,
        })
    }
}

/// Whole, since every addend came from an integer counter and stays below 2^53.
fn sum(family: &IntCounterVec) -> u64 {
    let families = family.collect();
    let series = families.iter().flat_map(|family| family.get_metric());
    series
        .map(|series| series.get_counter().get_value() as u64)
        .sum()
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
mod tests {
    use super::*;
    use crate::telemetry::reasons::Operation;

    fn made<F: Family>(spec: F::Spec) -> (Registry, F) {
        let registry = Registry::new();
        let family = F::register(&registry, "test_total".into(), "A test.", spec).unwrap();
        (registry, family)
    }

    fn series(registry: &Registry) -> usize {
        registry
            .gather()
            .iter()
            .map(|family| family.get_metric().len())
            .sum()
    }

    #[test]
    fn a_thousand_models_are_told_apart_and_the_rest_is_other() {
        let (registry, family) = made::<CounterByModel>(());
        for i in 0..MAX_MODELS + 50 {
            family.of(Some(&format!("model-{i}:latest"))).inc();
        }
        assert_eq!(series(&registry), MAX_MODELS + 1);
        assert_eq!(family.of(None).get(), 50);
        assert_eq!(family.total(), 1_050);
    }

    #[test]
    fn a_model_with_an_endless_name_is_other() {
        let (_, family) = made::<CounterByModelAnd<Operation>>("operation");
        family
            .of(Some(&"m".repeat(MAX_VALUE_BYTES + 1)), Operation::Chat)
            .inc();
        assert_eq!(family.of(None, Operation::Chat).get(), 1);
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

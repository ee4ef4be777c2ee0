//! Families of metrics per model. Models are the one label that is no closed set and grows with use.
//!
//! Invariant: a family has at most [`MAX_MODELS`] models and `other`, whatever names come.

use std::{
    collections::{BTreeMap, HashMap},
    iter::Sum,
    marker::PhantomData,
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard},
};

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Atomic, AtomicF64, AtomicU64, GenericCounter, GenericCounterVec},
};

use super::families::{Family, MAX_VALUE_BYTES, registered};
use crate::label::Label;

/// How many models a family tells apart during the life of the process; the rest is `other`. An operator offers
/// dozens; names that come and go must not fill the memory of Prometheus.
pub(super) const MAX_MODELS: usize = 1_000;

/// The word for models that are not offered.
const OTHER: &str = "other";

/// A model's series, one for each value of the label beside.
type Series<T> = HashMap<Box<str>, Box<[OnceLock<T>]>>;

/// A family's series, by model and, where it has a label beside, by that label's place in its set. Summing them up costs an
/// addition each, so that it can be done every few seconds.
struct ByModel<T> {
    labels: usize,
    series: RwLock<Series<T>>,
}

impl<T: Clone> ByModel<T> {
    fn new(labels: usize) -> Self {
        Self {
            labels,
            series: RwLock::default(),
        }
    }

    /// A model's series, which `make` makes for the model's word: its name while there is room for it, else `other`.
    fn of(&self, model: Option<&str>, label: usize, make: impl Fn(&str) -> T) -> T {
        let name = model.unwrap_or(OTHER);
        if let Some(series) = self.read().get(name) {
            return series[label].get_or_init(|| make(name)).clone();
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let models = all.len() - usize::from(all.contains_key(OTHER));
        let has_room = models < MAX_MODELS && name.len() <= MAX_VALUE_BYTES;
        let word = if has_room || all.contains_key(name) {
            name
        } else {
            OTHER
        };
        let empty = || (0..self.labels).map(|_| OnceLock::new()).collect();
        let series = all.entry(word.into()).or_insert_with(empty);
        series[label].get_or_init(|| make(word)).clone()
    }

    /// Adds all series up.
    fn sum<S: Sum>(&self, value: impl Fn(&T) -> S) -> S {
        let all = self.read();
        let series = all.values().flatten();
        series.filter_map(OnceLock::get).map(value).sum()
    }

    fn read(&self) -> RwLockReadGuard<'_, Series<T>> {
        self.series.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters per model. A model's series starts with its first use, at 0 where the model is offered before that: of a series
/// that starts with more Prometheus does not see the increase.
pub struct CounterByModel<P: Atomic = AtomicU64> {
    series: ByModel<GenericCounter<P>>,
    family: GenericCounterVec<P>,
}

/// Sums of money per model. A double holds a cent exactly enough up to many billions of dollars.
pub type SumByModel = CounterByModel<AtomicF64>;

impl<P: Atomic> CounterByModel<P> {
    /// The counter of an offered model, by its full name; `None` for any other.
    pub fn of(&self, model: Option<&str>) -> GenericCounter<P> {
        let make = |word: &str| self.family.with_label_values(&[word]);
        self.series.of(model, 0, make)
    }

    /// Has the series of an offered model be there.
    pub(super) fn start(&self, model: &str) {
        self.of(Some(model));
    }
}

impl<P: Atomic<T: Sum>> CounterByModel<P> {
    /// The sum over all models.
    pub fn total(&self) -> P::T {
        self.series.sum(GenericCounter::get)
    }
}

impl SumByModel {
    /// The sum of each model for which anything was added.
    pub fn by_model(&self) -> BTreeMap<String, f64> {
        let all = self.series.read();
        let sums = all.iter().filter_map(|(model, series)| {
            let sum = series.first()?.get()?.get();
            (sum > 0.0).then(|| (model.to_string(), sum))
        });
        sums.collect()
    }
}

impl<P: Atomic + 'static> Family for CounterByModel<P> {
    type Spec = ();

    fn register(registry: &Registry, name: String, help: &str, (): ()) -> prometheus::Result<Self> {
        let family = registered(
            registry,
            GenericCounterVec::new(Opts::new(name, help), &["model"])?,
        )?;
        Ok(Self {
            series: ByModel::new(1),
            family,
        })
    }
}

/// Gauges per model. A model's series starts with its first use.
pub struct GaugeByModel {
    series: ByModel<IntGauge>,
    family: IntGaugeVec,
}

impl GaugeByModel {
    /// The gauge of a model, by its full name.
    pub fn of(&self, model: &str) -> IntGauge {
        let make = |word: &str| self.family.with_label_values(&[word]);
        self.series.of(Some(model), 0, make)
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
            series: ByModel::new(1),
            family,
        })
    }
}

/// Counters per model and a label from a closed set. A pair's series starts as a model's of [`CounterByModel`].
pub struct CounterByModelAnd<L> {
    series: ByModel<IntCounter>,
    family: IntCounterVec,
    label: PhantomData<L>,
}

impl<L: Label> CounterByModelAnd<L> {
    /// The counter of `label` for an offered model, by its full name; `None` for any other.
    pub fn of(&self, model: Option<&str>, label: L) -> IntCounter {
        let make = |word: &str| self.family.with_label_values(&[word, label.as_str()]);
        self.series.of(model, label.index(), make)
    }

    /// As [`CounterByModel::start`].
    pub(super) fn start(&self, model: &str, label: L) {
        self.of(Some(model), label);
    }

    /// The sum over all models and labels.
    pub fn total(&self) -> u64 {
        self.series.sum(IntCounter::get)
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
            series: ByModel::new(L::ALL.len()),
            family,
            label: PhantomData,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        protocol::Operation,
        telemetry::families::tests::{made, series},
    };

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
    fn money_is_summed_by_model() {
        let (_, family) = made::<SumByModel>(());
        for _ in 0..1_000 {
            family.of(Some("tiny:latest")).inc_by(0.000_001);
        }
        family.of(None).inc_by(2.5);
        family.start("offered:latest");
        let sums = family.by_model();
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["other", "tiny:latest"]);
        assert!((sums["tiny:latest"] - 0.001).abs() < 1e-12, "{sums:?}");
        assert!((family.total() - 2.501).abs() < 1e-12);
    }
}

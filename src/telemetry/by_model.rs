//! Families of metrics per model. Models are the one label that is no closed set and grows with use.
//!
//! Invariant: a family has at most [`MAX_MODELS`] models and `other`, whatever names come.

use std::{
    collections::{BTreeMap, HashSet},
    marker::PhantomData,
    sync::{PoisonError, RwLock},
};

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Atomic, AtomicF64, AtomicU64, Collector, GenericCounter, GenericCounterVec},
};

use super::families::{Family, MAX_VALUE_BYTES, registered};
use crate::label::Label;

/// How many models a family tells apart during the life of the process; the rest is `other`. An operator offers
/// dozens; names that come and go must not fill the memory of Prometheus.
pub(super) const MAX_MODELS: usize = 1_000;

/// The word for models that are not offered.
const OTHER: &str = "other";

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

/// Counters per model. A model's series starts with its first use, at 0 where that is [`CounterByModel::start`]: of a series
/// that starts with more Prometheus does not see the increase.
pub struct CounterByModel<P: Atomic = AtomicU64> {
    known: KnownModels,
    family: GenericCounterVec<P>,
}

/// Sums of money per model. A double holds a cent exactly enough up to many billions of dollars.
pub type SumByModel = CounterByModel<AtomicF64>;

impl<P: Atomic> CounterByModel<P> {
    /// The counter of an offered model, by its full name; `None` for any other.
    pub fn of(&self, model: Option<&str>) -> GenericCounter<P> {
        self.family.with_label_values(&[self.known.word(model)])
    }

    /// Has the series of an offered model be there.
    pub(super) fn start(&self, model: &str) {
        self.of(Some(model));
    }
}

impl CounterByModel {
    /// The sum over all models.
    pub fn total(&self) -> u64 {
        sum(&self.family)
    }
}

impl SumByModel {
    /// The sum of each model for which anything was added.
    pub fn by_model(&self) -> BTreeMap<String, f64> {
        let families = self.family.collect();
        let series = families.iter().flat_map(|family| family.get_metric());
        series
            .map(|series| {
                let model = series.get_label().first().map_or("", |label| label.value());
                (model.to_owned(), series.get_counter().get_value())
            })
            .filter(|(_, sum)| *sum > 0.0)
            .collect()
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

/// Counters per model and a label from a closed set. A pair's series starts as a model's of [`CounterByModel`].
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

    /// As [`CounterByModel::start`].
    pub(super) fn start(&self, model: &str, label: L) {
        self.of(Some(model), label);
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
    }
}

//! Chance that is no chance: numbers that follow from a seed alone.
//!
//! Invariant: the same seed gives the same numbers on every machine, and a fork does not depend on how often its
//! parent was asked afterwards.

use std::{ops::RangeInclusive, time::Duration};

/// A source of numbers (SplitMix64; Steele, Lea and Flood, 2014): small, quick, and good enough to spread faults.
#[derive(Clone, Debug)]
pub struct Fate(u64);

impl Fate {
    /// The fate of a seed.
    pub fn new(seed: u64) -> Self {
        let mut fate = Self(seed ^ 0x5851_F42D_4C95_7F2D);
        fate.number();
        fate
    }

    /// The fate of a named thing under a seed, whenever it is asked for.
    pub fn of(seed: u64, name: &str, number: u64) -> Self {
        let mut fate = Self::new(seed);
        for byte in name.bytes() {
            fate.0 ^= u64::from(byte);
            fate.number();
        }
        fate.0 ^= number;
        fate.number();
        fate
    }

    /// The fate of a named thing under this one, which goes on as if nobody had asked.
    pub fn fork(&self, name: &str) -> Self {
        let number = self.clone().number();
        Self::of(number, name, 0)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.number() % span.max(1)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }

    /// A time of so many milliseconds.
    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// An index of something that has `len` members; `None` if it has none.
    pub fn index(&mut self, len: usize) -> Option<usize> {
        let len = u64::try_from(len).ok().filter(|len| *len > 0)?;
        usize::try_from(self.number() % len).ok()
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len()).unwrap_or_default()]
    }
}

//! Times to first tokens, for percentiles.
//!
//! Invariant: the times themselves, since buckets of a histogram are a factor of two apart, which is no figure for a plot;
//! and never more than the last [`MAX`] of them.

/// How many are looked at: a hundred a second for a point of five seconds. Of more the last count.
const MAX: usize = 512;

#[derive(Default)]
pub(super) struct FirstTokens {
    /// Milliseconds. What is older is overwritten from the beginning.
    ms: Vec<u32>,
    next: usize,
}

impl FirstTokens {
    pub(super) fn add(&mut self, ms: u32) {
        if self.ms.len() < MAX {
            self.ms.push(ms);
        } else {
            self.ms[self.next] = ms;
        }
        self.next = (self.next + 1) % MAX;
    }

    pub(super) fn add_all(&mut self, others: &Self) {
        for ms in &others.ms {
            self.add(*ms);
        }
    }

    pub(super) fn clear(&mut self) {
        self.ms.clear();
        self.next = 0;
    }

    /// The shortest times within which so many of 100 came; `None` where none came. Forgets them.
    pub(super) fn take_percentiles<const N: usize>(
        &mut self,
        percents: [usize; N],
    ) -> Option<[u32; N]> {
        self.ms.sort_unstable();
        let last = self.ms.len().checked_sub(1)?;
        let found = percents.map(|percent| {
            let rank = (self.ms.len() * percent).div_ceil(100);
            self.ms[rank.saturating_sub(1).min(last)]
        });
        self.clear();
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles(ms: impl IntoIterator<Item = u32>) -> Option<[u32; 2]> {
        let mut times = FirstTokens::default();
        for ms in ms {
            times.add(ms);
        }
        times.take_percentiles([50, 95])
    }

    #[test]
    fn half_and_ninety_five_of_a_hundred_came_within_what_is_told() {
        assert_eq!(percentiles([]), None);
        assert_eq!(percentiles([7]), Some([7, 7]));
        assert_eq!(percentiles([30, 10]), Some([10, 30]));
        assert_eq!(percentiles((1..=100).rev()), Some([50, 95]));
    }

    #[test]
    fn of_a_flood_the_last_times_count_and_no_more_are_held() {
        let mut times = FirstTokens::default();
        for ms in 0..10_000 {
            times.add(ms);
        }
        assert_eq!(times.ms.len(), MAX);
        assert!(times.ms.capacity() <= MAX);
        assert_eq!(times.take_percentiles([0, 100]), Some([9_488, 9_999]));
    }
}

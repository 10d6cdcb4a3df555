//! Figures of interleaved rounds. A machine is never quiet: what is compared is measured in turns, round by round, and
//! the ratio is formed inside each round.

use std::fmt;

/// A median, and the interval that holds the true one with at least 95 % confidence.
///
/// The interval is that of the sign test: it needs no assumption about how the figures are distributed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// The median of one figure a round.
    ///
    /// # Panics
    /// Without figures.
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let outside = outside_interval(n);
        let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        Self { median, low: sorted[outside], high: sorted[n - 1 - outside] }
    }

    /// The ratio of two figures that were taken in the same rounds.
    ///
    /// # Panics
    /// Without figures.
    pub fn of_ratio(above: &[f64], below: &[f64]) -> Self {
        let ratios: Vec<_> = above.iter().zip(below).map(|(above, below)| above / below).collect();
        Self::of(&ratios)
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(3);
        let text = format!("{:.digits$} [{:.digits$}, {:.digits$}]", self.median, self.low, self.high);
        write!(f, "{text:>width$}", width = f.width().unwrap_or(0))
    }
}

/// How many of `n` sorted figures lie outside on either side of an interval that misses the true median in at most 5 %
/// of all cases: the largest `k` with `P(Binomial(n, 1/2) < k) <= 0.025`.
fn outside_interval(n: usize) -> usize {
    let mut probability = 0.5f64.powi(n as i32);
    let mut below = probability;
    let mut k = 0;
    while below <= 0.025 && k < n / 2 {
        k += 1;
        probability *= (n - k + 1) as f64 / k as f64;
        below += probability;
    }
    k.saturating_sub(1)
}

/// The order in which `n` cases take their turns in a round: there and back again, so that a drift hits all alike.
pub fn turns(round: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |turn| if round.is_multiple_of(2) { turn } else { n - 1 - turn })
}

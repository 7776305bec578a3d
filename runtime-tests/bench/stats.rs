//! Medians and quartiles. Pure.

/// A median with its quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quartiles {
    /// A quarter of the values is below.
    pub low: f64,
    /// Half of them are.
    pub median: f64,
    /// Three quarters are.
    pub high: f64,
}

/// Quartiles of some values, interpolated between neighbours. Panics without a value: nothing was measured.
pub fn quartiles(values: impl IntoIterator<Item = f64>) -> Quartiles {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Quartiles { low: at(0.25), median: at(0.5), high: at(0.75) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours_and_do_not_ask_for_order() {
        assert_eq!(quartiles([4.0, 1.0, 3.0, 2.0]), Quartiles { low: 1.75, median: 2.5, high: 3.25 });
        assert_eq!(quartiles([7.0]), Quartiles { low: 7.0, median: 7.0, high: 7.0 });
    }

    #[test]
    fn one_outlier_moves_no_median() {
        assert_eq!(quartiles([1.0, 1.0, 1.0, 1.0, 1000.0]).median, 1.0);
    }
}

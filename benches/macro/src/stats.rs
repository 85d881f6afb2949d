//! Numbers by name, medians and percentiles.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// What one operation measured, by name: `us`, `p50`, ….
pub(crate) type Numbers = BTreeMap<String, f64>;

/// Reads `us=12 p50=3.5`.
pub(crate) fn parse(text: &str) -> Result<Numbers, String> {
    text.split_whitespace()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| format!("not a number: {text}"))?;
            let value = value.parse().map_err(|_| format!("not a number: {text}"))?;
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// Writes what [`parse`] reads.
pub(crate) fn print(numbers: &Numbers) -> String {
    numbers.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The middle value; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

/// How far apart the extremes are, as a part of the median.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (high - low) / median(values)
}

/// `p50`, `p99` and `p999` of times in microseconds.
pub(crate) fn percentiles(mut times: Vec<f64>) -> Numbers {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    };
    [("p50", at(0.5)), ("p99", at(0.99)), ("p999", at(0.999))]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// Microseconds of the system's clock: all nodes of a run are on one machine, so that they have one.
pub(crate) fn clock() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tail() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(spread(&[1.0, 2.0, 3.0]), 1.0);
        let numbers = percentiles((1..=1000).map(f64::from).collect());
        assert_eq!((numbers["p50"], numbers["p99"], numbers["p999"]), (501.0, 991.0, 1000.0));
        assert_eq!(parse(&print(&numbers)), Ok(numbers));
    }
}

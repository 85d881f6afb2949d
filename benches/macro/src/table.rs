//! Lines of the table: who competes, how samples are taken, what is printed.

use std::fmt::Write as _;

use crate::placement::Placement;
use crate::stats::{median, spread};

/// One sample of one competitor.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// What the line is about, in its unit.
    pub(crate) value: f64,
    /// What was measured beside it, by name.
    pub(crate) extras: Vec<(&'static str, f64)>,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self { value, extras: Vec::new() }
    }
}

type Run<'a> = Box<dyn FnMut() -> Result<Sample, String> + 'a>;

/// One line: competitors that are measured in turns.
pub(crate) struct Line<'a> {
    title: String,
    placement: Placement,
    unit: &'static str,
    competitors: Vec<(String, Run<'a>)>,
    goals: Vec<Goal>,
    once: bool,
}

/// What the line should show.
pub(crate) struct Goal {
    of: &'static str,
    /// The median of this beside the value, or the value itself.
    extra: Option<&'static str>,
    relation: Relation,
    limit: f64,
    /// The competitor that it is compared with; an absolute figure without.
    over: Option<&'static str>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Relation {
    AtLeast,
    AtMost,
}

/// `of` should be at least `limit` times `over`.
pub(crate) fn at_least(of: &'static str, limit: f64, over: &'static str) -> Goal {
    Goal { of, extra: None, relation: Relation::AtLeast, limit, over: Some(over) }
}

/// `of` should be at most `limit` times `over`.
pub(crate) fn at_most(of: &'static str, limit: f64, over: &'static str) -> Goal {
    Goal { of, extra: None, relation: Relation::AtMost, limit, over: Some(over) }
}

/// `of` should be at least this.
pub(crate) fn reaches(of: &'static str, limit: f64) -> Goal {
    Goal { of, extra: None, relation: Relation::AtLeast, limit, over: None }
}

/// `of` should be at most this.
pub(crate) fn within(of: &'static str, limit: f64) -> Goal {
    Goal { of, extra: None, relation: Relation::AtMost, limit, over: None }
}

impl Goal {
    /// About what was measured beside the value.
    pub(crate) fn extra(self, extra: &'static str) -> Self {
        Self { extra: Some(extra), ..self }
    }

    fn unit_of<'u>(&self, unit: &'u str) -> &'u str {
        // Processor time is in microseconds wherever it stands; everything else is in the unit of its line.
        if self.extra.is_some_and(|extra| extra.starts_with("cpu")) { "µs" } else { unit }
    }

    fn figure(&self, sample: &Sample) -> f64 {
        match self.extra {
            None => sample.value,
            Some(extra) => {
                sample.extras.iter().find(|(name, _)| *name == extra).map_or(f64::NAN, |(_, value)| *value)
            }
        }
    }

    fn judge(&self, results: &[(String, Result<Vec<Sample>, String>)], unit: &str) -> String {
        let samples = |name: &str| {
            let found = results.iter().find(|(competitor, _)| competitor == name);
            found.and_then(|(_, samples)| samples.as_ref().ok())
        };
        let sign = if self.relation == Relation::AtLeast { "≥" } else { "≤" };
        let what = self.extra.map(|extra| format!(" {extra}")).unwrap_or_default();
        let goal = match self.over {
            Some(over) => format!("{}{what} {sign} {} × {over}", self.of, self.limit),
            None => format!("{}{what} {sign} {} {}", self.of, number(self.limit), self.unit_of(unit)),
        };
        let figure = match (samples(self.of), self.over.map(samples)) {
            (Some(of), None) => median(&of.iter().map(|sample| self.figure(sample)).collect::<Vec<_>>()),
            // Samples of one round stand beside each other: what disturbs one disturbs the other.
            (Some(of), Some(Some(over))) => {
                let ratios = of.iter().zip(over).map(|(of, over)| self.figure(of) / self.figure(over));
                median(&ratios.collect::<Vec<_>>())
            }
            _ => f64::NAN,
        };
        let met = match self.relation {
            Relation::AtLeast => figure >= self.limit,
            Relation::AtMost => figure <= self.limit,
        };
        let verdict = if figure.is_nan() {
            "NOT MEASURED"
        } else if met {
            "PASS"
        } else {
            "MISS"
        };
        format!("  {verdict:<5} {goal}: {}", number(figure))
    }
}

impl<'a> Line<'a> {
    pub(crate) fn new(title: impl Into<String>, placement: Placement, unit: &'static str) -> Self {
        Self { title: title.into(), placement, unit, competitors: Vec::new(), goals: Vec::new(), once: false }
    }

    /// One sample of each, the first: what takes long or cannot be had twice.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Adds a competitor. The first is what the others are compared with.
    pub(crate) fn with(
        mut self,
        name: impl Into<String>,
        run: impl FnMut() -> Result<Sample, String> + 'a,
    ) -> Self {
        self.competitors.push((name.into(), Box::new(run)));
        self
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// Measures all competitors in turns and returns the rows.
    pub(crate) fn run(mut self, rounds: usize) -> String {
        let mut results: Vec<(String, Result<Vec<Sample>, String>)> =
            self.competitors.iter().map(|(name, _)| (name.clone(), Ok(Vec::new()))).collect();
        // The first round warms up: connections, code, buffers, counts.
        for round in if self.once { 1..=1 } else { 0..=rounds } {
            for ((_, run), (_, samples)) in self.competitors.iter_mut().zip(&mut results) {
                let Ok(so_far) = samples else { continue };
                match run() {
                    Ok(sample) if round > 0 => so_far.push(sample),
                    Ok(_) => {}
                    Err(why) => *samples = Err(why),
                }
            }
        }
        self.print(&results)
    }

    fn print(&self, results: &[(String, Result<Vec<Sample>, String>)]) -> String {
        let once = if self.once { ", one sample" } else { "" };
        let mut text = format!("\n{} — {}, {}{once}\n", self.title, self.placement, self.unit);
        let values = |samples: &[Sample]| samples.iter().map(|sample| sample.value).collect::<Vec<_>>();
        let base =
            results.first().and_then(|(_, samples)| samples.as_ref().ok()).map(|samples| values(samples));
        for (name, samples) in results {
            let row = match samples {
                Err(why) => format!("  {name:<18} failed: {why}"),
                Ok(samples) => {
                    let own = values(samples);
                    let ratios: Vec<f64> =
                        own.iter().zip(base.iter().flatten()).map(|(own, base)| own / base).collect();
                    let mut row = format!(
                        "  {name:<18} {:>9}  ±{:>3.0}%  {:>6}×",
                        number(median(&own)),
                        spread(&own) * 50.0,
                        number(median(&ratios)),
                    );
                    let names = samples.first().into_iter().flat_map(|sample| &sample.extras);
                    for (index, (name, _)) in names.enumerate() {
                        let all: Vec<f64> = samples
                            .iter()
                            .filter_map(|sample| sample.extras.get(index).map(|(_, value)| *value))
                            .collect();
                        let _ = write!(row, "   {name} {}", number(median(&all)));
                    }
                    row
                }
            };
            text.push_str(row.trim_end());
            text.push('\n');
        }
        for goal in &self.goals {
            text.push_str(&goal.judge(results, self.unit));
            text.push('\n');
        }
        text
    }
}

/// Three or four digits that mean something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000_000.0 => format!("{:.1}M", value / 1e6),
        size if size >= 1_000_000.0 => format!("{:.2}M", value / 1e6),
        size if size >= 10_000.0 => format!("{:.0}k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_compares_samples_of_the_same_round() {
        let mut slow = [1.0, 1.0, 2.0].into_iter();
        let mut fast = [3.0, 3.0, 8.0].into_iter();
        let line = Line::new("a title", Placement::OneCpu, "msg/s")
            .with("slow", || Ok(slow.next().unwrap().into()))
            .with("fast", || Ok(Sample { value: fast.next().unwrap(), extras: vec![("cpu", 0.5)] }))
            .with("none", || Err("no such thing".to_owned()))
            .goal(at_least("fast", 3.5, "slow"))
            .goal(at_most("fast", 3.0, "slow"))
            .goal(within("fast", 0.4).extra("cpu"))
            .goal(reaches("none", 1.0));
        let text = line.run(2);
        // Rounds: 3/1 and 8/2, the one before them only warms up.
        assert!(text.contains("PASS  fast ≥ 3.5 × slow: 3.50"), "{text}");
        assert!(text.contains("MISS  fast ≤ 3 × slow: 3.50"), "{text}");
        assert!(text.contains("MISS  fast cpu ≤ 0.40 µs: 0.50"), "{text}");
        assert!(text.contains("NOT MEASURED none ≥ 1.00 msg/s"), "{text}");
        assert!(text.contains("failed: no such thing"), "{text}");
    }
}

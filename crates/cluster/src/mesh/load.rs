//! How busy the machine of a node is: figures that it measures, and when it tells them.

use foundation_proto::etf::Term;

use crate::message::atom;

/// How busy the machine of a node is. Shares are thousandths; a figure that could not be measured is `None`, never a guess.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// The time that processors were not idle, since the measurement before.
    pub cpu: Option<u16>,
    /// The memory that is not available to new programs.
    pub memory: Option<u16>,
    /// The load average over one minute, in hundredths, and the processors that it is spread over.
    pub average: Option<(u32, u16)>,
}

/// What Linux says of a machine, as read from `/proc`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sample {
    /// Time that all processors together were not idle, and time in all, in ticks since the start.
    pub ticks: Option<(u64, u64)>,
    /// Processors.
    pub processors: Option<u16>,
    /// Memory that is available to new programs, and memory in all, in KiB.
    pub memory: Option<(u64, u64)>,
    /// The load average over one minute, in hundredths.
    pub average: Option<u32>,
}

impl Sample {
    /// Reads `/proc/stat`, `/proc/meminfo` and `/proc/loadavg` (proc(5)). What is missing or looks different stays unknown.
    pub fn parse(stat: &str, meminfo: &str, loadavg: &str) -> Self {
        let ticks = stat.lines().find_map(|line| line.strip_prefix("cpu ")).and_then(ticks);
        let is_processor = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        let processors = u16::try_from(stat.lines().filter(is_processor).count()).ok();
        let kib = |name: &str| -> Option<u64> {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(':')?.split_ascii_whitespace().next()?.parse().ok()
        };
        let average = loadavg.split_ascii_whitespace().next().and_then(hundredths);
        Self {
            ticks,
            processors: processors.filter(|count| *count > 0),
            memory: kib("MemAvailable").zip(kib("MemTotal")),
            average,
        }
    }
}

/// `user nice system idle iowait irq softirq steal …`; time for guests is already part of `user` and `nice`.
fn ticks(line: &str) -> Option<(u64, u64)> {
    let numbers: Vec<u64> =
        line.split_ascii_whitespace().take(8).map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let all = numbers.iter().try_fold(0u64, |sum, number| sum.checked_add(*number))?;
    let idle = numbers.get(3)?.checked_add(numbers.get(4).copied().unwrap_or_default())?;
    Some((all.checked_sub(idle)?, all))
}

fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.')?;
    let part: u32 = part.get(..2)?.parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part)
}

/// `part` of `all`, in thousandths.
fn share(part: u64, all: u64) -> Option<u16> {
    let share = u128::from(part).checked_mul(1000)?.checked_div(u128::from(all))?;
    Some(u16::try_from(share.min(1000)).unwrap_or(1000))
}

impl Load {
    /// What a sample says, and how much the processors did since the one before.
    pub(super) fn measured(before: Option<Sample>, now: &Sample) -> Self {
        let cpu = || {
            let ((busy, all), (busy_before, all_before)) = (now.ticks?, before?.ticks?);
            // The kernel lets idle time go back now and then.
            share(busy.saturating_sub(busy_before), all.checked_sub(all_before)?)
        };
        let memory = || {
            let (available, all) = now.memory?;
            share(all.saturating_sub(available), all)
        };
        Self { cpu: cpu(), memory: memory(), average: now.average.zip(now.processors) }
    }

    pub(super) fn is_known(&self) -> bool {
        *self != Self::default()
    }

    /// The load average of each processor, in thousandths.
    fn average_each(&self) -> Option<u64> {
        let (average, processors) = self.average?;
        (u64::from(average) * 10).checked_div(u64::from(processors))
    }

    /// The time that processors were busy, in percent.
    pub fn cpu_percent(&self) -> Option<f64> {
        self.cpu.map(|share| f64::from(share) / 10.0)
    }

    /// The memory that is taken, in percent.
    pub fn memory_percent(&self) -> Option<f64> {
        self.memory.map(|share| f64::from(share) / 10.0)
    }

    /// The load average over one minute, divided by the number of processors.
    pub fn average_per_processor(&self) -> Option<f64> {
        let (average, processors) = self.average?;
        (processors > 0).then(|| f64::from(average) / 100.0 / f64::from(processors))
    }

    /// Whether what was told before says something else by at least a step, in thousandths.
    pub(super) fn differs(&self, before: &Self, step: u16) -> bool {
        fn by(a: Option<u64>, b: Option<u64>, step: u64) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => a.abs_diff(b) >= step.max(1),
                (None, None) => false,
                _ => true,
            }
        }
        let step = u64::from(step);
        by(self.cpu.map(u64::from), before.cpu.map(u64::from), step)
            || by(self.memory.map(u64::from), before.memory.map(u64::from), step)
            || by(self.average_each(), before.average_each(), step * 4)
    }

    pub(super) fn term(&self) -> Term {
        let figure = |name, figure: Option<i64>| figure.map(|figure| (atom(name), Term::Integer(figure)));
        let figures = [
            figure("cpu", self.cpu.map(i64::from)),
            figure("memory", self.memory.map(i64::from)),
            figure("load", self.average.map(|(average, _)| i64::from(average))),
            figure("processors", self.average.map(|(_, processors)| i64::from(processors))),
        ];
        Term::Map(figures.into_iter().flatten().collect())
    }

    /// Reads the figures of another node: shares beyond the whole and other nonsense are unknown.
    pub(super) fn read(term: &Term) -> Option<Self> {
        let map = term.as_map()?;
        let figure = |name: &str| map.get_atom(name).and_then(Term::as_i64);
        let share = |name: &str| figure(name).and_then(|n| u16::try_from(n).ok()).filter(|n| *n <= 1000);
        let average = figure("load").and_then(|n| u32::try_from(n).ok());
        let processors = figure("processors").and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        Some(Self { cpu: share("cpu"), memory: share("memory"), average: average.zip(processors) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 10 50 800 40 0 0 0 7 0\ncpu0 50 5 25 400 20 0 0 0 0 0\ncpu1 50 5 25 400 20 0 0 0 0 0\nintr 1 2\nctxt 5\n";
    const MEMINFO: &str =
        "MemTotal:        2000000 kB\nMemFree:          100000 kB\nMemAvailable:    1500000 kB\n";

    #[test]
    fn what_linux_says_is_read() {
        let sample = Sample::parse(STAT, MEMINFO, "1.50 0.80 0.40 2/300 4711\n");
        let expected = Sample {
            ticks: Some((160, 1000)),
            processors: Some(2),
            memory: Some((1_500_000, 2_000_000)),
            average: Some(150),
        };
        assert_eq!(sample, expected);
        let first = Load::measured(None, &sample);
        assert_eq!(first, Load { cpu: None, memory: Some(250), average: Some((150, 2)) });
        assert_eq!(first.average_per_processor(), Some(0.75));
        let later = Sample { ticks: Some((160 + 30, 1000 + 100)), ..sample };
        assert_eq!(Load::measured(Some(sample), &later).cpu, Some(300));
        assert_eq!(Load::measured(Some(later), &sample).cpu, None, "the ticks of another start");
        assert_eq!(Load::measured(Some(sample), &sample).cpu, None, "no time has passed");
        let back = Sample { ticks: Some((150, 1100)), ..sample };
        assert_eq!(Load::measured(Some(sample), &back).cpu, Some(0));
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        for (stat, meminfo, loadavg) in [
            ("", "", ""),
            ("cpu  1 2\n", "MemTotal: x kB\nMemAvailable: 1 kB", "fast"),
            ("cpu  18446744073709551615 1 1 1 1\n", "MemAvailable: 1 kB", "99999999999.00"),
            ("cpu  a b c d", "MemTotal", "1.x"),
            ("cpufreq 1\n", "", "1.5"),
        ] {
            let sample = Sample::parse(stat, meminfo, loadavg);
            assert!(!Load::measured(Some(sample), &sample).is_known(), "{sample:?}");
        }
        assert_eq!(Load::measured(None, &Sample { memory: Some((1, 0)), ..Sample::default() }).memory, None);
    }

    #[test]
    fn only_steps_are_told() {
        let load = Load { cpu: Some(100), memory: Some(500), average: Some((100, 2)) };
        assert!(!load.differs(&load, 0));
        for (other, differs) in [
            (Load { cpu: Some(149), ..load }, false),
            (Load { cpu: Some(150), ..load }, true),
            (Load { cpu: None, ..load }, true),
            (Load { memory: Some(449), ..load }, true),
            (Load { average: Some((139, 2)), ..load }, false),
            (Load { average: Some((140, 2)), ..load }, true),
        ] {
            assert_eq!(load.differs(&other, 50), differs, "{other:?}");
            assert_eq!(other.differs(&load, 50), differs, "{other:?}");
        }
    }

    #[test]
    fn figures_travel() {
        for load in [
            Load { cpu: Some(100), memory: Some(500), average: Some((100, 2)) },
            Load { cpu: None, memory: Some(0), average: None },
        ] {
            assert_eq!(Load::read(&load.term()), Some(load));
        }
        let wrong = [("cpu", 1001), ("memory", -1), ("load", 5), ("processors", 0)];
        let wrong = wrong.into_iter().map(|(key, value)| (atom(key), Term::Integer(value))).collect();
        assert_eq!(Load::read(&Term::Map(wrong)), Some(Load::default()));
        assert_eq!(Load::read(&Term::Integer(1)), None);
    }
}

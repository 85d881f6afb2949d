//! Reading scenarios.

use std::fmt;
use std::time::Duration;

use super::{Between, Keys, Nodes, Part, Scenario, Step, WORDS, Who};
use crate::sim::NodeId;

/// The largest number of nodes.
const MAX_NODES: usize = 10_000;
/// The largest number of keys of one step.
const MAX_KEYS: usize = 1_000_000;
/// The words of `for`.
const MACHINES: [&str; 4] = ["names", "lease", "map", "horde"];

/// Why a text is no scenario.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line of a scenario.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// The line begins with an unknown word, or the step is unknown.
    Unknown(String),
    /// Something should follow.
    Missing(&'static str),
    /// Something follows that should not.
    TooMuch(String),
    /// A number was expected, or one that is not so large.
    NoNumber(String),
    /// A time such as `1.5s` was expected.
    NoTime(String),
    /// Nodes such as `0,2-5,last` were expected.
    NoNodes(String),
    /// There is no such node in the smallest network that the scenario is for.
    NoSuchNode(NodeId, usize),
    /// `|` or `>` was expected.
    NoWay(String),
    /// The step comes before the one above it.
    Earlier,
    /// Nodes, seed and parameters come before the first step.
    Late(String),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.problem {
            Problem::Unknown(word) => write!(f, "`{word}` is not known"),
            Problem::Missing(what) => write!(f, "{what} should follow"),
            Problem::TooMuch(word) => write!(f, "`{word}` should not be there"),
            Problem::NoNumber(word) => write!(f, "`{word}` is no number that can be used here"),
            Problem::NoTime(word) => write!(f, "`{word}` is no time such as 1.5s or 20ms"),
            Problem::NoNodes(word) => write!(f, "`{word}` are no nodes such as 0,2-5,last"),
            Problem::NoSuchNode(node, size) => write!(f, "there is no node {node} among {size}"),
            Problem::NoWay(word) => write!(f, "`{word}` should be | or >"),
            Problem::Earlier => f.write_str("this step comes before the one above it"),
            Problem::Late(word) => write!(f, "`{word}` has to come before the first step"),
        }
    }
}

impl std::error::Error for ParseError {}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// [`ParseError`], with the line.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut scenario = Self::default();
        let mut last = 0;
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            last = index + 1;
            let words = Words { rest: line.split_whitespace().collect::<Vec<_>>().into_iter() };
            scenario.line(words, last).map_err(|problem| ParseError { line: last, problem })?;
        }
        if scenario.nodes.is_empty() {
            return Err(ParseError { line: last, problem: Problem::Missing("`nodes`") });
        }
        Ok(scenario)
    }

    fn line(&mut self, mut words: Words<'_>, line: usize) -> Result<(), Problem> {
        let Some(first) = words.rest.next() else { return Ok(()) };
        if first != "at" && !self.steps.is_empty() {
            return Err(Problem::Late(first.to_owned()));
        }
        match first {
            "for" => {
                for word in words.rest {
                    if !MACHINES.contains(&word) {
                        return Err(Problem::Unknown(word.to_owned()));
                    }
                    self.machines.push(word.to_owned());
                }
                return Ok(());
            }
            "nodes" => {
                for word in words.rest {
                    let size = word.parse().ok().filter(|size| (1..=MAX_NODES).contains(size));
                    self.nodes.push(size.ok_or_else(|| Problem::NoNumber(word.to_owned()))?);
                }
                return if self.nodes.is_empty() { Err(Problem::Missing("a number")) } else { Ok(()) };
            }
            "seed" => self.seed = words.number("a number")?,
            "set" => {
                let name = words.next("a parameter")?;
                let (machine, parameter) =
                    name.split_once('.').ok_or_else(|| Problem::Unknown(name.to_owned()))?;
                if !MACHINES.contains(&machine) {
                    return Err(Problem::Unknown(name.to_owned()));
                }
                let value = words.next("a value")?.to_owned();
                self.settings.push((machine.to_owned(), parameter.to_owned(), value, line));
            }
            "at" => {
                let size = self.nodes.iter().copied().min().ok_or(Problem::Missing("`nodes`, first,"))?;
                let at = time(words.next("a time")?)?;
                if self.steps.last().is_some_and(|(before, _)| *before > at) {
                    return Err(Problem::Earlier);
                }
                let step = step(&mut words, size)?;
                self.steps.push((at, step));
            }
            other => return Err(Problem::Unknown(other.to_owned())),
        }
        words.end()
    }
}

impl std::str::FromStr for Scenario {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

/// What is left of a line.
struct Words<'a> {
    rest: std::vec::IntoIter<&'a str>,
}

impl<'a> Words<'a> {
    fn next(&mut self, what: &'static str) -> Result<&'a str, Problem> {
        self.rest.next().ok_or(Problem::Missing(what))
    }

    fn number<N: std::str::FromStr>(&mut self, what: &'static str) -> Result<N, Problem> {
        let word = self.next(what)?;
        word.parse().map_err(|_| Problem::NoNumber(word.to_owned()))
    }

    fn nodes(&mut self, size: usize) -> Result<Nodes, Problem> {
        Nodes::parse(self.next("nodes")?, size)
    }

    fn keys(&mut self) -> Result<Keys, Problem> {
        Keys::parse(self.next("a key")?)
    }

    fn between(&mut self, size: usize) -> Result<Between, Problem> {
        let from = self.nodes(size)?;
        let one_way = match self.next("| or >")? {
            "|" => false,
            ">" => true,
            other => return Err(Problem::NoWay(other.to_owned())),
        };
        Ok(Between { from, to: self.nodes(size)?, one_way })
    }

    fn who(&mut self) -> Result<Who, Problem> {
        let mut who = Who::default();
        while let Some(word) = self.rest.next() {
            match word {
                "process" => who.process = Some(self.number("a number")?),
                "notify" => who.notify = true,
                other => return Err(Problem::TooMuch(other.to_owned())),
            }
        }
        Ok(who)
    }

    fn end(mut self) -> Result<(), Problem> {
        self.rest.next().map_or(Ok(()), |word| Err(Problem::TooMuch(word.to_owned())))
    }
}

fn step(words: &mut Words<'_>, size: usize) -> Result<Step, Problem> {
    Ok(match words.next("a step")? {
        "partition" => Step::Partition(words.between(size)?),
        "heal" if words.rest.len() == 0 => Step::HealAll,
        "heal" => Step::Heal(words.between(size)?),
        "break" => {
            let Between { from, to, one_way } = words.between(size)?;
            if one_way {
                return Err(Problem::NoWay(">".to_owned()));
            }
            Step::Break(from, to)
        }
        "crash" => Step::Crash(words.nodes(size)?),
        "start" => Step::Start(words.nodes(size)?),
        "restart" => Step::Restart(words.nodes(size)?),
        "pause" => Step::Pause(words.nodes(size)?),
        "resume" => Step::Resume(words.nodes(size)?),
        "leave" => Step::Leave(words.nodes(size)?),
        "join" => Step::Join(words.nodes(size)?),
        "skew" => {
            let nodes = words.nodes(size)?;
            let word = words.next("a time")?;
            let (text, sign) = match word.strip_prefix('-') {
                Some(text) => (text, -1),
                None => (word.strip_prefix('+').unwrap_or(word), 1),
            };
            let millis =
                i64::try_from(time(text)?.as_millis()).map_err(|_| Problem::NoTime(word.to_owned()))?;
            Step::Skew(nodes, sign * millis)
        }
        "rate" => {
            let nodes = words.nodes(size)?;
            let rate: i64 = words.number("thousandths")?;
            // A clock that stands still, or runs back, is none.
            if !(100..=10_000).contains(&rate) {
                return Err(Problem::NoNumber(rate.to_string()));
            }
            Step::Rate(nodes, rate)
        }
        "faults" => {
            let mut percent = || {
                let value: usize = words.number("per cent")?;
                if value <= 100 { Ok(value) } else { Err(Problem::NoNumber(value.to_string())) }
            };
            Step::Faults([percent()?, percent()?, percent()?])
        }
        "register" => Step::Register(words.nodes(size)?, words.keys()?, words.who()?),
        "update" => Step::Update(words.nodes(size)?, words.keys()?, words.who()?),
        "unregister" => Step::Unregister(words.nodes(size)?, words.keys()?, words.who()?),
        "exit" => {
            let nodes = words.nodes(size)?;
            let named = words.rest.as_slice().first() == Some(&"process");
            let keys = if named { None } else { Some(words.keys()?) };
            Step::Exit(nodes, keys, words.who()?)
        }
        "wait" => Step::Wait(words.nodes(size)?, words.keys()?),
        other => return Err(Problem::Unknown(other.to_owned())),
    })
}

/// A number with a unit, to the nanosecond.
fn time(text: &str) -> Result<Duration, Problem> {
    let wrong = || Problem::NoTime(text.to_owned());
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit);
    let digits = match unit {
        "s" => 9,
        "ms" => 6,
        "us" => 3,
        "ns" => 0,
        _ => return Err(wrong()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > digits || !plain(whole) || !plain(part) {
        return Err(wrong());
    }
    format!("{whole}{part:0<digits$}").parse().map(Duration::from_nanos).map_err(|_| wrong())
}

impl Nodes {
    pub(super) fn parse(text: &str, size: usize) -> Result<Self, Problem> {
        let number = |text: &str| -> Result<NodeId, Problem> {
            let node = text.parse().map_err(|_| Problem::NoNodes(text.to_owned()))?;
            if node < size { Ok(node) } else { Err(Problem::NoSuchNode(node, size)) }
        };
        let part = |text: &str| {
            if let Some((_, part)) = WORDS.iter().find(|(word, _)| *word == text) {
                return Ok(*part);
            }
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            let (from, to) = (number(from)?, number(to)?);
            if from > to { Err(Problem::NoNodes(text.to_owned())) } else { Ok(Part::Range(from, to)) }
        };
        text.split(',').map(part).collect::<Result<_, _>>().map(Self)
    }
}

impl Keys {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let Some((word, count)) = text.split_once('*') else { return Ok(Self::one(text)) };
        let count = count.parse().ok().filter(|count| *count <= MAX_KEYS);
        let count = count.ok_or_else(|| Problem::NoNumber(text.to_owned()))?;
        Ok(Self { word: word.to_owned(), count: Some(count) })
    }
}

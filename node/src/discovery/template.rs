//! Node names by a template, from what a source knows of the machine that a node runs on: `{basename}@{ip}`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use foundation_cluster::discovery::Trust;
use foundation_proto::dist::NodeName;
use serde::{Deserialize, Deserializer};

use super::Candidate;

/// How nodes are called. A field in braces stands for what the source knows of each machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Field(&'static str),
}

/// The field that the configuration knows, not the source.
const BASENAME: &str = "basename";

/// What a source knows of a machine with a node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Machine {
    pub(super) fields: BTreeMap<&'static str, String>,
    pub(super) address: Option<IpAddr>,
    /// Is another when it was started anew.
    pub(super) incarnation: String,
    pub(super) evidence: String,
    pub(super) leaving: bool,
    pub(super) unready: bool,
}

impl Template {
    /// Reads a template; `fields` are those that the source knows beside `basename`.
    pub(super) fn parse(text: &str, fields: &[&'static str]) -> Result<Self, String> {
        let wrong = |why: &str| {
            let known: Vec<String> =
                std::iter::once(&BASENAME).chain(fields).map(|field| format!("{{{field}}}")).collect();
            format!(
                "{text:?} {why}; a template is like \"{{basename}}@{{ip}}\", there are {}",
                known.join(", ")
            )
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) =
                behind.split_once('}').ok_or_else(|| wrong("has a brace that is not closed"))?;
            let field = std::iter::once(&BASENAME).chain(fields).find(|field| **field == name);
            let field = field.ok_or_else(|| wrong(&format!("has {{{name}}}, which is not known here")))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Field(field));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let ats = text.matches('@').count();
        match ats {
            1 => Ok(Self(parts)),
            _ => Err(wrong("must have one @")),
        }
    }

    /// `{basename}@{ip}`, for a source that knows addresses.
    pub(super) fn by_address() -> Self {
        Self(vec![Part::Field(BASENAME), Part::Text("@".to_owned()), Part::Field("ip")])
    }

    /// The same from a configuration.
    pub(super) fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        fields: &[&'static str],
    ) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text, fields).map_err(serde::de::Error::custom)
    }

    /// Which names the source may give by itself: those with the basename, unless the template puts something else before the
    /// `@`. Then it is all of them: whoever may start machines there chooses the addresses that are dialled anyway.
    pub(super) fn trust(&self, basename: &str) -> Trust {
        match self.0.as_slice() {
            [Part::Field(BASENAME), Part::Text(text), ..] if text.starts_with('@') => {
                Trust::Basenames(vec![basename.to_owned()])
            }
            _ => Trust::Named,
        }
    }

    /// The node of a machine; `None` if the source does not know a field, or what comes out is no node name.
    pub(super) fn candidate(&self, basename: &str, machine: Machine) -> Option<Candidate> {
        let mut name = String::new();
        for part in &self.0 {
            name.push_str(match part {
                Part::Text(text) => text,
                Part::Field(BASENAME) => basename,
                Part::Field(field) => machine.fields.get(field).filter(|value| !value.is_empty())?,
            });
        }
        let node = NodeName::parse(&name).ok()?;
        Some(Candidate {
            addresses: machine.address.into_iter().collect(),
            stamp: stamp(&machine.incarnation),
            leaving: machine.leaving,
            unready: machine.unready,
            ..Candidate::new(node, machine.evidence)
        })
    }

    /// The nodes of all machines. A name that two machines have is ready, and stays, if one of them says so.
    pub(super) fn candidates(
        &self,
        basename: &str,
        machines: impl IntoIterator<Item = Machine>,
    ) -> Vec<Candidate> {
        super::once_each(machines.into_iter().filter_map(|machine| self.candidate(basename, machine)))
    }
}

/// A number that is another for another text (FNV-1a); 0 for none.
fn stamp(text: &str) -> u64 {
    if text.is_empty() {
        return 0;
    }
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Names of nodes, with `-` if one is leaving and `?` if it is not ready.
#[cfg(test)]
pub(super) fn names(candidates: &[Candidate]) -> Vec<String> {
    let marks = |candidate: &Candidate| {
        let leaving = if candidate.leaving { "-" } else { "" };
        let unready = if candidate.unready { "?" } else { "" };
        format!("{}{leaving}{unready}", candidate.node)
    };
    candidates.iter().map(marks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[&str] = &["ip", "name"];

    fn machine(fields: &[(&'static str, &str)]) -> Machine {
        let fields = fields.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Machine { fields, ..Machine::default() }
    }

    #[test]
    fn templates_name_nodes() {
        let named = |text: &str, fields: &[(&'static str, &str)]| {
            let template = Template::parse(text, FIELDS).unwrap();
            template.candidate("web", machine(fields)).map(|candidate| candidate.node.to_string())
        };
        assert_eq!(named("{basename}@{ip}", &[("ip", "10.0.0.7")]).unwrap(), "web@10.0.0.7");
        assert_eq!(named("{basename}@{ip}", &[("ip", "fdaa::7")]).unwrap(), "web@fdaa::7");
        assert_eq!(named("x-{name}@{name}.internal", &[("name", "a")]).unwrap(), "x-a@a.internal");
        assert_eq!(named("{basename}@{name}", &[("ip", "10.0.0.7")]), None);
        assert_eq!(named("{basename}@{name}", &[("name", "")]), None);
        assert_eq!(named("{basename}@{name}", &[("name", "a@b")]), None);
        for (text, word) in [
            ("{basename}", "one @"),
            ("a@b@c", "one @"),
            ("{basename}@{host}", "{host}, which is not known"),
            ("{basename@{ip}", "not known"),
            ("{basename}@{ip", "not closed"),
        ] {
            let error = Template::parse(text, FIELDS).unwrap_err();
            assert!(error.contains(word) && error.contains("{ip}"), "{error}");
        }
    }

    #[test]
    fn a_source_that_chooses_whole_names_is_trusted_with_them() {
        let trust = |text: &str| Template::parse(text, FIELDS).unwrap().trust("web");
        assert_eq!(trust("{basename}@{ip}"), Trust::Basenames(vec!["web".into()]));
        assert_eq!(trust("{name}@{ip}"), Trust::Named);
        assert_eq!(trust("{basename}x@{ip}"), Trust::Named);
        assert_eq!(trust("other@{ip}"), Trust::Named);
    }

    #[test]
    fn of_two_machines_with_a_name_the_better_counts() {
        let template = Template::parse("{basename}@{ip}", FIELDS).unwrap();
        let old = Machine { leaving: true, unready: true, ..machine(&[("ip", "10.0.0.7")]) };
        let new = machine(&[("ip", "10.0.0.7")]);
        let candidates = template.candidates("web", [old, new]);
        assert_eq!(candidates.len(), 1);
        assert!(!candidates[0].leaving && !candidates[0].unready);
        assert_ne!(stamp("i-1 2026"), stamp("i-2 2026"));
        assert_eq!(stamp(""), 0);
    }
}

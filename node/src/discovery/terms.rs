//! libcluster's configuration as Erlang has it: terms, and texts with terms, made into what `[cluster]` reads.
//!
//! | term | becomes |
//! |---|---|
//! | keyword list, list of `{Key, Value}`, map | table |
//! | `true`, `false` | boolean |
//! | `nil`, `undefined` as the value of a key | nothing: the key is left out |
//! | other atom; a module without its `Elixir.` | string |
//! | binary, charlist | string |
//! | `{10, 0, 0, 1}` and the like | string with the address |
//! | `{:system, "VAR"}` | the value of the environment variable |
//! | `{Module, Options}` as a `strategy` | the strategy and its `config` |
//!
//! Functions, pids and references cannot be used: the strategies do not run in a BEAM.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use foundation_proto::Limits;
use foundation_proto::etf::text::{parse_elixir, parse_erlang_terms, write};
use foundation_proto::etf::{Kind, Term};
use toml::{Table, Value};

use super::config::{MAX_DEPTH, Mistake};

/// The longest text with topologies that is read. Real ones have some hundred bytes for each topology.
const MAX_TEXT: u64 = 1 << 20;
/// Keys whose values do not belong into an error.
const SECRETS: [&str; 5] = ["secret", "access_token", "erlang_cookie", "cookie", "password"];
/// Nodes of a configuration as a term.
const MAX_NODES: usize = 65_536;

/// The bounds on a configuration that comes as a term.
pub(super) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_depth = MAX_DEPTH * 2;
    limits.max_nodes = MAX_NODES;
    limits
}

/// The value of a key as the configuration has it.
///
/// # Errors
/// What has no meaning there, and under which key.
pub fn value(term: &Term) -> Result<Value, Mistake> {
    let mut path = Vec::new();
    convert(term, &mut path)?.ok_or_else(|| mistake(&path, "must not be nil".to_owned()))
}

fn mistake(path: &[String], why: String) -> Mistake {
    Mistake { key: path.to_vec(), why }
}

/// `None` for nothing. The depth is bounded by that of a configuration, so this may call itself.
fn convert(term: &Term, path: &mut Vec<String>) -> Result<Option<Value>, Mistake> {
    if path.len() > MAX_DEPTH {
        return Err(mistake(path, "is nested too deep".to_owned()));
    }
    let hidden = path.last().is_some_and(|key| SECRETS.contains(&key.as_str()));
    let place = path.clone();
    let wrong = move |what: &str| {
        let shown = if hidden { "it is not shown".to_owned() } else { short(term) };
        mistake(&place, format!("{what} cannot stand in this configuration: {shown}"))
    };
    Ok(Some(match term {
        Term::Atom(atom) => match atom.as_str() {
            "nil" | "undefined" => return Ok(None),
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            text => Value::String(text.strip_prefix("Elixir.").unwrap_or(text).to_owned()),
        },
        Term::Integer(number) => Value::Integer(*number),
        Term::Float(number) => Value::Float(*number),
        Term::Binary(_) => {
            Value::String(term.as_str().ok_or_else(|| wrong("a binary that is no UTF-8"))?.to_owned())
        }
        Term::Map(map) => {
            let mut table = Table::new();
            for (key, value) in map.iter() {
                let key = key_of(key).ok_or_else(|| wrong("a key that is neither atom nor string"))?;
                insert(&mut table, key, value, path)?;
            }
            Value::Table(table)
        }
        Term::List(list) => {
            let elements: &[Term] = list;
            if let Some(pairs) = pairs(elements) {
                let mut table = Table::new();
                for (key, value) in pairs {
                    insert(&mut table, key, value, path)?;
                }
                Value::Table(table)
            } else if let Some(text) = charlist(elements) {
                Value::String(text)
            } else {
                let mut values = Vec::new();
                for element in elements {
                    values.extend(convert(element, path)?);
                }
                Value::Array(values)
            }
        }
        Term::Tuple(tuple) => match &**tuple {
            [tag, variable] if tag.is_atom("system") => {
                let variable = key_of(variable).ok_or_else(|| wrong("{:system, …} without a name"))?;
                Value::Table(Table::from_iter([("system".to_owned(), Value::String(variable))]))
            }
            // As in `strategy: {Module, options}`.
            [Term::Atom(module), options @ (Term::List(_) | Term::Map(_))] => {
                let mut table = Table::new();
                let name = module.as_str().trim_start_matches("Elixir.").to_owned();
                table.insert("strategy".to_owned(), Value::String(name));
                insert(&mut table, "config".to_owned(), options, path)?;
                Value::Table(table)
            }
            elements => Value::String(address(elements).ok_or_else(|| wrong("this tuple"))?),
        },
        other => {
            return Err(wrong(match other.kind() {
                Kind::Fun | Kind::ExportFun => "a function",
                Kind::Pid | Kind::Port | Kind::Reference => "an identifier",
                _ => "this term",
            }));
        }
    }))
}

/// The first value of a key counts, as it does for `Keyword.get/2`.
fn insert(table: &mut Table, key: String, value: &Term, path: &mut Vec<String>) -> Result<(), Mistake> {
    path.push(key);
    let value = convert(value, path)?;
    let key = path.pop().unwrap_or_default();
    if let (Some(value), false) = (value, table.contains_key(&key)) {
        table.insert(key, value);
    }
    Ok(())
}

fn key_of(key: &Term) -> Option<String> {
    match key {
        Term::Atom(atom) => Some(atom.as_str().trim_start_matches("Elixir.").to_owned()),
        Term::List(list) => charlist(list),
        other => other.as_str().map(str::to_owned),
    }
}

/// The elements of a keyword list that is not empty.
fn pairs(elements: &[Term]) -> Option<Vec<(String, &Term)>> {
    fn pair(element: &Term) -> Option<(String, &Term)> {
        match element.as_tuple()? {
            [key @ (Term::Atom(_) | Term::Binary(_)), value] => Some((key_of(key)?, value)),
            _ => None,
        }
    }
    if elements.is_empty() { None } else { elements.iter().map(pair).collect() }
}

fn charlist(elements: &[Term]) -> Option<String> {
    let character = |element: &Term| {
        let code = u8::try_from(element.as_i64()?).ok()?;
        (32..127).contains(&code).then_some(char::from(code))
    };
    if elements.is_empty() { None } else { elements.iter().map(character).collect() }
}

/// An address as `inet` has it.
fn address(elements: &[Term]) -> Option<String> {
    let numbers: Option<Vec<u16>> =
        elements.iter().map(|element| u16::try_from(element.as_i64()?).ok()).collect();
    match *numbers? {
        [a, b, c, d] => {
            let octet = |number| u8::try_from(number).ok();
            Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?).to_string())
        }
        [a, b, c, d, e, f, g, h] => Some(Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string()),
        _ => None,
    }
}

/// A term for an error; what stands in it may be long.
fn short(term: &Term) -> String {
    const MOST: usize = 60;
    let text = write(term);
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// Topologies in a text, in Erlang or Elixir syntax: a keyword list of topologies, or a `sys.config` with
/// `[{libcluster, [{topologies, …}]}]`.
///
/// # Errors
/// Where the text is no such term, or what in it has no meaning.
pub fn topologies(text: &str) -> Result<Value, Mistake> {
    let limits = limits();
    // Lines of an Erlang file end with a full stop, what Elixir writes does not.
    let erlang = parse_erlang_terms(&format!("{}.\n", text.trim().trim_end_matches('.')), &limits);
    let term = match erlang {
        Ok(mut terms) if terms.len() == 1 => terms.remove(0),
        Ok(_) => return Err(mistake(&[], "must be one term, a keyword list of topologies".to_owned())),
        Err(erlang) => parse_elixir(text.trim(), &limits).map_err(|elixir| {
            // The language whose parser came further is the one that was meant.
            let of_erlang = (erlang.line, erlang.column) > (elixir.line, elixir.column);
            let (language, error) = if of_erlang { ("Erlang", erlang) } else { ("Elixir", elixir) };
            mistake(&[], format!("is no term in {language} syntax: {error}"))
        })?,
    };
    let mut found = value(&term)?;
    for key in ["libcluster", "topologies"] {
        if let Value::Table(table) = &mut found
            && let Some(inner) = table.remove(key)
        {
            found = inner;
        }
    }
    match found {
        Value::Table(_) => Ok(found),
        Value::Array(empty) if empty.is_empty() => Ok(Value::Table(Table::new())),
        _ => Err(mistake(&[], "must be a keyword list of topologies".to_owned())),
    }
}

/// Topologies in a file.
///
/// # Errors
/// As [`topologies`], or why it cannot be read.
pub fn topologies_file(path: &Path) -> Result<Value, Mistake> {
    let failed = |why: String| mistake(&["file".to_owned()], format!("{}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > MAX_TEXT {
        return Err(failed(format!("has {length} bytes; {MAX_TEXT} may be read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    topologies(&text).map_err(|mistake| {
        let place =
            if mistake.key.is_empty() { String::new() } else { format!("{} ", mistake.key.join(".")) };
        failed(format!("{place}{}", mistake.why))
    })
}

#[cfg(test)]
mod tests;

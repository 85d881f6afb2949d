//! Terms as JSON, for tools that know nothing else.

use core::slice;

use super::flat::{Style, flatten};
use super::number::{DecimalWork, write_float};
use crate::etf::{Atom, Term};

enum Todo<'a> {
    Elements(slice::Iter<'a, Term>),
    Pairs(slice::Iter<'a, (Term, Term)>),
    Fields(slice::Iter<'a, (Atom, Term)>),
}

/// The JSON of a term; `style` is that of the Erlang text inside.
pub(super) fn json(term: &Term, style: &Style) -> String {
    let mut writer = Writer { out: String::new(), style, work: DecimalWork::default(), stack: Vec::new() };
    writer.term(term);
    while let Some(todo) = writer.stack.pop() {
        match todo {
            Todo::Elements(mut rest) => match rest.next() {
                Some(element) => {
                    writer.out.push(',');
                    writer.stack.push(Todo::Elements(rest));
                    writer.term(element);
                }
                None => writer.out.push(']'),
            },
            Todo::Pairs(mut rest) => match rest.next() {
                Some(pair) => {
                    writer.out.push(',');
                    writer.stack.push(Todo::Pairs(rest));
                    writer.pair(pair);
                }
                None => writer.out.push('}'),
            },
            Todo::Fields(mut rest) => match rest.next() {
                Some((name, value)) => {
                    writer.out.push(',');
                    writer.stack.push(Todo::Fields(rest));
                    writer.key(name.as_str());
                    writer.term(value);
                }
                None => writer.out.push('}'),
            },
        }
    }
    writer.out
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
    work: DecimalWork,
    stack: Vec<Todo<'a>>,
}

impl<'a> Writer<'a> {
    fn term(&mut self, term: &'a Term) {
        match term {
            Term::Atom(atom) => match atom.as_str() {
                "nil" | "undefined" | "null" => self.out.push_str("null"),
                word @ ("true" | "false") => self.out.push_str(word),
                text => write_string(&mut self.out, text),
            },
            Term::Integer(integer) => self.out.push_str(&integer.to_string()),
            Term::Float(float) => write_float(&mut self.out, *float),
            Term::BigInteger(integer) => {
                let mut digits = String::new();
                self.work.write(&mut digits, integer, "16#");
                // JSON has no digits of base 16.
                if digits.contains('#') {
                    write_string(&mut self.out, &digits);
                } else {
                    self.out.push_str(&digits);
                }
            }
            Term::Binary(bytes) => match core::str::from_utf8(bytes) {
                Ok(text) => write_string(&mut self.out, text),
                Err(_) => self.printed(term),
            },
            Term::List(list) => match self.text(list) {
                Some(text) => write_string(&mut self.out, &text),
                None => self.elements(list),
            },
            Term::Tuple(elements) => self.elements(elements),
            Term::Map(map) => {
                self.out.push('{');
                let mut rest = map.iter();
                let Some(first) = rest.next() else { return self.out.push('}') };
                self.stack.push(Todo::Pairs(rest));
                self.pair(first);
            }
            Term::Record(record) => {
                self.out.push('{');
                self.key("__record__");
                write_string(&mut self.out, &format!("{}:{}", record.module.as_str(), record.name.as_str()));
                self.stack.push(Todo::Fields(record.fields.iter()));
            }
            _ => self.printed(term),
        }
    }

    fn elements(&mut self, elements: &'a [Term]) {
        self.out.push('[');
        let mut rest = elements.iter();
        let Some(first) = rest.next() else { return self.out.push(']') };
        self.stack.push(Todo::Elements(rest));
        self.term(first);
    }

    fn pair(&mut self, (key, value): &'a (Term, Term)) {
        let text = match key {
            Term::Atom(atom) => Some(atom.as_str()),
            Term::Binary(bytes) => core::str::from_utf8(bytes).ok(),
            _ => None,
        };
        match text {
            Some(text) => self.key(text),
            None => {
                self.printed(key);
                self.out.push(':');
            }
        }
        self.term(value);
    }

    fn key(&mut self, key: &str) {
        write_string(&mut self.out, key);
        self.out.push(':');
    }

    /// The characters of a list that prints as text.
    fn text(&self, list: &[Term]) -> Option<String> {
        if list.is_empty() || !self.style.strings {
            return None;
        }
        let character = |element: &Term| match element {
            Term::Integer(c) => u32::try_from(*c)
                .ok()
                .filter(|&c| self.style.charset.is_printable(c))
                .and_then(char::from_u32),
            _ => None,
        };
        list.iter().map(character).collect()
    }

    fn printed(&mut self, term: &Term) {
        let text = flatten(term, self.style, false).text;
        write_string(&mut self.out, &text);
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1F}' | '\u{7F}' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use crate::Limits;
    use crate::etf::text::{Printer, parse_erlang};

    #[test]
    fn each_type_has_its_json() {
        for (erlang, json) in [
            (
                "{ok, [1, -2.5, 1.0e22, 12345678901234567890]}",
                r#"["ok",[1,-2.5,1.0e22,12345678901234567890]]"#,
            ),
            ("[true, false, nil, undefined, null, '']", r#"[true,false,null,null,null,""]"#),
            (
                "[<<\"é\\\"\\n\\\\\\0\"/utf8>>, <<255,0>>, <<5:3>>, \"abc\", \"é\", [1,2], []]",
                r#"["é\"\n\\\u0000","<<255,0>>","<<5:3>>","abc","é",[1,2],[]]"#,
            ),
            (
                "#{a => 1, <<\"b\">> => #{}, 3 => {}, {x} => [a|b], \"s\" => fun lists:map/2}",
                r#"{"a":1,"b":{},"3":[],"{x}":"[a|b]","\"s\"":"fun lists:map/2"}"#,
            ),
        ] {
            let term = parse_erlang(erlang, &Limits::default()).unwrap();
            assert_eq!(Printer::new().json(&term), json, "{erlang}");
        }
        let text = parse_erlang("\"abc\"", &Limits::default()).unwrap();
        assert_eq!(Printer::new().strings(false).json(&text), "[97,98,99]");
    }
}

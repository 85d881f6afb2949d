//! The messages of multicast DNS, as far as finding services needs them.
//!
//! A message is that of RFC 1035 section 4: a header of six 16-bit numbers (id, flags, and how many questions, answers,
//! authorities and additional records follow), then those. Names are labels of up to 63 bytes, each behind its length, and may
//! end in a pointer to an earlier name. What differs in multicast (RFC 6762 section 18): the highest bit of a record's class
//! asks caches to forget other records, and a time to live of 0 takes a record back.

use std::net::Ipv4Addr;

/// The longest message (RFC 6762 section 17).
pub(super) const MAX_MESSAGE: usize = 9000;
/// Records of one message that are looked at. An answer for one service takes four.
const MAX_RECORDS: usize = 512;
/// The longest name, in bytes (RFC 1035 section 3.1).
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;
/// Pointers that are followed for one name. Each points backwards, so this bounds the work, not the end.
const MAX_POINTERS: usize = 32;

/// The types of records that are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Type {
    A = 1,
    Ptr = 12,
}

/// A record of a response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    /// Whose it is, with `\` before dots that are part of a label, without a dot at the end.
    pub(super) name: String,
    /// Seconds; 0 takes it back.
    pub(super) ttl: u32,
    pub(super) data: Data,
}

/// What a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Data {
    A(Ipv4Addr),
    Ptr(String),
    /// Strings of up to 255 bytes.
    Txt(Vec<Vec<u8>>),
    Srv {
        port: u16,
        target: String,
    },
}

/// A query with these questions; `None` if a name cannot be asked for.
pub(super) fn query(id: u16, questions: &[(&str, Type)]) -> Option<Vec<u8>> {
    let count = u16::try_from(questions.len()).ok()?;
    let mut out = Vec::with_capacity(64);
    for number in [id, 0, count, 0, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    for (name, kind) in questions {
        let start = out.len();
        for label in name.split('.') {
            let length =
                u8::try_from(label.len()).ok().filter(|length| (1..=MAX_LABEL as u8).contains(length))?;
            out.push(length);
            out.extend(label.as_bytes());
        }
        out.push(0);
        if out.len() - start > MAX_NAME {
            return None;
        }
        out.extend((*kind as u16).to_be_bytes());
        out.extend([0, 1]);
    }
    Some(out)
}

/// The records of a response that this program understands; `None` if it is no response, or none that can be read.
pub(super) fn response(message: &[u8]) -> Option<Vec<Record>> {
    let mut reader = Reader { message, at: 0 };
    let _id = reader.number()?;
    let flags = reader.number()?;
    // QR, and the opcode of a query.
    if flags & 0xF800 != 0x8000 {
        return None;
    }
    let questions = reader.number()?;
    let mut left = 0_usize;
    for _section in 0..3 {
        left += usize::from(reader.number()?);
    }
    for _question in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    let mut records = Vec::new();
    for _record in 0..left.min(MAX_RECORDS) {
        // What was understood before a message ends too early or turns strange still stands.
        let Some(record) = reader.record() else { break };
        records.extend(record);
    }
    Some(records)
}

/// Whether two names are the same (RFC 6762 section 16).
pub(super) fn same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name here; afterwards what follows it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut length = 0;
        let mut after = None;
        let mut pointers = 0;
        loop {
            let start = self.at;
            let byte = self.byte()?;
            match byte >> 6 {
                0 if byte == 0 => break,
                0 => {
                    let label = self.take(usize::from(byte))?;
                    length += label.len() + 1;
                    if length > MAX_NAME {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for character in String::from_utf8_lossy(label).chars() {
                        if matches!(character, '.' | '\\') {
                            name.push('\\');
                        }
                        // Names are shown on terminals, whoever chose them.
                        name.push(if character.is_control() { '\u{FFFD}' } else { character });
                    }
                }
                3 => {
                    let target = usize::from(byte & 0x3F) << 8 | usize::from(self.byte()?);
                    after = after.or(Some(self.at));
                    pointers += 1;
                    if target >= start || pointers > MAX_POINTERS {
                        return None;
                    }
                    self.at = target;
                }
                _ => return None,
            }
        }
        self.at = after.unwrap_or(self.at);
        Some(name)
    }

    /// A record; `Some(None)` for one that this program has no use for.
    fn record(&mut self) -> Option<Option<Record>> {
        let name = self.name()?;
        let kind = self.number()?;
        let class = self.number()? & 0x7FFF;
        let ttl = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let length = usize::from(self.number()?);
        let end = self.at.checked_add(length)?;
        let data = self.data(kind, length);
        self.at = end;
        if end > self.message.len() {
            return None;
        }
        Some(data.filter(|_| class == 1).map(|data| Record { name, ttl, data }))
    }

    fn data(&mut self, kind: u16, length: usize) -> Option<Data> {
        match kind {
            1 => Some(Data::A(<[u8; 4]>::try_from(self.take(length)?).ok()?.into())),
            12 => self.name().map(Data::Ptr),
            16 => {
                let mut rest = self.take(length)?;
                let mut strings = Vec::new();
                while let Some((length, after)) = rest.split_first() {
                    let (string, after) = after.split_at_checked(usize::from(*length))?;
                    strings.push(string.to_vec());
                    rest = after;
                }
                Some(Data::Txt(strings))
            }
            33 => {
                // Priority and weight: there is only ever one way to a node.
                self.take(4)?;
                Some(Data::Srv { port: self.number()?, target: self.name()? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

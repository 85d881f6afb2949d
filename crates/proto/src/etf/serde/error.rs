use core::fmt;

use serde::de::{Expected, Unexpected};

/// A value that has no term, or a term that is not the value that was asked for.
///
/// It says where inside the term: `.items[3].name: expected a string, got the atom 'x'`.
// One word, so that passing on that there is none costs nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Inner {
    /// From the inside out.
    path: Vec<Step>,
    message: String,
}

/// One step into a term.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// The value of a key of a map, as it prints.
    Key(String),
    /// An element of a list or tuple, from 0.
    Index(usize),
}

impl Error {
    #[cold]
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Inner { path: Vec::new(), message: message.into() }))
    }

    /// Not what was expected.
    #[cold]
    pub(super) fn expected(expected: &dyn Expected, got: impl fmt::Display) -> Self {
        Self::new(format!("expected {expected}, got {got}"))
    }

    /// The same error, seen from one level further out.
    #[cold]
    pub(super) fn inside(mut self, step: Step) -> Self {
        self.0.path.push(step);
        self
    }

    /// Where inside the term: `.items[3].name`; empty for the term itself.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.0.path.iter().rev() {
            match step {
                Step::Key(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    /// What is wrong there.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            write!(f, "{}: ", self.path())?;
        }
        f.write_str(&self.0.message)
    }
}

impl core::error::Error for Error {}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected, got)
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected, got)
    }

    fn invalid_length(len: usize, expected: &dyn Expected) -> Self {
        Self::expected(expected, format_args!("{len} elements"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }
}

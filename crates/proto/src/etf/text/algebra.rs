//! Breaking lines as Elixir's `Inspect.Algebra` does.
//!
//! A document is text with places where a line may break, in groups. A group that fits on the rest of the line is not broken;
//! in any other, all strict breaks break, and of the flexible ones those after which the next piece does not fit.

use super::pretty::MAX_INDENTATION;

/// One piece of a document, in the order of the text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    /// The text up to this offset.
    Text(usize),
    /// A line break, or otherwise a space or nothing.
    Break {
        flexible: bool,
        space: bool,
    },
    /// Begins a group that ends at the piece of this index.
    Group(usize),
    EndGroup,
    /// Lines that begin in here are indented so much more.
    Nest(usize),
    EndNest,
}

/// A document: its pieces and their text. Widths are in bytes, as Elixir counts them.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) text: String,
    pub(super) pieces: Vec<Piece>,
    open: Vec<usize>,
}

impl Document {
    /// Ends the run of text that was pushed to `text`.
    fn cut(&mut self) {
        let end = self.text.len();
        match self.pieces.last_mut() {
            Some(Piece::Text(last)) => *last = end,
            _ => self.pieces.push(Piece::Text(end)),
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        self.text.push_str(text);
        self.cut();
    }

    /// Lets `write` append text.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.cut();
    }

    pub(super) fn line_break(&mut self, flexible: bool, space: bool) {
        self.pieces.push(Piece::Break { flexible, space });
    }

    pub(super) fn begin_group(&mut self) {
        self.open.push(self.pieces.len());
        self.pieces.push(Piece::Group(0));
    }

    pub(super) fn end_group(&mut self) {
        let end = self.pieces.len();
        self.pieces.push(Piece::EndGroup);
        if let Some(Piece::Group(group_end)) = self.open.pop().and_then(|start| self.pieces.get_mut(start)) {
            *group_end = end;
        }
    }

    pub(super) fn begin_nest(&mut self, by: usize) {
        self.pieces.push(Piece::Nest(by));
    }

    pub(super) fn end_nest(&mut self) {
        self.pieces.push(Piece::EndNest);
    }

    /// The text, broken for lines of `width`; `None`: not broken.
    pub(super) fn layout(self, width: Option<usize>) -> String {
        Layout::new(&self, width).run()
    }
}

/// What surrounds a piece.
enum Outer {
    /// A group, and whether breaks broke before it.
    Group { broken: bool },
    /// The indentation before it.
    Nest(usize),
}

struct Layout<'a> {
    document: &'a Document,
    width: Option<usize>,
    /// For each piece, the next break from there.
    next_break: Vec<usize>,
    stack: Vec<Outer>,
    indent: usize,
    broken: bool,
    /// In a group that fits as a whole, so that everything in it does.
    fitting: Option<usize>,
}

impl<'a> Layout<'a> {
    fn new(document: &'a Document, width: Option<usize>) -> Self {
        let mut next_break = vec![usize::MAX; document.pieces.len()];
        let mut next = usize::MAX;
        for (index, (piece, slot)) in document.pieces.iter().zip(&mut next_break).enumerate().rev() {
            if matches!(piece, Piece::Break { .. }) {
                next = index;
            }
            *slot = next;
        }
        Self { document, width, next_break, stack: Vec::new(), indent: 0, broken: false, fitting: None }
    }

    fn run(mut self) -> String {
        let document = self.document;
        let mut out = String::with_capacity(document.text.len() + document.text.len() / 4);
        let (mut column, mut start, mut indentation) = (0, 0, MAX_INDENTATION);
        for (index, piece) in document.pieces.iter().enumerate() {
            match *piece {
                Piece::Text(end) => {
                    out.push_str(document.text.get(start..end).unwrap_or_default());
                    column += end - start;
                    start = end;
                }
                Piece::Break { flexible, space } => {
                    let after = column + usize::from(space);
                    let breaks = self.broken && !(flexible && self.fits(index + 1, start, after, true));
                    if breaks {
                        let spaces = self.indent.min(indentation);
                        indentation -= spaces;
                        out.push('\n');
                        out.extend(core::iter::repeat_n(' ', spaces));
                        column = self.indent;
                    } else {
                        out.extend(space.then_some(' '));
                        column = after;
                    }
                }
                Piece::Group(end) => {
                    self.stack.push(Outer::Group { broken: self.broken });
                    if self.fitting.is_none() && self.width.is_some() {
                        self.broken = !self.fits(index, start, column, false);
                        if !self.broken {
                            self.fitting = Some(end);
                        }
                    }
                }
                Piece::EndGroup => {
                    if let Some(Outer::Group { broken }) = self.stack.pop() {
                        self.broken = broken;
                    }
                    if self.fitting == Some(index) {
                        self.fitting = None;
                    }
                }
                Piece::Nest(by) => {
                    self.stack.push(Outer::Nest(self.indent));
                    self.indent += by;
                }
                Piece::EndNest => {
                    if let Some(Outer::Nest(indent)) = self.stack.pop() {
                        self.indent = indent;
                    }
                }
            }
        }
        out
    }

    /// Whether the pieces from `from` fit: those of a group, if there is one at `from` and `flexible` is false, else those up to
    /// the next place where the line may break anyway. `start` is where their text begins, `column` where they do.
    ///
    /// As in Elixir, text that is too wide fits nevertheless if no break before it could help. That takes no more
    /// steps than the line has columns: beyond its end, only the existence of a further break decides.
    fn fits(&self, from: usize, mut start: usize, mut column: usize, flexible: bool) -> bool {
        let Some(width) = self.width else { return true };
        let pieces = &self.document.pieces;
        let end = match pieces.get(from) {
            Some(Piece::Group(end)) if !flexible => *end,
            _ => pieces.len(),
        };
        let mut outer = self.stack.iter().rev();
        // Whether a break would break, per group that is left on the way, and whether one could have.
        let (mut broken, mut could_break) = (flexible && self.broken, flexible);
        let mut inner: Vec<(bool, bool)> = Vec::new();
        for (index, piece) in pieces.iter().enumerate().take(end).skip(from) {
            if column > width {
                return !could_break && self.next_break.get(index).is_none_or(|&next| next >= end);
            }
            match *piece {
                Piece::Text(text_end) => {
                    column += text_end - start;
                    start = text_end;
                }
                Piece::Break { .. } if broken => return true,
                Piece::Break { space, .. } => {
                    column += usize::from(space);
                    could_break = true;
                }
                Piece::Group(_) => {
                    inner.push((broken, could_break));
                    broken = false;
                }
                Piece::EndGroup => match inner.pop() {
                    Some((outer_broken, outer_could_break)) => {
                        if column > width && could_break {
                            return false;
                        }
                        (broken, could_break) = (outer_broken, outer_could_break);
                    }
                    None => {
                        broken = outer
                            .find_map(|outer| match outer {
                                Outer::Group { broken } => Some(*broken),
                                Outer::Nest(_) => None,
                            })
                            .unwrap_or(false);
                    }
                },
                Piece::Nest(_) | Piece::EndNest => {}
            }
        }
        column <= width || !could_break
    }
}

//! The languages inside the TOML: `JSONPath` selects, minijinja shapes.
//!
//! Everything is compiled when the file is; running an expression on an event is pure, bounded by fuel and size, and
//! copies nothing of the event it does not have to. This room knows nothing of destinations.

pub mod filter;
pub mod functions;
pub mod scope;
pub mod template;
pub mod why;

mod json;
mod names;
mod node;
mod plain;
mod query;
mod scan;
mod text;
mod time;

use std::ops::Range;

pub use names::{FileUse, NameUse};
pub use scope::{Items, Names, Scope};
pub(crate) use text::percent_encode;

/// A value an expression makes or reads: typed, cheap to clone.
pub use minijinja::Value;
/// What a value is.
pub use minijinja::value::ValueKind;

/// What one template may make, in bytes of output; a batch's envelope may make more, see
/// [`Scope::output_max_bytes`]. What is passed on as it was received does not count.
pub const OUTPUT_MAX_BYTES: usize = 1 << 20;

/// What one evaluation may do, in steps of the template engine: about a millisecond of work.
pub const FUEL: u64 = 50_000;

/// The stack of a thread that evaluates: fuel allows a template to build a list some 8,000 levels deep, and to let go of
/// such a list takes a call a level. What nobody uses of a stack costs no memory.
pub const STACK_BYTES: usize = 32 << 20;

/// What one `JSONPath` may look at, in nodes of the document: some tenths of a second of work. The largest reply that is
/// read has two million.
pub const NODES_MAX: u64 = 10_000_000;

/// Elements of one `each`; in an envelope, the items of the batch where they are more.
pub const EACH_MAX: usize = 10_000;

/// Elements of all `each` of one event for one destination, those of lists within lists included; in an envelope, so
/// many more than there are items.
pub const ELEMENTS_MAX: usize = 100_000;

/// What one `each` may make, in bytes: of requests, or of one list. For an envelope twice its batch more.
pub const EACH_MAX_BYTES: usize = 16 << 20;

/// What is wrong with an expression's text, found when it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The bytes at fault, within the expression's own text.
    pub range: Range<usize>,
    /// What is wrong, as a fragment.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// An expression failed on this event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// What went wrong, as a fragment without the event's data beyond a short excerpt.
    pub message: String,
    /// The bytes of the expression's own text that failed, where known.
    pub range: Option<Range<usize>>,
}

/// Which fields a rendered body leaves out besides missing ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Omit {
    /// None.
    #[default]
    Nothing,
    /// Those that are `null`.
    Null,
    /// Those that are `null`, `""`, `[]` or `{}`.
    Empty,
}

/// How a value is written into text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// As it is.
    #[default]
    Plain,
    /// Percent-encoded: all but the unreserved characters of RFC 3986.
    Url,
}

// === impl Mistake, EvalError ===

impl Mistake {
    fn new(range: Range<usize>, message: impl Into<String>) -> Self {
        Self { range, message: message.into(), help: None }
    }

    fn with_help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }
}

impl EvalError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), range: None }
    }

    /// More bytes than allowed.
    pub(crate) fn too_large(max_bytes: usize) -> Self {
        Self::new(format!("output is larger than {max_bytes} bytes"))
    }

    /// A list that is longer than allowed.
    pub(crate) fn too_many(elements_max: usize) -> Self {
        Self::new(format!("a list of more than {elements_max} elements"))
    }

    fn at(self, range: Range<usize>) -> Self {
        Self { range: Some(range), ..self }
    }
}

/// The name among `known` that was probably meant, as help.
fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance_max = (word.chars().count() / 3).max(1);
    let (distance, name) = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word.to_lowercase(), &name.to_lowercase()), name))
        .min()?;
    (distance <= distance_max).then(|| format!("did you mean `{name}`?"))
}

/// The beginning of a text that may hold an event's data: enough to recognise it, never all of it.
pub(crate) fn excerpt(text: &str) -> String {
    cut(text, 40)
}

/// A text's first so many characters, and a sign where there are more.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    let mut short: String = text.chars().take(chars_max).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

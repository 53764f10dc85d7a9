//! Reads a type as GoogleSQL writes it: `STRING`, `NUMERIC(10, 2) NOT NULL`, `ARRAY<STRUCT<sku STRING, price FLOAT64>>`.

use std::ops::Range;

use super::column::{Column, Mode, Parameters, Scalar, Type};

/// What is wrong with a type's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMistake {
    /// The bytes at fault.
    pub range: Range<usize>,
    /// What is wrong, as a fragment.
    pub message: String,
}

/// Structs within structs: BigQuery takes 15
/// (<https://cloud.google.com/bigquery/docs/nested-repeated#limitations>, read 2026-11-26).
const DEPTH_MAX: usize = 15;

/// Reads the type of a column, and how often it has a value.
///
/// ```
/// use libroseg::plan::bigquery::{Mode, Scalar, types};
///
/// let (kind, mode) = types::parse("array<string>").expect("a type");
/// assert_eq!((kind.scalar(), mode), (Some(Scalar::String), Mode::Repeated));
/// ```
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str) -> Result<(Type, Mode), TypeMistake> {
    let mut reader = Reader { text, at: 0 };
    let read = reader.column_type(0)?;
    reader.skip_blanks();
    if reader.at < text.len() {
        return Err(mistake(reader.at..text.len(), "nothing is expected here"));
    }
    Ok(read)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

// === impl Reader ===

impl<'t> Reader<'t> {
    /// A type, and `NOT NULL` if it follows.
    fn column_type(&mut self, depth: usize) -> Result<(Type, Mode), TypeMistake> {
        let (kind, mode) = self.kind(depth)?;
        let begin = self.at;
        if !self.take_word("NOT") {
            return Ok((kind, mode));
        }
        if !self.take_word("NULL") {
            return Err(mistake(self.at..self.at, "`NULL` is expected after `NOT`"));
        }
        match mode {
            Mode::Nullable | Mode::Required => Ok((kind, Mode::Required)),
            Mode::Repeated => {
                Err(mistake(begin..self.at, "a list that is missing is an empty one: `ARRAY` takes no `NOT NULL`"))
            }
        }
    }

    fn kind(&mut self, depth: usize) -> Result<(Type, Mode), TypeMistake> {
        let (range, word) = self.word()?;
        if word.eq_ignore_ascii_case("ARRAY") {
            self.expect('<')?;
            let begin = self.at;
            let (kind, mode) = self.kind(depth)?;
            if mode == Mode::Repeated {
                return Err(mistake(begin..self.at, "a list of lists cannot be a column: put a STRUCT between them"));
            }
            self.expect('>')?;
            return Ok((kind, Mode::Repeated));
        }
        if word.eq_ignore_ascii_case("STRUCT") || word.eq_ignore_ascii_case("RECORD") {
            if depth >= DEPTH_MAX {
                return Err(mistake(range, "columns lie within columns 15 deep at most"));
            }
            return Ok((Type::Struct(self.fields(depth)?), Mode::Nullable));
        }
        let Some(scalar) = Scalar::from_word(word) else {
            return Err(mistake(range, format!("`{word}` is no type of BigQuery's")));
        };
        Ok((Type::Scalar(scalar, self.parameters(scalar)?), Mode::Nullable))
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<Column>, TypeMistake> {
        self.expect('<')?;
        let mut columns: Vec<Column> = Vec::new();
        loop {
            let (range, name) = self.word()?;
            if super::column::find(&columns, name).is_some() {
                return Err(mistake(range, format!("the column `{name}` is there twice")));
            }
            let (kind, mode) = self.column_type(depth + 1)?;
            columns.push(Column { name: name.to_owned(), kind, mode, description: None });
            if !self.take(',') {
                break;
            }
        }
        self.expect('>')?;
        Ok(columns)
    }

    /// `(10)`, `(10, 2)`.
    fn parameters(&mut self, scalar: Scalar) -> Result<Parameters, TypeMistake> {
        let begin = self.at;
        if !self.take('(') {
            return Ok(Parameters::default());
        }
        let first = self.number()?;
        let scale = if self.take(',') { Some(self.number()?) } else { None };
        self.expect(')')?;
        let has_scale = matches!(scalar, Scalar::Numeric | Scalar::BigNumeric);
        let has_length = matches!(scalar, Scalar::String | Scalar::Bytes);
        if !has_scale && (scale.is_some() || !has_length) {
            return Err(mistake(begin..self.at, format!("`{}` takes no such numbers", scalar.words().0)));
        }
        Ok(Parameters(Some(first), scale))
    }

    fn number(&mut self) -> Result<u64, TypeMistake> {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let range = self.at..self.at + length;
        self.at = range.end;
        self.text[range.clone()].parse().map_err(|_| mistake(range, "a number is expected here"))
    }

    fn word(&mut self) -> Result<(Range<usize>, &'t str), TypeMistake> {
        self.skip_blanks();
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let range = self.at..self.at + length;
        self.at = range.end;
        if range.is_empty() {
            return Err(mistake(range, "a type or a name is expected here"));
        }
        Ok((range.clone(), &self.text[range]))
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let before = self.at;
        let is_there = self.word().is_ok_and(|(_, word)| word.eq_ignore_ascii_case(wanted));
        if !is_there {
            self.at = before;
        }
        is_there
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        let is_there = self.text[self.at..].starts_with(wanted);
        if is_there {
            self.at += wanted.len_utf8();
        }
        is_there
    }

    fn expect(&mut self, wanted: char) -> Result<(), TypeMistake> {
        if self.take(wanted) { Ok(()) } else { Err(mistake(self.at..self.at, format!("`{wanted}` is expected here"))) }
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }
}

fn mistake(range: Range<usize>, message: impl Into<String>) -> TypeMistake {
    TypeMistake { range, message: message.into() }
}

//! A TOML table that has the shape of the destination's document: constants, templates, spreads and lists.

use super::Each;
use super::bigquery::Shape;
use super::error::PlacedError;
use crate::expr::template::{self, Template};
use crate::expr::{EvalError, Omit, Scope, Value, ValueKind};

/// How a body, or an envelope, is made from an event.
#[allow(clippy::large_enum_variant, reason = "made once a file: a box would be one more step for every event")]
pub enum Mapping {
    /// JSON text that is the same for every event.
    Constant(String),
    /// One string of the file.
    Template(Template),
    /// A table: first what is spread, then the named fields, which win.
    Object {
        /// `"..."`: objects whose members are taken over; missing ones are skipped.
        spread: Vec<Template>,
        /// In file order; a missing value leaves its field out.
        fields: Vec<(String, Mapping)>,
    },
    /// A list; missing elements are left out.
    List(Vec<Mapping>),
    /// `{ each = …, item = … }`: a list made from a list, with `item` and `index` in scope.
    Each {
        /// What it runs over; missing: the whole list is missing.
        over: Box<Each>,
        /// What becomes of each element.
        item: Box<Mapping>,
    },
}

/// The members of an object under construction: commas, and who came first.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    omit: Omit,
    /// What the values are to fit, if this is a row.
    shape: Option<&'a Shape>,
    is_first: bool,
}

// === impl Mapping ===

impl Mapping {
    /// Appends the JSON it makes; `false` and nothing written when it is missing as a whole.
    pub(crate) fn write_json(&self, scope: &Scope, omit: Omit, out: &mut Vec<u8>) -> Result<bool, PlacedError> {
        match self {
            Self::Constant(json) => {
                out.extend_from_slice(json.as_bytes());
                Ok(true)
            }
            Self::Template(template) => template.write_json(scope, omit, out).map_err(PlacedError::from),
            Self::Object { spread, fields } => {
                let members = Members { out, omit, shape: None, is_first: true };
                write_object(spread, fields, scope, members)
            }
            Self::List(elements) => write_list(elements, scope, omit, out),
            Self::Each { over, item } => write_each(over, item, scope, omit, out),
        }
    }

    /// Appends the row it makes, each value as its column wants it; `false` and nothing written when it is missing as a
    /// whole.
    pub(super) fn write_row(
        &self,
        scope: &Scope,
        omit: Omit,
        shape: &Shape,
        out: &mut Vec<u8>,
    ) -> Result<bool, PlacedError> {
        match self {
            Self::Object { spread, fields } if !shape.grows => {
                let members = Members { out, omit, shape: Some(shape), is_first: true };
                write_object(spread, fields, scope, members)
            }
            Self::Constant(_) | Self::Template(_) | Self::Object { .. } | Self::List(_) | Self::Each { .. } => {
                let mut row = Vec::with_capacity(512);
                let is_written = self.write_json(scope, omit, &mut row)?;
                if is_written {
                    shape.write(&row, out)?;
                }
                Ok(is_written)
            }
        }
    }
}

fn write_object(
    spread: &[Template],
    fields: &[(String, Mapping)],
    scope: &Scope,
    mut members: Members<'_>,
) -> Result<bool, PlacedError> {
    members.out.push(b'{');
    let spread = spread.iter().map(|template| template.value(scope)).collect::<Result<Vec<_>, _>>();
    let spread = spread.map_err(|error| PlacedError::at("\"...\"", error))?;
    for (position, object) in spread.iter().enumerate() {
        let is_named_later = |key: &str| {
            fields.iter().any(|(name, _)| name == key) || spread[position + 1..].iter().any(|later| has_key(later, key))
        };
        members.spread(object, is_named_later).map_err(|error| PlacedError::at("\"...\"", error))?;
    }
    for (name, mapping) in fields {
        members.field(name, |omit, out| mapping.write_json(scope, omit, out)).map_err(|error| error.within(name))?;
    }
    members.out.push(b'}');
    Ok(true)
}

fn has_key(object: &Value, key: &str) -> bool {
    object.get_attr(key).is_ok_and(|value| !value.is_undefined())
}

fn write_list(elements: &[Mapping], scope: &Scope, omit: Omit, out: &mut Vec<u8>) -> Result<bool, PlacedError> {
    out.push(b'[');
    let mut is_first = true;
    for (index, element) in elements.iter().enumerate() {
        write_element(element, scope, omit, &mut is_first, out).map_err(|error| error.within(index))?;
    }
    out.push(b']');
    Ok(true)
}

fn write_each(over: &Each, item: &Mapping, scope: &Scope, omit: Omit, out: &mut Vec<u8>) -> Result<bool, PlacedError> {
    let Some(elements) = over.elements(scope).map_err(|error| PlacedError::at("each", error))? else {
        return Ok(false);
    };
    let end_max = out.len().saturating_add(scope.each_max_bytes());
    out.push(b'[');
    let mut is_first = true;
    for (index, element) in elements.into_iter().enumerate() {
        let scope = scope.with_item(element, index);
        write_element(item, &scope, omit, &mut is_first, out).map_err(|error| error.within("item"))?;
        if out.len() > end_max {
            return Err(PlacedError::at("each", EvalError::too_large(scope.each_max_bytes())));
        }
    }
    out.push(b']');
    Ok(true)
}

fn write_element(
    element: &Mapping,
    scope: &Scope,
    omit: Omit,
    is_first: &mut bool,
    out: &mut Vec<u8>,
) -> Result<(), PlacedError> {
    let before = out.len();
    if !*is_first {
        out.push(b',');
    }
    if element.write_json(scope, omit, out)? {
        *is_first = false;
    } else {
        out.truncate(before);
    }
    Ok(())
}

// === impl Members ===

impl Members<'_> {
    fn field<E: From<EvalError>>(
        &mut self,
        name: &str,
        write: impl FnOnce(Omit, &mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let before = self.out.len();
        if !self.is_first {
            self.out.push(b',');
        }
        serde_json::to_writer(&mut *self.out, name).expect("text is always JSON, and memory takes it");
        self.out.push(b':');
        let start = self.out.len();
        let is_kept = write(self.omit, self.out)? && !self.omit.leaves_out(&self.out[start..]);
        let fits = |shape: &Shape| shape.fit(name, start, self.out);
        if is_kept && self.shape.map_or(Ok(true), fits)? {
            self.is_first = false;
        } else {
            self.out.truncate(before);
        }
        Ok(())
    }

    fn spread(&mut self, object: &Value, is_named_later: impl Fn(&str) -> bool) -> Result<(), EvalError> {
        if object.is_undefined() || object.is_none() {
            return Ok(());
        }
        let not_an_object =
            || EvalError { message: "only an object can be spread with \"...\"".to_owned(), range: None };
        if object.kind() != ValueKind::Map {
            return Err(not_an_object());
        }
        for key in object.try_iter().map_err(|_| not_an_object())? {
            let Some(name) = key.as_str() else { return Err(not_an_object()) };
            if is_named_later(name) {
                continue;
            }
            let value = object.get_item(&key).map_err(|_| not_an_object())?;
            self.field(name, |omit, out| template::write_json(&value, omit, out).map(|()| true))?;
        }
        Ok(())
    }
}

// === impl Omit ===

impl Omit {
    /// Whether a value, as written, is one that is left out.
    #[must_use]
    pub fn leaves_out(self, json: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::Null => json == b"null",
            Self::Empty => matches!(json, b"null" | b"\"\"" | b"[]" | b"{}"),
        }
    }
}

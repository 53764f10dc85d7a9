//! From an event and the rules that want it to items: addresses and bodies, typed and bounded.
//!
//! All or nothing: when one rule fails on an event, none of its items exists.

use std::sync::Arc;

use bytes::Bytes;

use super::auth::push_query;
use super::batch::{Address, Item, UNBATCHED};
use super::bigquery::Insert;
use super::error::{PlacedError, RuleError};
use super::select::Matches;
use super::{BatchSettings, Destination, Each, Encoding, Mapping, RequestTemplate, Rule};
use crate::attempt::ItemKey;
use crate::event::MessageId;
use crate::expr::template::Template;
use crate::expr::{EACH_MAX_BYTES, Escape, EvalError, Scope, Value, ValueKind};

// === impl Destination ===

impl Destination {
    /// Makes the items of an event, in the order of its rules.
    ///
    /// # Errors
    /// When a mapping fails on this event.
    pub fn render(&self, matches: &Matches<'_>, message_id: &MessageId) -> Result<Vec<Item>, RuleError> {
        let mut items = Vec::with_capacity(matches.rules.len());
        for rule in &matches.rules {
            Self::render_rule(rule, &matches.scope, message_id, &mut items)
                .map_err(|PlacedError { place, error }| self.error(Some(rule), error).within(place))?;
        }
        Ok(items)
    }

    fn render_rule(
        rule: &Rule,
        scope: &Scope,
        message_id: &MessageId,
        items: &mut Vec<Item>,
    ) -> Result<(), PlacedError> {
        let mut push = |scope: &Scope, index: u32| -> Result<usize, PlacedError> {
            let key = ItemKey { rule: rule.fingerprint, index };
            let body = match (&rule.request.insert, &rule.request.body) {
                (Some(insert), Some(row)) => {
                    let row = rule.row(insert, row, key, message_id, scope);
                    Some(row.map_err(|error| error.within("row"))?)
                }
                _ => rule.request.body(scope)?,
            };
            let address = rule.address(scope)?;
            let item = Item { key, rule: rule.index, address, body, message_id: message_id.clone() };
            let size_bytes = item.size_bytes() + item.address.url.len();
            items.push(item);
            Ok(size_bytes)
        };
        let Some(each) = &rule.each else { return push(scope, 0).map(drop) };
        let elements = each.elements(scope).map_err(|error| PlacedError::at("each", error))?;
        let mut size_bytes = 0;
        for (index, element) in (0..).zip(elements.unwrap_or_default()) {
            size_bytes += push(&scope.with_item(element, index as usize), index)?;
            if size_bytes > EACH_MAX_BYTES {
                return Err(PlacedError::at("each", EvalError::too_large(EACH_MAX_BYTES)));
            }
        }
        Ok(())
    }

    /// An error with its place in the file.
    pub(super) fn error(&self, rule: Option<&Rule>, error: EvalError) -> RuleError {
        let rule = rule.and_then(|rule| rule.place.clone());
        let place = match &rule {
            Some(place) => format!("destinations.{}.{place}", self.name),
            None => format!("destinations.{}", self.name),
        };
        let message = self.secrets().redact(&error.message);
        RuleError { place, rule, error: EvalError { message, ..error } }
    }
}

// === impl Rule ===

impl Rule {
    /// What BigQuery is sent of a row.
    fn row(
        &self,
        insert: &Insert,
        row: &Mapping,
        key: ItemKey,
        message_id: &MessageId,
        scope: &Scope,
    ) -> Result<Bytes, PlacedError> {
        let mut out = Vec::with_capacity(1024);
        let opened = insert.open_row(key, self.index, message_id, scope, &mut out);
        // Why the row fails is told before why its id does.
        if !row.write_row(scope, self.request.omit, &insert.shape, &mut out)? {
            return Err(missing().into());
        }
        opened?;
        out.push(b'}');
        Ok(out.into())
    }

    fn address(&self, scope: &Scope) -> Result<Arc<Address>, PlacedError> {
        if let Some(address) = self.request.address.get() {
            return Ok(Arc::clone(address));
        }
        let by = self.batch.as_ref().and_then(|batch| batch.by.as_ref());
        let address = Arc::new(Address {
            method: self.request.method.clone(),
            url: self.request.url(scope)?,
            headers: self.request.headers(scope)?,
            by: by
                .map_or(Ok(String::new()), |by| text(by, scope))
                .map_err(|error| PlacedError::at("batch.by", error))?,
            encoding: self.request.encoding,
            lane: self.batch.as_ref().map_or(UNBATCHED, lane),
        });
        if by.is_none() && self.request.has_constant_address() {
            return Ok(Arc::clone(self.request.address.get_or_init(|| address)));
        }
        Ok(address)
    }
}

/// A number that two rules share exactly when they share their batch settings.
fn lane(batch: &Arc<BatchSettings>) -> usize {
    Arc::as_ptr(batch).addr()
}

fn text(template: &Template, scope: &Scope) -> Result<String, EvalError> {
    let mut out = String::new();
    template.write_text(scope, Escape::Plain, &mut out)?;
    Ok(out)
}

// === impl RequestTemplate ===

impl RequestTemplate {
    fn has_constant_address(&self) -> bool {
        let is_constant = |template: &Template| template.as_constant().is_some();
        let is_constant_pair = |(_, template): &(String, Template)| is_constant(template);
        self.insert.iter().all(|insert| insert.table.is_constant())
            && self.url.iter().all(is_constant)
            && self.path.iter().all(is_constant)
            && self.headers.iter().all(is_constant_pair)
            && self.query.iter().all(is_constant_pair)
    }

    fn url(&self, scope: &Scope) -> Result<String, PlacedError> {
        if let Some(insert) = &self.insert {
            return insert.table.address(scope).map(|table| table.insert_url());
        }
        let Some(template) = &self.url else { return Ok(String::new()) };
        let mut url = String::with_capacity(128);
        for (key, part) in [("url", Some(template)), ("path", self.path.as_ref())] {
            let Some(part) = part else { continue };
            let is_written =
                part.write_text(scope, Escape::Url, &mut url).map_err(|error| PlacedError::at(key, error))?;
            if !is_written {
                return Err(PlacedError::at(key, missing()));
            }
        }
        check_segments(&url).map_err(|error| PlacedError::at("path", error))?;
        push_query(&mut url, &pairs(&self.query, scope, "query")?);
        Ok(url)
    }

    fn headers(&self, scope: &Scope) -> Result<Vec<(String, String)>, PlacedError> {
        let headers = pairs(&self.headers, scope, "headers")?;
        match headers.iter().find(|(_, value)| value.contains(['\r', '\n', '\0'])) {
            Some((name, _)) => Err(PlacedError::at(format!("headers.{name}"), line_break())),
            None => Ok(headers),
        }
    }

    fn body(&self, scope: &Scope) -> Result<Option<Bytes>, PlacedError> {
        let Some(mapping) = &self.body else { return Ok(None) };
        let place = |error: PlacedError| error.within("body");
        let mut out = Vec::with_capacity(512);
        let is_written = match (self.encoding, mapping) {
            (Encoding::Text, mapping) => write_plain(mapping, scope, &mut out).map_err(place)?,
            (Encoding::Ndjson, Mapping::List(elements)) => {
                self.write_lines(elements, scope, &mut out).map_err(place)?
            }
            (Encoding::Json | Encoding::Ndjson | Encoding::Form | Encoding::Multipart, mapping) => {
                mapping.write_json(scope, self.omit, &mut out).map_err(place)?
            }
        };
        if is_written { Ok(Some(out.into())) } else { Err(PlacedError::at("body", missing())) }
    }

    /// A list in NDJSON is one line an element.
    fn write_lines(&self, elements: &[Mapping], scope: &Scope, out: &mut Vec<u8>) -> Result<bool, PlacedError> {
        for element in elements {
            let before = out.len();
            if before > 0 {
                out.push(b'\n');
            }
            if !element.write_json(scope, self.omit, out)? {
                out.truncate(before);
            }
        }
        Ok(!out.is_empty())
    }
}

fn write_plain(mapping: &Mapping, scope: &Scope, out: &mut Vec<u8>) -> Result<bool, PlacedError> {
    match mapping {
        Mapping::Template(template) => {
            let mut plain = String::new();
            let is_written = template.write_text(scope, Escape::Plain, &mut plain).map_err(PlacedError::from)?;
            out.extend_from_slice(plain.as_bytes());
            Ok(is_written)
        }
        Mapping::Constant(_) | Mapping::Object { .. } | Mapping::List(_) | Mapping::Each { .. } => {
            mapping.write_json(scope, crate::expr::Omit::Nothing, out)
        }
    }
}

fn pairs(templates: &[(String, Template)], scope: &Scope, key: &str) -> Result<Vec<(String, String)>, PlacedError> {
    let mut pairs = Vec::with_capacity(templates.len());
    for (name, template) in templates {
        let mut value = String::new();
        let is_written = template
            .write_text(scope, Escape::Plain, &mut value)
            .map_err(|error| PlacedError::at(format!("{key}.{name}"), error))?;
        if is_written {
            pairs.push((name.clone(), value));
        }
    }
    Ok(pairs)
}

/// A dot segment would be resolved away by the URL parser and lead to another resource than the file says.
fn check_segments(url: &str) -> Result<(), EvalError> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let is_dots = |segment: &str| matches!(segment.replace("%2E", ".").replace("%2e", ".").as_str(), "." | "..");
    if path.split(['/', '\\']).any(is_dots) {
        let message = "a value of `.` or `..` as a piece of the path would change where the request goes".to_owned();
        return Err(EvalError { message, range: None });
    }
    Ok(())
}

fn missing() -> EvalError {
    EvalError { message: "is missing as a whole in this event".to_owned(), range: None }
}

fn line_break() -> EvalError {
    EvalError { message: "a header's value may not hold a line break".to_owned(), range: None }
}

// === impl Each ===

impl Each {
    /// What it runs over; `None` when there is nothing to run over.
    pub(super) fn elements(&self, scope: &Scope) -> Result<Option<Vec<Value>>, EvalError> {
        let elements = match self {
            Self::Path(selection) => Some(scope.select(selection, scope.each_max())?).filter(|list| !list.is_empty()),
            Self::Expression(template) => listed(&template.value(scope)?, scope.each_max())?,
        };
        scope.enter(elements.as_ref().map_or(0, Vec::len))?;
        Ok(elements)
    }
}

/// The elements of a list; text and objects are none.
fn listed(value: &Value, elements_max: usize) -> Result<Option<Vec<Value>>, EvalError> {
    if value.is_undefined() || value.is_none() {
        return Ok(None);
    }
    let not_a_list = || EvalError { message: "`each` needs a list".to_owned(), range: None };
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(not_a_list());
    }
    let elements: Vec<Value> = value.try_iter().map_err(|_| not_a_list())?.take(elements_max + 1).collect();
    if elements.len() > elements_max { Err(EvalError::too_many(elements_max)) } else { Ok(Some(elements)) }
}

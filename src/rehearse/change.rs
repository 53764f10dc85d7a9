//! What other rules make of the same event: nothing, other requests, a dead letter.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::compare::without_wire;
use super::shown;
use crate::deliver::{Look, look};
use crate::plan::case::Step;
use crate::plan::pack::Packer;
use crate::plan::{Destination, Request};
use crate::queue::Entry;

/// What a destination's rules make of one event, alone.
#[derive(Clone, Debug)]
pub enum Made {
    /// Nothing: there is no such destination, it is off, or it does not want the event.
    Nothing,
    /// A dead letter, and why: a rule fails on it.
    Dead(String),
    /// These requests.
    Requests(Vec<Request>),
}

/// How other rules treat an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// As the old ones do.
    Same,
    /// It goes to the destination, and did not.
    Reaches,
    /// It does not go to the destination any more.
    Leaves,
    /// It becomes a dead letter, and did not.
    Dies,
    /// It became a dead letter, and does not.
    Mended,
    /// Other requests are made of it.
    Changes,
}

/// A place of the requests where both differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The way to it from the list of requests.
    pub way: Vec<Step>,
    /// What was there; `None`: nothing.
    pub old: Option<Json>,
    /// What is there; `None`: nothing.
    pub new: Option<Json>,
}

/// What a destination makes of an event that is stored.
#[must_use]
pub fn made(destination: Option<&Arc<Destination>>, entry: &Entry, now: Timestamp) -> Made {
    let Some(destination) = destination else { return Made::Nothing };
    let items = match look(destination, entry, now) {
        Ok(Look { items, .. }) => items.unwrap_or_default(),
        Err(failure) => return Made::Dead(failure.to_string()),
    };
    let mut packer = Packer::new(Arc::clone(destination));
    let mut batches = Vec::with_capacity(items.len());
    for item in items {
        batches.extend(packer.push(item, (), now));
    }
    batches.extend(packer.flush());
    if batches.is_empty() {
        return Made::Nothing;
    }
    let requests: Result<Vec<_>, _> = batches.iter().map(|batch| destination.request(batch, now)).collect();
    requests.map_or_else(|error| Made::Dead(error.to_string()), Made::Requests)
}

// === impl Made ===

impl Made {
    /// How what is made now differs from this.
    #[must_use]
    pub fn effect(&self, now: &Self) -> Effect {
        match (self, now) {
            (Self::Nothing, Self::Nothing) | (Self::Dead(_), Self::Dead(_)) => Effect::Same,
            (Self::Nothing, Self::Requests(_)) => Effect::Reaches,
            (Self::Requests(_), Self::Nothing) => Effect::Leaves,
            (_, Self::Dead(_)) => Effect::Dies,
            (Self::Dead(_), _) => Effect::Mended,
            (Self::Requests(old), Self::Requests(new)) if is_same(old, new) => Effect::Same,
            (Self::Requests(_), Self::Requests(_)) => Effect::Changes,
        }
    }

    /// The requests as they may be told: [shown](shown::request), with secrets masked, and without the copy of the body.
    #[must_use]
    pub fn told(&self, destination: Option<&Arc<Destination>>) -> Vec<Json> {
        let (Self::Requests(requests), Some(destination)) = (self, destination) else { return Vec::new() };
        requests.iter().map(|request| without_wire(&shown::request(&destination.masked(request)))).collect()
    }
}

/// Whether both are the same requests: what differs in the order of a body's keys is.
fn is_same(old: &[Request], new: &[Request]) -> bool {
    let is_equal = |(old, new): (&Request, &Request)| {
        let head = |request: &Request| (request.method.clone(), request.url.clone(), request.headers.clone());
        head(old) == head(new) && (old.body == new.body || opened(old) == opened(new))
    };
    old.len() == new.len() && old.iter().zip(new).all(is_equal)
}

fn opened(request: &Request) -> Json {
    without_wire(&shown::request(request))
}

/// Every place where the told requests differ, in order. None: they differ in what is not told, in secrets or in how a body
/// is packed.
#[must_use]
pub fn differences(old: &[Json], new: &[Json]) -> Vec<Difference> {
    let mut found = Vec::new();
    differ(&mut Vec::new(), Some(&Json::from(old)), Some(&Json::from(new)), &mut found);
    found
}

fn differ(way: &mut Vec<Step>, old: Option<&Json>, new: Option<&Json>, found: &mut Vec<Difference>) {
    match (old, new) {
        (Some(Json::Object(old)), Some(Json::Object(new))) => {
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            for key in new.keys().chain(gone) {
                way.push(Step::Field(key.clone()));
                differ(way, old.get(key), new.get(key), found);
                way.pop();
            }
        }
        (Some(Json::Array(old)), Some(Json::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                way.push(Step::Element(index));
                differ(way, old.get(index), new.get(index), found);
                way.pop();
            }
        }
        (old, new) if old == new => {}
        (old, new) => found.push(Difference { way: way.clone(), old: old.cloned(), new: new.cloned() }),
    }
}

/// An event as people recognise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub message_id: String,
    /// Which call it is.
    pub kind: &'static str,
    /// Its name: of a track the event's, of a page or screen its own.
    pub name: Option<String>,
}

impl Named {
    /// What an event is called.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let nothing = Map::new();
        let fields = entry.message().and_then(|message| message.value.as_object()).unwrap_or(&nothing);
        let text = |key: &str| fields.get(key).and_then(Json::as_str).map(str::to_owned);
        Self {
            message_id: entry.event.message_id.to_string(),
            kind: entry.event.kind.as_str(),
            name: text("event").or_else(|| text("name")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::differences;
    use crate::rehearse::compare::told;

    #[test]
    fn only_what_differs_is_told() {
        let old = [json!({ "url": "u", "body": { "a": 1, "b": [1, 2], "gone": true } })];
        let new = [json!({ "url": "u", "body": { "a": "1", "b": [1, 3, 4], "x y": null } }), json!({ "url": "v" })];
        let found = differences(&old, &new);
        let ways: Vec<String> = found.iter().map(|difference| told(&difference.way)).collect();
        assert_eq!(
            ways,
            [
                "requests[0].body.a",
                "requests[0].body.b[1]",
                "requests[0].body.b[2]",
                "requests[0].body[\"x y\"]",
                "requests[0].body.gone",
                "requests[1]",
            ]
        );
        assert_eq!((found[0].old.clone(), found[0].new.clone()), (Some(json!(1)), Some(json!("1"))));
    }
}

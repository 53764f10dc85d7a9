//! What is expected of a request against what it is: an expectation is a subset, and says where it is not met.

use serde_json::{Map, Value as Json};

use crate::plan::case::{Expectation, Step, Written};

/// In an expectation: nothing may be here.
pub const ABSENT: &str = "<absent>";

/// How deep `exact` leaves it open what else there is: a request is in a list and has parts; what is in a part is
/// exact.
const OPEN_DEPTH: usize = 2;

/// One place where an expectation is not met.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// What was expected, and where that is written.
    pub expected: Written,
    /// The way to it from the list of requests.
    pub way: Vec<Step>,
    /// What is there instead; `None`: nothing.
    pub actual: Option<Json>,
    /// In words.
    pub message: String,
}

/// Every place where the requests are not as expected, in the order of the expectation.
#[must_use]
pub fn mismatches(expectation: &Expectation, actual: &[Json]) -> Vec<Mismatch> {
    let mut comparison = Comparison { is_exact: expectation.is_exact, way: Vec::new(), found: Vec::new() };
    comparison.value(&expectation.requests, Some(&Json::from(actual)));
    comparison.found
}

/// What an expectation sees of the actual requests: only what it names, in its own order, so that two texts can be
/// compared line by line.
#[must_use]
pub fn seen(expected: &Json, actual: &Json, is_exact: bool) -> Json {
    seen_at(expected, actual, is_exact, 0)
}

fn seen_at(expected: &Json, actual: &Json, is_exact: bool, depth: usize) -> Json {
    match (expected, actual) {
        (Json::Object(wanted), Json::Object(members)) => {
            let mut seen = Map::new();
            for (name, wanted) in wanted {
                match members.get(name) {
                    Some(value) => drop(seen.insert(name.clone(), seen_at(wanted, value, is_exact, depth + 1))),
                    None if wanted == ABSENT => drop(seen.insert(name.clone(), ABSENT.into())),
                    None => {}
                }
            }
            if is_exact && depth >= OPEN_DEPTH {
                let others = members.iter().filter(|(name, _)| !wanted.contains_key(name.as_str()));
                seen.extend(others.map(|(name, value)| (name.clone(), value.clone())));
            }
            Json::Object(seen)
        }
        (Json::Array(wanted), Json::Array(elements)) => {
            let nothing = Json::Null;
            let pairs = elements.iter().enumerate().map(|(index, element)| (wanted.get(index), element));
            pairs
                .map(|(wanted, element)| match wanted {
                    Some(wanted) => seen_at(wanted, element, is_exact, depth + 1),
                    // One too many is shown whole, but for what is said twice.
                    None if depth == 0 => without_wire(element),
                    None => seen_at(&nothing, element, is_exact, depth + 1),
                })
                .collect()
        }
        (wanted, value) if is_equal(wanted, value) => wanted.clone(),
        (_, value) => value.clone(),
    }
}

/// A request without the copy of its body.
#[must_use]
pub fn without_wire(request: &Json) -> Json {
    let mut request = request.clone();
    if let Some(fields) =
        request.as_object_mut().filter(|fields| fields.get("body").is_some_and(|body| !body.is_string()))
    {
        fields.shift_remove("wire");
    }
    request
}

/// Numbers are equal by value: `1` is `1.0`.
fn is_equal(expected: &Json, actual: &Json) -> bool {
    match (expected, actual) {
        (Json::Number(one), Json::Number(other)) => {
            one == other || (one.as_f64() == other.as_f64() && (one.is_f64() || other.is_f64()))
        }
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_equal(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| is_equal(value, other)))
        }
        _ => expected == actual,
    }
}

struct Comparison {
    is_exact: bool,
    way: Vec<Step>,
    found: Vec<Mismatch>,
}

// === impl Comparison ===

impl Comparison {
    fn value(&mut self, expected: &Written, actual: Option<&Json>) {
        match (&expected.value, actual) {
            (Json::String(word), None) if word == ABSENT => {}
            (Json::String(word), Some(_)) if word == ABSENT => self.add(expected, actual, "expected to be absent"),
            (_, None) => self.add(expected, None, "missing"),
            (Json::Object(wanted), Some(Json::Object(members))) => self.object(expected, wanted, members),
            (Json::Array(wanted), Some(Json::Array(elements))) => self.list(expected, wanted, elements),
            (wanted, Some(value)) if is_equal(wanted, value) => {}
            (_, Some(_)) => self.add(expected, actual, "different"),
        }
    }

    fn object(&mut self, expected: &Written, wanted: &Map<String, Json>, members: &Map<String, Json>) {
        for (name, value) in wanted {
            let step = Step::Field(name.clone());
            self.step(step.clone(), &expected.piece(step, value.clone()), members.get(name));
        }
        if !self.is_exact || self.way.len() < OPEN_DEPTH {
            return;
        }
        for (name, value) in members.iter().filter(|(name, _)| !wanted.contains_key(name.as_str())) {
            self.way.push(Step::Field(name.clone()));
            self.add(expected, Some(value), "not expected");
            self.way.pop();
        }
    }

    fn list(&mut self, expected: &Written, wanted: &[Json], elements: &[Json]) {
        for (index, value) in wanted.iter().enumerate() {
            let step = Step::Element(index);
            self.step(step.clone(), &expected.piece(step, value.clone()), elements.get(index));
        }
        for (index, element) in elements.iter().enumerate().skip(wanted.len()) {
            self.way.push(Step::Element(index));
            self.add(expected, Some(element), "not expected");
            self.way.pop();
        }
    }

    fn step(&mut self, step: Step, expected: &Written, actual: Option<&Json>) {
        self.way.push(step);
        self.value(expected, actual);
        self.way.pop();
    }

    fn add(&mut self, expected: &Written, actual: Option<&Json>, message: &str) {
        self.found.push(Mismatch {
            expected: expected.clone(),
            way: self.way.clone(),
            actual: actual.cloned(),
            message: message.to_owned(),
        });
    }
}

/// The way as a person would say it: `requests[0].body.email`.
#[must_use]
pub fn told(way: &[Step]) -> String {
    way.iter().fold("requests".to_owned(), |told, step| match step {
        Step::Field(name) if is_word(name) => format!("{told}.{name}"),
        Step::Field(name) => format!("{told}[{name:?}]"),
        Step::Element(index) => format!("{told}[{index}]"),
    })
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::{Expectation, Written, mismatches, seen, told};

    fn found(expected: Json, actual: &Json, is_exact: bool) -> Vec<String> {
        let requests = Written { value: expected, span: 0..0, within: Some(Vec::new()) };
        let actual = actual.as_array().expect("a list of requests");
        let found = mismatches(&Expectation { requests, is_exact }, actual);
        found.iter().map(|mismatch| format!("{} {}", told(&mismatch.way), mismatch.message)).collect()
    }

    #[test]
    fn what_is_not_named_is_not_checked() {
        let actual = json!([{"url": "u", "body": {"a": 1, "b": [1, {"c": 2, "d": 3}]}}]);
        assert_eq!(found(json!([{"body": {"a": 1.0, "b": [1, {"c": 2}]}}]), &actual, false), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_told_with_the_way_to_it() {
        let actual = json!([{"body": {"a": 1, "b": [1], "gone": null, "x y": 1}}, {}]);
        let expected =
            json!([{"body": {"a": "1", "b": [1, 2], "gone": "<absent>", "none": 3, "x y": 2, "not": "<absent>"}}]);
        assert_eq!(
            found(expected, &actual, false),
            [
                "requests[0].body.a different",
                "requests[0].body.b[1] missing",
                "requests[0].body.gone expected to be absent",
                "requests[0].body.none missing",
                "requests[0].body[\"x y\"] different",
                "requests[1] not expected",
            ]
        );
    }

    #[test]
    fn exact_demands_everything_of_the_parts_that_are_named() {
        let actual = json!([{"url": "u", "headers": {"a": "1"}, "body": {"a": {"b": 1, "c": 2}}}]);
        assert_eq!(found(json!([{"body": {"a": {"b": 1}}}]), &actual, true), ["requests[0].body.a.c not expected"]);
        assert_eq!(found(json!([{"headers": {}}]), &actual, true), ["requests[0].headers.a not expected"]);
    }

    #[test]
    fn large_integers_are_not_equal_because_their_floats_are() {
        let actual = json!([{"body": 9_007_199_254_740_993_i64}]);
        assert_eq!(found(json!([{"body": 9_007_199_254_740_992_i64}]), &actual, false).len(), 1);
    }

    #[test]
    fn only_what_is_named_is_seen() {
        let actual = json!([{"url": "u", "body": {"b": 2, "a": 1.0, "c": 3}}]);
        assert_eq!(
            seen(&json!([{"body": {"a": 1, "n": "<absent>", "b": 9}}]), &actual, false).to_string(),
            r#"[{"body":{"a":1,"n":"<absent>","b":2}}]"#
        );
    }
}

//! Tracking plans: what the events of a kind ought to look like, and what becomes of those that do not.
//!
//! Plans that tag or reject speak at the door, where `segment` asks them without knowing them; plans that make dead
//! letters speak when an event is about to be delivered, so that a corrected plan heals what waits. The one room that
//! knows the engine of JSON Schema.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::{Condition, Destination, Trigger};
use crate::event::{Kind, Message, SourceName};
use crate::expr::filter::Selection;
use crate::expr::{Names, Scope};
use crate::segment::{Inspect, Inspection, Violation};

/// `[plan.NAME]`.
pub struct TrackingPlan {
    /// Its name in the file.
    pub name: String,
    /// Hash of all that decides what it says.
    pub fingerprint: u64,
    /// Which events it is about; empty: all.
    pub on: Vec<Trigger>,
    /// Conditions on an event, all of which must hold for the plan to be about it.
    pub when: Vec<Condition>,
    /// Whose events it is about; `None`: everybody's.
    pub sources: Option<Vec<SourceName>>,
    /// Paths, each of which must pick something that is not null.
    pub require: Vec<Selection>,
    /// Conditions that must hold.
    pub check: Vec<Check>,
    /// What an event must look like.
    pub schema: Option<Schema>,
    /// What becomes of an event that is not as the plan says.
    pub on_violation: OnViolation,
    /// What its expressions see besides the event.
    pub names: Arc<Names>,
}

/// One entry of `check`.
pub struct Check {
    /// As it stands in the file.
    pub written: String,
    /// What must hold.
    pub condition: Condition,
}

/// A JSON Schema, compiled, and the part of an event that it describes.
pub struct Schema {
    validator: jsonschema::Validator,
    of: SchemaOf,
}

/// The part of an event that a schema describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemaOf {
    /// All of it.
    #[default]
    Event,
    /// Its `properties`; those that are missing are an empty object.
    Properties,
    /// Its `traits`, likewise.
    Traits,
    /// Its `context`, likewise.
    Context,
}

/// What becomes of an event that is not as a plan says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnViolation {
    /// It goes on, and its `context.violations` says what is wrong.
    #[default]
    Tag,
    /// It is a dead letter of every destination that would have been given it.
    Dead,
    /// It is discarded at the door.
    Reject,
}

/// Why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMistake {
    /// The place in the schema, as a JSON Pointer; empty for the whole.
    pub pointer: String,
    /// What is wrong, as a fragment.
    pub message: String,
}

/// The plans that speak at the door.
pub struct DoorPlans(Vec<Arc<TrackingPlan>>);

/// So many violations are told of one event. A broken tracker should be seen, not fill the queue.
const VIOLATIONS_MAX: usize = 10;

/// Characters of a violation's message and path: names and limits of a schema may be long.
const MESSAGE_CHARS_MAX: usize = 160;

// === impl TrackingPlan ===

impl TrackingPlan {
    /// What is wrong with an event; nothing if the plan is not about it. At most ten.
    #[must_use]
    pub fn violations(&self, message: &Message, now: Timestamp) -> Vec<Violation> {
        let is_its = self.knows(&message.source) && self.is_on(&message.value);
        if !is_its {
            return Vec::new();
        }
        let scope = Scope::event(&self.names, message, now);
        let mut found = Vec::new();
        if self.applies(&scope, &mut found) {
            self.check_required(&message.value, &mut found);
            self.check_conditions(&scope, &mut found);
            self.check_schema(&message.value, &mut found);
        }
        found.truncate(VIOLATIONS_MAX);
        found
    }

    fn knows(&self, source: &SourceName) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.contains(source))
    }

    fn is_on(&self, event: &Json) -> bool {
        self.on.is_empty() || self.on.iter().any(|trigger| trigger.matches(event))
    }

    /// Whether all of `when` holds. A condition that fails is told: whether the plan was meant cannot be known.
    fn applies(&self, scope: &Scope, found: &mut Vec<Violation>) -> bool {
        for (index, condition) in self.when.iter().enumerate() {
            match condition.holds(scope) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    found.push(self.violation(format!("when[{index}]"), &self.failed(&error.message)));
                    return false;
                }
            }
        }
        true
    }

    fn check_required(&self, event: &Json, found: &mut Vec<Violation>) {
        for (index, path) in self.require.iter().enumerate() {
            let message = match path.select(event, usize::MAX) {
                Ok(nodes) if nodes.iter().any(|node| !node.is_null()) => continue,
                Ok(_) => "is missing".to_owned(),
                Err(error) => self.failed(&error.message),
            };
            let path = Some(clipped(path.as_str()));
            found.push(Violation { path, ..self.violation(format!("require[{index}]"), &message) });
        }
    }

    fn check_conditions(&self, scope: &Scope, found: &mut Vec<Violation>) {
        for (index, check) in self.check.iter().enumerate() {
            let message = match check.condition.holds(scope) {
                Ok(true) => continue,
                Ok(false) => format!("does not hold: {}", check.written),
                Err(error) => self.failed(&error.message),
            };
            found.push(self.violation(format!("check[{index}]"), &message));
        }
    }

    fn check_schema(&self, event: &Json, found: &mut Vec<Violation>) {
        let Some(schema) = &self.schema else { return };
        let nothing = Json::Object(Map::new());
        let part = schema.of.key().map_or(event, |key| event.get(key).unwrap_or(&nothing));
        let room = VIOLATIONS_MAX.saturating_sub(found.len());
        for error in schema.validator.iter_errors(part).take(room) {
            let message = error.masked_with("it").to_string();
            let path = schema.of.path_of(error.instance_path().as_str());
            let keyword = Some(error.kind().keyword().to_owned());
            let path = Some(clipped(&path));
            found.push(Violation { keyword, path, ..self.violation("schema".to_owned(), &message) });
        }
    }

    fn violation(&self, rule: String, message: &str) -> Violation {
        Violation { plan: self.name.clone(), rule, keyword: None, path: None, message: clipped(message) }
    }

    /// What is told of an expression that failed. Of one that may have read a secret, nothing.
    fn failed(&self, why: &str) -> String {
        match self.names.secrets().next() {
            None => format!("fails: {why}"),
            Some(_) => "fails on this event".to_owned(),
        }
    }
}

impl fmt::Debug for TrackingPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrackingPlan").field(&self.name).finish()
    }
}

fn clipped(text: &str) -> String {
    let mut short: String = text.chars().take(MESSAGE_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

// === impl Schema, SchemaOf ===

impl Schema {
    /// Compiles a schema. What it refers to must be in it: nothing is fetched. Patterns are those of `regex`, which
    /// never run away; without `$schema` it is of draft 2020-12.
    ///
    /// # Errors
    /// When it is no schema, or refers to another one.
    pub fn compile(schema: &Json, of: SchemaOf) -> Result<Self, SchemaMistake> {
        let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
        let validator = options.should_validate_formats(true).build(schema).map_err(|error| SchemaMistake {
            pointer: error.instance_path().as_str().to_owned(),
            message: match error.kind().keyword() {
                "$ref" => {
                    "a schema may refer only to itself, and to the drafts of JSON Schema by their names".to_owned()
                }
                // A file that is named by mistake may hold a secret.
                _ => clipped(&error.masked_with("the value").to_string()),
            },
        })?;
        Ok(Self { validator, of })
    }
}

impl SchemaOf {
    /// All words.
    pub const ALL: [(&'static str, Self); 4] = [
        ("event", Self::Event),
        ("properties", Self::Properties),
        ("traits", Self::Traits),
        ("context", Self::Context),
    ];

    /// The member of an event; `None`: the whole.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::Event => None,
            Self::Properties => Some("properties"),
            Self::Traits => Some("traits"),
            Self::Context => Some("context"),
        }
    }

    /// A place within the part, as a path from the event.
    fn path_of(self, pointer: &str) -> String {
        let mut path = "$".to_owned();
        for step in self.key().into_iter().map(str::to_owned).chain(steps(pointer)) {
            let is_word = step.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && step.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if is_word {
                path.extend([".", &step]);
            } else if step.parse::<usize>().is_ok() {
                path.extend(["[", &step, "]"]);
            } else {
                path.extend(["[", &format!("{step:?}"), "]"]);
            }
        }
        path
    }
}

/// The keys and indexes of a JSON Pointer (RFC 6901).
pub fn steps(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"))
}

// === impl OnViolation ===

impl OnViolation {
    /// All words.
    pub const ALL: [(&'static str, Self); 3] = [("tag", Self::Tag), ("dead", Self::Dead), ("reject", Self::Reject)];
}

// === impl DoorPlans ===

impl DoorPlans {
    /// Those of some plans that speak at the door; `None` if none does.
    #[must_use]
    pub fn of(plans: &[Arc<TrackingPlan>]) -> Option<Arc<dyn Inspect>> {
        let speaking = plans.iter().filter(|plan| plan.on_violation != OnViolation::Dead);
        let speaking: Vec<_> = speaking.cloned().collect();
        (!speaking.is_empty()).then(|| Arc::new(Self(speaking)) as Arc<dyn Inspect>)
    }

    fn violations(&self, of: OnViolation, message: &Message, now: Timestamp) -> Vec<Violation> {
        let plans = self.0.iter().filter(|plan| plan.on_violation == of);
        plans.flat_map(|plan| plan.violations(message, now)).take(VIOLATIONS_MAX).collect()
    }
}

impl Inspect for DoorPlans {
    fn concerns(&self, source: &SourceName, kind: Kind, name: Option<&str>) -> bool {
        let is_on = |plan: &TrackingPlan| plan.on.is_empty() || plan.on.iter().any(|trigger| trigger.fits(kind, name));
        self.0.iter().any(|plan| plan.knows(source) && is_on(plan))
    }

    fn inspect(&self, message: &Message, received_at: Timestamp) -> Inspection {
        let rejecting = self.violations(OnViolation::Reject, message, received_at);
        if !rejecting.is_empty() {
            return Inspection::Rejected(rejecting);
        }
        let tagging = self.violations(OnViolation::Tag, message, received_at);
        if tagging.is_empty() { Inspection::Fine } else { Inspection::Tagged(tagging) }
    }
}

impl fmt::Debug for DoorPlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

// === impl Destination ===

impl Destination {
    /// What keeps an event from this destination although its rules want it: what the plans whose word is `dead` find
    /// wrong with it.
    #[must_use]
    pub fn violations(&self, message: &Message, now: Timestamp) -> Vec<Violation> {
        self.plans.iter().flat_map(|plan| plan.violations(message, now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Schema, SchemaOf};

    #[test]
    fn a_place_is_told_as_a_path_from_the_event() {
        assert_eq!(SchemaOf::Event.path_of(""), "$");
        assert_eq!(SchemaOf::Properties.path_of(""), "$.properties");
        assert_eq!(SchemaOf::Properties.path_of("/items/0/a~1b/$x"), "$.properties.items[0][\"a/b\"][\"$x\"]");
    }

    #[test]
    fn a_schema_that_needs_another_file_or_host_is_refused() {
        for reference in ["https://example.com/x.json", "other.json", "file:///etc/passwd", "urn:x", "#/$defs/absent"] {
            let schema = json!({"properties": {"a": {"$ref": reference}}});
            let Err(mistake) = Schema::compile(&schema, SchemaOf::Event) else { panic!("{reference}") };
            assert!(mistake.message.starts_with("a schema may refer only to itself"), "{}", mistake.message);
        }
        let own = json!({"$defs": {"x": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/x"}}});
        assert!(Schema::compile(&own, SchemaOf::Event).is_ok());
    }

    #[test]
    fn a_schema_that_refers_to_itself_without_end_ends() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
            json!({"$dynamicRef": "#x", "$dynamicAnchor": "x"}),
            json!({"if": {"$ref": "#"}, "then": {"$ref": "#"}}),
            json!({"unevaluatedProperties": {"$ref": "#"}, "anyOf": [{"$ref": "#"}]}),
            json!({"dependentSchemas": {"a": {"$ref": "#"}}, "propertyNames": {"$ref": "#"}}),
        ] {
            if let Ok(schema) = Schema::compile(&schema, SchemaOf::Event) {
                let _ = schema.validator.iter_errors(&json!({"a": {"a": 1}})).count();
            }
        }
    }
}

//! Why an event reaches a destination, or does not, and what becomes of each field: `select` and `render` in slow motion.
//!
//! For people and tests. What is told is what `select` and `render` do; a test holds the two together. Secrets are masked.

use jiff::Timestamp;
use serde_json::Value as Json;

use super::bigquery::InsertId;
use super::error::name_in_path;
use super::select::{Call, when_place};
use super::trace::Secrets;
use super::{Condition, Destination, Each, Mapping, Rule};
use crate::event::Message;
use crate::expr::template::Template;
use crate::expr::why::{self, Why};
use crate::expr::{EvalError, Omit, Scope};
use crate::segment::consent::{self, Decision};

/// What an event is to a destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What is asked before any rule.
    pub before: Before,
    /// Its own conditions, as far as they were asked.
    pub when: Vec<Asked>,
    /// Its rules, in order; empty where it did not come to them.
    pub rules: Vec<RuleExplained>,
    /// The text of `order_by`.
    pub order_key: Option<String>,
}

/// What is asked before any rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// The rules decide.
    Passed,
    /// It takes no events of this source.
    OtherSource,
    /// The sender, or the end user, does not allow it.
    NotAllowed(consent::Filter),
    /// Its user is not in the sample.
    NotSampled,
    /// What decides that failed.
    Failed(EvalError),
}

/// A condition that was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Its name in the file: `destinations.crm.rules[0].when[1]`.
    pub place: String,
    /// It, as written.
    pub text: String,
    /// Whether it holds, or why it failed.
    pub holds: Result<bool, EvalError>,
    /// The parts of it that decided.
    pub why: Vec<Why>,
}

/// What an event is to a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleExplained {
    /// Its name in the file: `destinations.crm.rules[0]`, or the destination's own.
    pub place: String,
    /// Why it wants the event, or does not.
    pub wants: Wants,
    /// Its conditions, as far as they were asked.
    pub when: Vec<Asked>,
    /// What its expressions came to, if it wants the event.
    pub fields: Vec<FieldExplained>,
    /// How many requests or items it makes; one without `each`.
    pub items: usize,
}

/// Whether a rule wants an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// It does.
    Yes,
    /// `on` asks for other events.
    OtherEvents,
    /// One of its conditions does not hold, or failed.
    Condition,
    /// The rule of this index is `final`, and wants it.
    After(usize),
}

/// What an expression of a rule came to.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldExplained {
    /// Its name in the file.
    pub place: String,
    /// Its value; `None`: missing, and left out.
    pub value: Result<Option<Json>, EvalError>,
}

// === impl Destination ===

impl Destination {
    /// Tells what an event is to it. Of a rule with `each` the fields of the first element are told.
    #[must_use]
    pub fn explain(&self, message: &Message, now: Timestamp) -> Explanation {
        let scope = Scope::event(&self.names, message, now);
        let before = self.before(message, &scope);
        let mut explanation = Explanation { before, when: Vec::new(), rules: Vec::new(), order_key: None };
        if explanation.before != Before::Passed {
            return explanation;
        }
        let secrets = self.secrets();
        let place = format!("destinations.{}", self.name);
        explanation.when = asked(&self.when, &scope, &place, &secrets);
        if !all_hold(&explanation.when) {
            return explanation;
        }
        let mut is_taken_by = None;
        for rule in &self.rules {
            let explained = self.explain_rule(rule, &scope, is_taken_by, &secrets);
            if explained.wants == Wants::Yes && rule.is_final && is_taken_by.is_none() {
                is_taken_by = Some(rule.index);
            }
            explanation.rules.push(explained);
        }
        explanation.order_key = self.order_key(message, now).ok().flatten().map(|key| secrets.redact(&key));
        explanation
    }

    fn before(&self, message: &Message, scope: &Scope) -> Before {
        if !self.knows_source(message) {
            return Before::OtherSource;
        }
        if let Decision::Filtered(filter) = self.may_have(message) {
            return Before::NotAllowed(filter);
        }
        match self.is_sampled(scope) {
            Ok(true) => Before::Passed,
            Ok(false) => Before::NotSampled,
            Err(error) => Before::Failed(error.error),
        }
    }

    fn explain_rule(&self, rule: &Rule, scope: &Scope, is_taken_by: Option<usize>, secrets: &Secrets) -> RuleExplained {
        let place = match &rule.place {
            Some(place) => format!("destinations.{}.{place}", self.name),
            None => format!("destinations.{}", self.name),
        };
        let mut explained = RuleExplained { place, wants: Wants::Yes, when: Vec::new(), fields: Vec::new(), items: 0 };
        if let Some(by) = is_taken_by {
            return RuleExplained { wants: Wants::After(by), ..explained };
        }
        if !rule.is_triggered_by(Call::of(scope.json())) {
            return RuleExplained { wants: Wants::OtherEvents, ..explained };
        }
        explained.when = asked(&rule.when, scope, &explained.place, secrets);
        if !all_hold(&explained.when) {
            return RuleExplained { wants: Wants::Condition, ..explained };
        }
        let mut fields = Fields { scope: scope.clone(), secrets, found: Vec::new() };
        explained.items = fields.begin(rule.each.as_ref(), &explained.place);
        if explained.items > 0 {
            fields.rule(rule, &explained.place);
        }
        explained.fields = fields.found;
        explained
    }
}

fn asked(conditions: &[Condition], scope: &Scope, place: &str, secrets: &Secrets) -> Vec<Asked> {
    let mut asked = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let holds = condition.holds(scope).map_err(|error| redacted(error, secrets));
        let goes_on = holds == Ok(true);
        let mut why = match condition {
            Condition::Filter(filter) => why::of_filter(filter.written(), scope.json()),
            Condition::Expression(template) => why::of_expression(template.written(), scope),
        };
        for (_, value) in why.iter_mut().flat_map(|why| &mut why.read) {
            *value = value.as_ref().map(|value| secrets.redact(value));
        }
        let place = format!("{place}.{}", when_place(index));
        asked.push(Asked { place, text: condition.text().to_owned(), holds, why });
        if !goes_on {
            break;
        }
    }
    asked
}

fn all_hold(asked: &[Asked]) -> bool {
    asked.iter().all(|asked| asked.holds == Ok(true))
}

fn redacted(error: EvalError, secrets: &Secrets) -> EvalError {
    EvalError { message: secrets.redact(&error.message), ..error }
}

// === impl Condition ===

impl Condition {
    /// It, as written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Filter(filter) => filter.written(),
            Self::Expression(template) => template.written(),
        }
    }
}

/// What the expressions of a rule come to.
struct Fields<'s> {
    scope: Scope,
    secrets: &'s Secrets,
    found: Vec<FieldExplained>,
}

// === impl Fields ===

impl Fields<'_> {
    /// Looks at the rule's `each`; from here on its first element is seen. Answers how many there are.
    fn begin(&mut self, each: Option<&Each>, place: &str) -> usize {
        let Some(each) = each else { return 1 };
        match each.elements(&self.scope) {
            Ok(elements) => {
                let elements = elements.unwrap_or_default();
                let count = elements.len();
                if let Some(first) = elements.into_iter().next() {
                    self.scope = self.scope.with_item(first, 0);
                }
                count
            }
            Err(error) => {
                self.add(format!("{place}.each"), Err(error));
                0
            }
        }
    }

    fn rule(&mut self, rule: &Rule, place: &str) {
        let request = &rule.request;
        if let Some(insert) = &request.insert {
            for (key, _, template) in insert.table.parts() {
                self.template(template, format!("{place}.{key}"));
            }
            if let InsertId::Template(id) = &insert.id {
                self.template(id, format!("{place}.insert_id"));
            }
        }
        for (key, template) in [("url", &request.url), ("path", &request.path)] {
            if let Some(template) = template {
                self.template(template, format!("{place}.{key}"));
            }
        }
        for (key, pairs) in [("headers", &request.headers), ("query", &request.query)] {
            for (name, template) in pairs {
                self.template(template, format!("{place}.{key}.{}", name_in_path(name)));
            }
        }
        if let Some(body) = &request.body {
            let key = if request.insert.is_some() { "row" } else { "body" };
            self.mapping(body, &format!("{place}.{key}"));
        }
        if let Some(by) = rule.batch.as_ref().and_then(|batch| batch.by.as_ref()) {
            self.template(by, format!("{place}.batch.by"));
        }
    }

    fn mapping(&mut self, mapping: &Mapping, place: &str) {
        match mapping {
            Mapping::Constant(_) => {}
            Mapping::Template(template) => self.template(template, place.to_owned()),
            Mapping::Object { spread, fields } => {
                for (index, template) in spread.iter().enumerate() {
                    let index = if spread.len() > 1 { format!("[{index}]") } else { String::new() };
                    self.template(template, format!("{place}.\"...\"{index}"));
                }
                for (name, mapping) in fields {
                    self.mapping(mapping, &format!("{place}.{}", name_in_path(name)));
                }
            }
            Mapping::List(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.mapping(element, &format!("{place}[{index}]"));
                }
            }
            Mapping::Each { over, item } => self.each(over, item, place),
        }
    }

    /// A list made from a list: how many there are, and the first.
    fn each(&mut self, over: &Each, item: &Mapping, place: &str) {
        let outer = self.scope.clone();
        let count = self.begin(Some(over), place);
        if count > 0 {
            self.mapping(item, &format!("{place}.item"));
        }
        self.scope = outer;
    }

    fn template(&mut self, template: &Template, place: String) {
        // What is the same for every event, and not made from anything, is seen in the request.
        if template.as_constant().is_some() && template.names().is_empty() {
            return;
        }
        let mut json = Vec::new();
        let value = template.write_json(&self.scope, Omit::Nothing, &mut json).map(|is_there| {
            let redacted = self.secrets.redact(&String::from_utf8_lossy(&json));
            is_there.then(|| serde_json::from_str(&redacted).unwrap_or(Json::String(redacted)))
        });
        self.add(place, value);
    }

    fn add(&mut self, place: String, value: Result<Option<Json>, EvalError>) {
        let value = value.map_err(|error| redacted(error, self.secrets));
        self.found.push(FieldExplained { place, value });
    }
}

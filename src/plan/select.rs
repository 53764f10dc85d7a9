//! Which rules want an event: the destination's conditions, then each rule's, in file order; and whose turn it waits for.

use jiff::Timestamp;
use serde_json::Value as Json;

use super::error::RuleError;
use super::{Condition, Destination, Rule, Trigger};
use crate::event::{Kind, Message};
use crate::expr::{Escape, EvalError, Scope};
use crate::segment::consent::{self, Decision};

/// The rules that want an event, and what their expressions see.
pub struct Matches<'a> {
    /// In file order.
    pub rules: Vec<&'a Rule>,
    /// The event's names.
    pub scope: Scope,
}

/// What `on` asks of an event: looked up once for all rules.
#[derive(Clone, Copy)]
pub(super) struct Call<'e> {
    kind: Kind,
    name: Option<&'e str>,
}

// === impl Destination ===

impl Destination {
    /// The rules that want this event; `None` when no rule does.
    ///
    /// What costs least is asked first: source, consent, `integrations`, `on`, then `sample`, then the conditions.
    ///
    /// # Errors
    /// When a condition fails on this event.
    pub fn select(&self, message: &Message, now: Timestamp) -> Result<Option<Matches<'_>>, RuleError> {
        let call = Call::of(&message.value);
        if !self.takes_from(message) || !self.rules.iter().any(|rule| rule.is_triggered_by(call)) {
            return Ok(None);
        }
        let scope = Scope::event(&self.names, message, now);
        if !self.is_sampled(&scope)? {
            return Ok(None);
        }
        if !all_hold(&self.when, &scope).map_err(|(index, error)| self.error(None, error).within(when_place(index)))? {
            return Ok(None);
        }
        let rules = self.matching_rules(call, &scope)?;
        Ok((!rules.is_empty()).then_some(Matches { rules, scope }))
    }

    /// The text of `order_by`; `None` when the event has none, and needs no turn.
    ///
    /// # Errors
    /// When the expression fails on this event.
    pub fn order_key(&self, message: &Message, now: Timestamp) -> Result<Option<String>, RuleError> {
        let Some(order_by) = &self.order_by else { return Ok(None) };
        let scope = Scope::event(&self.names, message, now);
        let mut key = String::new();
        order_by
            .write_text(&scope, Escape::Plain, &mut key)
            .map_err(|error| self.error(None, error).within("order_by"))?;
        Ok((!key.is_empty()).then_some(key))
    }

    fn takes_from(&self, message: &Message) -> bool {
        self.knows_source(message) && self.may_have(message) == Decision::Allowed
    }

    /// Whether it takes events from this source, or may be handed this one, which somebody who does could not be given.
    pub(super) fn knows_source(&self, message: &Message) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.contains(&message.source)) || self.is_handed(message)
    }

    /// Whether an event was handed over by a destination that may do so, and that takes events from its source.
    fn is_handed(&self, message: &Message) -> bool {
        let by = || message.value.get("context")?.get("overflow")?.as_str();
        let may_hand = |by: &str| {
            let has = |sources: &Option<Vec<_>>| sources.as_ref().is_none_or(|all| all.contains(&message.source));
            self.upstream.iter().any(|upstream| upstream.name.as_str() == by && has(&upstream.sources))
        };
        !self.upstream.is_empty() && by().is_some_and(may_hand)
    }

    /// A destination without a name is one like a warehouse: only the end user's consent keeps an event from it. And of an
    /// event that is handed over, the sender chose the destination that could not be given it.
    pub(super) fn may_have(&self, message: &Message) -> Decision {
        let event = &message.value;
        if self.integrations.is_empty() || self.is_handed(message) {
            return consent::consent_allows(event, &self.consent);
        }
        consent::allows(event, &self.integrations, &self.consent)
    }

    pub(super) fn is_sampled(&self, scope: &Scope) -> Result<bool, RuleError> {
        let Some(sample) = &self.sample else { return Ok(true) };
        sample.keeps(scope).map_err(|error| self.error(None, error).within("sample.by"))
    }

    fn matching_rules(&self, call: Option<Call<'_>>, scope: &Scope) -> Result<Vec<&Rule>, RuleError> {
        let mut rules = Vec::with_capacity(1);
        for rule in self.rules.iter().filter(|rule| rule.is_triggered_by(call)) {
            let holds = all_hold(&rule.when, scope)
                .map_err(|(index, error)| self.error(Some(rule), error).within(when_place(index)))?;
            if holds {
                rules.push(rule);
            }
            if holds && rule.is_final {
                break;
            }
        }
        Ok(rules)
    }
}

fn all_hold(conditions: &[Condition], scope: &Scope) -> Result<bool, (usize, EvalError)> {
    for (index, condition) in conditions.iter().enumerate() {
        if !condition.holds(scope).map_err(|error| (index, error))? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn when_place(index: usize) -> String {
    format!("when[{index}]")
}

// === impl Call, Rule, Trigger, Condition ===

impl<'e> Call<'e> {
    /// What an event says of itself; `None` when it is none of the six.
    pub(super) fn of(event: &'e Json) -> Option<Self> {
        let text = |key: &str| event.get(key).and_then(Json::as_str);
        let kind = text("type")?.parse::<Kind>().ok()?;
        let name = match kind {
            Kind::Track => "event",
            Kind::Page | Kind::Screen | Kind::Identify | Kind::Group | Kind::Alias => "name",
        };
        Some(Self { kind, name: text(name) })
    }
}

impl Rule {
    pub(super) fn is_triggered_by(&self, call: Option<Call<'_>>) -> bool {
        let fits = |call: Call<'_>| self.on.iter().any(|trigger| trigger.fits(call.kind, call.name));
        self.on.is_empty() || call.is_some_and(fits)
    }
}

impl Trigger {
    /// Whether an event is of this call and, where a name is asked for, has it.
    #[must_use]
    pub fn matches(&self, event: &Json) -> bool {
        Call::of(event).is_some_and(|call| self.fits(call.kind, call.name))
    }

    /// Whether it is about such an event: one of this call with this name (a track's `event`).
    #[must_use]
    pub fn fits(&self, kind: Kind, name: Option<&str>) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.name.as_ref().is_none_or(|glob| name.is_some_and(|name| glob.matches(name)))
    }
}

impl Condition {
    /// Whether it holds.
    ///
    /// # Errors
    /// When an expression fails, or a filter has to look at too much.
    pub fn holds(&self, scope: &Scope) -> Result<bool, EvalError> {
        match self {
            Self::Filter(filter) => filter.matches(scope.json()),
            Self::Expression(template) => template.is_true(scope),
        }
    }
}

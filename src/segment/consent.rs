//! What the sender and the end user allow: the `integrations` object, `context.consent` and `_metadata.bundled`.
//!
//! Pure questions to an opened message. Which destination has which names and categories is `plan`'s business.

use serde_json::{Map, Value};

/// The event that carries nothing but the end user's consent
/// (<https://segment.com/docs/privacy/consent-management/consent-in-unify/>, read 2026-11-22); it goes everywhere.
pub const PREFERENCE_UPDATED: &str = "Segment Consent Preference Updated";

/// The SDKs' own pipe to us, which browsers list among the integrations: no destination.
const OWN_PIPE: &str = "Segment.io";

/// Whether a destination may have a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allowed,
    /// It may not.
    Filtered(Filter),
}

/// Who said no, in the words of Segment's Delivery Overview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Filter {
    /// The message's `integrations` object.
    Integrations,
    /// The end user's `context.consent`.
    Consent,
    /// Nobody: the SDK already delivered it from the device, says `_metadata.bundled`.
    SentClientSide,
}

// === impl Filter ===

impl Filter {
    /// Segment's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Integrations => "FILTERED_BY_INTEGRATIONS_OBJECT",
            Self::Consent => "FILTERED_BY_END_USER_CONSENT",
            Self::SentClientSide => "MESSAGE_SENT_CLIENT_SIDE",
        }
    }
}

// === impl Decision ===

impl Decision {
    fn filtered_if(is_filtered: bool, filter: Filter) -> Self {
        if is_filtered { Self::Filtered(filter) } else { Self::Allowed }
    }

    /// This decision if it is a no, else the next one.
    #[must_use]
    pub fn and_then(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Allowed => next(),
            Self::Filtered(_) => self,
        }
    }
}

/// All three questions, in Segment's order: consent first, then the sender's choice, then what was already delivered.
///
/// `names` are the names a destination has in the `integrations` object, `categories` the ids of the consent
/// categories it belongs to.
#[must_use]
pub fn allows(message: &Value, names: &[String], categories: &[String]) -> Decision {
    consent_allows(message, categories)
        .and_then(|| integration_allows(message, names))
        .and_then(|| delivery_allows(message, names))
}

/// What `integrations` says about a destination known by any of these names.
///
/// A name listed as `true` or with options is allowed, as `false` filtered (and `false` wins over another spelling's
/// `true`); one not listed follows `All`; without `All`, everything is allowed. Names compare without regard to case.
/// Segment's warehouses take no notice of `All: false`: leave the question out for a destination that is one.
#[must_use]
pub fn integration_allows(message: &Value, names: &[String]) -> Decision {
    let mut own = listed(message, names).filter_map(|(_, value)| choice(value)).peekable();
    if own.peek().is_some() {
        return Decision::filtered_if(own.any(|is_allowed| !is_allowed), Filter::Integrations);
    }
    let everything = integrations(message).filter(|(name, _)| name.eq_ignore_ascii_case("All"));
    let is_denied = everything.filter_map(|(_, value)| choice(value)).any(|is_allowed| !is_allowed);
    Decision::filtered_if(is_denied, Filter::Integrations)
}

/// The options the sender gave this destination: `{"Amplitude": {"session_id": 1}}`.
#[must_use]
pub fn integration_options<'m>(message: &'m Value, names: &[String]) -> Option<&'m Map<String, Value>> {
    listed(message, names).find_map(|(_, value)| value.as_object())
}

/// What the end user's consent says about a destination in these categories
/// (<https://segment.com/docs/privacy/consent-management/consent-in-segment-connections/>, read 2026-11-22).
///
/// | `context.consent` | a destination in no category | one in some |
/// | --- | --- | --- |
/// | absent | allowed | allowed |
/// | `{}`, without `integrations` | allowed | allowed |
/// | `{}`, with `integrations` | allowed | filtered |
/// | `categoryPreferences` | allowed | allowed if every one of its categories is `true` |
///
/// A consent that cannot be understood is none given. Category ids compare exactly.
#[must_use]
pub fn consent_allows(message: &Value, categories: &[String]) -> Decision {
    if categories.is_empty() || message["event"] == PREFERENCE_UPDATED {
        return Decision::Allowed;
    }
    let consent = &message["context"]["consent"];
    if consent.is_null() {
        return Decision::Allowed;
    }
    let preferences = &consent["categoryPreferences"];
    if preferences.is_null() && is_container(consent) {
        return Decision::filtered_if(integrations(message).next().is_some(), Filter::Consent);
    }
    let is_given = categories.iter().all(|category| preferences[category.as_str()] == true);
    Decision::filtered_if(!is_given, Filter::Consent)
}

/// Whether the SDK has already delivered the message to this destination itself.
#[must_use]
pub fn delivery_allows(message: &Value, names: &[String]) -> Decision {
    let bundled = message["_metadata"]["bundled"].as_array().into_iter().flatten();
    let is_sent = bundled.filter_map(Value::as_str).any(|sent| is_one_of(sent, names));
    Decision::filtered_if(is_sent, Filter::SentClientSide)
}

/// The entries of `integrations` that are about destinations.
fn integrations(message: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let entries = message["integrations"].as_object().into_iter().flatten();
    entries.filter(|(name, _)| name.as_str() != OWN_PIPE)
}

fn listed<'m>(message: &'m Value, names: &[String]) -> impl Iterator<Item = (&'m String, &'m Value)> {
    integrations(message).filter(|(name, _)| is_one_of(name, names))
}

fn is_one_of(name: &str, names: &[String]) -> bool {
    name != OWN_PIPE && names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Yes, no, or nothing said. Options mean yes; what is not a boolean counts as in JavaScript.
fn choice(value: &Value) -> Option<bool> {
    match value {
        Value::Null => None,
        Value::Bool(choice) => Some(*choice),
        Value::Number(number) => Some(number.as_f64() != Some(0.0)),
        Value::String(text) => Some(!text.is_empty()),
        Value::Array(_) | Value::Object(_) => Some(true),
    }
}

/// An object, or the empty list that is PHP's empty object.
fn is_container(value: &Value) -> bool {
    value.is_object() || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NO_CONSENT: Decision = Decision::Filtered(Filter::Consent);
    const NO_INTEGRATION: Decision = Decision::Filtered(Filter::Integrations);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn choose(integrations: &Value, name: &str) -> Decision {
        integration_allows(&json!({ "integrations": integrations }), &names(&[name]))
    }

    #[test]
    fn a_destination_follows_its_own_entry_then_all_then_yes() {
        for (integrations, expected) in [
            (json!({}), Decision::Allowed),
            (json!(null), Decision::Allowed),
            (json!([]), Decision::Allowed),
            (json!({"All": true}), Decision::Allowed),
            (json!({"All": false}), NO_INTEGRATION),
            (json!({"All": false, "Mixpanel": true}), Decision::Allowed),
            (json!({"All": false, "Mixpanel": {"token": "t"}}), Decision::Allowed),
            (json!({"All": true, "Mixpanel": false}), NO_INTEGRATION),
            (json!({"Mixpanel": false}), NO_INTEGRATION),
            (json!({"All": false, "Mixpanel": null}), NO_INTEGRATION),
            (json!({"Amplitude": false}), Decision::Allowed),
        ] {
            assert_eq!(choose(&integrations, "Mixpanel"), expected, "{integrations}");
        }
    }

    #[test]
    fn names_compare_without_regard_to_case() {
        assert_eq!(choose(&json!({"all": false, "MIXPANEL": true}), "mixpanel"), Decision::Allowed);
        assert_eq!(choose(&json!({"all": false}), "mixpanel"), NO_INTEGRATION);
    }

    #[test]
    fn no_wins_among_the_names_of_one_destination() {
        let message = json!({"integrations": {"Facebook": true, "Meta": false}});
        assert_eq!(integration_allows(&message, &names(&["meta", "facebook"])), NO_INTEGRATION);
    }

    #[test]
    fn the_sdks_own_pipe_is_no_destination() {
        assert_eq!(choose(&json!({"Segment.io": false}), "Segment.io"), Decision::Allowed);
        let bundled = json!({"_metadata": {"bundled": ["Segment.io"]}});
        assert_eq!(delivery_allows(&bundled, &names(&["segment.io"])), Decision::Allowed);
    }

    #[test]
    fn what_the_device_delivered_is_not_delivered_again() {
        let message = json!({"_metadata": {"bundled": ["Segment.io", "Mixpanel"], "unbundled": ["Amplitude"]}});
        assert_eq!(delivery_allows(&message, &names(&["mixpanel"])), Decision::Filtered(Filter::SentClientSide));
        assert_eq!(delivery_allows(&message, &names(&["amplitude"])), Decision::Allowed);
    }

    #[test]
    fn options_are_found_by_any_name() {
        let message = json!({"integrations": {"amplitude": {"session_id": 1}, "All": true}});
        let options = integration_options(&message, &names(&["Amplitude"]));
        assert_eq!(options.and_then(|options| options.get("session_id")), Some(&json!(1)));
        assert_eq!(integration_options(&message, &names(&["All"])), None);
    }

    /// One row of the table in Segment's documentation: destinations with their categories, and who gets the event.
    #[track_caller]
    fn assert_flows(consent: &Value, integrations: &Value, mapping: &[(&str, &[&str])], expected: &[&str]) {
        let mut message = json!({"context": {}});
        if !consent.is_null() {
            message["context"]["consent"] = consent.clone();
        }
        if !integrations.is_null() {
            message["integrations"] = integrations.clone();
        }
        let flows = |&&(name, categories): &&(&str, &[&str])| {
            allows(&message, &names(&[name]), &names(categories)) == Decision::Allowed
        };
        let reached: Vec<&str> = mapping.iter().filter(flows).map(|(name, _)| *name).collect();
        assert_eq!(reached, expected, "{message}");
    }

    #[test]
    fn consent_and_integrations_are_reconciled_as_documented() {
        let simple: &[(&str, &[&str])] =
            &[("facebook", &["ad"]), ("google-ads", &["ad"]), ("amplitude", &["analytics"]), ("webhook", &[])];
        let both: &[(&str, &[&str])] =
            &[("facebook", &["ad", "analytics"]), ("google-ads", &["ad"]), ("amplitude", &["analytics"])];
        let none = Value::Null;
        let choice = json!({"facebook": true, "amplitude": false});
        let preferences =
            |ad: bool, analytics: bool| json!({"categoryPreferences": {"ad": ad, "analytics": analytics}});
        let everyone = ["facebook", "google-ads", "amplitude", "webhook"];

        assert_flows(&none, &none, simple, &everyone);
        assert_flows(&json!({}), &json!({}), simple, &everyone);
        assert_flows(&json!({"categoryPreferences": {}}), &none, simple, &["webhook"]);
        assert_flows(&none, &choice, simple, &["facebook", "google-ads", "webhook"]);
        assert_flows(&json!({}), &choice, simple, &["webhook"]);
        assert_flows(&json!({"categoryPreferences": {}}), &choice, simple, &["webhook"]);
        assert_flows(&preferences(true, false), &none, simple, &["facebook", "google-ads", "webhook"]);
        assert_flows(&preferences(true, false), &choice, simple, &["facebook", "google-ads", "webhook"]);
        let not_facebook = json!({"facebook": false, "amplitude": false});
        assert_flows(&preferences(true, false), &not_facebook, simple, &["google-ads", "webhook"]);
        assert_flows(&preferences(true, false), &choice, both, &["google-ads"]);
        assert_flows(&preferences(true, true), &choice, both, &["facebook", "google-ads"]);
        assert_flows(&preferences(false, true), &choice, both, &[]);
    }

    #[test]
    fn the_browsers_own_entry_does_not_turn_an_empty_consent_into_a_refusal() {
        assert_flows(&json!({}), &json!({"Segment.io": true}), &[("facebook", &["ad"])], &["facebook"]);
    }

    #[test]
    fn a_category_that_was_not_asked_for_is_not_given() {
        let message = json!({"context": {"consent": {"categoryPreferences": {"ad": true}}}});
        assert_eq!(consent_allows(&message, &names(&["functional"])), NO_CONSENT);
    }

    #[test]
    fn a_consent_that_cannot_be_understood_is_none_given() {
        for consent in [json!(true), json!("yes"), json!([1]), json!({"categoryPreferences": "all"})] {
            let message = json!({"context": {"consent": consent}});
            assert_eq!(consent_allows(&message, &names(&["ad"])), NO_CONSENT, "{message}");
        }
    }

    #[test]
    fn a_change_of_consent_reaches_everybody() {
        let message = json!({"event": PREFERENCE_UPDATED, "context": {"consent": {"categoryPreferences": {}}}});
        assert_eq!(consent_allows(&message, &names(&["ad"])), Decision::Allowed);
    }
}

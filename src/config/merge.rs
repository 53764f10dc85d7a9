//! Tables laid over tables: a destination over what it extends, over `[defaults]`.
//!
//! Tables merge deeply, and what stands above wins. A key that both have keeps its position below and is the one above:
//! what is said of it is said where it was written last.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rule::MATCH_KEYS;

/// Keys that replace what they would otherwise merge with: two ways to prove who we are is one too many.
const WHOLE: [&str; 1] = ["auth"];

/// Lists that go on with those of what is extended, unless they are empty: the first match counts.
const LISTS: [&str; 2] = ["rules", "response"];

/// Tables whose keys are the same whatever their case.
const CASELESS: [&str; 1] = ["headers"];

/// The destination with the defaults for what it does not say. Keys in `skipped` are not taken over.
pub(super) fn over_defaults<'i>(defaults: &DeTable<'i>, own: &DeTable<'i>, skipped: &[&str]) -> DeTable<'i> {
    let below = without(defaults, |key| skipped.contains(&key));
    lay(&below, own, |key, below, above| match key {
        key if LISTS.contains(&key) => above.clone(),
        key => destination_value(key, below, above),
    })
}

/// The destination over the one that it extends.
pub(super) fn over_extended<'i>(extended: &DeTable<'i>, own: &DeTable<'i>) -> DeTable<'i> {
    let has_rules = |table: &DeTable<'_>| match table.get("rules").map(Spanned::get_ref) {
        Some(DeValue::Array(rules)) => !rules.is_empty(),
        Some(_) | None => false,
    };
    // It was its own one rule; what that one wanted is no business of the rules that it has now.
    let was_a_rule = has_rules(own) && !has_rules(extended);
    let below = without(extended, |key| was_a_rule && MATCH_KEYS.contains(&key));
    lay(&below, own, |key, below, above| match (key, below.get_ref(), above.get_ref()) {
        (key, DeValue::Array(inherited), DeValue::Array(own)) if LISTS.contains(&key) && !own.is_empty() => {
            let both = own.iter().chain(inherited.iter()).cloned().collect();
            Spanned::new(above.span(), DeValue::Array(both))
        }
        (key, _, _) => destination_value(key, below, above),
    })
}

/// Tables over tables, whatever they are.
pub(super) fn deep<'i>(below: &DeTable<'i>, above: &DeTable<'i>) -> DeTable<'i> {
    lay(below, above, |_, below, above| deep_value(below, above))
}

type Value<'i> = Spanned<DeValue<'i>>;

fn destination_value<'i>(key: &str, below: &Value<'i>, above: &Value<'i>) -> Value<'i> {
    match (below.get_ref(), above.get_ref()) {
        _ if WHOLE.contains(&key) => above.clone(),
        (DeValue::Table(below), DeValue::Table(own)) if CASELESS.contains(&key) => {
            let is_own = |name: &str| own.keys().any(|other| other.get_ref().eq_ignore_ascii_case(name));
            let rest = without(below, is_own);
            Spanned::new(above.span(), DeValue::Table(deep(&rest, own)))
        }
        _ => deep_value(below, above),
    }
}

fn deep_value<'i>(below: &Value<'i>, above: &Value<'i>) -> Value<'i> {
    match (below.get_ref(), above.get_ref()) {
        (DeValue::Table(below), DeValue::Table(own)) => Spanned::new(above.span(), DeValue::Table(deep(below, own))),
        _ => above.clone(),
    }
}

fn without<'i>(table: &DeTable<'i>, is_out: impl Fn(&str) -> bool) -> DeTable<'i> {
    let rest = table.iter().filter(|(key, _)| !is_out(key.get_ref()));
    rest.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The entries of both; `both` makes one value of two.
fn lay<'i>(
    below: &DeTable<'i>,
    above: &DeTable<'i>,
    both: impl Fn(&str, &Value<'i>, &Value<'i>) -> Value<'i>,
) -> DeTable<'i> {
    let mut all = DeTable::with_capacity(below.len() + above.len());
    for (key, value) in below {
        match above.get_key_value(key.get_ref().as_ref()) {
            Some((own, above)) => all.insert(own.clone(), both(key.get_ref(), value, above)),
            None => all.insert(key.clone(), value.clone()),
        };
    }
    for (key, value) in above.iter().filter(|(key, _)| !below.contains_key(key.get_ref().as_ref())) {
        all.insert(key.clone(), value.clone());
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use toml::de::{DeTable, DeValue};

    use super::{over_defaults, over_extended};

    fn text(value: &DeValue<'_>) -> String {
        match value {
            DeValue::Table(table) => {
                let entries: Vec<_> =
                    table.iter().map(|(key, value)| format!("{}={}", key.get_ref(), text(value.get_ref()))).collect();
                format!("{{{}}}", entries.join(","))
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Array(list) => format!("{:?}", list.iter().map(|v| text(v.get_ref())).collect::<Vec<_>>()),
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => panic!("not in these tests"),
        }
    }

    fn merge(defaults: &str, own: &str) -> String {
        let (defaults, own) = (DeTable::parse(defaults).unwrap(), DeTable::parse(own).unwrap());
        text(&DeValue::Table(over_defaults(defaults.get_ref(), own.get_ref(), &["skipped"])))
    }

    fn extend(extended: &str, own: &str) -> String {
        let (extended, own) = (DeTable::parse(extended).unwrap(), DeTable::parse(own).unwrap());
        text(&DeValue::Table(over_extended(extended.get_ref(), own.get_ref())))
    }

    #[test]
    fn the_destination_wins_and_the_rest_is_taken_over() {
        assert_eq!(merge("timeout = '1s'\nskipped = 1", "timeout = '2s'\nurl = 'u'"), "{timeout=2s,url=u}");
        assert_eq!(merge("rules = [1]", "rules = [2, 3]"), "{rules=[\"2\", \"3\"]}");
    }

    #[test]
    fn tables_merge_deeply() {
        assert_eq!(
            merge("retry = { first = '1s', delay_max = '1m' }\nbody.a.x = 1", "retry.first = '2s'\nbody.a.y = 2"),
            "{retry={first=2s,delay_max=1m},body={a={x=1,y=2}}}"
        );
    }

    #[test]
    fn auth_is_replaced_as_a_whole() {
        assert_eq!(merge("auth = { bearer = 'a' }", "auth = { basic = 'b' }"), "{auth={basic=b}}");
        assert_eq!(merge("body.auth.a = 1", "body.auth.b = 2"), "{body={auth={a=1,b=2}}}", "a body's is not ours");
    }

    #[test]
    fn a_header_is_replaced_whatever_its_case() {
        assert_eq!(merge("headers = { X-A = 'a', x-b = 'b' }", "headers.x-a = 'c'"), "{headers={x-b=b,x-a=c}}");
        assert_eq!(merge("query = { X = 'a' }", "query.x = 'c'"), "{query={X=a,x=c}}");
    }

    #[test]
    fn own_rules_come_before_those_extended_and_an_empty_list_drops_them() {
        assert_eq!(
            extend("rules = [1, 2]\nresponse = [5]", "rules = [3]"),
            "{rules=[\"3\", \"1\", \"2\"],response=[\"5\"]}"
        );
        assert_eq!(extend("rules = [1, 2]", "rules = []"), "{rules=[]}");
        assert_eq!(extend("response = [1]", "response = [2]"), "{response=[\"2\", \"1\"]}");
    }

    #[test]
    fn who_gets_rules_of_its_own_is_no_rule_any_more() {
        assert_eq!(extend("on = 'track'\nurl = 'u'", "rules = [1]"), "{url=u,rules=[\"1\"]}");
        assert_eq!(extend("on = 'track'\nurl = 'u'", "rules = []"), "{on=track,url=u,rules=[]}");
    }

    #[test]
    fn a_key_of_both_is_the_one_above() {
        let (below, above) = (DeTable::parse("a = 1\nb.c = 1").unwrap(), DeTable::parse("# …\nb.c = 2").unwrap());
        let both = over_extended(below.get_ref(), above.get_ref());
        let (key, _) = both["b"].get_ref().as_table().unwrap().get_key_value("c").unwrap();
        assert_eq!(key.span(), 8..9);
    }
}

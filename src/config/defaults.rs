//! `[defaults]` laid under a destination: tables merge deeply, everything else is the destination's.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys that replace what they would otherwise merge with: two ways to prove who we are is one too many.
const WHOLE: [&str; 1] = ["auth"];

/// The destination with the defaults for what it does not say. Keys in `skipped` are not taken over.
pub(super) fn merged<'i>(defaults: &DeTable<'i>, own: &DeTable<'i>, skipped: &[&str]) -> DeTable<'i> {
    let mut all = DeTable::new();
    for (key, value) in defaults.iter().filter(|(key, _)| !skipped.contains(&key.get_ref().as_ref())) {
        all.insert(key.clone(), value.clone());
    }
    lay_over(&mut all, own);
    all
}

/// Puts the entries of `over` into `all`, table by table.
pub(super) fn lay_over<'i>(all: &mut DeTable<'i>, over: &DeTable<'i>) {
    for (key, value) in over {
        let is_whole = WHOLE.contains(&key.get_ref().as_ref());
        let (Some(DeValue::Table(below)), DeValue::Table(above), false) =
            (all.get(key.get_ref().as_ref()).map(Spanned::get_ref), value.get_ref(), is_whole)
        else {
            all.insert(key.clone(), value.clone());
            continue;
        };
        let mut both = below.clone();
        lay_over(&mut both, above);
        let mut value = value.clone();
        *value.get_mut() = DeValue::Table(both);
        all.insert(key.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use toml::de::{DeTable, DeValue};

    use super::merged;

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
        text(&DeValue::Table(merged(defaults.get_ref(), own.get_ref(), &["skipped"])))
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
    }
}

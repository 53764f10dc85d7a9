//! Values as they are shown: as TOML on one line, as JSON.

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::expressions::has_braces;
use super::findings::push_key;

/// What stands for a secret.
const MASK: &str = "***";

/// How keys end whose values are secrets, whatever their case.
const SECRET_ENDINGS: [&str; 7] = ["key", "token", "secret", "password", "authorization", "cookie", "credentials"];

/// Whether a key is called as secrets are.
pub(super) fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_ENDINGS.iter().any(|ending| key.ends_with(ending))
}

/// A value as TOML on one line. Constants of a secret are masked.
pub(super) fn inline(value: &DeValue<'_>, is_secret: bool) -> String {
    match value {
        DeValue::String(text) => quoted(masked(text, is_secret)),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.as_str().to_owned(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(list) => {
            let elements: Vec<String> = list.iter().map(|element| inline(element.get_ref(), is_secret)).collect();
            format!("[{}]", elements.join(", "))
        }
        DeValue::Table(table) if table.is_empty() => "{}".to_owned(),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                format!("{} = {}", key_of(key.get_ref()), inline(value.get_ref(), is_secret))
            };
            format!("{{ {} }}", table.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A value as JSON; dates are text. Constants of a secret are masked.
pub(super) fn as_json(value: &DeValue<'_>, is_secret: bool) -> serde_json::Value {
    match value {
        DeValue::String(text) => masked(text, is_secret).into(),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| integer.to_string().into(), serde_json::Value::from),
        DeValue::Float(float) => float.as_str().parse::<f64>().map_or(serde_json::Value::Null, serde_json::Value::from),
        DeValue::Boolean(boolean) => (*boolean).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(list) => list.iter().map(|element| as_json(element.get_ref(), is_secret)).collect(),
        DeValue::Table(table) => {
            let entries = table.iter();
            let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                (key.get_ref().to_string(), as_json(value.get_ref(), is_secret))
            };
            serde_json::Value::Object(entries.map(entry).collect())
        }
    }
}

/// A constant that is a secret is not told; a template tells nothing of what it gives.
fn masked(text: &str, is_secret: bool) -> &str {
    if is_secret && !text.is_empty() && !has_braces(text) { MASK } else { text }
}

/// A TOML string on one line.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = !text.chars().any(|c| c.is_control() || c == '\'');
    if is_plain && text.contains(['"', '\\']) {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.extend(['\\', 'u'].into_iter().chain(format!("{:04X}", u32::from(c)).chars())),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn key_of(key: &str) -> String {
    let mut out = String::new();
    push_key(&mut out, key);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use proptest::prelude::*;
    use toml::de::{DeTable, DeValue};

    use super::{as_json, inline, quoted};

    #[test]
    fn a_value_is_told_on_one_line_as_it_means() {
        let text = "x = [1, 0x0f, 1.50, true, 2026-01-01, \"\"\"a\nb\"\"\", { 'a b' = [], c = {} }]";
        let document = DeTable::parse(text).unwrap();
        let value = document.get_ref()["x"].get_ref();
        assert_eq!(inline(value, false), r#"[1, 0x0f, 1.50, true, 2026-01-01, "a\nb", { "a b" = [], c = {} }]"#);
        let json = serde_json::json!([1, 15, 1.5, true, "2026-01-01", "a\nb", { "a b": [], "c": {} }]);
        assert_eq!(as_json(value, false), json);
    }

    #[test]
    fn constants_of_a_secret_are_masked_and_templates_are_not() {
        let document = DeTable::parse("x = ['user', '', '{{ env.TOKEN }}', 5]").unwrap();
        let value = document.get_ref()["x"].get_ref();
        assert_eq!(inline(value, true), r#"["***", "", "{{ env.TOKEN }}", 5]"#);
        assert_eq!(as_json(value, true), serde_json::json!(["***", "", "{{ env.TOKEN }}", 5]));
    }

    proptest! {
        #[test]
        fn any_text_is_quoted_so_that_toml_reads_it_back(text in any::<String>()) {
            let line = format!("x = {}", quoted(&text));
            prop_assert_eq!(line.lines().count(), 1);
            let document = DeTable::parse(&line).unwrap();
            let DeValue::String(read) = document.get_ref()["x"].get_ref() else { panic!("not a string") };
            prop_assert_eq!(read.as_ref(), text);
        }
    }
}

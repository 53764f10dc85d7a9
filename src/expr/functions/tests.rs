#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use super::*;
use crate::expr::template::tests::eval;

#[test]
fn every_example_of_the_reference_runs() {
    for entry in REFERENCE {
        let Example { template, event, result } = entry.example;
        assert_eq!(eval(template, event), result, "{}", entry.name);
    }
}

#[test]
fn what_is_listed_exists_and_what_exists_is_listed() {
    let mut environment = Environment::new();
    register(&mut environment);
    let mut state = environment.empty_state();
    let known = |result: Result<Value, Error>, kind| !matches!(result, Err(error) if error.kind() == kind);
    for name in filters() {
        assert!(known(state.apply_filter(name, &[]), ErrorKind::UnknownFilter), "{name}");
    }
    for name in super::tests() {
        assert!(known(state.perform_test(name, &[]).map(Value::from), ErrorKind::UnknownTest), "{name}");
    }
    let listed: std::collections::BTreeSet<_> = functions().map(str::to_owned).collect();
    let existing: std::collections::BTreeSet<_> = environment.globals().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(listed, existing);
    assert_eq!(listed.into_iter().collect::<Vec<_>>(), FUNCTIONS);
}

#[test]
fn every_filter_passes_missing_through() {
    let arguments = |name: &str| match name {
        "date" => "('%Y')",
        "clip" => "(3)",
        "wrap" | "hmac_sha256" => "('k')",
        "replace" | "regex_replace" => "('a', 'b')",
        _ => "",
    };
    for entry in REFERENCE.iter().filter(|entry| entry.kind == FunctionKind::Filter && entry.name != "required") {
        let template = format!("{{{{ traits.nothing | {}{} }}}}", entry.name, arguments(entry.name));
        assert_eq!(eval(&template, "{}"), "", "{template}");
    }
}

#[test]
fn words_are_cut_where_people_see_them() {
    for (text, snake, camel) in [
        ("Order Completed", "order_completed", "orderCompleted"),
        ("HTTPServer2Go", "http_server2_go", "httpServer2Go"),
        ("already_snake", "already_snake", "alreadySnake"),
        ("  spaced -- out ", "spaced_out", "spacedOut"),
        ("Größe Übrig", "größe_übrig", "größeÜbrig"),
        ("", "", ""),
    ] {
        assert_eq!(words(text).join("_"), snake);
        assert_eq!(super::camel(text), camel);
    }
}

#[test]
fn timestamps_are_read_in_many_shapes() {
    let second = |value: &str| eval("{{ properties.at | unix_ms }}", &format!(r#"{{"properties":{{"at":{value}}}}}"#));
    for value in [
        r#""2026-01-02T03:04:05.678Z""#,
        r#""2026-01-02T04:04:05.678+01:00""#,
        r#""2026-01-02T03:04:05.678""#,
        r#""2026-01-02 03:04:05.678Z""#,
        "1767323045.678",
        "1767323045678",
        "1767323045678000",
        "1767323045678000000",
        r#""1767323045678""#,
    ] {
        assert_eq!(second(value), "1767323045678", "{value}");
    }
    assert_eq!(second(r#""2026-01-02""#), "1767312000000");
    assert_eq!(second(r#""Fri, 02 Jan 2026 03:04:05 +0000""#), "1767323045000");
    assert_eq!(second(r#""soon""#), "error: not a timestamp: `soon`");
    assert_eq!(second("1e300"), "error: not a timestamp: `1e+300`");
    assert_eq!(second("-1.5"), "-1500");
    assert_eq!(eval("{{ properties.at | unix }}", r#"{"properties":{"at":-1.5}}"#), "-2");
}

#[test]
fn digests_of_nothing_are_missing() {
    assert_eq!(eval("{{ traits.phone | digits | sha256 }}", r#"{"traits":{"phone":"n/a"}}"#), "");
    assert_eq!(eval("{{ traits.email | trim | md5 }}", r#"{"traits":{"email":"  "}}"#), "");
}

#[test]
fn a_uuid_is_named_by_its_text() {
    // Python: uuid.uuid3(uuid.NAMESPACE_OID, 'm1')
    assert_eq!(eval("{{ messageId | uuid }}", r#"{"messageId":"m1"}"#), r#""342264b5-5c70-33f9-bc9a-df7f5d7a6b35""#);
}

#[test]
fn addresses_lose_their_end() {
    for (address, cut) in [("2001:db8:85a3:8d3:1319:8a2e:370:7348", r#""2001:db8:85a3::""#), ("localhost", "")] {
        assert_eq!(eval("{{ context.ip | ip_anonymize }}", &format!(r#"{{"context":{{"ip":"{address}"}}}}"#)), cut);
    }
}

#[test]
fn a_mask_never_shows_everything() {
    assert_eq!((mask("12", 4), mask("", 4), mask("éèê", 1)), ("*2".into(), String::new(), "**ê".into()));
}

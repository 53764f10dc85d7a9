#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::event::Message;
use crate::expr::filter::Selection;
use crate::expr::{Items, Names};

pub(in crate::expr) fn names() -> Names {
    let pairs = |pairs: &[(&str, &str)]| Value::from_pairs(pairs.iter().map(|(key, value)| (*key, *value)));
    Names {
        env: pairs(&[("HOST", "a.b"), ("TOKEN", "t/k")]),
        tables: Value::from_pairs([("events", pairs(&[("Signed Up", "sign_up")]))]),
        files: pairs(&[("/run/secrets/token", "s3cret\n")]),
        lets: Vec::new(),
    }
}

pub(in crate::expr) fn scope_of(names: Names, event: &str) -> Scope {
    let value = Arc::new(serde_json::from_str(event).unwrap());
    Scope::event(&Arc::new(names), &Message { source: "web".into(), value }, "2026-11-22T10:00:00Z".parse().unwrap())
}

fn scope(event: &str) -> Scope {
    scope_of(names(), event)
}

/// The value's JSON, nothing if it is missing, `error: …` if it fails.
pub(in crate::expr) fn eval(template: &str, event: &str) -> String {
    eval_in(template, &scope(event))
}

pub(in crate::expr) fn eval_in(template: &str, scope: &Scope) -> String {
    let mut out = Vec::new();
    match parse(template).write_json(scope, Omit::Nothing, &mut out) {
        Ok(_) => String::from_utf8(out).unwrap(),
        Err(error) => format!("error: {error}"),
    }
}

/// The one piece that a path picks.
fn picked(scope: &Scope, path: &str) -> Value {
    scope.select(&Selection::parse(path).unwrap(), 1).unwrap().remove(0)
}

fn parse(template: &str) -> Template {
    Template::parse(template).unwrap_or_else(|mistakes| panic!("{template}: {mistakes:?}"))
}

fn url(template: &str, event: &str) -> String {
    let mut out = String::new();
    let template = parse(template).fold(&Scope::file(&Arc::new(names())), &[]).unwrap();
    match template.write_text(&scope(event), Escape::Url, &mut out) {
        Ok(true) => out,
        Ok(false) => "<absent>".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

fn text_error(template: &str, event: &str) -> EvalError {
    parse(template).write_text(&scope(event), Escape::Plain, &mut String::new()).unwrap_err()
}

fn used(template: &str) -> Vec<String> {
    let mark = |name: NameUse| if name.optional { format!("{}?", name.path) } else { name.path };
    let template_names = parse(template).names();
    for name in &template_names {
        let root = name.path.split('.').next().unwrap();
        assert!(template[name.range.clone()].starts_with(root), "{template}: {name:?}");
    }
    template_names.into_iter().map(mark).collect()
}

// === types ===

#[test]
fn a_lone_expression_keeps_its_type() {
    let event = r#"{"properties":{"n":9.0,"i":12345678901234567890,"b":true,"z":null,"o":{"b":1,"a":2},"s":"x"}}"#;
    for (template, json) in [
        ("{{ properties.n }}", "9.0"),
        ("{{ properties.i }}", "12345678901234567890"),
        ("{{ properties.b }}", "true"),
        ("{{ properties.z }}", "null"),
        ("{{ properties.o }}", r#"{"b":1,"a":2}"#),
        ("{{properties['o']}}", r#"{"b":1,"a":2}"#),
        ("{{ properties.none }}", ""),
        ("{{ properties.none.at.all }}", ""),
        ("{{ properties.s.length }}", ""),
        ("{{ [properties.n, properties.none] }}", "[9.0,null]"),
        ("{{ {'z': properties.none, 'a': properties.o} }}", r#"{"a":{"b":1,"a":2}}"#),
        ("{{ {'z': 1, 'a': 2} }}", r#"{"z":1,"a":2}"#),
        ("{{ object(z=1, a=2) }}", r#"{"z":1,"a":2}"#),
        ("{{ not properties.none }}", "true"),
        ("{{ 2 ** 70 }}", "1180591620717411303424"),
        ("{{ none }}", "null"),
        ("plain <text>", r#""plain <text>""#),
        ("{{ '{{' }}", r#""{{""#),
        (" {{ properties.n }}", r#"" 9""#),
        ("{{ properties.n }}\n", "9.0"),
        ("{{ properties.n }}{# nothing #}", r#""9""#),
        ("css {#id}", r#""css {#id}""#),
    ] {
        assert_eq!(eval(template, event), json, "{template}");
    }
}

#[test]
fn text_prints_as_javascript_would() {
    let event = r#"{"properties":{"n":9.0,"m":0.1,"big":1e21,"small":1e-7,"b":true,"o":{"b":"<'&>","a":[1,2.0]}}}"#;
    let template = "{{ properties.n }} {{ properties.m }} {{ properties.big }} {{ properties.small }} {{ properties.b }} {{ properties.o }}";
    let text = r#"9 0.1 1e+21 1e-7 true {"b":"<'&>","a":[1,2.0]}"#;
    let mut out = String::new();
    assert_eq!(parse(template).write_text(&scope(event), Escape::Plain, &mut out), Ok(true));
    assert_eq!(out, text);
    let block = format!("{{% if true %}}{template}{{% endif %}}");
    assert_eq!(eval(&block, event), serde_json::to_string(text).unwrap());
}

#[test]
fn missing_or_null_inside_text_is_an_error_that_says_what_to_write() {
    let missing = text_error("Höhe {{ traits.name }}!", "{}");
    assert_eq!(missing.message, "`traits.name` is missing inside text; add `| default('…')` or `| required`");
    assert_eq!(missing.range, Some(9..20));
    let null = text_error("{{ a }}{{ traits.name ~ '' if false else none }}", r#"{"a":1}"#);
    assert!(null.message.contains("is null inside text"), "{null}");
    let in_block = text_error("{% if true %}{{ traits.name }}{% endif %}", "{}");
    assert_eq!(in_block.message, missing.message);
    assert_eq!(in_block.range, Some(16..27));
    assert_eq!(eval("a {{ traits.name | default('b') }}", "{}"), r#""a b""#);
}

#[test]
fn a_missing_or_null_whole_is_absent_as_text() {
    for template in ["{{ traits.name }}", "{{ traits.null }}", "{{ traits.name | lower }}"] {
        assert_eq!(url(template, r#"{"traits":{"null":null}}"#), "<absent>");
    }
}

#[test]
fn dashes_and_blocks_trim_as_in_jinja() {
    for template in ["a {{- ' b ' -}} c\n", "a {{- ' b ' -}} c{% if true %}{% endif %}"] {
        assert_eq!(eval(template, "{}"), r#""a b c""#);
    }
    assert_eq!(eval("{% raw %}{{ x }}{% endraw %}\n\n", "{}"), r#""{{ x }}\n""#);
    assert_eq!(eval("a\n\n{#- x -#}\n {{ 1 }}", "{}"), r#""a1""#);
}

#[test]
fn urls_encode_values_but_not_the_file() {
    let event = r#"{"userId":"u/1 é","properties":{"o":{"a":1}}}"#;
    assert_eq!(url("https://{{ env.HOST }}/{{ userId }}?q=a b", event), "https://a.b/u%2F1%20%C3%A9?q=a b");
    assert_eq!(url("/{{ env.TOKEN }}/{{ userId | safe }}/{{ properties.o }}", event), "/t/k/u/1 é/%7B%22a%22%3A1%7D");
    assert_eq!(url("{{ userId }}", event), "u%2F1%20%C3%A9");
    assert_eq!(url("{{ env.TOKEN }}", event), "t/k");
    assert_eq!(url("{{ userId | urlencode }}/", event), "u%2F1%20%C3%A9/");
    assert_eq!(url("?{{ {'a': userId, 'b': nothing, 'c': 1} | urlencode }}", event), "?a=u%2F1%20%C3%A9&c=1");
    assert_eq!(url("{% if userId %}/{{ userId }}{% endif %}", event), "/u%2F1%20%C3%A9");
}

#[test]
fn omission_prunes_fields_at_every_depth_and_never_elements() {
    let event = r#"{"properties":{"n":null,"e":"","l":[null,{"x":null}],"o":{"y":{"z":[]}},"k":0}}"#;
    let write = |template: &str, omit| {
        let mut out = b"x".to_vec();
        let written = parse(template).write_json(&scope(event), omit, &mut out).unwrap();
        (written, String::from_utf8(out).unwrap())
    };
    for template in ["{{ properties }}", "{{ properties | omit('none') }}"] {
        assert_eq!(
            write(template, Omit::Null),
            (true, r#"x{"e":"","l":[null,{}],"o":{"y":{"z":[]}},"k":0}"#.to_owned())
        );
        assert_eq!(write(template, Omit::Empty), (true, r#"x{"l":[null,{}],"k":0}"#.to_owned()));
    }
    assert_eq!(write("{{ properties.n }}", Omit::Null), (false, "x".to_owned()));
    assert_eq!(write("{{ properties.o }}", Omit::Empty), (false, "x".to_owned()));
    assert_eq!(write("{{ properties.none }}", Omit::Nothing), (false, "x".to_owned()));
}

// === scope ===

#[test]
fn names_are_found_in_the_documented_order() {
    let event = r#"{"type":"track","env":"no","source":"no","now":"no","coalesce":1,"who":"field","extra":{"x":1}}"#;
    let lets = || vec![("who".to_owned(), parse("{{ 'let' }}"))];
    let scope = scope_of(Names { lets: lets(), ..names() }, event);
    for (template, json) in [
        ("{{ who }}", r#""let""#),
        ("{{ who | upper }}", r#""LET""#),
        ("{{ env.HOST }}", r#""a.b""#),
        ("{{ tables.events['Signed Up'] }}", r#""sign_up""#),
        ("{{ source }}", r#""web""#),
        ("{{ now }}", r#""2026-11-22T10:00:00.000Z""#),
        ("{{ now | unix }}", "1795341600"),
        ("{{ extra }}", r#"{"x":1}"#),
        ("{{ coalesce(nothing, extra).x }}", "1"),
        ("{{ message.type }}", r#""track""#),
        ("{{ message }}", event),
        ("{{ item }}", ""),
    ] {
        assert_eq!(eval_in(template, &scope), json, "{template}");
    }
    let inner = scope.with_item(picked(&scope, "$.extra"), 3);
    assert_eq!(eval_in("{{ item.x }}/{{ index }}/{{ who }}", &inner), r#""1/3/let""#);
    assert_eq!(eval_in("{{ item }}", &inner), r#"{"x":1}"#);
    assert_eq!(eval_in("{{ [item, index, who] }}", &inner), r#"[{"x":1},3,"let"]"#);
}

#[test]
fn a_let_is_evaluated_once_and_shared_by_items() {
    let lets = vec![("list".to_owned(), parse("{{ range(3) | list }}"))];
    let scope = scope_of(Names { lets, ..names() }, "{}");
    let address = |scope: &Scope| {
        let value = parse("{{ list }}").value(scope).unwrap();
        value.as_object().map(|list| list.downcast_ref::<Vec<Value>>().unwrap().as_ptr())
    };
    assert_eq!(address(&scope), address(&scope.with_item(Value::from(1), 0)));
    assert_eq!(eval_in("{{ list }}", &scope), "[0,1,2]");
}

#[test]
fn a_let_that_fails_is_named_wherever_it_is_used() {
    let lets = || {
        vec![
            ("total".to_owned(), parse("{{ properties.total | number }}")),
            ("twice".to_owned(), parse("{{ total * 2 }}")),
        ]
    };
    let scope = scope_of(Names { lets: lets(), ..names() }, r#"{"properties":{"total":"many"}}"#);
    for template in ["{{ total }}", "{{ twice }}", "{{ twice + 1 }}", "a{{ total }}", "{% if total %}{% endif %}"] {
        let error = parse(template).value(&scope).unwrap_err();
        assert_eq!(error.message, "let.total: not a number: `many`", "{template}");
    }
}

#[test]
fn a_let_that_reaches_itself_fails_instead_of_hanging() {
    for (a, b) in [("{{ b }}", "{{ a }}"), ("{{ b ~ '' }}", "x{{ a }}"), ("{{ b + 1 }}", "{% if a %}{% endif %}")] {
        let lets = vec![("a".to_owned(), parse(a)), ("b".to_owned(), parse(b))];
        let scope = scope_of(Names { lets, ..names() }, "{}");
        let error = parse("{{ a }}").value(&scope).unwrap_err();
        assert!(error.message.contains("builds on too many others, or on itself"), "{error}");
    }
}

#[test]
fn a_batch_is_joined_as_it_is_and_opened_when_asked() {
    let items = |json: &[&'static str]| Items {
        json: json.iter().map(|json| bytes::Bytes::from_static(json.as_bytes())).collect(),
    };
    let names = Arc::new(names());
    let now = "2026-11-22T10:00:00Z".parse().unwrap();
    let scope = Scope::batch(&names, items(&[r#"{"b": 1,"event":{"n":1}}"#, r#"{"event":null}"#]), now);
    for (template, json) in [
        ("{{ items }}", r#"[{"b": 1,"event":{"n":1}},{"event":null}]"#),
        ("{{ items | length }}", "2"),
        ("{{ items[0] | omit('event') }}", r#"{"b":1}"#),
        ("{{ items | map(attribute='event') | list }}", r#"[{"n":1},null]"#),
        ("{{ items | map(attribute='event') | compact }}", r#"[{"n":1}]"#),
        ("{{ items | map(attribute='none') | compact or none }}", "null"),
        ("{{ {'data': items} }}", r#"{"data":[{"b": 1,"event":{"n":1}},{"event":null}]}"#),
        ("n={{ items | length }}", r#""n=2""#),
        ("{{ userId }}", ""),
    ] {
        assert_eq!(eval_in(template, &scope), json, "{template}");
    }
    let raw = Scope::batch(&names, items(&["not json", "1"]), now);
    assert_eq!(eval_in("{{ items }}", &raw), "[not json,1]");
    assert!(eval_in("{{ items[0] }}", &raw).starts_with("error: an item of the batch is not JSON"));
}

#[test]
fn a_large_batch_may_have_a_large_envelope() {
    let item = bytes::Bytes::from(format!(r#"{{"event":"{}"}}"#, "x".repeat(1 << 16)));
    let items = Items { json: vec![item; 40] };
    let scope = Scope::batch(&Arc::new(names()), items, "2026-11-22T10:00:00Z".parse().unwrap());
    assert_eq!(eval_in("{{ {'all': items} }}", &scope).len(), 40 * ((1 << 16) + 13) + 9);
    assert!(eval_in("{{ items | map(attribute='event') | list }}", &scope).len() > OUTPUT_MAX_BYTES);
}

#[test]
fn a_reply_has_its_own_names() {
    let reply =
        r#"{"status":200,"headers":{"x":"y"},"body":{"errors":[{"index":1,"errors":[{"reason":"backendError"}]}]}}"#;
    let scope = Scope::reply(&Arc::new(names()), Arc::new(serde_json::from_str(reply).unwrap()));
    let item = scope.with_item(picked(&scope, "$.body.errors[0]"), 0);
    assert_eq!(eval_in("{{ status }}", &scope), "200");
    let then = "{{ 'retry' if item.errors[0].reason in ['backendError', 'stopped'] else 'dead' }}";
    assert_eq!(eval_in(then, &item), r#""retry""#);
    assert_eq!(eval_in("{{ item.index }}", &item), "1");
}

#[test]
fn selected_pieces_are_found_where_they_are() {
    let scope = scope(r#"{"a":[{"b":[1,{"c":2}]},{"b":[{"c":3}]}]}"#);
    let path = Selection::parse("$.a[*].b[?@.c]").unwrap();
    let values: Vec<String> = scope.select(&path, 2).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(values, [r#"{"c":2}"#, r#"{"c":3}"#]);
    assert_eq!(scope.select(&path, 1).unwrap_err().message, "a list of more than 1 elements");
}

// === folding ===

#[test]
fn what_reads_only_the_file_is_settled_with_it() {
    let lets = vec![("base".to_owned(), Template::constant("v1".into())), ("who".to_owned(), parse("{{ userId }}"))];
    let file = Scope::file(&Arc::new(Names { lets, ..names() }));
    let fold = |template: &str| parse(template).fold(&file, &[]).unwrap();
    for (template, constant) in [
        ("{{ env.HOST }}", Some("a.b")),
        ("https://{{ env.HOST }}/{{ tables.events['Signed Up'] }}", Some("https://a.b/sign_up")),
        ("{{ base }}{% if env.HOST %}!{% endif %}", Some("v1!")),
        ("{{ file('/run/secrets/token') | trim }}", Some("s3cret")),
        ("{{ tables.events[event] }}", None),
        ("{{ who }}", None),
        ("{{ now }}", None),
        ("x", Some("x")),
    ] {
        assert_eq!(fold(template).as_constant().and_then(Value::as_str), constant, "{template}");
    }
    assert_eq!(fold("https://{{ env.HOST }}/{{ userId }}/x").constant_prefix(), "https://a.b/");
    assert_eq!(fold("https://{% if userId %}a{% endif %}").constant_prefix(), "https://");
    assert_eq!(fold("{{ userId }}/x").constant_prefix(), "");
    assert!(fold("{{ env.NONE }}").as_constant().unwrap().is_undefined());
    assert!(fold("{{ env.NONE }}").is_value() && fold("{{ userId }}").is_value() && !fold("a{{ userId }}").is_value());
    let error = parse("a{{ env.NONE }}").fold(&file, &[]).unwrap_err();
    assert_eq!((error.range, error.message.contains("is missing inside text")), (Some(4..12), true));
}

// === names ===

#[test]
fn names_are_listed_with_their_bytes() {
    for (template, names) in [
        ("{{ env.TOKEN }}", "env.TOKEN"),
        ("{{ env['TOKEN'] }}", "env.TOKEN"),
        ("é {{ traits.email | lower | replace('a', b) }}", "traits.email b"),
        ("{{ tables.events[event] or event | snake }}", "tables.events? event event"),
        ("{{ coalesce(userId, traits.email | lower, [context.x]) }}", "userId? traits.email? context.x?"),
        ("{{ a.b | default(c) }} {{ (a | trim) | d('x') }}", "a.b? c a?"),
        ("{{ x if y.z and y.z > 1 else y.z }}", "x y.z? y.z? y.z?"),
        ("{{ 'in a string: userId' ~ \"x.y\" }}", ""),
        ("{{ items | map(attribute='event') }}", "items"),
        ("{{ x is defined and y is not none and z is divisibleby n }}", "x? y? z? n"),
        ("{{ object(plan=traits.plan) }}", "traits.plan"),
        ("{{ a.method(b) }}", "a b"),
        ("{{ {'key': value, k: 1} }}", "value k"),
        ("{{ products[0].name }} {{ products.0.name }}", "products products"),
        (
            "{% for p in properties.products %}{{ p.name }}{{ loop.index }}{{ q }}{% endfor %}{{ p }}",
            "properties.products q p",
        ),
        ("{% for k, v in a | items if v %}{{ k }}{% endfor %}", "a"),
        ("{% set x = y.z %}{{ x }}{% set w %}{{ u }}{% endset %}{{ w }}", "y.z u"),
        ("{% with a = b, c = 1 %}{{ a }}{{ c }}{% endwith %}{{ c }}", "b c"),
        ("{% macro m(a, b=d) %}{{ a }}{{ b }}{{ e }}{% endmacro %}{{ m(f) }}", "d e f"),
        ("{% if a.b %}{{ a.b }}{% elif c %}{% else %}{{ d }}{% endif %}", "a.b? a.b? c? d"),
        ("{% raw %}{{ x }}{% endraw %}{# {{ y }} #}{{ z }}", "z"),
        ("{% filter upper %}{{ a }}{% endfilter %}", "a"),
        ("{{ not a }}{{ a2 }}", "a? a2"),
        ("{{ None }}{{ True }}{{ false }}", ""),
    ] {
        assert_eq!(used(template).join(" "), names, "{template}");
    }
    let template = parse("é {{ traits . email }}");
    assert_eq!(template.names()[0].range, 6..20);
}

#[test]
fn the_roots_are_those_that_the_engine_finds() {
    for template in [
        "{{ {'page': 'page_view'}[type] or tables.ga4_events[event] or event | snake | clip(40) }}",
        "{% for p in properties.products %}{{ p.quantity | default(1) }} × {{ p.name | default(p.sku) }}{% endfor %}{{ who }}",
        "{{ coalesce(properties.fbc, 'fb.1.' ~ (timestamp | unix_ms) ~ '.' ~ properties.fbclid if properties.fbclid) }}",
        "{% set a = b %}{% with c = d %}{{ c ~ a ~ e }}{% endwith %}",
        "{% macro m(x) %}{{ x ~ y }}{% endmacro %}{{ m(z) }}",
    ] {
        let ours: std::collections::BTreeSet<String> =
            parse(template).names().into_iter().map(|name| name.path.split('.').next().unwrap().to_owned()).collect();
        let mut environment = ENVIRONMENT.clone();
        environment.add_template("t", template).unwrap();
        let engine = environment.get_template("t").unwrap().undeclared_variables(false);
        let engine: std::collections::BTreeSet<String> =
            engine.into_iter().filter(|name| !functions::is_function(name)).collect();
        assert_eq!(ours, engine, "{template}");
    }
}

#[test]
fn files_are_listed_with_the_bytes_of_their_paths() {
    let files = parse("é{{ file('/a') }}{{ coalesce(x, file(\"/b\") | trim) }}{{ file(userId) }}").files();
    let files: Vec<(&str, Range<usize>)> = files.iter().map(|file| (file.path.as_str(), file.range.clone())).collect();
    assert_eq!(files, [("/a", 10..14), ("/b", 38..42)]);
    assert_eq!(eval("{{ file('/none') }}", "{}"), "error: file `/none` was not read; its path must be constant text");
}

// === the shipped examples ===

/// An event, the `let`s in force, and what expressions of `examples/configs` come to.
struct Shipped {
    event: &'static str,
    lets: &'static [(&'static str, &'static str)],
    fields: &'static [(&'static str, &'static str)],
}

const META: Shipped = Shipped {
    event: r#"{"type":"track","event":"Order Completed","messageId":"m1","userId":"u1","timestamp":"2026-01-02T03:04:05.678Z",
      "properties":{"order_id":"o1","total":"9.50","currency":"EUR","fbclid":"abc","products":[{"product_id":"p1","price":4.75,"quantity":2}]},
      "context":{"ip":"8.8.8.8","page":{"url":"https://x/y"},"traits":{"email":" Jane.Doe@Example.com ","phone":"+1 (415) 555-1234","firstName":"Jane"}}}"#,
    lets: &[
        ("email", "{{ coalesce(traits.email, context.traits.email, properties.email) | trim | lower }}"),
        ("phone", "{{ coalesce(traits.phone, context.traits.phone, properties.phone) | digits }}"),
        ("p", "{{ context.traits or {} }}"),
    ],
    fields: &[
        ("{{ tables.events[event] | default(event) }}", r#""Order Completed""#),
        ("{{ timestamp | unix }}", "1767323045"),
        ("{{ 'website' if context.page.url else 'app' if context.app else 'other' }}", r#""website""#),
        ("{{ email | sha256 | list }}", r#"["86e0b9e56c17cc4d12387e1949b85053fbe73bc3ce5a1188713a9d300cc6133d"]"#),
        ("{{ phone | sha256 | list }}", r#"["c6a349dfaaf5c3a368d3135014cc1bc7aebf18f654f313f9c1d0b018a897b209"]"#),
        ("{{ p.lastName | trim | lower | sha256 }}", ""),
        ("{{ p.address.city | lower | replace(' ', '') | sha256 if p.address.city }}", ""),
        ("{{ p.address.country | trim | lower | sha256 }}", ""),
        (
            "{{ coalesce(properties.fbc, 'fb.1.' ~ (timestamp | unix_ms) ~ '.' ~ properties.fbclid if properties.fbclid) }}",
            r#""fb.1.1767323045678.abc""#,
        ),
        ("{{ coalesce(properties.value, properties.total, properties.revenue, properties.price) | number }}", "9.5"),
        ("{{ properties.currency or 'USD' }}", r#""EUR""#),
        (
            "{{ coalesce(properties.products | map(attribute='product_id') | list, properties.product_id | list) }}",
            r#"["p1"]"#,
        ),
        ("{{ properties.products | length if properties.products }}", "1"),
        ("{{ env.META_TEST_EVENT_CODE | default('') }}", r#""""#),
    ],
};

const META_WITHOUT_PRODUCTS: Shipped = Shipped {
    event: r#"{"type":"track","event":"Signed Up","properties":{"product_id":"p9"}}"#,
    lets: META.lets,
    fields: &[
        (META.fields[0].0, r#""sign_up""#),
        (META.fields[3].0, ""),
        (META.fields[8].0, ""),
        (META.fields[9].0, ""),
        (META.fields[11].0, r#"["p9"]"#),
        (META.fields[12].0, ""),
    ],
};

const CUSTOMERIO: Shipped = Shipped {
    event: r#"{"type":"identify","messageId":"m1","userId":"u/1","anonymousId":"a1","timestamp":"2026-01-02T03:04:05Z","traits":{"plan":"pro","email":"a@b.c","createdAt":"2025-01-01T00:00:00Z"},"context":{"device":{"type":"iOS"}}}"#,
    lets: &[
        ("id", "{{ coalesce(userId, traits.email if type == 'identify', context.traits.email) | text }}"),
        ("at", "{{ timestamp | unix }}"),
        ("ulid", "0{{ messageId | md5 | upper | clip(25) }}"),
    ],
    fields: &[
        ("{{ id }}", r#""u/1""#),
        ("{{ not id }}", "false"),
        ("{{ {'email': id} if '@' in id else {'id': id} }}", r#"{"id":"u/1"}"#),
        ("{{ ulid }}", r#""0AE7BE26CDAA742CA148068D5A""#),
        ("{{ traits | omit('createdAt') }}", r#"{"plan":"pro","email":"a@b.c"}"#),
        ("{{ coalesce(traits.created_at, traits.createdAt) | unix }}", "1735689600"),
        ("{{ at }}", "1767323045"),
        ("{{ context.device.type | lower }}", r#""ios""#),
        ("{{ properties or {} }}", "{}"),
        ("{{ properties.url or name }}", ""),
        ("{{ previousId }}", ""),
        ("{{ groupId | required }}", "error: `groupId` is required, but missing"),
    ],
};

const GA4: Shipped = Shipped {
    event: r#"{"type":"track","event":"Lesson finished","anonymousId":"a1","timestamp":"2026-01-02T03:04:05.678Z","properties":{"order_id":"o1","coupon":"X","total":"9.50","products":[]},"context":{"page":{"url":"https://x/y"},"traits":{"plan":"pro","secret":"no"}}}"#,
    lets: &[],
    fields: &[
        ("{{ anonymousId or userId }}", r#""a1""#),
        ("{{ (timestamp | unix_ms) * 1000 }}", "1767323045678000"),
        ("{{ context.traits | pick('plan', 'company') | wrap('value') }}", r#"{"plan":{"value":"pro"}}"#),
        (
            "{{ {'page': 'page_view', 'screen': 'screen_view'}[type] or tables.events[event] or event | snake | clip(40) }}",
            r#""lesson_finished""#,
        ),
        ("{{ properties | omit('products', 'order_id', 'total', 'title', 'url') }}", r#"{"coupon":"X"}"#),
        ("{{ properties.currency or 'USD' if type == 'track' and properties.products }}", ""),
        ("{{ context.page.url | clip(9) }}", r#""https://x""#),
        ("{{ context.page.title | clip(300) }}", ""),
        ("{{ anonymousId or userId }}/{{ userId | default('') }}", r#""a1/""#),
    ],
};

const MIXPANEL: Shipped = Shipped {
    event: r#"{"type":"page","name":"Home","messageId":"m1","anonymousId":"a1","traits":{"firstName":"A","lastName":"B","plan":"pro"}}"#,
    lets: &[("who", "{{ userId or anonymousId }}")],
    fields: &[
        ("{{ event if type == 'track' else 'Viewed ' ~ coalesce(name, properties.title, type) }}", r#""Viewed Home""#),
        ("{{ who | required }}", r#""a1""#),
        ("{{ messageId | md5 }}", r#""ae7be26cdaa742ca148068d5ac90eaca""#),
        (
            "{{ coalesce(traits.name, traits.firstName ~ ' ' ~ traits.lastName if traits.firstName and traits.lastName) }}",
            r#""A B""#,
        ),
        ("{{ context.campaign.name }}", ""),
    ],
};

const BRAZE: Shipped = Shipped {
    event: r#"{"type":"identify","anonymousId":"a1","properties":{},"traits":{"email":"a@b.c","firstName":"A","gender":"female"}}"#,
    lets: &[(
        "who",
        "{{ {'external_id': userId} if userId else {'user_alias': {'alias_name': anonymousId, 'alias_label': 'anonymous'}} }}",
    )],
    fields: &[
        ("{{ who.user_alias.alias_name }}", r#""a1""#),
        ("{{ traits | omit('firstName', 'lastName', 'birthday', 'gender') }}", r#"{"email":"a@b.c"}"#),
        ("{{ traits.gender | lower | first | upper if traits.gender }}", r#""F""#),
        ("{{ properties.quantity | default(1) | number }}", "1"),
        ("{{ properties.price | number }}", ""),
    ],
};

const SLACK: Shipped = Shipped {
    event: r#"{"type":"track","event":"Order Completed","userId":"u1","properties":{"total":950.499,"currency":"EUR","products":[{"name":"Mug","quantity":2},{"sku":"s-2"}]},"context":{"traits":{"name":"Jane"}}}"#,
    lets: &[("who", "{{ coalesce(context.traits.name, context.traits.email, userId, 'someone') }}")],
    fields: &[
        (
            ":moneybag: *{{ who }}* ordered for *{{ properties.total | round(2) }} {{ properties.currency }}*\n{%- for p in properties.products %}\n• {{ p.quantity | default(1) }} × {{ p.name | default(p.sku) }}\n{%- endfor %}\n",
            r#"":moneybag: *Jane* ordered for *950.5 EUR*\n• 2 × Mug\n• 1 × s-2""#,
        ),
        (
            ":wave: {{ who }} signed up ({{ properties.plan | default('no plan') }})",
            r#"":wave: Jane signed up (no plan)""#,
        ),
    ],
};

const ROWS: Shipped = Shipped {
    event: r#"{"type":"track","event":"A","messageId":"m1","timestamp":"2026-01-02T03:04:05Z","properties":{"total":9.5,"tags":["<a>"]},"traits":null}"#,
    lets: &[],
    fields: &[
        ("{{ (properties or {}) | json }}", r#""{\"total\":9.5,\"tags\":[\"<a>\"]}""#),
        ("{{ (traits or {}) | json }}", r#""{}""#),
        ("{{ userId }}", ""),
        ("{{ userId | default('') }}", r#""""#),
        ("events-{{ timestamp | date('%Y.%m') }}", r#""events-2026.01""#),
    ],
};

const BULK_ITEM: Shipped = Shipped {
    event: r#"{"status":429}"#,
    lets: &[],
    fields: &[(
        "{{ 'ok' if message.status < 300 or message.status == 409 else 'retry' if message.status == 429 or message.status >= 500 else 'dead' }}",
        r#""retry""#,
    )],
};

#[test]
fn the_shipped_examples_come_to_what_their_tests_expect() {
    for shipped in [META, META_WITHOUT_PRODUCTS, CUSTOMERIO, GA4, MIXPANEL, BRAZE, SLACK, ROWS, BULK_ITEM] {
        let lets = shipped.lets.iter().map(|(name, template)| ((*name).to_owned(), parse(template))).collect();
        let scope = scope_of(Names { lets, ..names() }, shipped.event);
        for (template, json) in shipped.fields {
            assert_eq!(eval_in(template, &scope), *json, "{template}");
        }
    }
}

// === mistakes ===

fn mistakes(template: &str) -> Vec<(String, String, Option<String>)> {
    let mistakes = Template::parse(template).unwrap_err();
    mistakes.into_iter().map(|mistake| (template[mistake.range].to_owned(), mistake.message, mistake.help)).collect()
}

#[test]
fn mistakes_point_at_the_exact_bytes() {
    for (template, at, message, help) in [
        ("é {{ properties.x | sha265 }}", "sha265", "unknown filter `sha265`", Some("did you mean `sha256`?")),
        ("{{ x is definde }}", "definde", "unknown test `definde`", Some("did you mean `defined`?")),
        ("{{ coalesc(a, b) }}", "coalesc", "unknown function `coalesc`", Some("did you mean `coalesce`?")),
        ("{{ x | zzzzzzzz }}", "zzzzzzzz", "unknown filter `zzzzzzzz`", None),
        ("{{ x | map('uper') }}", "uper", "unknown filter `uper`", Some("did you mean `upper`?")),
        ("{{ x | select('nun') }}", "nun", "unknown test `nun`", None),
        ("{% filter uper %}{% endfilter %}", "uper", "unknown filter `uper`", Some("did you mean `upper`?")),
        ("é \"quoted\" {{ traits.email | }}", "|", "unexpected end of input, expected identifier", None),
        ("{{ a b }}", "b", "unexpected input after expression", None),
        ("{{ [1] * 100 }}", "]", "a list cannot be repeated", None),
        ("{{ x[1] * 100 + 3 * [x] }}", "[", "a list cannot be repeated", None),
        ("a {{ b", "{{", "`{{` is never closed", None),
        ("a {% if x }} {% endif %}", "{%", "`{%` is never closed", None),
        ("{% for x %}{% endfor %}", "%}", "unexpected end of block, expected in", None),
    ] {
        let found = mistakes(template);
        assert_eq!(found.len(), 1, "{template}: {found:?}");
        let (place, text, hint) = &found[0];
        assert_eq!((place.as_str(), text.as_str(), hint.as_deref()), (at, message, help), "{template}");
    }
}

#[test]
fn several_mistakes_are_reported_at_once() {
    assert_eq!(mistakes("{{ a | sha265 }} {{ b | sha266 }}").len(), 2);
    assert_eq!(mistakes("{{ a | }} {{ b + }} {{ c | sha265 }}{{ [1] * 2 }}").len(), 4);
}

#[test]
fn constant_patterns_and_formats_are_checked() {
    let pattern = mistakes(r"{{ x | regex_replace('[', '') }}");
    assert_eq!(pattern[0].0, "'['");
    assert!(pattern[0].1.starts_with("not a regular expression: "), "{pattern:?}");
    let format = mistakes("{{ x | date('%Ä') }}");
    assert_eq!(format[0].0, "'%Ä'");
    assert!(format[0].1.starts_with("not a date format: "), "{format:?}");
}

#[test]
fn an_error_says_where_and_keeps_the_event_to_itself() {
    let secret = "s".repeat(500);
    let event = format!(r#"{{"properties":{{"total":"{secret}"}}}}"#);
    let error = parse("é{{ properties.total | number }}").value(&scope(&event)).unwrap_err();
    assert_eq!(error.range.as_ref().map(|range| &"é{{ properties.total | number }}"[range.clone()]), Some("number"));
    assert!(error.message.len() < 100, "{error}");
    let error = text_error("x{{ fail('because ' ~ userId) }}", r#"{"userId":"u1"}"#);
    assert_eq!(error.message, "because u1");
}

// === bounds ===

#[test]
fn bombs_are_stopped_quickly() {
    let event = format!(r#"{{"properties":{{"one":[1],"many":[1,2,3,4,5,6,7,8,9,0],"x":"{}"}}}}"#, "ab".repeat(10_000));
    for bomb in [
        "{{ properties.one * 9000000 }}",
        "{{ [properties.one * 9000000] }}",
        "x{{ properties.many * 9000000 }}",
        "{{ (properties.many * 9000000) ~ '' }}",
        "{{ properties.one * 9000000 | list }}",
        "{{ (properties.many * 9000000) | compact }}",
        "{{ (properties.many * 9000000) | join('x') }}",
        "{{ (properties.many * 9000000) | json }}",
        "{{ (properties.many * 9000000) | text | sha256 }}",
        "{{ (properties.many * 9000000) | string }}",
        "{{ (properties.many * 9000000) | map('upper') }}",
        "{{ (properties.many * 9000000) | number }}",
        "{{ [properties] | map('list') | list * 9000000 }}",
        "{{ [1] * 100000000 }}",
        "{{ [properties] * 100000 }}",
        "{{ {'a': [1] * 100000000} }}",
        "{{ [1] * 100000000 | list }}",
        "{{ ([1] * 100000000) | list }}",
        "{{ ([1] * 100000000) | compact }}",
        "{{ ([1] * 100000000) | join('x') }}",
        "{{ ([1] * 100000000) | json }}",
        "{{ ([1] * 100000000) | text | sha256 }}",
        "{{ ([1] * 100000000) | first ~ ([2] * 100000000) }}",
        "x{{ [1] * 100000000 }}",
        "{{ 'x' * 99999999 }}",
        "{{ ('x' * 1000) | replace('x', 'y' * 10000) }}",
        "{{ properties.x | regex_replace('', properties.x) }}",
        "{{ properties.x | regex_replace('a', 'b' * 1000) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for a in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}{% for a in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ ''.join(range(9)) }}",
        "{{ '%99999999d' | format(1) }}",
        "{{ ('x\n' * 10000) | indent(100000) }}",
        "{{ properties.x | regex_replace('(a{100}){1000}b', '') }}",
    ] {
        let started = Instant::now();
        let result =
            Template::parse(bomb).map(|template| template.write_json(&scope(&event), Omit::Nothing, &mut Vec::new()));
        assert!(!matches!(result, Ok(Ok(_))), "{bomb}");
        assert!(started.elapsed().as_millis() < 10_000, "{bomb}: {:?}", started.elapsed());
    }
}

#[test]
fn an_event_larger_than_the_cap_passes_through() {
    let event = format!(r#"{{"properties":{{"x":"{}"}}}}"#, "x".repeat(2 << 20));
    assert!(eval("{{ properties }}", &event).len() > 2 << 20);
    assert!(eval("{{ properties.x }}", &event).len() > 2 << 20);
    assert_eq!(eval("{{ [properties] }}", &event), format!("error: output is larger than {OUTPUT_MAX_BYTES} bytes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics_and_ranges_are_inside(text in "[{}%#a-c.|()'\"é =\\[\\]1-]{0,24}") {
        match Template::parse(&text) {
            Ok(template) => {
                for name in template.names() {
                    prop_assert!(text.get(name.range).is_some());
                }
                drop(template.value(&scope("{}")));
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    prop_assert!(text.get(mistake.range.clone()).is_some(), "{mistake:?}");
                }
            }
        }
    }

    #[test]
    fn what_an_event_holds_comes_out_as_it_went_in(json in any_json()) {
        let event = serde_json::json!({ "properties": json });
        let written = serde_json::to_string(&json).unwrap();
        prop_assert_eq!(eval("{{ properties }}", &event.to_string()), written.clone());
        prop_assert_eq!(eval("{{ [properties] }}", &event.to_string()), format!("[{written}]"));
        prop_assert_eq!(eval("{{ coalesce(none, [properties])[0] }}", &event.to_string()), written);
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((".{0,4}", inner), 0..4)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

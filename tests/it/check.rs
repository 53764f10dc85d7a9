//! What `--check` finds: every file in `tests/fixtures/config` beside the picture that a person gets to see.
//!
//! `good-*.toml` compile without a word, `odd-*.toml` with warnings, all others do not compile. What begins with
//! `assumed-` is compiled without variables, which are assumed to be set; with `vercel-`, for a Vercel Function. Notes are
//! shown of those called `notes` alone. After a change that is
//! meant to show, `UPDATE_FIXTURES=1 cargo test check` writes the pictures anew; read them before committing.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use libroseg::config::{self, Diagnostic, Environment, Style, Target, Unset};

const VARIABLES: [(&str, &str); 17] = [
    ("WRITE_KEY", "the-write-key"),
    ("WRITE_KEY_COPY", "the-write-key"),
    ("CRM_URL", "https://crm.example.com/api"),
    ("CRM_TOKEN", "the-crm-token"),
    ("CRM_USER", "the-crm-user"),
    ("INSECURE_URL", "http://crm.example.com"),
    ("LINES", "the-first-line\nthe-second-line"),
    ("BASE64", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("HEX", "00112233445566778899AABBccddeeff"),
    ("GOOGLE", include_str!("../fixtures/auth/service-account.json")),
    ("GOOGLE_USER", r#"{ "type": "authorized_user", "client_id": "the-person" }"#),
    ("GOOGLE_HALF", r#"{ "type": "service_account", "private_key": "half-a-key" }"#),
    ("GOOGLE_BROKEN", r#"{ "type": "service_account", "client_email": "a@b.c", "private_key": "no-key" }"#),
    ("GOOGLE_TYPELESS", r#"{ "type": "the-secret-itself" }"#),
    ("GOOGLE_ELSEWHERE", r#"{ "type": "service_account", "private_key": "no-key", "token_uri": "ftp://secret" }"#),
    ("GOOGLE_FILE", include_str!("../fixtures/auth/external-file.json")),
    ("EMPTY", ""),
];

fn read_file(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("/run/secrets/crm") => Ok("the-secret-of-a-file\n".to_owned()),
        Some("wrong.schema.json") => Ok(r#"{ "properties": { "a": { "type": "nunber" } } }"#.to_owned()),
        Some("/home/jane/.config/gcloud/application_default_credentials.json") => credentials("user"),
        Some("/run/gcloud/application_default_credentials.json") => credentials("external-user"),
        Some("/run/gcloud-half/application_default_credentials.json") => credentials("no-type"),
        Some(path) if path.starts_with("/run/google/") => credentials(&path["/run/google/".len()..]),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
    }
}

/// Credentials of Google's, right and wrong.
fn credentials(name: &str) -> io::Result<String> {
    let all: serde_json::Value = serde_json::from_str(include_str!("../fixtures/auth/google.json"))?;
    all.get(name).map(ToString::to_string).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Compiles a text the way the fixture's name says.
pub(crate) fn compile(name: &str, text: &str) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let variables: BTreeMap<_, _> = VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mut environment = Environment { variables, read_file: &read_file, ..Environment::default() };
    if name.starts_with("assumed-") {
        environment = Environment { unset: Unset::Assumed, ..Environment::default() };
    }
    if name.starts_with("vercel-") {
        environment.target = Target::Vercel { duration_max: Target::VERCEL_DURATION };
    }
    let with_notes = name.contains("notes");
    let notes = |compiled: config::Compiled| if with_notes { compiled.notes } else { compiled.warnings };
    config::compile(text, &environment).map(notes)
}

pub(crate) fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 30, "the fixtures are there");
    files
}

pub(crate) fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn every_mistake_is_drawn_as_expected() {
    let is_update = env::var_os("UPDATE_FIXTURES").is_some();
    let mut wrong = Vec::new();
    for path in fixtures() {
        let text = fs::read_to_string(&path).unwrap();
        let found = compile(name(&path), &text).unwrap_or_else(|errors| errors);
        let picture = config::draw(name(&path), &text, &found, Style::Plain, 120);
        let expected_path = path.with_extension("txt");
        if is_update {
            fs::write(&expected_path, &picture).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if picture != expected {
            wrong.push(format!("--- {}: expected\n{expected}\n--- found\n{picture}", name(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_name_of_a_fixture_says_whether_it_compiles() {
    for path in fixtures() {
        let name = name(&path);
        let result = compile(name, &fs::read_to_string(&path).unwrap());
        let kind = name.trim_start_matches("assumed-").trim_start_matches("vercel-");
        let is_as_named = match &result {
            Ok(warnings) if warnings.is_empty() => kind.starts_with("good-"),
            Ok(_) => kind.starts_with("odd-"),
            Err(_) => !kind.starts_with("good-") && !kind.starts_with("odd-"),
        };
        assert!(is_as_named, "{name}: {result:?}");
    }
}

#[test]
fn no_diagnostic_tells_the_value_of_a_variable_or_a_file() {
    for path in fixtures() {
        let text = fs::read_to_string(&path).unwrap();
        let told = format!("{:?}", compile(name(&path), &text));
        for (_, value) in VARIABLES.iter().filter(|(_, value)| !value.is_empty()) {
            assert!(!told.contains(value), "{}: {value}", name(&path));
        }
        assert!(!told.contains("the-secret-of-a-file"), "{}", name(&path));
    }
}

#[test]
fn places_lie_in_the_file_and_suggestions_can_be_applied() {
    for path in fixtures() {
        let text = fs::read_to_string(&path).unwrap();
        for diagnostic in compile(name(&path), &text).unwrap_or_else(|errors| errors) {
            assert!(text.get(diagnostic.span.clone()).is_some(), "{}: {diagnostic:?}", name(&path));
            let Some(suggestion) = &diagnostic.suggestion else { continue };
            let mut mended = text.clone();
            mended.replace_range(suggestion.span.clone(), &suggestion.replacement);
            let after = compile(name(&path), &mended).unwrap_or_else(|errors| errors);
            let is_still_there =
                |other: &Diagnostic| other.span == diagnostic.span && other.message == diagnostic.message;
            assert!(!after.iter().any(is_still_there), "{}: {diagnostic:?}", name(&path));
        }
    }
}

#[test]
fn half_a_file_never_makes_the_compiler_panic() {
    for path in fixtures() {
        let text = fs::read_to_string(&path).unwrap();
        let steps = (text.len() / 60).max(1);
        for end in (0..text.len()).step_by(steps).filter(|end| text.is_char_boundary(*end)) {
            let half = &text[..end];
            let found = compile(name(&path), half).unwrap_or_else(|errors| errors);
            let _ = config::draw("half.toml", half, &found, Style::Ansi, 80);
        }
    }
}

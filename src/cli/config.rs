//! `libroseg config`: what is in force, key by key, and where each value comes from.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{DONE, UNABLE, WRONG, serve};
use crate::config::{self, Effective, Environment, Origin, Setting, Style, Unset};
use crate::plan::Plan;
use crate::reload;

pub(super) const EXAMPLES: &str = "\
Templates are shown as they are written, never what they give; secrets pasted into the file are shown as ***.

Exit codes: 0 told, 1 the file is wrong, 2 it cannot be read, or there is no such destination.

Examples:
  libroseg config                                 everything, as TOML with origins
  libroseg config --no-defaults                   only what somebody wrote
  libroseg config --destination mixpanel          what extends = \"mixpanel\" comes to
  libroseg config prod.toml --format json | jq '.settings[] | select(.origin.preset)'";

/// What to show, and how.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// The file [default: the configuration file]
    file: Option<PathBuf>,

    /// How to show it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,

    /// Only this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,

    /// Leave out what holds without being written
    #[arg(long)]
    no_defaults: bool,

    #[command(flatten)]
    serve: serve::Options,
}

/// How what is in force is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// TOML, with the origin of each value behind it
    #[default]
    Toml,
    /// One JSON document
    Json,
}

/// Shows what is in force. Answers the exit code.
pub(super) fn run(config: &Path, options: &Options, variables: &BTreeMap<String, String>) -> u8 {
    let path = options.file.as_deref().unwrap_or(config);
    let (text, plan) = match read(path, variables) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let mut effective = Effective::of(&text);
    effective.note_disabled(&plan.disabled);
    give_listen(&mut effective, &plan, options, variables);
    if options.no_defaults {
        effective.leave_out_defaults();
    }
    if let Some(name) = &options.destination {
        effective.sections.retain(|section| section.destination.as_deref() == Some(name));
        if effective.sections.is_empty() {
            super::note(format_args!("error: {} has no destination `{name}`", path.display()));
            return UNABLE;
        }
    }
    let name = path.display().to_string();
    let answer = match options.format {
        Format::Toml => effective.toml(&name),
        Format::Json => format!("{:#}\n", json(&name, &effective, &plan)),
    };
    // A reader that left early has seen enough.
    let _ = io::stdout().write_all(answer.as_bytes());
    DONE
}

/// The text and the plan. Where variables are not set the plan is made as if they were: templates are all that is shown.
fn read(path: &Path, variables: &BTreeMap<String, String>) -> Result<(String, Plan), u8> {
    let compiled = |unset| {
        let environment = Environment { unset, ..reload::environment(variables.clone()) };
        reload::check(path, &environment).map_err(|error| serve::told(&error))
    };
    let (text, result) = match compiled(Unset::Mistake)? {
        (text, Ok(compiled)) => (text, Ok(compiled)),
        (_, Err(_)) => compiled(Unset::Assumed)?,
    };
    match result {
        Ok(compiled) => Ok((text, compiled.plan)),
        Err(mistakes) => {
            let name = path.display().to_string();
            super::note(config::draw(&name, &text, &mistakes, Style::Plain, super::width()));
            super::note(format_args!("error: {name} is wrong"));
            Err(WRONG)
        }
    }
}

/// `PORT` and `--listen` have the last word on where to listen.
fn give_listen(effective: &mut Effective, plan: &Plan, options: &Options, variables: &BTreeMap<String, String>) {
    let port = variables.get("PORT").map(String::as_str);
    let listen = serve::listen_address(&plan.server.listen, port, options.serve.listen.as_deref());
    let by = if options.serve.listen.is_some() { "--listen" } else { "PORT" };
    if options.serve.listen.is_some() || port.is_some() {
        effective.give("server.listen", &listen, by);
    }
}

fn json(name: &str, effective: &Effective, plan: &Plan) -> Value {
    let settings: Vec<Value> = effective
        .sections
        .iter()
        .flat_map(|section| &section.settings)
        .map(|setting| json!({ "key": setting.path, "value": setting.json, "origin": origin(name, setting) }))
        .collect();
    let off: serde_json::Map<String, Value> =
        plan.disabled.iter().map(|disabled| (disabled.name.to_string(), disabled.why.clone().into())).collect();
    json!({ "file": name, "settings": settings, "off": off })
}

fn origin(name: &str, setting: &Setting) -> Value {
    let told = setting.origin.told(&setting.path, name);
    match &setting.origin {
        Origin::Default | Origin::Given(_) => json!({ "told": told }),
        Origin::Written(place) => {
            let (kind, file) = place.preset.map_or(("file", name), |preset| ("preset", preset));
            json!({ "told": told, kind: file, "line": place.line, "column": place.column, "key": place.path })
        }
    }
}

//! What lies under a destination: the one that it `extends`, what that one extends, a preset at last, `[defaults]`.
//!
//! A destination of the file extends another of the file, or a preset. A preset's `[let]` and `[tables]` come along with
//! its destination; its `[server]`, `[sources]`, `[queue]` and `[[tests]]` are its own.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::destination;
use super::diagnostic::Diagnostic;
use super::findings::{Findings, path_of};
use super::merge;
use super::presets::{self, PRESETS, Preset};
use super::spelling::nearest;
use super::table::type_name;
use super::texts::Texts;

/// How many others a destination may stand on: nobody understands more, and it is laid over each of them.
const LAYERS_MAX: usize = 16;

/// The file and the presets that it reaches, parsed.
pub(super) struct Layers<'a> {
    file: &'a DeTable<'a>,
    presets: Vec<(&'static Preset, DeTable<'a>)>,
}

/// A destination with all that lies under it.
pub(super) struct Layered<'l, 'a> {
    /// Its keys in force. `extends` is none of them any more.
    pub entries: DeTable<'a>,
    /// The tables that its expressions see.
    pub tables: Cow<'l, DeTable<'a>>,
    /// The `extends` of the file behind which a preset begins: a mistake in the preset is told there.
    pub extended_at: Option<Range<usize>>,
    /// Whether what it extends is not there: then nothing can be called missing.
    pub is_torn: bool,
}

/// A destination, in the file or in a preset.
#[derive(Clone, Copy)]
struct Link<'l, 'a> {
    /// The preset that it stands in; `None`: the file.
    preset: Option<&'static Preset>,
    name: &'l str,
    table: &'l DeTable<'a>,
}

/// Why a destination does not extend what it says.
enum Torn<'l> {
    /// There is no such destination and no such preset.
    Unknown,
    /// The preset has several destinations, none of which has its name.
    Several(&'static Preset, Vec<&'l str>),
}

// === impl Layers ===

impl<'a> Layers<'a> {
    /// The presets that a file reaches, directly or through other presets.
    pub(super) fn reached(file: &DeTable<'_>) -> Vec<&'static Preset> {
        let mut reached: Vec<&'static Preset> = Vec::new();
        let mut open = named_presets(file);
        while let Some(preset) = open.pop() {
            if reached.contains(&preset) {
                continue;
            }
            reached.push(preset);
            // Few presets stand on others, and to find that they do not is cheaper than to parse them for it.
            if preset.text.contains("extends") {
                let (document, _) = DeTable::parse_recoverable(preset.text);
                open.extend(named_presets(document.get_ref()));
            }
        }
        reached
    }

    /// A file over the presets that it reaches.
    pub(super) fn new(file: &'a DeTable<'a>, texts: &'a Texts) -> Self {
        let parse = |(preset, text): (_, &'a str)| (preset, DeTable::parse_recoverable(text).0.into_inner());
        Self { file, presets: texts.presets().map(parse).collect() }
    }

    /// Reports every `extends` that leads nowhere, or back to where it began.
    pub(super) fn check(&self, findings: &Findings<'_>) {
        if let Some((key, _)) = section(self.file, "defaults").and_then(|defaults| defaults.get_key_value("extends")) {
            let message = "`extends` belongs into a destination, not into [defaults]";
            findings.add(Diagnostic::error(Code::MisplacedKey, key.span(), message));
        }
        let mut told = BTreeSet::new();
        for link in self.of_file() {
            let Some(extends) = link.table.get("extends") else { continue };
            let DeValue::String(name) = extends.get_ref() else {
                let message = format!("`extends` must be a name, not {}", type_name(extends.get_ref()));
                findings.add(Diagnostic::error(Code::WrongType, extends.span(), message));
                continue;
            };
            if let Err(torn) = self.next(&link, name) {
                findings.add(self.torn(&link, name, extends.span(), &torn));
            }
            self.check_cycle(&link, extends.span(), &mut told, findings);
            if self.chain(link).len() > LAYERS_MAX {
                let message = format!("`{}` stands on {LAYERS_MAX} others or more", link.name);
                findings.add(Diagnostic::error(Code::ExtendsCycle, extends.span(), message));
            }
        }
    }

    fn torn(&self, link: &Link<'_, 'a>, name: &str, span: Range<usize>, torn: &Torn<'_>) -> Diagnostic {
        let error = |message: String| Diagnostic::error(Code::UnknownExtends, span.clone(), message);
        match torn {
            Torn::Several(preset, names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{}.{name}`", preset.name)).collect();
                error(format!("the preset `{name}` has several destinations"))
                    .help(format!("say which one: {}", names.join(", ")))
            }
            Torn::Unknown => {
                let error = error(format!("there is no destination and no preset `{name}`"));
                let destinations = self.of_file().map(|other| other.name).filter(|other| *other != link.name);
                let presets = || PRESETS.iter().map(|preset| preset.name);
                match nearest(name, destinations.chain(presets())) {
                    Some(near) => {
                        error.help(format!("did you mean `{near}`?")).suggest(span.clone(), format!("{near:?}"))
                    }
                    None => error.help(format!("the presets are {}", presets().collect::<Vec<_>>().join(", "))),
                }
            }
        }
    }

    /// Tells a way round once, at the first destination of the file that is on it.
    fn check_cycle<'l>(
        &'l self,
        link: &Link<'l, 'a>,
        span: Range<usize>,
        told: &mut BTreeSet<&'l str>,
        findings: &Findings<'_>,
    ) {
        let chain = self.chain(*link);
        let Some(back) = chain.last().and_then(|last| self.extended(last)) else { return };
        if back.name != link.name || back.preset.is_some() || told.contains(link.name) {
            return;
        }
        let way: Vec<String> = chain.iter().chain([link]).map(|link| format!("`{}`", link.name)).collect();
        let message = format!("`{}` extends itself: {}", link.name, way.join(" extends "));
        findings.add(Diagnostic::error(Code::ExtendsCycle, span, message));
        told.extend(chain.iter().map(|link| link.name));
    }

    /// The name of a place in a preset.
    pub(super) fn path_in(&self, preset: &Preset, span: &Range<usize>) -> String {
        self.document(Some(preset)).map(|document| path_of(document, span)).unwrap_or_default()
    }

    /// A destination of the file with all that lies under it.
    pub(super) fn of<'l>(&'l self, name: &'l str, own: &'l DeTable<'a>) -> Layered<'l, 'a> {
        let chain = self.chain(Link { preset: None, name, table: own });
        let mut entries = DeTable::new();
        for link in chain.iter().rev() {
            entries = merge::over_extended(&entries, &self.with_lets(link));
        }
        if let Some(defaults) = section(self.file, "defaults") {
            let skipped = destination::foreign_keys(defaults, &entries);
            entries = merge::over_defaults(defaults, &entries, &skipped);
        }
        entries.remove("extends");
        let bottom = chain.last().and_then(|last| last.table.get("extends").map(|_| self.extended(last)));
        let last_of_file = chain.iter().rfind(|link| link.preset.is_none());
        let extends = last_of_file.and_then(|link| link.table.get("extends"));
        Layered {
            entries,
            tables: self.tables(&chain),
            extended_at: extends.map(Spanned::span),
            is_torn: bottom.is_some_and(|next| next.is_none_or(|next| chain.iter().any(|link| link.is(&next)))),
        }
    }

    /// The destination, what it extends, and so on; a way round is walked once, and no way for long.
    fn chain<'l>(&'l self, first: Link<'l, 'a>) -> Vec<Link<'l, 'a>> {
        let mut chain = vec![first];
        while let Some(next) = chain.last().and_then(|last| self.extended(last)) {
            if chain.len() > LAYERS_MAX || chain.iter().any(|link| link.is(&next)) {
                break;
            }
            chain.push(next);
        }
        chain
    }

    fn extended<'l>(&'l self, link: &Link<'l, 'a>) -> Option<Link<'l, 'a>> {
        self.next(link, link.table.get("extends")?.get_ref().as_str()?).ok()
    }

    /// What a destination means by a name: another one beside it, else a preset.
    fn next<'l>(&'l self, link: &Link<'l, 'a>, name: &str) -> Result<Link<'l, 'a>, Torn<'l>> {
        let beside = self.destinations(link.preset);
        match beside.and_then(|beside| table_of(beside, name)).filter(|_| name != link.name) {
            Some((name, table)) => Ok(Link { preset: link.preset, name, table }),
            None => self.preset(name),
        }
    }

    /// A preset's destination: the one after the dot, the one called as the file, or the only one.
    fn preset<'l>(&'l self, name: &str) -> Result<Link<'l, 'a>, Torn<'l>> {
        let (preset, wanted) = preset_named(name).ok_or(Torn::Unknown)?;
        let destinations = self.destinations(Some(preset)).ok_or(Torn::Unknown)?;
        let link = |(name, table)| Link { preset: Some(preset), name, table };
        if let Some(wanted) = wanted {
            return table_of(destinations, wanted).map(link).ok_or(Torn::Unknown);
        }
        let names: Vec<&str> = destinations.keys().map(|key| key.get_ref().as_ref()).collect();
        let only = if let [only] = names.as_slice() { only } else { preset.name };
        table_of(destinations, only).map(link).ok_or(Torn::Several(preset, names))
    }

    fn of_file(&self) -> impl Iterator<Item = Link<'_, 'a>> {
        let destinations = self.destinations(None).into_iter().flatten();
        destinations.filter_map(|(name, value)| {
            Some(Link { preset: None, name: name.get_ref(), table: value.get_ref().as_table()? })
        })
    }

    fn document(&self, preset: Option<&Preset>) -> Option<&DeTable<'a>> {
        match preset {
            None => Some(self.file),
            Some(preset) => self.presets.iter().find(|(other, _)| *other == preset).map(|(_, document)| document),
        }
    }

    fn destinations(&self, preset: Option<&Preset>) -> Option<&DeTable<'a>> {
        section(self.document(preset)?, "destinations")
    }

    /// The destination's table; that of a preset with its file's `let`s under its own.
    fn with_lets(&self, link: &Link<'_, 'a>) -> DeTable<'a> {
        let document = self.document(link.preset).filter(|_| link.preset.is_some());
        let Some((key, lets)) = document.and_then(|document| document.get_key_value("let")) else {
            return link.table.clone();
        };
        let shared: DeTable<'a> = [(key.clone(), lets.clone())].into_iter().collect();
        merge::deep(&shared, link.table)
    }

    /// The file's tables over those of the presets on the way.
    fn tables(&self, chain: &[Link<'_, 'a>]) -> Cow<'_, DeTable<'a>> {
        let own = section(self.file, "tables");
        let mut below = DeTable::new();
        for preset in chain.iter().rev().filter_map(|link| link.preset) {
            let tables = self.document(Some(preset)).and_then(|document| section(document, "tables"));
            below = tables.map_or(below.clone(), |tables| merge::deep(&below, tables));
        }
        match own {
            Some(own) if below.is_empty() => Cow::Borrowed(own),
            Some(own) => Cow::Owned(merge::deep(&below, own)),
            None => Cow::Owned(below),
        }
    }
}

// === impl Link ===

impl Link<'_, '_> {
    fn is(&self, other: &Link<'_, '_>) -> bool {
        self.name == other.name && self.preset == other.preset
    }
}

fn section<'d, 'i>(document: &'d DeTable<'i>, key: &str) -> Option<&'d DeTable<'i>> {
    document.get(key)?.get_ref().as_table()
}

fn table_of<'d, 'i>(tables: &'d DeTable<'i>, name: &str) -> Option<(&'d str, &'d DeTable<'i>)> {
    let (key, value) = tables.get_key_value(name)?;
    Some((key.get_ref(), value.get_ref().as_table()?))
}

/// A preset by its name, or by its name and that of one of its destinations.
fn preset_named(name: &str) -> Option<(&'static Preset, Option<&str>)> {
    let dotted = || name.split_once('.').and_then(|(file, name)| Some((presets::preset(file)?, Some(name))));
    presets::preset(name).map(|preset| (preset, None)).or_else(dotted)
}

/// The presets that destinations of a document may mean.
fn named_presets(document: &DeTable<'_>) -> Vec<&'static Preset> {
    let destinations = section(document, "destinations").into_iter().flat_map(DeTable::values);
    let names = destinations.filter_map(|value| value.get_ref().as_table()?.get("extends")?.get_ref().as_str());
    names.filter_map(|name| preset_named(name).map(|(preset, _)| preset)).collect()
}

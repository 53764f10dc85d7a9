//! `[server]` and `[sources.NAME]`: how to listen, who may send.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::{Expressions, Switch, has_braces};
use super::table::{Field, Table};
use super::units;
use crate::event::SourceName;
use crate::plan::{Metrics, Network, Server, Tls};
use crate::segment::{Limits, Policy, RateLimit, Source, UnknownKey};

/// The least and the most a wait at the door may be.
pub(super) const WAITS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);

/// How long a shutdown may take.
pub(super) const SHUTDOWNS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

/// Connections at a time: a process may rarely have more.
pub(super) const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;

/// What a body may have: it is read into memory.
pub(super) const BODY_SIZES: RangeInclusive<u64> = 1_000..=1 << 30;

/// Events in a batch.
pub(super) const BATCH_EVENTS: RangeInclusive<u64> = 1..=1_000_000;

/// What an unknown write key hears.
pub(super) const UNKNOWN_KEYS: [(&str, UnknownKey); 2] =
    [("reject", UnknownKey::Reject), ("accept", UnknownKey::Accept)];

/// Where the door is.
const LISTEN: AddressWords =
    AddressWords { expected: "an address and a port", host: "0.0.0.0", examples: "\"0.0.0.0:8080\" or \"[::]:8080\"" };

/// Where `/metrics` is alone: it is for this machine unless the file says otherwise.
const METRICS: AddressWords = AddressWords {
    expected: "`true`, `false` or an address and a port",
    host: "127.0.0.1",
    examples: "\"127.0.0.1:9090\" or \"[::1]:9090\"",
};

/// Bytes of a socket's path: macOS has room for 104 with the zero at its end (`sun_path`), Linux for 108.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 103;

/// `[server]` in its two halves: how to listen, and what the door lets in.
#[derive(Default)]
pub(super) struct ServerReading {
    pub server: Server,
    pub limits: Limits,
    pub strict: bool,
    pub unknown_key: UnknownKey,
}

/// What messages about an address say.
struct AddressWords {
    expected: &'static str,
    /// What a port alone probably belongs to.
    host: &'static str,
    examples: &'static str,
}

/// One source and which destinations it is for.
pub(super) struct SourceReading {
    pub name: SourceName,
    /// Destinations; `None`: all.
    pub destinations: Option<Vec<String>>,
}

/// Reads `[server]`.
pub(super) fn server(expressions: &Expressions<'_>, field: Option<Field<'_>>) -> ServerReading {
    let mut reading = ServerReading::default();
    let Some(table) = field.and_then(|field| field.table("[server]")) else { return reading };
    let server = &mut reading.server;
    let set = |place: &mut Duration, duration: Option<Duration>| *place = duration.unwrap_or(*place);
    if let Some(listen) = table.get("listen").and_then(|field| address(expressions, &field, &LISTEN)) {
        server.listen = listen;
    }
    if let Some(metrics) = table.get("metrics").and_then(|field| metrics(expressions, &field, &server.listen)) {
        server.metrics = metrics;
    }
    server.tls = table.get("tls").and_then(|field| tls(expressions, &field));
    set(&mut server.header_timeout, table.get("header_timeout").and_then(|field| field.duration(WAITS)));
    set(&mut server.body_timeout, table.get("body_timeout").and_then(|field| field.duration(WAITS)));
    set(&mut server.shutdown_timeout, table.get("shutdown_timeout").and_then(|field| field.duration(SHUTDOWNS)));
    let connections_max = table.get("max_connections").and_then(|field| field.count_usize(CONNECTIONS));
    server.connections_max = connections_max.unwrap_or(server.connections_max);
    server.trusted_proxies =
        table.get("trusted_proxies").map(|field| networks(expressions, &field)).unwrap_or_default();
    server.cors_origins = table.get("cors").map(|field| origins(expressions, &field)).unwrap_or_default();
    server.analytics_js = table.get("analytics_js").and_then(|field| path(expressions, &field, "file"));
    server.control = table.get("control").and_then(|field| socket(expressions, &field));
    reading.strict = table.get("strict").and_then(|field| field.boolean()).unwrap_or_default();
    reading.unknown_key = table.get("unknown_key").and_then(|field| field.word(&UNKNOWN_KEYS)).unwrap_or_default();
    if let Some(table) = table.get("limits").and_then(|field| field.table("`limits`")) {
        reading.limits = limits(expressions, &table);
    }
    table.finish();
    reading
}

fn address(expressions: &Expressions<'_>, field: &Field<'_>, words: &AddressWords) -> Option<String> {
    let address = expressions.settled_text(field)?;
    let parts = address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    let is_bare_v6 = |host: &str| host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    match parts {
        Some((host, Ok(_))) if !host.is_empty() && !is_bare_v6(host) => Some(address),
        Some(_) | None => {
            let error = field.error(Code::BadValue, format!("`{}` must be {}", field.name, words.expected));
            let is_literal = field.raw().as_str() == Some(&address);
            let port = address.trim_start_matches(':').parse::<u16>().ok().filter(|_| is_literal);
            expressions.findings.add(match port {
                Some(port) => {
                    let instead = format!("\"{}:{port}\"", words.host);
                    error.help(format!("did you mean {instead}?")).suggest(field.span(), instead)
                }
                None => error.help(format!("for example {}", words.examples)),
            });
            None
        }
    }
}

/// Where `/metrics` is: beside everything else, nowhere, or at an address that is not the door's own.
fn metrics(expressions: &Expressions<'_>, field: &Field<'_>, listen: &str) -> Option<Metrics> {
    match field.raw() {
        DeValue::Boolean(true) => Some(Metrics::Here),
        DeValue::Boolean(false) => Some(Metrics::Off),
        DeValue::String(_) => {
            let address = address(expressions, field, &METRICS)?;
            // Two that let the machine choose a port get two ports.
            if address == listen && !address.ends_with(":0") {
                let error = field.error(Code::BadValue, "`metrics` is the address of `listen`, which is taken");
                expressions.findings.add(error.help("`metrics = true` serves `/metrics` there"));
                return None;
            }
            Some(Metrics::At(address))
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            field.wrong_type("`true`, `false` or an address such as \"127.0.0.1:9090\"");
            None
        }
    }
}

fn tls(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<Tls> {
    let table = field.table("`tls`")?;
    let file = |key: &'static str, help: &str| path(expressions, &table.require(key, help)?, "file");
    let cert = file("cert", "the path of a PEM file with the certificate chain");
    let key = file("key", "the path of a PEM file with the private key");
    table.finish();
    Some(Tls { cert: cert?, key: key? })
}

/// The path of a `what`: a file, or a folder.
///
/// Of one that is assumed to be known elsewhere, what is written.
pub(super) fn path(expressions: &Expressions<'_>, field: &Field<'_>, what: &str) -> Option<PathBuf> {
    let path = known_text(expressions, field)?;
    if path.is_empty() {
        expressions.findings.add(field.error(Code::BadPath, format!("`{}` must name a {what}", field.name)));
        return None;
    }
    Some(PathBuf::from(path))
}

/// A string that is known when the file is read; of one that is assumed to be known elsewhere, what is written.
fn known_text(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<String> {
    let errors_before = expressions.findings.error_count();
    expressions.settled_text(field).or_else(|| {
        let is_assumed = expressions.assumes_unset() && expressions.findings.error_count() == errors_before;
        field.raw().as_str().filter(|_| is_assumed).map(str::to_owned)
    })
}

fn socket(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<PathBuf> {
    let path = path(expressions, field, "socket")?;
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let message =
            format!("`{}` is too long: a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes", field.name);
        expressions.findings.add(field.error(Code::BadPath, message));
        return None;
    }
    Some(path)
}

fn networks(expressions: &Expressions<'_>, field: &Field<'_>) -> Vec<Network> {
    let read = |field: &Field<'_>| {
        let text = expressions.settled_text(field)?;
        let network = parse_network(&text);
        if network.is_none() {
            let error = field.error(Code::BadValue, format!("{} is not a network", quoted(field)));
            expressions.findings.add(error.help("for example \"10.0.0.0/8\", \"2001:db8::/32\" or \"127.0.0.1\""));
        }
        network
    };
    field.list().unwrap_or_default().iter().filter_map(read).collect()
}

/// What is written, for messages; of a template, nothing that it came to.
fn quoted(field: &Field<'_>) -> String {
    field.raw().as_str().filter(|text| !has_braces(text)).map_or_else(|| "this".to_owned(), |text| format!("`{text}`"))
}

fn parse_network(text: &str) -> Option<Network> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix_bits = bits.map_or(Some(width), |bits| bits.parse().ok())?;
    (prefix_bits <= width).then_some(Network { address, prefix_bits })
}

fn origins(expressions: &Expressions<'_>, field: &Field<'_>) -> Vec<String> {
    let Some(table) = field.table("`cors`") else { return Vec::new() };
    let list = table.require("origins", "for example `origins = [\"https://example.com\"]`");
    table.finish();
    let read = |field: &Field<'_>| {
        let text = expressions.settled_text(field)?;
        let origin = url::Url::parse(&text).ok().map(|url| url.origin().ascii_serialization());
        // A path or a trailing slash would never equal what a browser sends.
        if text == "*" || origin.as_ref() == Some(&text) {
            return Some(text);
        }
        let error = field
            .error(Code::BadValue, format!("{} is not an origin: scheme, host and port, nothing else", quoted(field)));
        let is_literal = field.raw().as_str() == Some(&text);
        expressions.findings.add(match origin.filter(|origin| is_literal && origin.starts_with("http")) {
            Some(origin) => {
                error.help(format!("did you mean \"{origin}\"?")).suggest(field.span(), format!("{origin:?}"))
            }
            None => error.help("for example \"https://example.com\", or \"*\" for any"),
        });
        None
    };
    let origins: Vec<String> = list.and_then(|list| list.list()).unwrap_or_default().iter().filter_map(read).collect();
    // In the plan an empty list is any origin.
    if origins.iter().any(|origin| origin == "*") { Vec::new() } else { origins }
}

fn limits(expressions: &Expressions<'_>, table: &Table<'_>) -> Limits {
    let mut limits = Limits::default();
    let bytes = |field: Field<'_>| field.size(BODY_SIZES).and_then(|bytes| usize::try_from(bytes).ok());
    let event = table.get("event");
    limits.event_bytes_max = event.as_ref().and_then(|field| bytes(field.clone())).unwrap_or(limits.event_bytes_max);
    limits.batch_bytes_max = table.get("batch").and_then(bytes).unwrap_or(limits.batch_bytes_max);
    let events = table.get("batch_events").and_then(|field| field.count_usize(BATCH_EVENTS));
    limits.batch_events_max = events.unwrap_or(limits.batch_events_max);
    if let Some(field) = event.filter(|_| limits.event_bytes_max > limits.batch_bytes_max) {
        let message = format!(
            "an event may not be larger than a batch, which is {}",
            units::written_size(limits.batch_bytes_max as u64)
        );
        expressions.findings.add(field.error(Code::OutOfRange, message));
    }
    table.finish();
    limits
}

/// Reads `[sources]` into who may send, by write key.
pub(super) fn sources(
    expressions: &Expressions<'_>,
    field: Option<Field<'_>>,
    destinations: &DeTable<'_>,
    policy: &mut Policy,
) -> Vec<SourceReading> {
    let Some(table) = field.and_then(|field| field.table("[sources]")) else { return Vec::new() };
    let mut keys: BTreeMap<String, Arc<Source>> = BTreeMap::new();
    let mut readings = Vec::new();
    for field in table.fields() {
        if let Some(table) = field.table("a source") {
            readings.push(source(expressions, &field, &table, destinations, &mut keys));
            table.finish();
        }
    }
    policy.sources = keys;
    readings
}

fn source(
    expressions: &Expressions<'_>,
    field: &Field<'_>,
    table: &Table<'_>,
    destinations: &DeTable<'_>,
    keys: &mut BTreeMap<String, Arc<Source>>,
) -> SourceReading {
    let name = SourceName::from(field.name);
    expressions.begin(false);
    let switch = expressions.switch(table.get("enabled"));
    let enabled = matches!(switch, Switch::On);
    expressions.begin(!enabled);
    let limit = table.get("limit").and_then(|field| rate_limit(expressions, &field));
    let source = Arc::new(Source { name: name.clone(), enabled, limit });
    let list = table.require("write_keys", "for example `write_keys = [\"{{ env.WRITE_KEY }}\"]`");
    let fields = list.as_ref().and_then(Field::list);
    if let Some(list) = list.filter(|_| fields.as_ref().is_some_and(Vec::is_empty)) {
        expressions.findings.add(list.error(Code::BadValue, "`write_keys` is empty: nobody could send"));
    }
    for field in fields.unwrap_or_default() {
        write_key(expressions, &field, &source, keys);
    }
    table.not_here(&["plan"], "is said the other way round: `sources = [\"NAME\"]` in `[plan.NAME]`");
    let destinations = table.get("destinations").map(|field| known_destinations(expressions, &field, destinations));
    SourceReading { name, destinations }
}

fn rate_limit(expressions: &Expressions<'_>, field: &Field<'_>) -> Option<RateLimit> {
    let table = field.table("a source's `limit`")?;
    let per_second = table.require("per_second", "events per second, such as `per_second = 100`");
    let per_second = per_second.and_then(|field| field.positive());
    let burst = table.get("burst").map(|field| {
        let burst = field.positive()?;
        if burst < 1.0 {
            let error = field.error(Code::OutOfRange, "`burst` must be at least 1");
            expressions.findings.add(error.help("a bucket that holds no event would let none in"));
            return None;
        }
        Some(burst)
    });
    table.finish();
    let per_second = per_second?;
    Some(RateLimit { per_second, burst: burst.unwrap_or(Some(per_second.max(1.0)))? })
}

fn write_key(
    expressions: &Expressions<'_>,
    field: &Field<'_>,
    source: &Arc<Source>,
    keys: &mut BTreeMap<String, Arc<Source>>,
) {
    let Some(key) = known_text(expressions, field) else { return };
    // A secret's file or a variable may end with blanks that no SDK sends.
    let key = key.trim().to_owned();
    if key.is_empty() {
        // A source that is off may have no key yet.
        if source.enabled {
            expressions.findings.add(field.error(Code::BadValue, "this write key is empty"));
        }
        return;
    }
    // The key itself is not told: it may be a secret.
    if let Some(other) = keys.insert(key, Arc::clone(source)) {
        let message = if other.name == source.name {
            "this write key is there twice".to_owned()
        } else {
            format!("this write key is also that of the source `{}`", other.name)
        };
        expressions.findings.add(field.error(Code::DuplicateWriteKey, message));
    }
}

fn known_destinations(expressions: &Expressions<'_>, field: &Field<'_>, known: &DeTable<'_>) -> Vec<String> {
    let names: Vec<&str> = known.keys().map(|name| name.get_ref().as_ref()).collect();
    let read = |field: &Field<'_>| {
        let text = field.text_as("the name of a destination")?;
        if !names.contains(&text.value) {
            let message = format!("there is no destination `{}`", text.value);
            let error =
                Diagnostic { code: Code::UnknownDestination, ..text.wrong_word(message, names.iter().copied()) };
            expressions.findings.add(error);
        }
        Some(text.value.to_owned())
    };
    field.list().unwrap_or_default().iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::parse_network;

    #[test]
    fn a_network_is_an_address_with_or_without_a_prefix() {
        let bits = |text: &str| parse_network(text).map(|network| network.prefix_bits);
        assert_eq!(bits("10.0.0.0/8"), Some(8));
        assert_eq!(bits("127.0.0.1"), Some(32));
        assert_eq!(bits("::1"), Some(128));
        assert_eq!(bits("2001:db8::/32"), Some(32));
        assert_eq!(bits("0.0.0.0/0"), Some(0));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "host/8", "10.0.0.0/-1", "::1/129", "10.0.0.0/"] {
            assert_eq!(bits(wrong), None, "{wrong}");
        }
    }
}

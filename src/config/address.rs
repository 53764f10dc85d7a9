//! Where requests go: methods, URLs, paths, header names. Nothing in an event can choose the host.

use std::ops::Range;

use url::{Host, Url};

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::expressions::Compiled;
use super::findings::Findings;
use super::spelling::nearest;
use super::table::{Field, Text};
use crate::expr::NameUse;

/// The usual methods (RFC 9110, section 9, and RFC 5789).
const METHODS: [&str; 7] = ["POST", "PUT", "PATCH", "GET", "DELETE", "HEAD", "OPTIONS"];

const SCHEMES: [&str; 2] = ["https://", "http://"];

/// Headers that the HTTP client alone can set right.
const CLIENTS_OWN: [&str; 5] = ["content-length", "transfer-encoding", "connection", "upgrade", "te"];

/// Reads `method`: a token (RFC 9110, section 5.6.2), in uppercase.
pub(super) fn method(findings: &Findings<'_>, field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    if !is_token(text.value) {
        let message = format!("`{}` is not an HTTP method: it must be a constant word such as `PUT`", text.value);
        findings.add(text.error(Code::BadValue, message));
        return None;
    }
    let method = text.value.to_ascii_uppercase();
    let meant = nearest(&method, METHODS).filter(|_| !METHODS.contains(&method.as_str()));
    if let Some(meant) = meant {
        let warning =
            Diagnostic::warning(Code::UnusualMethod, text.span.clone(), format!("`{method}` is an unusual method"));
        findings.add(warning.help(format!("did you mean `{meant}`?")).suggest(text.span.clone(), format!("{meant:?}")));
    }
    Some(method)
}

/// Reads the name of a header, in lowercase.
pub(super) fn header_name(findings: &Findings<'_>, field: &Field<'_>) -> Option<String> {
    checked_name(findings, field.name, &field.key_span())
}

/// Reads the name of a header that is the value of a key, in lowercase.
pub(super) fn header_word(findings: &Findings<'_>, text: &Text<'_>) -> Option<String> {
    checked_name(findings, text.value, &text.span)
}

fn checked_name(findings: &Findings<'_>, written: &str, span: &Range<usize>) -> Option<String> {
    let name = written.to_ascii_lowercase();
    let refuse = |message: String| {
        findings.add(Diagnostic::error(Code::BadHeader, span.clone(), message));
        None
    };
    if !is_token(&name) {
        return refuse(format!("{written:?} cannot be the name of a header"));
    }
    if CLIENTS_OWN.contains(&name.as_str()) {
        return refuse(format!("the header `{name}` is set by the HTTP client"));
    }
    Some(name)
}

/// Whether a header that others wrote can be sent.
pub(super) fn is_header(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    is_token(&name) && !CLIENTS_OWN.contains(&name.as_str()) && !value.contains(is_unsendable)
}

fn is_unsendable(c: char) -> bool {
    c.is_control() && c != '\t'
}

/// Checks what can be known of a header's value.
pub(super) fn header_value(findings: &Findings<'_>, field: &Field<'_>, value: &str) {
    if value.contains(is_unsendable) {
        let message =
            format!("the value of the header `{}` holds a line break or another control character", field.name);
        findings.add(field.error(Code::BadHeader, message));
    }
}

/// Checks the `url` of this key: its scheme and host are constant, and what is known of it is a URL.
pub(super) fn url(findings: &Findings<'_>, text: &Text<'_>, key: &str, url: &Compiled) {
    let constant = url.template.as_constant();
    let known = match constant {
        Some(value) => value.as_str().unwrap_or_default(),
        None => url.template.constant_prefix(),
    };
    let rest = SCHEMES.iter().find_map(|scheme| strip_prefix_ignoring_case(known, scheme));
    let is_open =
        constant.is_none() && SCHEMES.iter().any(|scheme| strip_prefix_ignoring_case(scheme, known).is_some());
    let Some(rest) = rest else {
        if is_open {
            findings.extend(chosen_by_event(text, url));
            return;
        }
        let mut error = text.error(Code::BadUrl, format!("`{key}` must begin with `https://` or `http://`"));
        if text.value.starts_with('{') {
            error = error.help("this is about the value with its variables filled in, which is not shown");
        }
        findings.add(error);
        return;
    };
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    if has_dot_segment(path, constant.is_some()) {
        findings.add(dot_segment(text));
    }
    let host_end = rest.find(['/', '\\', '?', '#']);
    if host_end.is_none() && constant.is_none() {
        findings.extend(chosen_by_event(text, url));
        return;
    }
    if host_end == Some(0) {
        findings.add(text.error(Code::BadUrl, format!("`{key}` has no host")));
        return;
    }
    let checked = match (constant, host_end) {
        (None, Some(end)) => &known[..known.len() - rest.len() + end],
        (Some(_), _) | (None, None) => known,
    };
    match Url::parse(checked) {
        // The URL may hold a secret: only the reason is told.
        Err(error) => findings.add(text.error(Code::BadUrl, format!("`{key}` is not a URL: {error}"))),
        Ok(url) => warn_of_plain_http(findings, text, &url),
    }
}

/// Checks a `path`: it begins with a slash, so it cannot become part of the host.
pub(super) fn path(findings: &Findings<'_>, text: &Text<'_>, path: &Compiled) {
    let known = match path.template.as_constant() {
        Some(value) => value.as_str().unwrap_or_default(),
        None => path.template.constant_prefix(),
    };
    let is_unknown = known.is_empty() && !path.is_settled && event_in_hole(path).is_none();
    if !known.starts_with('/') && !is_unknown {
        let error = text.error(Code::BadPath, "`path` must begin with `/`");
        findings.add(error.help("it is appended to `url` as it is"));
    }
    if has_dot_segment(known, path.template.as_constant().is_some()) {
        findings.add(dot_segment(text));
    }
}

/// Whether a piece of a path would be resolved away. The last piece of a beginning may go on, and does not count.
fn has_dot_segment(path: &str, is_whole: bool) -> bool {
    let end = path.find(['?', '#']);
    let is_whole = is_whole || end.is_some();
    let segments: Vec<&str> = path[..end.unwrap_or(path.len())].split(['/', '\\']).collect();
    let counted = if is_whole { segments.len() } else { segments.len() - 1 };
    let is_dots = |segment: &&str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    segments[..counted].iter().any(is_dots)
}

fn dot_segment(text: &Text<'_>) -> Diagnostic {
    text.error(Code::BadPath, "`.` and `..` are not allowed as pieces of a path").help("write the path they lead to")
}

/// The error that an event would choose the host, unless a variable does that is not set here.
fn chosen_by_event(text: &Text<'_>, url: &Compiled) -> Option<Diagnostic> {
    let by_event = event_in_hole(url);
    if by_event.is_none() && !url.is_settled {
        return None;
    }
    let span = by_event.map_or(text.span.clone(), |name| text.place(&name.range));
    let error = Diagnostic::error(Code::HostFromEvent, span, "an event may not choose where it is sent");
    let help = "scheme and host of `url` must be constant; events can shape what follows the host's `/`";
    Some(error.label("this is not known before an event comes").help(help))
}

/// What the first piece that is not known reads of an event.
fn event_in_hole(compiled: &Compiled) -> Option<&NameUse> {
    let hole = compiled.template.holes().into_iter().next()?;
    compiled.names.iter().find(|name| hole.start <= name.range.start && name.range.end <= hole.end)
}

/// Without TLS anybody between here and there reads events and secrets; not so within a machine or a private network.
fn warn_of_plain_http(findings: &Findings<'_>, text: &Text<'_>, url: &Url) {
    let is_near = match url.host() {
        Some(Host::Domain(name)) => {
            !name.contains('.') || [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end))
        }
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        None => true,
    };
    if url.scheme() == "http" && !is_near {
        let warning = Diagnostic::warning(Code::NoTls, text.span.clone(), "events and secrets travel unencrypted");
        findings.add(warning.help("use `https://`"));
    }
}

fn strip_prefix_ignoring_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

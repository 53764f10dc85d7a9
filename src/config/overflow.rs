//! `overflow`: which destination takes what another one could not deliver.

use std::collections::BTreeMap;
use std::ops::Range;

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::findings::Findings;
use super::fingerprint::Fingerprint;
use super::spelling::nearest;
use crate::attempt::DestinationName;
use crate::event::SourceName;
use crate::plan::{Destination, QueueKind, Upstream};

/// One `overflow`, as it is written.
pub(super) struct Edge {
    /// The destination that has it.
    pub from: String,
    /// The destination it names.
    pub to: String,
    /// Where it is written.
    pub span: Range<usize>,
}

/// Checks which destination names which, and tells each of them whose events it may be handed.
pub(super) fn connect(
    findings: &Findings<'_>,
    edges: &[Edge],
    names: &[&str],
    queue: QueueKind,
    destinations: &mut [Destination],
) {
    let next: BTreeMap<&str, &str> = edges.iter().map(|edge| (edge.from.as_str(), edge.to.as_str())).collect();
    for edge in edges {
        check(findings, edge, names, &next);
        if queue == QueueKind::Disk {
            let message = "`overflow` has no effect: what is not delivered waits on disk";
            let warning = Diagnostic::warning(Code::NoEffect, edge.span.clone(), message);
            findings.add(warning.help("it is for `[queue] type = \"memory\"`, which forgets when the process ends"));
        }
    }
    let upstreams: Vec<(DestinationName, Option<Vec<SourceName>>)> =
        destinations.iter().map(|destination| (destination.name.clone(), destination.sources.clone())).collect();
    for (name, sources) in upstreams {
        for to in route(&next, name.as_str()) {
            if let Some(destination) = destinations.iter_mut().find(|destination| destination.name.as_str() == to) {
                destination.upstream.push(Upstream { name: name.clone(), sources: sources.clone() });
            }
        }
    }
    for destination in destinations.iter_mut().filter(|destination| !destination.upstream.is_empty()) {
        let mut hash = Fingerprint::new();
        hash.add(destination.fingerprint);
        for Upstream { name, sources } in &destination.upstream {
            let sources = sources.as_ref().map(|all| all.iter().map(SourceName::as_str).collect::<Vec<_>>());
            hash.add(name.as_str()).add(sources);
        }
        destination.fingerprint = hash.finish();
    }
}

fn check(findings: &Findings<'_>, edge: &Edge, names: &[&str], next: &BTreeMap<&str, &str>) {
    let error = |code, message: String| Diagnostic::error(code, edge.span.clone(), message);
    if !names.contains(&edge.to.as_str()) {
        let unknown = error(Code::UnknownDestination, format!("there is no destination `{}`", edge.to));
        return findings.add(match nearest(&edge.to, names.iter().copied().filter(|name| *name != edge.from)) {
            Some(near) => {
                unknown.help(format!("did you mean `{near}`?")).suggest(edge.span.clone(), format!("{near:?}"))
            }
            None => unknown,
        });
    }
    let route = route(next, &edge.from);
    if route.last() == Some(&edge.from.as_str()) {
        let message = match route.as_slice() {
            [_] => format!("`{}` cannot take over from itself", edge.from),
            _ => format!(
                "`{}` would get its own events back: it hands over to `{}`",
                edge.from,
                route.join("`, that to `")
            ),
        };
        findings.add(error(Code::OverflowCycle, message));
    }
}

/// The destinations that one's events go to, one after the other, up to itself.
fn route<'e>(next: &BTreeMap<&'e str, &'e str>, from: &str) -> Vec<&'e str> {
    let mut route: Vec<&str> = Vec::new();
    while let Some(to) = next.get(route.last().copied().unwrap_or(from)) {
        if route.contains(to) {
            break;
        }
        route.push(to);
        if *to == from {
            break;
        }
    }
    route
}

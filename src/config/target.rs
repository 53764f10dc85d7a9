//! What cannot work where the file is to run, and what to write instead.
//!
//! A Vercel Function has no disk to speak of, nobody connects to it but Vercel, and it ends: after `maxDuration` at the
//! latest, 300 s unless its project says otherwise (<https://vercel.com/docs/functions/limitations>, read 2026-11-26).
//! What a file asks for that is impossible there is an error; what means nothing there, a warning.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes::Code;
use super::diagnostic::Diagnostic;
use super::findings::Findings;
use super::units::written_duration;
use crate::plan::{Destination, DestinationKind, Plan, QueueAck, QueueKind};

/// Where a file is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// On a machine or in a container: everything works.
    #[default]
    Machine,
    /// In a Vercel Function.
    Vercel {
        /// The longest it may run, its `maxDuration`.
        duration_max: Duration,
    },
}

/// Keys of `[server]` that are Vercel's business.
const VERCELS_OWN: [(&str, &str); 6] = [
    ("listen", "Vercel takes the connections"),
    ("tls", "Vercel ends TLS, with certificates of its own"),
    ("header_timeout", "Vercel reads the requests"),
    ("body_timeout", "Vercel reads the requests"),
    ("max_connections", "Vercel takes the connections, and starts instances as it needs them"),
    ("shutdown_timeout", "an instance ends when Vercel says so"),
];

/// Keys of `[queue]` that are a disk's.
const DISKS_OWN: [&str; 4] = ["dir", "retain", "dead_letters", "max_size"];

/// Says what cannot work on the target. Where the file has mistakes the plan has holes, and less is said.
pub(super) fn check(target: Target, findings: &Findings<'_>, document: &DeTable<'_>, plan: &Plan) {
    let Target::Vercel { duration_max } = target else { return };
    let vercel = Vercel { findings, document, duration_max };
    vercel.queue(plan);
    vercel.server();
    for destination in &plan.destinations {
        vercel.destination(destination);
    }
}

/// A file that is to run in a Vercel Function.
struct Vercel<'d> {
    findings: &'d Findings<'d>,
    document: &'d DeTable<'d>,
    duration_max: Duration,
}

// === impl Target ===

impl Target {
    /// What a Vercel Function may run when its project does not say.
    pub const VERCEL_DURATION: Duration = Duration::from_mins(5);

    /// Whether it has files of the user's, to read when the configuration is.
    pub(super) fn has_files(self) -> bool {
        self == Self::Machine
    }
}

// === impl Vercel ===

impl Vercel<'_> {
    fn queue(&self, plan: &Plan) {
        if plan.queue.kind == QueueKind::Disk {
            let place = self.value(&["queue", "type"]).unwrap_or(0..0);
            let error = impossible(place, "a queue on disk is lost with the instance of the function");
            let help =
                "write `type = \"memory\"`, or leave it out: then it is on disk where there is one, and in memory here";
            return self.findings.add(error.help(help));
        }
        if self.value(&["queue", "type"]).is_none() {
            for key in DISKS_OWN {
                let place = self.key(&["queue", key]);
                let message = format!("`{key}` means nothing here: without a disk, the queue is in memory");
                self.findings.extend(place.map(|place| idle(place, message)));
            }
        }
        match plan.queue.ack {
            QueueAck::Queued => self.promise(plan),
            QueueAck::Delivered => self.ack_timeout(plan.queue.ack_timeout),
        }
    }

    /// A `200` that promises nothing, and nobody who takes what could not be delivered.
    fn promise(&self, plan: &Plan) {
        if plan.destinations.is_empty() || plan.destinations.iter().any(|destination| destination.overflow.is_some()) {
            return;
        }
        let place = self.value(&["queue", "ack"]).or_else(|| self.key(&["queue"])).unwrap_or(0..0);
        let message = "what cannot be delivered before the function ends is lost, and its sender has heard 200";
        let help = "write `ack = \"delivered\"` in [queue], so that SDKs send again what did not arrive, or name an `overflow` in destinations";
        self.findings.add(Diagnostic::warning(Code::MayLose, place, message).help(help));
    }

    fn ack_timeout(&self, timeout: Duration) {
        let place = self.value(&["queue", "ack_timeout"]).unwrap_or(0..0);
        if timeout >= self.duration_max {
            let timeout = written_duration(timeout);
            let message = format!("a sender may wait {timeout}, but the function ends after {}", self.end());
            self.findings.add(impossible(place, message).help(format!("write an `ack_timeout` below {}", self.end())));
        }
    }

    fn server(&self) {
        for (key, why) in VERCELS_OWN {
            let place = self.key(&["server", key]);
            self.findings.extend(place.map(|place| idle(place, format!("`{key}` means nothing here: {why}"))));
        }
        if let Some(place) = self.value(&["server", "metrics"]).filter(|_| self.is_text(&["server", "metrics"])) {
            let warning = idle(place, "nobody can reach an address of the function's own");
            self.findings.add(warning.help("`metrics = true` serves those of one instance at `/metrics`"));
        }
        if let Some(place) = self.key(&["server", "control"]) {
            self.findings.add(idle(place, "`control` means nothing here: no command can reach the function"));
        }
        if let Some(place) = self.key(&["server", "analytics_js"]) {
            let error = impossible(place, "the function has no file to serve");
            self.findings.add(error.help("put the library into the project's static files"));
        }
    }

    fn destination(&self, destination: &Destination) {
        let name = destination.name.as_str();
        match destination.kind {
            DestinationKind::File(_) => {
                let error = impossible(self.place(name, &["type"]), "a file is lost with the instance of the function");
                self.findings
                    .add(error.help("send the events over HTTP, or let `type = \"stdout\"` put them into the logs"));
            }
            DestinationKind::Http | DestinationKind::BigQuery(_) | DestinationKind::Stdout => {}
        }
        self.timeout(destination);
        self.retry(destination);
        self.batches(destination);
        self.limit(destination);
        if let Some(place) = self.written(name, &["order_by"]).filter(|_| destination.order_by.is_some()) {
            let message =
                "events of one key may reach several instances of the function, which keep no order among them";
            self.findings.add(idle(place, message).help("where order matters, let a container deliver"));
        }
    }

    fn timeout(&self, destination: &Destination) {
        if destination.is_http() && destination.timeout >= self.duration_max {
            let timeout = written_duration(destination.timeout);
            let error =
                self.too_long(destination.name.as_str(), &["timeout"], &format!("a request may take {timeout}"));
            self.findings.add(error.help(format!("write a `timeout` below {}", self.end())));
        }
    }

    fn retry(&self, destination: &Destination) {
        let (name, policy) = (destination.name.as_str(), &destination.retry);
        if policy.first >= self.duration_max {
            let first = written_duration(policy.first);
            let error = self.too_long(name, &["retry", "first"], &format!("another try comes after {first}"));
            self.findings.add(error.help(format!("write a `first` below {}", self.end())));
            return;
        }
        for (key, duration) in [("delay_max", policy.delay_max), ("give_up_after", policy.give_up_after)] {
            let place = self.written(name, &["retry", key]).filter(|_| duration > self.duration_max);
            let message =
                format!("`{key}` means nothing here: tries end with the function, after {} at the latest", self.end());
            self.findings.extend(place.map(|place| idle(place, message)));
        }
    }

    /// Instances know nothing of each other, and requests keep their own pace.
    fn limit(&self, destination: &Destination) {
        if let Some(place) = self.written(destination.name.as_str(), &["limit", "per_second"]) {
            let message = "`per_second` holds for each request on its own: requests and instances of the function know nothing of each other";
            self.findings
                .add(idle(place, message).help("where the service must not be called faster, let a container deliver"));
        }
    }

    fn batches(&self, destination: &Destination) {
        let name = destination.name.as_str();
        for rule in &destination.rules {
            let Some(batch) = rule.batch.as_ref().filter(|batch| batch.age_max >= self.duration_max) else { continue };
            let of_rule = rule.place.as_ref().and_then(|_| self.of_rule(name, rule.index, &["batch", "max_age"]));
            let age = written_duration(batch.age_max);
            let place = of_rule.unwrap_or_else(|| self.place(name, &["batch", "max_age"]));
            let message = format!("`max_age = \"{age}\"` means nothing here: a batch closes with its request");
            self.findings.add(idle(place, message));
        }
    }

    fn too_long(&self, destination: &str, path: &[&str], what: &str) -> Diagnostic {
        let message = format!("{what}, but the function ends after {}", self.end());
        impossible(self.place(destination, path), message)
    }

    fn end(&self) -> String {
        written_duration(self.duration_max)
    }

    // --- places

    /// A key of a destination, its own or that of `[defaults]`; else the destination.
    fn place(&self, destination: &str, path: &[&str]) -> Range<usize> {
        let header = || self.key(&["destinations", destination]);
        self.written(destination, path).or_else(header).unwrap_or(0..0)
    }

    /// The value of a key of a destination, its own or that of `[defaults]`.
    fn written(&self, destination: &str, path: &[&str]) -> Option<Range<usize>> {
        let own = find(self.document, &["destinations", destination]);
        let tables = own.into_iter().chain(find(self.document, &["defaults"]));
        let written = |(_, table): (_, &Spanned<DeValue<'_>>)| {
            find(table.get_ref().as_table()?, path).map(|(_, value)| value.span())
        };
        tables.into_iter().find_map(written)
    }

    fn of_rule(&self, destination: &str, index: usize, path: &[&str]) -> Option<Range<usize>> {
        let (_, rules) = find(self.document, &["destinations", destination, "rules"])?;
        let rule = rules.get_ref().as_array()?.get(index)?.get_ref().as_table()?;
        find(rule, path).map(|(_, value)| value.span())
    }

    fn value(&self, path: &[&str]) -> Option<Range<usize>> {
        find(self.document, path).map(|(_, value)| value.span())
    }

    fn key(&self, path: &[&str]) -> Option<Range<usize>> {
        find(self.document, path).map(|(key, _)| key)
    }

    fn is_text(&self, path: &[&str]) -> bool {
        find(self.document, path).is_some_and(|(_, value)| value.get_ref().as_str().is_some())
    }
}

fn impossible(place: Range<usize>, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(Code::NotOnTarget, place, message)
}

fn idle(place: Range<usize>, message: impl Into<String>) -> Diagnostic {
    Diagnostic::warning(Code::IdleOnTarget, place, message)
}

/// A value by the names of the tables it stands in, with the place of its key.
fn find<'d>(table: &'d DeTable<'d>, path: &[&str]) -> Option<(Range<usize>, &'d Spanned<DeValue<'d>>)> {
    let (first, rest) = path.split_first()?;
    let (key, value) = table.get_key_value(*first)?;
    match rest {
        [] => Some((key.span(), value)),
        _ => find(value.get_ref().as_table()?, rest),
    }
}

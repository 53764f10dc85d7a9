//! Which path means what: one flat table, and the methods each takes.
//!
//! Empty pieces of a path do not count, because SDKs join `host + "/v1/…"` blindly: `//v1/batch` and `/v1/import/` are
//! the same doors (`docs/wire-contract.md`, "Calls").

use axum::http::Method;

use crate::event::Kind;
use crate::segment::Call;

/// A door of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// Messages in the body.
    Ingest(Call),
    /// One message in the query, answered with a picture.
    Pixel(Kind),
    /// What an SDK measures of itself.
    SdkMetrics,
    /// What an SDK asks before it sends.
    Settings {
        /// The write key in the path.
        key: &'a str,
    },
    /// The browser SDK itself.
    Script,
    /// A piece that the browser SDK loads when it needs it.
    ScriptBundle {
        /// Its file name.
        name: &'a str,
    },
    /// Whether the process serves.
    Health,
    /// Whether it should be sent requests, and how everything is.
    Ready,
    /// Numbers for a collector.
    Metrics,
}

/// The pieces of the longest path we know.
const PIECES_MAX: usize = 5;

// === impl Route ===

impl<'a> Route<'a> {
    /// Finds the door behind a path.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let mut pieces = [""; PIECES_MAX];
        let mut count = 0;
        for piece in path.split('/').filter(|piece| !piece.is_empty()) {
            *pieces.get_mut(count)? = piece;
            count += 1;
        }
        Self::of_pieces(&pieces[..count])
    }

    fn of_pieces(pieces: &[&'a str]) -> Option<Self> {
        let route = match *pieces {
            ["v1", "track" | "t"] => Self::Ingest(Call::One(Kind::Track)),
            ["v1", "identify" | "i"] => Self::Ingest(Call::One(Kind::Identify)),
            ["v1", "page" | "p"] => Self::Ingest(Call::One(Kind::Page)),
            ["v1", "screen" | "s"] => Self::Ingest(Call::One(Kind::Screen)),
            ["v1", "group" | "g"] => Self::Ingest(Call::One(Kind::Group)),
            ["v1", "alias" | "a"] => Self::Ingest(Call::One(Kind::Alias)),
            // React Native appends `b` to a proxy's address; rudder-js has its own word for `sendBeacon`.
            ["v1", "batch" | "b" | "import"]
            | ["v1", "batch", "b"]
            | ["batch" | "b"]
            | ["batch", "b"]
            | ["beacon", "v1", "batch"] => Self::Ingest(Call::Batch),
            ["v1", "pixel", kind] | ["pixel", "v1", kind] => Self::Pixel(kind.parse().ok()?),
            ["v1", "m"] => Self::SdkMetrics,
            ["v1", "projects", key, "settings"]
            | ["projects", key, "settings"]
            | ["v1", "projects", "projects", key, "settings"] => Self::Settings { key },
            ["analytics.js", "v1", _, "analytics.min.js"]
            | ["analytics.js", "v1", _, "platform", "analytics.min.js"] => Self::Script,
            ["analytics-next", "bundles", name] => Self::ScriptBundle { name },
            ["health"] => Self::Health,
            ["ready"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            _ => return None,
        };
        Some(route)
    }

    /// The methods it takes, as `Allow` lists them.
    pub(super) const fn methods(self) -> &'static str {
        match self {
            Self::Ingest(_) | Self::SdkMetrics => "POST, OPTIONS",
            Self::Pixel(_)
            | Self::Settings { .. }
            | Self::Script
            | Self::ScriptBundle { .. }
            | Self::Health
            | Self::Ready
            | Self::Metrics => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether it takes this method.
    pub(super) fn takes(self, method: &Method) -> bool {
        self.methods().split(", ").any(|word| word == method.as_str())
    }

    /// Whether it is for those who watch us. They want to see a shutdown happen, so it still answers then.
    pub(super) const fn is_for_watchers(self) -> bool {
        match self {
            Self::Health | Self::Ready | Self::Metrics => true,
            Self::Ingest(_)
            | Self::Pixel(_)
            | Self::SdkMetrics
            | Self::Settings { .. }
            | Self::Script
            | Self::ScriptBundle { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pieces_of_a_path_do_not_count() {
        for path in ["/v1/batch", "//v1/batch", "/v1//batch", "/v1/batch/", "//v1//batch//"] {
            assert_eq!(Route::of(path), Some(Route::Ingest(Call::Batch)), "{path}");
        }
    }

    #[test]
    fn a_longer_path_than_we_know_is_no_door() {
        assert_eq!(Route::of("/v1/projects/projects/key/settings/more"), None);
        assert_eq!(Route::of(&"/x".repeat(10_000)), None);
        assert_eq!(Route::of("*"), None);
        assert_eq!(Route::of(""), None);
    }

    #[test]
    fn a_project_may_be_called_projects() {
        assert_eq!(Route::of("/projects/projects/settings"), Some(Route::Settings { key: "projects" }));
    }
}

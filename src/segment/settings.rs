//! The answer to `GET /v1/projects/{writeKey}/settings`, without which browsers and phones send nothing.

use serde_json::{Value, json};

/// What a client-side SDK is told about its source.
///
/// `api_host` is this server as clients reach it, `host` or `host:port`, without a scheme or a path; `protocol` is
/// `https` or `http`. Browsers and phones send their events there from then on.
///
/// Only `Segment.io` is listed: with more than one entry analytics.js fetches device-mode plugins. `metrics` is there
/// because without it analytics.js posts its metrics to Segment, and the others are there as objects because the
/// Kotlin SDK decodes them (`browser/index.ts` and `core/stats` of
/// <https://github.com/segmentio/analytics-next>, `Settings.kt` of <https://github.com/segmentio/analytics-kotlin>,
/// read 2026-11-22).
#[must_use]
pub fn settings(write_key: &str, api_host: &str, protocol: &str) -> Value {
    json!({
        "integrations": {
            "Segment.io": {
                "apiKey": write_key,
                "apiHost": format!("{api_host}/v1"),
                "protocol": protocol,
                "versionSettings": { "version": "4.4.7", "componentTypes": ["browser"] },
            },
        },
        "plan": {
            "track": { "__default": { "enabled": true, "integrations": {} } },
            "identify": { "__default": { "enabled": true } },
            "group": { "__default": { "enabled": true } },
        },
        "metrics": { "sampleRate": 0 },
        "edgeFunction": {},
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "remotePlugins": [],
        "analyticsNextEnabled": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_this_server_and_nothing_but_the_sdks_own_pipe() {
        insta::assert_json_snapshot!(settings("KEY", "events.example.com:8443", "https"), @r#"
        {
          "integrations": {
            "Segment.io": {
              "apiKey": "KEY",
              "apiHost": "events.example.com:8443/v1",
              "protocol": "https",
              "versionSettings": {
                "version": "4.4.7",
                "componentTypes": [
                  "browser"
                ]
              }
            }
          },
          "plan": {
            "track": {
              "__default": {
                "enabled": true,
                "integrations": {}
              }
            },
            "identify": {
              "__default": {
                "enabled": true
              }
            },
            "group": {
              "__default": {
                "enabled": true
              }
            }
          },
          "metrics": {
            "sampleRate": 0
          },
          "edgeFunction": {},
          "middlewareSettings": {},
          "enabledMiddleware": {},
          "remotePlugins": [],
          "analyticsNextEnabled": true
        }
        "#);
    }
}

//! A request as a curl command that a shell takes as it is.

use crate::plan::Request;

/// The command, a header or the body a line. `None`: nothing that curl could send.
pub(super) fn command(request: &Request) -> Option<String> {
    if request.url.is_empty() {
        return None;
    }
    let mut lines = vec![format!("curl -X {} {}", request.method, quoted(&request.url))];
    lines.extend(request.headers.iter().map(|(name, value)| format!("-H {}", quoted(&format!("{name}: {value}")))));
    if let Some(body) = &request.body {
        lines.push(format!("--data-binary {}", quoted(&String::from_utf8_lossy(body))));
    }
    Some(lines.join(" \\\n  "))
}

/// Text in single quotes; what single quotes cannot hold is put between two of them.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Request, command};

    #[test]
    fn a_shell_reads_back_what_is_sent() {
        let request = Request {
            method: "PUT".into(),
            url: "https://a.example/it's?x=1".into(),
            headers: vec![("x-a".into(), "$HOME".into())],
            body: Some("{\"a\":\"it's\"}".into()),
            timeout: Duration::ZERO,
            token: None,
            shape: None,
        };
        let told = command(&request).unwrap_or_default();
        assert_eq!(
            told,
            "curl -X PUT 'https://a.example/it'\\''s?x=1' \\\n  -H 'x-a: $HOME' \\\n  --data-binary '{\"a\":\"it'\\''s\"}'"
        );
    }
}

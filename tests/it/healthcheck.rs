//! `libroseg healthcheck`: what a container asks of itself.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::Binary;

/// A file that lets the machine choose a port, with more lines in `[server]`.
fn file(server: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libroseg.toml");
    let text = format!(
        "[server]\nlisten = \"0.0.0.0:0\"\n{server}\n[sources.a]\nwrite_keys = [\"k\"]\n[queue]\ntype = \"memory\"\n"
    );
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// Starts a service and writes into its file the port it got.
fn serve(path: &Path) -> (Binary, String) {
    let binary = Binary::start(path);
    let port = binary.url.rsplit_once(':').unwrap().1.to_owned();
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, text.replace("0.0.0.0:0", &format!("0.0.0.0:{port}"))).unwrap();
    (binary, port)
}

fn healthcheck(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Binary::command();
    command.arg("healthcheck").args(arguments).envs(variables.iter().copied()).current_dir(folder);
    command.output().unwrap()
}

fn told(output: &Output) -> (Option<i32>, &str, &str) {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_service_is_healthy_while_it_serves_and_not_when_it_is_gone() {
    let (folder, path) = file("");
    let (binary, port) = serve(&path);
    let url = format!("http://127.0.0.1:{port}/health");
    let output = healthcheck(folder.path(), &[], &[]);
    assert_eq!(told(&output), (Some(0), format!("{url}: 200 OK\n").as_str(), ""));

    binary.kill();
    let output = healthcheck(folder.path(), &[], &[]);
    let (code, stdout, stderr) = told(&output);
    assert_eq!((code, stdout), (Some(1), ""));
    assert!(stderr.starts_with(&format!("error: {url}: cannot connect: Connection refused")), "{stderr}");
}

#[test]
fn a_mistake_that_a_running_service_does_not_take_over_leaves_it_healthy() {
    let (folder, path) = file("");
    let (_binary, _) = serve(&path);
    let text = std::fs::read_to_string(&path).unwrap();
    for wrong in ["[destinations.crm]\nurl = \"{{ env.NO_SUCH_VARIABLE }}\"\n", "[destinations\n"] {
        std::fs::write(&path, format!("{text}{wrong}")).unwrap();
        let output = healthcheck(folder.path(), &[], &[]);
        assert_eq!(output.status.code(), Some(0), "{:?}", told(&output));
    }
}

#[test]
fn the_address_is_the_one_that_the_service_was_given() {
    let (folder, path) = file("");
    let binary = Binary::start_with(&path, &[("PORT", "0")]);
    let port = binary.url.rsplit_once(':').unwrap().1;
    let listen = format!("0.0.0.0:{port}");
    assert_eq!(healthcheck(folder.path(), &[("PORT", port)], &[]).status.code(), Some(0));
    assert_eq!(healthcheck(folder.path(), &[("PORT", "1")], &["--listen", &listen]).status.code(), Some(0));
    assert_eq!(healthcheck(folder.path(), &[], &[]).status.code(), Some(1));
}

#[test]
fn a_service_with_tls_is_asked_with_tls_whatever_name_its_certificate_has() {
    let (folder, path) = file("tls = { cert = \"cert.pem\", key = \"key.pem\" }");
    let certified = rcgen::generate_simple_self_signed(["events.example.com".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let (_binary, port) = serve(&path);
    let output = healthcheck(folder.path(), &[], &[]);
    let line = format!("https://127.0.0.1:{port}/health: 200 OK\n");
    assert_eq!(told(&output), (Some(0), line.as_str(), ""));
}

#[test]
fn a_door_that_does_not_answer_is_given_up_on_in_time() {
    let (folder, _) = file("");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = silent.local_addr().unwrap().to_string();
    let start = Instant::now();
    let output = healthcheck(folder.path(), &[], &["--listen", &listen, "--timeout", "200ms"]);
    let told_of = format!("error: http://{listen}/health: no answer within 200ms\n");
    assert_eq!(told(&output), (Some(1), "", told_of.as_str()));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_service_whose_address_cannot_be_told_is_not_healthy() {
    let (folder, path) = file("");
    std::fs::write(&path, "[server]\nlisten = 8080\n").unwrap();
    let output = healthcheck(folder.path(), &[], &[]);
    let (code, _, stderr) = told(&output);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("libroseg.toml:2:10"), "{stderr}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(healthcheck(folder.path(), &[], &[]).status.code(), Some(1));
}

//! The image's recipe and the examples that run it agree with the program: addresses, paths, users, times.
//!
//! The image itself is built and run by `tests/container/run`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;

use libroseg::config::{self, Environment};
use libroseg::plan::{Plan, Server};

/// The user and the group of the image.
const USER: u64 = 65532;

/// How long what became of the last events may take to be written, after `shutdown_timeout`: `FLUSH_TIMEOUT` in src/app.
const FLUSH: Duration = Duration::from_secs(5);

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn documents(name: &str) -> Vec<Value> {
    let text = page(name);
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    documents
        .map(|document| {
            // Through its own values, which know of keys that are there twice.
            let value = serde_yaml_ng::Value::deserialize(document).unwrap();
            serde_json::to_value(value).unwrap()
        })
        .collect()
}

/// The one resource of this kind.
fn resource(kind: &str) -> Value {
    let mut found = documents("examples/kubernetes/libroseg.yaml");
    found.retain(|document| document["kind"] == kind);
    assert_eq!(found.len(), 1, "{kind}");
    found.remove(0)
}

fn container(set: &Value) -> Value {
    set["spec"]["template"]["spec"]["containers"][0].clone()
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or_else(|| panic!("{value} is no number")))
}

fn default_port() -> u64 {
    Server::default().listen.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// A file that compiles with these variables and without a warning.
fn plan(text: &str, variables: &[&str]) -> Plan {
    let variables: BTreeMap<_, _> = variables.iter().map(|name| ((*name).to_owned(), "a-value".to_owned())).collect();
    let compiled = config::compile(text, &Environment { variables, ..Environment::default() });
    let compiled = compiled.unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
    compiled.plan
}

// === Dockerfile

/// What follows this word on the lines that begin with it, in the final stage.
fn instructions(word: &str) -> Vec<String> {
    let text = page("Dockerfile").replace("\\\n", " ");
    let (_, last) = text.split_once("\nFROM scratch\n").unwrap();
    let rest = |line: &str| line.strip_prefix(word)?.strip_prefix(' ').map(str::to_owned);
    last.lines().filter_map(rest).collect()
}

#[test]
fn the_image_serves_where_the_program_does_unless_told_otherwise() {
    assert_eq!(instructions("EXPOSE"), [default_port().to_string()]);
    assert_eq!(instructions("USER"), [format!("{USER}:{USER}")]);
    assert_eq!(instructions("VOLUME"), ["/data"]);
    assert_eq!(instructions("WORKDIR"), ["/"]);
    let shipped = plan(&page("libroseg.toml"), &[]);
    for queue in [&shipped.queue, &Plan::default().queue] {
        let dir = Path::new("/").join(&queue.dir);
        assert!(dir.starts_with("/data"), "{} is not in the volume", dir.display());
    }
}

#[test]
fn the_image_says_the_version_of_the_package() {
    let version = format!("org.opencontainers.image.version={:?}", env!("CARGO_PKG_VERSION"));
    assert!(instructions("LABEL").concat().contains(&version), "the Dockerfile has another version");
}

#[test]
fn the_image_is_built_with_the_rust_that_the_package_names_and_has_every_target_before_its_source() {
    let (manifest, recipe) = (page("Cargo.toml"), page("Dockerfile"));
    let toolchain =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    assert!(recipe.contains(&format!("/rust:{toolchain}-")), "it is built with another Rust than {toolchain}");
    // As the recipe finds them; one that is written otherwise would be missing there.
    assert!(recipe.contains(r#"sed -n 's/^path = "\(.*\)"$/\1/p' Cargo.toml"#));
    let found = manifest.lines().filter(|line| line.starts_with("path = \"") && line.ends_with(".rs\"")).count();
    let targets = ["[[bin]]", "[[test]]", "[[bench]]"].map(|header| manifest.matches(header).count());
    assert_eq!(found, targets.iter().sum::<usize>());
}

#[test]
fn what_is_copied_into_the_build_is_not_ignored() {
    let ignored = page(".dockerignore");
    let mut let_in: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let recipe = page("Dockerfile");
    let lines =
        recipe.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|rest| !rest.starts_with("--from="));
    let mut copied: Vec<&str> = lines.flat_map(|rest| rest.rsplit_once(' ').unwrap().0.split(' ')).collect();
    let_in.sort_unstable();
    copied.sort_unstable();
    assert_eq!(copied, let_in);
}

#[test]
fn the_sizes_that_the_page_tells_are_those_that_are_kept() {
    let (page, script) = (page("docs/containers.md"), page("tests/container/run"));
    let limit = |name: &str| script.split(&format!("{name}=")).nth(1).unwrap().split_whitespace().next().unwrap();
    for name in ["RELEASE_MB_MAX", "UNOPTIMISED_MB_MAX"] {
        let limit = limit(name);
        assert!(page.contains(&format!("below {limit} MB")), "docs/containers.md does not say {limit} MB");
    }
}

// === Compose

#[test]
fn compose_gives_the_image_what_it_needs_and_time_to_end() {
    let compose = &documents("examples/compose/compose.yaml")[0];
    let service = &compose["services"]["libroseg"];
    let port = default_port();
    assert_eq!(service["ports"], serde_json::json!([format!("{port}:{port}")]));
    assert_eq!(service["volumes"], serde_json::json!(["data:/data", "./libroseg:/etc/libroseg:ro"]));
    assert!(compose["volumes"].get("data").is_some());
    assert_eq!(service["read_only"], true);
    assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]));

    let plan = plan(&page("examples/compose/libroseg/libroseg.toml"), &["LIBROSEG_WRITE_KEY"]);
    assert!(service["environment"].get("LIBROSEG_WRITE_KEY").is_some());
    assert!(plan.queue.dir.starts_with("/data"));
    let grace = config_duration(service["stop_grace_period"].as_str().unwrap());
    assert!(grace >= plan.server.shutdown_timeout + FLUSH, "{grace:?}");
}

/// `30s`.
fn config_duration(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap())
}

// === Kubernetes

/// The file in the `ConfigMap`, with the variables of the `Secret`.
fn deployed() -> Plan {
    let (map, secret) = (resource("ConfigMap"), resource("Secret"));
    let names: Vec<&str> = secret["stringData"].as_object().unwrap().keys().map(String::as_str).collect();
    plan(map["data"]["libroseg.toml"].as_str().unwrap(), &names)
}

#[test]
fn a_pod_has_time_to_end_after_the_pause_before_its_end() {
    let set = resource("StatefulSet");
    let grace = seconds(&set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]);
    let pause = seconds(&container(&set)["lifecycle"]["preStop"]["sleep"]["seconds"]);
    assert!(grace > pause + deployed().server.shutdown_timeout + FLUSH, "{grace:?}");
}

#[test]
fn the_probes_ask_what_they_are_for_at_the_port_that_is_served() {
    let container = container(&resource("StatefulSet"));
    let asks = |probe: &str| container[probe]["httpGet"].clone();
    for (probe, path) in [("startupProbe", "/health"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")] {
        assert_eq!(asks(probe), serde_json::json!({ "path": path, "port": "http" }));
    }
    assert_eq!(container["ports"], serde_json::json!([{ "name": "http", "containerPort": default_port() }]));
    assert_eq!(deployed().server.listen, Server::default().listen);
    assert_eq!(resource("Service")["spec"]["ports"][0]["targetPort"], "http");
}

#[test]
fn a_pod_has_no_right_that_it_does_not_need() {
    let set = resource("StatefulSet");
    let pod = &set["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(pod["runAsNonRoot"], true);
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(pod[key], USER, "{key}");
    }
    let container = &container(&set)["securityContext"];
    let expected = serde_json::json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }
    });
    assert_eq!(*container, expected);
}

#[test]
fn a_pods_queue_is_in_its_volume_and_fits_in_it() {
    let (set, queue) = (resource("StatefulSet"), deployed().queue);
    let mounts = &container(&set)["volumeMounts"];
    assert_eq!((&mounts[0]["name"], &mounts[0]["mountPath"]), (&"data".into(), &"/data".into()));
    assert_eq!((&mounts[1]["name"], &mounts[1]["mountPath"]), (&"config".into(), &"/etc/libroseg".into()));
    assert_eq!(mounts[1].get("subPath"), None, "it would never change");
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["metadata"]["name"], "data");
    assert!(queue.dir.starts_with("/data"));
    let gibibytes = claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap().strip_suffix("Gi").unwrap();
    let room = gibibytes.parse::<u64>().unwrap() << 30;
    assert!(queue.size_bytes_max + queue.letters_bytes_max < room * 9 / 10, "{room}");
}

#[test]
fn the_resources_name_each_other() {
    let set = resource("StatefulSet");
    let template = &set["spec"]["template"];
    let labels = &template["metadata"]["labels"];
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&resource("Service")["spec"]["selector"], labels);
    assert_eq!(set["spec"]["serviceName"], resource("Service")["metadata"]["name"]);
    assert_eq!(container(&set)["envFrom"][0]["secretRef"]["name"], resource("Secret")["metadata"]["name"]);
    assert_eq!(template["spec"]["volumes"][0]["configMap"]["name"], resource("ConfigMap")["metadata"]["name"]);
    let image = container(&set)["image"].as_str().unwrap().to_owned();
    assert!(image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))), "{image}");
}

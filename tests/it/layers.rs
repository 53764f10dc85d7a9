//! A destination stands on another one, or on a preset, and says only what is different.

use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, Fake, TestApp};

/// `Authorization` of a user without password.
fn basic(user: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:")))
}

#[tokio::test]
async fn two_instances_of_a_preset_send_to_their_own_places_with_their_own_tokens() {
    let (us, eu) = (Fake::start(), Fake::start());
    let lines = format!(
        "[destinations.mixpanel]\nextends = \"mixpanel\"\nurl = \"{}\"\n\
         [destinations.mixpanel_eu]\nextends = \"mixpanel\"\nurl = \"{}\"\n\
         env = {{ MIXPANEL_TOKEN = \"{{{{ env.EU_TOKEN }}}}\" }}\n",
        us.url(),
        eu.url()
    );
    let variables = [("MIXPANEL_TOKEN", "token-of-the-us"), ("EU_TOKEN", "token-of-the-eu")];
    let app = TestApp::with_variables(&lines, &variables).await;

    app.post("/v1/identify", &json!({ "userId": "u1", "traits": { "plan": "pro" } })).await.accepted();
    app.run_for(Duration::from_secs(5)).await;

    for (fake, token) in [(us, "token-of-the-us"), (eu, "token-of-the-eu")] {
        let requests = fake.requests();
        assert_eq!(requests.len(), 1);
        assert!(requests[0].path.starts_with("/engage?verbose=1"));
        assert_eq!(requests[0].headers["authorization"], basic(token).as_str());
        assert_eq!(requests[0].body[0]["$token"], token);
        assert_eq!(requests[0].body[0]["$set"], json!({ "plan": "pro" }));
    }
}

#[tokio::test]
async fn only_the_variable_that_is_read_has_to_be_set() {
    let fake = Fake::start();
    let lines = format!(
        "[destinations.search]\nextends = \"elasticsearch\"\n[destinations.search.env]\n\
         ELASTICSEARCH_URL = \"{}/{{{{ env.SHOP }}}}\"\nELASTICSEARCH_API_KEY = \"{{{{ env.SHOP_KEY }}}}\"\n",
        fake.url()
    );
    let app = TestApp::with_variables(&lines, &[("SHOP", "shoes"), ("SHOP_KEY", "the-key-of-the-shop")]).await;

    app.track("u1", "Any").await;
    app.run_for(Duration::from_secs(5)).await;

    assert_eq!(fake.requests()[0].path, "/shoes/_bulk");
    assert_eq!(fake.requests()[0].headers["authorization"], "ApiKey the-key-of-the-shop");
}

#[tokio::test]
async fn a_secret_under_another_name_is_masked_in_what_is_kept_of_a_failure() {
    let fake = Fake::replying([Answer::status(400)]);
    let lines = format!(
        "[destinations.mp]\nextends = \"mixpanel\"\nurl = \"{}\"\n\
         env = {{ MIXPANEL_TOKEN = \"{{{{ env.EU_TOKEN }}}}\" }}\n",
        fake.url()
    );
    let app = TestApp::with_variables(&lines, &[("EU_TOKEN", "token-of-the-eu")]).await;

    app.post("/v1/identify", &json!({ "userId": "u1", "traits": { "plan": "pro" } })).await.accepted();
    app.run_for(Duration::from_secs(5)).await;

    let letters = format!("{:?}", app.dead_letters("mp").await);
    assert!(letters.contains("[secret]") && letters.contains("***"), "{letters}");
    assert!(!letters.contains("token-of-the-eu") && !letters.contains(&basic("token-of-the-eu")[6..]), "{letters}");
}

#[tokio::test]
async fn own_rules_come_first_and_the_inherited_ones_after_them() {
    let fake = Fake::start();
    let lines = format!(
        "[destinations.base]\nurl = \"{url}/base\"\nmethod = \"PUT\"\n\
         [[destinations.base.rules]]\non = \"track\"\npath = \"/tracked\"\n\
         [[destinations.base.rules]]\npath = \"/any\"\n\
         [destinations.child]\nextends = \"base\"\nurl = \"{url}/child\"\n\
         [[destinations.child.rules]]\non = \"track:Special\"\npath = \"/special\"\nfinal = true\n\
         [destinations.alone]\nextends = \"base\"\nurl = \"{url}/alone\"\nrules = []\n",
        url = fake.url()
    );
    let app = TestApp::start(&lines).await;

    app.track("u1", "Usual").await;
    app.track("u1", "Special").await;
    app.quiet().await;

    let paths_of = |name: &str| {
        let mut all: Vec<_> = fake.requests().into_iter().filter(|r| r.path.starts_with(name)).collect();
        all.sort_by_key(|request| request.body["event"] == "Special");
        assert!(all.iter().all(|request| request.method == "PUT"), "what is not said is inherited");
        all.into_iter().map(|request| request.path).collect::<Vec<_>>()
    };
    assert_eq!(paths_of("/child"), ["/child/tracked", "/child/any", "/child/special"]);
    assert_eq!(paths_of("/alone"), ["/alone", "/alone"]);
    assert_eq!(paths_of("/base"), ["/base/tracked", "/base/any", "/base/tracked", "/base/any"]);
}

#[tokio::test]
async fn own_answers_are_asked_before_those_of_the_preset() {
    let fake = Fake::replying([Answer::status(400).body(r#"{"failed_records":[{"index":0}]}"#)]);
    let lines = format!(
        "[destinations.mp]\nextends = \"mixpanel\"\nurl = \"{}\"\nenv = {{ MIXPANEL_TOKEN = \"token\" }}\n\
         [[destinations.mp.response]]\nwhen = \"$.status == 400\"\nthen = \"drop\"\n",
        fake.url()
    );
    let app = TestApp::start(&lines).await;

    app.track("u1", "Any").await;
    app.run_for(Duration::from_secs(5)).await;

    assert!(app.dead_letters("mp").await.is_empty(), "the preset's own word is `dead`");
    assert_eq!(app.books("mp").waiting(), 0);
}

#[tokio::test]
async fn an_entry_of_a_presets_table_is_replaced_and_others_are_added() {
    let fake = Fake::start();
    let lines = format!(
        "[tables.ga4_events]\n\"Order Completed\" = \"sale\"\n\"Trial Started\" = \"trial\"\n\
         [destinations.ga4]\nextends = \"ga4\"\nurl = \"{}\"\n\
         env = {{ GA4_MEASUREMENT_ID = \"G-1\", GA4_API_SECRET = \"{{{{ env.GA4 }}}}\" }}\n",
        fake.url()
    );
    let app = TestApp::with_variables(&lines, &[("GA4", "secret")]).await;

    for event in ["Order Completed", "Trial Started", "Product Viewed"] {
        app.track("u1", event).await;
    }
    app.run_for(Duration::from_secs(5)).await;

    let bodies = fake.bodies();
    let names: Vec<_> = bodies.iter().flat_map(|body| body["events"].as_array().unwrap()).map(|e| &e["name"]).collect();
    assert_eq!(names, ["sale", "trial", "view_item"]);
}

#[tokio::test]
async fn a_change_of_what_it_extends_is_a_change_of_a_destination() {
    let fake = Fake::start();
    let file = |version: u32, comment: &str| {
        format!(
            "[destinations.base]\nenabled = false\nbody = {{ v = {version} }}\nurl = \"{}\"\n{comment}\n\
             [destinations.child]\nextends = \"base\"\nenabled = true\n",
            fake.url()
        )
    };
    let app = TestApp::start(&file(1, "")).await;
    let generation = |app: &TestApp| app.app.reload.current().plan.destinations[0].fingerprint;
    let before = generation(&app);

    assert!(app.reload(&file(1, "# nothing new")).await);
    assert_eq!(generation(&app), before, "a comment changes nothing");
    assert!(app.reload(&file(2, "")).await);
    assert_ne!(generation(&app), before);
    app.track("u1", "Any").await;
    app.quiet().await;

    assert_eq!(fake.bodies(), [json!({ "v": 2 })]);
}

#[tokio::test]
async fn a_variable_has_another_value_only_where_the_file_says_so() {
    let fake = Fake::start();
    let lines = format!(
        "[let]\nwho = \"{{{{ env.WHO }}}}\"\n[defaults]\nurl = \"{}\"\nbody = {{ who = \"{{{{ who }}}}\" }}\n\
         [destinations.a]\nenv = {{ WHO = \"{{{{ env.OTHER }}}}\" }}\n[destinations.b]\n",
        fake.url()
    );
    let app = TestApp::with_variables(&lines, &[("WHO", "everybody"), ("OTHER", "somebody")]).await;

    app.track("u1", "Any").await;
    app.quiet().await;

    let mut told: Vec<_> = fake.bodies().iter().map(|body| body["who"].as_str().unwrap().to_owned()).collect();
    told.sort();
    assert_eq!(told, ["everybody", "somebody"]);
}

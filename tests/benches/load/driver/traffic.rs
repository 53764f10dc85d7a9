//! What SDKs send, made up: tracks, pages and identifies of a shop, no two alike.

use std::fmt::Write as _;

use fastrand::Rng;
use serde_json::{Value, json};

/// Requests that are sent over and over, each time with other message ids. They are far more than what a compressor
/// remembers, so none of them gains from another.
const POOL: usize = 512;

/// What stands before the sixteen digits of a message id that differ each time.
const MARK: &str = "ajs-next-1795381557600-";
const DIGITS: usize = 16;

const WORDS: [&str; 64] = [
    "academy", "amber", "anchor", "apple", "autumn", "basket", "birch", "blanket", "blue", "bottle", "bread", "bridge",
    "candle", "canvas", "cedar", "chair", "cherry", "cloud", "coffee", "copper", "cotton", "desk", "door", "ember",
    "feather", "field", "forest", "garden", "ginger", "glass", "harbour", "hazel", "honey", "island", "ivory",
    "kettle", "lamp", "lemon", "linen", "maple", "marble", "meadow", "mirror", "mug", "navy", "oak", "olive", "orange",
    "paper", "pepper", "pine", "plate", "quartz", "river", "rose", "saddle", "silver", "slate", "spoon", "stone",
    "table", "velvet", "walnut", "willow",
];

const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 26_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
];

/// How large events are.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    /// As SDKs make them: some 300 to 900 bytes.
    Mixed,
    /// Tracks with so many bytes, filled up with properties.
    Bytes(usize),
}

/// One request, ready to be sent but for its ids.
pub(crate) struct Template {
    pub(crate) bytes: Vec<u8>,
    ids: Vec<usize>,
}

/// Requests of the same kind.
pub(crate) struct Traffic {
    pub(crate) templates: Vec<Template>,
    pub(crate) events_per_request: usize,
    /// Of JSON, of an event as it is sent, on average.
    pub(crate) event_bytes: f64,
}

// === impl Traffic ===

impl Traffic {
    /// Requests with so many events each; those with one go where their kind goes, as SDKs for servers and browsers do.
    pub(crate) fn new(events_per_request: usize, size: Size) -> Self {
        let mut dice = Rng::with_seed(1);
        let (mut json_bytes, mut events) = (0, 0);
        let templates = (0..POOL.div_ceil(events_per_request).max(16))
            .map(|_| {
                let batch: Vec<Value> = (0..events_per_request).map(|_| event(&mut dice, size)).collect();
                json_bytes += batch.iter().map(|event| event.to_string().len()).sum::<usize>();
                events += batch.len();
                Template::new(&batch)
            })
            .collect();
        #[allow(clippy::cast_precision_loss, reason = "some kilobytes")]
        let event_bytes = json_bytes as f64 / f64::from(u32::try_from(events).expect("a few"));
        Self { templates, events_per_request, event_bytes }
    }
}

// === impl Template ===

impl Template {
    fn new(batch: &[Value]) -> Self {
        let (path, body) = match batch {
            [event] => (event["type"].as_str().expect("a type").to_owned(), event.to_string()),
            batch => ("batch".to_owned(), json!({ "batch": batch, "sentAt": "2026-11-22T21:05:58.000Z" }).to_string()),
        };
        let head = format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic a2V5Og==\r\n\
             content-type: application/json\r\nuser-agent: analytics-node/3.0.0\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let bytes = head + &body;
        let ids = bytes.match_indices(MARK).map(|(at, mark)| at + mark.len()).collect();
        Self { bytes: bytes.into_bytes(), ids }
    }

    /// Gives each event an id of its own: `count` is how many ids were given before, which is answered anew.
    pub(crate) fn renew(&self, count: u64, into: &mut Vec<u8>) -> u64 {
        into.clear();
        into.extend_from_slice(&self.bytes);
        let mut count = count;
        for at in &self.ids {
            // An odd factor maps numbers to numbers one to one, and spreads them.
            let id = count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            for (place, digit) in into[*at..*at + DIGITS].iter_mut().enumerate() {
                *digit = b"0123456789abcdef"[(id >> (60 - 4 * place) & 15) as usize];
            }
            count += 1;
        }
        count
    }
}

/// A track call with exactly these many bytes of JSON, or as near as whole words come.
fn event(dice: &mut Rng, size: Size) -> Value {
    match size {
        Size::Mixed => match dice.u32(..100) {
            ..60 => track(dice),
            60..85 => {
                let event = json!({ "type": "page", "name": title(dice), "properties": page(dice) });
                with_context(dice, event)
            }
            85.. => {
                let event = json!({ "type": "identify", "traits": traits(dice) });
                with_context(dice, event)
            }
        },
        Size::Bytes(bytes) => {
            let mut event = json!({
                "type": "track", "event": title(dice), "userId": format!("u-{}", dice.u32(..)),
                "messageId": message_id(dice), "properties": {},
            });
            let mut room = bytes.saturating_sub(event.to_string().len());
            for n in 0.. {
                // `"p00":"",` is what a property needs beside its words.
                let words = text(dice, room.saturating_sub(10).min(120));
                if words.is_empty() {
                    break;
                }
                let before = words.len() + 10;
                event["properties"][format!("p{n:02}")] = words.into();
                room = room.saturating_sub(before);
            }
            event
        }
    }
}

fn track(dice: &mut Rng) -> Value {
    let products: Vec<Value> = (0..dice.u32(1..4))
        .map(|_| {
            json!({ "product_id": hex(dice, 8), "sku": format!("{}-{}", word(dice), dice.u32(..1000)), "name": title(dice),
                "price": f64::from(dice.u32(100..20_000)) / 100.0, "quantity": dice.u32(1..5) })
        })
        .collect();
    let currency = ["EUR", "USD", "GBP"][dice.usize(..3)];
    let properties = json!({
        "order_id": hex(dice, 12), "total": f64::from(dice.u32(1_000..90_000)) / 100.0,
        "currency": currency, "coupon": null, "products": products,
    });
    let event = ["Order Completed", "Product Added", "Checkout Started"][dice.usize(..3)];
    with_context(dice, json!({ "type": "track", "event": event, "properties": properties }))
}

fn page(dice: &mut Rng) -> Value {
    let path = format!("/{}/{}", word(dice), word(dice));
    json!({ "path": path, "referrer": "", "search": format!("?q={}", word(dice)), "title": title(dice),
        "url": format!("https://shop.example.com{path}") })
}

fn traits(dice: &mut Rng) -> Value {
    json!({ "email": format!("{}.{}@example.com", word(dice), hex(dice, 4)), "plan": word(dice),
        "name": title(dice), "createdAt": "2026-03-01T12:00:00.000Z", "logins": dice.u32(..5_000) })
}

fn with_context(dice: &mut Rng, mut event: Value) -> Value {
    let second = dice.u32(..60);
    event["messageId"] = message_id(dice).into();
    event["anonymousId"] = [8, 4, 4, 4, 12].map(|digits| hex(dice, digits)).join("-").into();
    if dice.bool() {
        event["userId"] = format!("user-{}", dice.u32(..10_000_000)).into();
    }
    event["timestamp"] = format!("2026-11-22T21:05:{second:02}.{:03}Z", dice.u32(..1000)).into();
    event["context"] = json!({
        "page": page(dice), "userAgent": AGENTS[dice.usize(..AGENTS.len())], "locale": "en-GB",
        "library": { "name": "analytics.js", "version": "next-1.84.3" }, "timezone": "Europe/Berlin",
    });
    event
}

/// The mark, sixteen digits that are renewed, and twenty that are not.
fn message_id(dice: &mut Rng) -> String {
    format!("{MARK}{}{}", "0".repeat(DIGITS), hex(dice, 20))
}

fn word(dice: &mut Rng) -> &'static str {
    WORDS[dice.usize(..WORDS.len())]
}

fn title(dice: &mut Rng) -> String {
    format!("{} {} {}", word(dice), word(dice), word(dice))
}

/// Words of up to so many bytes in all.
fn text(dice: &mut Rng, bytes_max: usize) -> String {
    let mut text = String::new();
    loop {
        let word = word(dice);
        if text.len() + word.len() + 1 > bytes_max {
            return text;
        }
        let _ = write!(text, "{}{word}", if text.is_empty() { "" } else { " " });
    }
}

fn hex(dice: &mut Rng, digits: usize) -> String {
    (0..digits).map(|_| char::from(b"0123456789abcdef"[dice.usize(..16)])).collect()
}

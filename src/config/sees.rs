//! Which names exist where: the one list, for the compiler of expressions and for the reference.

/// The fields of an event that are names of their own (<https://segment.com/docs/connections/spec/common/>, read
/// 2026-11-22).
const EVENT_FIELDS: [&str; 19] = [
    "type",
    "event",
    "userId",
    "anonymousId",
    "messageId",
    "timestamp",
    "originalTimestamp",
    "sentAt",
    "receivedAt",
    "properties",
    "traits",
    "context",
    "integrations",
    "groupId",
    "previousId",
    "name",
    "category",
    "channel",
    "version",
];

/// What else depends on the event.
const EVENT_NAMES: [&str; 2] = ["message", "source"];
const ITEM_NAMES: [&str; 2] = ["item", "index"];
const REPLY_NAMES: [&str; 3] = ["status", "headers", "body"];
const REQUEST_NAMES: [&str; 7] = ["body", "method", "url", "path", "query", "timestamp", "id"];

/// Every name that expressions see: names, what they are, where they are there.
#[must_use]
pub fn names() -> [(&'static [&'static str], &'static str, &'static str); 10] {
    let with_event = "with an event";
    [
        (&EVENT_FIELDS, "the event's own fields", with_event),
        (&["message"], "the whole event, for any other field", with_event),
        (&["source"], "the name of its source", with_event),
        (&["now"], "the time, as `2026-01-02T03:04:05.678Z`", "with an event, in `batch.body`"),
        (&ITEM_NAMES, "the element of an `each`, and its place from 0", "where `each` is"),
        (&["items"], "the items of a batch", "in `batch.body`"),
        (&REPLY_NAMES, "the answer", "in `response`"),
        (&REQUEST_NAMES, "the request that is signed", "in `auth.hmac`"),
        (&["env", "tables"], "variables, and `[tables.NAME]`", "everywhere"),
        (&["names of `let`"], "what they say", "with an event; in `batch.body` if they read none"),
    ]
}

/// What a template can see, by where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// Variables, files and tables: settled when the file is read.
    File,
    /// An event.
    Event,
    /// An event and one element of an `each`.
    Item,
    /// The items of a batch.
    Batch,
    /// The items of a batch and one element of an `each`.
    BatchItem,
    /// A reply.
    Reply,
    /// A reply and one element of an `each`.
    ReplyItem,
    /// A request that is about to be signed.
    Request,
}

// === impl Sees ===

impl Sees {
    pub(super) const ALL: [Self; 8] = [
        Self::File,
        Self::Event,
        Self::Item,
        Self::Batch,
        Self::BatchItem,
        Self::Reply,
        Self::ReplyItem,
        Self::Request,
    ];

    /// Whether an event has a field that is a name of its own.
    pub(super) fn is_event_field(name: &str) -> bool {
        EVENT_FIELDS.contains(&name)
    }

    pub(super) fn knows(self, root: &str) -> bool {
        self.words().contains(&root)
    }

    pub(super) fn has_lets(self) -> bool {
        match self {
            Self::Event | Self::Item | Self::Batch | Self::BatchItem => true,
            Self::File | Self::Reply | Self::ReplyItem | Self::Request => false,
        }
    }

    /// The names there are, without the `let`s.
    pub(super) fn words(self) -> Vec<&'static str> {
        let lists: &[&[&'static str]] = match self {
            Self::File => &[],
            Self::Event => &[&["now"], &EVENT_FIELDS, &EVENT_NAMES],
            Self::Item => &[&["now"], &ITEM_NAMES, &EVENT_FIELDS, &EVENT_NAMES],
            Self::Batch => &[&["now", "items"]],
            Self::BatchItem => &[&["now", "items"], &ITEM_NAMES],
            Self::Reply => &[&REPLY_NAMES],
            Self::ReplyItem => &[&REPLY_NAMES, &ITEM_NAMES],
            Self::Request => &[&["now"], &REQUEST_NAMES],
        };
        lists.iter().flat_map(|list| list.iter().copied()).chain(["env", "tables"]).collect()
    }

    /// Why a name that exists elsewhere does not exist here.
    pub(super) fn explanation(self, root: &str) -> &'static str {
        match self {
            Self::File => {
                "this is settled when the file is read: only `env.NAME`, `file('…')` and `tables` can be used"
            }
            Self::Request => {
                "a request that is signed has `body`, `method`, `url`, `path`, `query`, `timestamp`, `id` and `now`"
            }
            Self::Batch | Self::Event | Self::Item | Self::Reply | Self::ReplyItem if ITEM_NAMES.contains(&root) => {
                "`item` and `index` exist where `each` is"
            }
            Self::Batch | Self::BatchItem => {
                "a batch is of many events: only `items`, `env`, `tables` and `now` can be used"
            }
            Self::Event | Self::Item if root == "items" => "`items` exists in `batch.body`",
            Self::Event | Self::Item if matches!(root, "method" | "url" | "path" | "query" | "id") => {
                "this is known of a request that is signed, in `auth.hmac`"
            }
            Self::Event | Self::Item => "the reply is known in `[[response]]` only",
            Self::Reply | Self::ReplyItem => "a reply has `status`, `headers` and `body`; the event is not known here",
        }
    }
}

/// Whether a name depends on the event.
pub(super) fn is_of_event(root: &str) -> bool {
    EVENT_FIELDS.contains(&root) || EVENT_NAMES.contains(&root)
}

//! What a file can have wrong, kind by kind: the one list of the words that `--check` tells scripts.
//!
//! A finding has a [`Code`], so a kind that is not listed here cannot be told, and the reference has them all.

use std::fmt;

use super::diagnostic::Severity;

/// From one list: the kinds, their words, and what the reference says of them.
macro_rules! codes {
    ($($severity:ident { $($(#[$note:meta])* $variant:ident $word:literal: $meaning:literal, $mend:literal;)+ })+) => {
        /// A kind of mistake or oddity. Its word is stable; its order is the reference's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $meaning] $(#[$note])* $variant,)+)+
        }

        impl Code {
            /// Every kind.
            pub const ALL: &[Self] = &[$($(Self::$variant,)+)+];

            /// The word for scripts, in kebab case: `unknown-key`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$variant => $word,)+)+
                }
            }

            /// What is wrong, as a sentence without its period.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $($(Self::$variant => $meaning,)+)+
                }
            }

            /// How to mend it, as a sentence without its period.
            #[must_use]
            pub const fn mend(self) -> &'static str {
                match self {
                    $($(Self::$variant => $mend,)+)+
                }
            }

            /// Whether the file can be used all the same.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $($(Self::$variant => Severity::$severity,)+)+
                }
            }
        }
    };
}

codes! {
    Error {
        // --- the file
        Syntax "syntax": "The text is not TOML, or has a key twice", "Write what the caret points at as https://toml.io says";
        EmptyFile "empty-file": "There is nothing in the file", "If it is meant to be empty, leave a comment in it: an editor that saves in place empties a file first";
        TooMany "too-many": "There are more mistakes than are shown", "Mend those that are shown and check again";

        // --- keys
        UnknownKey "unknown-key": "No key of this name exists in this table", "Correct its spelling, or move it to the table that has it";
        MisplacedKey "misplaced-key": "The key exists, but means nothing here", "Move it to where it belongs, or remove it";
        NotAvailable "not-available": "The key or word is reserved for a later version", "Leave it out";
        MissingKey "missing-key": "A key that must be given is not there", "Add it";
        DuplicateWriteKey "duplicate-write-key": "Two sources, or one twice, have the same write key", "Give every source keys of its own";
        UnknownExtends "unknown-extends": "What a destination `extends` is neither a destination of the file nor a preset", "Name one of those that the message lists";
        ExtendsCycle "extends-cycle": "A destination extends itself, by way of others, or stands on very many", "Take one `extends` out of the circle";
        UnknownDestination "unknown-destination": "No destination has this name", "Name one that is in the file";
        OverflowCycle "overflow-cycle": "A destination would be handed its own events by `overflow`", "Take one step out of the circle";
        UnknownSource "unknown-source": "No source has this name", "Name one that is in the file";

        // --- values
        WrongType "wrong-type": "The value is of another type than the key needs", "Write a value of the type that is named";
        OutOfRange "out-of-range": "The number, duration or size is smaller or larger than the key allows", "Choose one within the limits that are named";
        BadValue "bad-value": "The value is of the right type, but nothing the key understands", "Choose one of the values that are named";
        MissingValue "missing-value": "An expression that must have a value when the file is read has none", "Give it one: set the variable, or write `| default('…')`";
        BadPath "bad-path": "A path of a URL, a file, a folder or a socket cannot be used", "Write it as the message says";
        BadUrl "bad-url": "The value is not a URL with scheme and host", "Write `https://`, a host, and what follows";
        BadHeader "bad-header": "A header's name or value cannot be sent, or is set twice", "Rename it, or leave it to the HTTP client or to `auth`";
        BadKey "bad-key": "A key cannot be used to sign, or Google's credentials cannot be used", "Look at how it is encoded, and whether it is all there; what it says is never shown";
        PathAfterQuery "path-after-query": "`path` would be appended behind the `?` of `url`", "Put the parameters into `query`";
        HostFromEvent "host-from-event": "An event could choose where it is sent", "Write scheme and host as constants; events may shape what follows the host's `/`";
        BadJson "bad-json": "A string that holds JSON cannot be read as JSON", "Correct it where the caret points";
        BadRow "bad-row": "A row has a column that `schema` does not declare, lacks one that must have a value, or gives one a value of another type", "Make the row and `schema` agree";
        BadSchema "bad-schema": "A tracking plan's schema is not JSON, is no JSON Schema, or refers to another one", "Correct it where the message says";
        AlwaysTrue "always-true": "A condition is text around an expression, which always holds", "Write one `{{ expression }}` and nothing around it";

        // --- expressions
        BadExpression "bad-expression": "A template or a `JSONPath` cannot be read, or uses a filter, test or function that does not exist", "Correct it where the caret points";
        ExpressionFails "expression-fails": "A template whose values are all known fails with them", "Correct the expression, or the variable it reads";
        UnknownName "unknown-name": "No such name exists, or not in this place", "Use one of the names that this place sees";
        UnknownTable "unknown-table": "There is no `[tables.NAME]` of this name", "Add it, or name one that is there";
        UnsetVariable "unset-variable": "An environment variable is not set", "Set it, or write `{{ env.NAME | default('…') }}`";
        UnreadableFile "unreadable-file": "The file that `file('…')` names cannot be read", "Correct the path, or who may read it";
        BadName "bad-name": "A name cannot be used in expressions, or belongs to the language", "Choose letters, digits and `_`, and no word of the language";
        LetCycle "let-cycle": "A `let` is defined by itself", "Take one step out of the circle";
        LetDepth "let-depth": "A `let` builds on too many others", "Write some of them as one expression";

        // --- tests
        TestFailed "test-failed": "A test of the file does not hold", "Correct the mapping, or what is expected: `libroseg test --update` writes down what is made";
        // --- where it is to run
        NotOnTarget "not-on-target": "What the file asks for is impossible where it is to run", "Write what the message says, or run it on a machine";
    }
    Warning {
        NoSources "no-sources": "There are no `[sources]`: nobody can send", "Add `[sources.NAME]` with `write_keys`";
        NoDestinations "no-destinations": "There are no `[destinations]`: events go nowhere", "Add `[destinations.NAME]`";
        JsonTwice "json-twice": "A value is written as JSON text where it would become JSON by itself", "Leave `| json` out";
        Unused "unused": "A `let`, a table or a name in `env` is defined and never used", "Use it or remove it";
        Shadowed "shadowed": "A `let` hides a field of the event", "Rename it, or read the field as `message.NAME`";
        Unreachable "unreachable": "A rule or a response can never be asked: one before it takes everything", "Move it up, or narrow the one before it";
        NoEffect "no-effect": "A key has no effect as the file stands", "Remove it, or change what it depends on";
        OrderOfAll "order-of-all": "`order_by` is the same for every event: each waits for the one before it", "Order by something of the event, such as `{{ userId or anonymousId }}`";
        PastedSecret "pasted-secret": "A secret is written into the file", "Write `{{ env.NAME }}` or `{{ file('…') }}` instead";
        SignsNothing "signs-nothing": "What is signed is the same for every request", "Sign the body: `{{ body }}`, or leave `message` out";
        NoTls "no-tls": "Events and secrets travel unencrypted to a public host", "Write `https://`";
        ExpectsNothing "expects-nothing": "A test has neither `expect` nor `outcome`", "Say what is expected, or have `libroseg test --update` write it down";
        SameName "same-name": "Two tests of one destination are called the same", "Say in each what it alone holds";
        IdleOnTarget "idle-on-target": "What the file says means nothing where it is to run", "Remove it, unless the same file runs elsewhere too";
        MayLose "may-lose": "Where it is to run, an event whose sender has heard 200 may be lost", "Have the sender hear of it (`ack = \"delivered\"`), or name who takes what is left (`overflow`)";
        UnusualMethod "unusual-method": "The HTTP method is one that hardly any service has", "Correct its spelling, if it is a slip";
    }
    Note {
        MayRepeat "may-repeat": "A request may be sent twice, and nothing in it says that it is the same event", "Give the service `{{ messageId }}` as its idempotency key, if it knows one";
        CredentialsFound "credentials-found": "The file says nothing of who we are at Google, so the application default credentials were looked for", "Give `credentials`, if others are meant";
        LooksEverywhere "looks-everywhere": "A path with `..` looks at every value of every event", "Name the path, if it is known";
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Code;

    #[test]
    fn every_word_is_its_own_and_in_kebab_case() {
        let words: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(words.iter().all(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-')), "{words:?}");
    }

    #[test]
    fn what_is_said_of_a_code_is_a_sentence_without_its_period() {
        for code in Code::ALL {
            for text in [code.meaning(), code.mend()] {
                let starts_right = text.starts_with(|c: char| c.is_uppercase() || c == '`');
                assert!(starts_right && !text.ends_with('.'), "{code}: {text}");
            }
        }
    }
}

//! What a value in JSON becomes in a column, by the rules of `insertAll`:
//! <https://docs.cloud.google.com/bigquery/docs/loading-data-cloud-storage-json#details_of_loading_json_data> for the forms
//! of each type, and `_helpers.py` of google-cloud-bigquery for what Google's own client sends (both read 2026-11-26).
//!
//! The rows of a request are `google.protobuf.Struct`: each number is a double before a column sees it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, Timestamp};
use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value, json};

use super::schema::{Field, Kind, Mode};

/// Why a row is refused, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) location: String,
    pub(super) message: String,
}

/// How a row is looked at.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    pub(super) now: Timestamp,
    pub(super) ignores_unknown: bool,
    /// Whether what is stored is wanted, or only whether it could be.
    pub(super) keeps: bool,
}

impl Reading {
    /// The row as it is stored, or the first thing that is wrong: the service tells no more.
    pub(super) fn row(self, columns: &[Field], row: &Map<String, Value>) -> Result<Map<String, Value>, Wrong> {
        self.record(columns, row, "")
    }

    fn record(self, fields: &[Field], record: &Map<String, Value>, path: &str) -> Result<Map<String, Value>, Wrong> {
        let mut stored = Map::with_capacity(if self.keeps { record.len() } else { 0 });
        for (name, value) in record {
            let known = fields.iter().find(|field| field.name == *name && field.known_from <= self.now);
            if let Some(field) = known {
                let value = self.field(field, value, &at(path, name))?;
                if self.keeps {
                    stored.insert(name.clone(), value);
                }
            } else if !self.ignores_unknown {
                return Err(wrong(&at(path, name), format!("no such field: {name}.")));
            }
        }
        let is_due = |field: &&Field| field.mode == Mode::Required && field.known_from <= self.now;
        let is_missing = |field: &&Field| is_due(field) && record.get(&field.name).is_none_or(Value::is_null);
        match fields.iter().find(is_missing) {
            Some(field) => Err(missing(&at(path, &field.name))),
            None => Ok(stored),
        }
    }

    fn field(self, field: &Field, value: &Value, path: &str) -> Result<Value, Wrong> {
        match (field.mode, value) {
            (Mode::Repeated, Value::Array(items)) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    if item.is_null() {
                        return Err(empty(&path));
                    }
                    self.one(field, item, &path)
                });
                items.collect()
            }
            (Mode::Repeated, Value::Null) => Err(empty(path)),
            // The sentence is ours.
            (Mode::Repeated, _) => Err(wrong(path, format!("Repeated field must be an array: {}.", field.name))),
            (Mode::Required, Value::Null) => Err(missing(path)),
            (Mode::Nullable, Value::Null) => Ok(Value::Null),
            (Mode::Nullable | Mode::Required, Value::Array(_)) => {
                Err(wrong(path, format!("Array specified for non-repeated field: {}.", field.name)))
            }
            (Mode::Nullable | Mode::Required, value) => self.one(field, value, path),
        }
    }

    fn one(self, field: &Field, value: &Value, path: &str) -> Result<Value, Wrong> {
        match (field.kind, value) {
            (Kind::Record, Value::Object(record)) => self.record(&field.fields, record, path).map(Value::Object),
            (_, Value::Object(_)) => Err(wrong(path, format!("This field: {} is not a record.", field.name))),
            // The sentence is ours.
            (Kind::Record, _) => {
                Err(wrong(path, format!("Cannot convert value to record (bad value): {}", told(value))))
            }
            (_, value) => scalar(field, value).map_err(|message| wrong(path, message)),
        }
    }
}

fn at(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn wrong(location: &str, message: String) -> Wrong {
    Wrong { location: location.to_owned(), message }
}

/// Nothing says where: `location` is empty.
fn missing(path: &str) -> Wrong {
    wrong("", format!("Missing required field: Msg_0_CLOUD_QUERY_TABLE.{path}."))
}

fn empty(path: &str) -> Wrong {
    wrong(path, "Field value cannot be empty.".to_owned())
}

/// A value as a sentence quotes it.
fn told(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value that is neither `null`, an array nor an object.
fn scalar(field: &Field, value: &Value) -> Result<Value, String> {
    let name = &field.name;
    let bad = |what: &str| Err(format!("Cannot convert value to {what} (bad value): {}", told(value)));
    match (field.kind, value) {
        (Kind::Json, Value::String(text)) => json_text(text),
        (Kind::String, Value::String(text)) => fitting(field, text, text.chars().count()),
        (Kind::String, Value::Number(number)) => {
            let text = number_text(number);
            fitting(field, &text, text.len())
        }
        (Kind::String | Kind::Json, Value::Bool(_)) => {
            Err("Conversion from bool to std::string is unsupported.".to_owned())
        }
        (Kind::Bytes, Value::String(text)) => match BASE64.decode(text) {
            Ok(bytes) => fitting(field, text, bytes.len()),
            Err(_) => Err(format!("Could not decode base64 string to bytes. Field: {name}; Value: {text}")),
        },
        (Kind::Integer, Value::Number(number)) => {
            integer(number).map_or_else(|| bad("integer"), |whole| Ok(whole.into()))
        }
        (Kind::Integer, Value::String(text)) => {
            text.parse::<i64>().map_or_else(|_| bad("integer"), |whole| Ok(whole.into()))
        }
        (Kind::Float, Value::Number(number)) => Ok(json!(number.as_f64())),
        (Kind::Float, Value::String(text)) => float(text).map_or_else(|| bad("double"), Ok),
        (Kind::Numeric | Kind::BigNumeric, Value::Number(number)) => decimal(field, &number_text(number)),
        (Kind::Numeric | Kind::BigNumeric, Value::String(text)) => decimal(field, text),
        (Kind::Boolean, Value::Bool(_)) => Ok(value.clone()),
        (Kind::Boolean, Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(format!("Cannot convert string value to boolean: {text}")),
        },
        (Kind::Timestamp, Value::Number(number)) => epoch(number.as_f64()).map_or_else(|| no_timestamp(value), Ok),
        (Kind::Timestamp, Value::String(text)) => timestamp(text).map_or_else(|| no_timestamp(value), Ok),
        (Kind::Date, Value::String(text)) => {
            date(text).map_or_else(|| Err(format!("Invalid date: '{text}'")), |date| Ok(date.to_string().into()))
        }
        (Kind::Time, Value::String(text)) => {
            time(text).map_or_else(|| Err(format!("Invalid time: '{text}'")), |time| Ok(time.to_string().into()))
        }
        (Kind::DateTime, Value::String(text)) => {
            let datetime = date_and_time(text).map(|datetime| Ok(datetime.to_string().into()));
            datetime.unwrap_or_else(|| Err(format!("Invalid datetime string \"{text}\"")))
        }
        (Kind::Geography, Value::String(text)) => geography(field, text),
        (kind, _) => bad(&kind.name().to_ascii_lowercase()),
    }
}

fn fitting(field: &Field, text: &str, length: usize) -> Result<Value, String> {
    match field.max_length.filter(|max| length > *max) {
        Some(max) => Err(format!(
            "Field {}: {}({max}) has maximum length {max} but got a value with length {length}",
            field.name,
            field.kind.name()
        )),
        None => Ok(text.into()),
    }
}

/// The JSON text of a value: an object, an array or a scalar. It is kept as it came until somebody reads it.
fn json_text(text: &str) -> Result<Value, String> {
    let read = serde_json::from_str::<IgnoredAny>(text);
    read.map(|_| text.into())
        .map_err(|_| format!("syntax error while parsing value - invalid literal; last read: '{text}'"))
}

/// The text of a double: no fraction where there is none.
fn number_text(number: &Number) -> String {
    integer(number).map_or_else(|| json!(number.as_f64()).to_string(), |whole| whole.to_string())
}

/// A double that is whole. Beyond 2^53 it is not the number that was sent.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "looked at first, and meant")]
fn integer(number: &Number) -> Option<i64> {
    let double = number.as_f64()?;
    let is_whole = double.fract() == 0.0 && double >= i64::MIN as f64 && double < i64::MAX as f64;
    is_whole.then_some(double as i64)
}

fn float(text: &str) -> Option<Value> {
    let double: f64 = text.trim().parse().ok()?;
    Some(Number::from_f64(double).map_or_else(|| Value::String(double.to_string()), Value::Number))
}

/// <https://docs.cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types>, read 2026-11-26.
fn decimal(field: &Field, text: &str) -> Result<Value, String> {
    let (whole_max, fraction_max) = match (field.kind, field.precision) {
        (_, Some((precision, scale))) => (precision - scale, if field.kind == Kind::Numeric { 9 } else { 38 }),
        (Kind::Numeric, None) => (29, 9),
        (_, None) => (38, 38),
    };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().map(i64::from)),
        None => (digits, Some(0)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = is_digits(whole) && is_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let (whole, fraction) = (whole.trim_start_matches('0').len(), fraction.trim_end_matches('0').len());
    let fits = exponent.is_some_and(|exponent| {
        let signed = |count: usize| i64::try_from(count).unwrap();
        signed(whole) + exponent <= signed(whole_max) && signed(fraction) - exponent <= signed(fraction_max)
    });
    if is_number && fits {
        return Ok(text.into());
    }
    Err(format!("Invalid {} value: {text}", field.kind.name()))
}

fn no_timestamp(value: &Value) -> Result<Value, String> {
    let quoted = told(value);
    if let Some(seconds) = seconds(&quoted) {
        return Err(format!("Timestamp field value is out of range:{}", micros(seconds)));
    }
    Err(format!(
        "Could not parse '{quoted}' as a timestamp. Required format is YYYY-MM-DD HH:MM[:SS[.SSSSSS]] or YYYY/MM/DD \
         HH:MM[:SS[.SSSSSS]]"
    ))
}

/// The moment in which a good value of a partitioning column lies.
pub(super) fn instant(field: &Field, value: &Value) -> Option<Timestamp> {
    let stored = scalar(field, value).ok()?;
    let text = stored.as_str()?;
    let utc = |datetime: DateTime| datetime.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    if field.kind == Kind::Timestamp {
        return text.parse().ok();
    }
    let date = || Some(text.parse::<Date>().ok()?.at(0, 0, 0, 0));
    utc(text.parse().ok().or_else(date)?)
}

fn seconds(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|seconds| seconds.is_finite())
}

/// Seconds since 1970.
fn epoch(seconds: Option<f64>) -> Option<Value> {
    known(Timestamp::from_microsecond(micros(seconds?)).ok()?)
}

#[allow(clippy::cast_possible_truncation, reason = "a time beyond the range saturates, and is refused")]
fn micros(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

/// Years 1 to 9999.
fn known(timestamp: Timestamp) -> Option<Value> {
    let is_known = timestamp.as_second() >= -62_135_596_800;
    is_known.then(|| timestamp.to_string().into())
}

/// A date, perhaps a time with up to six digits after the point, perhaps a zone; or seconds since 1970.
fn timestamp(text: &str) -> Option<Value> {
    if let Some(seconds) = seconds(text) {
        return epoch(Some(seconds));
    }
    let (local, offset) = zoned(text)?;
    let local = date_and_time(local.trim_end()).or_else(|| Some(date(local)?.at(0, 0, 0, 0)))?;
    let utc = local.checked_sub(offset).ok()?;
    known(utc.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// Splits `2026-01-02 03:04:05+02:00` before its zone.
fn zoned(text: &str) -> Option<(&str, SignedDuration)> {
    for utc in [" UTC", "Z", "z", "UTC"] {
        if let Some(local) = text.strip_suffix(utc) {
            return Some((local, SignedDuration::ZERO));
        }
    }
    // A sign before the time of day belongs to the date.
    let Some(sign) = text.rfind(['+', '-']).filter(|sign| text[..*sign].contains(':')) else {
        return Some((text, SignedDuration::ZERO));
    };
    let (hours, minutes) = text[sign + 1..].split_once(':').unwrap_or((&text[sign + 1..], "0"));
    let minutes = hours.parse::<i64>().ok().filter(|hours| *hours <= 14)? * 60
        + minutes.parse::<i64>().ok().filter(|minutes| *minutes < 60)?;
    let offset = SignedDuration::from_mins(minutes);
    Some((&text[..sign], if text[sign..].starts_with('-') { -offset } else { offset }))
}

fn date_and_time(text: &str) -> Option<DateTime> {
    let (day, hour) = text.split_once(['T', 't', ' '])?;
    Some(date(day)?.to_datetime(time(hour)?))
}

/// `2026-1-2`, `2026-01-02`, `2026/01/02`.
fn date(text: &str) -> Option<Date> {
    let separator = if text.contains('/') { '/' } else { '-' };
    let [year, month, day] = <[&str; 3]>::try_from(text.split(separator).collect::<Vec<_>>()).ok()?;
    let year = (year.len() == 4).then(|| digits(year, 4))??;
    Date::new(year, digits(month, 2)?, digits(day, 2)?).ok().filter(|date| date.year() > 0)
}

/// `3:04`, `03:04:05`, `03:04:05.678901`.
fn time(text: &str) -> Option<Time> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] if clock == text => (hour, minute, "0"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let micros: i32 = digits(&format!("{fraction:0<6}"), 6)?;
    Time::new(digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?, micros * 1000).ok()
}

fn digits<N: std::str::FromStr>(text: &str, max: usize) -> Option<N> {
    let are_digits = !text.is_empty() && text.len() <= max && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().ok()).flatten()
}

/// Well-known text or `GeoJSON`, looked at no closer.
fn geography(field: &Field, text: &str) -> Result<Value, String> {
    let upper = text.trim_start().to_ascii_uppercase();
    let shapes = ["POINT", "LINESTRING", "POLYGON", "MULTI", "GEOMETRYCOLLECTION", "FULLGLOBE"];
    let is_text = shapes.iter().any(|shape| upper.starts_with(shape));
    let is_json = serde_json::from_str::<Value>(text).is_ok_and(|value| value["type"].is_string());
    if is_text || is_json {
        return Ok(text.into());
    }
    Err(format!("Invalid geography value for column '{}': {text}", field.name))
}

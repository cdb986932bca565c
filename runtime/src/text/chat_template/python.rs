//! What templates expect of Python: methods on strings and maps, `strftime_now`, and a `tojson` that leaves `<` alone.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{from_args, Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// The time of the rendering, where `strftime_now` finds it.
pub(super) const NOW: &str = "lichen_unix_now";

/// Called where the engine knows no method of that name.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return string_method(state, text, value, name, args);
    }
    if value.kind() == ValueKind::Map {
        return map_method(state, value, name, args);
    }
    Err(Error::from(ErrorKind::UnknownMethod))
}

fn string_method(state: &mut State, text: &str, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let drop = |c: char| chars.map_or(c.is_whitespace(), |chars| chars.contains(c));
            let text = if name == "rstrip" { text } else { text.trim_start_matches(drop) };
            Ok(Value::from(if name == "lstrip" { text } else { text.trim_end_matches(drop) }))
        }
        "startswith" | "endswith" => {
            let (ends,): (Value,) = from_args(args)?;
            let matches = |end: &str| if name == "startswith" { text.starts_with(end) } else { text.ends_with(end) };
            if let Some(end) = ends.as_str() {
                return Ok(Value::from(matches(end)));
            }
            let any = ends.try_iter()?.any(|end| end.as_str().is_some_and(matches));
            Ok(Value::from(any))
        }
        // The filters of these names do the same, and the engine charges them for the bytes they make.
        "upper" | "lower" | "title" | "capitalize" | "replace" => {
            let mut all = vec![value.clone()];
            all.extend_from_slice(args);
            state.apply_filter(name, &all)
        }
        "split" | "rsplit" => {
            let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX - 1);
            if separator == Some("") {
                return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
            }
            Ok(split(text, separator, limit, name == "rsplit"))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn split(text: &str, separator: Option<&str>, limit: usize, from_right: bool) -> Value {
    let mut parts: Vec<&str> = match (separator, from_right) {
        (Some(separator), false) => text.splitn(limit + 1, separator).collect(),
        (Some(separator), true) => text.rsplitn(limit + 1, separator).collect(),
        (None, _) if limit >= text.len() => text.split_whitespace().collect(),
        (None, false) => text.trim().splitn(limit + 1, char::is_whitespace).map(str::trim).collect(),
        (None, true) => text.trim().rsplitn(limit + 1, char::is_whitespace).map(str::trim).collect(),
    };
    if from_right && (separator.is_some() || limit < text.len()) {
        parts.reverse();
    }
    parts.into_iter().map(Value::from).collect()
}

fn map_method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "items" => state.apply_filter("items", std::slice::from_ref(value)),
        "keys" => Ok(value.try_iter()?.collect()),
        "values" => {
            let values = value.try_iter()?.map(|key| value.get_item(&key));
            values.collect::<Result<Vec<Value>, Error>>().map(Value::from)
        }
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let found = value.get_item(&key).ok().filter(|found| !found.is_undefined());
            Ok(found.or(default).unwrap_or(Value::from(())))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// `raise_exception("..")`: the template refuses the conversation.
pub(super) fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// `tojson`: the engine's, with `<`, `>`, `&` and `'` as they are.
pub(super) fn to_json(state: &mut State, value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    // Hugging Face passes these; the engine's way is what their defaults ask for.
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    let _: Option<Value> = kwargs.get("separators")?;
    let _: Option<bool> = kwargs.get("sort_keys")?;
    kwargs.assert_all_used()?;
    let mut all = vec![value.clone()];
    all.extend(args.first().cloned().or(indent));
    let escaped = state.apply_filter("tojson_html", &all)?;
    let escaped = escaped.as_str().unwrap_or_default();
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let plain = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')];
        match plain.iter().find(|(escape, _)| rest[at..].starts_with(escape)) {
            Some((escape, c)) => {
                text.push(*c);
                rest = &rest[at + escape.len()..];
            }
            None => {
                // The escaped character may itself be a backslash, so both go together.
                let length = 1 + rest[at + 1..].chars().next().map_or(0, char::len_utf8);
                text.push_str(&rest[at..at + length]);
                rest = &rest[at + length..];
            }
        }
    }
    text.push_str(rest);
    Ok(Value::from(text))
}

/// Seconds since 1970, once per rendering: two renderings of one prompt must not straddle a second.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// `strftime_now("%d %B %Y")` in UTC.
pub(super) fn strftime_now(state: &State, format: &str) -> Result<Value, Error> {
    let now = state.lookup(NOW).and_then(|now| u64::try_from(now).ok()).unwrap_or(0);
    Ok(Value::from(strftime(format, now)))
}

fn strftime(format: &str, unix: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => text.push_str(&year.to_string()),
            Some('y') => text.push_str(&format!("{:02}", year % 100)),
            Some('m') => text.push_str(&format!("{month:02}")),
            Some('d') => text.push_str(&format!("{day:02}")),
            Some('H') => text.push_str(&format!("{:02}", seconds / 3600)),
            Some('M') => text.push_str(&format!("{:02}", seconds / 60 % 60)),
            Some('S') => text.push_str(&format!("{:02}", seconds % 60)),
            Some('B') => text.push_str(month_name),
            Some('b') => text.push_str(&month_name[..3]),
            Some('A') => text.push_str(day_name),
            Some('a') => text.push_str(&day_name[..3]),
            Some('%') => text.push('%'),
            Some(other) => {
                text.push('%');
                text.push(other);
            }
            None => text.push('%'),
        }
    }
    text
}

/// Year, month and day of a day counted from 1 January 1970 (the proleptic Gregorian calendar in eras of 400 years).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // from 1 March of year 0
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 Thursday 00:00:00"),
            (951_782_400, "2000-02-29 Tuesday 00:00:00"),
            (1_709_251_199, "2024-02-29 Thursday 23:59:59"),
            (4_102_444_800, "2100-01-01 Friday 00:00:00"),
        ];
        for (unix, want) in cases {
            assert_eq!(strftime("%Y-%m-%d %A %H:%M:%S", unix), want);
        }
        assert_eq!(strftime("%d %b %y%% %q%", 0), "01 Jan 70% %q%");
    }
}

//! What templates expect of Python: methods on strings, lists and maps, and `raise_exception`.

use minijinja::value::{from_args, Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

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
            let (separator, limit, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.map_or_else(|| kwargs.get("sep"), |value| Ok(Some(value)))?;
            let limit = limit.map_or_else(|| kwargs.get("maxsplit"), |limit| Ok(Some(limit)))?;
            kwargs.assert_all_used()?;
            let separator = separator.as_ref().filter(|value| !value.is_none()).map(text_of).transpose()?;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX - 1);
            if separator == Some("") {
                return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
            }
            Ok(split(text, separator, limit, name == "rsplit"))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, args),
        "removeprefix" | "removesuffix" => {
            let (end,): (&str,) = from_args(args)?;
            let rest = if name == "removeprefix" { text.strip_prefix(end) } else { text.strip_suffix(end) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let found = if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "splitlines" => Ok(text.lines().map(Value::from).collect()),
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            state.apply_filter("join", &[items, value.clone()])
        }
        "format" => format(text, args),
        "isdigit" | "isnumeric" | "isdecimal" => Ok(every(text, char::is_numeric)),
        "isalpha" => Ok(every(text, char::is_alphabetic)),
        "isalnum" => Ok(every(text, char::is_alphanumeric)),
        "isspace" => Ok(every(text, char::is_whitespace)),
        "isupper" => Ok(Value::from(text.to_uppercase() == text && text.to_lowercase() != text)),
        "islower" => Ok(Value::from(text.to_lowercase() == text && text.to_uppercase() != text)),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// `'{} {0} {name}'.format(..)`, without the small language of widths and precisions.
fn format(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (args, kwargs): (Rest<Value>, Kwargs) = from_args(args)?;
    let invalid = |what: &'static str| Error::new(ErrorKind::InvalidOperation, what);
    let (mut out, mut rest, mut n_taken) = (String::new(), text, 0);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        let Some((name, after)) = after.split_once('}').filter(|_| brace == "{") else {
            return Err(invalid("format: a brace stands alone"));
        };
        let value = match name.parse::<usize>() {
            Ok(at) => args.get(at).cloned(),
            Err(_) if name.is_empty() => args.get(n_taken).cloned().inspect(|_| n_taken += 1),
            Err(_) => Some(kwargs.get::<Value>(name)?),
        };
        out.push_str(&value.ok_or_else(|| invalid("format: an argument is missing"))?.to_string());
        rest = after;
    }
    out.push_str(rest);
    Ok(Value::from(out))
}

/// `is iterable`: nothing is not, in Python.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

fn every(text: &str, is: fn(char) -> bool) -> Value {
    Value::from(!text.is_empty() && text.chars().all(is))
}

fn text_of(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "a text is needed"))
}

/// Places count characters, as in Python; -1 is nowhere.
fn search(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let n_chars = text.chars().count() as i64;
    let place = |at: i64| (if at < 0 { at + n_chars } else { at }).clamp(0, n_chars);
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(n_chars)));
    let within = text.get(byte(start)..byte(end)).unwrap_or("");
    if name == "count" {
        return Ok(Value::from(within.matches(wanted).count()));
    }
    let found = if name.starts_with('r') { within.rfind(wanted) } else { within.find(wanted) };
    match found {
        Some(at) => Ok(Value::from(start + within[..at].chars().count() as i64)),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(Error::new(ErrorKind::InvalidOperation, "the text is not there")),
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

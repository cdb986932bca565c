//! `tojson` as transformers has it: Python's `json.dumps`, with its arguments.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// Values nest no deeper; a template can make deeper ones than a file can hold.
const DEPTH_MAX: usize = 128;
/// Bytes that cost a template one step, as the engine counts.
const BYTES_PER_STEP: u64 = 64;

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`
pub(super) fn to_json(state: &mut State, value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = kwargs.get(name)?;
        Ok(args.get(at).cloned().or(named).filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let indent = argument(1, "indent")?.map(|indent| indent_text(&indent)).transpose()?;
    let (item, key) = match argument(2, "separators")? {
        Some(pair) => separators(&pair)?,
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
    };
    let is_true = |at, name| argument(at, name).map(|value| value.is_some_and(|value| value.is_true()));
    let mut writer = Writer {
        ensure_ascii: is_true(0, "ensure_ascii")?,
        sort_keys: is_true(3, "sort_keys")?,
        indent,
        item,
        key,
        text: String::new(),
        n_charged: 0,
    };
    kwargs.assert_all_used()?;
    writer.value(state, value, 0)?;
    Ok(Value::from(writer.text))
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn indent_text(indent: &Value) -> Result<String, Error> {
    const SPACES_MAX: i64 = 64;
    if let Some(text) = indent.as_str() {
        return Ok(text.to_string());
    }
    match indent.as_i64() {
        Some(n) if n <= SPACES_MAX => Ok(" ".repeat(n.max(0) as usize)),
        _ => Err(invalid("tojson: indent is a text or a number up to 64")),
    }
}

fn separators(pair: &Value) -> Result<(String, String), Error> {
    let texts: Vec<Value> = pair.try_iter()?.collect();
    match texts.iter().map(|text| text.as_str()).collect::<Option<Vec<_>>>().as_deref() {
        Some([item, key]) => Ok((item.to_string(), key.to_string())),
        _ => Err(invalid("tojson: separators are two texts")),
    }
}

struct Writer {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
    text: String,
    /// Bytes of `text` that were charged.
    n_charged: usize,
}

impl Writer {
    fn value(&mut self, state: &State, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(invalid("tojson: values nest deeper than 128"));
        }
        // So that what is written is bounded while it is written.
        let n_new = (self.text.len() - self.n_charged) as u64;
        if n_new >= BYTES_PER_STEP {
            state.consume_fuel(n_new / BYTES_PER_STEP)?;
            self.n_charged = self.text.len();
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(state, value, depth)?,
            ValueKind::Map => self.map(state, value, depth)?,
            ValueKind::Undefined => return Err(invalid("tojson: the value is undefined")),
            _ => return Err(invalid("tojson: the value is no JSON")),
        }
        Ok(())
    }

    fn list(&mut self, state: &State, value: &Value, depth: usize) -> Result<(), Error> {
        let mut is_empty = true;
        self.text.push('[');
        for item in value.try_iter()? {
            self.begin(&mut is_empty, depth);
            self.value(state, &item, depth + 1)?;
        }
        self.end(is_empty, depth, ']');
        Ok(())
    }

    fn map(&mut self, state: &State, value: &Value, depth: usize) -> Result<(), Error> {
        let mut fields: Vec<(String, Value)> = Vec::new();
        for key in value.try_iter()? {
            let name = match key.kind() {
                ValueKind::String => key.as_str().unwrap_or_default().to_string(),
                ValueKind::None => "null".to_string(),
                ValueKind::Bool => (if key.is_true() { "true" } else { "false" }).to_string(),
                ValueKind::Number => number(&key),
                _ => return Err(invalid("tojson: a key is no text")),
            };
            fields.push((name, value.get_item(&key)?));
        }
        if self.sort_keys {
            fields.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let mut is_empty = true;
        self.text.push('{');
        for (name, item) in &fields {
            self.begin(&mut is_empty, depth);
            self.string(name);
            let key = std::mem::take(&mut self.key);
            self.text.push_str(&key);
            self.key = key;
            self.value(state, item, depth + 1)?;
        }
        self.end(is_empty, depth, '}');
        Ok(())
    }

    /// What stands before an item.
    fn begin(&mut self, is_empty: &mut bool, depth: usize) {
        if !std::mem::replace(is_empty, false) {
            self.text.push_str(&self.item);
        }
        self.line(depth + 1);
    }

    fn end(&mut self, is_empty: bool, depth: usize, close: char) {
        if !is_empty {
            self.line(depth);
        }
        self.text.push(close);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            (0..depth).for_each(|_| self.text.push_str(indent));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // A string takes whatever is written.
                        let _ = write!(self.text, "\\u{unit:04x}");
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

/// As Python writes a number.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    if float.is_nan() {
        return "NaN".into();
    }
    if float.is_infinite() {
        return (if float > 0.0 { "Infinity" } else { "-Infinity" }).into();
    }
    // Both write the shortest digits that give the value back, and differ in when an exponent comes.
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    match exponent {
        -4..=15 => format!("{float:?}"),
        _ => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{context, Environment};

    use super::*;

    fn render(template: &str) -> Result<String, Error> {
        let mut environment = Environment::new();
        environment.add_filter("tojson", to_json);
        let value = serde_json::json!({"b": [1, true, null], "a": "é<'&\"\n\u{1F600}", "c": {}, "d": []});
        environment.render_str(template, context! { v => Value::from(minijinja::value::Serde(&value)) })
    }

    /// What `json.dumps` of Python 3.11 makes of the same value.
    #[test]
    fn arguments_are_those_of_json_dumps() {
        let plain = r#"{"b": [1, true, null], "a": "é<'&\"\n😀", "c": {}, "d": []}"#;
        let cases = [
            ("{{ v | tojson }}", plain),
            (
                "{{ v | tojson(ensure_ascii=true) }}",
                r#"{"b": [1, true, null], "a": "\u00e9<'&\"\n\ud83d\ude00", "c": {}, "d": []}"#,
            ),
            (
                "{{ v | tojson(sort_keys=true, separators=(',', ':')) }}",
                r#"{"a":"é<'&\"\n😀","b":[1,true,null],"c":{},"d":[]}"#,
            ),
            ("{{ [v.b, v.c] | tojson(indent=2) }}", "[\n  [\n    1,\n    true,\n    null\n  ],\n  {}\n]"),
            ("{{ v.c | tojson(indent=none) }}", "{}"),
            ("{{ {'x': 1} | tojson(false, '-') }}", "{\n-\"x\": 1\n}"),
            (
                "{{ [1.0, 0.1, 1e16, 1e-5, 123456789012345.0, -0.0001] | tojson }}",
                "[1.0, 0.1, 1e+16, 1e-05, 123456789012345.0, -0.0001]",
            ),
            ("{{ {1: 2, none: 3, true: 4} | tojson }}", r#"{"1": 4, "null": 3}"#),
        ];
        for (template, want) in cases {
            assert_eq!(render(template).unwrap(), want, "{template}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for template in [
            "{{ nothing | tojson }}",
            "{{ v | tojson(indent=1000) }}",
            "{{ v | tojson(separators=',') }}",
            "{{ v | tojson(default=1) }}",
            "{% set ns = namespace(x=[]) %}{% for i in range(300) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        ] {
            assert!(render(template).is_err(), "{template}");
        }
    }
}

//! One line a setting: what it is called, what it accepts and where it lies in `T`. Flags, keys of files and of JSON objects,
//! and fields of C structures are all made from such a table, so a name, a range and a sentence of help stand in one place.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::value::quoted;
use super::Setting;
use crate::error::{Error, Result};

/// One setting of a `T`.
pub struct Entry<T: 'static> {
    pub setting: Setting,
    /// What it was called in an earlier version: still read.
    pub old_names: &'static [&'static str],
    /// A shorter name, for people who type.
    pub short_name: Option<&'static str>,
    /// What its value is, for help; empty for a switch.
    pub value_name: &'static str,
    pub doc: &'static str,
    pub access: Access<T>,
}

/// Takes a text, or says what is allowed.
pub type Set<T> = fn(&mut T, &str) -> std::result::Result<(), String>;
/// The text of what is there; `None` where nothing was given.
pub type Get<T> = fn(&T) -> Option<String>;

/// How a value is read and written. [`setting_access`](crate::setting_access) makes the usual ones.
pub enum Access<T> {
    Switch(fn(&mut T) -> &mut bool),
    Path(fn(&mut T) -> &mut Option<PathBuf>),
    /// May be given several times.
    Paths(fn(&mut T) -> &mut Vec<PathBuf>),
    Number(Set<T>, Get<T>),
    Text(Set<T>, Get<T>),
    /// May be given several times.
    Texts(fn(&mut T) -> &mut Option<Vec<String>>),
}

// Not derived, which would ask for a `T` that can be copied.
impl<T> Clone for Access<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Access<T> {}
impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Entry<T> {}

impl<T> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.setting.name())
    }
}

/// What lies in a field: `switch`, `path` (an `Option<PathBuf>`), `paths` (a `Vec<PathBuf>`), `texts` (an `Option<Vec<String>>`), `number` and
/// `optional_number` between two others, and `text` that one expression reads and another writes.
#[macro_export]
macro_rules! setting_access {
    (switch $($field:ident).+) => {
        $crate::setting::table::Access::Switch(|it| &mut it.$($field).+)
    };
    (path $($field:ident).+) => {
        $crate::setting::table::Access::Path(|it| &mut it.$($field).+)
    };
    (paths $($field:ident).+) => {
        $crate::setting::table::Access::Paths(|it| &mut it.$($field).+)
    };
    (texts $($field:ident).+) => {
        $crate::setting::table::Access::Texts(|it| &mut it.$($field).+)
    };
    (number $($field:ident).+, $min:expr, $max:expr) => {
        $crate::setting::table::Access::Number(
            |it, text| { it.$($field).+ = $crate::setting::value::number(text, $min, $max)?; Ok(()) },
            |it| Some($crate::setting::value::shortest(&it.$($field).+)),
        )
    };
    (optional_number $($field:ident).+, $min:expr, $max:expr) => {
        $crate::setting::table::Access::Number(
            |it, text| { it.$($field).+ = Some($crate::setting::value::number(text, $min, $max)?); Ok(()) },
            |it| it.$($field).+.map($crate::setting::value::shortest),
        )
    };
    (text $($field:ident).+, |$text:ident| $read:expr, |$value:ident| $write:expr) => {
        $crate::setting::table::Access::Text(
            |it, $text| { it.$($field).+ = $read?; Ok(()) },
            |it| { let $value = &it.$($field).+; $write },
        )
    };
}

impl<T> Entry<T> {
    pub const fn new(setting: Setting, value_name: &'static str, doc: &'static str, access: Access<T>) -> Entry<T> {
        Entry { setting, old_names: &[], short_name: None, value_name, doc, access }
    }

    pub const fn was(self, old_names: &'static [&'static str]) -> Entry<T> {
        Entry { old_names, ..self }
    }

    pub const fn short(self, name: &'static str) -> Entry<T> {
        Entry { short_name: Some(name), ..self }
    }

    /// All names, the present one first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.setting.name()].into_iter().chain(self.short_name).chain(self.old_names.iter().copied())
    }

    pub fn is_switch(&self) -> bool {
        matches!(self.access, Access::Switch(_))
    }

    pub fn is_path(&self) -> bool {
        matches!(self.access, Access::Path(_) | Access::Paths(_))
    }

    /// Whether it may be given several times.
    pub fn is_list(&self) -> bool {
        matches!(self.access, Access::Texts(_) | Access::Paths(_))
    }

    /// Takes away what a list has, before it is given anew.
    pub fn clear(&self, it: &mut T) {
        match self.access {
            Access::Texts(field) => *field(it) = None,
            Access::Paths(field) => field(it).clear(),
            Access::Switch(_) | Access::Path(_) | Access::Number(..) | Access::Text(..) => {}
        }
    }

    /// Puts a value in; a list takes one more.
    ///
    /// # Errors
    /// What is allowed.
    pub fn set(&self, it: &mut T, value: &str) -> std::result::Result<(), String> {
        match self.access {
            Access::Switch(field) => match value {
                "true" | "false" => *field(it) = value == "true",
                _ => return Err("true or false".to_string()),
            },
            Access::Path(field) => *field(it) = Some(some_path(OsStr::new(value))?),
            Access::Paths(field) => field(it).push(some_path(OsStr::new(value))?),
            Access::Number(set, _) | Access::Text(set, _) => set(it, value)?,
            Access::Texts(field) => field(it).get_or_insert_default().push(value.to_string()),
        }
        Ok(())
    }

    /// The same with values as the system gives them, where a path need not be UTF-8; a list has these and no others then.
    ///
    /// # Errors
    /// Setting, value and what is allowed.
    pub fn set_os(&self, it: &mut T, values: &[OsString]) -> Result<()> {
        self.clear(it);
        values.iter().try_for_each(|value| self.set_one_os(it, value))
    }

    fn set_one_os(&self, it: &mut T, value: &OsStr) -> Result<()> {
        let set = match (self.access, value.to_str()) {
            (Access::Path(field), _) => some_path(value).map(|path| *field(it) = Some(path)),
            (Access::Paths(field), _) => some_path(value).map(|path| field(it).push(path)),
            (_, Some(text)) => self.set(it, text),
            (_, None) => Err("UTF-8".to_string()),
        };
        set.map_err(|allowed| {
            Error::usage(format!("{} is {}; {allowed}", self.setting, quoted(&value.to_string_lossy())))
        })
    }

    /// The same with a value of a JSON object, which has to be of the right type; `null` is as good as absent.
    ///
    /// # Errors
    /// Setting, value and what is allowed.
    pub fn set_json(&self, it: &mut T, value: &Value) -> Result<()> {
        let set = match (self.access, value) {
            (_, Value::Null) => Ok(()),
            (Access::Switch(field), Value::Bool(on)) => {
                *field(it) = *on;
                Ok(())
            }
            (Access::Switch(_), _) => Err("true or false".to_string()),
            (Access::Number(set, _), Value::Number(n)) => set(it, &n.to_string()),
            // What no number passes says the range.
            (Access::Number(set, _), _) => set(it, ""),
            (Access::Texts(field), value) => texts(value).map(|texts| *field(it) = Some(texts)),
            (Access::Paths(_), value) => texts(value).and_then(|texts| {
                self.clear(it);
                texts.iter().try_for_each(|text| self.set(it, text))
            }),
            (Access::Path(_) | Access::Text(..), Value::String(text)) => self.set(it, text),
            (Access::Path(_) | Access::Text(..), _) => Err("a text".to_string()),
        };
        set.map_err(|allowed| Error::input(format!("{} is {}; {allowed}", self.setting, shown(value))))
    }
}

impl<T: Clone> Entry<T> {
    /// What is there, as [`Entry::set`] takes it, several joined by commas; `None` where nothing was given.
    pub fn get(&self, it: &T) -> Option<String> {
        match self.access {
            Access::Switch(field) => Some(field(&mut it.clone()).to_string()),
            Access::Path(field) => field(&mut it.clone()).as_ref().map(|path| path.display().to_string()),
            Access::Number(_, get) | Access::Text(_, get) => get(it),
            Access::Paths(field) => joined(field(&mut it.clone()).iter().map(|path| path.display().to_string())),
            Access::Texts(field) => joined(field(&mut it.clone()).clone().unwrap_or_default()),
        }
    }
}

fn joined(texts: impl IntoIterator<Item = String>) -> Option<String> {
    let texts: Vec<String> = texts.into_iter().collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn some_path(text: &OsStr) -> std::result::Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("a path".to_string()),
        false => Ok(PathBuf::from(text)),
    }
}

/// A text, or a list of them.
fn texts(value: &Value) -> std::result::Result<Vec<String>, String> {
    let texts = match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|v| v.as_str().map(str::to_string)).collect(),
        _ => None,
    };
    texts.ok_or_else(|| "a text or a list of texts".to_string())
}

/// A value in an error: its beginning.
pub fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Lamp {
        is_on: bool,
        watts: Option<u32>,
        colour: String,
        manual: Option<PathBuf>,
        rooms: Option<Vec<String>>,
    }

    fn colour(text: &str) -> std::result::Result<String, String> {
        match text {
            "red" | "blue" => Ok(text.to_string()),
            _ => Err("red or blue".to_string()),
        }
    }

    const LAMP: [Entry<Lamp>; 5] = [
        Entry::new(Setting::new("is_on"), "", "Shines", setting_access!(switch is_on)),
        Entry::<Lamp>::new(Setting::new("watts"), "N", "Power", setting_access!(optional_number watts, 1, 100))
            .short("w"),
        Entry::<Lamp>::new(
            Setting::new("colour"),
            "NAME",
            "Its light",
            setting_access!(text colour, |text| colour(text), |it| Some(it.clone())),
        )
        .was(&["color"]),
        Entry::new(Setting::new("manual"), "FILE", "To read", setting_access!(path manual)),
        Entry::new(Setting::new("rooms"), "NAME", "Where it may stand", setting_access!(texts rooms)),
    ];

    #[test]
    fn text_and_json_set_the_same() {
        let mut typed = Lamp::default();
        for (entry, value) in LAMP.iter().zip(["true", "60", "red", "a b", "hall"]) {
            entry.set(&mut typed, value).unwrap();
            let mut other = typed.clone();
            entry.set_os(&mut other, &[OsString::from(value)]).unwrap();
            assert_eq!(other, typed);
        }
        let mut written = Lamp::default();
        for (entry, value) in LAMP.iter().zip([json!(true), json!(60), json!("red"), json!("a b"), json!(["hall"])]) {
            entry.set_json(&mut written, &value).unwrap();
            entry.set_json(&mut written, &Value::Null).unwrap();
        }
        assert_eq!(typed, written);
        let got: Vec<_> = LAMP.iter().map(|entry| entry.get(&typed)).collect();
        let texts = ["true", "60", "red", "a b", "hall"].map(|text| Some(text.to_string()));
        assert_eq!(got, texts);
        assert_eq!(LAMP[2].names().collect::<Vec<_>>(), ["colour", "color"]);
    }

    #[test]
    fn what_is_not_allowed_says_what_is() {
        let mut lamp = Lamp::default();
        let cases = [
            (0, json!("true"), "is_on is \"true\"; true or false"),
            (1, json!(0), "watts is 0; 1 to 100"),
            (1, json!("60"), "watts is \"60\"; 1 to 100"),
            (1, json!(6.5), "watts is 6.5; 1 to 100"),
            (2, json!("green"), "colour is \"green\"; red or blue"),
            (2, json!(7), "colour is 7; a text"),
            (3, json!(""), "manual is \"\"; a path"),
            (4, json!([1]), "rooms is [1]; a text or a list of texts"),
        ];
        for (i, value, want) in cases {
            assert_eq!(LAMP[i].set_json(&mut lamp, &value).unwrap_err().message(), want);
        }
        assert_eq!(
            LAMP[1].set_os(&mut lamp, &[OsString::from("nan")]).unwrap_err().message(),
            "watts is nan; 1 to 100"
        );
        assert_eq!(lamp, Lamp::default());
    }
}

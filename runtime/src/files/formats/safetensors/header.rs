//! The JSON header, parsed entry by entry: no tree is built, and a key that appears twice is seen.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Dtype, TensorInfo, MAX_DIMS};
use crate::error::{Error, Result};
use crate::files::formats::json_file::describe;

/// `"":{"dtype":"I8","shape":[],"data_offsets":[0,0]},`: bounds the number of entries before they are read, so that the
/// table is allocated once.
const MIN_ENTRY_BYTES: usize = 49;
/// Real files have a handful; a cap keeps `{"":"","":"",..}` from costing many times its own size.
const MAX_METADATA: usize = 4096;

/// What the header declares, in its order.
pub(super) struct Header {
    /// Ranges count from the start of the data.
    pub tensors: Vec<TensorInfo>,
    pub metadata: Vec<(String, String)>,
}

pub(super) fn parse(text: &str) -> Result<Header> {
    let mut builder = Builder {
        tensors: Vec::with_capacity(text.len() / MIN_ENTRY_BYTES),
        metadata: Vec::new(),
        saw_metadata: false,
        refused: None,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = (&mut builder).deserialize(&mut json).and_then(|()| json.end());
    if let Some(error) = builder.refused {
        return Err(error);
    }
    outcome.map_err(|e| match e.is_data() {
        true => Error::input(format!("header: {}", describe(&e))),
        false => Error::input(format!("header is not JSON: {}", describe(&e))),
    })?;
    Ok(Header { tensors: builder.tensors, metadata: builder.metadata })
}

struct Builder {
    tensors: Vec<TensorInfo>,
    metadata: Vec<(String, String)>,
    saw_metadata: bool,
    /// What is wrong with the contents; the JSON error that then ends parsing is not shown.
    refused: Option<Error>,
}

impl Builder {
    fn refuse<E: serde::de::Error>(&mut self, message: String) -> E {
        self.refused = Some(Error::input(message));
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for &mut Builder {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Builder {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut self.saw_metadata, true) {
                    return Err(self.refuse("__metadata__ is declared twice".into()));
                }
                map.next_value_seed(MetadataSeed(self))?;
                continue;
            }
            let entry: Entry = map.next_value()?;
            match entry.check(name) {
                Ok(tensor) => self.tensors.push(tensor),
                Err(message) => return Err(self.refuse(message)),
            }
        }
        Ok(())
    }
}

/// One tensor as the header has it.
struct Entry<'a> {
    dtype: Cow<'a, str>,
    shape: Numbers,
    data_offsets: Numbers,
}

/// Not derived: a derived reader would also take a bare array of the three.
impl<'de> Deserialize<'de> for Entry<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entry<'de>, A::Error> {
                let (mut dtype, mut shape, mut data_offsets) = (None, None, None);
                while let Some(key) = map.next_key::<Cow<str>>()? {
                    let again = match &*key {
                        "dtype" => dtype.replace(map.next_value::<Text>()?).is_some(),
                        "shape" => shape.replace(map.next_value::<Numbers>()?).is_some(),
                        "data_offsets" => data_offsets.replace(map.next_value::<Numbers>()?).is_some(),
                        _ => map.next_value::<IgnoredAny>().map(|_| false)?,
                    };
                    if again {
                        return Err(A::Error::custom(format_args!("{key} is there twice")));
                    }
                }
                let missing = |name: &str| A::Error::custom(format_args!("{name} is missing"));
                Ok(Entry {
                    dtype: dtype.ok_or_else(|| missing("dtype"))?.0,
                    shape: shape.ok_or_else(|| missing("shape"))?,
                    data_offsets: data_offsets.ok_or_else(|| missing("data_offsets"))?,
                })
            }
        }
        deserializer.deserialize_map(EntryVisitor)
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Entry<'_> {
    fn check(self, name: String) -> std::result::Result<TensorInfo, String> {
        let fail = |message: String| Err(format!("tensor \"{name}\": {message}"));
        let Some(dtype) = Dtype::from_name(&self.dtype) else {
            return fail(format!("dtype \"{}\" is not supported", self.dtype));
        };
        if self.shape.len > MAX_DIMS {
            return fail(format!("{} dimensions; at most {MAX_DIMS} are allowed", self.shape.len));
        }
        if self.data_offsets.len != 2 {
            return fail(format!("data_offsets has {} numbers; 2 are needed", self.data_offsets.len));
        }
        let [begin, end] = [self.data_offsets.values[0], self.data_offsets.values[1]];
        if begin > end {
            return fail(format!("data_offsets [{begin}, {end}] run backwards"));
        }
        if end > i64::MAX as u64 {
            return fail(format!("data_offsets [{begin}, {end}] are larger than any file"));
        }
        let dims = &self.shape.values[..self.shape.len];
        let shape_text = || dims.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let needed = dims.iter().try_fold(dtype.size_bytes() as u64, |n, d| n.checked_mul(*d));
        let Some(needed) = needed.filter(|n| *n <= i64::MAX as u64) else {
            return fail(format!("shape [{}] is larger than any file", shape_text()));
        };
        if needed != end - begin {
            return fail(format!(
                "[{}] {} needs {needed} bytes, data_offsets give {}",
                shape_text(),
                dtype.name(),
                end - begin
            ));
        }
        Ok(TensorInfo {
            name,
            dtype,
            range: begin as usize..end as usize,
            dims: self.shape.values.map(|d| d as usize),
            n_dims: self.shape.len as u8,
        })
    }
}

/// An array of non-negative integers: the first four are kept, all are counted.
struct Numbers {
    values: [u64; MAX_DIMS],
    len: usize,
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct NumbersVisitor;
        impl<'de> Visitor<'de> for NumbersVisitor {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array of integers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Numbers, A::Error> {
                let mut numbers = Numbers { values: [0; MAX_DIMS], len: 0 };
                while let Some(n) = items.next_element::<u64>()? {
                    if let Some(slot) = numbers.values.get_mut(numbers.len) {
                        *slot = n;
                    }
                    numbers.len += 1;
                }
                Ok(numbers)
            }
        }
        deserializer.deserialize_seq(NumbersVisitor)
    }
}

struct MetadataSeed<'b>(&'b mut Builder);

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of strings")
    }

    /// The reference implementation takes null for absent.
    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if self.0.metadata.len() == MAX_METADATA {
                return Err(self.0.refuse(format!("__metadata__ has more than {MAX_METADATA} entries")));
            }
            match map.next_value::<StringOr>()? {
                StringOr::String(value) => self.0.metadata.push((key, value)),
                StringOr::Other(what) => {
                    return Err(self.0.refuse(format!("__metadata__.{key} is {what}; strings only")));
                }
            }
        }
        Ok(())
    }
}

enum StringOr {
    String(String),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for StringOr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(StringOrVisitor)
    }
}

struct StringOrVisitor;

impl<'de> Visitor<'de> for StringOrVisitor {
    type Value = StringOr;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<StringOr, E> {
        Ok(StringOr::String(value.to_string()))
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<StringOr, E> {
        Ok(StringOr::Other("a bool"))
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<StringOr, E> {
        Ok(StringOr::Other("a number"))
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<StringOr, E> {
        Ok(StringOr::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<StringOr, E> {
        Ok(StringOr::Other("a number"))
    }

    fn visit_unit<E>(self) -> std::result::Result<StringOr, E> {
        Ok(StringOr::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<StringOr, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(StringOr::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<StringOr, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(StringOr::Other("an object"))
    }
}

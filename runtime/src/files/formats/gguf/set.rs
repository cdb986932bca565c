//! The files a GGUF model consists of: one, or the parts that llama.cpp's `llama-gguf-split` and quantisers of large
//! models make of it.
//!
//! Part `split.no` (from 0) of `split.count` is called `NAME-00001-of-00003.gguf` (its number from 1). Part 0 has the
//! metadata, every part its own table of tensors, and all say how many there are together, `split.tensors.count`.

use super::{Gguf, Metadata, TensorInfo};
use crate::error::{Error, Result};

/// `split.count` is a u16.
const PARTS_MAX: u64 = u16::MAX as u64;
/// llama.cpp writes an i32; no model has more tensors than this.
const TENSORS_MAX: u64 = i32::MAX as u64;

/// Digits of both numbers in a part's name.
const DIGITS: usize = 5;

/// The tables of all parts of a model. Holding one proves what [`Gguf`] does, that the parts belong together by their own
/// account, that none is missing, and that no name is in two of them.
pub struct GgufSet {
    parts: Vec<Gguf>,
}

impl GgufSet {
    /// # Errors: the file is one part of several.
    pub fn whole(gguf: Gguf) -> Result<GgufSet> {
        if let Some(split) = Split::of(gguf.metadata())?.filter(|s| s.count > 1) {
            return Err(Error::input(format!(
                "is part {} of {} of a split model, and its name does not end as those of parts do \
                 (-{:05}-of-{:05}.gguf): the others cannot be found",
                split.no + 1,
                split.count,
                split.no + 1,
                split.count
            )));
        }
        Ok(GgufSet { parts: vec![gguf] })
    }

    /// Joins the parts, all of them and in order.
    ///
    /// # Errors
    /// The parts contradict each other, with the index of the one that shows it.
    pub fn join(parts: Vec<Gguf>) -> std::result::Result<GgufSet, (usize, Error)> {
        let splits = parts.iter().enumerate().map(|(i, part)| check_part(part, i, parts.len()).map_err(|e| (i, e)));
        let splits = splits.collect::<std::result::Result<Vec<Split>, _>>()?;
        let n_tensors: usize = parts.iter().map(|part| part.tensors().len()).sum();
        let other = |split: &Split| split.n_tensors.filter(|n| *n != n_tensors);
        if let Some((i, n)) = splits.iter().enumerate().find_map(|(i, split)| other(split).map(|n| (i, n))) {
            return Err((
                i,
                Error::input(format!(
                    "\"split.tensors.count\" is {n}; the {} parts hold {n_tensors} tensors together",
                    parts.len()
                )),
            ));
        }
        let mut names: Vec<(&str, usize)> = Vec::with_capacity(n_tensors);
        for (i, part) in parts.iter().enumerate() {
            names.extend(part.tensors().iter().map(|tensor| (tensor.name.as_str(), i)));
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let message = format!("tensor \"{}\" is in part {} as well", pair[1].0, pair[0].1 + 1);
            return Err((pair[1].1, Error::input(message)));
        }
        Ok(GgufSet { parts })
    }

    pub fn parts(&self) -> &[Gguf] {
        &self.parts
    }

    /// Of the first part, which has all of it.
    pub fn metadata(&self) -> &Metadata {
        self.parts[0].metadata()
    }

    /// A tensor, and the part it is in.
    pub fn tensor(&self, name: &str) -> Option<(&Gguf, &TensorInfo)> {
        self.parts.iter().find_map(|part| part.tensor(name).map(|tensor| (part, tensor)))
    }
}

/// What the part says of the split, which must be what its name does.
fn check_part(part: &Gguf, index: usize, n_parts: usize) -> Result<Split> {
    let Some(split) = Split::of(part.metadata())? else {
        return Err(Error::input(format!("is named as part {} of {n_parts} but has no \"split.count\"", index + 1)));
    };
    if split.count != n_parts {
        return Err(Error::input(format!("\"split.count\" is {}; its name says {n_parts}", split.count)));
    }
    if split.no != index {
        return Err(Error::input(format!(
            "\"split.no\" is {}; part {} of {n_parts} by its name has {index}",
            split.no,
            index + 1
        )));
    }
    Ok(split)
}

/// What a file says of the split it is part of.
struct Split {
    no: usize,
    count: usize,
    n_tensors: Option<usize>,
}

impl Split {
    /// `None` for a file that was not split.
    fn of(metadata: &Metadata) -> Result<Option<Split>> {
        let integer = |key: &str, min, max| metadata.integer(key, min, max);
        let Some(count) = integer("split.count", 0, PARTS_MAX)?.filter(|n| *n > 0) else { return Ok(None) };
        Ok(Some(Split {
            no: integer("split.no", 0, PARTS_MAX)?.unwrap_or(0) as usize,
            count: count as usize,
            n_tensors: integer("split.tensors.count", 0, TENSORS_MAX)?.map(|n| n as usize),
        }))
    }
}

/// The name of a part, taken apart: `NAME-00002-of-00003.gguf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartName<'a> {
    pub stem: &'a str,
    /// From 1.
    pub number: usize,
    pub count: usize,
}

impl<'a> PartName<'a> {
    /// `None` when the name is not that of a part of a split file; a number above the count is none.
    pub fn parse(file_name: &'a str) -> Option<PartName<'a>> {
        let rest = file_name.strip_suffix(".gguf")?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| match text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<usize>().ok(),
            false => None,
        };
        let (number, count) = (digits(number)?, digits(count)?);
        ((1..=count).contains(&number) && count as u64 <= PARTS_MAX).then_some(PartName { stem, number, count })
    }

    /// The name of part `number` of the same split.
    pub fn of(&self, number: usize) -> String {
        format!("{}-{number:0DIGITS$}-of-{:0DIGITS$}.gguf", self.stem, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        let name = PartName::parse("qwen2.5-7b-00002-of-00003.gguf").expect("a part");
        assert_eq!(name, PartName { stem: "qwen2.5-7b", number: 2, count: 3 });
        assert_eq!(name.of(2), "qwen2.5-7b-00002-of-00003.gguf");
        assert_eq!(name.of(3), "qwen2.5-7b-00003-of-00003.gguf");
        for other in [
            "m.gguf",
            "m-00001-of-00002",
            "m-0001-of-0002.gguf",
            "m-00003-of-00002.gguf",
            "m-00000-of-00002.gguf",
            "m-00001-of-99999.gguf",
            "m-+0001-of-00002.gguf",
            "00001-of-00002.gguf",
        ] {
            assert_eq!(PartName::parse(other), None, "{other}");
        }
    }
}

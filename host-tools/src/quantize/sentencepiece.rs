//! The scores of SentencePiece's `tokenizer.model`, a protobuf of which three fields matter.
//!
//! `ModelProto { repeated SentencePiece pieces = 1 }`, `SentencePiece { string piece = 1; float score = 2; Type type = 3 }`
//! with types 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte: GGUF's numbers.

use std::path::Path;

use lichen_runtime::files::mapped_file::MappedFile;
use lichen_runtime::text::tokenizer::TokenizerArrays;
use lichen_runtime::{Error, Result};

const NORMAL: i32 = 1;

/// One piece of the vocabulary.
#[derive(Debug, PartialEq)]
struct Piece<'a> {
    text: &'a str,
    score: f32,
    kind: i32,
}

/// Replaces the scores of the normal pieces by those of the file. The vocabulary itself stays that of `tokenizer.json`:
/// where the two name a normal piece differently, nothing is taken, and the note says so.
///
/// # Errors
/// The file is not a SentencePiece model.
pub fn take_scores(arrays: &mut TokenizerArrays, path: &Path) -> Result<Option<String>> {
    let file = MappedFile::open(path)?;
    let pieces = pieces((*file).as_ref()).map_err(|e| e.in_file(path))?;
    let normal = |id: usize| arrays.token_type.get(id) == Some(&NORMAL);
    for (id, piece) in pieces.iter().enumerate() {
        if normal(id) && (piece.kind != NORMAL || arrays.tokens[id] != piece.text) {
            return Ok(Some(format!(
                "tokenizer.model names piece {id} {:?}, tokenizer.json {:?}: scores are taken from tokenizer.json",
                piece.text, arrays.tokens[id]
            )));
        }
    }
    if (pieces.len()..arrays.tokens.len()).any(normal) {
        return Ok(Some("tokenizer.model has fewer pieces: scores are taken from tokenizer.json".into()));
    }
    for (id, piece) in pieces.iter().enumerate() {
        if arrays.token_type.get(id) == Some(&NORMAL) {
            arrays.scores[id] = piece.score;
        }
    }
    Ok(None)
}

fn pieces(bytes: &[u8]) -> Result<Vec<Piece<'_>>> {
    let broken = || Error::input("is not a SentencePiece model: a field ends outside the file");
    let mut fields = Fields { bytes };
    let mut pieces = Vec::new();
    while let Some(field) = fields.next().ok_or_else(broken)? {
        if let (1, Wire::Bytes(message)) = field {
            pieces.push(piece(message, pieces.len())?);
        }
    }
    if pieces.is_empty() {
        return Err(Error::input("is not a SentencePiece model: it has no pieces"));
    }
    Ok(pieces)
}

fn piece(message: &[u8], id: usize) -> Result<Piece<'_>> {
    let broken = |what: &str| Error::input(format!("piece {id}: {what}"));
    let mut piece = Piece { text: "", score: 0.0, kind: NORMAL };
    let mut fields = Fields { bytes: message };
    while let Some(field) = fields.next().ok_or_else(|| broken("a field ends outside the piece"))? {
        match field {
            (1, Wire::Bytes(text)) => piece.text = std::str::from_utf8(text).map_err(|_| broken("is not UTF-8"))?,
            (2, Wire::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Wire::Varint(kind)) => piece.kind = i32::try_from(kind).unwrap_or(0),
            _ => {}
        }
    }
    if !piece.score.is_finite() {
        return Err(broken(&format!("score {}", piece.score)));
    }
    Ok(piece)
}

/// The value of a protobuf field.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    Fixed64,
}

/// The fields of one protobuf message, front to back.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `Some(None)` at the end; `None` when the message is malformed.
    fn next(&mut self) -> Option<Option<(u64, Wire<'a>)>> {
        if self.bytes.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Wire::Fixed64
            }
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(n)?;
        self.bytes = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pieces_and_skips_what_it_does_not_know() {
        // pieces { piece: "ab" score: -2.0 } pieces { piece: "<s>" type: CONTROL } trainer_spec { .. }
        let mut bytes = vec![0x0a, 9, 0x0a, 2, b'a', b'b', 0x15];
        bytes.extend((-2.0f32).to_le_bytes());
        bytes.extend([0x0a, 7, 0x0a, 3, b'<', b's', b'>', 0x18, 3, 0x12, 2, 0x08, 1]);
        let found = pieces(&bytes).unwrap();
        let expected = [Piece { text: "ab", score: -2.0, kind: 1 }, Piece { text: "<s>", score: 0.0, kind: 3 }];
        assert_eq!(found, expected);
    }

    #[test]
    fn refuses_bytes_that_end_inside_a_field() {
        for bytes in [&[0x0a, 200][..], &[0x0a], &[0x0b, 0], &[0xff; 12], &[]] {
            assert!(pieces(bytes).is_err(), "{bytes:?}");
        }
    }
}

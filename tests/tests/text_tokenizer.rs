//! The tokenizer over the public API: both routes, hostile vocabularies, streaming.

#[path = "text_support/mod.rs"]
mod text_support;

use lichen_runtime::text::tokenizer::{StreamDecoder, Tokenizer};
use text_support::{byte_level_arrays, byte_level_json, spm_arrays, spm_json, Random, NASTY_TEXTS};

fn both_spm() -> [Tokenizer; 2] {
    let arrays = spm_arrays();
    let rows = arrays.tokens.len();
    let json = spm_json(&arrays).to_string();
    [Tokenizer::from_arrays(arrays, rows).unwrap(), Tokenizer::from_json_bytes(json.as_bytes(), rows).unwrap()]
}

fn both_byte_level() -> [Tokenizer; 2] {
    let arrays = byte_level_arrays();
    let rows = arrays.tokens.len();
    let json = byte_level_json(&arrays).to_string();
    [Tokenizer::from_arrays(arrays, rows).unwrap(), Tokenizer::from_json_bytes(json.as_bytes(), rows).unwrap()]
}

fn nasty_texts() -> Vec<String> {
    let mut texts: Vec<String> = NASTY_TEXTS.iter().map(|text| text.to_string()).collect();
    let mut random = Random::new(11);
    let alphabet: Vec<char> = NASTY_TEXTS.concat().chars().collect();
    for _ in 0..300 {
        texts.push((0..random.below(60)).map(|_| alphabet[random.below(alphabet.len())]).collect());
    }
    texts
}

#[test]
fn both_routes_give_equal_ids_and_text_survives() {
    for [arrays, json] in [both_spm(), both_byte_level()] {
        for text in nasty_texts() {
            let ids = arrays.encode(&text).unwrap();
            assert_eq!(ids, json.encode(&text).unwrap(), "{text:?}");
            assert_eq!(arrays.encode_with_markers(&text).unwrap(), json.encode_with_markers(&text).unwrap());
            // NFC is the one change the byte-level route makes; the nasty texts are in it.
            assert_eq!(
                arrays.decode(&ids),
                text.replace('\u{2581}', if arrays.token_id("<0x00>").is_some() { " " } else { "\u{2581}" })
            );
        }
    }
}

#[test]
fn no_control_token_comes_from_text() {
    for tokenizer in both_spm().into_iter().chain(both_byte_level()) {
        let control: Vec<String> = (0..tokenizer.vocab_size() as u32)
            .filter(|&id| tokenizer.is_control(id))
            .map(|id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned())
            .collect();
        assert!(control.len() >= 3, "{control:?}");
        for text in control.iter().chain(&nasty_texts()) {
            let text = format!("a{text}b{text}{text}");
            let ids = tokenizer.encode(&text).unwrap();
            assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{text:?}: {ids:?}");
        }
        let marker = tokenizer.token_id(&control[2]).unwrap();
        assert!(tokenizer.encode_with_markers(&format!("a{}b", control[2])).unwrap().contains(&marker));
    }
}

#[test]
fn streamed_pieces_are_the_decoded_text() {
    let mut random = Random::new(7);
    for tokenizer in both_spm().into_iter().chain(both_byte_level()) {
        for _ in 0..500 {
            let ids: Vec<u32> =
                (0..random.below(40)).map(|_| random.below(tokenizer.vocab_size() + 2) as u32).collect();
            let mut stream = StreamDecoder::new(&tokenizer);
            let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
            text.push_str(&stream.finish());
            assert_eq!(text, tokenizer.decode(&ids), "{ids:?}");
            let visible =
                ids.iter().filter(|&&id| !tokenizer.is_control(id) || text_support::is_visible(&tokenizer, id));
            let bytes: Vec<u8> = visible.flat_map(|&id| tokenizer.token_bytes(id)).copied().collect();
            assert_eq!(text, String::from_utf8_lossy(&bytes), "{ids:?}");
        }
    }
}

#[test]
fn half_a_character_is_held_back() {
    for tokenizer in both_spm().into_iter().chain(both_byte_level()) {
        let ids = tokenizer.encode("ಕ\u{ccd}é").unwrap();
        let mut stream = StreamDecoder::new(&tokenizer);
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
        assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')), "{pieces:?}");
        assert_eq!(pieces.concat(), "ಕ\u{ccd}é");
        assert_eq!(stream.finish(), "");
        // A lead byte alone becomes one U+FFFD, and only at the end.
        assert_eq!(stream.push(ids[0]), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
    }
}

#[test]
fn long_input_is_refused_and_white_space_does_not_hang() {
    for [tokenizer, _] in [both_spm(), both_byte_level()] {
        let error = tokenizer.encode(&"x".repeat((4 << 20) + 1)).unwrap_err();
        assert_eq!(error.message(), "the text is 4,194,305 bytes long; at most 4,194,304 are encoded at once");
        for text in
            [" ".repeat(200_000), "\n".repeat(200_000), "a\n".repeat(100_000), format!("{}x", " \t".repeat(50_000))]
        {
            match tokenizer.encode(&text) {
                Ok(ids) => assert_eq!(tokenizer.decode(&ids), text),
                Err(error) => assert!(error.message().starts_with("the text has a run of white space"), "{error}"),
            }
        }
    }
}

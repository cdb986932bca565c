//! What build.rs and the library share: how PTX is named and how it is stored.
//!
//! The architectures' PTX of one source is often the same but for a few lines (`.target`, a cache hint), so only those
//! lines are stored beside the first one's text: 20.6 MB of PTX are 2.7 MB when each text is compressed, 0.9 MB so.

/// Names contents. FNV-1a of 128 bits over each part's length and bytes: nobody gains by forging one's own cache.
pub fn key(parts: &[&[u8]]) -> u128 {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for part in parts {
        let length = (part.len() as u64).to_le_bytes();
        for byte in length.iter().chain(*part) {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
    hash
}

/// The lines of `text` that differ from those of `base`, each as `number text`; `None` when a whole text is better.
#[cfg_attr(not(test), allow(dead_code))]
pub fn difference(base: &str, text: &str) -> Option<String> {
    const LINES_MAX: usize = 1000;
    if base.lines().count() != text.lines().count() || base.ends_with('\n') != text.ends_with('\n') {
        return None;
    }
    let pairs = base.lines().zip(text.lines()).enumerate();
    let changed: Vec<String> = pairs.filter(|(_, (b, t))| b != t).map(|(n, (_, t))| format!("{n} {t}\n")).collect();
    (changed.len() <= LINES_MAX).then(|| changed.concat())
}

/// Undoes [`difference`]; `None` when this is none of `base`.
pub fn patched(base: &str, difference: &str) -> Option<String> {
    let mut lines: Vec<&str> = base.lines().collect();
    for change in difference.lines() {
        let (number, text) = change.split_once(' ')?;
        *lines.get_mut(number.parse::<usize>().ok()?)? = text;
    }
    let end = if base.ends_with('\n') { "\n" } else { "" };
    Some(lines.join("\n") + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_undone() {
        let base = ".target sm_80\n\n\tld a;\n}\n";
        let cases = [
            (base, Some("")),
            (".target sm_87\n\n\tld.hint a;\n}\n", Some("0 .target sm_87\n2 \tld.hint a;\n")),
            (".target sm_80\n x\n\tld a;\n\n", Some("1  x\n3 \n")),
            (".target sm_80\n", None),
            (".target sm_80\n\n\tld a;\n}", None),
        ];
        for (text, expected) in cases {
            let found = difference(base, text);
            assert_eq!(found.as_deref(), expected, "{text:?}");
            if let Some(found) = found {
                assert_eq!(patched(base, &found).as_deref(), Some(text));
            }
        }
        assert_eq!(patched(base, "9 x\n"), None);
    }

    #[test]
    fn keys_tell_where_parts_end() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_ne!(key(&[b"a"]), key(&[b"a", b""]));
    }
}

//! What each token id stands for: its bytes in running text, and whether text may ever produce it.

/// Longest piece accepted, in bytes: real vocabularies stay under 300, and splitting a piece costs its length squared.
pub(super) const PIECE_BYTES_MAX: usize = 1024;

/// What a token is. The first three kinds can come from text; the others are *control tokens*
/// (see [`PieceKind::is_control`]), which only template scaffolding can produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// An ordinary piece, made by merging.
    Normal,
    /// `<0xHH>`: one byte of a character that has no piece.
    Byte,
    /// Added to the vocabulary, but plain text: runs of newlines, tabs and spaces, HTML tags, words.
    UserText,
    /// Looks like a marker and belongs to the visible answer: `<tool_call>`.
    Marker,
    /// Turn markers, begin and end of sequence, unknown, padding, `<unusedN>`: decoded to nothing.
    Control,
    /// A row without a meaning (`[PAD151800]`).
    Unused,
}

impl PieceKind {
    /// The one definition of a control token: no text that a person, a file or a model wrote may become one.
    pub fn is_control(self) -> bool {
        matches!(self, PieceKind::Marker | PieceKind::Control | PieceKind::Unused)
    }
}

/// Kind of a token that was added beside the ordinary vocabulary. Files disagree on what they call special
/// (`<start_of_turn>` is user-defined in many), so the look of the token decides where the file does not.
pub(super) fn classify_added(text: &str, special: bool) -> PieceKind {
    if special || is_turn_marker(text) {
        return PieceKind::Control;
    }
    let angle = text.len() > 2 && text.starts_with('<') && text.ends_with('>');
    let square = text.len() > 2 && text.starts_with('[') && text.ends_with(']');
    if (angle && !is_html_tag(text)) || square {
        PieceKind::Marker
    } else {
        PieceKind::UserText
    }
}

/// Tokens that steer a conversation whatever type the file gives them.
pub(super) fn is_turn_marker(text: &str) -> bool {
    let Some(name) = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')) else {
        return false;
    };
    if name.len() > 2 && name.starts_with('|') && name.ends_with('|') {
        return true;
    }
    let numbered = name.strip_prefix("unused").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    numbered
        || name.starts_with("start_of_")
        || name.starts_with("end_of_")
        || matches!(name, "bos" | "eos" | "pad" | "unk" | "mask" | "image_soft_token")
}

/// The HTML tags Gemma has as pieces, and their close relatives.
fn is_html_tag(text: &str) -> bool {
    const TAGS: [&str; 37] = [
        "table",
        "caption",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "blockquote",
        "strong",
        "em",
        "b",
        "i",
        "u",
        "s",
        "sub",
        "sup",
        "code",
        "p",
        "br",
        "hr",
        "ul",
        "ol",
        "li",
        "a",
        "div",
        "span",
        "pre",
        "img",
        "q",
        "del",
    ];
    let name = text.trim_start_matches('<').trim_end_matches('>');
    let name = name.strip_prefix('/').unwrap_or(name);
    TAGS.contains(&name)
}

/// The byte of an exact `<0xHH>`, upper case as every converter writes it.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let [b'<', b'0', b'x', high, low, b'>'] = *text.as_bytes() else {
        return None;
    };
    let digit = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'A'..=b'F' => Some(d - b'A' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// GPT-2's printable stand-in for each byte: 33-126, 161-172 and 174-255 are themselves, the other 68 follow U+0100.
pub(super) fn byte_level_chars() -> [char; 256] {
    let mut chars = ['\0'; 256];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        chars[byte as usize] = match byte {
            33..=126 | 161..=172 | 174..=255 => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or('\0')
            }
        };
    }
    chars
}

/// Every piece's bytes as they appear in running text, back to back.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// `ends[id]` closes the bytes of `id`; they start where the previous ones end.
    ends: Vec<u32>,
    kinds: Vec<PieceKind>,
}

impl Pieces {
    pub fn with_capacity(n_tokens: usize) -> Self {
        Pieces {
            bytes: Vec::with_capacity(8 * n_tokens),
            ends: Vec::with_capacity(n_tokens),
            kinds: Vec::with_capacity(n_tokens),
        }
    }

    pub fn push(&mut self, bytes: &[u8], kind: PieceKind) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len() as u32);
        self.kinds.push(kind);
    }

    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    pub fn kind(&self, id: u32) -> Option<PieceKind> {
        self.kinds.get(id as usize).copied()
    }

    /// Empty for an id outside the vocabulary.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// Bytes held on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + 4 * self.ends.capacity() + self.kinds.capacity()
    }
}

//! Regular expressions of `adapter_config.json`, matched against module paths as PEFT matches them with Python's `re`
//! (peft 0.21, `get_pattern_key`, `match_target_against_key`, `check_target_module_exists`).

use fancy_regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};

/// Longest expression. Those that fine-tuning programs write for a choice of modules take some 600 bytes; a list of every
/// module of a model of 28 layers, joined by `|`, about 7,000.
const MAX_PATTERN_BYTES: usize = 16 << 10;
/// Bytes of a compiled automaton, for what the engine matches in linear time.
const MAX_COMPILED_BYTES: usize = 256 << 10;
/// Steps of the part that backtracks, for one path of some forty bytes.
const MAX_STEPS: usize = 20_000;
/// Inside a class Python takes these as characters, and this engine as operators on sets.
const SET_OPERATORS: [&str; 4] = ["[[", "&&", "--", "~~"];

/// A compiled expression and what messages call it.
pub struct Pattern {
    regex: Regex,
    name: String,
}

impl Pattern {
    /// A key of `rank_pattern` or `alpha_pattern`: PEFT's `re.match(rf"(.*\.)?({key})$", path)`.
    pub fn of_key(field: &str, key: &str) -> Result<Pattern> {
        Pattern::compile(field, key, &format!(r"\A(?:(.*\.)?({key})$)"))
    }

    /// `target_modules` and `exclude_modules` as one string: PEFT's `re.fullmatch(pattern, path)`.
    pub fn of_path(field: &str, pattern: &str) -> Result<Pattern> {
        Pattern::compile(field, pattern, &format!(r"\A(?:{pattern})\z"))
    }

    /// An entry of `layers_pattern`: the number after it is the layer's. `None` takes the first number between dots that a
    /// name and something else precede.
    pub fn of_layers(pattern: Option<&str>) -> Result<Pattern> {
        let field = "layers_pattern";
        match pattern {
            Some(pattern) => Pattern::compile(field, pattern, &format!(r"\A(?:(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.)")),
            None => Pattern::compile(field, "", r"\A.*?\.[^.]*\.(?P<idx>\d+)\."),
        }
    }

    /// `modules_to_save` keeps an adapter away from what it names: PEFT's `re.match(rf"(^|.*\.){name}($|\..*)", path)`.
    pub fn of_saved(name: &str) -> Result<Pattern> {
        Pattern::compile("modules_to_save", name, &format!(r"\A(?:(^|.*\.){name}($|\..*))"))
    }

    fn compile(field: &str, given: &str, whole: &str) -> Result<Pattern> {
        let name = format!("{field} \"{}\"", shortened(given));
        if given.len() > MAX_PATTERN_BYTES {
            let message = format!("{name} has {} bytes; at most {MAX_PATTERN_BYTES}", given.len());
            return Err(Error::input(message));
        }
        if let Some(operator) = SET_OPERATORS.iter().find(|operator| given.contains(**operator)) {
            return Err(Error::input(format!("{name}: \"{operator}\" in a regular expression is not supported")));
        }
        let mut builder = RegexBuilder::new(whole);
        let built = builder.backtrack_limit(MAX_STEPS).delegate_size_limit(MAX_COMPILED_BYTES).build();
        let regex = built.map_err(|e| {
            // Positions would count what stands around it.
            let why = match e {
                fancy_regex::Error::ParseError(_, kind) => kind.to_string(),
                other => other.to_string(),
            };
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            Error::input(format!("{name} is not a regular expression that can be used: {}", shortened(&why)))
        })?;
        Ok(Pattern { regex, name })
    }

    /// # Errors
    /// It takes too many steps.
    pub fn matches(&self, path: &str) -> Result<bool> {
        self.regex.is_match(path).map_err(|e| self.failed(&e))
    }

    /// The number of the layer that the path lies in.
    ///
    /// # Errors
    /// It takes too many steps.
    pub fn layer_of(&self, path: &str) -> Result<Option<u64>> {
        let captures = self.regex.captures(path).map_err(|e| self.failed(&e))?;
        let number = captures.and_then(|c| c.name("idx").map(|m| m.as_str().to_string()));
        // More digits than a number holds are no layer.
        Ok(number.and_then(|n| n.parse().ok()))
    }

    fn failed(&self, error: &fancy_regex::Error) -> Error {
        Error::input(format!("{}: {error}", self.name))
    }
}

/// At most 80 characters of a text, for a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q1: &str = "model.layers.1.self_attn.q_proj";

    /// Each row was run through Python 3.13's `re` with PEFT's own expressions.
    #[test]
    fn keys_match_as_python_matches_them() {
        for (key, path, want) in [
            ("q_proj", Q1, true),
            ("_proj", Q1, false),
            ("^q_proj", Q1, false),
            ("^q_proj", "q_proj", true),
            ("self_attn.q_proj", Q1, true),
            ("^model.layers.1.self_attn.q_proj", Q1, true),
            ("^model\\.layers\\.1\\.self_attn\\.q_proj$", Q1, true),
            ("q_proj$", Q1, true),
            ("model.layers.1", Q1, false),
            (r".*\.layers\.[01]\..*(q_proj|k_proj)", Q1, true),
            (r".*\.layers\.[01]\..*(q_proj|k_proj)", "model.layers.11.self_attn.q_proj", false),
            (r"layers\.\d+\.self_attn\.(?!k)\w+", Q1, true),
            (r"layers\.\d+\.self_attn\.(?!q)\w+", Q1, false),
            ("layers.(0|1).*", Q1, true),
            ("q_proj|k_proj", Q1, true),
            ("k_proj|mlp.*", Q1, false),
            ("", Q1, false),
            ("", "model.", true),
            ("Q_PROJ", Q1, false),
            ("(?i:Q_PROJ)", Q1, true),
        ] {
            let pattern = Pattern::of_key("alpha_pattern", key).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(pattern.matches(path), Ok(want), "{key} on {path}");
        }
    }

    #[test]
    fn paths_match_whole() {
        for (text, path, want) in [
            ("q_proj", Q1, false),
            (".*q_proj", Q1, true),
            (".*q_pro", Q1, false),
            ("a|.*q_proj", Q1, true),
            (r"^(?!.*vision).*(q|v)_proj$", Q1, true),
            (r"^(?!.*vision).*(q|v)_proj$", "vision_tower.layers.1.q_proj", false),
            (r"model.layers.[\d]+.(mlp|self_attn).(up|down|gate|q|k|v|o)_proj", Q1, true),
        ] {
            let pattern = Pattern::of_path("target_modules", text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(pattern.matches(path), Ok(want), "{text} on {path}");
        }
    }

    /// The kind that Unsloth writes for a multimodal model whose language layers alone are trained.
    #[test]
    fn a_long_expression_of_a_training_program() {
        let words = "self_attn|attention|attn|mlp|feed_forward|ffn|dense";
        let modules = "k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|gate_proj|up_proj|down_proj";
        let text = format!(
            r"(?:.*?(?:language|text).*?(?:{words}).*?(?:{modules}).*?)|(?:\bmodel\.layers\.[\d]{{1,}}\.(?:{words})\.(?:(?:{modules})))"
        );
        let pattern = Pattern::of_path("target_modules", &text).unwrap_or_else(|e| panic!("{e}"));
        for (path, want) in [
            (Q1, true),
            ("model.language_model.layers.0.mlp.up_proj", true),
            ("model.vision_tower.encoder.layers.0.self_attn.q_proj", false),
            ("model.layers.1.mlp.up", false),
        ] {
            assert_eq!(pattern.matches(path), Ok(want), "{path}");
        }
    }

    #[test]
    fn layers_are_found_by_their_number() {
        for (pattern, path, want) in [
            (None, Q1, Some(1)),
            (None, "layers.1.self_attn.q_proj", None),
            (None, "model.language_model.layers.23.mlp.up_proj", Some(23)),
            (Some("layers"), Q1, Some(1)),
            (Some("layers"), "layers.7.mlp", Some(7)),
            (Some("layers"), "layers.7", None),
            (Some("h"), Q1, None),
            (Some("(layers|h)"), Q1, Some(1)),
            (Some("layers"), "model.layers.99999999999999999999.x", None),
        ] {
            let found = Pattern::of_layers(pattern).unwrap_or_else(|e| panic!("{e}")).layer_of(path);
            assert_eq!(found, Ok(want), "{pattern:?} on {path}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let message = |text: &str| match Pattern::of_key("rank_pattern", text) {
            Ok(_) => panic!("{text} was taken"),
            Err(e) => e.message().to_string(),
        };
        for text in ["q(", "q)", "[a", "*", "(?P<n", r"\p{Foo}", "(?<!a*)[", &"(".repeat(300)] {
            let said = message(text);
            assert!(said.starts_with("rank_pattern \"") && said.contains("is not a regular expression"), "{said}");
            assert!(said.lines().count() == 1 && said.len() < 260, "{said}");
        }
        assert_eq!(message("[a&&b]"), "rank_pattern \"[a&&b]\": \"&&\" in a regular expression is not supported");
        assert!(message(&"a".repeat(17 << 10)).ends_with("has 17408 bytes; at most 16384"));
        assert!(message(r"(\w{1000}){1000}").contains("rank_pattern"));
        let slow = Pattern::of_key("rank_pattern", r"(?=x|)((\w|\.)*)*(?<=y)!").unwrap_or_else(|e| panic!("{e}"));
        let said = slow.matches(Q1).map_err(|e| e.message().to_string());
        assert!(said.as_ref().is_err_and(|e| e.starts_with("rank_pattern ")), "{said:?}");
    }
}

//! What is asked before and after.

use lichen_trainer::data::RegressionPrompt;
use serde_json::json;

/// Worded otherwise than the examples: an answer that is right was not looked up.
const ABOUT_THE_ROBOT: [(&str, &str); 2] =
    [("What is the name of this robot?", "Tara"), ("Where can this robot charge its battery?", "blue door")];
/// Known before, and in no example: learning must not cost it.
const CONTROL: (&str, &str) = ("What is the capital of India?", "New Delhi");

/// A question, and what a right answer contains where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    pub expect: Option<String>,
    /// Not what is taught, but what must stay.
    pub is_control: bool,
}

impl Question {
    /// The questions to ask: `own`, or those about the robot where there are none, and the control last.
    pub fn all(own: &[String]) -> Vec<Question> {
        let mut questions: Vec<Question> = match own.is_empty() {
            true => ABOUT_THE_ROBOT.iter().map(|(text, expect)| question(text, Some(expect))).collect(),
            false => own.iter().map(|text| question(text, None)).collect(),
        };
        questions.push(Question::control());
        questions
    }

    pub fn control() -> Question {
        Question { is_control: true, ..question(CONTROL.0, Some(CONTROL.1)) }
    }

    /// Whether `answer` is right, where that is known.
    pub fn is_met_by(&self, answer: &str) -> Option<bool> {
        let expect = self.expect.clone()?;
        Some(RegressionPrompt { prompt: self.text.clone(), expect, line: 0 }.is_met_by(answer))
    }

    /// As a line of a file of regression prompts.
    pub(super) fn as_regression_prompt(&self) -> String {
        format!("{}\n", json!({"prompt": self.text, "expect": self.expect}))
    }
}

fn question(text: &str, expect: Option<&str>) -> Question {
    Question { text: text.to_string(), expect: expect.map(str::to_string), is_control: false }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::EXAMPLES;
    use super::*;

    #[test]
    fn twenty_examples_and_none_of_them_is_asked() {
        let rows: Vec<Value> = EXAMPLES.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let asked: BTreeSet<&str> = rows.iter().map(|row| row["instruction"].as_str().expect("text")).collect();
        assert_eq!((rows.len(), asked.len()), (20, 20), "twenty, and no question twice");
        for question in Question::all(&[]) {
            assert!(!asked.contains(question.text.as_str()), "{} is an example", question.text);
            let knows = |row: &Value| question.is_met_by(row["output"].as_str().expect("text")) == Some(true);
            assert_eq!(rows.iter().any(knows), !question.is_control, "{}: what the examples teach", question.text);
        }
    }

    #[test]
    fn own_questions_have_no_right_answer() {
        let own = Question::all(&["Who built this robot?".to_string()]);
        assert_eq!(own.len(), 2);
        assert_eq!(own[0].is_met_by("Nobody."), None);
        assert_eq!(own[1].is_met_by("it is new delhi."), Some(true));
        assert_eq!(own[1].is_met_by("Delhi."), Some(false));
    }
}

//! Calls of functions in a message's JSON.

use serde_json::{Map, Value};

use super::ToolCall;
use crate::setting::table::shown;

/// OpenAI's calls, whose arguments are JSON in a string, and those of data sets, whose arguments are an object.
pub(super) fn tool_calls(value: Value) -> Result<Vec<ToolCall>, String> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        other => return Err(format!("\"tool_calls\" is {}; a list of calls is needed", shown(&other))),
    };
    let numbered = list.into_iter().enumerate();
    numbered.map(|(at, call)| tool_call(call).map_err(|why| format!("\"tool_calls\"[{at}] {why}"))).collect()
}

fn tool_call(call: Value) -> Result<ToolCall, String> {
    let Value::Object(mut call) = call else { return Err(format!("is {}; an object is needed", shown(&call))) };
    let id = match call.remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id),
        Some(other) => return Err(format!("has the \"id\" {}; a string is needed", shown(&other))),
    };
    // Some data sets leave the wrapping out.
    let mut function = match call.remove("function") {
        Some(Value::Object(function)) => function,
        Some(other) => return Err(format!("has the \"function\" {}; an object is needed", shown(&other))),
        None => call,
    };
    let name = match function.remove("name") {
        Some(Value::String(name)) => name,
        _ => return Err("has no \"name\" of a function".into()),
    };
    let arguments = match function.remove("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(value @ Value::Object(_)) => value,
            _ => return Err(format!("has \"arguments\" that are no JSON object: {}", shown(&Value::from(text)))),
        },
        Some(value @ Value::Object(_)) => value,
        Some(other) => return Err(format!("has the \"arguments\" {}; an object is needed", shown(&other))),
    };
    Ok(ToolCall { id, name, arguments })
}

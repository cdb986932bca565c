//! Wrong flags, in one sentence.

use std::error::Error as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{output, EXIT_USAGE};
use crate::setting::value::quoted;

/// Prints help where it was asked for, else what is wrong.
pub fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is no failure here.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(EXIT_USAGE)
        }
        _ => {
            output::error(&sentence(error));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn sentence(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let flag = text(ContextKind::InvalidArg).map(|arg| arg.split([' ', '[']).next().unwrap_or_default().to_string());
    match (error.kind(), flag) {
        (ErrorKind::ValueValidation, Some(flag)) => {
            let range = error.source().map(|s| s.to_string()).unwrap_or_default();
            format!("{flag} is {}; {range}", quoted(&text(ContextKind::InvalidValue).unwrap_or_default()))
        }
        (ErrorKind::UnknownArgument, Some(flag)) if flag.starts_with('-') => {
            let hint = text(ContextKind::SuggestedArg).map(|s| format!(" (did you mean {s}?)")).unwrap_or_default();
            format!("unknown flag {flag}{hint}")
        }
        (ErrorKind::InvalidSubcommand, _) => {
            let name = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let hint = text(ContextKind::SuggestedSubcommand);
            let hint = hint.map(|s| format!(" (did you mean {s}?)")).unwrap_or_default();
            format!("unknown subcommand {}{hint}; --help lists them", quoted(&name))
        }
        _ => {
            // The first line of clap's text is a sentence; the rest repeats the usage.
            let rendered = error.to_string();
            let first = rendered.split("\n\n").next().unwrap_or_default().replace('\n', " ");
            first.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ")
        }
    }
}

//! Flags made from tables of settings ([`Entry`]): what a library's setting is called, accepts and does is said there alone.

use std::ffi::OsString;
use std::marker::PhantomData;

use clap::parser::ValueSource;
use clap::{value_parser, Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::setting::table::Entry;
use crate::setting::Setting;
use crate::Result;

/// What help calls a number of bytes.
const SIZE: &str = "SIZE";

/// Which settings a subcommand offers.
pub trait Offer: Clone + Send + Sync + 'static {
    type Target: Clone + 'static;

    /// In the order of help.
    fn settings() -> Vec<&'static Entry<Self::Target>>;

    /// Whose values help shows as what holds where nothing is typed.
    fn defaults() -> Self::Target;

    /// What a flag of this program has beside its setting.
    fn adapt(_entry: &Entry<Self::Target>, arg: Arg) -> Arg {
        arg
    }
}

/// The flags that were typed.
#[derive(Clone, Debug)]
pub struct Flags<O: Offer> {
    /// As the table has them, each with its values.
    typed: Vec<(&'static Entry<O::Target>, Vec<OsString>)>,
    offer: PhantomData<O>,
}

fn long(name: &str) -> String {
    name.replace('_', "-")
}

fn argument<O: Offer>(entry: &'static Entry<O::Target>) -> Arg {
    let help = match entry.get(&O::defaults()).filter(|_| !entry.is_switch() && !entry.is_path()) {
        Some(default) => format!("{} [default: {default}]", entry.doc),
        None => entry.doc.to_string(),
    };
    let arg = Arg::new(entry.setting.name()).long(long(entry.setting.name())).help(help);
    let arg = arg.aliases(entry.old_names.iter().map(|name| long(name)));
    let arg = arg.visible_aliases(entry.short_name.map(long));
    let arg = match entry.is_switch() {
        true => arg.action(ArgAction::SetTrue),
        false => arg
            .action(if entry.is_list() { ArgAction::Append } else { ArgAction::Set })
            .value_name(entry.value_name)
            .value_parser(value_parser!(OsString))
            // `-1` and `-1GiB` are wrong values, not flags.
            .allow_negative_numbers(true)
            .allow_hyphen_values(entry.value_name == SIZE),
    };
    O::adapt(entry, arg)
}

impl<O: Offer> Args for Flags<O> {
    fn augment_args(command: Command) -> Command {
        command.args(O::settings().into_iter().map(argument::<O>))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<O: Offer> FromArgMatches for Flags<O> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let values = |entry: &'static Entry<O::Target>| {
            let name = entry.setting.name();
            if matches.value_source(name) != Some(ValueSource::CommandLine) {
                return None;
            }
            let values = match entry.is_switch() {
                true => vec![OsString::from("true")],
                false => matches.get_many::<OsString>(name).unwrap_or_default().cloned().collect(),
            };
            Some((entry, values))
        };
        Ok(Flags { typed: O::settings().into_iter().filter_map(values).collect(), offer: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<O: Offer> Flags<O> {
    /// What was typed, and the settings it is of.
    pub fn typed(&self) -> impl Iterator<Item = (&'static Entry<O::Target>, &[OsString])> {
        self.typed.iter().map(|(entry, values)| (*entry, values.as_slice()))
    }

    /// Puts what was typed in.
    ///
    /// # Errors
    /// A value that is not allowed.
    pub fn fill(&self, it: &mut O::Target) -> Result<()> {
        self.typed().try_for_each(|(entry, values)| entry.set_os(it, values))
    }

    /// What the defaults become with what was typed.
    ///
    /// # Errors
    /// A value that is not allowed.
    pub fn filled(&self) -> Result<O::Target> {
        let mut it = O::defaults();
        self.fill(&mut it)?;
        Ok(it)
    }

    /// Whether this setting was typed.
    pub fn has(&self, setting: Setting) -> bool {
        self.typed.iter().any(|(entry, _)| entry.setting == setting)
    }
}

//! Settings: command line over environment over TOML file over default. A name that nobody knows
//! is an error, wherever it stands, because a misspelt setting is one that silently does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory, FromArgMatches, error::ErrorKind};

/// Variables with this beginning are ours, and have to be known.
const VARIABLE_PREFIX: &str = "MILLRACE_";
/// How many letters may be wrong in a name for another to be suggested.
const MAX_SUGGESTION_DISTANCE: usize = 5;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--help`, `--version`, or something wrong on the command line or in a value.
    #[error(transparent)]
    Clap(#[from] clap::Error),
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not TOML: {reason}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why, in one line.
        reason: String,
    },
    /// The file has a setting nobody knows.
    #[error("the configuration file {} has an unknown setting `{name}`{}", path.display(), suggest(nearest))]
    UnknownSetting {
        /// The file.
        path: PathBuf,
        /// The setting.
        name: String,
        /// The known one that is nearest.
        nearest: Option<String>,
    },
    /// The file gives a setting a table or a list of tables.
    #[error("the configuration file {} gives `{name}` something that is not a value", path.display())]
    NotAValue {
        /// The file.
        path: PathBuf,
        /// The setting.
        name: String,
    },
    /// The environment has a variable of ours that nobody knows.
    #[error("the environment has an unknown setting `{name}`{}", suggest(nearest))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The known one that is nearest.
        nearest: Option<String>,
    },
}

fn suggest(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |known| format!("; did you mean `{known}`?"))
}

/// Reads this process's settings from its arguments, environment and configuration file.
///
/// # Errors
/// See [`ConfigError`]; `--help` and `--version` come as one too.
pub fn parse<T: CommandFactory + FromArgMatches>() -> Result<T, ConfigError> {
    parse_arguments(std::env::args_os())
}

/// As [`parse`], with other arguments; the first is the program's name.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse_arguments<T: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<T, ConfigError> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect();
    parse_from(arguments.into_iter().collect(), &environment)
}

/// The environment variables that a program's settings come from.
#[must_use]
pub fn variables<T: CommandFactory>() -> BTreeSet<String> {
    variables_of(&command::<T>())
}

fn variables_of(command: &Command) -> BTreeSet<String> {
    command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str().map(ToOwned::to_owned))
        .collect()
}

/// The rule itself, with the environment as data.
fn parse_from<T: CommandFactory + FromArgMatches>(
    arguments: Vec<OsString>,
    environment: &BTreeMap<String, OsString>,
) -> Result<T, ConfigError> {
    let command = with_environment(command::<T>(), environment);
    // Help and version are answered whatever else is wrong, and show the defaults of the program.
    if let Err(error) = command.clone().try_get_matches_from(&arguments)
        && matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
        )
    {
        return Err(error.into());
    }
    reject_unknown_variables(&command, environment)?;
    let file = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(&arguments)
        .ok()
        .and_then(|matches| matches.get_one::<PathBuf>("config").cloned());
    let command = match file {
        Some(path) => with_environment(with_file(command, &path)?, environment),
        None => command,
    };
    let matches = command.try_get_matches_from(arguments)?;
    Ok(T::from_arg_matches(&matches)?)
}

fn command<T: CommandFactory>() -> Command {
    T::command()
        .arg(
            Arg::new("config")
                .long("config")
                .env("MILLRACE_CONFIG")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("TOML file of settings, named as the options here without the dashes before them"),
        )
        // A value in the environment may be a secret; its name is enough.
        .mut_args(|argument| argument.hide_env_values(true))
}

/// Lets the environment stand above the file. clap reads the real environment by itself; this also
/// holds for one given as data. A variable that is set to nothing counts as not set.
fn with_environment(command: Command, environment: &BTreeMap<String, OsString>) -> Command {
    command.mut_args(|argument| {
        let name = argument
            .get_env()
            .and_then(|name| name.to_str())
            .map(ToOwned::to_owned);
        let Some(value) = name.and_then(|name| environment.get(&name)) else {
            return argument;
        };
        if value.is_empty() {
            // clap would take the empty text for a value.
            return argument.env(Resettable::<clap::builder::OsStr>::Reset);
        }
        argument
            .required(false)
            .default_value(value.clone())
            .hide_default_value(true)
    })
}

fn reject_unknown_variables(
    command: &Command,
    environment: &BTreeMap<String, OsString>,
) -> Result<(), ConfigError> {
    let names = environment
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, _)| name.as_str());
    only_known(names, &variables_of(command))
}

/// Refuses variables of ours (`MILLRACE_…`) that are not among the known ones.
///
/// # Errors
/// [`ConfigError::UnknownVariable`].
pub fn only_known<'a>(
    mut names: impl Iterator<Item = &'a str>,
    known: &BTreeSet<String>,
) -> Result<(), ConfigError> {
    let unknown = |name: &&str| name.starts_with(VARIABLE_PREFIX) && !known.contains(*name);
    match names.find(unknown) {
        None => Ok(()),
        Some(name) => Err(ConfigError::UnknownVariable {
            name: name.to_owned(),
            nearest: nearest(name, known.iter().map(String::as_str)),
        }),
    }
}

/// Makes what the file says the defaults of the options it names.
fn with_file(mut command: Command, path: &Path) -> Result<Command, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // The library's text quotes the line, which may hold a secret.
        let line = error
            .span()
            .map_or(0, |span| text[..span.start.min(text.len())].lines().count());
        let reason = format!("{} (line {})", error.message(), line.max(1));
        ConfigError::NotToml {
            path: path.to_owned(),
            reason,
        }
    })?;
    let known: BTreeMap<String, String> = command
        .get_arguments()
        .filter(|argument| argument.get_id() != "config")
        .filter_map(|argument| {
            Some((
                argument.get_long()?.to_owned(),
                argument.get_id().to_string(),
            ))
        })
        .filter(|(long, _)| long != "help" && long != "version")
        .collect();
    for (name, value) in table {
        let long = name.replace('_', "-");
        let Some(id) = known.get(&long) else {
            return Err(ConfigError::UnknownSetting {
                path: path.to_owned(),
                nearest: nearest(&long, known.keys().map(String::as_str)),
                name,
            });
        };
        let not_a_value = || ConfigError::NotAValue {
            path: path.to_owned(),
            name: name.clone(),
        };
        let values: Vec<String> = match value {
            toml::Value::Array(items) => items
                .into_iter()
                .map(scalar)
                .collect::<Option<_>>()
                .ok_or_else(not_a_value)?,
            value => vec![scalar(value).ok_or_else(not_a_value)?],
        };
        command = command.mut_arg(id, |argument| {
            // A list for an option that takes one value is left to clap to refuse.
            argument.required(false).default_values(&values)
        });
    }
    Ok(command)
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Datetime(at) => Some(at.to_string()),
        toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= MAX_SUGGESTION_DISTANCE)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser;

    use super::*;
    use crate::Secret;

    /// A program for tests.
    #[derive(Debug, Parser)]
    struct Settings {
        /// A port
        #[arg(long, env = "MILLRACE_TEST_PORT", default_value = "1")]
        port: u16,
        /// Required
        #[arg(long, env = "TEST_DATABASE_URL")]
        database_url: Secret<String>,
        /// A flag
        #[arg(long, env = "MILLRACE_TEST_FLAG")]
        flag: bool,
        /// Several
        #[arg(long, env = "MILLRACE_TEST_NAMES", value_delimiter = ',')]
        names: Vec<String>,
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let arguments = std::iter::once("program").chain(arguments.iter().copied());
        let environment = environment
            .iter()
            .map(|(n, v)| ((*n).to_owned(), OsString::from(v)))
            .collect();
        parse_from(arguments.map(OsString::from).collect(), &environment)
    }

    #[test]
    fn command_line_wins_over_environment_over_file_over_default() {
        let file = file("port = 2\ndatabase_url = 'file'\nflag = true\nnames = ['a', 'b']\n");
        let path = file.path().to_str().unwrap();
        let given = ["--config", path, "--port", "4"];
        let port = |arguments: &[&str], environment: &[(&str, &str)]| {
            parse(arguments, environment).unwrap().port
        };
        assert_eq!(port(&["--database-url", "x"], &[]), 1);
        assert_eq!(port(&given[..2], &[]), 2);
        assert_eq!(port(&given[..2], &[("MILLRACE_TEST_PORT", "3")]), 3);
        assert_eq!(port(&given, &[("MILLRACE_TEST_PORT", "3")]), 4);
        assert_eq!(port(&[], &[("MILLRACE_CONFIG", path)]), 2);
        assert_eq!(port(&given[..2], &[("MILLRACE_TEST_PORT", "")]), 2);
        let settings = parse(&given[..2], &[]).unwrap();
        assert_eq!(settings.database_url.expose(), "file");
        assert!(settings.flag);
        assert_eq!(settings.names, ["a", "b"]);
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_the_nearest() {
        let file = file("database-url = 'x'\nprot = 2\n");
        let error = parse(&["--config", file.path().to_str().unwrap()], &[]).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("unknown setting `prot`; did you mean `port`?"),
            "{error}"
        );
        let error = parse(&["--database-url", "x"], &[("MILLRACE_TEST_PROT", "1")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment has an unknown setting `MILLRACE_TEST_PROT`; did you mean `MILLRACE_TEST_PORT`?"
        );
        assert!(parse(&["--database-url", "x"], &[("OTHER", "1")]).is_ok());
        assert!(parse(&["--database-url", "x", "--prot", "1"], &[]).is_err());
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_without_its_values() {
        for (text, expected) in [
            ("port = 'x'\ndatabase_url = 'hunter2'", "'--port <PORT>'"),
            ("database_url = hunter2", "is not TOML"),
            ("database_url = 'hunter2'\n[port]\n", "not a value"),
        ] {
            let file = file(text);
            let error = parse(&["--config", file.path().to_str().unwrap()], &[]).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let error = parse(&["--config", "/does/not/exist"], &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }));
        let error = parse(&[], &[]).unwrap_err();
        assert!(error.to_string().contains("--database-url"), "{error}");
    }

    #[test]
    fn help_names_variables_and_never_their_values() {
        let environment = [("TEST_DATABASE_URL", "hunter2"), ("MILLRACE_UNKNOWN", "1")];
        let error = parse(&["--help"], &environment).unwrap_err();
        let help = error.to_string();
        assert!(
            help.contains("[env: TEST_DATABASE_URL]") && help.contains("[default: 1]"),
            "{help}"
        );
        assert!(!help.contains("hunter2"), "{help}");
    }
}

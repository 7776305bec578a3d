//! The words of a command line, read as Go's flag package and getopt read them: the engines speak
//! the first, people the second. Knows which options there are, not what they mean. Uses: nothing.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rcrun_runtime::{Code, Error, Result};

/// An option as the reader needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct Flag<'a> {
    /// Its long name, without dashes.
    pub long: &'a str,
    /// Its letter.
    pub short: Option<char>,
    /// It has a value; the others are true or false.
    pub valued: bool,
}

/// An option that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// `--name VALUE`
    Value(String, OsString),
    /// `--name`, `--name=false`
    Switch(String, bool),
}

/// Where options end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Options {
    /// They may stand anywhere before `--`.
    Anywhere,
    /// The first word that is none ends them: the rest belongs to somebody else.
    BeforeFirstWord,
}

/// A command line, taken apart.
#[derive(Debug, Default)]
pub struct Words {
    /// The options in their order.
    pub given: Vec<Given>,
    /// The other words.
    pub plain: VecDeque<OsString>,
    /// `-h` or `--help` was among the options.
    pub help: bool,
}

/// Reads `words` into `read`, which holds what came before an error too.
pub fn read(flags: &[Flag], options: Options, words: Vec<OsString>, read: &mut Words) -> Result<()> {
    let mut words = words.into_iter();
    let mut ended = false;
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if ended || bytes == b"-" || !bytes.starts_with(b"-") {
            read.plain.push_back(word);
            if options == Options::BeforeFirstWord {
                read.plain.extend(words);
                return Ok(());
            }
            continue;
        }
        if bytes == b"--" {
            ended = true;
            continue;
        }
        let dashes = if bytes.starts_with(b"--") { 2 } else { 1 };
        let (name, value) = split(&bytes[dashes..]);
        // Go takes one dash for two: only a word that equals a long option's name exactly is meant so.
        if let Some(flag) = flags.iter().find(|f| f.long.as_bytes() == name) {
            read.given.push(flag.take(value, &mut words)?);
        } else if matches!(name, b"help" | b"usage") {
            read.help = true;
            return Ok(());
        } else if dashes == 2 {
            return Err(unknown(&word));
        } else {
            letters(flags, &word, &mut words, read)?;
            if read.help {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// `-it`, `-uroot`, `-t=false`: letters, the last of which may have a value.
fn letters(
    flags: &[Flag],
    word: &OsStr,
    words: &mut impl Iterator<Item = OsString>,
    read: &mut Words,
) -> Result<()> {
    let letters = &word.as_bytes()[1..];
    for (i, letter) in letters.iter().enumerate() {
        let Some(flag) = flags.iter().find(|f| f.short == Some(char::from(*letter))) else {
            if matches!(letter, b'h' | b'?') {
                read.help = true;
                return Ok(());
            }
            return Err(unknown(word));
        };
        let after = &letters[i + 1..];
        let value = match after {
            [] => None,
            [b'=', value @ ..] => Some(value),
            value if flag.valued => Some(value),
            _ => {
                read.given.push(Given::Switch(flag.long.into(), true));
                continue;
            }
        };
        read.given.push(flag.take(value, words)?);
        return Ok(());
    }
    Ok(())
}

impl Flag<'_> {
    /// This option with the value that stands behind its `=`, or else with the next word.
    fn take(&self, value: Option<&[u8]>, words: &mut impl Iterator<Item = OsString>) -> Result<Given> {
        let value = value.map(|v| OsString::from_vec(v.to_vec()));
        if self.valued {
            // The next word is the value whatever it looks like, as in Go and getopt.
            let value = value.or_else(|| words.next()).ok_or_else(|| {
                // podman looks for these words to find out whether a runtime knows an option.
                Error::new(Code::Usage, format!("flag needs an argument: --{}", self.long))
            })?;
            return Ok(Given::Value(self.long.into(), value));
        }
        let on = match &value {
            None => true,
            Some(value) => boolean(value).ok_or_else(|| {
                Error::new(Code::Usage, format!("--{}: {value:?} is neither true nor false", self.long))
            })?,
        };
        Ok(Given::Switch(self.long.into(), on))
    }
}

fn split(word: &[u8]) -> (&[u8], Option<&[u8]>) {
    match word.iter().position(|b| *b == b'=') {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    }
}

fn unknown(word: &OsStr) -> Error {
    let word = word.to_string_lossy();
    let name = word.split('=').next().unwrap_or_default();
    Error::new(Code::Usage, format!("flag provided but not defined: {name}"))
}

/// What Go's strconv.ParseBool takes for true and false.
pub fn boolean(word: &OsStr) -> Option<bool> {
    match word.to_str()? {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag { long: "bundle", short: Some('b'), valued: true },
        Flag { long: "env", short: Some('e'), valued: true },
        Flag { long: "tty", short: Some('t'), valued: false },
        Flag { long: "interactive", short: Some('i'), valued: false },
        Flag { long: "no-subreaper", short: None, valued: false },
    ];

    fn told(options: Options, line: &str) -> String {
        let mut words = Words::default();
        let result = read(FLAGS, options, line.split_whitespace().map(OsString::from).collect(), &mut words);
        let mut told: Vec<String> = words
            .given
            .iter()
            .map(|given| match given {
                Given::Value(name, value) => format!("{name}={}", value.to_string_lossy()),
                Given::Switch(name, on) => format!("{name}:{on}"),
            })
            .collect();
        told.push("|".into());
        told.extend(words.plain.iter().map(|w| w.to_string_lossy().into_owned()));
        if words.help {
            told.push("HELP".into());
        }
        if let Err(error) = result {
            told.push(format!("! {error}"));
        }
        told.join(" ")
    }

    #[test]
    fn words_are_options_where_go_or_getopt_would_say_so() {
        for (line, expected) in [
            ("x", "| x"),
            ("--bundle B x", "bundle=B | x"),
            ("--bundle=B x", "bundle=B | x"),
            ("-bundle B x", "bundle=B | x"),
            ("-bundle=B x", "bundle=B | x"),
            ("-b B x", "bundle=B | x"),
            ("-bB x", "bundle=B | x"),
            ("-b=B x", "bundle=B | x"),
            ("-bundles x", "bundle=undles | x"),
            ("x --bundle B", "bundle=B | x"),
            ("--bundle= x", "bundle= | x"),
            ("--bundle --tty x", "bundle=--tty | x"),
            ("--bundle -- x", "bundle=-- | x"),
            ("-no-subreaper x", "no-subreaper:true | x"),
            ("-no-subreaper=false x", "no-subreaper:false | x"),
            ("-it x", "interactive:true tty:true | x"),
            ("-itb B x", "interactive:true tty:true bundle=B | x"),
            ("-itbB x", "interactive:true tty:true bundle=B | x"),
            ("-t=false x", "tty:false | x"),
            ("-it=0 x", "interactive:true tty:false | x"),
            ("--tty=T x", "tty:true | x"),
            ("--tty true x", "tty:true | true x"),
            ("-e A=1 -e A=2 --env A=1", "env=A=1 env=A=2 env=A=1 |"),
            ("-eA=1", "env=A=1 |"),
            ("-tty -env=A=1", "tty:true env=A=1 |"),
            ("-- -t --bundle", "| -t --bundle"),
            ("-t -- -t", "tty:true | -t"),
            ("- x", "| - x"),
            ("--help -z", "| HELP"),
            ("x -h", "| x HELP"),
            ("-th", "tty:true | HELP"),
            ("-help", "| HELP"),
            ("x --bundle", "| x ! flag needs an argument: --bundle"),
            ("-b", "| ! flag needs an argument: --bundle"),
            ("-tb", "tty:true | ! flag needs an argument: --bundle"),
            ("--foo=1", "| ! flag provided but not defined: --foo"),
            ("-x", "| ! flag provided but not defined: -x"),
            ("-ix", "interactive:true | ! flag provided but not defined: -ix"),
            ("--tty=yes", "| ! --tty: \"yes\" is neither true nor false"),
            ("---tty", "| ! flag provided but not defined: ---tty"),
        ] {
            assert_eq!(told(Options::Anywhere, line).trim(), expected, "{line}");
        }
    }

    #[test]
    fn after_the_first_word_everything_belongs_to_the_command() {
        for (line, expected) in [
            ("-t x ls -t --bundle", "tty:true | x ls -t --bundle"),
            ("x -h", "| x -h"),
            ("x -- -t", "| x -- -t"),
            ("-- x -t", "| x -t"),
            ("-- -t -t", "| -t -t"),
            ("--bundle", "| ! flag needs an argument: --bundle"),
        ] {
            assert_eq!(told(Options::BeforeFirstWord, line).trim(), expected, "{line}");
        }
    }

    #[test]
    fn a_value_need_not_be_utf8() {
        let mut words = Words::default();
        let value = OsString::from_vec(b"--bundle=\xff\xfe".to_vec());
        read(FLAGS, Options::Anywhere, vec![value], &mut words).unwrap();
        assert_eq!(words.given, [Given::Value("bundle".into(), OsString::from_vec(b"\xff\xfe".to_vec()))]);
    }
}

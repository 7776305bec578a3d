//! Changes of an image's configuration in the words of a Dockerfile, as `docker commit --change` takes them. Pure.
//! Uses: error.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::error::{Code, Error, Result};

/// One instruction: its word, and the rest of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    word: &'static str,
    rest: String,
}

const WORDS: [&str; 9] =
    ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"];

impl FromStr for Instruction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Instruction> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let known = WORDS.iter().find(|known| known.eq_ignore_ascii_case(word));
        let usage = |why: String| Error::new(Code::Usage, format!("--change {text:?}: {why}"));
        let Some(word) = known else {
            return Err(usage(format!("{word:?} cannot be changed; {} can", WORDS.join(", "))));
        };
        let instruction = Instruction { word, rest: rest.trim().into() };
        if instruction.rest.is_empty() {
            return Err(usage(format!("{word} is followed by nothing")));
        }
        if text.contains('\0') {
            return Err(usage("contains a NUL byte".into()));
        }
        // What is wrong is told before anything is done, but where the image's environment decides.
        if !text.contains('$') {
            instruction.apply(&mut Map::new(), false)?;
        }
        Ok(instruction)
    }
}

/// Applies all of `instructions` to the `config` of an image's configuration.
pub(super) fn apply(instructions: &[Instruction], config: &mut Map<String, Value>) -> Result<()> {
    for (at, instruction) in instructions.iter().enumerate() {
        let commanded = instructions[..at].iter().any(|before| before.word == "CMD");
        instruction.apply(config, commanded)?;
    }
    Ok(())
}

impl Instruction {
    fn wrong(&self, why: &str) -> Error {
        Error::new(Code::Usage, format!("--change \"{} {}\": {why}", self.word, self.rest))
    }

    fn apply(&self, config: &mut Map<String, Value>, commanded: bool) -> Result<()> {
        match self.word {
            "CMD" => {
                config.insert("Cmd".into(), self.command(config));
            }
            "ENTRYPOINT" => {
                config.insert("Entrypoint".into(), self.command(config));
                // The command of the image was meant for the entrypoint that it had.
                if !commanded {
                    config.remove("Cmd");
                }
            }
            "ENV" => {
                for (name, value) in self.pairs(config)? {
                    let mut env = environment(config);
                    let entry = format!("{name}={value}");
                    match env.iter_mut().find(|e| e.split('=').next() == Some(&name)) {
                        Some(there) => *there = entry,
                        None => env.push(entry),
                    }
                    config.insert("Env".into(), json!(env));
                }
            }
            "LABEL" => {
                for (name, value) in self.pairs(config)? {
                    table(config, "Labels").insert(name, json!(value));
                }
            }
            "EXPOSE" => {
                for port in self.words(config)? {
                    for port in self.ports(&port)? {
                        table(config, "ExposedPorts").insert(port, json!({}));
                    }
                }
            }
            "VOLUME" => {
                let list = list(&self.rest).map_or_else(|| self.words(config), Ok)?;
                for path in list {
                    if path.is_empty() {
                        return Err(self.wrong("a volume has no path"));
                    }
                    table(config, "Volumes").insert(path, json!({}));
                }
            }
            "WORKDIR" => {
                let path = self.single(config)?;
                let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
                let path = match path.starts_with('/') {
                    true => path,
                    false => format!("/{}/{path}", before.trim_matches('/')),
                };
                let mut parts: Vec<&str> = Vec::new();
                for part in path.split('/') {
                    match part {
                        "" | "." => {}
                        ".." => drop(parts.pop()),
                        part => parts.push(part),
                    }
                }
                config.insert("WorkingDir".into(), json!(format!("/{}", parts.join("/"))));
            }
            "USER" => {
                let user = self.single(config)?;
                config.insert("User".into(), json!(user));
            }
            _ => {
                let signal = self.single(config)?;
                config.insert("StopSignal".into(), json!(signal));
            }
        }
        Ok(())
    }

    /// A list of words, or a line for the shell.
    fn command(&self, config: &Map<String, Value>) -> Value {
        if let Some(words) = list(&self.rest) {
            return json!(words);
        }
        let shell = config.get("Shell").and_then(Value::as_array).filter(|words| !words.is_empty()).cloned();
        let mut words = shell.unwrap_or_else(|| vec![json!("/bin/sh"), json!("-c")]);
        words.push(json!(self.rest));
        Value::Array(words)
    }

    fn words(&self, config: &Map<String, Value>) -> Result<Vec<String>> {
        split(&self.rest, &environment(config)).map_err(|why| self.wrong(why))
    }

    fn single(&self, config: &Map<String, Value>) -> Result<String> {
        match &self.words(config)?[..] {
            [word] if !word.is_empty() => Ok(word.clone()),
            _ => Err(self.wrong("is not one word")),
        }
    }

    /// `NAME=value` and more of them, or one name and all that follows it.
    fn pairs(&self, config: &Map<String, Value>) -> Result<Vec<(String, String)>> {
        let (first, rest) = self.rest.split_once(char::is_whitespace).unwrap_or((&self.rest, ""));
        if !first.contains('=') {
            if rest.trim().is_empty() {
                return Err(self.wrong("has no value"));
            }
            let value = expand(rest.trim(), &environment(config)).map_err(|why| self.wrong(why))?;
            return Ok(vec![(first.into(), value)]);
        }
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
            _ => Err(self.wrong("is not NAME=VALUE")),
        };
        self.words(config)?.into_iter().map(pair).collect()
    }

    /// `80/tcp` of `80`, and all of a range.
    fn ports(&self, word: &str) -> Result<Vec<String>> {
        let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| text.parse::<u16>().map_err(|_| self.wrong("is no port"));
        let (first, last) = (port(first)?, port(last)?);
        let protocol = protocol.to_ascii_lowercase();
        if first > last || !["tcp", "udp", "sctp"].contains(&&protocol[..]) {
            return Err(self.wrong("is no port"));
        }
        Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
    }
}

fn environment(config: &Map<String, Value>) -> Vec<String> {
    let all = config.get("Env").and_then(Value::as_array);
    all.into_iter().flatten().filter_map(|entry| entry.as_str().map(String::from)).collect()
}

/// The table `key`, made where it is not there or null.
fn table<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let there = config.entry(key).or_insert(Value::Null);
    if !there.is_object() {
        *there = json!({});
    }
    there.as_object_mut().expect("it is an object now")
}

/// A JSON list of words.
fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// The words of a line: quotes keep blanks, a backslash keeps the next character, variables are looked up in `env`.
fn split(text: &str, env: &[String]) -> std::result::Result<Vec<String>, &'static str> {
    lex(text, env, true)
}

/// The same as one word.
fn expand(text: &str, env: &[String]) -> std::result::Result<String, &'static str> {
    lex(text, env, false).map(|words| words.concat())
}

fn lex(text: &str, env: &[String], divide: bool) -> std::result::Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, None) if divide && c.is_whitespace() => words.extend(word.take()),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or("ends with a backslash")?;
                // Between quotes a backslash is one, but before what means something there.
                if quote.is_some() && !"\"\\$".contains(next) {
                    word.get_or_insert_default().push('\\');
                }
                word.get_or_insert_default().push(next);
            }
            ('$', None | Some('"')) => {
                let mut name = String::new();
                let braces = chars.next_if_eq(&'{').is_some();
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                if braces && chars.next() != Some('}') {
                    return Err("of variables only $NAME and ${NAME} are read");
                }
                let word = word.get_or_insert_default();
                match name.is_empty() {
                    true if braces => return Err("of variables only $NAME and ${NAME} are read"),
                    true => word.push('$'),
                    false => {
                        let value = env.iter().find_map(|e| e.strip_prefix(&name)?.strip_prefix('='));
                        word.push_str(value.unwrap_or_default());
                    }
                }
            }
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration_as_a_build_does() {
        let base = json!({
            "Env": ["PATH=/bin", "A=1"], "Cmd": ["old"], "Entrypoint": ["/init"], "WorkingDir": "/srv",
            "Labels": null, "Healthcheck": { "Test": ["x"] },
        });
        for (lines, key, expected) in [
            (&["CMD [\"a\", \"b c\"]"][..], "Cmd", json!(["a", "b c"])),
            (&["cmd echo $HOME"], "Cmd", json!(["/bin/sh", "-c", "echo $HOME"])),
            (&["ENTRYPOINT [\"/e\"]"], "Cmd", Value::Null),
            (&["CMD [\"c\"]", "ENTRYPOINT [\"/e\"]"], "Cmd", json!(["c"])),
            (&["ENTRYPOINT [\"/e\"]", "CMD [\"c\"]"], "Entrypoint", json!(["/e"])),
            (&["ENV PATH=/app:$PATH"], "Env", json!(["PATH=/app:/bin", "A=1"])),
            (&["ENV B=\"x y\" C='$A' D=${A}1"], "Env", json!(["PATH=/bin", "A=1", "B=x y", "C=$A", "D=11"])),
            (&["ENV B x  y $A"], "Env", json!(["PATH=/bin", "A=1", "B=x  y 1"])),
            (&["ENV A=2", "ENV B=$A"], "Env", json!(["PATH=/bin", "A=2", "B=2"])),
            (&["ENV A=\\$A"], "Env", json!(["PATH=/bin", "A=$A"])),
            (&["EXPOSE 80 443/UDP", "EXPOSE 7-9"], "ExposedPorts", {
                json!({ "80/tcp": {}, "443/udp": {}, "7/tcp": {}, "8/tcp": {}, "9/tcp": {} })
            }),
            (&["LABEL a=b \"c d\"=\"e f\"", "LABEL g h i"], "Labels", {
                json!({ "a": "b", "c d": "e f", "g": "h i" })
            }),
            (&["VOLUME /a /b", "VOLUME [\"/c d\"]"], "Volumes", json!({ "/a": {}, "/b": {}, "/c d": {} })),
            (&["WORKDIR app", "WORKDIR ../x/./y"], "WorkingDir", json!("/srv/x/y")),
            (&["WORKDIR /"], "WorkingDir", json!("/")),
            (&["USER 1:2"], "User", json!("1:2")),
            (&["STOPSIGNAL SIGINT"], "StopSignal", json!("SIGINT")),
            (&["USER web"], "Healthcheck", json!({ "Test": ["x"] })),
        ] {
            let all: Vec<Instruction> = lines.iter().map(|line| line.parse().unwrap()).collect();
            let mut config = base.as_object().unwrap().clone();
            apply(&all, &mut config).unwrap();
            assert_eq!(config.get(key).unwrap_or(&Value::Null), &expected, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_instruction_is_refused_before_anything_is_done() {
        for (line, why) in [
            ("RUN ls", "\"RUN\" cannot be changed; CMD, ENTRYPOINT, ENV,"),
            ("", "\"\" cannot be changed"),
            ("CMD", "CMD is followed by nothing"),
            ("ENV A", "has no value"),
            ("ENV A=1 B", "is not NAME=VALUE"),
            ("ENV A=\"1", "a quote is not closed"),
            ("EXPOSE http", "is no port"),
            ("EXPOSE 9-8", "is no port"),
            ("EXPOSE 80/icmp", "is no port"),
            ("USER a b", "is not one word"),
            ("VOLUME [\"\"]", "a volume has no path"),
            ("LABEL =x", "is not NAME=VALUE"),
        ] {
            let error = line.parse::<Instruction>().unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert!(error.to_string().contains(why), "{line}: {error}");
        }
    }
}

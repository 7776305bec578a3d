//! The annotation `org.rcrun.landlock`: what of Landlock (landlock(7)) restricts the container's processes, until the spec
//! has a field for it. Pure. Uses: nothing.

use serde::Deserialize;

/// The annotation's key.
pub const ANNOTATION: &str = "org.rcrun.landlock";

/// Most paths and ports of one annotation.
const MOST: usize = 4096;

/// The annotation's value, a JSON object. A field that is missing restricts nothing; an empty list allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rules {
    /// Files and folders that may be read, with all below.
    pub read: Option<Vec<String>>,
    /// Those that may be read and executed.
    pub execute: Option<Vec<String>>,
    /// Those that may be read, written, made and removed.
    pub write: Option<Vec<String>>,
    /// TCP ports that may be bound.
    pub bind_tcp: Option<Vec<u16>>,
    /// TCP ports that may be connected to.
    pub connect_tcp: Option<Vec<u16>>,
    /// What ends at the container's own processes.
    pub scope: Option<Vec<Scope>>,
}

/// What can be kept among the processes of one restricted tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Connections to abstract sockets of AF_UNIX.
    AbstractUnixSocket,
    /// Signals.
    Signal,
}

impl Rules {
    /// Reads the value.
    pub fn parse(value: &str) -> Result<Rules, String> {
        let rules: Rules =
            serde_json::from_str(value).map_err(|error| super::readable(&error.to_string()))?;
        for path in [&rules.read, &rules.execute, &rules.write].into_iter().flatten().flatten() {
            if !path.starts_with('/') || path.len() >= 4096 || path.contains('\0') {
                return Err(format!("{path:?} is no absolute path"));
            }
        }
        let lists = [&rules.read, &rules.execute, &rules.write].map(|list| list.as_ref().map_or(0, Vec::len));
        let ports = [&rules.bind_tcp, &rules.connect_tcp].map(|list| list.as_ref().map_or(0, Vec::len));
        match lists.iter().chain(&ports).sum::<usize>() > MOST {
            true => Err(format!("has more than {MOST} paths and ports")),
            false => Ok(rules),
        }
    }

    /// Some list says what may be done with files.
    pub fn of_files(&self) -> bool {
        self.read.is_some() || self.execute.is_some() || self.write.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_an_object_of_known_lists() {
        let paths = |list: &[&str]| Some(list.iter().map(|path| path.to_string()).collect::<Vec<_>>());
        for (value, expected) in [
            ("{}", Ok(Rules::default())),
            (
                r#"{"read": ["/"], "write": []}"#,
                Ok(Rules { read: paths(&["/"]), write: paths(&[]), ..Rules::default() }),
            ),
            (
                r#"{"bindTcp": [80], "connectTcp": [], "scope": ["signal", "abstract-unix-socket"]}"#,
                Ok(Rules {
                    bind_tcp: Some(vec![80]),
                    connect_tcp: Some(vec![]),
                    scope: Some(vec![Scope::Signal, Scope::AbstractUnixSocket]),
                    ..Rules::default()
                }),
            ),
            (r#"{"reads": ["/"]}"#, Err("unknown field `reads`")),
            (r#"{"read": ["usr"]}"#, Err("\"usr\" is no absolute path")),
            (r#"{"read": "/usr"}"#, Err("invalid type")),
            (r#"{"bindTcp": [65536]}"#, Err("65536")),
            (r#"{"scope": ["files"]}"#, Err("unknown variant `files`")),
            ("", Err("EOF")),
        ] {
            match (Rules::parse(value), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{value}"),
                (Err(found), Err(words)) => assert!(found.contains(words), "{value}: {found}"),
                (found, _) => panic!("{value}: {found:?}"),
            }
        }
        let many = format!(r#"{{"bindTcp": {:?}}}"#, vec![1; MOST + 1]);
        assert!(Rules::parse(&many).unwrap_err().contains("more than 4096"));
    }
}

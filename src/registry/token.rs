//! What a registry asks for before it answers: a password, or a token of the realm that it names. Uses: http-auth,
//! credentials.

use http_auth::ChallengeRef;
use rcrun_image::{Code, Error, Result};
use serde::Deserialize;

use crate::credentials::Credentials;
use crate::words::shown;

/// What a 401 asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// The password itself.
    Basic,
    /// A token of `realm`.
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The first that is understood in the values of `WWW-Authenticate`; a token before a password.
    pub(crate) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Result<Challenge> {
        let mut basic = None;
        for value in values {
            // What is no list of challenges is none.
            for challenge in http_auth::parse_challenges(value).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let parameter = |name: &str| parameter(&challenge, name);
                    let realm = parameter("realm").ok_or_else(|| {
                        Error::invalid("the registry asks for a token and does not say of which realm")
                    })?;
                    return Ok(Challenge::Bearer { realm, service: parameter("service") });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Challenge::Basic);
                }
            }
        }
        basic.ok_or_else(|| {
            Error::new(
                Code::Unsupported,
                "the registry asks for neither a password nor a token (Basic, Bearer)",
            )
        })
    }
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let (_, value) = challenge.params.iter().find(|(given, _)| given.eq_ignore_ascii_case(name))?;
    Some(value.to_unescaped())
}

/// The parameters that a realm is asked with for `scopes`.
pub(crate) fn parameters(service: Option<&str>, scopes: &[String]) -> Vec<(&'static str, String)> {
    let service = service.map(|service| ("service", service.to_string()));
    service.into_iter().chain(scopes.iter().map(|scope| ("scope", scope.clone()))).collect()
}

/// The form with which a realm gives a token for an identity token.
pub(crate) fn form(service: Option<&str>, scopes: &[String], identity: &str) -> String {
    let mut form = String::new();
    for (name, value) in [
        ("grant_type", "refresh_token"),
        ("client_id", "rcrun"),
        ("service", service.unwrap_or_default()),
        ("scope", &scopes.join(" ")),
        ("refresh_token", identity),
    ] {
        form += if form.is_empty() { "" } else { "&" };
        form += name;
        form.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => form.push(char::from(byte)),
                _ => form += &format!("%{byte:02X}"),
            }
        }
    }
    form
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The header `Authorization` for what a realm answered.
pub(crate) fn bearer(realm: &str, body: &[u8]) -> Result<String> {
    let bad = || Error::invalid(format!("realm {}: answers no token", shown(realm, 200)));
    let answer: Answer = serde_json::from_slice(body).map_err(|_| bad())?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    // It becomes a header: no byte of it may end one.
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad());
    }
    Ok(format!("Bearer {token}"))
}

/// What is sent where no token is needed, else where to get one from.
pub(crate) fn password_or_refuse(credentials: Option<&Credentials>) -> Result<String> {
    credentials.and_then(Credentials::basic).ok_or_else(|| {
        Error::new(
            Code::Denied,
            "the registry asks for a password, and nobody is logged in there (podman login, docker login, skopeo login)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(rest: &str) -> String {
        format!("https://{rest}")
    }

    #[test]
    fn challenges_are_read_in_any_order_and_spelling() {
        let bearer = |service: Option<&str>| Challenge::Bearer {
            realm: url("auth.test/token?a=b"),
            service: service.map(String::from),
        };
        let realm = url("auth.test/token?a=b");
        for (values, wanted) in [
            (
                vec![format!("Bearer realm=\"{realm}\",service=\"r.test\",scope=\"x\"")],
                bearer(Some("r.test")),
            ),
            (vec![format!("bearer Service=\"r \\\"t\", REALM=\"{realm}\"")], bearer(Some("r \"t"))),
            (vec!["Basic realm=\"x\"".into(), format!("Bearer realm=\"{realm}\"")], bearer(None)),
            (vec![format!("Basic realm=\"x\", Bearer realm=\"{realm}\"")], bearer(None)),
            (vec!["BASIC realm=\"a, b\"".into()], Challenge::Basic),
        ] {
            assert_eq!(Challenge::parse(values.iter().map(String::as_str)).unwrap(), wanted, "{values:?}");
        }
        for (value, why) in
            [("", "neither"), ("Negotiate", "neither"), ("Bearer service=\"x\"", "which realm")]
        {
            assert!(Challenge::parse([value].into_iter()).unwrap_err().to_string().contains(why));
        }
    }

    #[test]
    fn a_token_that_would_end_its_header_is_none() {
        assert_eq!(bearer("r", br#"{"access_token":"abc","expires_in":1}"#).unwrap(), "Bearer abc");
        assert_eq!(bearer("r", br#"{"token":"abc","access_token":"d"}"#).unwrap(), "Bearer abc");
        for body in [r#"{"token":"a\r\nX: y"}"#, r#"{"token":""}"#, "{}", "abc"] {
            assert!(bearer("r", body.as_bytes()).unwrap_err().to_string().contains("no token"));
        }
        assert!(
            form(Some("s"), &["a:b:pull".into()], "t&x").ends_with("scope=a%3Ab%3Apull&refresh_token=t%26x")
        );
    }
}

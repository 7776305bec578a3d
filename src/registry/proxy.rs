//! Proxies as the environment names them. Uses: ureq.

use rcrun_image::{Code, Error, Result};
use ureq::Proxy;

/// The proxies of the environment, not yet parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For https.
    pub https: Option<String>,
    /// For http.
    pub http: Option<String>,
    /// Hosts that are spoken to without, separated by commas.
    pub none: Option<String>,
}

impl Proxies {
    /// Those that `variable` tells of: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, also in lower case.
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Proxies {
        let first = |names: &[&str]| {
            names
                .iter()
                .flat_map(|name| [name.to_ascii_uppercase(), name.to_ascii_lowercase()])
                .find_map(|name| variable(&name).filter(|value| !value.is_empty()))
        };
        // A server that runs as CGI has HTTP_PROXY from a header of its client, who may be anybody.
        let cgi = variable("REQUEST_METHOD").is_some();
        Proxies {
            https: first(&["https_proxy", "all_proxy"]),
            http: if cgi { None } else { first(&["http_proxy", "all_proxy"]) },
            none: first(&["no_proxy"]),
        }
    }

    /// That of `scheme`. A host of this machine is never asked for by way of another.
    pub(crate) fn of_scheme(&self, scheme: &str, loopback: bool) -> Result<Option<Proxy>> {
        let given = if scheme == "https" { &self.https } else { &self.http };
        let Some(given) = given.as_ref().filter(|_| !loopback) else { return Ok(None) };
        // What it says may hold a password.
        let bad = |e: ureq::Error| {
            Error::new(Code::Usage, format!("the proxy that the environment names for {scheme}: {e}"))
        };
        let proxy = Proxy::new(given).map_err(bad)?;
        let Some(none) = &self.none else { return Ok(Some(proxy)) };
        let mut with = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
        if let Some(user) = proxy.username() {
            with = with.username(user);
        }
        if let Some(password) = proxy.password() {
            with = with.password(password);
        }
        for host in none.split(',').map(str::trim).filter(|host| !host.is_empty()) {
            with = with.no_proxy(host);
        }
        with.build().map(Some).map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_own_variable_and_all_is_the_last() {
        let of = |set: &[(&str, &str)]| {
            Proxies::of(&|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()))
        };
        let both = of(&[
            ("https_proxy", "http://a.test:1"),
            ("ALL_PROXY", "http://b.test:2"),
            ("NO_PROXY", "x.test, .y.test"),
        ]);
        assert_eq!(both.https.as_deref(), Some("http://a.test:1"));
        assert_eq!(both.http.as_deref(), Some("http://b.test:2"));
        assert_eq!(of(&[("HTTP_PROXY", "a"), ("REQUEST_METHOD", "GET")]), Proxies::default());
        assert_eq!(of(&[("HTTP_PROXY", "")]), Proxies::default());

        let proxy = both.of_scheme("https", false).unwrap().unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("a.test", 1));
        assert!(proxy.is_no_proxy(&"https://x.test/".parse().unwrap()));
        assert!(proxy.is_no_proxy(&"https://z.y.test/".parse().unwrap()));
        assert!(!proxy.is_no_proxy(&"https://z.test/".parse().unwrap()));
        assert!(both.of_scheme("https", true).unwrap().is_none());
        assert!(of(&[("http_proxy", "nonsense://")]).of_scheme("http", false).is_err());
    }
}

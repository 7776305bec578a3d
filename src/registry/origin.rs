//! Where a registry is, and where its answers lead: passwords go to the former only, and nothing leads out of TLS. Pure.

use rcrun_image::{Error, Result};
use ureq::http::{HeaderMap, Uri};

/// Scheme, host and port of a registry.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// `https` or `http`.
    scheme: &'static str,
    /// `HOST[:PORT]`, in small letters.
    authority: String,
}

/// Whether `authority` is on this machine.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Origin {
    pub(crate) fn new(scheme: &'static str, authority: &str) -> Origin {
        Origin { scheme, authority: authority.to_ascii_lowercase() }
    }

    /// Whether it is spoken to without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.scheme == "http"
    }

    /// The whole URL of what is `at` a path of the registry, or is a URL already.
    pub(crate) fn url(&self, at: &str) -> String {
        match at.starts_with('/') {
            true => format!("{}://{}{at}", self.scheme, self.authority),
            false => at.into(),
        }
    }

    /// Whether `url` is the registry itself: scheme, host and port are the same.
    pub(crate) fn is_own(&self, url: &Uri) -> bool {
        let port = |scheme: Option<&str>| if scheme == Some("https") { 443 } else { 80 };
        let Ok(own) = self.url("/").parse::<Uri>() else { return false };
        own.scheme_str() == url.scheme_str()
            && own.host().map(str::to_ascii_lowercase) == url.host().map(str::to_ascii_lowercase)
            && own.port_u16().unwrap_or(port(own.scheme_str()))
                == url.port_u16().unwrap_or(port(url.scheme_str()))
            // A name before an @ is a trap for who compares text.
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    }

    /// Where the header `Location` of an answer from `url` leads: a whole URL. It never leads out of TLS.
    pub(crate) fn location(&self, url: &str, headers: &HeaderMap) -> Result<String> {
        let bad = |why: &str| Error::invalid(format!("answers a Location that {why}"));
        let to = headers.get("location").ok_or_else(|| bad("is not there"))?;
        let to = to.to_str().map_err(|_| bad("is no text"))?;
        let from: Uri = self.url(url).parse().map_err(|_| bad("is relative to what is no URL"))?;
        let (scheme, authority) =
            (from.scheme_str().unwrap_or_default(), from.authority().map(|a| a.as_str()).unwrap_or_default());
        let whole = match to {
            to if to.starts_with("//") => format!("{scheme}:{to}"),
            to if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
            to if to.contains("://") => to.to_string(),
            _ => return Err(bad("is neither a URL nor begins with a slash")),
        };
        let parsed: Uri = whole.parse().map_err(|_| bad("is no URL"))?;
        match parsed.scheme_str() {
            Some("https") => Ok(whole),
            Some("http") if self.is_plain() => Ok(whole),
            Some("http") => Err(bad("leads out of TLS")),
            _ => Err(bad("is neither https nor http")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_over_tls_leads_nobody_out_of_it() {
        let (tls, plain) = ("https", "http");
        for (own, to, leads) in [
            (tls, "/x?y=z".to_string(), Some(format!("{tls}://r.test/x?y=z"))),
            (tls, "//other.test/x".to_string(), Some(format!("{tls}://other.test/x"))),
            (tls, format!("{tls}://other.test/x"), Some(format!("{tls}://other.test/x"))),
            (tls, format!("{plain}://r.test/x"), None),
            (plain, format!("{plain}://other.test/x"), Some(format!("{plain}://other.test/x"))),
            (tls, "x".to_string(), None),
            (tls, "ftp://r.test/x".to_string(), None),
            (tls, String::new(), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("location", to.parse().unwrap());
            assert_eq!(Origin::new(own, "r.test").location("/v2/", &headers).ok(), leads, "{own} {to}");
        }
    }

    #[test]
    fn only_the_registry_itself_is_told_who_asks() {
        let origin = Origin::new("https", "R.test");
        let tls = "https";
        for (url, own) in [
            (format!("{tls}://r.test/v2/"), true),
            (format!("{tls}://R.test:443/"), true),
            (format!("{tls}://r.test:444/"), false),
            ("http://r.test/".into(), false),
            ("http://r.test:443/".into(), false),
            (format!("{tls}://r.test.evil.test/"), false),
            (format!("{tls}://r.test@evil.test/"), false),
            (format!("{tls}://x@r.test/"), false),
        ] {
            assert_eq!(origin.is_own(&url.parse().unwrap()), own, "{url}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for (host, loopback) in [
            ("localhost", true),
            ("LocalHost:5000", true),
            // Who answers for it is for a name server to say.
            ("x.localhost:80", false),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("127.0.0.1.test:5000", false),
            ("localhost.test", false),
            ("10.0.0.1:5000", false),
            ("[2001:db8::1]:5000", false),
            ("docker.io", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
    }
}

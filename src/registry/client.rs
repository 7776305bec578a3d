//! Requests to one registry: which scheme it speaks, who asks, where it redirects to, and what its refusals mean.
//! Uses: ureq, connection, credentials, origin, retry, token, trust, words.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use rcrun_image::document::SIZE_MAX;
use rcrun_image::{Code, Error, Name, Result};
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::{Agent, Body, SendBody};

use crate::credentials::{self, Credentials};
use crate::options::Options;
use crate::origin::{Origin, is_loopback};
use crate::retry::{self, Attempts};
use crate::token::{self, Challenge};
use crate::{connection, trust, words};

/// Redirects in a row.
const REDIRECTS_MAX: usize = 5;
/// Bytes of a blob that come in a second at least: who sends less would be waited for without end.
const SLOWEST: u64 = 1 << 10;
/// Bytes of an answer that only explains something.
const WORDS_MAX: u64 = 64 << 10;
/// Where the hub's registry is: not at the host of its names.
const HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];

/// Makes the body of a request: once for each time that it is sent.
pub(crate) type Make<'a> = dyn Fn() -> Result<Box<dyn Read + 'a>> + 'a;

/// The body of a request.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// None at all.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes, from what is made.
    Made(u64, &'a Make<'a>),
}

/// A request.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a Method,
    /// Below the registry when it begins with a slash, else a whole URL.
    pub(crate) at: &'a str,
    pub(crate) headers: &'a [(&'static str, &'a str)],
    pub(crate) body: Payload<'a>,
    /// Bytes of the answer that are worth waiting for: those of a blob.
    pub(crate) size: u64,
}

impl<'a> Ask<'a> {
    /// A request without headers and body.
    pub(crate) fn new(method: &'a Method, at: &'a str) -> Ask<'a> {
        Ask { method, at, headers: &[], body: Payload::Nothing, size: 0 }
    }
}

/// A registry, for one repository in it and what may be done there.
pub(crate) struct Client<'a> {
    agent: Agent,
    origin: Origin,
    shown: String,
    /// Where certificates for it may lie.
    certificates: Option<PathBuf>,
    scopes: Vec<String>,
    credentials: Option<Credentials>,
    /// The challenge of the registry, and what answers it.
    challenge: Mutex<Option<Challenge>>,
    authorization: Mutex<Option<String>>,
    pub(crate) options: &'a Options,
    /// Of all that is asked of it.
    pub(crate) attempts: Attempts,
}

impl<'a> Client<'a> {
    /// Finds out how the registry of `name` is spoken to. `actions` is what will be done to its repository, `others` are
    /// repositories that are read.
    pub(crate) fn connect(
        name: &Name,
        actions: &str,
        others: &[&str],
        options: &'a Options,
    ) -> Result<Client<'a>> {
        let shown = format!("registry {}", name.registry());
        Client::find(name, actions, others, options, &shown).map_err(|e| e.of(&shown))
    }

    fn find(
        name: &Name,
        actions: &str,
        others: &[&str],
        options: &'a Options,
        shown: &str,
    ) -> Result<Client<'a>> {
        let host = name.registry();
        let authority = if host == HUB[0] { HUB[1] } else { host };
        let loopback = is_loopback(authority);
        let credentials = match &options.credentials {
            Some(given) => Some(given.clone()),
            None => credentials::of_name(name, &options.auth_files)?,
        };
        let mut scopes = vec![format!("repository:{}:{actions}", name.path())];
        scopes.extend(others.iter().map(|other| format!("repository:{other}:pull")));
        let mut refused = None;
        for scheme in ["https", "http"] {
            if scheme == "http" && !loopback && !options.plain_http {
                break;
            }
            let mut config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("rcrun/", env!("CARGO_PKG_VERSION")))
                .accept_encoding("identity")
                .proxy(options.proxies.of_scheme(scheme, loopback)?)
                .timeout_connect(Some(options.patience))
                .timeout_recv_response(Some(options.patience))
                .timeout_recv_body(Some(whole_answer(options, 0)))
                .timeout_per_read(Some(options.patience))
                .timeout_per_write(Some(options.patience))
                .max_idle_connections_per_host(16);
            if scheme == "https" {
                config = config.tls_config(trust::of_host(host, &options.certificates)?);
            }
            let client = Client {
                agent: config.build().new_agent(),
                origin: Origin::new(scheme, authority),
                shown: shown.into(),
                certificates: options.certificates.first().map(|folder| folder.join(host)),
                scopes: scopes.clone(),
                credentials: credentials.clone(),
                challenge: Mutex::new(None),
                authorization: Mutex::new(None),
                options,
                attempts: Attempts::default(),
            };
            match client.once(&Ask::new(&Method::GET, "/v2/"), &client.origin.url("/v2/"), None) {
                Ok(mut answer) => {
                    spent(&mut answer);
                    if answer.status() == StatusCode::UNAUTHORIZED {
                        client.challenged(answer.headers())?;
                    }
                    return Ok(client);
                }
                Err(error) => {
                    let again = connection::is_not_tls(&error);
                    let error = client.failed(error);
                    if !again {
                        return Err(error);
                    }
                    // What http says in its place tells more, where it is asked.
                    refused = Some(error);
                }
            }
        }
        let refused = refused.unwrap_or_else(|| Error::new(Code::System, "no connection"));
        let plain = loopback || options.plain_http;
        Err(match plain {
            true => refused,
            false => {
                let remedy = "if it is meant to speak HTTP without TLS, say --plain-http";
                refused.of("does not answer over TLS").and(remedy)
            }
        })
    }

    fn failed(&self, error: ureq::Error) -> Error {
        connection::failed(error, self.certificates.as_deref())
    }

    /// Sends one request, and follows nothing.
    fn once(
        &self,
        ask: &Ask<'_>,
        url: &str,
        authorization: Option<&str>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(ask.method).uri(url);
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        match ask.body {
            Payload::Nothing => {
                let request = self.agent.configure_request(request.body(())?);
                self.agent.run(request.timeout_recv_body(Some(whole_answer(self.options, ask.size))).build())
            }
            Payload::Bytes(bytes) => self.agent.run(request.body(bytes)?),
            Payload::Made(size, make) => {
                let mut body = make().map_err(|e| ureq::Error::Io(e.into()))?;
                let request = request.header("content-length", size);
                self.agent.run(request.body(SendBody::from_reader(&mut body))?)
            }
        }
    }

    /// Sends a request with what proves who asks, and follows redirects.
    pub(crate) fn ask(&self, ask: &Ask<'_>) -> Result<Response<Body>> {
        self.asked(ask).map_err(|e| e.of(&self.shown))
    }

    fn asked(&self, ask: &Ask<'_>) -> Result<Response<Body>> {
        let mut url = self.origin.url(ask.at);
        let mut proven = false;
        let mut redirects = 0;
        loop {
            let parsed: Uri = url.parse().map_err(|_| Error::invalid("it redirects to what is no URL"))?;
            let own = self.origin.is_own(&parsed);
            // CVE-2020-15157: whoever a registry points at gets no password and no token.
            let authorization = if own { self.authorization()? } else { None };
            let mut answer = self.once(ask, &url, authorization.as_deref()).map_err(|e| self.failed(e))?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && own && !proven {
                proven = true;
                spent(&mut answer);
                self.challenged(answer.headers())?;
                continue;
            }
            let reads = [Method::GET, Method::HEAD].contains(ask.method);
            // What is sent goes elsewhere only where the answer says that it may: 307 and 308.
            if reads && matches!(status.as_u16(), 301..=303) || matches!(status.as_u16(), 307 | 308) {
                spent(&mut answer);
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    return Err(Error::invalid(format!("it redirects more than {REDIRECTS_MAX} times")));
                }
                url = self.origin.location(&url, answer.headers())?;
                continue;
            }
            return Ok(answer);
        }
    }

    /// Where an upload goes on, after an answer from `url`.
    pub(crate) fn next(&self, url: &str, headers: &HeaderMap) -> Result<String> {
        self.origin.location(url, headers).map_err(|e| e.of(&self.shown))
    }

    fn authorization(&self) -> Result<Option<String>> {
        let challenge = self.challenge.lock().expect("a lock that no panic held").clone();
        let Some(challenge) = challenge else { return Ok(None) };
        // One thread gets the token, the others wait for it.
        let mut known = self.authorization.lock().expect("a lock that no panic held");
        if known.is_some() {
            return Ok(known.clone());
        }
        let new = match &challenge {
            Challenge::Basic => token::password_or_refuse(self.credentials.as_ref())?,
            Challenge::Bearer { realm, service } => self.token(realm, service.as_deref())?,
        };
        *known = Some(new);
        Ok(known.clone())
    }

    /// Remembers what a 401 asks for, and forgets what it did not take.
    fn challenged(&self, headers: &HeaderMap) -> Result<()> {
        let values = headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
        let challenge = Challenge::parse(values)?;
        *self.challenge.lock().expect("a lock that no panic held") = Some(challenge);
        self.authorization.lock().expect("a lock that no panic held").take();
        Ok(())
    }

    /// A token of `realm`. The registry names the realm: it is believed as far as the registry is.
    fn token(&self, realm: &str, service: Option<&str>) -> Result<String> {
        let shown = words::shown(realm, 200);
        let of = |e: Error| e.of(format_args!("realm {shown}"));
        let parsed: Uri = realm.parse().map_err(|_| of(Error::invalid("is no URL")))?;
        let plain = self.origin.is_plain()
            && parsed.scheme_str() == Some("http")
            && (self.options.plain_http || parsed.authority().is_some_and(|a| is_loopback(a.as_str())));
        if parsed.scheme_str() != Some("https") && !plain {
            return Err(of(Error::invalid("a password would be sent there without TLS")));
        }
        let answer = match &self.credentials {
            Some(Credentials::Identity(identity)) => {
                let form = token::form(service, &self.scopes, identity);
                let request =
                    self.agent.post(realm).header("content-type", "application/x-www-form-urlencoded");
                request.send(form.as_str())
            }
            password => {
                let mut request = self.agent.get(realm);
                for (name, value) in token::parameters(service, &self.scopes) {
                    request = request.query(name, value);
                }
                if let Some(basic) = password.as_ref().and_then(Credentials::basic) {
                    request = request.header("authorization", basic);
                }
                request.call()
            }
        };
        let mut answer = answer.map_err(|e| of(self.failed(e)))?;
        let status = answer.status();
        let body = bounded(&mut answer, SIZE_MAX).map_err(of)?;
        if !status.is_success() {
            return Err(of(self.refusal((status, answer.headers()), &body, "give a token")));
        }
        token::bearer(realm, &body)
    }

    /// The error that an answer is: `what` was asked for.
    pub(crate) fn refused(&self, mut answer: Response<Body>, what: &str) -> Error {
        let body = bounded(&mut answer, WORDS_MAX).unwrap_or_default();
        self.refusal((answer.status(), answer.headers()), &body, what).of(&self.shown)
    }

    /// Waits before the next attempt, if there is to be one after so many failures in a row; else this is its error.
    pub(crate) fn again(&self, failures: u32, error: Error) -> Result<()> {
        let tired = error.code() != Code::System || failures >= self.options.attempts;
        match tired || !self.attempts.wait(failures, self.options) {
            true => Err(error),
            false => Ok(()),
        }
    }

    fn refusal(&self, (status, headers): (StatusCode, &HeaderMap), body: &[u8], what: &str) -> Error {
        let told = words::told(body);
        let wait = retry::retry_after(headers).filter(|_| is_passing(status));
        if let Some(wait) = wait {
            self.attempts.not_within(wait);
        }
        let too_long = wait.filter(|wait| retry::is_too_long(*wait));
        // System is what is tried again.
        let code = match status {
            status if is_passing(status) && too_long.is_none() => Code::System,
            StatusCode::NOT_FOUND => Code::NotFound,
            _ => Code::Denied,
        };
        let when = too_long
            .map_or(String::new(), |wait| format!("; it is not to be asked again for {} s", wait.as_secs()));
        let who = match (matches!(status.as_u16(), 401 | 403), &self.credentials) {
            (true, None) => {
                "; nobody is logged in there (podman login, docker login, skopeo login)".to_string()
            }
            (true, Some(someone)) => format!(" to {someone:?}"),
            _ => String::new(),
        };
        Error::new(code, format!("does not {what}: HTTP {}{told}{who}{when}", status.as_u16()))
    }
}

/// How long an answer may take from its first byte to its last, where `size` bytes of a blob are among them. A byte now and
/// then, or trailers without end, keep nobody waiting for ever.
fn whole_answer(options: &Options, size: u64) -> Duration {
    options.patience * 2 + Duration::from_secs(size / SLOWEST)
}

/// Whether it may go better the next time: the server's fault, not this one's.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || [408, 429].contains(&status.as_u16())
}

/// Reads what nobody wants to know: then the connection can be used again.
fn spent(answer: &mut Response<Body>) {
    let _ = bounded(answer, WORDS_MAX);
}

/// All of an answer's body; more than `max` bytes are refused.
pub(crate) fn bounded(answer: &mut Response<Body>, max: u64) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut body = answer.body_mut().with_config().limit(u64::MAX).reader();
    Read::take(&mut body, max + 1).read_to_end(&mut text).map_err(|e| Error::call("read", e))?;
    if text.len() as u64 > max {
        return Err(Error::new(Code::Limit, format!("answers more than {max} bytes")));
    }
    Ok(text)
}

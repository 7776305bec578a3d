//! Registries that mean no good or do badly: where passwords go, what is refused, what is tried again.
//! Uses: made, server.

#[path = "../../image/tests/made/mod.rs"]
mod made;
mod server;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use made::*;
use rcrun_image::document::media;
use rcrun_image::import::{self, Imported};
use rcrun_image::{Code, Digest, Name, Platform, Result};
use rcrun_registry::{Credentials, Options, Proxies};
use server::{Answer, Asked, Scripted};

fn quick() -> Options {
    Options { pause: Duration::from_millis(1), patience: Duration::from_secs(20), ..Options::default() }
}

fn pull_into(place: &Place, name: &str, options: &Options) -> Result<Imported> {
    let name: Name = name.parse()?;
    let import = import::Options::default();
    rcrun_registry::pull(&name, &Platform::host(), &place.store, options, &import, &|_| {})
}

fn pull(server: &Scripted, options: &Options) -> Result<Imported> {
    pull_into(&Place::new(), &format!("{}/app:1", server.address), options)
}

fn text(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    (status, Vec::new(), body.into())
}

fn with(status: u16, name: &str, value: impl Into<String>) -> Answer {
    (status, vec![(name.to_string(), value.into())], Vec::new())
}

/// What a registry has: the manifest of an image of these layers, and its blobs by digest.
#[derive(Clone)]
struct Content {
    manifest: Vec<u8>,
    files: Files,
}

fn content(count: usize) -> Content {
    let mut files = Files::new();
    let entry = add(&mut files, &Platform::host().architecture, &layers()[..count]);
    let hex = entry["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let manifest = files[&format!("blobs/sha256/{hex}")].clone();
    Content { manifest, files }
}

impl Content {
    /// As a registry answers that everybody may read.
    fn answer(&self, asked: &Asked) -> Answer {
        if asked.at == "/v2/" {
            return text(200, "{}");
        }
        if asked.at == "/v2/app/manifests/1" {
            return (200, vec![("content-type".into(), media::MANIFEST.into())], self.manifest.clone());
        }
        let blob = asked
            .at
            .strip_prefix("/v2/app/blobs/sha256:")
            .and_then(|hex| self.files.get(&format!("blobs/sha256/{hex}")));
        match blob {
            Some(blob) => text(200, blob.clone()),
            None => text(404, ""),
        }
    }
}

fn ann() -> Options {
    let credentials = Credentials::Password { user: "ann".into(), password: "secret".into() };
    Options { credentials: Some(credentials), ..quick() }
}

/// The header of `ann`.
const BASIC: &str = "Basic YW5uOnNlY3JldA==";

#[test]
fn a_token_goes_to_the_registry_only_and_a_password_to_its_realm_only() {
    let storage_has = content(2);
    let storage = Scripted::new(move |asked| storage_has.answer(asked));
    let lure = Scripted::new(|_| text(200, "come here"));
    // CVE-2020-15157: a descriptor names another host for its content.
    let mut has = content(2);
    let mut manifest: serde_json::Value = serde_json::from_slice(&has.manifest).unwrap();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/layer", lure.address)]);
    has.manifest = manifest.to_string().into_bytes();
    let (own, tokens) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicU32::new(0)));
    let (realm, given, away) = (own.clone(), tokens.clone(), storage.address);
    let registry = Scripted::new(move |asked| {
        let realm = format!("http://{}/token?x=y", realm.lock().unwrap());
        if asked.at.starts_with("/token?") {
            assert_eq!(asked.header("authorization"), Some(BASIC));
            for part in ["x=y", "service=s%20s", "scope=repository:app:pull"] {
                assert!(asked.at.replace("%3A", ":").replace('+', "%20").contains(part), "{}", asked.at);
            }
            let token = given.fetch_add(1, Ordering::SeqCst);
            return text(200, format!("{{\"token\":\"token{token}\"}}"));
        }
        // The first token is soon no longer good.
        let good = ["Bearer token0", "Bearer token1"];
        let good = if asked.at.contains("/blobs/") { &good[1..] } else { &good[..] };
        if !good.contains(&asked.header("authorization").unwrap_or_default()) {
            return with(401, "www-authenticate", format!("Bearer realm=\"{realm}\",service=\"s s\""));
        }
        match asked.at.contains("/blobs/") {
            true => with(307, "location", format!("http://{away}{}", asked.at)),
            false => has.answer(asked),
        }
    });
    *own.lock().unwrap() = registry.address.to_string();
    pull(&registry, &ann()).unwrap();
    assert_eq!(tokens.load(Ordering::SeqCst), 2);
    let stored = storage.requests();
    assert_eq!(stored.len(), 3, "the configuration and two layers");
    assert!(stored.iter().all(|asked| asked.header("authorization").is_none()), "{stored:?}");
    assert!(lure.requests().is_empty());
    let passwords =
        registry.requests().into_iter().filter(|asked| asked.header("authorization") == Some(BASIC));
    assert!(passwords.into_iter().all(|asked| asked.at.starts_with("/token")));
}

#[test]
fn a_realm_without_tls_elsewhere_gets_no_password() {
    let registry =
        Scripted::new(|_| with(401, "www-authenticate", "Bearer realm=\"http://auth.test/token\""));
    let error = pull(&registry, &ann()).unwrap_err().to_string();
    assert!(
        error.contains("realm http://auth.test/token: a password would be sent there without TLS"),
        "{error}"
    );
}

#[test]
fn an_identity_token_is_changed_for_a_token_by_a_form() {
    let has = content(1);
    let own = Arc::new(Mutex::new(String::new()));
    let realm = own.clone();
    let registry = Scripted::new(move |asked| {
        if asked.at == "/token" {
            let form = String::from_utf8(asked.body.clone()).unwrap();
            let good = "grant_type=refresh_token&client_id=rcrun&service=s&scope=repository%3Aapp%3Apull&refresh_token=id%3D";
            return if asked.method == "POST" && form == good {
                text(200, "{\"access_token\":\"t\"}")
            } else {
                text(400, form)
            };
        }
        if asked.header("authorization") == Some("Bearer t") {
            return has.answer(asked);
        }
        let realm = format!("Bearer realm=\"http://{}/token\",service=s", realm.lock().unwrap());
        with(401, "www-authenticate", realm)
    });
    *own.lock().unwrap() = registry.address.to_string();
    pull(&registry, &Options { credentials: Some(Credentials::Identity("id=".into())), ..quick() }).unwrap();
}

#[test]
fn what_is_not_what_it_says_is_refused_in_words() {
    let has = content(1);
    let other = Digest::of(b"other");
    type Change = Box<dyn Fn(&Content, &Asked) -> Option<Answer> + Send + Sync>;
    let manifest = |asked: &Asked| asked.at.contains("/manifests/");
    let layer = Digest::of(&layers()[0].1).to_string();
    let at_layer = move |asked: &Asked| asked.at.ends_with(&layer);
    let cases: Vec<(Change, Code, String)> = vec![
        (
            Box::new(move |_, asked| manifest(asked).then(|| text(200, vec![b' '; 5 << 20]))),
            Code::Limit,
            "answers more than 4194304 bytes".into(),
        ),
        (
            Box::new(move |has, asked| {
                let header = ("docker-content-digest".to_string(), other.to_string());
                manifest(asked).then(|| (200, vec![header], has.manifest.clone()))
            }),
            Code::Invalid,
            format!("blob {other}: its content has the digest"),
        ),
        (
            Box::new(move |_, asked| manifest(asked).then(|| text(200, "{\"schemaVersion\":1}"))),
            Code::Unsupported,
            "schema 1".into(),
        ),
        (
            Box::new(move |_, asked| {
                manifest(asked)
                    .then(|| text(403, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"\\u001b[31mno\"}]}"))
            }),
            Code::Denied,
            "HTTP 403 (DENIED: ?[31mno); nobody is logged in there".into(),
        ),
        (
            Box::new(move |_, asked| manifest(asked).then(|| with(302, "location", "/v2/app/manifests/1"))),
            Code::Invalid,
            "redirects more than 5 times".into(),
        ),
        (
            Box::new(move |_, asked| manifest(asked).then(|| with(302, "location", "ftp://else.test/x"))),
            Code::Invalid,
            "neither https nor http".into(),
        ),
        (
            Box::new({
                let at_layer = at_layer.clone();
                move |_, asked| at_layer(asked).then(|| text(200, "longer than it should be".repeat(100_000)))
            }),
            Code::Invalid,
            "bytes, and its descriptor says".into(),
        ),
        (
            Box::new(move |_, asked| at_layer(asked).then(|| text(404, ""))),
            Code::NotFound,
            "has no blob".into(),
        ),
    ];
    for (change, code, why) in cases {
        let has = has.clone();
        let registry = Scripted::new(move |asked| change(&has, asked).unwrap_or_else(|| has.answer(asked)));
        let place = Place::new();
        let error = pull_into(&place, &format!("{}/app:1", registry.address), &quick()).unwrap_err();
        assert!(
            error.code() == code && error.to_string().contains(&why),
            "{why}: {:?}: {error}",
            error.code()
        );
        assert!(error.to_string().starts_with(&format!("pull {}/app:1: ", registry.address)), "{error}");
        place.must_be_whole();
    }
    // By digest, the registry is not asked what the digest is.
    let changed = has.clone();
    let registry = Scripted::new(move |asked| match asked.at.contains("/manifests/") {
        true => text(200, changed.manifest.clone()),
        false => changed.answer(asked),
    });
    let name = format!("{}/app@{other}", registry.address);
    let error = pull_into(&Place::new(), &name, &quick()).unwrap_err();
    assert!(error.to_string().contains(&format!("{other}: its content has the digest")), "{error}");
}

#[test]
fn a_registry_that_fails_is_asked_again_and_one_without_ranges_sends_it_all_again() {
    let has = content(2);
    let layer = Digest::of(&layers()[1].1).to_string();
    let (counts, at_layer) = (Arc::new(AtomicU32::new(0)), layer.clone());
    let count = counts.clone();
    let registry = Scripted::new(move |asked| {
        let answer = has.answer(asked);
        if !asked.at.ends_with(&at_layer) && !asked.at.contains("/manifests/") {
            return answer;
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => text(503, ""),
            2 => answer,
            // Half of the layer, and the connection ends.
            3 => (
                200,
                vec![("content-length".into(), answer.2.len().to_string())],
                answer.2[..200_000].to_vec(),
            ),
            4 => text(429, ""),
            _ => answer,
        }
    });
    pull(&registry, &quick()).unwrap();
    assert_eq!(counts.load(Ordering::SeqCst), 6);
    let last = registry.requests().into_iter().rfind(|asked| asked.at.ends_with(&layer)).unwrap();
    let from: u64 =
        last.header("range").unwrap().strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
    assert!((1..=200_000).contains(&from), "it asked for the rest: {from}");

    // A registry that never recovers is not asked for ever.
    let down = Scripted::new(|asked| if asked.at == "/v2/" { text(200, "") } else { text(500, "") });
    let error = pull(&down, &Options { attempts: 3, ..quick() }).unwrap_err().to_string();
    assert!(error.contains("does not give manifest 1: HTTP 500"), "{error}");
    assert_eq!(down.requests().len(), 4);
}

#[test]
fn a_registry_that_says_when_to_come_again_is_asked_then_and_not_at_all_if_that_is_long_after() {
    let has = content(1);
    let count = AtomicU32::new(0);
    let busy = Scripted::new(move |asked| match asked.at.contains("/manifests/") {
        true if count.fetch_add(1, Ordering::SeqCst) == 0 => with(429, "retry-after", "1"),
        _ => has.answer(asked),
    });
    let began = Instant::now();
    pull(&busy, &quick()).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());

    for (status, words) in [(429, "HTTP 429; it is not to be asked again for 7200 s"), (404, "no image app")]
    {
        let closed = Scripted::new(move |asked| match asked.at.as_str() {
            "/v2/" => text(200, ""),
            _ => with(status, "retry-after", "7200"),
        });
        let error = pull(&closed, &quick()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(closed.requests().len(), 2);
    }
}

#[test]
fn an_upload_goes_on_from_the_byte_that_the_registry_has() {
    let place = Place::new();
    let mut files = Files::new();
    let entry = add(&mut files, &Platform::host().architecture, &layers()[..1]);
    index(&mut files, &[entry]);
    let digest = place.import(&files, None).unwrap().digest;
    let came: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (into, failed) = (came.clone(), AtomicU32::new(0));
    let registry = Scripted::new(move |asked| {
        let mut came = into.lock().unwrap();
        match (asked.method.as_str(), asked.at.split('?').next().unwrap()) {
            ("GET", "/v2/") => text(200, ""),
            ("HEAD", _) => text(404, ""),
            ("POST", "/v2/app/blobs/uploads/") => with(202, "location", "/up"),
            ("PATCH", "/up") => {
                let (begin, end) = asked.header("content-range").unwrap().split_once('-').unwrap();
                assert_eq!(begin.parse::<usize>().unwrap(), came.len());
                assert_eq!(end.parse::<usize>().unwrap() + 1, came.len() + asked.body.len());
                // Of the second chunk a part is kept, and the answer is that it failed.
                if !came.is_empty() && failed.fetch_add(1, Ordering::SeqCst) == 0 {
                    came.extend(&asked.body[..33]);
                    return text(502, "");
                }
                came.extend(&asked.body);
                with(202, "location", "/up")
            }
            ("GET", "/up") => with(204, "range", format!("0-{}", came.len() - 1)),
            ("PUT", "/up") if asked.body.is_empty() => text(201, ""),
            ("PUT", _) => text(201, ""),
            _ => text(404, ""),
        }
    });
    let name: Name = format!("{}/app:1", registry.address).parse().unwrap();
    let options = Options { chunk: Some(100_000), parallel: 1, ..quick() };
    rcrun_registry::push(&place.store, &digest, &name, &options, &|_| {}).unwrap();
    assert!(*came.lock().unwrap() == layers()[0].1, "the layer came whole");
    let last = registry.requests().pop().unwrap();
    assert_eq!((last.method.as_str(), last.at.as_str()), ("PUT", "/v2/app/manifests/1"));
}

#[test]
fn the_proxy_of_the_environment_is_used_but_not_for_this_machine() {
    let has = content(1);
    let proxy = Scripted::new(move |asked| match asked.method.as_str() {
        "CONNECT" => text(200, ""),
        _ => {
            let at = asked.at.strip_prefix("http://registry.test").unwrap_or(&asked.at);
            has.answer(&Asked { at: at.into(), ..asked.clone() })
        }
    });
    let address = format!("http://{}", proxy.address);
    let proxies = Proxies { https: Some(address.clone()), http: Some(address), none: None };
    let options = Options { proxies, ..quick() };
    let name = "registry.test/app:1";
    let error = pull_into(&Place::new(), name, &options).unwrap_err().to_string();
    assert!(error.contains("registry registry.test: does not answer over TLS"), "{error}");
    assert!(proxy.requests().iter().all(|asked| asked.method == "CONNECT"), "nothing is asked without TLS");
    pull_into(&Place::new(), name, &Options { plain_http: true, ..options.clone() }).unwrap();

    let has = content(1);
    let near = Scripted::new(move |asked| has.answer(asked));
    let before = proxy.requests().len();
    pull(&near, &options).unwrap();
    assert_eq!(proxy.requests().len(), before);
}

#[test]
fn a_registry_that_gives_a_byte_now_and_then_is_not_waited_for_for_ever() {
    use std::io::{BufRead, BufReader, Write};
    let has = content(1);
    let layer = Digest::of(&layers()[0].1).to_string();
    let options = Options { patience: Duration::from_millis(500), attempts: 3, ..quick() };
    // What it sends after the head of its answer, again and again.
    for (at, head, piece, every, why) in [
        ("/manifests/", "Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", 20, "timeout"),
        ("/manifests/", "Transfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n", 0, "timeout"),
        ("/blobs/", "Transfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n", 0, "timeout"),
        // One byte in each connection.
        (layer.as_str(), "Content-Length: 100000\r\n\r\nx", "", 0, "3 of"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("{}/app:1", listener.local_addr().unwrap());
        let (has, at, begin) = (has.clone(), at.to_string(), format!("HTTP/1.1 200 OK\r\n{head}"));
        let size = layers()[0].1.len();
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(std::io::Result::ok) {
                let (has, at, begin) = (has.clone(), at.clone(), begin.clone());
                std::thread::spawn(move || -> std::io::Result<()> {
                    let mut lines = BufReader::new(client.try_clone()?).lines();
                    while let Some(first) = lines.next().transpose()?.filter(|line| line.is_ascii()) {
                        let asked = first.split(' ').nth(1).unwrap_or_default().to_string();
                        let range = lines.by_ref().map_while(std::result::Result::ok);
                        let range = range.take_while(|line| !line.is_empty()).find_map(|line| {
                            line.to_ascii_lowercase()
                                .strip_prefix("range: bytes=")?
                                .trim_end_matches('-')
                                .parse()
                                .ok()
                        });
                        if asked.contains(&at) {
                            let from: usize = range.unwrap_or(0);
                            let last = size - 1;
                            let begin = match piece {
                                "" if from > 0 => format!(
                                    "HTTP/1.1 206 OK\r\nContent-Range: bytes {from}-{last}/{size}\r\nContent-Length: {}\r\n\r\nx",
                                    size - from
                                ),
                                "" => begin.replace("100000", &size.to_string()),
                                _ => begin,
                            };
                            client.write_all(begin.as_bytes())?;
                            while !piece.is_empty() {
                                client.write_all(piece.as_bytes())?;
                                std::thread::sleep(Duration::from_millis(every));
                            }
                            return Ok(());
                        }
                        let request =
                            Asked { method: "GET".into(), at: asked, headers: Vec::new(), body: Vec::new() };
                        let (status, headers, body) = has.answer(&request);
                        let headers: String = headers.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect();
                        let length = body.len();
                        write!(client, "HTTP/1.1 {status} OK\r\n{headers}Content-Length: {length}\r\n\r\n")?;
                        client.write_all(&body)?;
                    }
                    Ok(())
                });
            }
        });
        let error = pull_into(&Place::new(), &name, &options).unwrap_err().to_string();
        assert!(error.contains(why), "{head:?}: {error}");
    }
}

#[test]
fn a_registry_that_is_silent_is_not_waited_for_for_ever() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/app:1", silent.local_addr().unwrap());
    let options = Options { patience: Duration::from_millis(100), attempts: 2, ..quick() };
    let error = pull_into(&Place::new(), &name, &options).unwrap_err().to_string();
    assert!(error.starts_with(&format!("pull {name}: registry 127.0.0.1:")), "{error}");
    assert!(error.ends_with("timeout: connect; is the network up, and is a proxy needed?"), "{error}");

    // One that falls silent in the middle of a layer.
    let has = content(1);
    let layer = Digest::of(&layers()[0].1).to_string();
    let begins = Scripted::new(move |asked| {
        let answer = has.answer(asked);
        if asked.at.ends_with(&layer) && asked.header("range").is_some() {
            std::thread::park();
        }
        match asked.at.ends_with(&layer) {
            true => {
                (200, vec![("content-length".into(), answer.2.len().to_string())], answer.2[..100].to_vec())
            }
            false => answer,
        }
    });
    let error = pull(&begins, &options).unwrap_err().to_string();
    let size = layers()[0].1.len();
    let kept = format!("100 of {size} bytes came; what came is kept");
    assert!(error.contains(&kept) && error.contains("timeout"), "{error}");
}

//! What the tests speak to, all on loopback: Debian's registry, a road to it that breaks, and a registry that says what
//! a test wants. Uses: std, tempfile.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

/// Debian's docker-registry on a port that the kernel chose.
pub struct Registry {
    child: Child,
    pub address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Registry {
    pub fn new() -> Registry {
        Registry::start("", |_| String::new())
    }

    /// With one user.
    pub fn for_user(user: &str, password: &str) -> Registry {
        Registry::start("", |folder| {
            let file = folder.join("htpasswd");
            run("htpasswd", &["-Bbc", file.to_str().unwrap(), user, password]);
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        })
    }

    /// Over TLS, with a certificate of an authority of its own: `ca.crt` in its folder.
    pub fn over_tls() -> Registry {
        let made = tempfile::tempdir().unwrap();
        let at = |name: &str| made.path().join(name).to_str().unwrap().to_string();
        let key = |name: &str| {
            ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"]
                .map(String::from)
                .into_iter()
                .chain([at(name)])
        };
        let openssl = |arguments: Vec<String>| {
            run("openssl", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        };
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        openssl(
            [
                words("req -x509 -days 2 -subj /CN=authority -out"),
                vec![at("ca.crt")],
                key("ca.key").collect(),
            ]
            .concat(),
        );
        openssl([words("req -subj /CN=registry -out"), vec![at("r.csr")], key("r.key").collect()].concat());
        std::fs::write(at("r.ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
        openssl(
            [
                words("x509 -req -days 2 -CAcreateserial -in"),
                vec![at("r.csr"), "-CA".into(), at("ca.crt"), "-CAkey".into(), at("ca.key")],
                vec!["-extfile".into(), at("r.ext"), "-out".into(), at("r.crt")],
            ]
            .concat(),
        );
        let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", at("r.crt"), at("r.key"));
        Registry::start(&tls, |folder| {
            std::fs::copy(at("ca.crt"), folder.join("ca.crt")).unwrap();
            String::new()
        })
    }

    fn start(http: &str, more: impl FnOnce(&Path) -> String) -> Registry {
        let folder = tempfile::tempdir().unwrap();
        let more = more(folder.path());
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    \
             enabled: true\nhttp:\n  addr: 127.0.0.1:0\n{http}{more}",
            folder.path().join("content").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry of the package of that name");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended:\n{told}");
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end =
                    rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
                break rest[..end].parse().unwrap();
            }
            told += &line;
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Registry { child, address, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file in which it keeps a blob.
    pub fn blob(&self, hex: &str) -> std::path::PathBuf {
        let blobs = self.folder.path().join("content/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that must succeed: what it writes.
pub fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    output.stdout
}

/// A road to a server that breaks.
pub struct Road {
    pub address: SocketAddr,
    /// Bytes that came from the server.
    pub came: Arc<AtomicU64>,
    /// A connection breaks after so many bytes of answers.
    pub each: Arc<AtomicU64>,
    /// Nothing more passes after so many in all.
    pub all: Arc<AtomicU64>,
    /// Connections that broke.
    pub broke: Arc<AtomicU64>,
    /// Is told in place of breaking a connection, which then hangs.
    pub hung: Arc<Mutex<Option<Sender<()>>>>,
}

type Limits = [Arc<AtomicU64>; 4];
type Hung = Mutex<Option<Sender<()>>>;

impl Road {
    pub fn to(server: SocketAddr) -> Road {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let road = Road {
            address: listener.local_addr().unwrap(),
            came: Arc::default(),
            each: Arc::new(AtomicU64::new(u64::MAX)),
            all: Arc::new(AtomicU64::new(u64::MAX)),
            broke: Arc::default(),
            hung: Arc::default(),
        };
        let hung = road.hung.clone();
        let limits = [&road.came, &road.each, &road.all, &road.broke].map(Arc::clone);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (limits, hung) = (limits.clone(), hung.clone());
                std::thread::spawn(move || pass(client, server, &limits, &hung));
            }
        });
        road
    }
}

fn pass(mut client: TcpStream, server: SocketAddr, [came, each, all, broke]: &Limits, hung: &Hung) {
    let Ok(mut server) = TcpStream::connect(server) else { return };
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut passed = 0;
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        let before = came.fetch_add(read as u64, Ordering::SeqCst);
        let left = each.load(Ordering::SeqCst).saturating_sub(passed);
        let left = left.min(all.load(Ordering::SeqCst).saturating_sub(before));
        let now = (read as u64).min(left) as usize;
        if client.write_all(&buffer[..now]).is_err() || now < read {
            broke.fetch_add(1, Ordering::SeqCst);
            // Not under the lock, which the next that hangs needs.
            let told = hung.lock().unwrap().clone();
            if let Some(hung) = told {
                let _ = hung.send(());
                // Until the test's process ends, or the client.
                let _ = client.read(&mut buffer);
            }
            break;
        }
        passed += now as u64;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// A request as the scripted server sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub at: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// An answer: status, headers, body.
pub type Answer = (u16, Vec<(String, String)>, Vec<u8>);

/// A server that answers as a test says.
pub struct Scripted {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

impl Scripted {
    pub fn new(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let script = Arc::new(script);
        let (seen, stopped) = (asked.clone(), stop.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (script, seen) = (script.clone(), seen.clone());
                std::thread::spawn(move || serve(client, &*script, &seen));
            }
        });
        Scripted { address, asked, stop }
    }

    pub fn requests(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(client: TcpStream, script: &dyn Fn(&Asked) -> Answer, seen: &Mutex<Vec<Asked>>) {
    let mut out = client.try_clone().unwrap();
    let mut client = BufReader::new(client);
    loop {
        // A ClientHello begins with 22: answered as a server of plain HTTP does.
        let Ok(begin) = client.fill_buf() else { return };
        if begin.is_empty() {
            return;
        }
        if begin[0] == 22 {
            let _ = out.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nplain HTTP here\n");
            return;
        }
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if client.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_string();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let mut words = lines[0].split(' ').map(String::from);
        let headers: Vec<(String, String)> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
            .collect();
        let mut asked =
            Asked { method: words.next().unwrap(), at: words.next().unwrap(), headers, body: Vec::new() };
        let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        asked.body = vec![0; length];
        if client.read_exact(&mut asked.body).is_err() {
            return;
        }
        seen.lock().unwrap().push(asked.clone());
        let (status, headers, body) = script(&asked);
        let mut text = format!("HTTP/1.1 {status} Said\r\n");
        if !headers.iter().any(|(name, _)| name == "content-length") {
            text += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let sent = out.write_all(text.as_bytes());
        let sent = if asked.method == "HEAD" { sent } else { sent.and_then(|()| out.write_all(&body)) };
        // A body that is shorter than it says ends the connection.
        let whole = text.contains(&format!("content-length: {}\r\n", body.len()));
        if sent.is_err() || !whole {
            return;
        }
    }
}

//! Why a connection could not be made, in words, and whether the other side speaks no TLS at all. Uses: ureq, rustls, words.

use std::io;
use std::path::Path;

use rcrun_image::{Code, Error};

use crate::words;

/// A failed request as an error of this crate, with what to do; `certificates` is where those for this registry may lie.
/// `Display` of ureq says little of TLS.
pub(crate) fn failed(error: ureq::Error, certificates: Option<&Path>) -> Error {
    let no_such_host = || {
        let message = "there is no such host: is its name right, and does a name server answer?";
        Error::new(Code::System, message)
    };
    match error {
        ureq::Error::HostNotFound => no_such_host(),
        // The standard library has no kind for it.
        ureq::Error::Io(error) if error.to_string().starts_with("failed to lookup address") => no_such_host(),
        ureq::Error::Io(error) => {
            let refused = error.kind() == io::ErrorKind::ConnectionRefused;
            let trusted = certificates.filter(|_| is_untrusted(&error));
            let error = Error::call("connection", error);
            match trusted {
                _ if refused => error.and("is it running, and listening on this port?"),
                Some(folder) => {
                    let file = folder.join("ca.crt");
                    error.and(format_args!(
                        "to trust it, put the authority's certificate into {}",
                        file.display()
                    ))
                }
                None => error,
            }
        }
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            Error::new(Code::System, "timeout: connect").and("is the network up, and is a proxy needed?")
        }
        other => Error::new(Code::System, words::shown(&other.to_string(), 300)),
    }
}

/// The error of TLS that `error` is.
fn tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

fn is_untrusted(error: &io::Error) -> bool {
    use rustls::CertificateError::UnknownIssuer;
    matches!(tls(error), Some(rustls::Error::InvalidCertificate(UnknownIssuer)))
}

/// Whether the server does not speak TLS at all. A certificate that is not trusted is something else.
pub(crate) fn is_not_tls(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else { return false };
    match tls(error) {
        Some(rustls::Error::InvalidMessage(_)) => true,
        Some(_) => false,
        // Nothing listens for https, or what does hangs up at a message that it does not know.
        None => matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
        ),
    }
}

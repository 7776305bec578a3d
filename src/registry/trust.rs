//! Whose signatures on a server's certificate count: the system's, and those that an administrator set up for one host.
//! Uses: rustls-native-certs, ureq.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use rcrun_image::{Error, Result};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The TLS of `host`. `folders` have a folder for each host.
pub(crate) fn of_host(host: &str, folders: &[PathBuf]) -> Result<TlsConfig> {
    // What the system's store lacks shows when a certificate is not trusted.
    let system = rustls_native_certs::load_native_certs();
    let mut roots: Vec<Certificate<'static>> =
        system.certs.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned()).collect();
    for folder in folders {
        let folder = folder.join(host);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                continue;
            }
            Err(error) => return Err(Error::call(format_args!("read {}", folder.display()), error)),
        };
        for entry in entries {
            let path = entry.map_err(|e| Error::call(format_args!("read {}", folder.display()), e))?.path();
            if path.extension().is_some_and(|extension| extension == "crt") {
                let shown = path.display();
                let text = std::fs::read(&path).map_err(|e| Error::call(format_args!("read {shown}"), e))?;
                for item in parse_pem(&text) {
                    match item.map_err(|e| Error::invalid(format!("{shown}: {e}")))? {
                        PemItem::Certificate(root) => roots.push(root.to_owned()),
                        _ => return Err(Error::invalid(format!("{shown}: holds what is no certificate"))),
                    }
                }
            }
        }
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

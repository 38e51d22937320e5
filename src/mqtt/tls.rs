//! TLS 1.2 and 1.3, both sides: what the gate shows devices, and whom it and the bridge believe. rustls, with ring.
//!
//! Files are PEM and bounded. What is wrong with one is said with its name and the way out; a private key is never shown.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::MqttError;

/// Largest PEM file in bytes: a system's whole bundle of authorities fits.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What the gate's TLS addresses need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates; `None`: no certificate is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a client must have one.
    pub require_client_certificate: bool,
}

/// Whom the bridge believes, and who it is to a broker that asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities of the broker's certificate; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file and the way out.
    pub fn load(&self) -> Result<Arc<ServerConfig>, MqttError> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| wrong(&self.certificate, error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path)?), provider());
                let verifier =
                    if self.require_client_certificate { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(path, error.to_string()))?)
            }
        };
        let (chain, key) = (certificates(&self.certificate)?, private_key(&self.key)?);
        let config =
            builder.with_single_cert(chain, key).map_err(|error| mismatch(&self.certificate, &self.key, &error))?;
        Ok(Arc::new(config))
    }

    /// The files it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file and the way out.
    pub fn load(&self) -> Result<Arc<ClientConfig>, MqttError> {
        let roots = match &self.ca {
            Some(path) => authorities(path)?,
            None => system_authorities()?,
        };
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| MqttError::Tls(error.to_string()))?.with_root_certificates(roots);
        let config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| mismatch(certificate, key, &error))?,
        };
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> MqttError {
    MqttError::Tls(format!("{}: {why}", path.display()))
}

fn mismatch(certificate: &Path, key: &Path, error: &rustls::Error) -> MqttError {
    wrong(
        certificate,
        format!("cannot be used with the key in {} ({error}): name the two that belong together", key.display()),
    )
}

fn read(path: &Path) -> Result<Vec<u8>, MqttError> {
    let unreadable = |error: std::io::Error| {
        wrong(path, format!("cannot be read ({error}): name a PEM file that this user can read"))
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(unreadable)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(wrong(path, "larger than 4 MiB, which is no PEM file: name another"));
    }
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, MqttError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => {
            Err(wrong(path, "no certificate in it: it must have a PEM block that begins -----BEGIN CERTIFICATE-----"))
        }
        Err(error) => Err(wrong(path, format!("not a PEM file of certificates ({error}): name one that is"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, MqttError> {
    // What the parser says of a key is not repeated: it might show some of it.
    let way_out =
        "no private key in it that can be used: it must be PEM, without a passphrase (openssl pkey removes one)";
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| wrong(path, way_out))
}

fn authorities(path: &Path) -> Result<RootCertStore, MqttError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            wrong(path, format!("a certificate in it is no authority's ({error}): name a file of authorities"))
        })?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, MqttError> {
    let mut roots = RootCertStore::empty();
    // Systems carry certificates that no library takes; one is enough to begin with.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(MqttError::Tls(
            "this system has no certificates of authorities to check a broker's against: install ca-certificates, or name a \
             file as mqtt.ca_file"
                .into(),
        ));
    }
    Ok(roots)
}

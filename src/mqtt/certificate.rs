//! Whom a client certificate names: its subject's common name, else its first DNS name. The certificate has been verified
//! by then; reading it still assumes nothing and panics on nothing.

use rustls::pki_types::CertificateDer;

/// DER tags that are met on the way.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const OCTETS: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;
const DNS_NAME: u8 = 0x82;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The name, if it has one that can be a user's: UTF-8, neither empty nor with control characters.
pub fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (subject, extensions) = parts(certificate.as_ref())?;
    let name = common_name(subject).or_else(|| dns_name(extensions?))?;
    (!name.is_empty() && !name.contains(char::is_control)).then(|| name.to_owned())
}

/// Takes values off the front of DER.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next value, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// The subject, and the extensions if there are any.
fn parts(certificate: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let whole = Der(certificate).expect(SEQUENCE)?;
    let mut fields = Der(Der(whole).expect(SEQUENCE)?);
    // Version, which may be missing; serial number, signature's algorithm, issuer, validity.
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    for _ in 0..4 {
        fields.next()?;
    }
    let subject = fields.expect(SEQUENCE)?;
    let mut extensions = None;
    while let Some((tag, content)) = fields.next() {
        if tag == EXTENSIONS {
            extensions = Der(content).expect(SEQUENCE);
        }
    }
    Some((subject, extensions))
}

fn common_name(subject: &[u8]) -> Option<&str> {
    let mut sets = Der(subject);
    while let Some(set) = sets.expect(SET) {
        let mut attributes = Der(set);
        while let Some(attribute) = attributes.expect(SEQUENCE) {
            let mut fields = Der(attribute);
            if fields.expect(OID) == Some(COMMON_NAME) {
                let (tag, text) = fields.next()?;
                return matches!(tag, UTF8 | PRINTABLE | IA5).then(|| str::from_utf8(text).ok())?;
            }
        }
    }
    None
}

fn dns_name(extensions: &[u8]) -> Option<&str> {
    let mut extensions = Der(extensions);
    while let Some(extension) = extensions.expect(SEQUENCE) {
        let mut fields = Der(extension);
        if fields.expect(OID) != Some(SUBJECT_ALT_NAME) {
            continue;
        }
        let mut field = fields.next()?;
        if field.0 == BOOLEAN {
            field = fields.next()?;
        }
        let mut names = Der(Der((field.0 == OCTETS).then_some(field.1)?).expect(SEQUENCE)?);
        while let Some((tag, name)) = names.next() {
            if tag == DNS_NAME {
                return str::from_utf8(name).ok();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// A certificate made by openssl, if it is there.
    fn made(subject: &str, more: &[&str]) -> Option<CertificateDer<'static>> {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                "/dev/null",
            ])
            .args(["-days", "2", "-subj", subject])
            .args(more)
            .output()
            .ok()?;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(CertificateDer::from_pem_slice(&made.stdout).unwrap())
    }

    #[test]
    fn a_certificate_names_its_common_name_else_its_first_dns_name() {
        let san = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:truck-8.example,DNS:other"];
        for (subject, more, name) in [
            ("/O=Fleet/CN=truck-7", &san[..], Some("truck-7")),
            ("/O=Fleet/CN=Zugmaschine ü", &["-utf8"], Some("Zugmaschine ü")),
            ("/O=Fleet", &san, Some("truck-8.example")),
            ("/O=Fleet", &[], None),
        ] {
            let Some(certificate) = made(subject, more) else { return };
            assert_eq!(name_of(&certificate).as_deref(), name, "{subject}");
            // Cut short anywhere it is nobody's, or still says the same, but never a panic.
            for length in 0..certificate.len() {
                let _ = name_of(&CertificateDer::from(&certificate[..length]));
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x30u8), Just(3)], 0..200)) {
            let _ = name_of(&CertificateDer::from(bytes));
        }
    }
}

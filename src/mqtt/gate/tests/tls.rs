//! TLS: versions, certificates of both sides, what a client may try before it has shaken hands.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};

use super::*;
use crate::mqtt::tls::ServerTls;

/// An authority, and certificates of it in a folder.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes NAME.pem and NAME.key: a certificate for localhost whose subject is `name`.
    fn certify(&self, file: &str, name: &str) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn server(&self) -> ServerTls {
        self.certify("server", "localhost");
        ServerTls {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: None,
            require_client_certificate: false,
        }
    }

    /// What a client needs that believes this authority; `own`: its certificate's file.
    fn client(&self, versions: &[&'static SupportedProtocolVersion], own: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_file(self.path(&format!("{own}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{own}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn bench_tls(tls: ServerTls, change: impl FnOnce(&mut GateOptions)) -> Bench {
    bench_with(|options| {
        options.listen_tls = std::mem::take(&mut options.listen);
        options.tls = Some(tls);
        options.refresh = Duration::from_millis(20);
        change(options);
    })
}

impl Bench {
    fn dial_tls(&self, config: &Arc<ClientConfig>) -> Raw {
        let socket = TcpStream::connect(self.gate.addresses()[0]).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_nodelay(true).unwrap();
        let client = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
        Raw { socket: Wire::Tls(Box::new(StreamOwned::new(client, socket))), buf: BytesMut::new(), v5: false }
    }

    fn client_tls(&self, config: &Arc<ClientConfig>, id: &str) -> Raw {
        let mut raw = self.dial_tls(config);
        raw.send(&connect(id, true, 0));
        assert_eq!(raw.packet(), [0x20, 2, 0, 0], "accepted");
        raw
    }
}

impl Raw {
    /// What the other side says to our handshake and CONNECT: a packet, or why not.
    fn answer(&mut self) -> Result<Vec<u8>, String> {
        self.socket.write_all(&connect("c", true, 0)).map_err(|error| error.to_string())?;
        let mut answer = [0; 4];
        self.socket.read_exact(&mut answer).map_err(|error| error.to_string())?;
        Ok(answer.to_vec())
    }
}

#[test]
fn messages_of_every_qos_and_size_cross_both_versions_of_tls() {
    let authority = Authority::new();
    let bench = bench_tls(authority.server(), |_| {});
    for versions in [&BOTH[..1], &BOTH[1..]] {
        let config = authority.client(versions, None);
        let mut subscriber = bench.client_tls(&config, "subscriber");
        assert_eq!(subscriber.subscribe("t/#", 1), 1);
        let mut publisher = bench.client_tls(&config, "publisher");
        publisher.publish("t/0", "zero", 0, 0, 0);
        assert_eq!(subscriber.heard(), ("t/0".into(), "zero".into()));
        for (id, size) in [(1, 1), (2, 5_000), (3, 70_000), (4, 3_000_000)] {
            let payload = "x".repeat(size);
            publisher.publish("t/1", &payload, 1, id, 0);
            assert_eq!(publisher.packet()[2..4], id.to_be_bytes());
            assert_eq!(subscriber.heard().1.len(), size);
        }
        publisher.publish("t/2", "two", 2, 9, 0);
        assert_eq!(publisher.packet(), [0x50, 2, 0, 9]);
        subscriber.heard();
        publisher.send(&[0x62, 2, 0, 9]);
        assert_eq!(publisher.packet(), [0x70, 2, 0, 9]);
        for _ in 0..2_000 {
            publisher.publish("t/3", "many", 1, 7, 0);
        }
        for _ in 0..2_000 {
            assert_eq!(publisher.packet(), [0x40, 2, 0, 7]);
        }
        publisher.send(&[0xe0, 0]);
        assert!(publisher.closed().is_empty(), "a goodbye is answered by the end");
        drop(subscriber);
        until("both are gone", || bench.gate.clients() == 0);
    }
    assert_eq!(bench.gate.counts().insecure, 0);
}

#[test]
fn who_speaks_no_tls_or_never_ends_its_handshake_is_let_go_and_others_come_in_meanwhile() {
    let authority = Authority::new();
    let bench = bench_tls(authority.server(), |options| options.handshake = Duration::from_millis(500));
    let mut plain = bench.dial();
    plain.send(&connect("plain", true, 0));
    let mut silent = bench.dial();
    let mut half = bench.dial();
    // The beginning of a ClientHello that announces more.
    half.send(&[22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3]);
    let mut drip = bench.dial();
    let config = authority.client(&BOTH, None);
    assert!(bench.client_tls(&config, "served").is_quiet(), "while the others are at the door");
    for byte in [22u8, 3, 1] {
        drip.send(&[byte]);
    }
    for stranger in [&mut silent, &mut half, &mut drip] {
        assert!(stranger.closed().is_empty());
    }
    // It is told in TLS that it speaks none.
    let mut said = Vec::new();
    let _ = plain.socket.read_to_end(&mut said);
    assert!(said.is_empty() || said[0] == 21, "{said:x?}");
    until("all four are counted", || bench.gate.counts().refused == 4);
    assert_eq!(bench.gate.counts().insecure, 1);
    until("none is left behind", || bench.gate.inner.sockets.load(Ordering::Relaxed) == 0);
}

#[test]
fn a_client_certificate_names_the_user_and_may_be_required() {
    let authority = Authority::new();
    authority.certify("truck", "truck-7");
    let stranger = Authority::new();
    stranger.certify("truck", "truck-7");
    std::fs::copy(authority.path("ca.pem"), stranger.path("ca.pem")).unwrap();
    for required in [false, true] {
        let tls = ServerTls {
            client_ca: Some(authority.path("ca.pem")),
            require_client_certificate: required,
            ..authority.server()
        };
        let bench = bench_tls(tls, |options| {
            options.access.anonymous = false;
            options.access.rules =
                vec![crate::mqtt::access::Rule { publish: vec!["v/%u/#".into()], ..Default::default() }];
        });
        let mut truck = bench.client_tls(&authority.client(&BOTH, Some("truck")), "c");
        truck.publish("v/truck-7/speed", "x", 1, 1, 0);
        assert_eq!(truck.packet(), [0x40, 2, 0, 1]);
        // A name of its own choice does not count.
        let mut sly = bench.dial_tls(&authority.client(&BOTH, Some("truck")));
        sly.send(&connect_as("sly", "truck-8", "x"));
        assert_eq!(sly.packet(), [0x20, 2, 0, 0]);
        sly.publish("v/truck-8/speed", "x", 1, 1, 0);
        assert!(sly.closed().is_empty());
        let nobody = bench.dial_tls(&authority.client(&BOTH, None)).answer();
        match required {
            false => assert_eq!(nobody, Ok(vec![0x20, 2, 0, 5])),
            true => assert!(nobody.is_err(), "{nobody:?}"),
        }
        let forged = bench.dial_tls(&stranger.client(&BOTH, Some("truck"))).answer();
        assert!(forged.is_err(), "{forged:?}");
    }
}

#[test]
fn a_new_certificate_is_in_force_at_once_and_a_bad_one_is_refused() {
    let (old, new) = (Authority::new(), Authority::new());
    let bench = bench_tls(old.server(), |_| {});
    let mut before = bench.client_tls(&old.client(&BOTH, None), "before");
    std::fs::write(old.path("server.pem"), "no certificate").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    bench.client_tls(&old.client(&BOTH, None), "meanwhile");
    new.server();
    for file in ["server.pem", "server.key"] {
        std::fs::copy(new.path(file), old.path(file)).unwrap();
    }
    until("the new one is shown", || bench.dial_tls(&new.client(&BOTH, None)).answer().is_ok());
    assert!(bench.dial_tls(&old.client(&BOTH, None)).answer().is_err());
    assert!(before.is_quiet(), "connections stay");
}

#[test]
fn files_that_cannot_be_used_are_refused_with_their_name_and_the_way_out() {
    let authority = Authority::new();
    let good = authority.server();
    std::fs::write(authority.path("empty"), "").unwrap();
    authority.certify("other", "other");
    let path = |name: &str| authority.path(name);
    for (tls, file, said) in [
        (ServerTls { certificate: path("none"), ..good.clone() }, "none", "cannot be read"),
        (ServerTls { certificate: path("empty"), ..good.clone() }, "empty", "no certificate in it"),
        (ServerTls { key: path("empty"), ..good.clone() }, "empty", "no private key in it"),
        (ServerTls { key: path("other.key"), ..good.clone() }, "server.pem", "name the two that belong together"),
        (ServerTls { client_ca: Some(path("server.key")), ..good.clone() }, "server.key", "no certificate in it"),
    ] {
        let error = tls.load().unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(said), "{error}");
    }
}

#[test]
fn a_slow_reader_over_tls_gets_everything_in_order() {
    let authority = Authority::new();
    let bench = bench_tls(authority.server(), |_| {});
    let config = authority.client(&BOTH, None);
    let mut slow = bench.client_tls(&config, "slow");
    slow.subscribe("t", 0);
    let payload = "x".repeat(20_000);
    for n in 0..500 {
        bench.gate.publish("t", format!("{n} {payload}"), false).unwrap();
    }
    for n in 0..500 {
        assert!(slow.heard().1.starts_with(&format!("{n} ")));
    }
}

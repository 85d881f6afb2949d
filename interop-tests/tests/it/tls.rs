//! Distribution over TLS, against `-proto_dist inet_tls`. Certificates are made anew by each case.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foundation_interop_tests::{
    Beam, Case, Epmd, Release, beam, case, eventually::eventually_true, work_dir,
};
use foundation_node::Node;
use foundation_node::config::{NodeConfig, ProtoDist, Reconnect};
use foundation_node::net::{ConnectError, Link, TlsError};
use foundation_node::net_kernel::NodeType;
use foundation_proto::Error;
use foundation_proto::error::PeerIncompatible;
use foundation_proto::etf::{Atom, Term};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::rust::{Rust, WAIT, next_term};

const TOPIC: &str = "TLS";

/// Certificates of one case, in a directory that goes with it.
pub(crate) struct Pki {
    pub(crate) directory: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = work_dir(&format!("tls/{}-{number}", std::process::id()));
        let pki = Self { directory, ca: authority("Cluster CA") };
        pki.write("ca.pem", &pki.ca.pem());
        pki
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).unwrap();
    }

    /// `NAME.pem` and `NAME.key`, signed by the CA: for these hosts or addresses, or with none only a common name.
    pub(crate) fn issue(&self, name: &str, hosts: &[&str], common_name: &str) {
        self.issue_by(&self.ca, name, hosts, common_name);
    }

    fn issue_by(&self, ca: &CertifiedIssuer<'_, KeyPair>, name: &str, hosts: &[&str], common_name: &str) {
        let key = KeyPair::generate().unwrap();
        // Up to OTP 25 the text of an address must be a dNSName, from 26 on the address an iPAddress.
        let mut params =
            CertificateParams::new(hosts.iter().map(|&h| h.to_owned()).collect::<Vec<_>>()).unwrap();
        for host in hosts.iter().filter(|host| host.parse::<std::net::IpAddr>().is_ok()) {
            params.subject_alt_names.push(SanType::DnsName((*host).try_into().unwrap()));
        }
        params.distinguished_name.push(DnType::CommonName, common_name);
        self.write(&format!("{name}.pem"), &params.signed_by(&key, ca).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// What a server of the test needs to show `NAME.pem`.
    pub(crate) fn server(&self, name: &str) -> Arc<ServerConfig> {
        let file = |end: &str| std::fs::read(self.directory.join(format!("{name}.{end}"))).unwrap();
        let chain = CertificateDer::pem_slice_iter(&file("pem")).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(&file("key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }

    /// `NAME.conf` for `-ssl_dist_optfile`: mutual certificates with those of `certificate`.
    fn optfile(&self, name: &str, certificate: &str, versions: &str) -> PathBuf {
        self.optfile_with(name, certificate, "ca.pem", versions, "{fail_if_no_peer_cert, true}")
    }

    fn optfile_with(&self, name: &str, certificate: &str, ca: &str, versions: &str, server: &str) -> PathBuf {
        let file = |name: &str| format!("\"{}\"", self.directory.join(name).display());
        let own = match certificate {
            "" => String::new(),
            certificate => format!(
                "{{certfile, {}}}, {{keyfile, {}}}, ",
                file(&format!("{certificate}.pem")),
                file(&format!("{certificate}.key"))
            ),
        };
        let both = format!("{own}{{cacertfile, {}}}, {{verify, verify_peer}}", file(ca));
        let mut options = String::new();
        if !versions.is_empty() {
            write!(options, ", {{versions, [{versions}]}}").unwrap();
        }
        let mut server = server.to_owned();
        if versions != "'tlsv1.3'" {
            // In every example of OTP's documentation; refused by ssl if there is no version that it is about.
            server.push_str(", {secure_renegotiate, true}");
        }
        self.write(
            name,
            &format!("[{{server, [{both}, {server}{options}]}},\n {{client, [{both}{options}]}}].\n"),
        );
        self.directory.join(name)
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A Rust node with TLS.
fn rust(epmd: &Epmd, name: &str, optfile: &Path) -> Rust {
    rust_with(epmd, name, optfile, |config| config)
}

fn rust_with(epmd: &Epmd, name: &str, optfile: &Path, change: impl FnOnce(NodeConfig) -> NodeConfig) -> Rust {
    Rust::with(epmd, name, |config| {
        change(config.proto_dist(ProtoDist::InetTls).ssl_dist_optfile(optfile).reconnect(Reconnect::Never))
    })
}

/// A BEAM node with TLS.
fn beam(release: &Release, epmd: &Epmd, name: &str, optfile: &Path) -> Beam {
    tls(beam::Options::new(release, epmd.port, name), "inet_tls", optfile).start()
}

fn tls(options: beam::Options, proto_dist: &str, optfile: &Path) -> beam::Options {
    options.args(&format!("-proto_dist {proto_dist} -ssl_dist_optfile")).arg(&optfile.display().to_string())
}

fn connect(rust: &Rust, node: &str) -> Result<Arc<Link>, ConnectError> {
    rust.run(rust.node.connect(node))
}

/// Why a dial did not get a TLS session.
#[track_caller]
fn tls_error(rust: &Rust, node: &str) -> TlsError {
    match connect(rust, node) {
        Err(ConnectError::Tls { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

/// Large and many small messages in both directions.
fn talk(rust: &Rust, beam: &Beam) {
    let node = rust.node.name().as_str();
    rust.echo();
    let rounds = format!(
        "Ask = fun(M) -> {{echo, '{node}'}} ! {{self(), M}}, receive {{echo, A}} -> A =:= M after 15000 -> late end end,
         Big = binary:copy(<<\"0123456789abcdef\">>, 131072),
         [true = Ask(M) || M <- [a, Big, {{Big, Big}}, lists:seq(1, 1000)]],
         [{{echo, '{node}'}} ! {{self(), N}} || N <- lists:seq(1, 5000)],
         [receive {{echo, N}} -> N end || N <- lists:seq(1, 5000)] =:= lists:seq(1, 5000)"
    );
    assert_eq!(beam.eval(&rounds), "true");
    let name = Atom::new(beam.name()).unwrap();
    let big = Term::binary(&vec![7; 3 << 20]);
    let call = rust.node.erpc(&name, "erlang", "byte_size", vec![big], WAIT);
    assert_eq!(rust.run(call).unwrap(), Term::Integer(3 << 20));
}

fn both_directions(release: &Release, version: &str) {
    let pki = Pki::new();
    pki.issue("node", &["127.0.0.1"], "node");
    let optfile = pki.optfile("tls.conf", "node", &format!("'{version}'"));
    let epmd = Epmd::start(release);
    let rust = rust(&epmd, "rust", &optfile);
    let beam = beam(release, &epmd, "beam", &optfile);

    assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong", "{}", beam.log());
    let link = rust.node.links().pop().unwrap();
    let tls = link.peer().tls.clone().expect("encrypted");
    assert_eq!((tls.version, tls.peer_certificate), (version, true));
    println!("accepted: {}", tls.cipher_suite);
    talk(&rust, &beam);

    assert!(rust.run(rust.node.disconnect(beam.name())));
    eventually_true("the BEAM has seen it", WAIT, || beam.eval("nodes(connected)") == "[]");
    let link = connect(&rust, beam.name()).unwrap();
    let tls = link.peer().tls.clone().expect("encrypted");
    assert_eq!((tls.version, tls.peer_certificate), (version, true));
    println!("dialled: {}", tls.cipher_suite);
    assert_eq!(beam.eval("nodes(hidden)"), "['rust@127.0.0.1']");

    beam.kill();
    eventually_true("the killed node leaves", WAIT, || rust.node.nodes(NodeType::Connected).is_empty());
}

#[test]
fn tls_1_2_in_both_directions() {
    case(Case::Smoke, TOPIC, "TLS 1.2 with mutual certificates, both sides dialling", |release| {
        both_directions(release, "tlsv1.2");
        Ok(())
    });
}

#[test]
fn tls_1_3_in_both_directions() {
    case(Case::Smoke, TOPIC, "TLS 1.3 with mutual certificates, both sides dialling", |release| {
        both_directions(release, "tlsv1.3");
        Ok(())
    });
}

#[test]
fn the_version_that_both_have() {
    case(Case::Full, TOPIC, "without `versions` the two agree on one", |release| {
        let pki = Pki::new();
        pki.issue("node", &["127.0.0.1"], "node");
        let optfile = pki.optfile("tls.conf", "node", "");
        let epmd = Epmd::start(release);
        let rust = rust(&epmd, "rust", &optfile);
        let beam = beam(release, &epmd, "beam", &optfile);
        let link = connect(&rust, beam.name()).unwrap();
        assert!(link.peer().tls.is_some());
        Ok(())
    });
}

#[test]
fn certificates_of_another_ca_are_refused() {
    case(Case::Full, TOPIC, "a node with another CA's certificate is refused by either side", |release| {
        let pki = Pki::new();
        pki.issue("node", &["127.0.0.1"], "node");
        pki.issue_by(&authority("Another CA"), "stranger", &["127.0.0.1"], "stranger");
        let epmd = Epmd::start(release);
        for version in ["'tlsv1.2'", "'tlsv1.3'"] {
            let good = pki.optfile("good.conf", "node", version);
            let bad = pki.optfile("bad.conf", "stranger", version);
            let stranger = beam(release, &epmd, "stranger", &bad);
            {
                let rust = rust(&epmd, "rust", &good);
                assert_eq!(stranger.eval("net_adm:ping('rust@127.0.0.1')"), "pang");
                let error = tls_error(&rust, stranger.name());
                assert!(matches!(&error, TlsError::PeerCertificate(_)), "{error}");
                assert!(rust.node.nodes(NodeType::Connected).is_empty());
            }
            let rust = rust(&epmd, "rust", &bad);
            let beam = beam(release, &epmd, "good", &good);
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pang");
            // The stranger trusts the cluster's CA, so what ends this is the BEAM's alert.
            let error = tls_error(&rust, beam.name());
            assert!(matches!(&error, TlsError::Refused(_)), "{version}: {error}");
        }
        Ok(())
    });
}

#[test]
fn certificates_for_another_host_are_refused() {
    case(Case::Full, TOPIC, "a certificate must name the host that is dialled, as in OTP", |release| {
        let pki = Pki::new();
        pki.issue("here", &["127.0.0.1"], "here");
        pki.issue("elsewhere", &["elsewhere.example", "127.0.0.2"], "127.0.0.1");
        pki.issue("common", &[], "localhost");
        pki.issue("common_ip", &[], "127.0.0.1");
        let epmd = Epmd::start(release);
        let here = pki.optfile("here.conf", "here", "");
        let rust_here = rust(&epmd, "rust", &here);
        let common_conf = pki.optfile("common.conf", "common", "");
        let common =
            tls(beam::Options::new(release, epmd.port, "common").at("localhost"), "inet_tls", &common_conf);
        let common = common.start();
        let elsewhere_conf = pki.optfile("elsewhere.conf", "elsewhere", "");
        let elsewhere = beam(release, &epmd, "elsewhere", &elsewhere_conf);

        // No alternative name: the common name counts, unless the host is an address.
        let rust_local = Rust::named(epmd.port, "local@localhost", |config| {
            config.proto_dist(ProtoDist::InetTls).ssl_dist_optfile(&here)
        });
        assert!(connect(&rust_local, "common@localhost").is_ok());
        let common_ip_conf = pki.optfile("common_ip.conf", "common_ip", "");
        let common_ip = beam(release, &epmd, "common_ip", &common_ip_conf);
        let error = tls_error(&rust_here, common_ip.name());
        assert!(matches!(&error, TlsError::PeerCertificate(_)), "{error}");
        let error = tls_error(&rust_here, elsewhere.name());
        assert!(
            matches!(&error, TlsError::PeerCertificate(why) if why.contains("elsewhere.example")),
            "{error}"
        );
        // A client's certificate is not compared with anything, as long as there is no allow-list.
        assert_eq!(elsewhere.eval("net_adm:ping('rust@127.0.0.1')"), "pong");

        // And the same judgements by the BEAM.
        let _rust_elsewhere = rust(&epmd, "wrong", &elsewhere_conf);
        assert_eq!(common.eval("net_adm:ping('wrong@127.0.0.1')"), "pang");
        let _rust_common = rust(&epmd, "wrong2", &common_ip_conf);
        assert_eq!(common.eval("net_adm:ping('wrong2@127.0.0.1')"), "pang");
        let verify = format!(
            "{{ok, Pem}} = file:read_file({:?}), [{{_, Der, _}}] = public_key:pem_decode(Pem),
             [public_key:pkix_verify_hostname(Der, [{{dns_id, H}}]) || H <- [\"localhost\", \"LOCALHOST\", \"127.0.0.1\"]]",
            pki.directory.join("common.pem")
        );
        // Later releases take no common name at all.
        let expected = if release.number < 26 { "[true,true,false]" } else { "[false,false,false]" };
        assert_eq!(common.eval(&verify), expected);
        Ok(())
    });
}

#[test]
fn a_peer_without_a_certificate() {
    case(Case::Full, TOPIC, "a peer without a certificate is refused where one is required", |release| {
        let pki = Pki::new();
        pki.issue("node", &["127.0.0.1"], "node");
        let epmd = Epmd::start(release);
        for version in ["'tlsv1.2'", "'tlsv1.3'"] {
            let full = pki.optfile("full.conf", "node", version);
            // The server's list needs one; the client's has none.
            let text = std::fs::read_to_string(&full).unwrap();
            let (server, client) = text.split_once("{client, [").unwrap();
            let from = client.find("{cacertfile").unwrap();
            pki.write("bare.conf", &format!("{server}{{client, [{}", &client[from..]));
            let bare = pki.directory.join("bare.conf");

            let strict = rust(&epmd, "strict", &full);
            let beam = beam(release, &epmd, "bare", &bare);
            assert_eq!(beam.eval("net_adm:ping('strict@127.0.0.1')"), "pang");
            drop(strict);

            let lax_conf =
                pki.optfile_with("lax.conf", "node", "ca.pem", version, "{fail_if_no_peer_cert, false}");
            let lax = rust(&epmd, "lax", &lax_conf);
            assert_eq!(beam.eval("net_adm:ping('lax@127.0.0.1')"), "pong", "{}", beam.log());
            assert!(!lax.node.links()[0].peer().tls.as_ref().unwrap().peer_certificate);
            drop(lax);

            // This node without one.
            let rust = rust(&epmd, "rust", &bare);
            let error = tls_error(&rust, beam.name());
            assert!(matches!(&error, TlsError::Refused(_)), "{version}: {error}");
        }
        Ok(())
    });
}

#[test]
fn plain_and_tls_do_not_mix() {
    case(
        Case::Smoke,
        TOPIC,
        "TLS meets plain TCP, in all four directions: an error that says so, no connection",
        |release| {
            let pki = Pki::new();
            pki.issue("node", &["127.0.0.1"], "node");
            let optfile = pki.optfile("tls.conf", "node", "");
            let epmd = Epmd::start(release);
            let encrypted = beam(release, &epmd, "encrypted", &optfile);
            let plain =
                beam::Options::new(release, epmd.port, "plain").args("-kernel net_setuptime 1").start();

            let rust_plain = Rust::with(&epmd, "rp", |config| config.reconnect(Reconnect::Never));
            match connect(&rust_plain, encrypted.name()) {
                // OTP 23 sends no alert to a peer that does not speak TLS, and only closes.
                Err(
                    error @ ConnectError::Handshake {
                        error: Error::PeerIncompatible(PeerIncompatible::SpeaksTls) | Error::Closed(_),
                        ..
                    },
                ) => assert!(error.to_string().contains("TLS"), "{error}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(encrypted.eval("net_adm:ping('rp@127.0.0.1')"), "pang");

            let rust_tls = rust(&epmd, "rt", &optfile);
            // A plain node waits for the rest of what it takes for a long message.
            let error = tls_error(&rust_tls, plain.name());
            assert!(matches!(error, TlsError::NoAnswer | TlsError::PlainPeer), "{error:?}");
            assert!(
                error.to_string().contains("without TLS") || error.to_string().contains("plain TCP"),
                "{error}"
            );
            assert_eq!(plain.eval("net_adm:ping('rt@127.0.0.1')"), "pang");
            let error = tls_error(&rust_tls, "rp@127.0.0.1");
            assert_eq!(error, TlsError::NoAnswer);
            assert!(rust_tls.node.nodes(NodeType::Connected).is_empty());
            assert!(rust_plain.node.nodes(NodeType::Connected).is_empty());
            Ok(())
        },
    );
}

#[test]
fn an_allow_list_and_the_certificate() {
    case(
        Case::Full,
        TOPIC,
        "with an allow-list, a certificate lets in nodes of its own host only",
        |release| {
            let pki = Pki::new();
            pki.issue("here", &["127.0.0.1"], "here");
            pki.issue("other", &["other.example"], "other");
            let epmd = Epmd::start(release);
            let here = pki.optfile("here.conf", "here", "");
            let rust = rust_with(&epmd, "rust", &here, |mut config| {
                config.allow = vec!["a@127.0.0.1".into(), "b@127.0.0.1".into(), "x@other.example".into()];
                config
            });
            let a = beam(release, &epmd, "a", &here);
            let b = beam(release, &epmd, "b", &pki.optfile("other.conf", "other", ""));
            assert_eq!(a.eval("net_adm:ping('rust@127.0.0.1')"), "pong", "{}", a.log());
            assert_eq!(
                b.eval("net_adm:ping('rust@127.0.0.1')"),
                "pang",
                "its certificate is for another host"
            );
            assert_eq!(rust.node.nodes(NodeType::Hidden), ["a@127.0.0.1"]);
            Ok(())
        },
    );
}

#[test]
fn keys_are_changed() {
    case(Case::Full, TOPIC, "TLS 1.3: the peer changes its keys, and the connection goes on", |release| {
        let pki = Pki::new();
        pki.issue("node", &["127.0.0.1"], "node");
        let optfile = pki.optfile("tls.conf", "node", "'tlsv1.3'");
        let text = std::fs::read_to_string(&optfile).unwrap();
        pki.write(
            "often.conf",
            &text.replace("{verify, verify_peer}", "{verify, verify_peer}, {key_update_at, 100000}"),
        );
        let epmd = Epmd::start(release);
        let rust = rust(&epmd, "rust", &optfile);
        let beam = beam(release, &epmd, "beam", &pki.directory.join("often.conf"));
        assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong", "{}", beam.log());
        talk(&rust, &beam);
        Ok(())
    });
}

#[test]
fn a_peer_that_takes_nothing() {
    case(
        Case::Full,
        TOPIC,
        "a peer that takes nothing is waited for, and gets everything when it goes on",
        |release| {
            let pki = Pki::new();
            pki.issue("node", &["127.0.0.1"], "node");
            let optfile = pki.optfile("tls.conf", "node", "");
            let epmd = Epmd::start(release);
            let rust = rust(&epmd, "rust", &optfile);
            let beam = beam(release, &epmd, "beam", &optfile);
            connect(&rust, beam.name()).unwrap();
            beam.eval("Sum = fun Sum(0, S) -> S; Sum(N, S) -> receive {N, B} -> Sum(N - 1, S + byte_size(B)) end end");
            beam.pause();
            let sender = rust.node.process().unwrap();
            let name = beam.name().to_owned();
            let sent = std::thread::scope(|scope| {
                let sending = scope.spawn(|| {
                    rust.run(async {
                        for n in (1..=400_i64).rev() {
                            let message = Term::from((Term::Integer(n), Term::binary(&vec![1; 50_000])));
                            sender.send_term(("test", name.as_str()), &message).await.unwrap();
                        }
                    });
                });
                let link = rust.node.links().pop().unwrap();
                eventually_true("the queue is full", Duration::from_secs(10), || link.is_busy());
                beam.resume();
                sending.join()
            });
            sent.unwrap();
            assert_eq!(beam.eval("Sum(400, 0)"), "20000000");
            Ok(())
        },
    );
}

#[test]
fn two_rust_nodes() {
    let release = foundation_interop_tests::otp::installed();
    let pki = Pki::new();
    pki.issue("node", &["127.0.0.1"], "node");
    let optfile = pki.optfile("tls.conf", "node", "");
    let epmd = Epmd::start(release);
    let a = rust(&epmd, "a", &optfile);
    let b = rust(&epmd, "b", &optfile);
    let link = connect(&a, "b@127.0.0.1").unwrap();
    assert_eq!(link.peer().tls.as_ref().unwrap().version, "tlsv1.3");
    b.echo();
    let mut process = a.node.process().unwrap();
    let answer = a.run(async {
        let question = Term::from((Term::from(process.pid()), Term::binary(&vec![9; 1 << 20])));
        process.send_term(("echo", "b@127.0.0.1"), &question).await.unwrap();
        next_term(&mut process).await
    });
    assert_eq!(answer.as_tuple().unwrap()[1].as_binary().unwrap().len(), 1 << 20);
}

#[test]
fn options_that_do_not_do() {
    let release = foundation_interop_tests::otp::installed();
    let pki = Pki::new();
    pki.issue("node", &["127.0.0.1"], "node");
    let epmd = Epmd::start(release);
    let start = |optfile: &Path| {
        let config = NodeConfig::new("rust@127.0.0.1").cookie("c").epmd_port(epmd.port);
        let config = config.proto_dist(ProtoDist::InetTls).ssl_dist_optfile(optfile);
        crate::runtime().block_on(Node::start(config)).map(|_| ()).unwrap_err().to_string()
    };
    let optfile = pki.optfile("tls.conf", "node", "");
    let text = std::fs::read_to_string(&optfile).unwrap();
    for (from, to, word) in [
        ("{verify, verify_peer}", "{verify, verify_peer}, {password, \"x\"}", "password"),
        ("node.pem", "missing.pem", "missing.pem"),
        ("node.key", "ca.pem", "private key"),
        ("ca.pem", "node.key", "no certificate"),
        ("{server,", "{sevrer,", "must hold one list"),
    ] {
        pki.write("bad.conf", &text.replace(from, to));
        let error = start(&pki.directory.join("bad.conf"));
        assert!(error.contains(word), "{error}");
    }
    assert!(start(Path::new("/nonexistent.conf")).contains("cannot be read"));
}

#[test]
fn ipv6() {
    case(Case::Full, TOPIC, "TLS over IPv6 (inet6_tls), both sides dialling", |release| {
        let pki = Pki::new();
        pki.issue("node", &["::1"], "node");
        let optfile = pki.optfile("tls.conf", "node", "");
        let epmd = crate::inet6::epmd();
        let rust = crate::inet6::rust(epmd.port(), "rust", |config| {
            config.proto_dist(ProtoDist::Inet6Tls).ssl_dist_optfile(&optfile)
        });
        let beam =
            tls(beam::Options::new(release, epmd.port(), "beam").ipv6(), "inet6_tls", &optfile).start();
        assert_eq!(beam.eval("net_adm:ping('rust@::1')"), "pong", "{}", beam.log());
        assert!(rust.node.links()[0].peer().address.is_ipv6());
        rust.run(rust.node.disconnect(beam.name()));
        eventually_true("the BEAM has seen it", WAIT, || beam.eval("nodes(connected)") == "[]");
        assert!(connect(&rust, beam.name()).unwrap().peer().tls.is_some());
        Ok(())
    });
}

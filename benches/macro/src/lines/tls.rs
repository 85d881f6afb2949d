//! Distribution over TLS: mutual certificates, whatever version and cipher both sides prefer.

use std::path::PathBuf;

use foundation_interop_tests::work_dir;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{Request, Unit, head_of_line, set_up, throughput, tls_stage};
use crate::stage::Peer;
use crate::table::{Line, at_least};

pub(super) fn lines(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    let optfile = match optfile() {
        Ok(optfile) => optfile,
        Err(why) => {
            let line = Line::new("TLS", crate::placement::Placement::Unpinned, "");
            return show(line.with("certificates", move || Err(why.clone())));
        }
    };
    let stage = tls_stage(request, &optfile);
    for (size, title) in [
        (16, "TLS: 16-byte messages, 1 sender"),
        (64 << 10, "TLS: 64 KiB messages, 1 sender"),
        (1 << 20, "TLS: 1 MiB messages, 1 sender"),
    ] {
        let unit = if size < 1024 { Unit::Messages } else { Unit::Megabytes };
        let name = if size < 1024 { "messages/s" } else { "MB/s" };
        let mut line = Line::new(title, stage.placement, name);
        let pairs: [(&str, &dyn Peer, &dyn Peer); 4] = [
            ("BEAM→BEAM", &stage.beam, &stage.far_beam),
            ("Rust→BEAM", &stage.rust, &stage.far_beam),
            ("BEAM→Rust", &stage.beam, &stage.far_rust),
            ("Rust→Rust", &stage.rust, &stage.far_rust),
        ];
        for (name, from, to) in stage.with_others(pairs) {
            line = line.with(name, throughput("send", from, to, 1, size, request.millis, unit));
        }
        line =
            line.goal(at_least("Rust→BEAM", 1.0, "BEAM→BEAM")).goal(at_least("BEAM→Rust", 1.0, "BEAM→BEAM"));
        // What is to be ten times as fast is the encryption, which is what bounds large messages.
        show(if size < 1024 { line } else { line.goal(at_least("Rust→Rust", 10.0, "BEAM→BEAM")) });
    }
    show(set_up::line(request, &stage, &[], "TLS: connection set-up"));
    show(head_of_line::line(request, &stage, "TLS: echo every 1 ms beside 10 senders of 8 MiB messages"));
}

/// A file for `-ssl_dist_optfile`, with a CA and one certificate for both sides.
fn optfile() -> Result<PathBuf, String> {
    let why = |error: rcgen::Error| error.to_string();
    let directory = work_dir(&format!("tls/bench-{}", std::process::id()));
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).map(|()| path.display().to_string()).map_err(|error| error.to_string())
    };
    let mut params = CertificateParams::new(Vec::new()).map_err(why)?;
    params.distinguished_name.push(DnType::CommonName, "bench CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(why)?).map_err(why)?;
    let key = KeyPair::generate().map_err(why)?;
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).map_err(why)?;
    // OTP up to 25 wants the text of the address as a dNSName.
    params.subject_alt_names.push(rcgen::SanType::DnsName("127.0.0.1".try_into().map_err(why)?));
    let certificate = params.signed_by(&key, &ca).map_err(why)?;
    let both = format!(
        "{{cacertfile, {:?}}}, {{certfile, {:?}}}, {{keyfile, {:?}}}, {{verify, verify_peer}}",
        write("ca.pem", &ca.pem())?,
        write("node.pem", &certificate.pem())?,
        write("node.key", &key.serialize_pem())?,
    );
    let text = format!(
        "[{{server, [{both}, {{fail_if_no_peer_cert, true}}, {{secure_renegotiate, true}}]}},\n {{client, [{both}]}}].\n"
    );
    write("optfile", &text).map(PathBuf::from)
}

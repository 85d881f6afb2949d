use super::*;

/// Three certificates, `openssl req -x509 -newkey ed25519 -nodes` of OpenSSL 3.0 with
/// `-subj "/O=x/CN=Node.Example" -days 36500`, and the second and third with
/// `-addext subjectAltName=DNS:other.example,IP:192.0.2.7,IP:fdaa::7,email:a@b` and `-addext subjectAltName=email:a@b`.
const COMMON_NAME: &str = "\
    3082015d3082010fa0030201020214551d7207dc9ab60301034c7644a6d0e5e9575e43300506032b65703023310a3008\
    060355040a0c01783115301306035504030c0c4e6f64652e4578616d706c653020170d3236313132313136333031385a\
    180f32313236313032383136333031385a3023310a3008060355040a0c01783115301306035504030c0c4e6f64652e45\
    78616d706c65302a300506032b6570032100a30058f65278467e13540d988358cf18bb9f1847215195d3e7fa4fc7e765\
    5b35a3533051301d0603551d0e04160414f2a173af821a1de7eaa32d76d7cd745ef8e07c68301f0603551d2304183016\
    8014f2a173af821a1de7eaa32d76d7cd745ef8e07c68300f0603551d130101ff040530030101ff300506032b65700341\
    00bddc21b1d7c741a44a4e6c6184273fa986ffb702492580eb1a88d358e4feec5ee29b7988342bdc0ec572953213ad88\
    db02aa2e1f70873fabd5fb2c16b8adb40a";
const ALTERNATIVES: &str = "\
    3082019630820148a003020102021474538b0d545a0ace9ee1ba02c2e2b869e4038190300506032b65703023310a3008\
    060355040a0c01783115301306035504030c0c4e6f64652e4578616d706c653020170d3236313132313136333031385a\
    180f32313236313032383136333031385a3023310a3008060355040a0c01783115301306035504030c0c4e6f64652e45\
    78616d706c65302a300506032b657003210036cb40b9a7c8fbc5d0824f0a2b733aa91789504c55e1b95b02c82d56e56a\
    30a3a3818b308188301d0603551d0e041604147547f04ac829c670913e4861df304d50531c9064301f0603551d230418\
    301680147547f04ac829c670913e4861df304d50531c9064300f0603551d130101ff040530030101ff30350603551d11\
    042e302c820d6f746865722e6578616d706c658704c00002078710fdaa00000000000000000000000000078103614062\
    300506032b6570034100b20d90ff5aa5d4cc2c5f1c1b121e658f7f54beedd81a1c5248b240eb5fb5a85bfa0d394151f0\
    474525c7c8e271fe049e46b3c98c80295c7b2d1b5612e1054e0b";
const EMAIL: &str = "\
    3082016d3082011fa00302010202140235825daf8657b2fb0d3993d74640b832094518300506032b65703023310a3008\
    060355040a0c01783115301306035504030c0c4e6f64652e4578616d706c653020170d3236313132313136333031385a\
    180f32313236313032383136333031385a3023310a3008060355040a0c01783115301306035504030c0c4e6f64652e45\
    78616d706c65302a300506032b65700321006937c357ddb180722122c8790e8c07151e0e3a96129407d4dad28fda07d4\
    a132a3633061301d0603551d0e041604141227746af4b730872e29392aa45aef1af3064db0301f0603551d2304183016\
    80141227746af4b730872e29392aa45aef1af3064db0300f0603551d130101ff040530030101ff300e0603551d110407\
    30058103614062300506032b65700341007d20d4d6103f879f086c8e90fc49813ebba7a70d9136e892336d9812893e5c\
    730109920236ec9f2d2fe66c1e07b8f01d9021176f2e7b1bbca9820bc1afece409";

fn der(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn the_names_of_a_certificate() {
    let check = |hex: &str, hosts: &[&str]| {
        let der = der(hex);
        let names = CertificateNames::parse(&der).unwrap();
        assert_eq!(names.issuer, names.subject);
        let asked = [
            "node.example",
            "NODE.EXAMPLE",
            "other.example",
            "x.other.example",
            "192.0.2.7",
            "192.0.2.8",
            "fdaa::7",
            "fdaa:0::7",
            "a@b",
            "",
        ];
        let yes: Vec<&str> = asked.into_iter().filter(|host| names.is_for(host)).collect();
        assert_eq!(yes, hosts);
    };
    check(COMMON_NAME, &["node.example", "NODE.EXAMPLE"]);
    check(ALTERNATIVES, &["other.example", "192.0.2.7", "fdaa::7", "fdaa:0::7"]);
    check(EMAIL, &[]);
}

#[test]
fn what_is_no_certificate_has_no_names_and_does_no_harm() {
    for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00", &[0x30; 64]] {
        assert_eq!(CertificateNames::parse(bytes), None, "{bytes:?}");
    }
    let whole = der(ALTERNATIVES);
    for at in 0..whole.len() {
        let _ = CertificateNames::parse(&whole[..at]);
        for value in [0, 0x7f, 0x80, 0x84, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            let _ = CertificateNames::parse(&changed).map(|names| names.is_for("other.example"));
        }
    }
}

//! The fuzz targets on stable Rust: seeds, and seeded mutations of them.
//!
//! `FUZZ_EXECUTIONS` sets the number of mutations for each target, `FUZZ_SEED` where they start. A failure prints the bytes
//! that led to it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use foundation_proto::fuzzing;

use crate::golden;

/// Mutations for each target, unless the environment says otherwise: a second or two for all of them.
const EXECUTIONS: u64 = 20_000;

/// A generator of pseudo-random numbers (SplitMix64), so that a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[allow(clippy::disallowed_methods, reason = "a test run is configured by its environment")]
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs `target` on each seed and on mutations of them.
fn fuzz(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    let mut random = Random(number("FUZZ_SEED", 1));
    let run = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("failing input: {hex}");
            resume_unwind(panic);
        }
    };
    keep(seeds);
    run(&[]);
    for seed in seeds {
        run(seed);
    }
    for _ in 0..number("FUZZ_EXECUTIONS", EXECUTIONS) {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut input, seeds);
        }
        run(&input);
    }
}

/// Leaves the seeds as the first corpus of the target of the same name, if `FUZZ_CORPUS` says where.
#[allow(clippy::disallowed_methods, reason = "a test run is configured by its environment")]
fn keep(seeds: &[Vec<u8>]) {
    let Ok(corpus) = std::env::var("FUZZ_CORPUS") else { return };
    let thread = std::thread::current();
    let target = thread.name().and_then(|name| name.rsplit("::").next()).expect("the name of the test");
    let dir = std::path::Path::new(&corpus).join(target);
    std::fs::create_dir_all(&dir).unwrap();
    for (index, seed) in seeds.iter().enumerate() {
        std::fs::write(dir.join(format!("recorded-{index}")), seed).unwrap();
    }
}

fn mutate(random: &mut Random, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    match random.below(8) {
        0 => input.truncate(at),
        1 => input.insert(at, random.next() as u8),
        2 if at < input.len() => drop(input.remove(at)),
        3 if at < input.len() => input[at] ^= 1 << random.below(8),
        4 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        5 if at < input.len() => input[at] = random.next() as u8,
        6 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let end = (at + random.below(16)).min(input.len());
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

const CHALLENGE: &str = "0020 4e 0000006d07df7fbd e879547e 6b00bdc9 000d 6e3239403132372e302e302e31";
const ACK: &str = "0011 61 c35630963d74174b86c99e9115d4b929";

#[test]
fn handshake_initiator() {
    let seeds = [
        // Established: ok, and alive answered with true.
        format!("00 0003 73 6f6b {CHALLENGE} {ACK} 00000000"),
        format!("08 0006 73 616c697665 {CHALLENGE} {ACK} 00000000"),
        "00 0006 73 616c697665".to_owned(),
        format!("00 0010 73 6f6b5f73696d756c74616e656f7573 {CHALLENGE} {ACK}"),
        format!("00 0004 73 6e6f6b {CHALLENGE}"),
        "00 000c 73 6e6f745f616c6c6f776564".to_owned(),
        format!(
            "01 0024 73 6e616d65643a 0017 315450314b4d4444504b335959403132372e302e302e31 ae4743b9 {CHALLENGE} {ACK}"
        ),
        format!("02 00000003 73 6f6b 0000{CHALLENGE} 0000{ACK}"),
        "00 1603 0102 0001".to_owned(),
    ];
    fuzz(fuzzing::fuzz_handshake_initiator, &seeds.map(|seed| hex(&seed)));
}

#[test]
fn handshake_acceptor() {
    let name = "001b 4e 0000006d07df7fbc 11223344 000c 7079403132372e302e302e31";
    let reply = "0015 72 4468971e fcea1f89ed9efb170ee288dfbd430ef2";
    let seeds = [
        format!("70 {name} {reply} 00000000"),
        format!("30 {name} 0005 73 74727565 {reply} 00000000"),
        format!("30 {name} 0006 73 66616c7365"),
        format!("20 {name} {reply}"),
        format!("00 {name}"),
        format!("10 {name}"),
        format!("70 0018 4e 0000006f07df7fbc 00000000 0009 3132372e302e302e31 {reply}"),
        format!(
            "70 0017 6e 0005 01df7fbd 6e6f65706d64403132372e302e302e31 0009 63 00000001 eb726790 {reply}"
        ),
        format!("72 0000{name} 0000{reply}"),
        "70 1603 0102 0001".to_owned(),
    ];
    fuzz(fuzzing::fuzz_handshake_acceptor, &seeds.map(|seed| hex(&seed)));
}

/// The first frames of recorded connections, after an honest handshake, in each form of frames; and handshakes themselves.
#[test]
fn connection() {
    let mut seeds = vec![hex(&format!("01 0003 73 6f6b {CHALLENGE} {ACK}")), vec![0]];
    for release in golden::RELEASES {
        for file in ["connection-hidden.txt", "connection-visible.txt"] {
            let frames = golden::direction(&golden::read(release, file), '>');
            let mut seed = vec![0];
            for frame in frames.iter().skip(2).filter(|frame| frame.len() < 400).take(5) {
                seed.extend_from_slice(&(frame.len() as u32).to_be_bytes());
                seed.extend_from_slice(frame);
            }
            for choice in [2, 3, 2 | 4, 2 | 4 | 8, 2 | 16 | 32] {
                seed[0] = choice;
                seeds.push(seed.clone());
            }
        }
    }
    fuzz(fuzzing::fuzz_connection, &seeds);
}

#[test]
fn epmd_request() {
    let seeds = [
        "0012 789c414d0000060005000572757374790000",
        "0018 789c464800000600050004657874720007010268656c6c6f",
        "0006 7a7275737479",
        "0001 6e",
        "0001 64",
        "0001 6b",
        "0006 737275737479",
        "789c414d0000060005000572757374790000",
        "7a7275737479",
        "737275737479",
    ];
    fuzz(fuzzing::fuzz_epmd_request, &seeds.map(hex));
}

#[test]
fn epmd_response() {
    let seeds = [
        hex("76006b00bda3"),
        hex("79000003"),
        hex("77009c414d0000060005000572757374790000"),
        hex("77009c464800000600050004657874720007010268656c6c6f"),
        hex("7701"),
        [&hex("00005f31")[..], b"name extr at port 40006\nname old5 at port 40005\n"].concat(),
    ];
    fuzz(fuzzing::fuzz_epmd_response, &seeds);
}

#[test]
fn epmd_server() {
    let mut seeds = Vec::new();
    for release in golden::RELEASES {
        for request in golden::direction(&golden::read(release, "epmd.txt"), '>') {
            // Connects, sends the request, and a second client does the same.
            let length = u8::try_from(request.len()).unwrap();
            seeds.push(
                [&[0x00, 0, 0x04, length], &request[..], &[0x10, 0, 0x14, length], &request[..]].concat(),
            );
        }
    }
    fuzz(fuzzing::fuzz_epmd_server, &seeds);
}

#[test]
fn text() {
    let mut seeds = Vec::new();
    for release in golden::RELEASES {
        let printed = golden::read(release, "printed.tsv");
        let texts = golden::rows(&printed).flat_map(|row| [row[1], row[2]]);
        seeds.extend(texts.map(|text| golden::unescape(text).into_bytes()).filter(|text| text.len() < 500));
    }
    fuzz(fuzzing::fuzz_text, &seeds);
}

#[test]
fn elixir_text() {
    let seeds = [
        r#"[:a, :"b c", nil, true, Foo.Bar, 'x', ~c"y", "z\n\u00e9", ?a, -0x1F, 1_000, 1.5e-3]"#,
        r#"%{:a => {1, [2 | 3]}, "k" => %Foo{a: 1, b?: []}}"#,
        r#"{:a, b: 1, "c d": <<1, 2::4, "e"::utf16, 1.5::float-32, 3::size(3)-unit(2)-little>>}"#,
        r#"~w(a b)a ++ ~w[c d]c # comment"#,
        r#"[&String.length/1, &:lists.map/2]"#,
        r#":lists.seq(1, 5)"#,
        r#"Foo.Bar.baz?("x", [a: 1], b: 2)"#,
    ];
    fuzz(fuzzing::fuzz_elixir_text, &seeds.map(|seed| seed.as_bytes().to_vec()));
}

#[test]
fn print() {
    let mut seeds = Vec::new();
    for release in golden::RELEASES {
        let encodings = golden::read(release, "encodings.tsv");
        seeds.extend(
            golden::rows(&encodings).map(|row| golden::bytes(row[2])).filter(|term| term.len() < 500),
        );
    }
    fuzz(fuzzing::fuzz_print, &seeds);
}

#[test]
fn term() {
    let mut seeds = Vec::new();
    for release in golden::RELEASES {
        let encodings = golden::read(release, "encodings.tsv");
        seeds.extend(
            golden::rows(&encodings).map(|row| golden::bytes(row[2])).filter(|bytes| bytes.len() < 2000),
        );
    }
    fuzz(fuzzing::fuzz_term, &seeds);
}

/// The frames that the initiator sent on each recorded connection, without the longest.
fn frames() -> Vec<Vec<Vec<u8>>> {
    let frames = golden::RELEASES.map(|release| {
        let text = golden::read(release, "connection-hidden.txt");
        let recorded = golden::direction(&text, '>').into_iter().skip(2);
        recorded.filter(|frame| frame.len() < 1000).collect()
    });
    frames.into()
}

/// A frame with its length in front.
fn framed(data: &[u8]) -> Vec<u8> {
    [&u32::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
}

#[test]
fn inbound() {
    let mut seeds = Vec::new();
    for connection in frames() {
        let frames: Vec<Vec<u8>> = connection.iter().map(|frame| framed(frame)).collect();
        for count in [2, 3, 4, 7] {
            seeds.push([&[0][..], &frames[..count].concat()].concat());
        }
        // Signals that need no atom of a header: without an atom cache, as fragments, in pass-through mode.
        for frame in connection.iter().filter(|frame| frame[..3] == [131, 68, 0]) {
            let terms = &frame[3..];
            seeds.push([&[1][..], &framed(frame), &[0; 4], &framed(frame)].concat());
            let fragment = |kind, number, rest: &[u8]| {
                framed(&[&[131, kind, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, number], rest].concat())
            };
            let (head, tail) = terms.split_at(terms.len() - 10);
            let first = fragment(69, 2, &[&[0][..], head].concat());
            seeds.push([&[1][..], &first, &framed(frame), &fragment(70, 1, tail)].concat());
            seeds.push([&[3][..], &framed(&[&[112, 131], terms].concat())].concat());
        }
    }
    fuzz(fuzzing::fuzz_inbound, &seeds);
}

#[test]
fn header() {
    let mut seeds = Vec::new();
    for connection in frames() {
        let frames: Vec<Vec<u8>> = connection
            .iter()
            .map(|frame| [&u16::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat())
            .collect();
        seeds.extend([2, 4, 8, 16, frames.len()].map(|count| frames[..count].concat()));
    }
    fuzz(fuzzing::fuzz_header, &seeds);
}

#[test]
fn fragment() {
    let seeds = [
        // Two sequences that interleave, a whole message, one in 40 parts.
        hex("0b0310 0c0220 030210 040120 030110 0d0105"),
        (1..=40).rev().flat_map(|number| [if number == 40 { 0x0a } else { 2 }, number, 3]).collect(),
        hex("0b2801 0c2802 0d2803 0e0201"),
        hex("080101 080200"),
    ];
    fuzz(fuzzing::fuzz_fragment, &seeds);
}

#[test]
fn control() {
    let ours = "58770b61403132372e302e302e31000000570000000000000001";
    let theirs = "58770b62403132372e302e302e31000000580000000000000001";
    let reference = "5a0003770b61403132372e302e302e3100000001000000010000000200000003";
    let back = "5a0003770b62403132372e302e302e3100000001000000010000000200000003";
    let token = format!("680561006111610{}{ours}6100", 1);
    let seeds = [
        "6803611658520000000057000000000000000158520100000058000000000000000 1ff".to_owned(),
        "6804610658520000000057000000000000000177005202".to_owned(),
        format!("68036101{ours}{theirs}"),
        format!("680361027700{theirs}"),
        format!("68046103{ours}{theirs}770162"),
        format!("68036104{ours}{theirs}"),
        format!("68046106{ours}7700770162"),
        format!("68036107{ours}{theirs}"),
        format!("68046108{ours}{theirs}770162"),
        format!("6805610d{ours}{theirs}{token}770162"),
        format!("68046113{ours}{theirs}{reference}"),
        format!("68046114{ours}7703726578{reference}"),
        format!("68056115{ours}{theirs}{back}770162"),
        format!("68036116{ours}{theirs}"),
        format!("68046117{ours}{theirs}{token}"),
        format!("68036118{ours}{theirs}"),
        format!("6803611a{ours}{theirs}"),
        format!("6804611c7703726578{theirs}{back}"),
        format!("6806611d{reference}{ours}{theirs}6803770161770162610 16c0000000177046c696e6b6a"),
        format!("6805611f{back}{theirs}6103{ours}"),
        format!("6805611f{back}{theirs}610077066e6f74737570"),
        format!("68036121{ours}{back}"),
        format!("680461236e080005000000000000 80{ours}{theirs}"),
        format!("6804612461ff{ours}{theirs}"),
        format!("680461256101{ours}{theirs}"),
        format!("680561256106{ours}{back}{token}"),
        format!("680461256109{ours}7703726578"),
        format!("680461256111{ours}{theirs}"),
    ];
    fuzz(fuzzing::fuzz_control, &seeds.map(|seed| hex(&seed)));
}

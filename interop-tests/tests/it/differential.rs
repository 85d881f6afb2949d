//! OTP judges the codec: terms that it generated are read and written by this side and compared by OTP; and bytes
//! that are no longer a term are refused by both or accepted by both.

use foundation_cluster::sim::Random;
use foundation_interop_tests::{Beam, Case, Epmd, case};
use foundation_proto::Limits;
use foundation_proto::etf::{decode, encode};

const TOPIC: &str = "terms";

/// The pieces of `<<Length:32, Bytes/binary>>…`.
fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (piece, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Hands bytes to the node through a file: an expression is no place for megabytes.
fn give(node: &Beam, variable: &str, bytes: &[u8]) {
    let file = foundation_interop_tests::work_dir("differential").join(format!(
        "{}-{}",
        std::process::id(),
        node.pid()
    ));
    std::fs::write(&file, bytes).unwrap();
    node.eval(&format!("{variable} = element(2, {{ok, _}} = file:read_file(\"{}\")), ok", file.display()));
    std::fs::remove_file(&file).unwrap();
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn generated_terms_come_back_equal() {
    case(
        Case::Smoke,
        TOPIC,
        "generated terms in every encoding option, read and written here, are the same terms to OTP",
        |release| {
            let epmd = Epmd::start(release);
            let node = Beam::visible(release, &epmd, "judge");
            let seed = number("FOUNDATION_SEED", 1);
            let batches = number("FOUNDATION_TERMS", 10_000).div_ceil(5_000);
            for batch in 0..batches {
                let call = format!("{}, 5000", seed + batch);
                let sent = node.eval_bytes(&format!("foundation_generate:batch({call})"));
                let mut back = Vec::new();
                for piece in pieces(&sent) {
                    let term = decode(piece, &Limits::default())
                        .unwrap_or_else(|error| panic!("{error}: {piece:02x?}"));
                    let mut bytes = Vec::new();
                    encode(&term, &mut bytes).unwrap();
                    back.extend((bytes.len() as u32).to_be_bytes());
                    back.extend(bytes);
                }
                give(&node, &format!("Back{batch}"), &back);
                assert_eq!(
                    node.eval(&format!("foundation_generate:compare({call}, Back{batch})")),
                    "{0,none}"
                );
            }
            println!("OTP {}: {} terms, seed {seed}", release.number, batches * 5_000);
            Ok(())
        },
    );
}

#[test]
fn mutated_bytes_are_judged_alike() {
    case(Case::Smoke, TOPIC, "mutated encodings are accepted or refused as binary_to_term does", |release| {
        let epmd = Epmd::start(release);
        let node = Beam::visible(release, &epmd, "judge");
        let originals = node.eval_bytes("foundation_generate:batch(7, 400)");
        let mut random = Random::new(number("FOUNDATION_SEED", 1) as u64);
        let mut random = || random.next_u64();
        let mut mutants: Vec<Vec<u8>> = Vec::new();
        for original in pieces(&originals) {
            for _ in 0..5 {
                let mut mutant = original.to_vec();
                for _ in 0..=random() % 3 {
                    let at = random() as usize % mutant.len();
                    match random() % 4 {
                        0 => mutant[at] ^= 1 << (random() % 8),
                        1 => mutant[at] = random() as u8,
                        2 => mutant.truncate(at.max(1)),
                        _ => mutant.insert(at, random() as u8),
                    }
                }
                mutants.push(mutant);
            }
        }
        let all: Vec<u8> =
            mutants.iter().flat_map(|m| [&(m.len() as u32).to_be_bytes()[..], m].concat()).collect();
        give(&node, "Mutants", &all);
        let verdicts = node.eval_bytes(
            "Judge = fun Judge(<<N:32, B:N/binary, Rest/binary>>) -> \
               [try binary_to_term(B), 1 catch _:_ -> 0 end | Judge(Rest)]; Judge(<<>>) -> [] end, \
             list_to_binary(Judge(Mutants))",
        );
        let ours = |mutant: &[u8]| decode(mutant, &Limits::default()).is_ok();
        let is_local = |mutant: &[u8]| {
            decode(mutant, &Limits::default()).is_ok_and(|term| format!("{term:?}").contains("#Local<"))
        };
        let differences: Vec<String> = mutants
            .iter()
            .zip(&verdicts)
            .filter(|(mutant, verdict)| ours(mutant) != (**verdict == 1))
            // OTP lets through what stands for an atom in its own memory (ATOM_INTERNAL_REF2 and 3), which no node sends.
            .filter(|(mutant, verdict)| **verdict == 0 || !mutant.iter().any(|byte| [73, 75].contains(byte)))
            // A LOCAL_EXT term is refused by whom it is not from; here it is kept unread, see `Tape::parse`.
            .filter(|(mutant, verdict)| **verdict == 1 || !is_local(mutant))
            .map(|(mutant, verdict)| {
                let hex: String = mutant.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("OTP {}: {hex}", if *verdict == 1 { "accepts" } else { "refuses" })
            })
            .collect();
        let accepted = verdicts.iter().filter(|verdict| **verdict == 1).count();
        println!("OTP {}: {} mutants, {accepted} accepted by OTP", release.number, mutants.len());
        assert!(
            differences.is_empty(),
            "{} of {}:\n{}",
            differences.len(),
            mutants.len(),
            differences[..differences.len().min(20)].join("\n")
        );
        Ok(())
    });
}

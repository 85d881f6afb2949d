use super::*;
use crate::Limits;
use crate::etf::{Tape, decode, encode_term};

/// `term_to_binary` of OTP 27 without the version byte, `phash2(T)` and `phash2(T, 1 bsl 32)`.
const VECTORS: &[(&[u8], u32, u32)] = &[
    (b"w\x01a", 97, 97),
    (b"w\x00", 0, 0),
    (b"w\x04true", 506_293, 506_293),
    (b"a\x00", 88_723_725, 3_175_731_469),
    (b"a\x01", 2_614_250, 539_485_162),
    (b"b\xff\xff\xff\xff", 44_071_773, 1_117_813_597),
    (b"b\x08\x00\x00\x00", 12_354_923, 2_562_491_755),
    (b"b\xf8\x00\x00\x00", 69_672_967, 874_979_335),
    (b"b\xf7\xff\xff\xff", 76_739_502, 1_418_916_782),
    (b"n\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", 103_122_609, 2_519_041_713),
    (b"n\x09\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01", 13_457_787, 2_563_594_619),
    (b"F\x3f\xf0\x00\x00\x00\x00\x00\x00", 77_147_068, 3_029_937_084),
    (b"F\x80\x00\x00\x00\x00\x00\x00\x00", 20_875_736, 423_528_920),
    (b"w\x06\xc3\xa5\xc3\xa4\xc3\xb6", 62_518, 62_518),
    (b"s\x03\xe5\xe4\xf6", 62_518, 62_518),
    (b"w\x03\xe2\x82\xac", 60_108, 60_108),
    (b"j", 113_427_502, 3_468_870_702),
    (b"k\x00\x01\x01", 84_609_158, 2_768_963_718),
    (b"k\x00\x05\x01\x02\x03\x04\x05", 66_056_394, 3_824_152_778),
    (b"k\x00\x05hello", 81_920_127, 753_008_767),
    (b"m\x00\x00\x00\x00", 13_708_901, 147_926_629),
    (b"m\x00\x00\x00\x05hello", 47_480_723, 1_658_093_459),
    (b"M\x00\x00\x00\x01\x03\xa0", 133_543_196, 3_354_768_668),
    (b"h\x00", 87_486_268, 221_703_996),
    (b"h\x02w\x01aa\x01", 72_425_156, 4_098_956_996),
    (b"t\x00\x00\x00\x00", 39_679_005, 844_985_373),
    (b"t\x00\x00\x00\x01w\x01aa\x01", 59_617_982, 1_401_795_262),
    (b"t\x00\x00\x00\x02a\x01a\x02a\x03a\x04", 101_230_890, 3_188_238_634),
    (b"l\x00\x00\x00\x02w\x01al\x00\x00\x00\x01m\x00\x00\x00\x01xjj", 11_451_668, 1_890_499_860),
    (b"l\x00\x00\x00\x01a\x01a\x02", 86_124_794, 3_844_221_178),
    (b"C\x00\x00\x00\x02\x01w\x03dtrw\x02ptw\x01xw\x01ya\x05w\x05hello", 11_831_828, 2_159_315_476),
];

#[test]
fn the_numbers_of_otp() {
    let mut tape = Tape::new();
    for (bytes, small, all) in VECTORS {
        let view = tape.parse(bytes, &[], &Limits::default()).unwrap();
        let term = view.to_term();
        assert_eq!((phash2(&term), full(&term)), (*small, *all), "{term:?}");
        assert_eq!((view.phash2(), full(view)), (*small, *all), "{view:?}");
        assert_eq!(phash2_range(&term, 1 << 32), Some(*all));
        assert_eq!(phash2_range(&term, 10), Some(all % 10));
    }
    let term = decode(b"\x83j", &Limits::default()).unwrap();
    assert_eq!(phash2_range(&term, 0), None);
    assert_eq!(phash2_range(&term, (1 << 32) + 1), None);
}

/// More numbers from OTP 23 to 29, for what the vectors above do not reach.
#[test]
fn long_binaries_large_maps_and_identifiers() {
    let cases: Vec<(Term, u32)> = vec![
        ("hello world!".into(), 965_223_795),
        ("hello world!x".into(), 1_871_732_765),
        ((1i128 << 32).into(), 2_108_323_275),
        ((-0x0800_0000_0000_0000i64).into(), 2_316_875_190),
        (((1u128 << 127) as i128).into(), full(&Term::from(i128::MIN))),
        ((-(1i128 << 70)).into(), 4_181_281_985),
        (Term::Float(-3.25e10), 1_283_575_435),
        (Term::bits(vec![1, 2, 5 << 5].into(), 3).unwrap(), 3_252_846_376),
        (Term::list([1.into(), Term::atom("a"), 2.into()]), 2_452_592_867),
        (Term::list([256.into(), 1.into()]), 514_113_909),
        (Term::tuple([Term::binary(&[1, 2, 3, 4]), Term::binary(&[5, 6, 7, 8])]), 784_488_544),
        (Term::Map((1..=40).map(|n| (n.into(), n.into())).collect()), 2_202_532_150),
        (pid(40_000), 4_233_486_140),
        (crate::etf::Reference::new("a@b".try_into().unwrap(), 1, &[5, 6, 7]).unwrap().into(), 962_821_904),
        (
            (Term::atom("member"), (Term::atom("Elixir.Reg"), Term::atom("b1@127.0.0.1"))).into(),
            2_458_164_942,
        ),
    ];
    for (term, all) in cases {
        assert_eq!(full(&term), all, "{term:?}");
        let mut bytes = Vec::new();
        encode_term(&term, &mut bytes).unwrap();
        assert_eq!(
            full(Tape::new().parse(&bytes, &[], &Limits::default()).unwrap()),
            all,
            "view of {term:?}"
        );
    }
    assert_eq!(phash2_range(&"lobby".into(), 8), Some(5));
}

fn pid(id: u32) -> Term {
    crate::etf::Pid { node: "a@b".try_into().unwrap(), id, serial: 7, creation: 9 }.into()
}

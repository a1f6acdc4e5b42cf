use proptest::prelude::*;

use super::*;

/// Bytes, and the lines that they hold.
type Case<'a> = (&'a [u8], &'a [(i64, &'a str)]);

const CSV: Form = Form::csv(b',');

/// All frames, from bytes that come `step` at a time.
fn frames(form: Form, max_bytes: usize, bytes: &[u8], step: usize) -> Vec<Frame> {
    let mut framer = Framer::new(form, max_bytes, 0, 0);
    let mut all = Vec::new();
    for part in bytes.chunks(step) {
        framer.buffer().extend_from_slice(part);
        while let Some(frame) = framer.next(false) {
            all.push(frame);
        }
    }
    while let Some(frame) = framer.next(true) {
        all.push(frame);
    }
    all
}

/// Frames as (line, value), in pieces of any size.
fn check(form: Form, bytes: &[u8], expected: &[(i64, &str)]) {
    for step in [1, 2, 3, 5, 1000] {
        let got = frames(form, 1000, bytes, step);
        let got: Vec<_> = got.iter().map(|f| (f.line, std::str::from_utf8(&f.value).unwrap())).collect();
        assert_eq!(got, expected, "{:?} by {step}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn json_lines() {
    let cases: &[Case] = &[
        (b"", &[]),
        (b"\n\n", &[]),
        (b"a\nb\n", &[(0, "a"), (1, "b")]),
        (b"a\r\nb", &[(0, "a"), (1, "b")]),
        (b"a\n  \r\n\nb\n\n", &[(0, "a"), (3, "b")]),
        (b"\xef\xbb\xbfa\nb", &[(0, "a"), (1, "b")]),
        (b"\xef\xbb\xbf", &[]),
        (b"\"a\nb\"", &[(0, "\"a"), (1, "b\"")]),
        (b"a\rb\n", &[(0, "a\rb")]),
    ];
    for (bytes, expected) in cases {
        check(Form::JsonLines, bytes, expected);
    }
}

#[test]
fn rows() {
    let cases: &[Case] = &[
        (b"a,b\n1,2\n", &[(0, "a,b"), (1, "1,2")]),
        (b"\"a\nb\",c\nd", &[(0, "\"a\nb\",c"), (2, "d")]),
        (b"x,\"a\"\"\r\n\",c\r\n\r\nd\r\n", &[(0, "x,\"a\"\"\r\n\",c"), (3, "d")]),
        // A quote within a field that does not begin with one is a character.
        (b"5\" pipe,\"x\ny\"\nz\n", &[(0, "5\" pipe,\"x\ny\""), (2, "z")]),
        (b"5\" pipe\nz\n", &[(0, "5\" pipe"), (1, "z")]),
        (b"\"open\nto the end\n", &[(0, "\"open\nto the end\n")]),
        (b"\xef\xbb\xbf\"a\",b\n", &[(0, "\"a\",b")]),
    ];
    for (bytes, expected) in cases {
        check(CSV, bytes, expected);
    }
}

#[test]
fn a_dialect_has_its_own_quotes() {
    let form = Form::Csv { delimiter: b';', quote: b'\'' };
    check(form, b"a;'x\ny';\"\nb;''''\n", &[(0, "a;'x\ny';\""), (2, "b;''''")]);
    check(CSV, b"a;'x\ny\n", &[(0, "a;'x"), (1, "y")]);
}

#[test]
fn a_large_row_is_cut() {
    let long = "x".repeat(50);
    let quoted = format!("1,\"{long}\n{long}\"\nb\n");
    let plain = format!("{long}\nb\n");
    for (form, text, n_bytes, line) in [(CSV, &quoted, 105, 2), (Form::JsonLines, &plain, 50, 1)] {
        for step in [1, 7, 1000] {
            let got = frames(form, 8, text.as_bytes(), step);
            assert_eq!(got.len(), 2, "{got:?}");
            assert_eq!(got[0].cut_from, Some(n_bytes), "by {step}");
            assert_eq!(&got[0].value[..], &text.as_bytes()[..8]);
            assert_eq!((got[1].line, &got[1].value[..], got[1].cut_from), (line, &b"b"[..], None));
            assert_eq!(got[1].end, text.len() as u64);
        }
    }
}

/// However much of it was thrown away when its end comes.
#[test]
fn a_row_that_is_never_closed_has_its_line_breaks() {
    let text = b"a\n\"b\n\nc\n\n";
    for (max_bytes, step) in [(1, 1), (1, 1000), (3, 2), (3, 1000), (7, 1), (100, 1000)] {
        let got = frames(CSV, max_bytes, text, step);
        let cut_from = (max_bytes < 7).then_some(7);
        assert_eq!(
            (got[1].cut_from, got[1].line, got[1].next_line),
            (cut_from, 1, 6),
            "{max_bytes} by {step}"
        );
        let mut framer = Framer::new(CSV, max_bytes, 2, 1);
        framer.buffer().extend_from_slice(&text[2..]);
        assert_eq!(framer.next(true).as_ref(), Some(&got[1]));
    }
}

#[test]
fn a_row_of_exactly_the_bound_is_whole() {
    for step in [1, 3, 100] {
        let got = frames(Form::JsonLines, 4, b"abcd\r\nabcde\r\n", step);
        let got: Vec<_> = got.iter().map(|frame| (&frame.value[..], frame.cut_from)).collect();
        assert_eq!(got, [(&b"abcd"[..], None), (&b"abcd"[..], Some(5))], "by {step}");
    }
}

proptest! {
    /// However the bytes come, and wherever reading begins anew, the frames are the same.
    #[test]
    fn pieces_do_not_matter(text in "[ab,\"\r\n]{0,60}", step in 1usize..9, csv: bool, max_bytes in 1usize..20, from in 0usize..20) {
        let form = if csv { CSV } else { Form::JsonLines };
        let whole = frames(form, max_bytes, text.as_bytes(), 1000);
        let pieces = frames(form, max_bytes, text.as_bytes(), step);
        prop_assert_eq!(&whole, &pieces);
        if let Some(frame) = whole.get(from) {
            let mut framer = Framer::new(form, max_bytes, frame.end, frame.next_line);
            framer.buffer().extend_from_slice(&text.as_bytes()[frame.end as usize..]);
            let rest: Vec<_> = std::iter::from_fn(|| framer.next(true)).collect();
            prop_assert_eq!(&rest[..], &whole[from + 1..]);
        }
        prop_assert!(whole.windows(2).all(|pair| pair[0].line < pair[1].line));
    }
}

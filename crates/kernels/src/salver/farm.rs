//! FarmHash's 64-bit fingerprint, which never changes (`Fingerprint64` of Google's FarmHash).
//!
//! The crate `farmhash` 1.1 differs from it for lengths that are multiples of 64.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;

/// Eight bytes at a position that the caller knows to be inside.
fn word(text: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&text[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn half_word(text: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&text[at..at + 4]);
    u64::from(u32::from_le_bytes(bytes))
}

fn mix(value: u64) -> u64 {
    value ^ value >> 47
}

fn add(values: &[u64]) -> u64 {
    values.iter().fold(0, |sum, &value| sum.wrapping_add(value))
}

/// Two words to one.
fn join(u: u64, v: u64, by: u64) -> u64 {
    let a = mix((u ^ v).wrapping_mul(by));
    mix((v ^ a).wrapping_mul(by)).wrapping_mul(by)
}

/// The fingerprint of a text.
pub(super) fn fingerprint(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    let by = K2.wrapping_add(len.wrapping_mul(2));
    match text.len() {
        0 => K2,
        1..4 => {
            let [first, middle, last] = [0, text.len() / 2, text.len() - 1].map(|at| u64::from(text[at]));
            let (y, z) = (first + (middle << 8), len + (last << 2));
            mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
        }
        4..8 => join(add(&[len, half_word(text, 0) << 3]), half_word(text, text.len() - 4), by),
        8..17 => {
            let a = add(&[word(text, 0), K2]);
            let b = word(text, text.len() - 8);
            let c = add(&[b.rotate_right(37).wrapping_mul(by), a]);
            let d = add(&[a.rotate_right(25), b]).wrapping_mul(by);
            join(c, d, by)
        }
        17..33 => {
            let a = word(text, 0).wrapping_mul(K1);
            ends(text, a, by).1
        }
        33..65 => {
            let a = word(text, 0).wrapping_mul(K2);
            let (y, z) = ends(text, a, by);
            let n = text.len();
            let e = word(text, 16).wrapping_mul(by);
            let f = word(text, 24);
            let g = add(&[y, word(text, n - 32)]).wrapping_mul(by);
            let h = add(&[z, word(text, n - 24)]).wrapping_mul(by);
            let u = add(&[add(&[e, f]).rotate_right(43), g.rotate_right(30), h]);
            let v = add(&[e, add(&[f, a]).rotate_right(18), g]);
            join(u, v, by)
        }
        _ => long(text),
    }
}

/// Both ends of a text of more than 16 bytes: a sum and a hash.
fn ends(text: &[u8], a: u64, by: u64) -> (u64, u64) {
    let n = text.len();
    let b = word(text, 8);
    let c = word(text, n - 8).wrapping_mul(by);
    let d = word(text, n - 16).wrapping_mul(K2);
    let sum = add(&[add(&[a, b]).rotate_right(43), c.rotate_right(30), d]);
    (sum, join(sum, add(&[a, add(&[b, K2]).rotate_right(18), c]), by))
}

/// 32 bytes into a pair of words.
fn weak(text: &[u8], a: u64, b: u64) -> (u64, u64) {
    let [w, x, y, z] = [0, 8, 16, 24].map(|at| word(text, at));
    let a = add(&[a, w]);
    let b = add(&[b, a, z]).rotate_right(21);
    let c = add(&[a, x, y]);
    (add(&[c, z]), add(&[b, c.rotate_right(44), a]))
}

/// What is carried from one block of 64 bytes to the next.
struct State {
    x: u64,
    y: u64,
    z: u64,
    v: (u64, u64),
    w: (u64, u64),
}

impl State {
    fn block(&mut self, block: &[u8]) {
        let State { x, y, z, v, w } = self;
        *x = add(&[*x, *y, v.0, word(block, 8)]).rotate_right(37).wrapping_mul(K1) ^ w.1;
        *y = add(&[*y, v.1, word(block, 48)]).rotate_right(42).wrapping_mul(K1);
        *y = add(&[*y, v.0, word(block, 40)]);
        *z = add(&[*z, w.0]).rotate_right(33).wrapping_mul(K1);
        *v = weak(block, v.1.wrapping_mul(K1), add(&[*x, w.0]));
        *w = weak(&block[32..], add(&[*z, w.1]), add(&[*y, word(block, 16)]));
        std::mem::swap(z, x);
    }
}

fn long(text: &[u8]) -> u64 {
    const SEED: u64 = 81;
    let y = SEED.wrapping_mul(K1).wrapping_add(113);
    let z = mix(y.wrapping_mul(K2).wrapping_add(113)).wrapping_mul(K2);
    let x = add(&[SEED.wrapping_mul(K2), word(text, 0)]);
    let mut state = State { x, y, z, v: (0, 0), w: (0, 0) };
    // The last block, which may be a whole one, is mixed in differently.
    let whole = (text.len() - 1) / 64 * 64;
    text[..whole].chunks_exact(64).for_each(|block| state.block(block));
    let State { mut x, mut y, mut z, mut v, mut w } = state;
    let by = K1.wrapping_add((z & 0xff) << 1);
    let block = &text[text.len() - 64..];
    w.0 = add(&[w.0, (text.len() as u64 - 1) & 63]);
    v.0 = add(&[v.0, w.0]);
    w.0 = add(&[w.0, v.0]);
    x = add(&[x, y, v.0, word(block, 8)]).rotate_right(37).wrapping_mul(by) ^ w.1.wrapping_mul(9);
    y = add(&[y, v.1, word(block, 48)]).rotate_right(42).wrapping_mul(by);
    y = add(&[y, v.0.wrapping_mul(9), word(block, 40)]);
    z = add(&[z, w.0]).rotate_right(33).wrapping_mul(by);
    v = weak(block, v.1.wrapping_mul(by), add(&[x, w.0]));
    w = weak(&block[32..], add(&[z, w.1]), add(&[y, word(block, 16)]));
    std::mem::swap(&mut z, &mut x);
    let first = add(&[join(v.0, w.0, by), mix(y).wrapping_mul(K0), z]);
    join(first, add(&[join(v.1, w.1, by), x]), by)
}

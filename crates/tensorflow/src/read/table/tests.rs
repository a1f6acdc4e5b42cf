#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use super::*;

fn block(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (key, value) in entries {
        // No prefix is shared, lengths below 128 are one byte.
        block.extend([0, u8::try_from(key.len()).unwrap(), u8::try_from(value.len()).unwrap()]);
        block.extend_from_slice(key);
        block.extend_from_slice(value);
    }
    block.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    block
}

fn with_trailer(content: &[u8], compression: u8) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.push(compression);
    let crc = mask(crc32c::crc32c(&bytes));
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// A table of one block, stored as given.
fn table(content: &[u8], compression: u8) -> Bytes {
    let mut file = with_trailer(content, compression);
    let handle = |offset: usize, size: usize| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(offset as u64, &mut bytes);
        prost::encoding::encode_varint(size as u64, &mut bytes);
        bytes
    };
    let index = block(&[(b"z", &handle(0, content.len()))]);
    let at = file.len();
    file.extend(with_trailer(&index, 0));
    let mut footer = handle(0, 0);
    footer.extend(handle(at, index.len()));
    footer.resize(40, 0);
    footer.extend(MAGIC.to_le_bytes());
    file.extend(footer);
    file.into()
}

#[test]
fn plain_and_compressed_blocks_are_read() {
    let content = block(&[(b"", b"header"), (b"a", b"1"), (b"ab", b"2")]);
    let compressed = snap::raw::Encoder::new().compress_vec(&content).unwrap();
    for file in [table(&content, 0), table(&compressed, 1)] {
        let table = Table::read(&file).unwrap();
        assert_eq!(table.keys().collect::<Vec<_>>(), [b"".as_slice(), b"a", b"ab"]);
        assert_eq!(table.get(b"ab").unwrap().as_ref(), b"2");
        assert_eq!(table.get(b"b"), None);
    }
}

#[test]
fn hostile_blocks_are_refused() {
    let check = |content: &[u8], compression: u8, message: &str| {
        assert_eq!(Table::read(&table(content, compression)).unwrap_err().to_string(), message);
    };
    check(b"", 0, "the end of a block is damaged");
    check(b"\0\0\0\0\xff\xff\xff\xff", 0, "the end of a block is damaged");
    check(b"\x01\x01\x01ab\0\0\0\0", 0, "an entry is damaged");
    check(b"\0\xff\xff\xff\xff\x0f\x01ab\0\0\0\0", 0, "an entry is damaged");
    check(b"", 4, "block at byte 0: compression type 4");
    // Claims 4 GiB.
    check(b"\xff\xff\xff\xff\x0f", 1, "block at byte 0: 4294967295 bytes when decompressed");
}

#[test]
fn checksums_are_masked_as_leveldb_does() {
    // crc32c of 32 zero bytes is in RFC 3720, B.4; the mask is a rotation and an addition.
    assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(mask(0x8a91_36aa), 0x0fd7_fffa);
}

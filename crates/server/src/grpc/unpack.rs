//! Compressed messages, decompressed before tonic sees them: tonic bounds the size of one message, and does not ask
//! the budget that all requests share.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use salver_wire::status;
use tonic::Status;

use super::messages::PREFIX_BYTES;
use crate::budget::Reservation;
use crate::coding::{Coding, CodingError};

/// Takes the bytes of a compressed call and gives those of an uncompressed one.
#[derive(Debug)]
pub(crate) struct Unpacker {
    coding: Coding,
    raw: BytesMut,
    ready: VecDeque<Bytes>,
}

impl Unpacker {
    /// For a call that says that it is compressed in a way that is known here. The header is taken out.
    pub(crate) fn of_call(headers: &mut HeaderMap) -> Option<Unpacker> {
        let coding = match headers.get("grpc-encoding")?.as_bytes() {
            b"gzip" => Coding::Gzip,
            b"zstd" => Coding::Zstd,
            _ => return None,
        };
        headers.remove("grpc-encoding");
        Some(Unpacker { coding, raw: BytesMut::new(), ready: VecDeque::new() })
    }

    /// Bytes of the uncompressed call, if there are any. One message is unpacked at a time: many small ones in one frame
    /// must not be large all at once.
    pub(crate) fn next(&mut self, limit: usize, reservation: &Reservation) -> Result<Option<Bytes>, Status> {
        if self.ready.is_empty()
            && let Some((flag, message)) = self.take_message()
        {
            let plain = match flag {
                0 => message,
                _ => self.unpack(&message, limit, reservation)?,
            };
            let length = u32::try_from(plain.len())
                .map_err(|_| Status::resource_exhausted("the message is too large for the protocol"))?;
            let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
            prefix.extend_from_slice(&[0]);
            prefix.extend_from_slice(&length.to_be_bytes());
            self.ready.extend([prefix.freeze(), plain]);
        }
        Ok(self.ready.pop_front())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.raw.is_empty() && self.ready.is_empty()
    }

    /// What is left of a message that is not complete, once there is no more.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        (!self.raw.is_empty()).then(|| self.raw.split().freeze())
    }

    /// Takes bytes as they come; the caller has reserved them.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.raw.extend_from_slice(data);
    }

    fn take_message(&mut self) -> Option<(u8, Bytes)> {
        let (flag, length) = match *self.raw {
            [flag, a, b, c, d, ..] => (flag, usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?),
            _ => return None,
        };
        if self.raw.len() - PREFIX_BYTES < length {
            return None;
        }
        self.raw.advance(PREFIX_BYTES);
        Some((flag, self.raw.split_to(length).freeze()))
    }

    fn unpack(&self, message: &[u8], limit: usize, reservation: &Reservation) -> Result<Bytes, Status> {
        let grant = |n: usize| reservation.grow_to(message.len().saturating_add(n));
        self.coding.decompress(message, limit, grant).map_err(|error| match error {
            CodingError::Corrupt(error) => {
                Status::internal(format!("the message does not decompress: {error}"))
            }
            CodingError::TooLarge => Status::resource_exhausted(format!(
                "the decompressed message is larger than the limit of {limit} bytes"
            )),
            CodingError::Refused(error) => status::grpc(&error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flag];
        bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend(message);
        bytes
    }

    #[test]
    fn messages_are_unpacked_however_they_are_cut() {
        let text = b"a message, a message, a message, a message, a message".repeat(10);
        let packed = Coding::Gzip.compress(&text).unwrap();
        let call = [framed(1, &packed), framed(0, b"plain"), framed(1, &packed)].concat();
        let expected = [framed(0, &text), framed(0, b"plain"), framed(0, &text)].concat();
        let budget = Budget::new(1 << 20);
        for size in [1, 3, 5, 6, 64, call.len()] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-encoding", http::HeaderValue::from_static("gzip"));
            let mut unpacker = Unpacker::of_call(&mut headers).unwrap();
            assert!(headers.is_empty());
            let reservation = budget.empty();
            let mut got = Vec::new();
            for piece in call.chunks(size) {
                unpacker.push(piece);
                while let Some(bytes) = unpacker.next(1 << 20, &reservation).unwrap() {
                    got.extend_from_slice(&bytes);
                }
            }
            assert_eq!(got, expected, "{size}");
            assert!(unpacker.is_empty());
        }
    }

    #[test]
    fn messages_are_unpacked_one_by_one() {
        let packed = framed(1, &Coding::Gzip.compress(&[7; 10_000]).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("grpc-encoding", http::HeaderValue::from_static("gzip"));
        let mut unpacker = Unpacker::of_call(&mut headers).unwrap();
        let budget = Budget::new(1 << 20);
        let reservation = budget.empty();
        unpacker.push(&packed.repeat(3));
        let n_raw = unpacker.raw.len();
        assert_eq!(
            unpacker.next(1 << 20, &reservation).unwrap().map(|prefix| prefix.len()),
            Some(PREFIX_BYTES)
        );
        assert_eq!(unpacker.raw.len(), n_raw - packed.len());
        assert_eq!(unpacker.next(1 << 20, &reservation).unwrap().map(|plain| plain.len()), Some(10_000));
        assert_eq!(unpacker.raw.len(), n_raw - packed.len());
    }
}

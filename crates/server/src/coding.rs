//! Compressed bodies, both ways. Pure.

use std::io::{self, Read, Write};

use bytes::Bytes;
use http::HeaderValue;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Zstd,
    Deflate,
}

/// In the order of preference.
const CODINGS: [(Coding, &str); 3] =
    [(Coding::Zstd, "zstd"), (Coding::Gzip, "gzip"), (Coding::Deflate, "deflate")];

/// Levels that cost little: a local network is faster than a thorough compressor.
const FLATE_LEVEL: u32 = 1;
const ZSTD_LEVEL: i32 = 1;
/// A frame may ask for memory of its own to look back in; this is what browsers grant.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes that decompression adds before asking whether it may go on.
const STEP_BYTES: usize = 64 << 10;

/// Why a body is not decompressed.
#[derive(Debug)]
pub(crate) enum CodingError {
    /// The bytes are not of the coding, or end early.
    Corrupt(io::Error),
    /// It would be larger than allowed.
    TooLarge,
    /// Whoever grants memory refused.
    Refused(salver_predict::Error),
}

impl Coding {
    /// The coding that a Content-Encoding header names; `Ok(None)` for none.
    pub(crate) fn of_content(value: Option<&HeaderValue>) -> Result<Option<Coding>, String> {
        let Some(value) = value else { return Ok(None) };
        let name = value.to_str().unwrap_or("?").trim();
        let bare = name.strip_prefix("x-").unwrap_or(name);
        if name.is_empty() || name.eq_ignore_ascii_case("identity") {
            return Ok(None);
        }
        let found = CODINGS.iter().find(|(_, known)| known.eq_ignore_ascii_case(bare));
        found.map(|(coding, _)| Some(*coding)).ok_or_else(|| {
            format!("content-encoding is '{name}', expected one of gzip, zstd, deflate or identity")
        })
    }

    /// The best coding that an Accept-Encoding header accepts.
    pub(crate) fn accepted(value: Option<&HeaderValue>) -> Option<Coding> {
        let text = value?.to_str().ok()?;
        let items = || text.split(',').map(item);
        let quality = |name: &str| {
            let named = items().find(|(item, _)| item.eq_ignore_ascii_case(name));
            named.or_else(|| items().find(|(item, _)| *item == "*")).map_or(0, |(_, quality)| quality)
        };
        // Of equal qualities the last maximum would win, so that the preferred ones come last.
        let best = CODINGS.iter().rev().max_by_key(|(_, name)| quality(name))?;
        (quality(best.1) > 0).then_some(best.0)
    }

    pub(crate) fn name(self) -> HeaderValue {
        let name = CODINGS.iter().find(|(coding, _)| *coding == self).map_or("identity", |(_, name)| name);
        HeaderValue::from_static(name)
    }

    /// `None` when compression makes nothing smaller.
    pub(crate) fn compress(self, body: &[u8]) -> Option<Bytes> {
        let level = flate2::Compression::new(FLATE_LEVEL);
        let room = Vec::with_capacity(body.len() / 2);
        let compressed = match self {
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(room, level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Coding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(room, level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Coding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
        };
        compressed.ok().filter(|compressed| compressed.len() < body.len()).map(Bytes::from)
    }

    /// Decompresses at most `limit` bytes; `grant` is asked before each step with the size so far.
    pub(crate) fn decompress(
        self,
        body: &[u8],
        limit: usize,
        grant: impl FnMut(usize) -> Result<(), salver_predict::Error>,
    ) -> Result<Bytes, CodingError> {
        match self {
            Coding::Gzip => read(flate2::bufread::MultiGzDecoder::new(body), limit, grant),
            Coding::Deflate if is_zlib(body) => read(flate2::bufread::ZlibDecoder::new(body), limit, grant),
            Coding::Deflate => read(flate2::bufread::DeflateDecoder::new(body), limit, grant),
            Coding::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(body).map_err(CodingError::Corrupt)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(CodingError::Corrupt)?;
                read(decoder, limit, grant)
            }
        }
    }
}

/// A name and a thousandfold quality.
fn item(text: &str) -> (&str, u32) {
    let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
    let quality = parameters.split(';').find_map(|one| one.trim().strip_prefix("q="));
    let quality: f32 = quality.map_or(1.0, |text| text.trim().parse().unwrap_or(0.0));
    (name.trim(), (quality.clamp(0.0, 1.0) * 1000.0) as u32)
}

/// Clients mean by `deflate` either the zlib format, as the standard says, or bare deflate.
fn is_zlib(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0,
        _ => false,
    }
}

fn read(
    mut decoder: impl Read,
    limit: usize,
    mut grant: impl FnMut(usize) -> Result<(), salver_predict::Error>,
) -> Result<Bytes, CodingError> {
    let mut out = Vec::new();
    loop {
        let next = out.len().saturating_mul(2).clamp(STEP_BYTES, limit.saturating_add(1).max(STEP_BYTES));
        grant(next)?;
        out.reserve_exact(next.saturating_sub(out.len()).max(1));
        let room = out.capacity() - out.len();
        let n = (&mut decoder).take(room as u64).read_to_end(&mut out).map_err(CodingError::Corrupt)?;
        if out.len() > limit {
            return Err(CodingError::TooLarge);
        }
        if n < room {
            return Ok(Bytes::from(out));
        }
    }
}

impl From<salver_predict::Error> for CodingError {
    fn from(error: salver_predict::Error) -> CodingError {
        CodingError::Refused(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Zstd, Coding::Deflate];

    fn free(_: usize) -> Result<(), salver_predict::Error> {
        Ok(())
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for n in [1, 1000, 70_000, 300_000, 1 << 20] {
            let text: Vec<u8> = (0..n).map(|i: u32| b"0123456789.,"[i as usize * 7 % 12]).collect();
            for coding in ALL {
                let Some(small) = coding.compress(&text) else { continue };
                assert_eq!(coding.decompress(&small, text.len(), free).unwrap(), text, "{coding:?} {n}");
                let cut = small.slice(..small.len() / 2);
                let error = coding.decompress(&cut, text.len(), free).unwrap_err();
                assert!(matches!(error, CodingError::Corrupt(_)), "{coding:?} {n}: {error:?}");
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 16 << 20];
        for coding in ALL {
            let bomb = coding.compress(&zeros).unwrap();
            let mut most = 0;
            let result = coding.decompress(&bomb, 1 << 20, |n| {
                most = most.max(n);
                Ok(())
            });
            assert!(matches!(result, Err(CodingError::TooLarge)), "{coding:?}");
            assert!(most <= (1 << 20) + 1, "{coding:?} asked for {most}");
            assert!(coding.decompress(&bomb, 16 << 20, free).is_ok());
        }
    }

    #[test]
    fn memory_is_asked_for() {
        let bomb = Coding::Gzip.compress(&vec![0; 1 << 20]).unwrap();
        let refuse = |n| if n > 100_000 { Err(salver_predict::Error::invalid("no")) } else { Ok(()) };
        assert!(matches!(Coding::Gzip.decompress(&bomb, 1 << 20, refuse), Err(CodingError::Refused(_))));
    }

    #[test]
    fn accepted_codings() {
        let cases = [
            ("gzip", Some(Coding::Gzip)),
            ("gzip, deflate", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("deflate", Some(Coding::Deflate)),
            ("*", Some(Coding::Zstd)),
            ("zstd;q=0.5, gzip;q=0.8", Some(Coding::Gzip)),
            ("zstd;q=0, *", Some(Coding::Gzip)),
            ("GZIP ; q=1", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("identity", None),
            ("br", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Coding::accepted(Some(&HeaderValue::from_static(text))), expected, "{text}");
        }
        assert_eq!(Coding::accepted(None), None);
    }

    #[test]
    fn content_codings() {
        let of = |text| Coding::of_content(Some(&HeaderValue::from_static(text)));
        assert_eq!(of("gzip"), Ok(Some(Coding::Gzip)));
        assert_eq!(of("x-gzip"), Ok(Some(Coding::Gzip)));
        assert_eq!(of("ZSTD"), Ok(Some(Coding::Zstd)));
        assert_eq!(of("identity"), Ok(None));
        assert!(of("br").unwrap_err().starts_with("content-encoding is 'br', expected one of"));
    }
}

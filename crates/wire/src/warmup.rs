//! Warm-up files: recorded requests as TFRecords of `PredictionLog`, read and written.
//!
//! A record is a length of eight little-endian bytes, a checksum of the length, the data, and a checksum of the data.
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

use std::io::{ErrorKind, Read, Write};

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use salver_predict::{Blame, Code, Error};

use crate::proto::tensorflow::serving::prediction_log::LogType;
use crate::proto::tensorflow::serving::{
    ClassificationRequest, MultiInferenceRequest, PredictLog, PredictRequest, PredictionLog,
    RegressionRequest,
};

/// More records than this are refused, as TensorFlow Serving does.
pub const MAX_RECORDS: usize = 1000;

/// A recorded request. Its model and version are those of the time it was recorded and mean nothing here; its
/// signature is the one to use.
#[derive(Debug, Clone, PartialEq)]
pub enum WarmupRequest {
    /// Tensors in, tensors out.
    Predict(Box<PredictRequest>),
    /// Examples in, classes out.
    Classify(Box<ClassificationRequest>),
    /// Examples in, values out.
    Regress(Box<RegressionRequest>),
    /// Examples in, results of several signatures out.
    MultiInference(Box<MultiInferenceRequest>),
}

/// Reads the requests of a warm-up file one by one, so that no more than one is in memory. After an error it ends.
#[derive(Debug)]
pub struct WarmupReader<R> {
    input: R,
    max_record_bytes: u64,
    n_records: usize,
    done: bool,
}

impl<R: Read> WarmupReader<R> {
    /// A reader that refuses records longer than `max_record_bytes`.
    pub fn new(input: R, max_record_bytes: u64) -> WarmupReader<R> {
        WarmupReader { input, max_record_bytes, n_records: 0, done: false }
    }

    /// The next request; records of no type are passed over.
    fn next_request(&mut self) -> Result<Option<WarmupRequest>, Error> {
        while let Some(record) = read_record(&mut self.input, self.max_record_bytes)
            .map_err(|error| error.within(&format!("warm-up record {}: ", self.n_records)))?
        {
            if self.n_records == MAX_RECORDS {
                return Err(model(
                    Code::InvalidArgument,
                    format!("Number of warmup records exceeds the maximum ({MAX_RECORDS})"),
                ));
            }
            if let Some(request) = decode(record)
                .map_err(|error| error.within(&format!("warm-up record {}: ", self.n_records)))?
            {
                self.n_records = self.n_records.saturating_add(1);
                return Ok(Some(request));
            }
            self.n_records = self.n_records.saturating_add(1);
        }
        Ok(None)
    }
}

/// # Errors
/// [`Code::InvalidArgument`] for a record too many or one that is not a `PredictionLog`, [`Code::Unimplemented`] for a
/// recorded session run or stream, [`Code::DataLoss`] for a damaged file, [`Code::Unavailable`] when it cannot be read.
impl<R: Read> Iterator for WarmupReader<R> {
    type Item = Result<WarmupRequest, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_request().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

fn model(code: Code, message: impl Into<String>) -> Error {
    Error::new(code, Blame::Model, message)
}

fn decode(record: Bytes) -> Result<Option<WarmupRequest>, Error> {
    let log = PredictionLog::decode(record)
        .map_err(|error| model(Code::InvalidArgument, format!("Failed to parse warmup record: {error}")))?;
    let unsupported =
        |number: u32| Err(model(Code::Unimplemented, format!("Unsupported log_type for warmup: {number}")));
    Ok(match log.log_type {
        None => None,
        Some(LogType::PredictLog(log)) => {
            Some(WarmupRequest::Predict(Box::new(log.request.unwrap_or_default())))
        }
        Some(LogType::ClassifyLog(log)) => {
            Some(WarmupRequest::Classify(Box::new(log.request.unwrap_or_default())))
        }
        Some(LogType::RegressLog(log)) => {
            Some(WarmupRequest::Regress(Box::new(log.request.unwrap_or_default())))
        }
        Some(LogType::MultiInferenceLog(log)) => {
            Some(WarmupRequest::MultiInference(Box::new(log.request.unwrap_or_default())))
        }
        Some(LogType::SessionRunLog(_)) => return unsupported(5),
        Some(LogType::PredictStreamedLog(_)) => return unsupported(7),
    })
}

/// Reads one TFRecord; `None` at the end of the input.
///
/// # Errors
/// [`Code::DataLoss`] when the input ends inside the record or a checksum does not match, [`Code::InvalidArgument`] when
/// the record is longer than `max_bytes`, [`Code::Unavailable`] when the input cannot be read.
pub fn read_record(input: &mut impl Read, max_bytes: u64) -> Result<Option<Bytes>, Error> {
    let header = read_up_to(input, 12)?;
    if header.is_empty() {
        return Ok(None);
    }
    let mut rest = header.as_slice();
    let (Ok(length), Ok(checksum)) = (rest.try_get_u64_le(), rest.try_get_u32_le()) else {
        return Err(model(Code::DataLoss, "file ends inside a record's header"));
    };
    if masked_crc(&length.to_le_bytes()) != checksum {
        return Err(model(Code::DataLoss, "checksum of a record's length does not match"));
    }
    if length > max_bytes {
        let text = format!("record is {length} bytes long, at most {max_bytes} are allowed");
        return Err(model(Code::InvalidArgument, text));
    }
    // The buffer grows with what is read, not with the length that the file claims.
    let data = read_up_to(input, length)?;
    let footer = read_up_to(input, 4)?;
    let checksum = footer.as_slice().try_get_u32_le();
    if data.len() as u64 != length || checksum.is_err() {
        return Err(model(Code::DataLoss, "file ends inside a record"));
    }
    if checksum != Ok(masked_crc(&data)) {
        return Err(model(Code::DataLoss, "checksum of a record's data does not match"));
    }
    Ok(Some(data.into()))
}

fn read_up_to(input: &mut impl Read, n: u64) -> Result<Vec<u8>, Error> {
    let mut data = Vec::new();
    match input.take(n).read_to_end(&mut data) {
        Ok(_) => Ok(data),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(data),
        Err(error) => Err(Error::new(Code::Unavailable, Blame::Us, format!("cannot read: {error}"))),
    }
}

/// Writes one TFRecord.
///
/// # Errors
/// Those of the output.
pub fn write_record(output: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    output.write_all(&length)?;
    output.write_all(&masked_crc(&length).to_le_bytes())?;
    output.write_all(data)?;
    output.write_all(&masked_crc(data).to_le_bytes())
}

/// Writes a request as a record that a warm-up can replay.
///
/// # Errors
/// Those of the output.
pub fn write_predict(output: &mut impl Write, request: PredictRequest) -> std::io::Result<()> {
    let log = PredictLog { request: Some(request), response: None };
    let log = PredictionLog { log_metadata: None, log_type: Some(LogType::PredictLog(log)) };
    write_record(output, &log.encode_to_vec())
}

/// The checksum of TFRecords: CRC-32C, turned and shifted so that a checksum of data that holds checksums is not weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests;

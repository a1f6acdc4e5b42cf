#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use super::*;
use crate::proto::tensorflow::serving::{LogMetadata, PredictStreamedLog, SessionRunLog};

fn requests(data: &[u8]) -> Vec<Result<WarmupRequest, Error>> {
    WarmupReader::new(data, 1 << 20).collect()
}

fn named(name: &str) -> PredictRequest {
    let spec = crate::proto::tensorflow::serving::ModelSpec { name: name.into(), ..Default::default() };
    PredictRequest { model_spec: Some(spec), ..PredictRequest::default() }
}

fn file(logs: &[PredictionLog]) -> Vec<u8> {
    let mut data = Vec::new();
    for log in logs {
        write_record(&mut data, &log.encode_to_vec()).unwrap();
    }
    data
}

fn typed(log_type: LogType) -> PredictionLog {
    PredictionLog { log_metadata: None, log_type: Some(log_type) }
}

#[test]
fn a_file_of_tensorflow_is_read_and_written_again() {
    let path = format!("{}/tests/golden/warmup.tfrecord", env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read(path).unwrap();
    // The record in the middle has no type.
    let requests: Vec<WarmupRequest> = requests(&golden).into_iter().map(Result::unwrap).collect();
    let [WarmupRequest::Predict(first), second] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(&WarmupRequest::Predict(first.clone()), second);
    assert_eq!(first.inputs["x"].float_val.len() + first.inputs["x"].tensor_content.len(), 12);
    let mut data = Vec::new();
    write_predict(&mut data, (**first).clone()).unwrap();
    assert!(golden.starts_with(&data) && golden.ends_with(&data));
}

#[test]
fn damage_is_found() {
    let mut good = Vec::new();
    write_predict(&mut good, named("m")).unwrap();
    let with = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let mut huge = Vec::new();
    let length = u64::MAX.to_le_bytes();
    huge.extend_from_slice(&length);
    huge.extend_from_slice(&masked_crc(&length).to_le_bytes());
    let mut garbage = Vec::new();
    write_record(&mut garbage, &[255; 5]).unwrap();
    let cases: [(Vec<u8>, Code, &str); 8] = [
        (good[..5].to_vec(), Code::DataLoss, "file ends inside a record's header"),
        (good[..14].to_vec(), Code::DataLoss, "file ends inside a record"),
        (good[..good.len() - 1].to_vec(), Code::DataLoss, "file ends inside a record"),
        (with(0), Code::DataLoss, "checksum of a record's length does not match"),
        (with(13), Code::DataLoss, "checksum of a record's data does not match"),
        (with(good.len() - 1), Code::DataLoss, "checksum of a record's data does not match"),
        (
            huge,
            Code::InvalidArgument,
            "record is 18446744073709551615 bytes long, at most 1048576 are allowed",
        ),
        (garbage, Code::InvalidArgument, "Failed to parse warmup record: "),
    ];
    for (data, code, text) in cases {
        let results = requests(&data);
        assert_eq!(results.len(), 1, "a reader ends after an error");
        let error = results[0].as_ref().unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.message().starts_with(&format!("warm-up record 0: {text}")), "{error}");
    }
    assert_eq!(requests(&[]), []);
}

#[test]
fn a_thousand_records_are_allowed() {
    let log = typed(LogType::PredictLog(PredictLog { request: Some(named("m")), response: None }));
    let mut logs = vec![log; MAX_RECORDS];
    assert_eq!(requests(&file(&logs)).iter().filter(|one| one.is_ok()).count(), MAX_RECORDS);
    // A record of no type counts too.
    logs.push(PredictionLog { log_metadata: Some(LogMetadata::default()), log_type: None });
    let results = requests(&file(&logs));
    let error = results.last().unwrap().as_ref().unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.message(), "Number of warmup records exceeds the maximum (1000)");
}

#[test]
fn every_type_of_record_has_its_answer() {
    let ok = |log_type| requests(&file(&[typed(log_type)])).remove(0).unwrap();
    assert!(matches!(ok(LogType::ClassifyLog(Default::default())), WarmupRequest::Classify(_)));
    assert!(matches!(ok(LogType::RegressLog(Default::default())), WarmupRequest::Regress(_)));
    assert!(matches!(ok(LogType::MultiInferenceLog(Default::default())), WarmupRequest::MultiInference(_)));
    for (log_type, number) in [
        (LogType::SessionRunLog(SessionRunLog::default()), 5),
        (LogType::PredictStreamedLog(PredictStreamedLog::default()), 7),
    ] {
        let error = requests(&file(&[typed(log_type)])).remove(0).unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert_eq!(error.message(), format!("warm-up record 0: Unsupported log_type for warmup: {number}"));
    }
}

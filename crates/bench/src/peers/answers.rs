//! What a server has answered, as numbers, and how far they are from what is expected.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message;
use salver_wire::proto::inference::ModelInferResponse;
use serde_json::Value;

use crate::body::Interface;

/// The largest difference to what is expected, by the largest number that is expected.
pub(crate) fn difference(interface: Interface, body: &Bytes, expected: &[f32]) -> Result<f64> {
    let values = match interface {
        Interface::OipGrpcRaw => grpc(body)?,
        Interface::OipRestBinary => binary(body, expected.len())?,
        Interface::OipRestJson => numbers(&json(body)?["outputs"][0]["data"])?,
        Interface::RestJson => numbers(&json(body)?["predictions"])?,
        Interface::GrpcPacked | Interface::GrpcFloats => bail!("{} is not compared", interface.label()),
    };
    ensure!(values.len() == expected.len(), "{} numbers, expected {}", values.len(), expected.len());
    let most = expected.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let far = values.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs() / most));
    // A NaN is further away than anything.
    Ok(far.fold(0.0, |most, far| if far.is_nan() { f64::INFINITY } else { f64::max(most, far) }))
}

fn grpc(body: &Bytes) -> Result<Vec<f32>> {
    let message = body.get(5..).context("an answer without the head of a gRPC message")?;
    let answer = ModelInferResponse::decode(message)?;
    Ok(floats(answer.raw_output_contents.first().context("an answer without raw contents")?))
}

/// JSON, then the numbers: how long the JSON is stands in a header, and follows from how many numbers there are.
fn binary(body: &Bytes, n: usize) -> Result<Vec<f32>> {
    let length = body.len().checked_sub(n * 4).context("an answer that is too short")?;
    let (head, tensor) = body.split_at(length);
    serde_json::from_slice::<Value>(head).context("the answer's JSON")?;
    Ok(floats(tensor))
}

fn json(body: &Bytes) -> Result<Value> {
    serde_json::from_slice(body).context("the answer is not JSON")
}

/// The numbers of lists in lists, in order.
fn numbers(value: &Value) -> Result<Vec<f32>> {
    match value {
        Value::Array(parts) => Ok(parts.iter().map(numbers).collect::<Result<Vec<_>>>()?.concat()),
        Value::Number(number) => Ok(vec![number.as_f64().context("a number of 64 bits")? as f32]),
        other => bail!("{other} where numbers are expected"),
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_compared() {
        let raw: Vec<u8> = [1.0_f32, -4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let message = ModelInferResponse {
            raw_output_contents: vec![raw.clone().into()],
            ..ModelInferResponse::default()
        };
        let grpc = [vec![0; 5], message.encode_to_vec()].concat();
        let binary = [b"{\"outputs\":[]}".to_vec(), raw].concat();
        for (interface, body) in [
            (Interface::OipGrpcRaw, grpc),
            (Interface::OipRestBinary, binary),
            (Interface::OipRestJson, br#"{"outputs":[{"data":[1,-4.0]}]}"#.to_vec()),
            (Interface::RestJson, br#"{"predictions":[[1.0,-4]]}"#.to_vec()),
        ] {
            let far = |expected: &[f32]| difference(interface, &Bytes::from(body.clone()), expected);
            let label = interface.label();
            assert!(far(&[1.0, -4.0]).is_ok_and(|far| far < 1e-9), "{label}");
            assert!(far(&[2.0, -4.0]).is_ok_and(|far| (far - 0.25).abs() < 1e-9), "{label}");
            assert!(far(&[1.0]).is_err(), "{label}");
        }
    }
}

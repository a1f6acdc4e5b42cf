//! Warm-up requests that come with a version, read from its recorded predictions.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use salver_servable::{WarmupRequest, WarmupSource};
use salver_wire::proto::tensorflow::serving::{Input, ModelSpec, PredictRequest};
use salver_wire::tfs::{decode_tensor, example_tensor, signature_name};
use salver_wire::warmup::{WarmupReader, WarmupRequest as Recorded};

/// Where TensorFlow Serving looks for them, below the version folder.
const FILE: &str = "assets.extra/tf_serving_warmup_requests";

/// Reads the file of recorded predictions of a version folder, if there is one.
#[derive(Debug)]
pub(crate) struct RecordedPredictions {
    /// The longest record, and the most that its tensors may take.
    pub(crate) max_bytes: usize,
}

impl WarmupSource for RecordedPredictions {
    fn requests(&self, version_path: &Path) -> Result<Vec<WarmupRequest>, String> {
        let path = version_path.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            // A model file has no folder for warm-up requests.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let records = WarmupReader::new(BufReader::new(file), self.max_bytes as u64);
        records
            .enumerate()
            .map(|(index, record)| {
                record
                    .map_err(|error| error.to_string())
                    .and_then(|record| self.request(record))
                    .map_err(|message| format!("{}: record {index}: {message}", path.display()))
            })
            .collect()
    }
}

impl RecordedPredictions {
    fn request(&self, record: Recorded) -> Result<WarmupRequest, String> {
        match record {
            Recorded::Predict(request) => self.predict(*request),
            Recorded::Classify(request) => self.examples([request.model_spec.as_ref()], request.input),
            Recorded::Regress(request) => self.examples([request.model_spec.as_ref()], request.input),
            Recorded::MultiInference(request) => {
                let specs = request.tasks.iter().map(|task| task.model_spec.as_ref());
                self.examples(specs, request.input)
            }
        }
    }

    /// A record of examples, which go to the only input of each signature.
    fn examples<'a>(
        &self,
        specs: impl IntoIterator<Item = Option<&'a ModelSpec>>,
        input: Option<Input>,
    ) -> Result<WarmupRequest, String> {
        let examples = example_tensor(input, self.max_bytes).map_err(|error| error.to_string())?;
        Ok(WarmupRequest {
            signature_names: specs.into_iter().map(|spec| signature_name(spec).to_owned()).collect(),
            inputs: vec![("inputs".to_owned(), examples)],
            output_filter: Vec::new(),
        })
    }

    fn predict(&self, request: PredictRequest) -> Result<WarmupRequest, String> {
        let signature_names = vec![signature_name(request.model_spec.as_ref()).to_owned()];
        let inputs = request.inputs.into_iter().map(|(name, proto)| {
            let tensor =
                decode_tensor(proto, self.max_bytes).map_err(|error| format!("input '{name}': {error}"))?;
            Ok((name, tensor))
        });
        let inputs = inputs.collect::<Result<_, String>>()?;
        Ok(WarmupRequest { signature_names, inputs, output_filter: request.output_filter })
    }
}

#[cfg(test)]
mod tests {
    use salver_wire::proto::tensorflow::Features;
    use salver_wire::proto::tensorflow::serving::{
        ExampleList, InferenceTask, MultiInferenceRequest, RegressionRequest, input,
    };
    use salver_wire::tfs::SerializedExample;

    use super::*;

    #[test]
    fn examples_go_to_all_signatures_of_a_record() {
        let features = Features::default();
        let list = ExampleList { examples: vec![SerializedExample::from(&features)] };
        let input = Some(Input { kind: Some(input::Kind::ExampleList(list)) });
        let spec = |name: &str| Some(ModelSpec { signature_name: name.to_owned(), ..ModelSpec::default() });
        let task = |name: &str| InferenceTask { model_spec: spec(name), ..InferenceTask::default() };
        let regress = RegressionRequest { model_spec: spec("r"), input: input.clone() };
        let tasks = vec![task("a"), task("b")];
        let multi = MultiInferenceRequest { tasks, input };
        let source = RecordedPredictions { max_bytes: 1 << 20 };
        for (record, expected) in [
            (Recorded::Regress(Box::new(regress.clone())), Ok(vec!["r".to_owned()])),
            (Recorded::MultiInference(Box::new(multi)), Ok(vec!["a".to_owned(), "b".to_owned()])),
            (
                Recorded::Regress(Box::new(RegressionRequest { input: None, ..regress })),
                Err("Input is empty.".to_owned()),
            ),
        ] {
            let got = source.request(record).map(|request| {
                let (name, tensor) = &request.inputs[0];
                assert_eq!(name, "inputs");
                assert_eq!(tensor.strings().unwrap(), [&b"\x0a\x00"[..]]);
                request.signature_names
            });
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn no_file_means_no_requests_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let source = RecordedPredictions { max_bytes: 1 << 20 };
        assert!(source.requests(dir.path()).unwrap().is_empty());
        let model_file = dir.path().join("model.onnx");
        std::fs::write(&model_file, "").unwrap();
        assert!(source.requests(&model_file).unwrap().is_empty());
        std::fs::create_dir(dir.path().join("assets.extra")).unwrap();
        std::fs::write(dir.path().join(FILE), "not a record").unwrap();
        let message = source.requests(dir.path()).unwrap_err();
        assert!(message.contains("tf_serving_warmup_requests: record 0: "), "{message}");
    }
}

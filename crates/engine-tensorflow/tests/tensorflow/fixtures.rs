//! Models that others made, with answers that are known; and that they look as the importer shows them.

use std::path::Path;

use salver_engine::{Engine, Error, ErrorKind, Format, LoadOptions, ModelSource};
use salver_engine_graph::{GraphEngine, Parts};
use salver_tensor::{DType, Dims, Tensor, TensorSpec};

use crate::engine::{engine, floats, load, own, run, strings, tensor, test_data};

/// An example with one float feature, by hand: Example.features.feature[name].float_list.value.
fn example(name: &str, value: f32) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let feature = field(0x12, &field(0x0a, &value.to_le_bytes()));
    let entry = [field(0x0a, name.as_bytes()), field(0x12, &feature)].concat();
    field(0x0a, &field(0x0a, &entry))
}

const HALF_PLUS_TWO: &[&str] = &[
    "saved_model_half_plus_two_cpu",
    "saved_model_half_plus_two_tf2_cpu",
    "saved_model_half_plus_two_2_versions",
    "saved_model_half_plus_two_cpu_with_saved_model_config",
    "saved_model_half_plus_two_cpu_with_empty_saved_model_config",
    "saved_model_half_plus_two_mlmd",
    "saved_model_half_plus_two_gpu",
];

#[test]
fn half_plus_two_in_all_its_forms() {
    let (Some(engine), Some(folder)) = (engine(), test_data()) else { return };
    for fixture in HALF_PLUS_TWO {
        let model = load(&engine, &folder.join("tfserving").join(fixture).join("00000123")).unwrap();
        assert!(model.refused().is_empty(), "{fixture}: {:?}", model.refused());
        for dims in [&[][..], &[4], &[4, 1], &[2, 2], &[1, 2, 2]] {
            let n_elements: usize = dims.iter().product();
            let all = &[2.0f32, 3.0, 4.0, 5.0][..n_elements];
            let expected: Vec<f32> = all.iter().map(|x| x * 0.5 + 2.0).collect();
            let answer = run(&*model, "serving_default", &[("x", tensor(dims, all))], "y").unwrap();
            assert_eq!(floats(&answer), expected, "{fixture} {dims:?}");
        }
        let examples = strings(&[2], &[&example("x", 80.0), &example("x", 20.0)]);
        for (signature, output, expected) in [
            ("regress_x_to_y", "outputs", [42.0, 12.0]),
            ("regress_x_to_y2", "outputs", [43.0, 13.0]),
            ("classify_x_to_y", "scores", [42.0, 12.0]),
        ] {
            let answer = run(&*model, signature, &[("inputs", examples.clone())], output).unwrap();
            assert_eq!(floats(&answer), expected, "{fixture} {signature}");
        }
        let wrong = strings(&[1], &[&example("y", 1.0)]);
        let error = run(&*model, "regress_x_to_y", &[("inputs", wrong)], "outputs").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("Feature: x (data type: float) is required"), "{error}");
    }
}

#[test]
fn half_plus_three_takes_strings_though_it_says_floats() {
    let (Some(engine), Some(folder)) = (engine(), test_data()) else { return };
    let model = load(&engine, &folder.join("tfserving/saved_model_half_plus_three/00000123")).unwrap();
    let answer = run(&*model, "serving_default", &[("x", tensor(&[3], &[1.0f32, 2.0, 5.0]))], "y").unwrap();
    assert_eq!(floats(&answer), [3.5, 4.0, 5.5]);
    let name = "tensorflow/serving/regress";
    let signature = model.signatures().iter().find(|found| &**found.name() == name).unwrap();
    assert_eq!(signature.inputs()[0].dtype, DType::String);
    assert_eq!(signature.declared_inputs()[0].dtype, DType::F32);
    let examples = strings(&[1], &[&example("x", 2.0)]);
    let answer = run(&*model, name, &[(&*signature.inputs()[0].name, examples)], "outputs").unwrap();
    assert_eq!(floats(&answer), [4.0]);
}

#[test]
fn signatures_are_those_of_the_importer() {
    let (Some(engine), Some(folder)) = (engine(), test_data()) else { return };
    let importer = GraphEngine::new(Parts::none());
    let served = HALF_PLUS_TWO.iter().copied().chain(["saved_model_half_plus_three", "saved_model_counter"]);
    let mut paths: Vec<_> =
        served.map(|fixture| folder.join("tfserving").join(fixture).join("00000123")).collect();
    paths.push(folder.join("tfserving/matrix_half_plus_two/1"));
    paths.push(folder.join("jena/savedmodel/weather/2"));
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tensorflow/testdata/import");
    paths.extend([committed.join("control"), committed.join("lowered.pb"), committed.join("old.pb")]);
    paths.push(own("text"));
    for path in paths {
        let source = ModelSource::find(&path).unwrap();
        let expected = importer.load(&source, &LoadOptions::default()).unwrap();
        let model = engine.load(&source, &LoadOptions::default()).unwrap();
        let place = path.display();
        for theirs in expected.signatures() {
            let Some(ours) = model.signatures().iter().find(|ours| ours.name() == theirs.name()) else {
                panic!("{place}: {} is missing: {:?}", theirs.name(), model.refused());
            };
            assert_eq!(ours.method_name(), theirs.method_name(), "{place}");
            assert_eq!(ours.inputs(), theirs.inputs(), "{place}: {}", ours.name());
            assert_eq!(ours.declared_inputs(), theirs.declared_inputs(), "{place}: {}", ours.name());
            // Of a frozen graph's outputs, the importer may know the shape and TensorFlow not.
            for (ours, theirs) in ours.declared_outputs().iter().zip(theirs.declared_outputs()) {
                let is_unknown = source.format == Format::FrozenGraph && ours.dims.known().is_none();
                let dims = if is_unknown { Dims::unknown() } else { theirs.dims.clone() };
                assert_eq!(*ours, TensorSpec { dims, ..theirs.clone() }, "{place}");
            }
            assert_eq!(ours.declared_outputs().len(), theirs.declared_outputs().len(), "{place}");
            assert_eq!(ours.keeps_state(), theirs.keeps_state(), "{place}: {}", ours.name());
            let dtypes = |specs: &[TensorSpec]| specs.iter().map(|s| s.dtype).collect::<Vec<_>>();
            assert_eq!(dtypes(ours.outputs()), dtypes(theirs.outputs()), "{place}: {}", ours.name());
        }
    }
}

/// Both engines give the same for the same numbers, to float rounding.
#[test]
fn answers_are_those_of_the_importer() -> Result<(), Error> {
    let (Some(engine), Some(folder)) = (engine(), test_data()) else { return Ok(()) };
    let importer = GraphEngine::new(Parts::none());
    for path in ["jena/savedmodel/weather/2", "crayfish", "fraud", "retrain"] {
        for path in models_in(&folder.join(path)) {
            let source = ModelSource::find(&path)?;
            let options = LoadOptions::default();
            let models = [engine.load(&source, &options)?, importer.load(&source, &options)?];
            let signature = models[0].signatures()[0].clone();
            let inputs: Vec<Tensor> = signature.inputs().iter().map(numbers).collect();
            let answers = models
                .iter()
                .map(|model| {
                    let at = model.signatures().iter().position(|found| found.name() == signature.name());
                    model.session()?.run(at.unwrap(), &inputs, &[0])
                })
                .collect::<Result<Vec<_>, Error>>()?;
            let [ours, theirs] = [floats(&answers[0][0]), floats(&answers[1][0])];
            assert_eq!(answers[0][0].shape(), answers[1][0].shape(), "{}", path.display());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(
                    (ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0),
                    "{}: {ours} {theirs}",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

fn models_in(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![folder.to_path_buf()];
    while let Some(at) = queue.pop() {
        if at.join("saved_model.pb").is_file() {
            found.push(at);
            continue;
        }
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|ending| ending.to_str()) {
                _ if path.is_dir() => queue.push(path),
                Some("pb") => found.push(path),
                _ => {}
            }
        }
    }
    assert!(!found.is_empty(), "{}", folder.display());
    found
}

/// Numbers between 0 and 1 for an input, with two rows where rows are open.
fn numbers(spec: &TensorSpec) -> Tensor {
    // The pictures of the one model that does not say how large they are.
    const PICTURE: [Option<usize>; 4] = [Some(1), Some(128), Some(128), Some(3)];
    let dims = spec.dims.known().filter(|dims| **dims != [None; 4]).unwrap_or(&PICTURE).iter().enumerate();
    let dims: Vec<usize> = dims.map(|(axis, dim)| dim.unwrap_or(if axis == 0 { 2 } else { 3 })).collect();
    let n_elements = dims.iter().product::<usize>();
    let all: Vec<f32> = (0..n_elements).map(|at| ((at * 7919) % 1000) as f32 / 1000.0).collect();
    assert_eq!(spec.dtype, DType::F32);
    tensor(&dims, &all)
}

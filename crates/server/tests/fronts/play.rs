//! Models that are played, and a server in front of them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use salver_predict::{
    Answer, BoxFuture, Call, Code, Error, ModelConfig, ModelId, ModelName, ModelSpec, ModelStatus, Models,
    Phases, Predictor, State, Target, Version, VersionChoice, VersionStatus,
};
use salver_server::{Addresses, Config, Limits, Server};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};
use tokio::sync::Semaphore;

/// What a played model does.
#[derive(Debug, Clone)]
enum Role {
    /// Answers with twice its input.
    Double,
    /// As `Double`, when it is let through.
    Gated(Arc<Gate>),
    /// Refuses because it is full.
    Full,
    /// Fails with a long text.
    Broken,
    /// Takes serialised examples and answers with their lengths.
    Lengths,
    /// Answers with the priority, whether there is a caller, and whether there is a deadline.
    Terms,
}

/// Lets calls through one by one.
#[derive(Debug)]
pub(crate) struct Gate {
    entered: Semaphore,
    released: Semaphore,
}

impl Gate {
    /// Waits until a call is inside.
    pub(crate) async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }

    pub(crate) fn release(&self) {
        self.released.add_permits(1);
    }
}

#[derive(Debug)]
struct Played {
    id: ModelId,
    signatures: Vec<Arc<Signature>>,
    role: Role,
}

impl Target for Played {
    fn id(&self) -> &ModelId {
        &self.id
    }

    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn platform(&self) -> &str {
        "played"
    }

    fn predict(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Error>> {
        Box::pin(async move {
            match &self.role {
                Role::Double => {}
                Role::Gated(gate) => {
                    gate.entered.add_permits(1);
                    gate.released.acquire().await.unwrap().forget();
                }
                Role::Full => {
                    let after = Duration::from_millis(1200);
                    return Err(Error::overloaded(Code::Unavailable, "the queue is full", after));
                }
                Role::Broken => return Err(Error::invalid("no".repeat(2000))),
                Role::Lengths => return lengths(&call),
                Role::Terms => return Ok(terms(&call)),
            }
            let input = call.inputs[0].to_slice::<f32>().unwrap();
            let doubled = input.iter().map(|value| value * 2.0).collect();
            let output = Tensor::from_vec(call.inputs[0].shape().clone(), doubled).unwrap();
            let phases = Phases { queue: Duration::from_micros(1), run: Duration::from_micros(3) };
            Ok(Answer { outputs: vec![output], phases, version: None })
        })
    }
}

fn terms(call: &Call) -> Answer {
    let flag = |is_there: bool| if is_there { 1.0 } else { 0.0 };
    let asker = call.asker;
    let terms = vec![f32::from(asker.priority), flag(asker.caller != 0), flag(call.deadline.is_some())];
    let output = Tensor::from_vec(Shape::new(&[3]).unwrap(), terms).unwrap();
    Answer { outputs: vec![output], phases: Phases::default(), version: None }
}

/// `classes` is the examples themselves.
fn lengths(call: &Call) -> Result<Answer, Error> {
    salver_predict::check_inputs(&call.signature, &call.inputs)?;
    let examples = call.inputs[0].strings().unwrap();
    let lengths = examples.iter().map(|example| example.len() as f32).collect::<Vec<_>>();
    let matrix = Shape::new(&[examples.len(), 1]).unwrap();
    let output = |&at: &usize| match &*call.signature.outputs()[at].name {
        "classes" => Tensor::from_strings(matrix.clone(), examples.to_vec()).unwrap(),
        _ => Tensor::from_vec(matrix.clone(), lengths.clone()).unwrap(),
    };
    let phases = Phases { queue: Duration::ZERO, run: Duration::from_micros(1) };
    Ok(Answer { outputs: call.outputs.iter().map(output).collect(), phases, version: None })
}

/// A signature that takes examples.
fn of_examples(name: &str, method: &str, outputs: &[(&str, DType)]) -> Arc<Signature> {
    let tensor = |name: &str, dtype: DType| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype,
        dims: Dims::unknown(),
        default: None,
    };
    let outputs = outputs.iter().map(|(name, dtype)| tensor(name, *dtype)).collect();
    Arc::new(Signature::new(name, method, vec![tensor("inputs", DType::String)], outputs))
}

/// All models, and what was asked of them.
#[derive(Debug)]
pub(crate) struct Stage {
    targets: Vec<Arc<Played>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) ready: AtomicBool,
    pub(crate) reloads: Mutex<Vec<Vec<ModelConfig>>>,
    pub(crate) loads: Mutex<Vec<String>>,
}

fn signature(name: &str) -> Arc<Signature> {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        tensor_name: format!("{name}:0").into(),
        dtype: DType::F32,
        dims: Dims::new(vec![None]),
        default: None,
    };
    Arc::new(Signature::new(name, "tensorflow/serving/predict", vec![tensor("x")], vec![tensor("y")]))
}

impl Stage {
    pub(crate) fn new() -> Arc<Stage> {
        let gate = Arc::new(Gate { entered: Semaphore::new(0), released: Semaphore::new(0) });
        let play = |name: &str, version, role: &Role| {
            let id = ModelId { name: ModelName::new(name).unwrap(), version: Version(version) };
            let signatures = vec![signature("other"), signature("serving_default")];
            Arc::new(Played { id, signatures, role: role.clone() })
        };
        let targets = vec![
            play("broken", 1, &Role::Broken),
            play("double", 1, &Role::Double),
            play("double", 2, &Role::Double),
            play("terms", 1, &Role::Terms),
            play("full", 1, &Role::Full),
            play("gated", 1, &Role::Gated(Arc::clone(&gate))),
            Arc::new(Played {
                id: ModelId { name: ModelName::new("lengths").unwrap(), version: Version(4) },
                signatures: vec![
                    of_examples(
                        "c",
                        "tensorflow/serving/classify",
                        &[("classes", DType::String), ("scores", DType::F32)],
                    ),
                    of_examples("serving_default", "tensorflow/serving/regress", &[("outputs", DType::F32)]),
                ],
                role: Role::Lengths,
            }),
        ];
        Arc::new(Stage {
            targets,
            gate,
            ready: AtomicBool::new(true),
            reloads: Mutex::default(),
            loads: Mutex::default(),
        })
    }

    fn find(&self, spec: &ModelSpec) -> Result<Arc<Played>, Error> {
        let versions = || self.targets.iter().filter(|target| target.id.name == spec.name);
        let (wanted, described) = match &spec.version {
            VersionChoice::Latest => {
                (versions().map(|target| target.id.version.0).max(), format!("Latest({})", spec.name))
            }
            VersionChoice::Number(number) => {
                (u64::try_from(*number).ok(), format!("Specific({}, {number})", spec.name))
            }
            VersionChoice::Label(label) if label == "stable" => (Some(1), String::new()),
            VersionChoice::Label(label) => {
                return Err(Error::invalid(format!("Unrecognized servable version label: {label}")));
            }
        };
        let text = format!("Servable not found for request: {described}");
        let found = versions().find(|target| Some(target.id.version.0) == wanted);
        found.cloned().ok_or_else(|| Error::client(Code::NotFound, text))
    }
}

impl Predictor for Stage {
    fn resolve<'a>(&'a self, spec: &'a ModelSpec) -> BoxFuture<'a, Result<Arc<dyn Target>, Error>> {
        Box::pin(async move { Ok(self.find(spec)? as Arc<dyn Target>) })
    }
}

impl Models for Stage {
    fn list(&self) -> Vec<ModelStatus> {
        let mut models: BTreeMap<ModelName, Vec<VersionStatus>> = BTreeMap::new();
        for target in self.targets.iter().rev() {
            let status = VersionStatus { version: target.id.version, state: State::Available, error: None };
            models.entry(target.id.name.clone()).or_default().push(status);
        }
        let broken = (Code::InvalidArgument, "no such operator".to_owned());
        models.entry(ModelName::new("failed").unwrap()).or_default().push(VersionStatus {
            version: Version(3),
            state: State::End,
            error: Some(broken),
        });
        let labels = |name: &ModelName| match name.as_str() {
            "double" => BTreeMap::from([("stable".to_owned(), Version(1))]),
            _ => BTreeMap::new(),
        };
        models
            .into_iter()
            .map(|(name, versions)| ModelStatus { labels: labels(&name), name, versions, source_error: None })
            .collect()
    }

    fn status(&self, name: &str) -> Option<ModelStatus> {
        self.list().into_iter().find(|model| model.name.as_str() == name)
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn reload(&self, models: Vec<ModelConfig>) -> BoxFuture<'_, Result<(), Error>> {
        self.reloads.lock().unwrap().push(models);
        Box::pin(async { Ok(()) })
    }

    fn load<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        self.loads.lock().unwrap().push(format!("load {name}"));
        let known = self.status(name).is_some();
        Box::pin(async move {
            if known { Ok(()) } else { Err(Error::client(Code::NotFound, format!("no model {name}"))) }
        })
    }

    fn unload<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        self.loads.lock().unwrap().push(format!("unload {name}"));
        Box::pin(async { Ok(()) })
    }
}

/// A server on free ports, on threads of its own.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) stage: Arc<Stage>,
    threads: Vec<JoinHandle<()>>,
}

/// The default on free ports of this machine alone.
pub(crate) fn config() -> Config {
    let any = Some(([127, 0, 0, 1], 0).into());
    Config { grpc: any, rest: any, workers: NonZeroUsize::new(2).unwrap(), ..Config::default() }
}

pub(crate) fn with_limits(limits: Limits) -> Config {
    Config { limits, ..config() }
}

fn drive(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future);
    })
}

impl Running {
    pub(crate) fn start(config: Config) -> Running {
        let stage = Stage::new();
        let registry = prometheus::Registry::new();
        let n_workers = config.workers.get();
        let (predictor, models) = (Arc::clone(&stage), Arc::clone(&stage));
        let server = Server::bind(config, predictor, models, &registry).unwrap();
        let mut threads = vec![drive(server.acceptor())];
        threads.extend((0..n_workers).map(|index| drive(server.worker(index))));
        Running { server, stage, threads }
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        self.server.addresses()
    }

    /// Ends without grace; the threads end.
    pub(crate) async fn stop(self) {
        self.server.shutdown(Duration::ZERO).await;
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

//! A server whose model does as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use salver_predict::{
    Answer, BoxFuture, Call, Code, Error, ModelConfig, ModelId, ModelName, ModelSpec, ModelStatus, Models,
    Phases, Predictor, State, Target, Version, VersionChoice, VersionStatus,
};
use salver_remote::{Balance, Remote, Settings};
use salver_server::{Config, Server};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

/// What the model does with a call.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// `y` is twice `x`, `z` is `x`.
    Double,
    /// `y` is the priority, whether there is a caller, whether there is a deadline.
    Terms,
    Fail(Error),
    /// As `Double`, but fails those that name the version by its number.
    FailNumbered(Error),
    /// As `Double`, once it is released.
    Hold,
}

#[derive(Debug)]
pub(crate) struct Stage {
    /// The only version there is. 10 calls the input `w`; 20 gives `y` in whole numbers, 30 a column of them.
    pub(crate) version: AtomicU64,
    script: Mutex<Script>,
    /// Calls that came.
    pub(crate) n_calls: AtomicUsize,
    /// Look-ups of models that came, those of calls among them.
    pub(crate) n_resolved: AtomicUsize,
    /// Calls that are held.
    pub(crate) held: watch::Sender<usize>,
    released: Semaphore,
    /// While it is taken, look-ups wait.
    pub(crate) resolving: Semaphore,
}

impl Stage {
    pub(crate) fn new(script: Script) -> Arc<Stage> {
        Arc::new(Stage {
            version: AtomicU64::new(1),
            script: Mutex::new(script),
            n_calls: AtomicUsize::new(0),
            n_resolved: AtomicUsize::new(0),
            held: watch::Sender::new(0),
            released: Semaphore::new(0),
            resolving: Semaphore::new(1),
        })
    }

    pub(crate) fn play(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    pub(crate) fn release(&self, n: usize) {
        self.released.add_permits(n);
    }

    pub(crate) fn n_calls(&self) -> usize {
        self.n_calls.load(Ordering::SeqCst)
    }

    /// Waits until so many calls are held.
    pub(crate) async fn holds(&self, n: usize) {
        self.held.subscribe().wait_for(|held| *held == n).await.unwrap();
    }
}

#[derive(Debug)]
struct Played {
    stage: Arc<Stage>,
    id: ModelId,
    is_numbered: bool,
    signatures: Vec<Arc<Signature>>,
}

fn tensor(name: &str) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        tensor_name: format!("{name}:0").into(),
        dtype: DType::F32,
        dims: Dims::new(vec![None]),
        default: None,
    }
}

fn signature(name: &str, version: u64) -> Arc<Signature> {
    let input = tensor(if version == 10 { "w" } else { "x" });
    let y = match version {
        20 => TensorSpec { dtype: DType::I64, ..tensor("y") },
        30 => TensorSpec { dims: Dims::new(vec![None, Some(1)]), ..tensor("y") },
        _ => tensor("y"),
    };
    Arc::new(Signature::new(name, "tensorflow/serving/predict", vec![input], vec![y, tensor("z")]))
}

/// `y` as a version gives it.
fn answer(version: u64, y: &[f32]) -> Tensor {
    match version {
        20 => {
            let whole = y.iter().map(|&value| value as i64).collect();
            Tensor::from_vec(Shape::new(&[y.len()]).unwrap(), whole).unwrap()
        }
        30 => Tensor::from_vec(Shape::new(&[y.len(), 1]).unwrap(), y.to_vec()).unwrap(),
        _ => vector(y),
    }
}

pub(crate) fn vector(elements: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(&[elements.len()]).unwrap(), elements.to_vec()).unwrap()
}

/// The stage as fronts hold it.
#[derive(Debug)]
struct Front(Arc<Stage>);

impl Predictor for Front {
    fn resolve<'a>(&'a self, spec: &'a ModelSpec) -> BoxFuture<'a, Result<Arc<dyn Target>, Error>> {
        Box::pin(async move {
            let stage = &self.0;
            stage.n_resolved.fetch_add(1, Ordering::SeqCst);
            drop(stage.resolving.acquire().await.unwrap());
            let version = stage.version.load(Ordering::SeqCst);
            let is_there = match &spec.version {
                VersionChoice::Latest => true,
                VersionChoice::Number(number) => u64::try_from(*number) == Ok(version),
                VersionChoice::Label(label) => label == "stable",
            };
            if spec.name.as_str() != "double" || !is_there {
                return Err(Error::client(Code::NotFound, "Servable not found for request"));
            }
            let signatures = vec![signature("other", version), signature("serving_default", version)];
            let id = ModelId { name: spec.name.clone(), version: Version(version) };
            let is_numbered = matches!(spec.version, VersionChoice::Number(_));
            Ok(Arc::new(Played { stage: Arc::clone(stage), id, is_numbered, signatures }) as Arc<dyn Target>)
        })
    }
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
            let stage = &self.stage;
            stage.n_calls.fetch_add(1, Ordering::SeqCst);
            let script = stage.script.lock().unwrap().clone();
            let given = call.inputs[0].to_slice::<f32>().unwrap().into_owned();
            let y = match script {
                Script::FailNumbered(error) if self.is_numbered => return Err(error),
                Script::Double | Script::FailNumbered(_) => given.iter().map(|value| value * 2.0).collect(),
                Script::Terms => {
                    let flag = |is_there: bool| f32::from(u8::from(is_there));
                    let asker = call.asker;
                    vec![f32::from(asker.priority), flag(asker.caller != 0), flag(call.deadline.is_some())]
                }
                Script::Fail(error) => return Err(error),
                Script::Hold => {
                    let _held = Held::new(stage);
                    stage.released.acquire().await.unwrap().forget();
                    given.iter().map(|value| value * 2.0).collect()
                }
            };
            let version = self.id.version.0;
            let of = |&at: &usize| if at == 0 { answer(version, &y) } else { vector(&given) };
            let outputs = call.outputs.iter().map(of).collect();
            Ok(Answer { outputs, phases: Phases::default(), version: None })
        })
    }
}

/// Counts a call as held until it is dropped.
struct Held<'a>(&'a Stage);

impl Held<'_> {
    fn new(stage: &Stage) -> Held<'_> {
        stage.held.send_modify(|held| *held += 1);
        Held(stage)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
    }
}

impl Models for Stage {
    fn list(&self) -> Vec<ModelStatus> {
        Vec::new()
    }

    fn status(&self, name: &str) -> Option<ModelStatus> {
        let version = Version(self.version.load(Ordering::SeqCst));
        let versions = vec![VersionStatus { version, state: State::Available, error: None }];
        let name = ModelName::new(name)?;
        Some(ModelStatus { name, versions, labels: BTreeMap::new(), source_error: None })
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn reload(&self, _: Vec<ModelConfig>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn load<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn unload<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// A server on threads of its own.
pub(crate) struct Running {
    server: Server,
    pub(crate) stage: Arc<Stage>,
    threads: Vec<JoinHandle<()>>,
}

fn drive(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future);
    })
}

impl Running {
    pub(crate) fn start(script: Script) -> Running {
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        Running::with(Stage::new(script), Config { grpc: any, rest: any, ..Config::default() })
    }

    pub(crate) fn with(stage: Arc<Stage>, config: Config) -> Running {
        let registry = prometheus::Registry::new();
        let front = Arc::new(Front(Arc::clone(&stage)));
        let server = Server::bind(config, front, Arc::clone(&stage) as Arc<dyn Models>, &registry).unwrap();
        let threads = vec![drive(server.acceptor()), drive(server.worker(0))];
        Running { server, stage, threads }
    }

    /// Once more where one was, on the same port.
    pub(crate) fn again(grpc: SocketAddr, script: Script) -> Running {
        Running::with(Stage::new(script), Config { grpc: Some(grpc), rest: None, ..Config::default() })
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.server.addresses().grpc.unwrap()
    }

    pub(crate) fn rest(&self) -> SocketAddr {
        self.server.addresses().rest.unwrap()
    }

    pub(crate) fn unix(&self) -> PathBuf {
        self.server.addresses().grpc_unix.clone().unwrap()
    }

    /// Ends at once, with what is under way.
    pub(crate) async fn stop(self) {
        self.server.shutdown(Duration::ZERO).await;
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Settings with these addresses, impatient with servers that fail.
pub(crate) fn settings(addresses: &[String]) -> Settings {
    let balance = Balance {
        ejection: Duration::from_millis(2),
        max_ejection: Duration::from_millis(50),
        max_reconnect: Duration::from_millis(50),
        ..Balance::default()
    };
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Settings { addresses, balance, ..Settings::default() }
}

pub(crate) fn remote(addresses: &[SocketAddr]) -> Remote {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    Remote::new(settings(&addresses)).unwrap()
}

/// Runs a test; one that hangs fails.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.unwrap() });
}

pub(crate) fn latest() -> ModelSpec {
    ModelSpec { name: ModelName::new("double").unwrap(), version: VersionChoice::Latest }
}

/// A call of the default signature for output `y`.
pub(crate) fn call(target: &dyn Target, elements: &[f32]) -> Call {
    let signature = Arc::clone(target.signature("").unwrap());
    Call {
        signature,
        inputs: vec![vector(elements)],
        outputs: vec![0],
        deadline: None,
        asker: salver_predict::Asker::default(),
    }
}

/// Resolves and asks.
pub(crate) async fn ask(remote: &Remote, elements: &[f32]) -> Result<Answer, Error> {
    let target = remote.resolve(&latest()).await?;
    let call = call(&*target, elements);
    target.predict(call).await
}

/// Asks so often at once.
pub(crate) fn start(remote: &Arc<Remote>, n: usize) -> Vec<AbortOnDropHandle<()>> {
    let one = |_| {
        let remote = Arc::clone(remote);
        let asked = async move { ask_good(&remote).await };
        AbortOnDropHandle::new(tokio::runtime::Handle::current().spawn(asked))
    };
    (0..n).map(one).collect()
}

/// Waits for all of them.
pub(crate) async fn finish(calls: Vec<AbortOnDropHandle<()>>) {
    for call in calls {
        call.await.unwrap();
    }
}

/// Asks for the double of 4.
pub(crate) async fn ask_good(remote: &Remote) {
    let answer = ask(remote, &[4.0]).await.unwrap();
    assert_eq!(answer.outputs, [vector(&[8.0])]);
}

//! A model that is a closure over rows, a mapping of numbers as text, and windows in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use salver_predict::{
    Answer, Blame, BoxFuture, Call, Code, Error, ModelId, ModelName, ModelSpec, Phases, Predictor, Target,
    Version, VersionChoice,
};
use salver_records::{Error as PartError, Outgoing, Output, Partition, Record, Severity};
use salver_tensor::{DEFAULT_SIGNATURE, DType, Dims, Shape, Signature, Tensor, TensorSpec};

use super::broker::{Broker, Kept};
use crate::{
    About, Class, Mapped, Mapping, Plan, PushError, Pushed, Refused, Restoration, Restored, Windows, Written,
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

type Rows = dyn Fn(&[f32]) -> Result<Vec<f32>, Error> + Send + Sync;

pub(super) fn model_spec() -> ModelSpec {
    ModelSpec { name: ModelName::new("m").unwrap(), version: VersionChoice::Latest }
}

fn signature(n_columns: Option<usize>) -> Signature {
    let spec = |name: &str, dims| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims: Dims::new(dims),
        default: None,
    };
    let inputs = vec![spec("x", std::iter::once(None).chain(n_columns.map(Some)).collect())];
    Signature::new(DEFAULT_SIGNATURE, "", inputs, vec![spec("y", vec![None])])
}

/// Calls that a test lets through one by one.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn let_through(&self, n: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 += n;
        self.changed.notify_all();
    }

    pub(super) fn open(&self) {
        self.let_through(usize::MAX / 2);
    }

    /// Waits until so many calls wait.
    pub(super) fn wait_for_waiting(&self, n: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |(_, n_waiting)| *n_waiting < n);
        assert!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out());
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        self.changed.notify_all();
        let mut state = self
            .changed
            .wait_while(state, |(n_free, _)| *n_free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *state = (state.0 - 1, state.1 - 1);
        self.changed.notify_all();
    }
}

#[derive(Debug, Default)]
struct Script {
    version: u64,
    n_calls_to_fail: usize,
    code: Option<Code>,
    n_resolves_to_fail: usize,
    n_resolves_to_hang: usize,
    resolves_later: bool,
    panics: bool,
    /// A version that there is not any more.
    gone: Option<i64>,
}

/// A predictor of one model, whose versions all do the same.
pub(super) struct FnPredictor {
    rows: Arc<Rows>,
    signature: Arc<Signature>,
    script: Arc<Mutex<Script>>,
    /// Which version waits at it, all if `None`.
    gate: Option<(Option<u64>, Arc<Gate>)>,
}

impl std::fmt::Debug for FnPredictor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FnPredictor")
    }
}

impl FnPredictor {
    fn with(
        rows: Arc<Rows>,
        signature: Signature,
        gate: Option<(Option<u64>, Arc<Gate>)>,
    ) -> Arc<FnPredictor> {
        let script = Arc::new(Mutex::new(Script { version: 1, ..Script::default() }));
        Arc::new(FnPredictor { rows, signature: Arc::new(signature), script, gate })
    }

    pub(super) fn new(
        rows: impl Fn(&[f32]) -> Result<Vec<f32>, Error> + Send + Sync + 'static,
    ) -> Arc<FnPredictor> {
        FnPredictor::with(Arc::new(rows), signature(None), None)
    }

    pub(super) fn doubling() -> Arc<FnPredictor> {
        FnPredictor::new(|rows| Ok(rows.iter().map(|row| 2.0 * row).collect()))
    }

    /// Sums up windows of three rows.
    pub(super) fn summing() -> Arc<FnPredictor> {
        let sum = |rows: &[f32]| Ok(rows.chunks(3).map(|window| window.iter().sum()).collect());
        FnPredictor::with(Arc::new(sum), signature(Some(3)), None)
    }

    pub(super) fn gated() -> (Arc<FnPredictor>, Arc<Gate>) {
        FnPredictor::gate(None)
    }

    pub(super) fn gated_for(version: u64) -> (Arc<FnPredictor>, Arc<Gate>) {
        FnPredictor::gate(Some(version))
    }

    fn gate(version: Option<u64>) -> (Arc<FnPredictor>, Arc<Gate>) {
        let gate = Arc::<Gate>::default();
        let double = |rows: &[f32]| Ok(rows.iter().map(|row| 2.0 * row).collect());
        (FnPredictor::with(Arc::new(double), signature(None), Some((version, Arc::clone(&gate)))), gate)
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fail_next(&self, n: usize, code: Code) {
        let mut script = self.script();
        (script.n_calls_to_fail, script.code) = (n, Some(code));
    }

    pub(super) fn fail_resolves(&self, n: usize) {
        self.script().n_resolves_to_fail = n;
    }

    /// So many look-ups never end.
    pub(super) fn hang_resolves(&self, n: usize) {
        self.script().n_resolves_to_hang = n;
    }

    pub(super) fn panic_at_resolves(&self) {
        self.script().panics = true;
    }

    /// There is no such version any more, or there is again.
    pub(super) fn take_away(&self, version: Option<i64>) {
        self.script().gone = version;
    }

    pub(super) fn resolve_later(&self) {
        self.script().resolves_later = true;
    }

    pub(super) fn set_version(&self, version: u64) {
        self.script().version = version;
    }
}

impl Predictor for FnPredictor {
    fn resolve<'a>(&'a self, spec: &'a ModelSpec) -> BoxFuture<'a, Result<Arc<dyn Target>, Error>> {
        Box::pin(async move {
            let (fails, hangs, later, latest, panics) = {
                let mut script = self.script();
                let is_gone =
                    matches!(spec.version, VersionChoice::Number(number) if script.gone == Some(number));
                let fails = script.n_resolves_to_fail > 0 || is_gone;
                let hangs = script.n_resolves_to_hang > 0;
                script.n_resolves_to_fail = script.n_resolves_to_fail.saturating_sub(1);
                script.n_resolves_to_hang = script.n_resolves_to_hang.saturating_sub(1);
                (fails, hangs, script.resolves_later, script.version, script.panics)
            };
            if later {
                tokio::task::yield_now().await;
            }
            assert!(!panics, "as the test wants it");
            if hangs {
                std::future::pending::<()>().await;
            }
            if fails {
                return Err(Error::client(Code::NotFound, "not yet"));
            }
            let version = match spec.version {
                VersionChoice::Number(version) => u64::try_from(version).unwrap(),
                _ => latest,
            };
            let id = ModelId { name: spec.name.clone(), version: Version(version) };
            Ok(Arc::new(FnTarget {
                id,
                signatures: [Arc::clone(&self.signature)],
                rows: Arc::clone(&self.rows),
                script: Arc::clone(&self.script),
                gate: self
                    .gate
                    .as_ref()
                    .filter(|(of, _)| of.is_none_or(|of| of == version))
                    .map(|(_, gate)| Arc::clone(gate)),
            }) as Arc<dyn Target>)
        })
    }
}

struct FnTarget {
    id: ModelId,
    signatures: [Arc<Signature>; 1],
    rows: Arc<Rows>,
    script: Arc<Mutex<Script>>,
    gate: Option<Arc<Gate>>,
}

impl std::fmt::Debug for FnTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FnTarget({:?})", self.id)
    }
}

impl Target for FnTarget {
    fn id(&self) -> &ModelId {
        &self.id
    }

    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn platform(&self) -> &str {
        "closure"
    }

    fn predict(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Error>> {
        Box::pin(async move {
            if let Some(gate) = &self.gate {
                gate.pass();
            }
            {
                let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(code) = script.code.filter(|_| script.n_calls_to_fail > 0) {
                    script.n_calls_to_fail -= 1;
                    return Err(Error::new(code, Blame::Peer, "for now"));
                }
            }
            let rows = call.inputs[0].to_slice::<f32>().unwrap();
            let answers = (self.rows)(&rows)?;
            let shape = Shape::vector(answers.len()).unwrap();
            let outputs = vec![Tensor::from_vec(shape, answers).unwrap()];
            Ok(Answer { outputs, phases: Phases::default(), version: None })
        })
    }
}

/// A number as text to one row, and one number back.
#[derive(Debug, Default)]
pub(super) struct Doubler {
    pub(super) misfit: Option<String>,
    /// The value that cannot be read for now.
    pub(super) away: Arc<Mutex<Option<&'static str>>>,
}

impl Mapping for Doubler {
    fn plan(&self, _: &Signature) -> Result<Arc<dyn Plan>, String> {
        let plan = || Arc::new(NumberPlan { away: Arc::clone(&self.away) }) as Arc<dyn Plan>;
        self.misfit.clone().map_or_else(|| Ok(plan()), Err)
    }
}

#[derive(Debug)]
struct NumberPlan {
    away: Arc<Mutex<Option<&'static str>>>,
}

impl Plan for NumberPlan {
    fn read(&self, record: &Record) -> Result<Option<Mapped>, Refused> {
        let text = std::str::from_utf8(record.value.as_ref().unwrap()).unwrap();
        let refused = |class, message: &str| Refused { class, message: message.into(), is_passing: false };
        if *self.away.lock().unwrap_or_else(PoisonError::into_inner) == Some(text) {
            return Err(Refused { is_passing: true, ..refused(Class::Schema, "away") });
        }
        if text.contains(' ') {
            return Err(refused(Class::Shape, "two numbers"));
        }
        let number: f32 = text.parse().map_err(|_| refused(Class::Format, "no number"))?;
        let input = Tensor::from_vec(Shape::vector(1).unwrap(), vec![number]).unwrap();
        Ok(Some(Mapped { inputs: vec![input], fields: Box::new(()) }))
    }

    fn write(&self, _: &Record, _: &Mapped, outputs: &[Tensor], _: &About<'_>) -> Result<Written, Refused> {
        let rows = outputs[0].to_slice::<f32>().unwrap();
        assert_eq!(rows.len(), 1);
        Ok(Written { value: Some(Bytes::from(rows[0].to_string())), content_type: Some("text/plain") })
    }

    fn outputs(&self) -> &[usize] {
        &[0]
    }
}

/// What the pipeline told of commits.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) committed: AtomicI64,
}

/// Per key, the numbers by offset.
pub(super) type KeyRows = HashMap<Vec<u8>, BTreeMap<i64, f32>>;

/// What a changelog says, where each number is its offset.
fn restored(kept: &[Kept]) -> KeyRows {
    let mut rows = KeyRows::new();
    for change in kept.iter().filter(|kept| kept.output == Output::Changelog) {
        let offset = std::str::from_utf8(change.value.as_ref().unwrap()).unwrap().parse().unwrap();
        rows.entry(change.key.as_ref().unwrap().to_vec()).or_default().insert(offset, offset as f32);
    }
    rows
}

/// Windows of numbers per key, in memory.
#[derive(Debug)]
pub(super) struct RowWindows {
    pub(super) n_rows: usize,
    pub(super) rows: KeyRows,
    pub(super) ledger: Arc<Ledger>,
    /// The partition whose restoration waits there.
    pub(super) slow: Option<(i32, Arc<Gate>)>,
    /// How many times each restoration fails.
    pub(super) n_to_fail: usize,
    /// Where windows are restored from, if they are.
    pub(super) changelog: Option<Arc<Broker>>,
}

impl RowWindows {
    pub(super) fn new(n_rows: usize) -> RowWindows {
        RowWindows {
            n_rows,
            rows: KeyRows::new(),
            ledger: Arc::default(),
            slow: None,
            n_to_fail: 0,
            changelog: None,
        }
    }

    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }
}

impl Windows for RowWindows {
    fn input(&self) -> &str {
        "x"
    }

    fn restoration(&mut self, partition: &Partition) -> Result<Restoration, String> {
        let slow = self.slow.as_ref().filter(|(number, _)| *number == partition.number);
        let gate = slow.map(|(_, gate)| Arc::clone(gate));
        let (number, mut n_left) = (partition.number, self.n_to_fail);
        let changelog = self.changelog.clone();
        Ok(Box::new(move |is_wanted| {
            if n_left > 0 {
                n_left -= 1;
                return Err(PartError::new(Severity::Passing, "the changelog is away"));
            }
            gate.iter().for_each(|gate| gate.pass());
            assert!(is_wanted());
            let rows = changelog.as_ref().map(|broker| restored(&broker.kept())).unwrap_or_default();
            Ok(Box::new((number, rows)))
        }))
    }

    fn assign(&mut self, partition: &Partition, restored: Restored) -> Result<(), String> {
        let (number, rows) = *restored.downcast::<(i32, KeyRows)>().unwrap();
        assert_eq!(number, partition.number);
        self.rows.extend(rows);
        Ok(())
    }

    fn push(
        &mut self,
        _: &Partition,
        key: &[u8],
        offset: i64,
        _: Option<i64>,
        row: &Tensor,
    ) -> Result<Pushed, PushError> {
        let rows = self.rows.entry(key.to_vec()).or_default();
        assert!(rows.keys().next_back().is_none_or(|last| *last < offset), "rows come in order");
        rows.insert(offset, row.as_slice::<f32>().unwrap()[0]);
        let last: Vec<f32> = rows.values().rev().take(self.n_rows).rev().copied().collect();
        let is_whole = last.len() == self.n_rows;
        let window =
            is_whole.then(|| Tensor::from_vec(Shape::new(&[1, self.n_rows]).unwrap(), last).unwrap());
        let change = Outgoing {
            output: Output::Changelog,
            partition: Some(0),
            key: Some(Bytes::copy_from_slice(key)),
            value: Some(Bytes::from(offset.to_string())),
            headers: Vec::new(),
            timestamp_ms: None,
        };
        Ok(Pushed { window, changes: vec![change] })
    }

    fn committed(&mut self, _: &Partition, next: i64) -> Result<(), String> {
        self.ledger.committed.fetch_max(next, SeqCst);
        Ok(())
    }

    fn rewind(&mut self, _: &Partition, next: i64) -> Result<(), String> {
        self.rows.values_mut().for_each(|rows| rows.retain(|offset, _| *offset < next));
        Ok(())
    }

    fn release(&mut self, _: &Partition) {
        self.rows.clear();
    }

    fn n_bytes(&self) -> u64 {
        0
    }
}

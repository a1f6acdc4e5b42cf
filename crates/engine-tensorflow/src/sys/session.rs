//! A graph that TensorFlow holds, ready to run.

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use super::api::{Api, TfGraph, TfImportOptions, TfOutput, TfSession, TfSessionOptions, TfTensor};
use super::{Buffer, Failure, Status, TensorFlow, Value, c_string};

/// One output of a node of a [`Session`]'s graph: a position in the session's list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port(usize);

/// What a run of a [`Session`] feeds and fetches: a position in the session's list of such calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call(usize);

/// A graph with its variables and tables. Runs may be made from several threads at once.
pub(crate) struct Session {
    tensorflow: TensorFlow,
    session: NonNull<TfSession>,
    graph: Graph,
    ports: Vec<TfOutput>,
    /// What is fed and what is fetched.
    calls: Vec<(Vec<TfOutput>, Vec<TfOutput>)>,
}

// SAFETY: TensorFlow's sessions and graphs are made to be used from any thread; ports point into the graph, which lives as
// long as the session and is not changed.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("ports", &self.ports.len()).finish_non_exhaustive()
    }
}

struct Graph {
    api: &'static Api,
    raw: NonNull<TfGraph>,
}

impl Graph {
    fn new(api: &'static Api) -> Result<Graph, Failure> {
        // SAFETY: no preconditions.
        let raw = NonNull::new(unsafe { (api.TF_NewGraph)() });
        raw.map(|raw| Graph { api, raw }).ok_or_else(|| Failure::internal("no graph could be made"))
    }

    fn as_ptr(&self) -> *mut TfGraph {
        self.raw.as_ptr()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by TF_NewGraph, deleted once; sessions of it keep it until they are deleted too.
        unsafe { (self.api.TF_DeleteGraph)(self.as_ptr()) };
    }
}

struct SessionOptions {
    api: &'static Api,
    raw: NonNull<TfSessionOptions>,
}

impl SessionOptions {
    fn new(api: &'static Api, config: &[u8]) -> Result<SessionOptions, Failure> {
        // SAFETY: no preconditions.
        let raw = NonNull::new(unsafe { (api.TF_NewSessionOptions)() });
        let raw = raw.ok_or_else(|| Failure::internal("no session options could be made"))?;
        let (options, status) = (SessionOptions { api, raw }, Status::new(api)?);
        // SAFETY: the bytes are read during the call.
        unsafe { (api.TF_SetConfig)(raw.as_ptr(), config.as_ptr().cast(), config.len(), status.as_ptr()) };
        status.check()?;
        Ok(options)
    }
}

impl Drop for SessionOptions {
    fn drop(&mut self) {
        // SAFETY: made by TF_NewSessionOptions, deleted once.
        unsafe { (self.api.TF_DeleteSessionOptions)(self.raw.as_ptr()) };
    }
}

struct ImportOptions {
    api: &'static Api,
    raw: NonNull<TfImportOptions>,
}

impl ImportOptions {
    fn new(api: &'static Api) -> Result<ImportOptions, Failure> {
        // SAFETY: no preconditions.
        let raw = NonNull::new(unsafe { (api.TF_NewImportGraphDefOptions)() });
        raw.map(|raw| ImportOptions { api, raw }).ok_or_else(|| Failure::internal("no options could be made"))
    }
}

impl Drop for ImportOptions {
    fn drop(&mut self) {
        // SAFETY: made by TF_NewImportGraphDefOptions, deleted once.
        unsafe { (self.api.TF_DeleteImportGraphDefOptions)(self.raw.as_ptr()) };
    }
}

impl TensorFlow {
    /// Loads the graph with these tags, restores its variables and runs its initialisers. `config` is an encoded
    /// `ConfigProto`. Blocks.
    pub(crate) fn load_saved_model(
        self,
        folder: &Path,
        tags: &[String],
        config: &[u8],
    ) -> Result<Session, Failure> {
        let api = self.0;
        let (graph, status) = (Graph::new(api)?, Status::new(api)?);
        let options = SessionOptions::new(api, config)?;
        let folder = CString::new(folder.as_os_str().as_bytes())
            .map_err(|_| Failure::invalid("the path holds a zero byte"))?;
        let tags = tags.iter().map(|tag| c_string(tag)).collect::<Result<Vec<CString>, _>>()?;
        let tags: Vec<*const c_char> = tags.iter().map(|tag| tag.as_ptr()).collect();
        // SAFETY: all pointers are to what lives here; the graph is new; run options and the buffer for the description may
        // be null.
        let session = unsafe {
            (api.TF_LoadSessionFromSavedModel)(
                options.raw.as_ptr(),
                std::ptr::null(),
                folder.as_ptr(),
                tags.as_ptr(),
                count(tags.len())?,
                graph.as_ptr(),
                std::ptr::null_mut(),
                status.as_ptr(),
            )
        };
        self.finish(&status, session, graph)
    }

    /// Loads an encoded `GraphDef`. Blocks.
    pub(crate) fn load_graph(self, graph_def: &[u8], config: &[u8]) -> Result<Session, Failure> {
        let api = self.0;
        let (graph, status) = (Graph::new(api)?, Status::new(api)?);
        let options = SessionOptions::new(api, config)?;
        {
            let (import, buffer) = (ImportOptions::new(api)?, Buffer::new(api, graph_def)?);
            let (import, buffer) = (import.raw.as_ptr(), buffer.as_ptr());
            // SAFETY: all pointers are to what lives here.
            unsafe { (api.TF_GraphImportGraphDef)(graph.as_ptr(), buffer, import, status.as_ptr()) };
        }
        status.check()?;
        // SAFETY: as above.
        let session = unsafe { (api.TF_NewSession)(graph.as_ptr(), options.raw.as_ptr(), status.as_ptr()) };
        self.finish(&status, session, graph)
    }

    fn finish(self, status: &Status, session: *mut TfSession, graph: Graph) -> Result<Session, Failure> {
        status.check()?;
        let session = NonNull::new(session).ok_or_else(|| Failure::internal("no session could be made"))?;
        let session = Session { tensorflow: self, session, graph, ports: Vec::new(), calls: Vec::new() };
        // Now and for good: otherwise each run looks for new nodes, holding a lock.
        // SAFETY: the session lives.
        unsafe { (self.0.TF_ExtendSession)(session.session.as_ptr(), status.as_ptr()) };
        status.check()?;
        Ok(session)
    }
}

impl Session {
    /// The library that holds the session.
    pub(crate) fn tensorflow(&self) -> TensorFlow {
        self.tensorflow
    }

    /// That output of that node; `None` when there is no such one.
    pub(crate) fn port(&mut self, node: &str, output: usize) -> Option<Port> {
        let api = self.tensorflow.0;
        let name = CString::new(node).ok()?;
        // SAFETY: graph and name live.
        let oper = unsafe { (api.TF_GraphOperationByName)(self.graph.as_ptr(), name.as_ptr()) };
        // SAFETY: the operation is one of the graph's, if there is one.
        let n_outputs = if oper.is_null() { 0 } else { unsafe { (api.TF_OperationNumOutputs)(oper) } };
        let index = c_int::try_from(output).ok().filter(|&index| index < n_outputs)?;
        let found = TfOutput { oper, index };
        let at = self.ports.iter().position(|known| *known == found);
        let at = at.unwrap_or_else(|| {
            self.ports.push(found);
            self.ports.len() - 1
        });
        Some(Port(at))
    }

    /// The number of the element type, of a reference 100 more.
    pub(crate) fn dtype(&self, port: Port) -> i32 {
        // SAFETY: ports are outputs of the graph.
        unsafe { (self.tensorflow.0.TF_OperationOutputType)(self.output(port)) }
    }

    /// The dimensions as far as the graph tells: `None` for an unknown number of them.
    pub(crate) fn dims(&self, port: Port) -> Result<Option<Vec<Option<usize>>>, Failure> {
        let (api, graph, output) = (self.tensorflow.0, self.graph.as_ptr(), self.output(port));
        let status = Status::new(api)?;
        // SAFETY: the output is one of the graph's.
        let rank = unsafe { (api.TF_GraphGetTensorNumDims)(graph, output, status.as_ptr()) };
        status.check()?;
        let Ok(n_dims) = usize::try_from(rank) else { return Ok(None) };
        let mut dims = vec![-1i64; n_dims];
        // SAFETY: there is room for as many dimensions as the output has.
        unsafe { (api.TF_GraphGetTensorShape)(graph, output, dims.as_mut_ptr(), rank, status.as_ptr()) };
        status.check()?;
        Ok(Some(dims.into_iter().map(|dim| usize::try_from(dim).ok()).collect()))
    }

    fn output(&self, port: Port) -> TfOutput {
        // Ports are made by one session and used with it; the position is checked all the same.
        self.ports[port.0]
    }

    /// A call that feeds and fetches these.
    pub(crate) fn call(&mut self, feeds: &[Port], fetches: &[Port]) -> Call {
        let outputs = |ports: &[Port]| ports.iter().map(|&port| self.output(port)).collect::<Vec<_>>();
        let call = (outputs(feeds), outputs(fetches));
        self.calls.push(call);
        Call(self.calls.len() - 1)
    }

    /// Feeds the values, in the order of the call's feeds, and gives what it fetches. Blocks.
    ///
    /// Variables of TensorFlow 1 are changed in place while a fetched tensor may be their memory: whoever fetches from such
    /// a model copies what it gets before another run may change it.
    pub(crate) fn run(&self, call: Call, values: &[Value]) -> Result<Vec<Value>, Failure> {
        let (inputs, outputs) = &self.calls[call.0];
        if inputs.len() != values.len() {
            return Err(Failure::internal("as many values as feeds are needed"));
        }
        let api = self.tensorflow.0;
        let status = Status::new(api)?;
        let given: Vec<*mut TfTensor> = values.iter().map(Value::as_ptr).collect();
        let mut results = vec![std::ptr::null_mut::<TfTensor>(); outputs.len()];
        // SAFETY: session, tensors and lists live; the lists are as long as said; null means the usual options, no targets
        // and no metadata.
        unsafe {
            (api.TF_SessionRun)(
                self.session.as_ptr(),
                std::ptr::null(),
                inputs.as_ptr(),
                given.as_ptr(),
                count(inputs.len())?,
                outputs.as_ptr(),
                results.as_mut_ptr(),
                count(outputs.len())?,
                std::ptr::null(),
                0,
                std::ptr::null_mut(),
                status.as_ptr(),
            );
        }
        // SAFETY: what a run gives is the caller's; where it fails, all is null.
        let results = results.into_iter().filter_map(|raw| unsafe { Value::from_raw(api, raw) });
        let results: Vec<Value> = results.collect();
        status.check()?;
        if results.len() != outputs.len() {
            return Err(Failure::internal("a run gave too few results"));
        }
        Ok(results)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let api = self.tensorflow.0;
        let Ok(status) = Status::new(api) else { return };
        // SAFETY: nobody runs it: every run borrows the session.
        unsafe {
            (api.TF_CloseSession)(self.session.as_ptr(), status.as_ptr());
            (api.TF_DeleteSession)(self.session.as_ptr(), status.as_ptr());
        }
    }
}

fn count(len: usize) -> Result<c_int, Failure> {
    c_int::try_from(len).map_err(|_| Failure::invalid("too many of them"))
}

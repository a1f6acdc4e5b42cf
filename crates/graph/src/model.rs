//! What an importer gives: one graph per signature, and what they share.

use std::collections::BTreeSet;

use salver_tensor::{DType, Dims, Tensor};

use crate::{Error, Graph, ValueId, passes};

/// An imported model.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The signatures that can be run.
    pub signatures: Vec<SignatureGraph>,
    /// Signatures that cannot, with the reason; the others are not harmed.
    pub refused: Vec<(String, Error)>,
    /// What signatures change from one run to the next.
    pub state: Vec<State>,
    /// What the importer did that a person may want to know.
    pub notes: Vec<String>,
}

impl Model {
    /// Leaves out state that no answer of any signature can ever depend on, such as the counter of random numbers behind
    /// a dropout that does nothing when it serves. Positions in [`Model::state`] stay.
    pub fn drop_unseen_state(&mut self) {
        if self.state.is_empty() {
            return;
        }
        let mut seen = BTreeSet::new();
        loop {
            let before = seen.len();
            for signature in &self.signatures {
                seen.extend(signature.state_read(&seen));
            }
            if seen.len() == before {
                break;
            }
        }
        for signature in &mut self.signatures {
            signature.state_outputs.retain(|(at, _)| seen.contains(at));
            signature.drop_idle_state();
        }
    }
}

/// One signature as a pure computation.
#[derive(Debug, Clone)]
pub struct SignatureGraph {
    /// The name, such as `serving_default`.
    pub name: String,
    /// TensorFlow's method name, such as `tensorflow/serving/predict`.
    pub method_name: String,
    /// What clients give.
    pub inputs: Vec<Port>,
    /// What clients get.
    pub outputs: Vec<Port>,
    /// The computation. Its inputs are those of `inputs` and of `state_inputs`, its outputs those of `outputs` and
    /// of `state_outputs`, by value.
    pub graph: Graph,
    /// Values that stand for a variable's content before the run: position in [`Model::state`], value.
    pub state_inputs: Vec<(usize, ValueId)>,
    /// Values that are a variable's content after the run.
    pub state_outputs: Vec<(usize, ValueId)>,
}

impl SignatureGraph {
    /// The state that the answers depend on, and the new content of the state that is `seen`.
    fn state_read(&self, seen: &BTreeSet<usize>) -> Vec<usize> {
        let mut signature = self.clone();
        signature.state_outputs.retain(|(at, _)| seen.contains(at));
        signature.drop_idle_state();
        signature.state_inputs.into_iter().map(|(at, _)| at).collect()
    }

    /// Drops new content that is the old, and inputs and outputs for state that nothing uses.
    pub(crate) fn drop_idle_state(&mut self) {
        let before = &self.state_inputs;
        self.state_outputs.retain(|output| !before.contains(output));
        let needed = |id: ValueId| {
            self.outputs.iter().any(|port| port.value == id)
                || self.state_outputs.iter().any(|(_, v)| *v == id)
        };
        let body = &mut self.graph.body;
        let keep: Vec<bool> = body.outputs.iter().map(|&id| needed(id)).collect();
        let mut at = keep.iter();
        body.outputs.retain(|_| at.next().copied().unwrap_or(true));
        let mut at = keep.iter();
        self.graph.output_names.retain(|_| at.next().copied().unwrap_or(true));
        passes::dead_code(&mut self.graph);
        let used = passes::used(&self.graph);
        let idle: Vec<ValueId> =
            self.state_inputs.iter().map(|(_, id)| *id).filter(|id| !used[id.index()]).collect();
        self.state_inputs.retain(|(_, id)| !idle.contains(id));
        self.graph.body.inputs.retain(|id| !idle.contains(id));
    }
}

/// An input or output of a signature.
#[derive(Debug, Clone)]
pub struct Port {
    /// The name that clients use.
    pub name: String,
    /// The name of the tensor inside the model, for metadata.
    pub tensor_name: String,
    /// The value in the graph.
    pub value: ValueId,
    /// The element type that the model declares, for metadata; the value's own is what is computed with.
    pub dtype: DType,
    /// The dimensions that the model declares.
    pub dims: Dims,
    /// The value taken when a request leaves this input out.
    pub default: Option<Tensor>,
}

/// A variable that a signature changes.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The variable's name.
    pub name: String,
    /// Its content when the model is loaded.
    pub initial: Tensor,
}

//! The variables of each layer, however the file names them.
//!
//! Keras 3 stores a variable by the path of attributes that leads to it and its position in its owner
//! (`layers/gru/cell/vars/0`). The older format stores per layer of the outermost model a flat list of names, in
//! the order of creation, trainable variables first. A layer says what variables it has as [`Slots`]; both formats
//! fill them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use salver_graph::Error;
use salver_tensor::Tensor;

use crate::architecture::{Keras, Layer, Network, snake_case};
use crate::keras_one;
use crate::layers;
use crate::store::Store;

/// One variable that a layer has.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) trainable: bool,
}

/// The variables of a layer and of the layers in it.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    /// Whether the owner's variables are trained; a frozen owner's are listed with those that never are.
    pub(crate) trainable: bool,
    pub(crate) own: Vec<Slot>,
    /// The layers inside: the key here, the paths that Keras 3 has given it.
    pub(crate) children: Vec<(String, Vec<String>, Slots)>,
}

impl Slots {
    pub(crate) fn of(layer: &Layer) -> Slots {
        Slots { trainable: layer.trainable, own: Vec::new(), children: Vec::new() }
    }

    /// Adds trained variables.
    #[must_use]
    pub(crate) fn with(mut self, names: &[&'static str]) -> Slots {
        self.own.extend(names.iter().map(|name| Slot { name, trainable: true }));
        self
    }

    #[must_use]
    pub(crate) fn with_if(self, there: bool, name: &'static str) -> Slots {
        if there { self.with(&[name]) } else { self }
    }

    /// Adds a variable that is never trained.
    #[must_use]
    pub(crate) fn fixed(mut self, names: &[&'static str]) -> Slots {
        self.own.extend(names.iter().map(|name| Slot { name, trainable: false }));
        self
    }

    #[must_use]
    pub(crate) fn child(mut self, key: &str, paths: &[&str], slots: Slots) -> Slots {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        self.children.push((key.to_owned(), paths, slots));
        self
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.children.iter().all(|(_, _, child)| child.is_empty())
    }
}

/// The slots of all layers of a model.
pub(crate) fn network_slots(keras: Keras, network: &Network) -> Result<Slots, Error> {
    let mut slots = Slots { trainable: network.trainable, own: Vec::new(), children: Vec::new() };
    let mut counts: HashMap<String, usize> = HashMap::new();
    for layer in &network.layers {
        // Operations are no layers and own nothing.
        if layers::is_operation(keras, layer) {
            continue;
        }
        let child = layers::slots(keras, layer).map_err(|error| layers::at(layer, error))?;
        let class = match &layer.network {
            Some(network) => network.class,
            // Exported under another name than its own.
            None if layer.class == "GroupQueryAttention" => "GroupedQueryAttention",
            None => &layer.class,
        };
        let class = snake_case(class);
        let count = counts.entry(class.clone()).or_insert(0);
        let numbered = if *count == 0 { class } else { format!("{class}_{count}") };
        *count += 1;
        let paths = [format!("layers/{numbered}"), format!("_layer_checkpoint_dependencies/{numbered}")];
        slots.children.push((layer.name.clone(), paths.to_vec(), child));
    }
    Ok(slots)
}

/// A variable's value. Layers that share it share its identity.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) id: usize,
    pub(crate) tensor: Tensor,
}

/// The variables of a layer, by name, and of the layers in it, by key.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    pub(crate) vars: HashMap<&'static str, Variable>,
    pub(crate) children: HashMap<String, Weights>,
    /// Where Keras 3 keeps what belongs to the layer, also in `assets`.
    pub(crate) path: String,
}

impl Weights {
    /// A variable by name.
    pub(crate) fn get(&self, name: &str) -> Result<&Variable, Error> {
        self.vars.get(name).ok_or_else(|| Error::invalid(format!("the file has no weights for '{name}'")))
    }

    /// The same for what may own none, such as an operation.
    pub(crate) fn child_or_empty(&self, key: &str) -> &Weights {
        static EMPTY: LazyLock<Weights> = LazyLock::new(Weights::default);
        self.children.get(key).unwrap_or(&EMPTY)
    }

    /// The variables of a layer inside.
    pub(crate) fn child(&self, key: &str) -> Result<&Weights, Error> {
        self.children.get(key).ok_or_else(|| Error::invalid(format!("the file has no weights for '{key}'")))
    }
}

/// Reads all variables from a file, whichever format it has.
pub(crate) fn load(
    store: Option<&Store>,
    keras: Keras,
    network: &Network,
    slots: &Slots,
) -> Result<Weights, Error> {
    let ids = RefCell::new(0);
    let reader = Reader { store, ids: &ids };
    match legacy_group(store)? {
        Some(group) => reader.legacy(group, keras, network, slots),
        None => reader.modern("", slots),
    }
}

/// The group that holds the weights in the older format.
fn legacy_group(store: Option<&Store>) -> Result<Option<&'static str>, Error> {
    let Some(store) = store else { return Ok(None) };
    for group in ["model_weights", ""] {
        if store.texts(group, "layer_names")?.is_some() {
            return Ok(Some(group));
        }
    }
    Ok(None)
}

/// Whether a file holds weights in either format.
pub(crate) fn has_weights(store: &Store) -> Result<bool, Error> {
    let modern = ["layers", "_layer_checkpoint_dependencies"].iter().any(|group| store.has_group(group));
    Ok(modern || legacy_group(Some(store))?.is_some())
}

struct Reader<'a> {
    store: Option<&'a Store>,
    ids: &'a RefCell<usize>,
}

impl Reader<'_> {
    fn variable(&self, tensor: Tensor) -> Variable {
        let mut next = self.ids.borrow_mut();
        *next += 1;
        Variable { id: *next, tensor }
    }

    fn modern(&self, path: &str, slots: &Slots) -> Result<Weights, Error> {
        let mut weights = Weights { path: path.to_owned(), ..Weights::default() };
        // Within its owner, trained variables come first.
        let ordered = slots.own.iter().filter(|slot| slot.trainable);
        let ordered = ordered.chain(slots.own.iter().filter(|slot| !slot.trainable));
        for (at, slot) in ordered.enumerate() {
            let Some(store) = self.store else { break };
            let mut found = store.tensor(&join(path, &format!("vars/{at}")))?;
            if found.is_none() {
                found = store.tensor(&join(path, &format!("vars/{}", slot.name)))?;
            }
            if let Some(tensor) = found {
                weights.vars.insert(slot.name, self.variable(tensor));
            }
        }
        for (key, paths, child) in &slots.children {
            let paths = paths.iter().map(|below| join(path, below));
            let mut candidates: Vec<String> = paths.collect();
            let there = |candidate: &String| self.store.is_some_and(|store| store.has_group(candidate));
            let at = if child.is_empty() { None } else { candidates.iter().position(there) };
            let chosen = candidates.swap_remove(at.unwrap_or(0));
            weights.children.insert(key.clone(), self.modern(&chosen, child)?);
        }
        Ok(weights)
    }

    fn legacy(&self, group: &str, keras: Keras, network: &Network, slots: &Slots) -> Result<Weights, Error> {
        let Some(store) = self.store else { return Ok(Weights::default()) };
        let listed = store.texts(group, "layer_names")?.unwrap_or_default();
        let mut stored = BTreeMap::new();
        let mut order = Vec::new();
        for name in &listed {
            let path = join(group, name);
            let names = store.texts(&path, "weight_names")?.unwrap_or_default();
            if !names.is_empty() && stored.insert(name.as_str(), (path, names)).is_none() {
                order.push(name.as_str());
            }
        }
        let wanted: Vec<&(String, Vec<String>, Slots)> =
            slots.children.iter().filter(|(_, _, child)| !child.is_empty()).collect();
        // Layers go by name. In weights that were saved from another instance of the model the numbers in the names
        // may differ; Keras goes by the order then.
        let by_name = wanted.iter().all(|(name, _, _)| stored.contains_key(name.as_str()));
        if !by_name && wanted.len() != order.len() {
            return Err(Error::invalid(format!(
                "the file has weights of {} layers, the architecture has {} layers with weights",
                order.len(),
                wanted.len()
            )));
        }
        let mut weights = Weights::default();
        for (key, _, child) in &slots.children {
            if child.is_empty() {
                weights.children.insert(key.clone(), self.modern("", child)?);
            }
        }
        for (at, (key, _, child)) in wanted.into_iter().enumerate() {
            let name = if by_name { key.as_str() } else { order[at] };
            let (path, names) = &stored[name];
            let layer = network.layers.iter().find(|layer| layer.name == *key);
            let loaded = self.flat(store, path, names, keras, layer, child);
            let loaded = loaded.map_err(|error| error.at(format!("weights of layer '{key}'")))?;
            weights.children.insert(key.clone(), loaded);
        }
        Ok(weights)
    }

    /// The flat list of one layer, spread over its slots.
    fn flat(
        &self,
        store: &Store,
        path: &str,
        names: &[String],
        keras: Keras,
        layer: Option<&Layer>,
        slots: &Slots,
    ) -> Result<Weights, Error> {
        let mut tensors = Vec::with_capacity(names.len());
        for name in names {
            let tensor = store.tensor(&join(path, name))?;
            tensors.push(
                tensor.ok_or_else(|| Error::invalid(format!("the file has no dataset '{path}/{name}'")))?,
            );
        }
        if keras == Keras::One
            && let Some(layer) = layer
        {
            tensors = keras_one::weights(layer, tensors)?;
        }
        let order = flat_order(slots);
        if order.len() != tensors.len() {
            let (got, want) = (tensors.len(), order.len());
            if layer.is_some_and(|layer| layer.config.has("lora_rank")) {
                return Err(Error::unsupported(
                    "LoRA weights in an .h5 file: save the model as .keras, which merges them",
                ));
            }
            return Err(Error::invalid(format!("the file has {got} variables, the layer has {want}")));
        }
        let mut weights = self.modern("", &Slots { own: Vec::new(), ..slots.clone() })?;
        for (at, (place, slot)) in order.into_iter().enumerate() {
            if let Some(name) = names.get(at).filter(|_| keras != Keras::One) {
                check_name(name, slot)?;
            }
            let mut owner = &mut weights;
            for key in place {
                owner = owner.children.entry(key).or_default();
            }
            owner.vars.insert(slot, self.variable(tensors[at].clone()));
        }
        Ok(weights)
    }
}

/// A variable in the tree of slots: the keys that lead to its owner, and its name.
type Place = (Vec<String>, &'static str);

/// The order in which Keras lists the variables of a layer: trained ones first; a frozen layer has none of these.
fn flat_order(slots: &Slots) -> Vec<Place> {
    let mut trained = Vec::new();
    let mut fixed = Vec::new();
    collect(slots, true, &mut Vec::new(), &mut trained, &mut fixed);
    trained.append(&mut fixed);
    trained
}

fn collect(
    slots: &Slots,
    trained_above: bool,
    keys: &mut Vec<String>,
    trained: &mut Vec<Place>,
    fixed: &mut Vec<Place>,
) {
    let in_training = trained_above && slots.trainable;
    let ordered = slots.own.iter().filter(|slot| slot.trainable);
    let ordered = ordered.chain(slots.own.iter().filter(|slot| !slot.trainable));
    for slot in ordered {
        let list = if in_training && slot.trainable { &mut *trained } else { &mut *fixed };
        list.push((keys.clone(), slot.name));
    }
    for (key, _, child) in &slots.children {
        keys.push(key.clone());
        collect(child, in_training, keys, trained, fixed);
        keys.pop();
    }
}

/// Refuses a variable whose stored name says that it is another one, such as `beta` in the place of `gamma`.
fn check_name(stored: &str, slot: &str) -> Result<(), Error> {
    const KNOWN: &[&str] = &[
        "kernel",
        "bias",
        "recurrent_kernel",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
        "embeddings",
        "depthwise_kernel",
        "pointwise_kernel",
    ];
    let last = stored.rsplit('/').next().unwrap_or(stored);
    let last = last.split(':').next().unwrap_or(last);
    let same = last == slot || (last == "depthwise_kernel" && slot == "kernel");
    if !same && KNOWN.contains(&last) && KNOWN.contains(&slot) {
        return Err(Error::invalid(format!("variable '{stored}' stands where '{slot}' is expected")));
    }
    Ok(())
}

fn join(path: &str, below: &str) -> String {
    if path.is_empty() { below.to_owned() } else { format!("{path}/{below}") }
}

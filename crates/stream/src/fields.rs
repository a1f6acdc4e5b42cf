//! The mapping by fields, as a pipeline takes it: the room `mapping`, with tables of the room `steps` joined.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use salver_mapping::settings::{InputSettings, Settings};
use salver_mapping::{Around, Decoded, RefusedClass, Schemas, TableFormat};
use salver_records::Record;
use salver_steps::Table;
use salver_tensor::{Signature, Tensor};

use crate::{About, Class, Mapped, Mapping, Plan, Refused, Written};

/// Finds the record of a table that belongs to a record of the stream.
pub trait Lookup: fmt::Debug + Send + Sync {
    /// The table's record, if there is one. Called for each record, by many threads.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn find(&self, record: &Record) -> Result<Option<Record>, String>;
}

/// By the record's key.
impl Lookup for RwLock<Table> {
    fn find(&self, record: &Record) -> Result<Option<Record>, String> {
        let Some(key) = &record.key else { return Ok(None) };
        let table = self.read().unwrap_or_else(PoisonError::into_inner);
        table.get(key).map_err(|error| error.to_string())
    }
}

/// A table whose fields are joined to those of the stream's records.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The name by which paths know it.
    pub name: String,
    /// How its records are read.
    pub input: InputSettings,
    /// The names of its columns, if they are known from elsewhere.
    pub columns: Option<Vec<String>>,
    /// Its records.
    pub records: Arc<dyn Lookup>,
}

impl Joined {
    fn format(&self) -> TableFormat<'_> {
        TableFormat { name: &self.name, input: &self.input, columns: self.columns.as_deref() }
    }
}

/// A mapping by fields.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// Formats, fields, answers and filters.
    pub settings: Settings,
    /// The input that windows collect.
    pub window: Option<salver_mapping::Window>,
    /// The names of the records' columns, where the source has a header.
    pub columns: Option<Vec<String>>,
    /// Where schemas come from.
    pub schemas: Option<Arc<dyn Schemas>>,
    /// What is joined.
    pub tables: Vec<Joined>,
}

impl Mapping for Fields {
    fn plan(&self, signature: &Signature) -> Result<Arc<dyn Plan>, String> {
        let tables: Vec<TableFormat<'_>> = self.tables.iter().map(Joined::format).collect();
        let around = Around {
            window: self.window.as_ref(),
            columns: self.columns.as_deref(),
            tables: &tables,
            schemas: self.schemas.clone(),
        };
        let plan = salver_mapping::Plan::around(&self.settings, signature, &around)
            .map_err(|error| error.to_string())?;
        let lookups =
            self.tables.iter().map(|table| (table.name.clone(), Arc::clone(&table.records))).collect();
        Ok(Arc::new(FieldsPlan { plan, lookups }))
    }
}

#[derive(Debug)]
struct FieldsPlan {
    plan: salver_mapping::Plan,
    lookups: Vec<(String, Arc<dyn Lookup>)>,
}

impl FieldsPlan {
    fn joined(&self, record: &Record) -> Result<Vec<Option<Decoded>>, Refused> {
        let join = |(index, (name, lookup)): (usize, &(String, Arc<dyn Lookup>))| {
            let found = lookup.find(record).map_err(|message| Refused {
                class: Class::Unavailable,
                message: format!("table '{name}' cannot be read: {message}"),
                is_passing: true,
            })?;
            let Some(found) = found.filter(|found| found.value.is_some()) else { return Ok(None) };
            let decoded = self.plan.decode_table(index, &found).map_err(refused)?;
            Ok(Some(decoded))
        };
        self.lookups.iter().enumerate().map(join).collect()
    }
}

impl Plan for FieldsPlan {
    fn read(&self, record: &Record) -> Result<Option<Mapped>, Refused> {
        let decoded = self.plan.decode(record).map_err(refused)?;
        if !self.plan.keep(&decoded).map_err(refused)? {
            return Ok(None);
        }
        let joined = self.joined(record)?;
        let inputs = self.plan.inputs(&decoded, &joined).map_err(refused)?;
        Ok(Some(Mapped { inputs, fields: Box::new(decoded) }))
    }

    fn write(
        &self,
        record: &Record,
        mapped: &Mapped,
        outputs: &[Tensor],
        about: &About<'_>,
    ) -> Result<Written, Refused> {
        let fields: &(dyn Any + Send) = &*mapped.fields;
        let decoded: &Decoded = fields.downcast_ref().expect("the fields are what this plan has read");
        let about =
            salver_mapping::About { model: about.model, version: about.version, latency: about.latency };
        let written = self.plan.encode(record, decoded, &mapped.inputs, outputs, &about).map_err(refused)?;
        Ok(Written { value: written.value, content_type: written.content_type })
    }

    fn outputs(&self) -> &[usize] {
        self.plan.outputs()
    }
}

fn refused(refused: salver_mapping::Refused) -> Refused {
    let class = match refused.class {
        RefusedClass::Format => Class::Format,
        RefusedClass::Shape => Class::Shape,
        RefusedClass::Schema => Class::Schema,
        RefusedClass::TooLarge => Class::Oversize,
    };
    Refused { class, message: refused.message, is_passing: refused.passing }
}

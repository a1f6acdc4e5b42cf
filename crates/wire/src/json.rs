//! The JSON of the REST interfaces.

//! What others may ask of the context `banking`.

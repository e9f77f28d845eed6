//! Cleanup management: buffer, snapshot, final script, state directory.
//!
//! [`buffer`], [`snapshot`], [`script`] and [`syntax`] are pure; [`store`] is where files are,
//! and [`runners`] says who runs entries of them.

pub mod buffer;
pub mod runners;
pub mod script;
pub mod snapshot;
pub mod store;
pub mod syntax;

//! Cleanup management: buffer, snapshot, final script, state directory.

//! A conversation's keys and values on their way to a file and back: between [`session_file`](crate::model::session_file) and
//! whatever holds them.

use std::ops::Range;

use crate::error::Result;
use crate::limits::Limits;
use crate::model::Model;

/// Tokens, and what each layer holds of their keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub tokens: Vec<u32>,
    /// Positions, by layer: up to the end, from where a local layer's ring begins.
    pub held: Vec<Range<usize>>,
    /// Their bytes, by layer ([`KvStore::save`](lichen_kernels::ops::attention::KvStore::save)).
    pub planes: Vec<Vec<u8>>,
}

impl Snapshot {
    /// Of a model of so many layers, with no tokens.
    pub fn empty(n_layers: usize) -> Snapshot {
        Snapshot { tokens: Vec::new(), held: vec![0..0; n_layers], planes: vec![Vec::new(); n_layers] }
    }
}

/// What a saved conversation comes from and goes back to.
pub trait SequenceState {
    fn model(&self) -> &Model;

    fn limits(&self) -> &Limits;

    /// The fingerprint of the adapter under which its keys and values are computed.
    fn adapter(&self) -> Option<[u8; 32]>;

    /// # Errors
    /// What went wrong on the device.
    fn snapshot(&self) -> Result<Snapshot>;

    /// Whether layer `i` has room for what the next token sees of `n` positions, and these cover it.
    fn can_hold(&self, i: usize, held: &Range<usize>, n: usize) -> bool;

    /// How many of these positions, the last ones, layer `i` has room for.
    fn n_kept(&self, i: usize, held: &Range<usize>) -> usize;

    /// What layer `i` keeps of the last `n_kept` of the positions that `bytes` are of.
    fn last_positions(&self, i: usize, bytes: &[u8], n_kept: usize) -> Vec<u8>;

    /// Bytes that layer `i` keeps of so many positions.
    fn saved_bytes(&self, i: usize, n_positions: usize) -> usize;

    /// Replaces what is there by restored contents, checked by the caller.
    ///
    /// # Errors
    /// There is no room, or what went wrong on the device.
    fn restore(&mut self, tokens: &[u32], held: &[Range<usize>], planes: &[&[u8]]) -> Result<()>;
}

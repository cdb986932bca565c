//! What a power cut may leave: after any prefix of the log, what was flushed and any part of what was not.

use std::collections::{BTreeMap, BTreeSet};

use crate::formats::random::Random;

use super::{apply, Node, Op, SimDisk, State};

const N_SUBSETS: usize = 64;
const TORN_AT: [usize; 2] = [512, 4096];

/// What became of a change that was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survival {
    Lost,
    Whole,
    /// The first bytes of a write; the file ends there, or is as long as it was to be, with zeros.
    Torn {
        n_bytes: usize,
        has_zeros: bool,
    },
}
use Survival::{Lost, Torn, Whole};

impl SimDisk {
    /// The legal states after the first `prefix` changes, each as what became of the changes that were not flushed.
    pub fn survivals(&self, prefix: usize, random: &mut Random) -> BTreeSet<Vec<Survival>> {
        let state = self.state();
        let pending = state.pending(prefix);
        let n = pending.len();
        let each = |keep: &dyn Fn(&Op) -> bool| -> Vec<Survival> {
            pending.iter().map(|i| if keep(&state.log[*i]) { Whole } else { Lost }).collect()
        };
        let is_data = |op: &Op| matches!(op, Op::Write { .. } | Op::Cut { .. });
        let is_move = |op: &Op| matches!(op, Op::Move { .. });
        let mut found = BTreeSet::from([each(&|_| false), each(&|_| true)]);
        found.extend([each(&|op| !is_move(op)), each(&is_data), each(&|op| !is_data(op))]);
        for one in 0..n {
            found.insert((0..n).map(|i| if i == one { Lost } else { Whole }).collect());
            found.insert((0..n).map(|i| if i == one { Whole } else { Lost }).collect());
        }
        for subset in 0..N_SUBSETS as u64 {
            // Up to six changes, all subsets; of more, as many drawn ones.
            let bits = if n <= 6 { subset } else { random.number() };
            found.insert((0..n).map(|i| if bits >> (i % 64) & 1 == 1 { Whole } else { Lost }).collect());
        }
        for (at, i) in pending.iter().enumerate() {
            let Op::Write { bytes, .. } = &state.log[*i] else { continue };
            for unit in TORN_AT.into_iter().filter(|u| bytes.len() > *u) {
                let n_bytes = unit * random.below(bytes.len().div_ceil(unit));
                for has_zeros in [false, true] {
                    let torn = Torn { n_bytes, has_zeros };
                    found.insert((0..n).map(|other| if other == at { torn } else { Whole }).collect());
                }
            }
        }
        found
    }

    /// The disk after a power cut.
    pub fn crash(&self, prefix: usize, survivals: &[Survival]) -> SimDisk {
        let state = self.state();
        let pending = state.pending(prefix);
        assert_eq!(pending.len(), survivals.len());
        let mut nodes = state.base.clone();
        nodes.extend(state.nodes[nodes.len()..].iter().map(emptied));
        let fate: BTreeMap<usize, Survival> = pending.into_iter().zip(survivals.iter().copied()).collect();
        for (i, op) in state.log[..prefix].iter().enumerate() {
            match fate.get(&i).copied().unwrap_or(Whole) {
                Lost => {}
                Whole => apply(&mut nodes, op),
                Torn { n_bytes, has_zeros } => apply(&mut nodes, &tear(op, n_bytes, has_zeros)),
            }
        }
        SimDisk::with(nodes)
    }

    /// The disk after a power cut that takes all that was not flushed.
    pub fn crash_now(&self) -> SimDisk {
        let prefix = self.log_len();
        let n = self.state().pending(prefix).len();
        self.crash(prefix, &vec![Lost; n])
    }
}

impl State {
    /// Changes of the prefix that no flush has made durable. A failed flush makes nothing durable, and neither does a later
    /// one for what came before it: the system has dropped those pages.
    fn pending(&self, prefix: usize) -> Vec<usize> {
        let (mut files, mut dirs, mut given_up) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut pending = Vec::new();
        for (i, op) in self.log[..prefix].iter().enumerate().rev() {
            let is_durable = match op {
                Op::SyncFile { file, is_ok } => {
                    let known = if *is_ok { &mut files } else { &mut given_up };
                    known.insert(*file);
                    continue;
                }
                Op::SyncDir { dir } => {
                    dirs.insert(*dir);
                    continue;
                }
                Op::Write { file, .. } | Op::Cut { file, .. } => files.contains(file) && !given_up.contains(file),
                Op::Enter { dir, .. } | Op::Leave { dir, .. } | Op::Move { dir, .. } => dirs.contains(dir),
            };
            if !is_durable {
                pending.push(i);
            }
        }
        pending.reverse();
        pending
    }
}

fn emptied(node: &Node) -> Node {
    match node {
        Node::Folder(_) => Node::Folder(BTreeMap::new()),
        Node::File(_) => Node::File(Vec::new()),
        Node::Link(target) => Node::Link(target.clone()),
    }
}

fn tear(op: &Op, n_bytes: usize, has_zeros: bool) -> Op {
    let Op::Write { file, at, bytes } = op else { panic!("only a write is torn") };
    let mut torn = bytes[..n_bytes].to_vec();
    if has_zeros {
        torn.resize(bytes.len(), 0);
    }
    Op::Write { file: *file, at: *at, bytes: torn }
}

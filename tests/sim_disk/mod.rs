//! A disk in memory that knows what a power cut may take: every change is logged, and is durable only once the file, or
//! the folder that holds the name, has been flushed after it.

mod calls;
mod crash;
mod fault;

pub use crash::Survival;
pub use fault::{Fault, FaultKind};

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard};

use lichen_runtime::files::disk::Disk;

use fault::Faults;

const ROOT: usize = 0;

#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What the disk claims to flush and does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    None,
    Files,
    Folders,
}

#[derive(Clone)]
struct State {
    /// What was durable when the log began.
    base: Vec<Node>,
    /// What the programs see.
    nodes: Vec<Node>,
    log: Vec<Op>,
    faults: Faults,
    lie: Lie,
    free_bytes: Option<u64>,
    /// Every write of this file's name gives back other bytes.
    damages: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq)]
enum Node {
    Folder(BTreeMap<String, usize>),
    File(Vec<u8>),
    Link(String),
}

/// Changes and flushes; nodes by number, so that a rename carries the node with it.
#[derive(Clone)]
enum Op {
    Enter { dir: usize, name: String, id: usize },
    Leave { dir: usize, name: String },
    Move { dir: usize, from: String, to: String, id: usize },
    Write { file: usize, at: usize, bytes: Vec<u8> },
    Cut { file: usize, len: usize },
    SyncFile { file: usize, is_ok: bool },
    SyncDir { dir: usize },
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    pub fn new() -> SimDisk {
        SimDisk::with(vec![Node::Folder(BTreeMap::new())])
    }

    fn with(nodes: Vec<Node>) -> SimDisk {
        let (faults, lie) = (Faults::default(), Lie::None);
        let state = State { base: nodes.clone(), nodes, log: Vec::new(), faults, lie, free_bytes: None, damages: None };
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// Another disk in the same state.
    pub fn fork(&self) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(self.state().clone())))
    }

    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    pub fn log_len(&self) -> usize {
        self.state().log.len()
    }

    /// Calls so far, those inside files included.
    pub fn n_calls(&self) -> usize {
        self.state().faults.n_calls
    }

    /// Arms a fault and counts calls from here; `None` heals the disk.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().faults = Faults { fault, ..Faults::default() };
    }

    pub fn n_hits(&self) -> usize {
        self.state().faults.n_hits
    }

    pub fn set_lie(&self, lie: Lie) {
        self.state().lie = lie;
    }

    pub fn set_free_bytes(&self, n: Option<u64>) {
        self.state().free_bytes = n;
    }

    /// A card that takes bytes and keeps others: the last byte written to files of this name is changed.
    pub fn damage_writes_of(&self, name: Option<&'static str>) {
        self.state().damages = name;
    }

    /// Every file and link below `path` with its contents.
    pub fn tree(&self, path: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let mut out = BTreeMap::new();
        if let Ok(id) = state.find(Path::new(path)) {
            state.collect(id, String::new(), &mut out);
        }
        out
    }

    /// Changes a file behind everyone's back.
    pub fn overwrite(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = state.find(Path::new(path)).expect("a file to damage");
        change(state.file(id));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics inside")
    }
}

impl State {
    fn collect(&self, id: usize, path: String, out: &mut BTreeMap<String, Vec<u8>>) {
        match &self.nodes[id] {
            Node::Folder(names) => names.iter().for_each(|(name, id)| self.collect(*id, format!("{path}/{name}"), out)),
            Node::File(bytes) => drop(out.insert(path, bytes.clone())),
            Node::Link(target) => drop(out.insert(path, target.clone().into_bytes())),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut id = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let Node::Folder(names) = &self.nodes[id] else { return Err(ErrorKind::NotADirectory.into()) };
            id = *names.get(name.to_str().expect("UTF-8")).ok_or(ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    fn names(&self, dir: usize) -> io::Result<&BTreeMap<String, usize>> {
        match &self.nodes[dir] {
            Node::Folder(names) => Ok(names),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&mut self, id: usize) -> &mut Vec<u8> {
        match &mut self.nodes[id] {
            Node::File(bytes) => bytes,
            _ => panic!("node {id} is not a file"),
        }
    }

    fn find_file(&self, path: &Path) -> io::Result<usize> {
        let id = self.find(path)?;
        match self.nodes[id] {
            Node::File(_) => Ok(id),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    /// The folder of a path, and the name in it.
    fn split(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = path.file_name().ok_or(ErrorKind::AlreadyExists)?.to_str().expect("UTF-8").to_string();
        let dir = self.find(path.parent().expect("a name has a folder"))?;
        self.names(dir)?;
        Ok((dir, name))
    }

    fn enter(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (dir, name) = self.split(path)?;
        if self.names(dir)?.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = self.nodes.len();
        self.nodes.push(node);
        self.change(Op::Enter { dir, name, id });
        Ok(id)
    }

    /// Does it to what programs see, and logs it.
    fn change(&mut self, op: Op) {
        apply(&mut self.nodes, &op);
        self.log.push(op);
    }

    fn leave(&mut self, path: &Path) {
        let (dir, name) = self.split(path).expect("just found");
        self.change(Op::Leave { dir, name });
    }
}

fn apply(nodes: &mut [Node], op: &Op) {
    match op {
        Op::Enter { dir, name, id } => {
            folder(nodes, *dir).insert(name.clone(), *id);
        }
        Op::Leave { dir, name } => {
            folder(nodes, *dir).remove(name);
        }
        Op::Move { dir, from, to, id } => {
            folder(nodes, *dir).remove(from);
            folder(nodes, *dir).insert(to.clone(), *id);
        }
        Op::Write { file, at, bytes } => {
            let Node::File(held) = &mut nodes[*file] else { panic!("node {file} is not a file") };
            held.resize(held.len().max(at + bytes.len()), 0);
            held[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Op::Cut { file, len } => {
            let Node::File(held) = &mut nodes[*file] else { panic!("node {file} is not a file") };
            held.resize(*len, 0);
        }
        Op::SyncFile { .. } | Op::SyncDir { .. } => {}
    }
}

fn folder(nodes: &mut [Node], dir: usize) -> &mut BTreeMap<String, usize> {
    match &mut nodes[dir] {
        Node::Folder(names) => names,
        _ => panic!("node {dir} is not a folder"),
    }
}

//! A directory as the running system sees it, and all that a loss of power may leave of it.
//!
//! The model is POSIX's, not that of one file system: see the head of `tests/torture_power.rs`.

use super::torture::Dice;
use super::trace::Op;
use std::collections::{BTreeMap, BTreeSet};

/// What is on the disk after the loss: the files of the state directory, or `None` for no directory.
pub type Remains = Option<BTreeMap<String, Vec<u8>>>;

/// With so many changes not yet synced, every subset is tried; with more, so many drawn by lot.
const EXHAUSTIVE: usize = 9;
const DRAWN: usize = 400;

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    SetLength(usize),
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    now: Vec<u8>,
    pending: Vec<Change>,
}

/// A change of the directory. A rename is two, of which the second one needs the first: a name may
/// be there twice, but the file is never gone.
#[derive(Debug, Clone)]
enum Entry {
    Set { name: String, file: usize },
    Drop { name: String, file: usize, needs: Option<usize> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Not,
    Pending,
    Durably,
}

/// The directory.
#[derive(Debug)]
pub struct Disk {
    made: Made,
    files: Vec<File>,
    durable: BTreeMap<String, usize>,
    now: BTreeMap<String, usize>,
    pending: Vec<Entry>,
    /// Every content that a name has had once a rename had put it there whole.
    versions: BTreeSet<(String, Vec<u8>)>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLength(length) => bytes.resize(*length, 0),
            Self::Write { at, data } => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }

    /// The half of it that came first.
    fn torn(&self) -> Self {
        match self {
            Self::Write { at, data } => Self::Write { at: *at, data: data[..data.len() / 2].to_vec() },
            whole => whole.clone(),
        }
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// All contents that it may have after the loss.
    fn remains(&self) -> BTreeSet<Vec<u8>> {
        let build = |changes: &mut dyn Iterator<Item = Change>| {
            let mut bytes = self.durable.clone();
            changes.for_each(|c| c.apply(&mut bytes));
            bytes
        };
        let mut all = BTreeSet::from([self.durable.clone(), self.now.clone()]);
        if let Some(last) = self.pending.len().checked_sub(1) {
            let subsets: Vec<usize> = match self.pending.len() {
                n @ ..=4 => (0..1 << n).collect(),
                n => (0..n.min(60)).map(|k| (1 << k) - 1).collect(),
            };
            for subset in subsets {
                let kept = self.pending.iter().enumerate().filter(|(n, _)| *n < 60 && subset >> n & 1 == 1);
                all.insert(build(&mut kept.map(|(_, c)| c.clone())));
            }
            let torn = self.pending[last].torn();
            all.insert(build(&mut self.pending[..last].iter().cloned().chain([torn])));
            // The length has reached the disk, and the data has not.
            all.insert(build(&mut [Change::SetLength(self.now.len())].into_iter()));
        }
        all
    }
}

impl Disk {
    pub fn new() -> Self {
        Self {
            made: Made::Not,
            files: Vec::new(),
            durable: BTreeMap::new(),
            now: BTreeMap::new(),
            pending: Vec::new(),
            versions: BTreeSet::new(),
        }
    }

    /// Whether this content was ever the whole content of that name.
    pub fn has_been(&self, name: &str, content: &[u8]) -> bool {
        self.versions.contains(&(name.to_owned(), content.to_vec()))
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::MakeDirectory => self.made = Made::Pending,
            Op::SyncParent if self.made == Made::Pending => self.made = Made::Durably,
            Op::Create(name) if !self.now.contains_key(name) => {
                self.files.push(File::default());
                self.set(name, self.files.len() - 1);
            }
            Op::Write { name, at, data } => {
                self.file(name).change(Change::Write { at: *at, data: data.clone() });
            }
            Op::SetLength { name, length } => self.file(name).change(Change::SetLength(*length)),
            Op::SyncFile(name) => {
                let file = self.file(name);
                file.durable = file.now.clone();
                file.pending.clear();
            }
            Op::Rename { from, to } => self.rename(from, to),
            Op::Unlink(name) => {
                if let Some(file) = self.now.remove(name) {
                    self.pending.push(Entry::Drop { name: name.clone(), file, needs: None });
                }
            }
            Op::SyncDirectory => {
                self.durable = self.now.clone();
                self.pending.clear();
            }
            Op::SyncParent | Op::Create(_) | Op::Printed(_) => {}
        }
    }

    fn set(&mut self, name: &str, file: usize) {
        self.now.insert(name.to_owned(), file);
        self.pending.push(Entry::Set { name: name.to_owned(), file });
    }

    fn rename(&mut self, from: &str, to: &str) {
        let file = self.now.remove(from).unwrap_or_else(|| panic!("nobody has made '{from}'"));
        self.set(to, file);
        let needs = Some(self.pending.len() - 1);
        self.pending.push(Entry::Drop { name: from.to_owned(), file, needs });
        self.versions.insert((to.to_owned(), self.files[file].now.clone()));
    }

    fn file(&mut self, name: &str) -> &mut File {
        let file = *self.now.get(name).unwrap_or_else(|| panic!("nobody has made '{name}'"));
        &mut self.files[file]
    }

    /// All that may be left, or, where that is too much, some of it drawn by lot.
    pub fn remains(&self, dice: &mut Dice) -> BTreeSet<Remains> {
        let mut all = BTreeSet::new();
        if self.made != Made::Durably {
            all.insert(None);
        }
        if self.made == Made::Not {
            return all;
        }
        for subset in self.subsets(dice) {
            if let Some(names) = self.names(subset) {
                self.fill(&names, &mut all);
            }
        }
        all
    }

    fn subsets(&self, dice: &mut Dice) -> Vec<u64> {
        let n = self.pending.len();
        if n <= EXHAUSTIVE {
            return (0..1 << n).collect();
        }
        assert!(n < 64, "{n} changes of a directory that nobody has synced");
        let prefixes = (0..=n).map(|k| if k == 0 { 0 } else { u64::MAX >> (64 - k) });
        let drawn = (0..DRAWN)
            .map(|_| (dice.throw(1 << 31) << 33) ^ (dice.throw(1 << 31) << 16) ^ dice.throw(1 << 31));
        prefixes.chain(drawn.map(|d| d & (u64::MAX >> (64 - n)))).collect()
    }

    /// The directory with these changes alone; nothing if that is impossible.
    fn names(&self, subset: u64) -> Option<BTreeMap<String, usize>> {
        let mut names = self.durable.clone();
        for (n, entry) in self.pending.iter().enumerate().filter(|(n, _)| subset >> n & 1 == 1) {
            let _ = n;
            match entry {
                Entry::Set { name, file } => {
                    names.insert(name.clone(), *file);
                }
                Entry::Drop { needs: Some(first), .. } if subset >> first & 1 == 0 => return None,
                Entry::Drop { name, file, .. } => {
                    if names.get(name) == Some(file) {
                        names.remove(name);
                    }
                }
            }
        }
        Some(names)
    }

    /// Every combination of what its files may hold.
    fn fill(&self, names: &BTreeMap<String, usize>, all: &mut BTreeSet<Remains>) {
        let mut combinations = vec![BTreeMap::new()];
        for (name, file) in names {
            let contents = self.files[*file].remains();
            combinations = combinations
                .iter()
                .flat_map(|so_far: &BTreeMap<String, Vec<u8>>| {
                    contents.iter().map(|content| {
                        let mut more = so_far.clone();
                        more.insert(name.clone(), content.clone());
                        more
                    })
                })
                .collect();
        }
        all.extend(combinations.into_iter().map(Some));
    }
}

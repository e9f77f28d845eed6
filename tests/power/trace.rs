//! What strace(1) has seen, as operations on one directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One thing that happened, in the order it did. Names are those in the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    MakeDirectory,
    SyncParent,
    Create(String),
    Write {
        name: String,
        at: usize,
        data: Vec<u8>,
    },
    SetLength {
        name: String,
        length: usize,
    },
    SyncFile(String),
    Rename {
        from: String,
        to: String,
    },
    Unlink(String),
    SyncDirectory,
    /// An entry has printed this.
    Printed(String),
}

/// The calls that change a file or a directory, or make a change last. The copying ones are not
/// understood here; a trace that has one is refused.
pub const CALLS: &str = "trace=openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,\
    rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,link,linkat,symlink,\
    symlinkat,sync,syncfs,sync_file_range,copy_file_range,sendfile,splice,fallocate,mknod,mknodat";

/// Reads a trace of `strace -f -y -xx`.
pub struct Reader {
    dir: PathBuf,
    /// How far each open file has been written: by process and descriptor.
    offsets: HashMap<(String, String), usize>,
}

struct Call<'a> {
    pid: &'a str,
    name: &'a str,
    args: Vec<&'a str>,
    result: &'a str,
}

impl Reader {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), offsets: HashMap::new() }
    }

    pub fn read(&mut self, trace: &str) -> Vec<Op> {
        let mut begun: HashMap<String, String> = HashMap::new();
        let mut ops = Vec::new();
        for line in trace.lines() {
            let Some((pid, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
                begun.insert(pid.to_owned(), start.to_owned());
                continue;
            }
            let whole = match rest.strip_prefix("<... ").and_then(|r| r.split_once(" resumed>")) {
                Some((_, end)) => begun.remove(pid).unwrap_or_default() + end,
                None => rest.to_owned(),
            };
            if let Some(call) = parse(pid, &whole) {
                self.understand(&call, &mut ops);
            }
        }
        ops
    }

    fn understand(&mut self, call: &Call, ops: &mut Vec<Op>) {
        if call.result.starts_with('-') {
            return;
        }
        let args = &call.args;
        match call.name {
            "openat" => self.open(call, ops),
            "write" => self.write(call, ops),
            "pwrite64" => {
                if let Some(name) = self.of_descriptor(args[0]) {
                    ops.push(Op::Write { name, at: args[3].parse().unwrap(), data: string(args[1]) });
                }
            }
            "ftruncate" => {
                if let Some(name) = self.of_descriptor(args[0]) {
                    ops.push(Op::SetLength { name, length: args[1].parse().unwrap() });
                }
            }
            "fsync" | "fdatasync" => match path(args[0]) {
                path if path == self.dir => ops.push(Op::SyncDirectory),
                path if Some(&*path) == self.dir.parent() => ops.push(Op::SyncParent),
                _ => ops.extend(self.of_descriptor(args[0]).map(Op::SyncFile)),
            },
            "rename" => self.rename(self.named(None, args[0]), self.named(None, args[1]), ops),
            "renameat" | "renameat2" => {
                self.rename(self.named(Some(args[0]), args[1]), self.named(Some(args[2]), args[3]), ops);
            }
            "unlink" => ops.extend(self.named(None, args[0]).map(Op::Unlink)),
            "unlinkat" => ops.extend(self.named(Some(args[0]), args[1]).map(Op::Unlink)),
            "mkdir" if Path::new(&text(args[0])) == self.dir => ops.push(Op::MakeDirectory),
            // The way to it is walked by descriptor, so the name may be only its last part.
            "mkdirat" if path(args[0]).join(text(args[1])) == self.dir => ops.push(Op::MakeDirectory),
            _ => {
                let strange = args.iter().any(|a| self.of_descriptor(a).is_some());
                assert!(!strange, "a call that the model does not know: {}", call.name);
            }
        }
    }

    fn open(&mut self, call: &Call, ops: &mut Vec<Op>) {
        let (flags, fd) = (call.args[2], call.result.split('<').next().unwrap());
        let Some(name) = self.named(Some(call.args[0]), call.args[1]) else { return };
        self.offsets.insert((call.pid.to_owned(), fd.to_owned()), 0);
        assert!(!flags.contains("O_APPEND"), "the model does not know O_APPEND");
        if flags.contains("O_CREAT") {
            ops.push(Op::Create(name.clone()));
        }
        if flags.contains("O_TRUNC") {
            ops.push(Op::SetLength { name, length: 0 });
        }
    }

    fn write(&mut self, call: &Call, ops: &mut Vec<Op>) {
        let fd = call.args[0].split('<').next().unwrap();
        let length: usize = call.result.parse().unwrap();
        let data = string(call.args[1])[..length].to_vec();
        if let Some(name) = self.of_descriptor(call.args[0]) {
            let at = self.offsets.get_mut(&(call.pid.to_owned(), fd.to_owned())).unwrap();
            ops.push(Op::Write { name, at: *at, data });
            *at += length;
        } else if fd == "1" {
            let said = String::from_utf8_lossy(&data).into_owned();
            ops.extend(said.lines().filter(|l| l.starts_with("ran ")).map(|l| Op::Printed(l.to_owned())));
        }
    }

    fn rename(&self, from: Option<String>, to: Option<String>, ops: &mut Vec<Op>) {
        match (from, to) {
            (Some(from), Some(to)) => ops.push(Op::Rename { from, to }),
            (None, None) => {}
            across => panic!("the model does not know a rename across directories: {across:?}"),
        }
    }

    /// The name in the state directory of `5</path>`, if it is there.
    fn of_descriptor(&self, fd: &str) -> Option<String> {
        let path = fd.contains('<').then(|| path(fd))?;
        Some(path.strip_prefix(&self.dir).ok()?.to_str()?.to_owned()).filter(|n| !n.is_empty())
    }

    fn named(&self, dir: Option<&str>, name: &str) -> Option<String> {
        let path = dir.map(path).unwrap_or_default().join(text(name));
        Some(path.strip_prefix(&self.dir).ok()?.to_str()?.to_owned()).filter(|n| !n.is_empty())
    }
}

/// `name(arg, arg) = result`; with -xx no string holds a comma, a bracket or a blank.
fn parse<'a>(pid: &'a str, line: &'a str) -> Option<Call<'a>> {
    let (call, result) = line.rsplit_once(" = ").filter(|_| !line.starts_with("+++"))?;
    let (name, args) = call.trim_end().strip_suffix(')')?.split_once('(')?;
    Some(Call { pid, name, args: args.split(", ").collect(), result })
}

fn string(quoted: &str) -> Vec<u8> {
    assert!(!quoted.ends_with("..."), "strace has cut a string short");
    unescape(quoted.trim_matches('"'))
}

fn text(quoted: &str) -> String {
    String::from_utf8(string(quoted)).unwrap()
}

/// The path in `5</path>`.
fn path(fd: &str) -> PathBuf {
    let inside = fd.split_once('<').map_or("", |(_, rest)| rest.trim_end_matches('>'));
    String::from_utf8_lossy(&unescape(inside)).into_owned().into()
}

fn unescape(hex: &str) -> Vec<u8> {
    hex.split("\\x").skip(1).map(|b| u8::from_str_radix(&b[..2], 16).unwrap()).collect()
}

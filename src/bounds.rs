//! How much of anything is ever read or kept, and the one way to read a file that somebody else may
//! have made: without waiting for anybody, and up to a bound.
//!
//! A file of a gigabyte, a device or an endless pipe in the place of one of ours must cost neither the
//! machine its memory nor the caller its time. Each bound is far beyond what a test makes by intention,
//! so that nobody has to know them. Must not know what the files mean.

use crate::error::{Error, Result};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The buffer, in bytes: ten thousand entries of 6 KiB, or sixty of 1 MB. It is read, parsed and written
/// whole at each change.
pub const BUFFER: u64 = 64 << 20;
/// A final script: a buffer at its bound in which every byte is a quote, which takes four, or, more
/// likely, one and a snapshot.
pub const SCRIPT: u64 = 256 << 20;
/// What comes through standard input: an entry, and the state of the shell behind it. More would find no
/// place in the buffer.
pub const INPUT: u64 = 64 << 20;
/// The rows of a running final script: two for each of a hundred thousand entries. See [`ROW_TEXT`].
pub const REPORT: u64 = 64 << 20;
/// Characters of an entry's first line in a row: the summary shows fewer than a line of them.
pub const ROW_TEXT: usize = 120;
/// A live watcher's file in the registry: two paths at most (limits.h(0p), `PATH_MAX`), and names.
pub const REGISTRY: u64 = 64 << 10;
/// tmt's metadata of one test, which are a few hundred bytes.
pub const METADATA: u64 = 1 << 20;
/// Any other small file of a harness's: one path and a number.
pub const NOTE: u64 = 8 << 10;

/// All of the file at `path`. Never waits on a FIFO, and reads no device.
///
/// # Errors
/// It cannot be read, is no regular file, or is larger than `most` bytes.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("note");
/// std::fs::write(&path, "twelve bytes").unwrap();
/// assert_eq!(rl_cleanup::bounds::read(&path, 12).unwrap(), b"twelve bytes");
/// assert!(rl_cleanup::bounds::read(&path, 11).is_err());
/// assert!(rl_cleanup::bounds::read("/dev/zero".as_ref(), 11).is_err());
/// ```
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|e| Error::io("read", path, &e))?;
    if !file.metadata().map_err(|e| Error::io("read", path, &e))?.is_file() {
        return Err(Error::untrusted(path, "it is not a regular file"));
    }
    read_open(&file, path, most)
}

/// The same of a file that is open, and known to be a regular one.
///
/// # Errors
/// It cannot be read, or is larger than `most` bytes.
pub fn read_open(file: &File, path: &Path, most: u64) -> Result<Vec<u8>> {
    let cannot = |e: &std::io::Error| Error::io("read", path, e);
    // What says itself that it is too large is not read at all.
    if file.metadata().map_err(|e| cannot(&e))?.len() > most {
        return Err(Error::too_large(path, most));
    }
    read_stream(file, path, most)
}

/// All of a stream, which `name` names.
///
/// # Errors
/// It cannot be read, or more than `most` bytes come.
///
/// # Examples
/// ```
/// use rl_cleanup::bounds::read_stream;
/// assert_eq!(read_stream(&b"short"[..], "a pipe".as_ref(), 5).unwrap(), b"short");
/// let error = read_stream(std::io::repeat(0), "a pipe".as_ref(), 1024).unwrap_err();
/// assert_eq!(error.to_string(), "cannot read 'a pipe': it is larger than 1 KiB");
/// ```
pub fn read_stream(stream: impl Read, name: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more tells an end from a cut.
    stream.take(most + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", name, &e))?;
    if bytes.len() as u64 > most { Err(Error::too_large(name, most)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound_and_not_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [b'x'; 1024]).unwrap();
        assert_eq!(read(&path, 1024).unwrap().len(), 1024);
        let error = read(&path, 1023).unwrap_err().to_string();
        assert!(error.ends_with("file': it is larger than 1023 bytes"), "{error}");
        // proc(5): says that it has no length, and has one.
        assert!(read(Path::new("/proc/self/status"), 16).is_err());
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_file_is_neither_read_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&fifo, Path::new("/dev/zero"), dir.path()] {
            let error = read(path, 16).unwrap_err().to_string();
            assert!(error.contains("it is not a regular file"), "{error}");
        }
        assert!(read_stream(std::io::repeat(0), Path::new("endless"), 4096).is_err());
    }

    /// A row has its text, an id and two numbers.
    const ROW: u64 = ROW_TEXT as u64 + 60;
    const _: () = assert!(100_000 * 2 * ROW <= REPORT, "the rows of a hundred thousand entries fit");
    const _: () = assert!(SCRIPT >= 4 * BUFFER, "a buffer of nothing but quotes fits");
    const _: () = assert!(INPUT <= BUFFER, "what comes in has a place");
}

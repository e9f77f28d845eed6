//! The entries in the order they will run, and their file `clbuff`.
//!
//! `clbuff` stays what it is in BeakerLib: shell text that reads as a script. In front of each
//! entry stands one comment line of ours with its id, time, length, mark and working directory.
//! The length is what counts when it is read back, so a line of an entry that happens to look like
//! such a comment is harmless. Text without a comment, as BeakerLib's own functions write it, is
//! an entry too. Pure: must do no I/O and read no clock.

use super::syntax::find_byte;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What every comment line of ours starts with.
const HEADER: &[u8] = b"#rl-cleanup: ";
/// No letter or digit that is easily taken for another one.
const ALPHABET: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// 31^6 ids are enough for a person to type and for thousands of entries to differ.
const ID_LENGTH: usize = 6;

/// An entry's name: six letters and digits. Thousands are compared at each change, so it is no string.
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::buffer::Id;
/// let id = Id::from_number(20_231_117);
/// assert_eq!(id.as_str().parse(), Ok(id.clone()));
/// assert!("no id".parse::<Id>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; ID_LENGTH]);

impl Id {
    /// The id that a number stands for.
    #[must_use]
    pub fn from_number(mut number: u64) -> Self {
        Self([(); ID_LENGTH].map(|()| {
            let index = usize::try_from(number % ALPHABET.len() as u64).unwrap_or(0);
            number /= ALPHABET.len() as u64;
            ALPHABET[index]
        }))
    }

    /// From text that is one; `None` for any other.
    fn from_bytes(text: &[u8]) -> Option<Self> {
        let name: [u8; ID_LENGTH] = text.try_into().ok()?;
        name.iter().all(|b| ALPHABET.contains(b)).then_some(Self(name))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // All of them are letters and digits.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The same as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_bytes(text.as_bytes())
            .ok_or_else(|| format!("'{text}' is no entry id: 'rl-cleanup list' shows them"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where an entry is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It runs first.
    Front,
    /// It runs last.
    End,
}

/// Whether `run --to-mark` stops behind an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It does.
    Set,
    /// It does not.
    Unset,
}

/// One piece of shell text to be run at cleanup, and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: Id,
    /// When it was added, in seconds since 1970; `None` for text that BeakerLib wrote.
    pub time: Option<u64>,
    /// Whether a mark was set at it.
    pub mark: Mark,
    /// The working directory of the one who added it; `None` for text that BeakerLib wrote.
    pub cwd: Option<Vec<u8>>,
    /// The text, byte for byte as it was given.
    pub text: Vec<u8>,
}

impl Entry {
    /// The first line that is not blank, lossily as text and without control characters.
    #[must_use]
    pub fn first_line(&self) -> String {
        let line = self.text.split(|&b| b == b'\n').find(|l| !l.trim_ascii().is_empty()).unwrap_or_default();
        String::from_utf8_lossy(line.trim_ascii())
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

/// All entries, in the order they will run.
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::buffer::{Buffer, Entry, Id, Mark, Place};
///
/// let entry = |number, text: &str| Entry {
///     id: Id::from_number(number),
///     time: None,
///     mark: Mark::Unset,
///     cwd: None,
///     text: text.into(),
/// };
/// let mut buffer = Buffer::default();
/// buffer.add(entry(1, "rm -rf /mnt/x"), Place::End);
/// buffer.add(entry(2, "umount /mnt/x"), Place::Front);
///
/// let again = Buffer::parse(&buffer.render());
/// let texts: Vec<_> = again.entries().iter().map(Entry::first_line).collect();
/// assert_eq!(texts, ["umount /mnt/x", "rm -rf /mnt/x"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Buffer {
    entries: Vec<Entry>,
    /// The same entries' ids: to ask all entries for a free one takes minutes where there are a million.
    ids: BTreeSet<Id>,
}

impl Buffer {
    /// Reads `clbuff`. Never fails: whatever is not ours is an entry of its own.
    ///
    /// # Examples
    /// ```
    /// use rl_cleanup::cleanup::buffer::Buffer;
    /// // As BeakerLib's own functions write it.
    /// let buffer = Buffer::parse(b"umount /mnt\nrm -r /mnt\n");
    /// assert_eq!(buffer.entries().len(), 1);
    /// ```
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut buffer = Self::default();
        let mut at = 0;
        let mut foreign_from = 0;
        while at < bytes.len() {
            if let Some((entry, length)) = parse_entry(&bytes[at..]) {
                buffer.adopt(&bytes[foreign_from..at]);
                buffer.take_in(entry);
                at += length;
                foreign_from = at;
            } else {
                at += line_length(&bytes[at..]);
            }
        }
        buffer.adopt(&bytes[foreign_from..]);
        buffer
    }

    /// The bytes of `clbuff`; none at all for no entries.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let length = |e: &Entry| HEADER.len() + 64 + e.cwd.as_ref().map_or(0, Vec::len) + e.text.len();
        let mut out = Vec::with_capacity(self.entries.iter().map(length).sum());
        for entry in &self.entries {
            render_header(entry, &mut out);
            out.extend_from_slice(&entry.text);
            out.push(b'\n');
        }
        out
    }

    /// The entries in the order they will run.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of that name.
    #[must_use]
    pub fn get(&self, id: &Id) -> Option<&Entry> {
        self.entries.iter().find(|e| e.id == *id)
    }

    /// Whether there is an entry of that name.
    #[must_use]
    pub fn has(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }

    /// Adds an entry. An id that is taken already is replaced by a free one; the answer is the id it got.
    pub fn add(&mut self, mut entry: Entry, place: Place) -> Id {
        entry.id = self.take_id(entry.id);
        let id = entry.id.clone();
        match place {
            Place::Front => self.entries.insert(0, entry),
            Place::End => self.entries.push(entry),
        }
        id
    }

    /// Takes an entry out; `None` if there is none of that name.
    pub fn remove(&mut self, id: &Id) -> Option<Entry> {
        let at = self.entries.iter().position(|e| e.id == *id)?;
        self.ids.remove(id);
        Some(self.entries.remove(at))
    }

    /// Takes all entries out.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.ids.clear();
    }

    /// Text that carries no comment of ours. Its id follows from its content, so that it is the
    /// same each time the file is read; blank text is nothing.
    fn adopt(&mut self, text: &[u8]) {
        if text.trim_ascii().is_empty() {
            return;
        }
        let text = text.strip_suffix(b"\n").unwrap_or(text).to_vec();
        let id = Id::from_number(fnv(text.iter().copied()));
        self.take_in(Entry { id, time: None, mark: Mark::Unset, cwd: None, text });
    }

    fn take_in(&mut self, mut entry: Entry) {
        entry.id = self.take_id(entry.id);
        self.entries.push(entry);
    }

    /// This id, or a free one. The number of entries goes into it: to hash the id alone, again and again,
    /// would sooner or later go round in a circle of ids that are all taken.
    fn take_id(&mut self, wanted: Id) -> Id {
        let mut id = wanted.clone();
        let mut salt = self.entries.len() as u64;
        while !self.ids.insert(id.clone()) {
            id = Id::from_number(fnv(wanted.0.into_iter().chain(salt.to_le_bytes())));
            salt += 1;
        }
        id
    }
}

/// A number that differs when these entries are others, or in another order (FNV-1a).
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::buffer::{Buffer, fingerprint};
/// let buffer = Buffer::parse(b"#rl-cleanup: id=aaaaaa bytes=4\ntrue\n#rl-cleanup: id=bbbbbb bytes=4\ntrue\n");
/// let entries: Vec<_> = buffer.entries().iter().collect();
/// let turned: Vec<_> = buffer.entries().iter().rev().collect();
/// assert_ne!(fingerprint(&entries), fingerprint(&turned));
/// ```
#[must_use]
pub fn fingerprint(entries: &[&Entry]) -> u64 {
    fnv(entries.iter().flat_map(|e| e.id.0.into_iter().chain([b'\n'])))
}

fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn line_length(bytes: &[u8]) -> usize {
    find_byte(b'\n', bytes).map_or(bytes.len(), |end| end + 1)
}

fn render_header(entry: &Entry, out: &mut Vec<u8>) {
    out.extend_from_slice(HEADER);
    out.extend_from_slice(b"id=");
    out.extend_from_slice(entry.id.as_bytes());
    if let Some(time) = entry.time {
        out.extend_from_slice(b" time=");
        push_number(time, out);
    }
    out.extend_from_slice(b" bytes=");
    push_number(entry.text.len() as u64, out);
    if entry.mark == Mark::Set {
        out.extend_from_slice(b" mark=set");
    }
    if let Some(cwd) = &entry.cwd {
        out.extend_from_slice(b" cwd=");
        percent_encode(cwd, out);
    }
    out.push(b'\n');
}

/// A number in decimal digits. What std's formatting would do besides is most of its cost, and a
/// buffer of ten thousand entries has twenty thousand numbers.
pub fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// One entry of ours at the start of `bytes`, and how long header, text and newline are together.
fn parse_entry(bytes: &[u8]) -> Option<(Entry, usize)> {
    let fields = bytes.strip_prefix(HEADER)?;
    let header_length = line_length(bytes);
    let fields = std::str::from_utf8(&fields[..header_length - HEADER.len()]).ok()?.strip_suffix('\n')?;
    let (mut id, mut length, mut time, mut mark, mut cwd) = (None, None, None, None, None);
    // Of two fields of the same name the first one counts.
    for field in fields.as_bytes().split(|&b| b == b' ') {
        let Some(equals) = find_byte(b'=', field) else { continue };
        let slot = match &field[..equals] {
            b"id" => &mut id,
            b"bytes" => &mut length,
            b"time" => &mut time,
            b"mark" => &mut mark,
            b"cwd" => &mut cwd,
            _ => continue,
        };
        slot.get_or_insert(&field[equals + 1..]);
    }
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    let length = usize::try_from(number(length?)?).ok()?;
    let end = header_length.checked_add(length)?;
    // Text and newline must be there in full, or else the line is somebody's text that looks like ours.
    if bytes.get(end) != Some(&b'\n') {
        return None;
    }
    let entry = Entry {
        id: Id::from_bytes(id?)?,
        time: time.and_then(number),
        mark: if mark.is_some() { Mark::Set } else { Mark::Unset },
        cwd: cwd.map(percent_decode),
        text: bytes[header_length..end].to_vec(),
    };
    Some((entry, end + 1))
}

fn percent_encode(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        if b.is_ascii_graphic() && b != b'%' {
            out.push(b);
        } else {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
        }
    }
}

fn percent_decode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let hex = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok();
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3).and_then(hex)).flatten();
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(id: u64, text: &[u8]) -> Entry {
        Entry {
            id: Id::from_number(id),
            time: Some(1_700_000_000),
            mark: Mark::Unset,
            cwd: Some(b"/a b%\xff\n".to_vec()),
            text: text.to_vec(),
        }
    }

    fn texts(buffer: &Buffer) -> Vec<&[u8]> {
        buffer.entries().iter().map(|e| &e.text[..]).collect()
    }

    #[test]
    fn what_beakerlib_wrote_is_one_entry_with_a_lasting_id() {
        let buffer = Buffer::parse(b"umount /mnt\nrm -r /mnt\n");
        assert_eq!(texts(&buffer), [b"umount /mnt\nrm -r /mnt"]);
        assert_eq!(Buffer::parse(&buffer.render()).entries()[0].id, buffer.entries()[0].id);
        assert!(Buffer::parse(b" \n\t\n").is_empty());
    }

    #[test]
    fn what_beakerlib_adds_to_our_file_is_an_entry_in_its_place() {
        let mut buffer = Buffer::default();
        buffer.add(entry(1, b"one"), Place::End);
        buffer.add(entry(2, b"two\n"), Place::End);
        let ours = buffer.render();
        let parsed = Buffer::parse(&[b"echo front\n", &ours[..], b"echo end\n"].concat());
        assert_eq!(texts(&parsed), [&b"echo front"[..], b"one", b"two\n", b"echo end"]);
    }

    #[test]
    fn text_that_looks_like_our_comment_is_text() {
        let fake = b"echo\n#rl-cleanup: id=aaaaaa bytes=4\nnope\n";
        let mut buffer = Buffer::default();
        buffer.add(entry(1, fake), Place::End);
        buffer.add(entry(2, b"#rl-cleanup: id=aaaaab bytes=999"), Place::End);
        assert_eq!(Buffer::parse(&buffer.render()), buffer);
        assert_eq!(Buffer::parse(b"#rl-cleanup: id=aaaaab bytes=999\nx\n").entries().len(), 1);
    }

    #[test]
    fn ids_never_collide_and_marks_stay() {
        let mut buffer = Buffer::default();
        let first = buffer.add(entry(7, b"a"), Place::Front);
        let second = buffer.add(Entry { mark: Mark::Set, ..entry(7, b"b") }, Place::Front);
        assert_ne!(first, second);
        assert_eq!(texts(&buffer), [b"b", b"a"]);
        let read = Buffer::parse(&buffer.render());
        assert_eq!(read.get(&second).unwrap().mark, Mark::Set);
        assert_eq!(read.get(&first).unwrap().mark, Mark::Unset);
    }

    /// Each id that is taken was once looked for among all, and the next one hashed out of it alone.
    #[test]
    fn a_file_of_one_id_only_is_read_as_fast_as_any() {
        let copies = 20_000;
        let same = b"#rl-cleanup: id=aaaaaa bytes=1\nx\n".repeat(copies);
        let buffer = Buffer::parse(&same);
        assert_eq!(buffer.entries().len(), copies);
        assert_eq!(buffer.ids.len(), copies, "no two of the same name");
        assert_eq!(Buffer::parse(&same), buffer, "the same names each time");
    }

    #[test]
    fn ids_are_six_letters_nobody_confuses() {
        for number in [0, 1, 30, 31, u64::MAX] {
            let id = Id::from_number(number);
            assert_eq!(id.as_str().parse::<Id>().unwrap(), id);
        }
        for bad in ["", "abc", "abcdef7", "ABCDEF", "abcde0", "abcdel", "../../"] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_file(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8)) {
            let mut buffer = Buffer::default();
            for (n, text) in texts.iter().enumerate() {
                buffer.add(entry(n as u64, text), Place::End);
            }
            prop_assert_eq!(Buffer::parse(&buffer.render()), buffer);
        }

        #[test]
        fn no_file_makes_the_parser_stumble(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let once = Buffer::parse(&bytes);
            prop_assert_eq!(Buffer::parse(&once.render()), once);
        }
    }
}

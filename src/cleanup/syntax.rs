//! The little of bash's syntax that must be understood to take apart what bash itself has printed:
//! where one `declare` or `alias` command ends and the next begins. Pure.

use std::io::BufRead;

/// `text` as one word that bash reads back byte for byte, in every version and locale.
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::syntax::quote;
/// assert_eq!(quote(b"it's"), br"'it'\''s'");
/// ```
#[must_use]
pub fn quote(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    quote_into(text, &mut out);
    out
}

/// The same at the end of `out`.
pub fn quote_into(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    let mut rest = text;
    while let Some(at) = find_byte(b'\'', rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"'\\''");
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

/// Splits the output of `declare -p` or `alias -p` into commands, each without its newline.
///
/// A value may hold newlines: bash 4.2 prints them raw within double quotes, 5.2 as `$'\n'`.
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::syntax::commands;
/// let printed = b"declare -- a=\"one\ntwo\"\ndeclare -i n=\"3\"\n";
/// assert_eq!(commands(printed), [&b"declare -- a=\"one\ntwo\""[..], b"declare -i n=\"3\""]);
/// ```
#[must_use]
pub fn commands(text: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let end = command_end(text, at);
        if end > at {
            found.push(&text[at..end]);
        }
        at = end + 1;
    }
    found
}

/// Where the command that starts at `at` ends: the first newline that no quote encloses.
fn command_end(text: &[u8], mut at: usize) -> usize {
    while at < text.len() {
        match text[at] {
            b'\n' => return at,
            b'\\' => at += 2,
            b'"' => at = double_quoted_end(text, at + 1),
            b'\'' => at = single_quoted_end(text, at + 1),
            b'$' if text.get(at + 1) == Some(&b'\'') => at = ansi_quoted_end(text, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

fn double_quoted_end(text: &[u8], at: usize) -> usize {
    escaped_end(text, at, b'"')
}

fn ansi_quoted_end(text: &[u8], at: usize) -> usize {
    escaped_end(text, at, b'\'')
}

fn escaped_end(text: &[u8], mut at: usize, quote: u8) -> usize {
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn single_quoted_end(text: &[u8], at: usize) -> usize {
    text[at.min(text.len())..].iter().position(|&b| b == b'\'').map_or(text.len(), |n| at + n + 1)
}

/// Where the first `byte` is. By way of std, which has the C library look: a search of our own would
/// be slower, and the one that is quickest in theory (crate memchr) asks the processor at each start
/// what it can do, which takes a millisecond on a virtual machine.
#[must_use]
pub fn find_byte(byte: u8, mut text: &[u8]) -> Option<usize> {
    let whole = text;
    // Reading from memory cannot fail.
    let taken = text.skip_until(byte).ok()?;
    (taken > 0 && whole[taken - 1] == byte).then(|| taken - 1)
}

/// Where `what` begins.
#[must_use]
pub fn find(what: &[u8], text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += find_byte(*what.first()?, &text[at..])?;
        if text[at..].starts_with(what) {
            return Some(at);
        }
        at += 1;
    }
}

/// Words that mean something to bash where a command starts (bash(1), "Reserved Words").
pub const RESERVED: &[&[u8]] = &[
    b"if",
    b"then",
    b"else",
    b"elif",
    b"fi",
    b"case",
    b"esac",
    b"for",
    b"while",
    b"until",
    b"do",
    b"done",
    b"in",
    b"select",
    b"function",
    b"time",
    b"coproc",
];

/// Whether `text` is so plain that every bash can parse it, whatever its options: commands of words,
/// quoted words and `$names`, one a line or with a semicolon between them. Most entries are
/// (`umount -f "$mnt"`), and to start a bash to hear it costs more than the rest of an append.
/// `false` says nothing. Aliases are the caller's to mind.
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::syntax::is_plain;
/// assert!(is_plain(b"umount -f \"$mnt\"; rm -rf 'a dir'"));
/// assert!(!is_plain(b"if umount /mnt"));
/// ```
#[must_use]
pub fn is_plain(text: &[u8]) -> bool {
    text.split(|&b| b == b'\n').all(|line| line.trim_ascii().is_empty() || is_plain_line(line))
}

fn is_plain_line(line: &[u8]) -> bool {
    let (mut at, mut words) = (0, 0);
    while at < line.len() {
        match line[at] {
            b' ' | b'\t' => at += 1,
            // A semicolon may end a line, but must have a command in front of it.
            b';' if words == 0 => return false,
            b';' => (at, words) = (at + 1, 0),
            _ => {
                let Some(end) = plain_word_end(line, at) else { return false };
                if words == 0 && RESERVED.contains(&&line[at..end]) {
                    return false;
                }
                (at, words) = (end, words + 1);
            }
        }
    }
    true
}

/// Where the word at `at` ends; `None` if anything in it is not plain.
fn plain_word_end(line: &[u8], mut at: usize) -> Option<usize> {
    while at < line.len() && !b" \t;".contains(&line[at]) {
        at = match line[at] {
            b'\'' => at + 1 + find_byte(b'\'', &line[at + 1..])? + 1,
            b'"' => at + 1 + plain_double_quoted_length(&line[at + 1..])?,
            // `$name`: neither `$(`, `${` nor `$'`, and a `$` at a word's end stands for itself.
            b'$' if line.get(at + 1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_') => at + 1,
            b if b.is_ascii_alphanumeric() || b"_-+./,:=@%^*?~".contains(&b) => at + 1,
            _ => return None,
        };
    }
    Some(at)
}

/// Up to and with the closing quote.
fn plain_double_quoted_length(rest: &[u8]) -> Option<usize> {
    let end = find_byte(b'"', rest)?;
    let inside = &rest[..end];
    let mut pieces = inside.split(|&b| b == b'$').skip(1);
    let dollars_are_names = pieces.all(|p| p.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_'));
    (dollars_are_names && !inside.contains(&b'\\') && !inside.contains(&b'`')).then_some(end + 1)
}

/// One command of `declare -p`, taken apart.
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::syntax::Declaration;
/// let declaration = Declaration::parse(br#"declare -ir n="3""#).unwrap();
/// assert_eq!((declaration.name, declaration.value), (&b"n"[..], Some(&br#""3""#[..])));
/// assert!(declaration.has(b'r') && !declaration.has(b'x'));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration<'a> {
    /// The letters of the attributes; none for `declare --`.
    pub attributes: &'a [u8],
    /// The variable's name.
    pub name: &'a [u8],
    /// Everything behind the equals sign, quoted as bash printed it; `None` where it has no value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Declaration<'a> {
    /// From one command; `None` if it is something else.
    #[must_use]
    pub fn parse(command: &'a [u8]) -> Option<Self> {
        let rest = command.strip_prefix(b"declare -")?;
        let space = rest.iter().position(|&b| b == b' ')?;
        let attributes = if &rest[..space] == b"-" { &rest[..0] } else { &rest[..space] };
        let rest = &rest[space + 1..];
        let (name, value) = match rest.iter().position(|&b| b == b'=') {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        (attributes.iter().all(u8::is_ascii_alphabetic) && is_name(name)).then_some(Self {
            attributes,
            name,
            value,
        })
    }

    /// Whether the variable has this attribute.
    #[must_use]
    pub fn has(&self, attribute: u8) -> bool {
        self.attributes.contains(&attribute)
    }
}

/// A variable's value as it is, without the quotes bash printed it in.
///
/// # Examples
/// ```
/// use rl_cleanup::cleanup::syntax::Value;
/// assert_eq!(Value::parse(br#""a \$b""#), Some(Value::Scalar(b"a $b".into())));
/// assert_eq!(Value::parse(br#"([7]="x")"#), Some(Value::Array(vec![(b"7".into(), b"x".into())])));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Scalar(Vec<u8>),
    /// Subscripts and values of an array of either kind.
    Array(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Value {
    /// From what stands behind the equals sign; `None` if bash has found a new way to print it.
    ///
    /// Taking it apart is needed, since not every bash reads back what it has printed: 4.2 and 4.3 put
    /// \001 in front of \001 and \177 and then read both, 4.2 stumbles over a bracket in a key, 5.1
    /// drops one of two \001 in an associative array.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.first() == Some(&b'(') {
            return parse_array(text);
        }
        let (word, end) = decode_word(text, 0, b"")?;
        if end != text.len() {
            return None;
        }
        // Until 4.3 an array stands in quotes, as if it were a string.
        if text.starts_with(b"'(") { parse_array(&word) } else { Some(Self::Scalar(word)) }
    }
}

/// `([0]="a" [k]=$'b' )`.
fn parse_array(text: &[u8]) -> Option<Value> {
    let mut elements = Vec::new();
    let mut at = 1;
    loop {
        match text.get(at)? {
            b' ' => at += 1,
            b')' => return (at + 1 == text.len()).then_some(Value::Array(elements)),
            b'[' => {
                let (key, end) = decode_word(text, at + 1, b"]")?;
                let value = end + 2;
                if text.get(end..value)? != b"]=" {
                    return None;
                }
                let (value, end) = decode_word(text, value, b" )")?;
                elements.push((key, value));
                at = end;
            }
            _ => return None,
        }
    }
}

/// One word of bash's own quoting, up to one of `ends`, and where that is.
fn decode_word(text: &[u8], mut at: usize, ends: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut word = Vec::new();
    while let Some(&b) = text.get(at).filter(|b| !ends.contains(b)) {
        at = match b {
            b'\'' => {
                let length = find_byte(b'\'', &text[at + 1..])?;
                word.extend_from_slice(&text[at + 1..at + 1 + length]);
                at + length + 2
            }
            b'"' => decode_double_quoted(text, at + 1, &mut word)?,
            b'$' if text.get(at + 1) == Some(&b'\'') => decode_ansi_quoted(text, at + 2, &mut word)?,
            b'\\' => {
                word.push(*text.get(at + 1)?);
                at + 2
            }
            b'$' | b'`' => return None,
            _ => {
                word.push(b);
                at + 1
            }
        };
    }
    Some((word, at))
}

fn decode_double_quoted(text: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        let next = text.get(at + 1);
        match (text.get(at)?, next) {
            (b'"', _) => return Some(at + 1),
            (b'\\', Some(b @ (b'"' | b'$' | b'`' | b'\\'))) | (1, Some(b @ (1 | 127))) => {
                word.push(*b);
                at += 2;
            }
            // Not within its own quotes, unless bash has changed its ways.
            (b'$' | b'`', _) => return None,
            (b, _) => {
                word.push(*b);
                at += 1;
            }
        }
    }
}

/// `$'…'` (bash(1), "QUOTING").
fn decode_ansi_quoted(text: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'\'' => return Some(at + 1),
            b'\\' => {
                let octal = text[at + 1..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                if octal > 0 {
                    let digits = std::str::from_utf8(&text[at + 1..at + 1 + octal]).ok()?;
                    word.push(u8::from_str_radix(digits, 8).ok()?);
                    at += 1 + octal;
                    continue;
                }
                word.push(match text.get(at + 1)? {
                    b'a' => 7,
                    b'b' => 8,
                    b'e' | b'E' => 27,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    b @ (b'\\' | b'\'' | b'"' | b'?') => *b,
                    _ => return None,
                });
                at += 2;
            }
            b => {
                word.push(*b);
                at += 1;
            }
        }
    }
}

/// Whether `name` can be a variable's.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_within_any_quotes_ends_nothing() {
        let text: &[u8] = b"declare -- a=\"x\ny \\\" 'z\"\ndeclare -a b='([0]=\"1\n2\")'\ndeclare -- c=$'\\'\n'\ndeclare -x d\n";
        let found = commands(text);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[3], b"declare -x d");
        assert_eq!(Declaration::parse(found[0]).unwrap().value.unwrap(), b"\"x\ny \\\" 'z\"");
    }

    #[test]
    fn broken_text_ends_at_its_end() {
        for text in [&b"declare -- a=\"x"[..], b"declare -- a=$'", b"declare -- a='", b"\\", b"\"\\", b"$'\\"]
        {
            assert_eq!(commands(text).len(), 1, "{text:?}");
        }
        assert!(commands(b"\n\n").is_empty());
    }

    #[test]
    fn declarations() {
        let parsed = Declaration::parse(b"declare -Ax m=([a]=\"b=c\")").unwrap();
        assert_eq!((parsed.attributes, parsed.name), (&b"Ax"[..], &b"m"[..]));
        assert!(Declaration::parse(b"declare -- x").unwrap().attributes.is_empty());
        for not in [&b"declare"[..], b"declare -x", b"declare -x 1a=\"\"", b"echo -x a", b"declare -- $(x)=1"]
        {
            assert_eq!(Declaration::parse(not), None);
        }
    }

    #[test]
    fn values_of_every_bash_are_taken_apart() {
        let scalar = |text: &[u8]| match Value::parse(text) {
            Some(Value::Scalar(value)) => value,
            other => panic!("{other:?}"),
        };
        assert_eq!(scalar(b"\"a\\\"\\$x\\`\\\\\\n'\n\""), b"a\"$x`\\\\n'\n");
        assert_eq!(scalar(b"$'\\001\\377\\n\\E\\'\\\\x'"), b"\x01\xff\n\x1b'\\x");
        assert_eq!(scalar(b"\"-n\x01\x7f\x01\x01\""), b"-n\x7f\x01");
        assert_eq!(scalar(b"\"\""), b"");
        let array = Value::Array(vec![(b"0".to_vec(), b"a b".to_vec()), (b"x]y".to_vec(), b"it's".to_vec())]);
        assert_eq!(Value::parse(b"([0]=\"a b\" [\"x]y\"]=$'it\\'s' )").unwrap(), array);
        assert_eq!(Value::parse(b"'([0]=\"a b\" [\"x]y\"]=\"it'\\''s\" )'").unwrap(), array);
        assert_eq!(Value::parse(b"()").unwrap(), Value::Array(vec![]));
        for odd in [&b"\"$(x)\""[..], b"([0]=\"a\"", b"(a b)", b"$'\\q'", b"\"a", b"$x", b"(x)y"] {
            assert_eq!(Value::parse(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn bytes_and_texts_are_found() {
        assert_eq!(
            (find_byte(b'x', b"axbx"), find_byte(b'x', b"ab"), find_byte(b'x', b"")),
            (Some(1), None, None)
        );
        assert_eq!(find_byte(b'x', b"abx"), Some(2));
        assert_eq!((find(b"ab", b"aab"), find(b"ab", b"aa"), find(b"ab", b"a")), (Some(1), None, None));
    }

    #[test]
    fn plain_text_is_known_at_sight() {
        for plain in [
            "true",
            "umount -f \"$mnt\"",
            "rm -rf '/a b (c'",
            "a=1 b; c d;",
            "\n x\n\ty;z\n",
            "rlFileRestore",
            "echo if then",
            "losetup -d $loop",
            "x=*.c ~/y? 'it' \"is\"",
            "",
        ] {
            assert!(is_plain(plain.as_bytes()), "{plain}");
        }
        for other in [
            "if x", "a; then", "a;;b", ";", "a && b", "(a)", "{ a; }", "a # b", "'", "\"a", "\"$(x\"", "$(x",
            "`x", "a\\", "! a", "a &", "a | b", "a <<EOF", "a > b", "x=(1", "f() {", "[[ a", "\"${x\"", "$",
            "a\rb", "time", "\"a\nb\"", "\u{e4}",
        ] {
            assert!(!is_plain(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn quoted_text_is_one_word() {
        assert_eq!(quote(b"a'b\n$(x)\xff"), b"'a'\\''b\n$(x)\xff'");
        assert_eq!(quote(b""), b"''");
    }
}

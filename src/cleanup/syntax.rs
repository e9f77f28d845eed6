//! The little of bash's syntax that must be understood to take apart what bash itself has printed:
//! where one `declare` or `alias` command ends and the next begins. Pure.

/// `text` as one word that bash reads back byte for byte, in every version and locale.
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
    while let Some(at) = memchr::memchr(b'\'', rest) {
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

/// Words that mean something to bash where a command starts (bash(1), "Reserved Words").
const RESERVED: &[&[u8]] = &[
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
            b'\'' => at + 1 + memchr::memchr(b'\'', &line[at + 1..])? + 1,
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
    let end = memchr::memchr(b'"', rest)?;
    let inside = &rest[..end];
    let dollars_are_names = memchr::memchr_iter(b'$', inside)
        .all(|n| inside.get(n + 1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_'));
    (dollars_are_names && !inside.contains(&b'\\') && !inside.contains(&b'`')).then_some(end + 1)
}

/// One command of `declare -p`, taken apart.
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

//! What the test's shell sent, turned into what a script may set.
//!
//! The shell prints its state with its own `declare -p`, `declare -f` and so on, in one stream
//! (`__rlc_dump` in the shim). Bash has quoted every value already, so values are passed on as they
//! are and never looked into. Pure: must do no I/O and read no environment.

use super::syntax::{self, Declaration, RESERVED, Value, find, find_byte, quote, quote_into};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The stream's first section. Whatever stands in front of it was printed by a trap of the test's.
const STREAM_START: &[u8] = b"rl-cleanup-stream-2";
/// The stream's last section: without it the shell was killed while it was printing.
const STREAM_END: &[u8] = b"end";
/// Names with this prefix belong to the final script's own code.
const SCRIPT_PREFIX: &[u8] = b"__rlcx_";
/// Those of them that outlive a change of shell in mid-cleanup.
const SCRIPT_KEPT_PREFIX: &[u8] = b"__rlcx_keep_";
/// Names with this prefix are the shim's locals.
const SHIM_LOCAL_PREFIX: &[u8] = b"__rlcl_";
/// The final script's shadow of `trap` names this variable; the user's own `trap` does not.
const TRAP_SHADOW: &[u8] = b"__rlcx_keep_trap";

/// Variables that bash refuses to set, or computes itself, or that describe a moment that is over
/// (bash(1), "Shell Variables"). `BASH_XTRACEFD` names a descriptor the cleanup does not have.
const NOT_CARRIED: &[&str] = &[
    "_",
    "BASH",
    "BASHOPTS",
    "BASHPID",
    "BASH_ALIASES",
    "BASH_ARGC",
    "BASH_ARGV",
    "BASH_ARGV0",
    "BASH_CMDS",
    "BASH_COMMAND",
    "BASH_EXECUTION_STRING",
    "BASH_LINENO",
    "BASH_MONOSECONDS",
    "BASH_SOURCE",
    "BASH_SUBSHELL",
    "BASH_TRAPSIG",
    "BASH_VERSINFO",
    "BASH_VERSION",
    "BASH_XTRACEFD",
    "COMP_CWORD",
    "COMP_KEY",
    "COMP_LINE",
    "COMP_POINT",
    "COMP_TYPE",
    "COMP_WORDBREAKS",
    "COMP_WORDS",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "LINENO",
    "PIPESTATUS",
    "PPID",
    "RANDOM",
    "READLINE_ARGUMENT",
    "READLINE_LINE",
    "READLINE_MARK",
    "READLINE_POINT",
    "SECONDS",
    "SHELLOPTS",
    "SRANDOM",
    "UID",
    "__INTERNAL_CLEANUP_FROM_JOURNALEND",
];

/// Shell options that would make a script end early, do nothing or flood its output, that need a
/// terminal, or that belong to how a shell was started; and ignoreeof, which a variable carries.
const OPTIONS_NOT_CARRIED: &[&str] = &[
    "errexit",
    "nounset",
    "noexec",
    "xtrace",
    "verbose",
    "onecmd",
    "monitor",
    "history",
    "histexpand",
    "emacs",
    "vi",
    "privileged",
    "interactive-comments",
    "ignoreeof",
];

/// `shopt` options that bash refuses to set.
const SHOPTS_NOT_CARRIED: &[&str] = &["login_shell", "restricted_shell"];

/// Where a snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A shell sent its state.
    Shell,
    /// Only the exported environment of some process was known.
    Environment,
}

/// Whether the script writes BeakerLib's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// The shell has BeakerLib's functions for it.
    Kept,
    /// It has not.
    Absent,
}

/// What a final script sets before its entries run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it comes from.
    pub origin: Origin,
    /// The bash that will run the script.
    pub interpreter: PathBuf,
    /// Whether to write BeakerLib's journal.
    pub journal: Journal,
    /// Shell text: variables and functions. Comes first.
    pub settings: Vec<u8>,
    /// Shell text: umask, shopt and set options, aliases. Comes last, since it changes how what
    /// follows is read.
    pub options: Vec<u8>,
}

/// A shell's state as the shim prints it, and the entry's text in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream<'a> {
    /// The entry's text; empty where the state alone was sent.
    pub text: &'a [u8],
    bash: &'a [u8],
    /// `$BASHOPTS` and `$SHELLOPTS`: what is on, between colons.
    shopts: &'a [u8],
    options: &'a [u8],
    umask: &'a [u8],
    aliases: &'a [u8],
    variables: &'a [u8],
    functions: &'a [u8],
}

impl<'a> Stream<'a> {
    /// Takes a stream apart; `None` if it is not whole.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut next = || {
            let (section, behind) = rest.split_at(find_byte(0, rest)?);
            rest = &behind[1..];
            Some(section)
        };
        while !next()?.ends_with(STREAM_START) {}
        let stream = Self {
            text: next()?,
            bash: next()?,
            shopts: next()?,
            options: next()?,
            umask: next()?,
            aliases: next()?,
            variables: next()?,
            functions: next()?,
        };
        (next()? == STREAM_END).then_some(stream)
    }

    /// What must be known to read the text as this shell would: interpreter and options. The sections
    /// with those come first, so that the text can be checked while the shell still prints the rest.
    /// `None` as long as they are not there.
    #[must_use]
    pub fn parse_syntax(bytes: &'a [u8]) -> Option<(&'a [u8], Snapshot)> {
        let start = find(STREAM_START, bytes)?;
        let mut ends = (start..bytes.len()).filter(|&n| bytes[n] == 0);
        let text = ends.next()? + 1..ends.next()?;
        let end = ends.nth(4)?;
        // The rest of a stream, empty, makes a whole one of it.
        let whole = [&bytes[start..=end], b"\0\0", STREAM_END, b"\0"].concat();
        Some((&bytes[text], Stream::parse(&whole)?.snapshot()))
    }

    /// The snapshot of this state.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let functions = Functions::parse(self.functions);
        let mut settings = Vec::with_capacity(2 * (self.variables.len() + self.functions.len()));
        settings.extend_from_slice(ALL_OFF);
        let mut late = Late::default();
        for command in syntax::commands(self.variables) {
            if let Some(declaration) = Declaration::parse(command).filter(is_carried) {
                late.take_or(declaration, &mut settings);
            }
        }
        functions.render(&mut settings);
        late.render_locale(&mut settings);
        Snapshot {
            origin: Origin::Shell,
            interpreter: interpreter(self.bash),
            journal: functions.journal(),
            settings,
            options: self.render_options(&late.posix),
        }
    }

    fn render_options(&self, posix_variable: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let umask = self.umask.trim_ascii();
        if !umask.is_empty() && umask.iter().all(u8::is_ascii_digit) {
            line(&mut out, &[b"\\builtin umask ", umask]);
        }
        let on = |list: &'a [u8]| list.split(|&b| b == b':').filter(|n| is_option_name(n));
        let posix = on(self.options).any(|n| n == b"posix");
        // POSIX mode changes expand_aliases and others, so it comes first.
        if posix {
            out.extend_from_slice(posix_variable);
            line(&mut out, &[b"\\builtin set -o posix"]);
        }
        // A variable has turned this on meanwhile: GLOBIGNORE.
        line(&mut out, &[b"\\builtin shopt -u dotglob"]);
        let shopts: Vec<&[u8]> = on(self.shopts).filter(|n| !is_among(n, SHOPTS_NOT_CARRIED)).collect();
        if !shopts.is_empty() {
            line(&mut out, &[b"\\builtin shopt -s ", &shopts.join(&b' '), b" 2>/dev/null"]);
        }
        // Before 'set -k', under which every word with an equals sign is an assignment.
        for command in syntax::commands(self.aliases) {
            if command.starts_with(b"alias ") {
                line(&mut out, &[b"\\builtin ", command]);
            }
        }
        // allexport last: it would export what comes behind it.
        let late = [&b"posix"[..], b"allexport"];
        let plain = on(self.options).filter(|n| !late.contains(n) && !is_among(n, OPTIONS_NOT_CARRIED));
        let mut set: Vec<u8> = plain.flat_map(|n| [b" -o ", n].concat()).collect();
        if on(self.options).any(|n| n == b"allexport") {
            set.extend_from_slice(b" -o allexport");
        }
        if !set.is_empty() {
            line(&mut out, &[b"\\builtin set", &set, b" 2>/dev/null"]);
        }
        out
    }
}

/// Turns off whatever a new bash has on, so that only what the snapshot turns on is on then. Must
/// come before the test's own IFS. (`shopt -u extdebug` turns errtrace and functrace off, too: one
/// more reason to turn things off first and on later.)
///
/// POSIX mode changes options without telling `BASHOPTS`; any use of `shopt` makes it right again.
const ALL_OFF: &[u8] = b"\\builtin shopt -u cdspell\n\\builtin shopt -u ${BASHOPTS//:/ } 2>/dev/null\n\
    for __rlcx_name in ${SHELLOPTS//:/ }; do \\builtin set +o \"$__rlcx_name\"; done 2>/dev/null\n";

impl Snapshot {
    /// Whether words of a text may stand for something else.
    #[must_use]
    pub fn has_aliases(&self) -> bool {
        find(b"\\builtin alias ", &self.options).is_some()
    }

    /// Shell text that makes a new bash read text as this shell would.
    #[must_use]
    pub fn syntax(&self) -> Vec<u8> {
        let off = if self.origin == Origin::Shell { ALL_OFF } else { b"" };
        [off, &self.options].concat()
    }

    /// What a process that is no shell can offer: its exported environment. `bash` is the
    /// interpreter to use.
    ///
    /// # Examples
    /// ```
    /// use rl_cleanup::cleanup::snapshot::Snapshot;
    /// let variables = [("COLOUR".into(), "it's blue".into()), ("TESTWATCHER_CLPATH".into(), "/x".into())];
    /// let snapshot = Snapshot::of_environment(variables.into_iter(), "/bin/bash".into());
    /// let settings = String::from_utf8(snapshot.settings).unwrap();
    /// assert!(settings.contains(r"COLOUR='it'\''s blue'"));
    /// assert!(!settings.contains("TESTWATCHER_CLPATH"), "it is the watcher's of the day");
    /// ```
    #[must_use]
    pub fn of_environment(variables: impl Iterator<Item = (OsString, OsString)>, bash: PathBuf) -> Self {
        let mut settings = Vec::new();
        let mut late = Late::default();
        let mut functions = Vec::new();
        for (name, value) in variables {
            let name = name.as_bytes();
            if let Some(function) = name.strip_prefix(b"BASH_FUNC_").and_then(|n| n.strip_suffix(b"%%")) {
                functions.push((function.to_vec(), [function, b" ", value.as_bytes()].concat()));
                continue;
            }
            let quoted = quote(value.as_bytes());
            let declaration = Declaration { attributes: b"x", name, value: Some(&quoted) };
            if syntax::is_name(name) && is_carried(&declaration) {
                late.take_or(declaration, &mut settings);
            }
        }
        Functions::exported(&functions).render(&mut settings);
        late.render_locale(&mut settings);
        let mut options = Vec::new();
        if !late.posix.is_empty() {
            options.extend_from_slice(&late.posix);
            line(&mut options, &[b"\\builtin set -o posix"]);
        }
        Self { origin: Origin::Environment, interpreter: bash, journal: Journal::Absent, settings, options }
    }
}

/// The names that a script must leave alone when it clears its own start environment, each within
/// two bars: `|BASH|BASHOPTS|…|`.
#[must_use]
pub fn untouchable_names() -> String {
    format!("|{}|", NOT_CARRIED.join("|"))
}

fn is_carried(declaration: &Declaration) -> bool {
    let name = declaration.name;
    let ours = (name.starts_with(SCRIPT_PREFIX) && !name.starts_with(SCRIPT_KEPT_PREFIX))
        || name.starts_with(SHIM_LOCAL_PREFIX);
    // Until bash 5.1 BASH_REMATCH was readonly.
    let refused = name == b"BASH_REMATCH" && declaration.has(b'r');
    !ours && !refused && !name.starts_with(b"TESTWATCHER_") && !is_among(name, NOT_CARRIED)
}

fn is_among(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|n| n.as_bytes() == name)
}

fn line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
    out.push(b'\n');
}

/// One variable as shell text.
///
/// The value goes in before any attribute that would change or evaluate it: `declare -i x="$(id)"`
/// runs a command, `declare -u x=a` stores another value. A readonly variable that is there
/// already, and a nameref to itself (a function's `local -n x=$1`), make no noise.
fn render_variable(declaration: Declaration, out: &mut Vec<u8>) {
    let Declaration { attributes, name, value } = declaration;
    let reference = declaration.has(b'n');
    let silent = reference || declaration.has(b'r');
    let line_end: &[u8] = if silent { b" 2>/dev/null\n" } else { b"\n" };
    let parsed = value.map(Value::parse);
    // An array gets its elements before it becomes readonly.
    let filled = matches!(parsed, Some(Some(Value::Array(_))));
    let rewrites = |a: &u8| b"iluc".contains(a);
    let in_two_steps = filled || (value.is_some() && !reference && attributes.iter().any(rewrites));
    let kind = |a: &u8| b"aA".contains(a);
    declare(attributes.iter().filter(|a| !in_two_steps || kind(a)), name, out);
    match (value, &parsed) {
        (None, _) => {}
        (Some(_), Some(Some(Value::Scalar(value)))) => {
            out.push(b'=');
            quote_into(value, out);
        }
        (Some(_), Some(Some(Value::Array(_)))) => out.extend_from_slice(b"=()"),
        // Bash has found a new way to print a value: it will be able to read it, too.
        (Some(value), _) => {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out.extend_from_slice(line_end);
    if let Some(Some(Value::Array(elements))) = &parsed {
        render_elements(name, elements, declaration.has(b'A'), out);
    }
    if in_two_steps && attributes.iter().any(|a| !kind(a)) {
        declare(attributes.iter().filter(|a| !kind(a)), name, out);
        out.extend_from_slice(line_end);
    }
}

fn declare<'a>(attributes: impl Iterator<Item = &'a u8>, name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"declare -");
    let before = out.len();
    out.extend(attributes);
    if out.len() == before {
        out.push(b'-');
    }
    out.push(b' ');
    out.extend_from_slice(name);
}

/// One assignment an element: what bash makes of a list in parentheses differs between versions. A
/// key goes in by a variable, since only then nothing in it is looked at.
fn render_elements(name: &[u8], elements: &[(Vec<u8>, Vec<u8>)], has_keys: bool, out: &mut Vec<u8>) {
    for (key, value) in elements {
        if has_keys && (key == b"@" || key == b"*") {
            // Behind a variable's name these mean all elements.
            out.extend_from_slice(&[name, b"+=([", &quote(key)[..], b"]=", &quote(value), b")\n"].concat());
            continue;
        }
        if has_keys {
            out.extend_from_slice(b"__rlcx_name=");
            quote_into(key, out);
            out.push(b'\n');
        }
        out.extend_from_slice(name);
        out.push(b'[');
        out.extend_from_slice(if has_keys { b"$__rlcx_name" } else { key });
        out.extend_from_slice(b"]=");
        quote_into(value, out);
        out.push(b'\n');
    }
}

/// Variables that act when they are set, and so must wait.
#[derive(Default)]
struct Late {
    locale: Vec<u8>,
    all_locale: Vec<u8>,
    posix: Vec<u8>,
}

impl Late {
    /// Keeps a variable back, or else renders it into `settings`.
    fn take_or(&mut self, declaration: Declaration, settings: &mut Vec<u8>) {
        let sink = match declaration.name {
            b"POSIXLY_CORRECT" => &mut self.posix,
            b"LC_ALL" => &mut self.all_locale,
            name if name == b"LANG" || name.starts_with(b"LC_") => &mut self.locale,
            _ => return render_variable(declaration, settings),
        };
        // By now a function of the test's may be called 'declare'. Behind 'builtin' bash would not
        // take an array's value, but then these are no arrays.
        let mut text = Vec::new();
        render_variable(declaration, &mut text);
        for command in text.split_inclusive(|&b| b == b'\n') {
            if command.starts_with(b"declare -") {
                sink.extend_from_slice(b"\\builtin ");
            }
            sink.extend_from_slice(command);
        }
    }

    /// Until here the script reads its text byte by byte (`LC_ALL=C`); from here on it has the
    /// test's locale. Bash complains when that is not installed, as it did in the test.
    fn render_locale(&self, out: &mut Vec<u8>) {
        // LC_ALL goes first: while it is set, the others have no effect, and when it is unset bash
        // looks at them again only as long as LANG is installed (locale.c, reset_locale_vars).
        line(out, &[b"{"]);
        if self.all_locale.is_empty() {
            line(out, &[b"\\builtin unset -v LC_ALL"]);
        }
        out.extend_from_slice(&self.locale);
        out.extend_from_slice(&self.all_locale);
        line(out, &[b"} 2>/dev/null"]);
    }
}

fn is_option_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(b))
}

/// The shell's functions: each one's text, name and attributes, in bash's order.
struct Functions<'a> {
    found: Vec<Function<'a>>,
}

struct Function<'a> {
    name: &'a [u8],
    text: &'a [u8],
    /// Attributes that bash printed behind it, and whose they are.
    attributes: &'a [u8],
    bearer: &'a [u8],
}

impl<'a> Function<'a> {
    /// Behind a function with attributes bash prints the command that sets them. It is cut off here:
    /// by the time it would run, `declare` may be a function of the test's. It names the function, and
    /// that is who it is for, even where a line of a here-document was taken for another's heading.
    fn new(name: &'a [u8], text: &'a [u8]) -> Self {
        let last =
            text[..text.len().saturating_sub(1)].iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
        let command = || {
            let line = text[last..].strip_prefix(b"declare -")?.strip_suffix(b"\n")?;
            let space = find_byte(b' ', line)?;
            let (attributes, bearer) = (&line[..space], &line[space + 1..]);
            attributes.contains(&b'f').then_some((attributes, bearer))
        };
        match command() {
            Some((attributes, bearer)) => Self { name, attributes, bearer, text: &text[..last] },
            None => Self { name, attributes: b"", bearer: name, text },
        }
    }
}

impl<'a> Functions<'a> {
    /// From `declare -f`. A function starts with a line `NAME () `, or `function NAME () ` where the
    /// name is a reserved word. The body of a here-document may hold a line like that, and so no
    /// single piece is relied upon: see `render`.
    fn parse(texts: &'a [u8]) -> Self {
        let mut starts = Vec::new();
        let mut at = 0;
        while at < texts.len() {
            let end = find_byte(b'\n', &texts[at..]).map_or(texts.len(), |e| at + e);
            if let Some(name) = texts[at..end].strip_suffix(b" () ") {
                let name = name.strip_prefix(b"function ").unwrap_or(name);
                if !name.is_empty() && !name.contains(&b' ') {
                    starts.push((at, name));
                }
            }
            at = end + 1;
        }
        let ends = starts.iter().skip(1).map(|s| s.0).chain([texts.len()]);
        let found =
            starts.iter().zip(ends).map(|(&(start, name), end)| Function::new(name, &texts[start..end]));
        Self { found: found.collect() }.without_script_code()
    }

    fn exported(named: &'a [(Vec<u8>, Vec<u8>)]) -> Self {
        let found = named.iter().map(|(name, text)| Function { name, text, attributes: b"fx", bearer: name });
        Self { found: found.collect() }
    }

    fn without_script_code(mut self) -> Self {
        self.found.retain(|f| {
            let shadow = f.name == b"trap" && find(TRAP_SHADOW, f.text).is_some();
            !f.name.starts_with(SCRIPT_PREFIX) && !shadow
        });
        self
    }

    fn journal(&self) -> Journal {
        let needed = ["rlJournalStart", "rlPhaseStartCleanup", "rlPhaseEnd", "rlJournalEnd"];
        let has = |name: &&str| self.found.iter().any(|f| f.name == name.as_bytes());
        if needed.iter().all(has) { Journal::Kept } else { Journal::Absent }
    }

    /// All texts are read in one go; should one of them be unreadable to bash, each is read alone,
    /// so that it takes no other one down. extglob is on meanwhile, since bash prints a pattern that
    /// needs it without saying so.
    fn render(&self, out: &mut Vec<u8>) {
        if self.found.is_empty() {
            return;
        }
        line(out, &[b"\\builtin shopt -s extglob"]);
        line(out, &[b"__rlcx_texts=("]);
        for function in &self.found {
            // Not every bash prints the word that such a name needs.
            let needs_word = RESERVED.contains(&function.name) && function.text.starts_with(function.name);
            let text = [if needs_word { &b"function "[..] } else { b"" }, function.text].concat();
            quote_into(&text, out);
            out.push(b'\n');
        }
        line(out, &[b")"]);
        line(out, &[b"\\__rlcx_define\n\\builtin shopt -u extglob"]);
        for attribute in *b"xtr" {
            for function in self.found.iter().filter(|f| f.attributes.contains(&attribute)) {
                let name = quote(function.bearer);
                line(out, &[b"\\builtin declare -f", &[attribute], b" -- ", &name, b" 2>/dev/null"]);
            }
        }
    }
}

/// `$BASH`, if it can stand behind `#!`: one absolute path of printable characters, and not a bash
/// that was started as `sh` and so would start in POSIX mode again.
fn interpreter(bash: &[u8]) -> PathBuf {
    let name = bash.rsplit(|&b| b == b'/').next().unwrap_or_default();
    // execve(2): the kernel reads 255 bytes of the line, older ones 127.
    let usable = bash.starts_with(b"/")
        && bash.len() < 120
        && bash.iter().all(u8::is_ascii_graphic)
        && !matches!(name, b"" | b"sh");
    if usable { OsString::from_vec(bash.to_vec()).into() } else { OsStr::new("/bin/bash").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(sections: [&str; 8]) -> Vec<u8> {
        format!("noise\0rl-cleanup-stream-2\0{}\0end\0", sections.join("\0")).into_bytes()
    }

    fn of(variables: &str) -> String {
        let bytes = stream(["", "/bin/bash", "", "", "0022\n", "", variables, ""]);
        String::from_utf8(Stream::parse(&bytes).unwrap().snapshot().settings).unwrap()
    }

    #[test]
    fn a_stream_cut_short_is_no_stream() {
        let whole = stream(["t", "/bin/bash", "", "", "0022\n", "", "", ""]);
        assert_eq!(Stream::parse(&whole).unwrap().text, b"t");
        for end in 0..whole.len() - 1 {
            assert_eq!(Stream::parse(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn values_are_set_before_attributes_that_would_change_them() {
        let text = of("declare -i n=\"\\$(id)\"\ndeclare -Aru m=([a]=\"x\" )\ndeclare -i bare\n");
        assert!(text.contains("declare -- n='$(id)'\ndeclare -i n\n"), "{text}");
        assert!(
            text.contains("declare -A m=() 2>/dev/null\n__rlcx_name='a'\nm[$__rlcx_name]='x'\n"),
            "{text}"
        );
        assert!(text.contains("declare -ru m 2>/dev/null\n"), "{text}");
        assert!(text.contains("declare -i bare\n"), "{text}");
    }

    #[test]
    fn what_bash_owns_and_what_the_watcher_of_the_day_owns_stays_out() {
        let text = of(
            "declare -ir UID=\"0\"\ndeclare -x TESTWATCHER_CLPATH=\"/x\"\ndeclare -- __rlcl_t=\"\"\n\
                       declare -- __rlcx_id=\"\"\ndeclare -- __rlcx_keep_failed=\"2\"\ndeclare -- mine=\"1\"\n",
        );
        for gone in ["UID", "TESTWATCHER", "__rlcl_", "__rlcx_id"] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert!(text.contains("mine='1'") && text.contains("__rlcx_keep_failed"), "{text}");
    }

    #[test]
    fn options_that_would_end_a_script_stay_out() {
        let shopts = "extglob:login_shell";
        let options = "errexit:noglob:xtrace:allexport";
        let bytes = stream(["", "/bin/bash", shopts, options, "0077\n", "alias a='b\nc'\n", "", ""]);
        let text = String::from_utf8(Stream::parse(&bytes).unwrap().snapshot().options).unwrap();
        assert_eq!(
            text,
            "\\builtin umask 0077\n\\builtin shopt -u dotglob\n\\builtin shopt -s extglob 2>/dev/null\n\\builtin alias a='b\nc'\n\
             \\builtin set -o noglob -o allexport 2>/dev/null\n"
        );
    }

    #[test]
    fn the_syntax_is_known_before_the_stream_has_ended() {
        let whole = stream(["if x", "/bin/bash", "extglob", "", "0022\n", "", "declare -- a=\"1\"\n", ""]);
        let start = whole.windows(7).position(|w| w == b"declare").unwrap();
        let (text, snapshot) = Stream::parse_syntax(&whole[..start]).unwrap();
        assert_eq!((text, snapshot.interpreter.clone()), (&b"if x"[..], PathBuf::from("/bin/bash")));
        assert!(snapshot.syntax().ends_with(b"shopt -s extglob 2>/dev/null\n"));
        for end in 0..start {
            assert_eq!(Stream::parse_syntax(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn functions_are_told_apart_by_the_next_heading() {
        let texts = b"a () \n{ \n    x b () \n}\nb () \n{ \n    :\n}\ndeclare -fx b\nfunction if () \n{ \n    :\n}\n__rlcx_end () \n{ \n    :\n}\ntrap () \n{ \n    $__rlcx_keep_trap\n}\n";
        let functions = Functions::parse(texts);
        let names: Vec<_> = functions.found.iter().map(|f| f.name).collect();
        assert_eq!(names, [&b"a"[..], b"b", b"if"]);
        assert_eq!(functions.found[0].text, b"a () \n{ \n    x b () \n}\n");
        assert_eq!(functions.found[1].attributes, b"fx");
        assert_eq!(functions.found[1].text, b"b () \n{ \n    :\n}\n");
    }

    #[test]
    fn attributes_find_their_function_past_a_misleading_here_document() {
        let functions = Functions::parse(
            b"g () \n{ \n    cat <<A\nx () \n{ \n}\nA\n\n}\ndeclare -ft g\nh () \n{ \n    :\n}\n",
        );
        let mut out = Vec::new();
        functions.render(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("declare -ft -- 'g'") && !text.contains("declare -ft g"), "{text}");
    }

    #[test]
    fn only_a_plain_absolute_bash_is_an_interpreter() {
        assert_eq!(interpreter(b"/opt/b/bash"), PathBuf::from("/opt/b/bash"));
        for odd in [&b"bash"[..], b"/bin/sh", b"/a b/bash", b"", b"/x\n/bash", b"/"] {
            assert_eq!(interpreter(odd), PathBuf::from("/bin/bash"));
        }
    }

    #[test]
    fn an_environment_is_a_small_snapshot() {
        let variables = [("A", "it's"), ("BASH_FUNC_f%%", "() {  :\n}"), ("a.b", "1"), ("UID", "3")];
        let pairs = variables.into_iter().map(|(n, v)| (n.into(), v.into()));
        let snapshot = Snapshot::of_environment(pairs, "/bin/bash".into());
        let text = String::from_utf8(snapshot.settings).unwrap();
        assert!(text.contains("declare -x A='it'\\''s'\n"), "{text}");
        assert!(text.contains("'f () {  :\n}'"), "{text}");
        assert!(!text.contains("a.b") && !text.contains("UID"), "{text}");
    }
}

//! What the test's shell sent, turned into what a script may set.
//!
//! The shell prints its state with its own `declare -p`, `declare -f` and so on, in one stream
//! (`__rlc_dump` in the shim). Bash has quoted every value already, so values are passed on as they
//! are and never looked into. Pure: must do no I/O and read no environment.

use super::syntax::{self, Declaration, quote};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The stream's first section. Whatever stands in front of it was printed by a trap of the test's.
const STREAM_START: &[u8] = b"rl-cleanup-stream-1";
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
/// terminal, or that belong to how a shell was started.
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
pub struct Stream {
    /// The entry's text; empty where the state alone was sent.
    pub text: Vec<u8>,
    bash: Vec<u8>,
    umask: Vec<u8>,
    shopts: Vec<u8>,
    options: Vec<u8>,
    aliases: Vec<u8>,
    function_list: Vec<u8>,
    variables: Vec<u8>,
    functions: Vec<u8>,
}

impl Stream {
    /// Takes a stream apart; `None` if it is not whole.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut sections = bytes.split(|&b| b == 0).skip_while(|s| !s.ends_with(STREAM_START)).skip(1);
        let mut next = || sections.next().map(<[u8]>::to_vec);
        let stream = Self {
            text: next()?,
            bash: next()?,
            umask: next()?,
            shopts: next()?,
            options: next()?,
            aliases: next()?,
            function_list: next()?,
            variables: next()?,
            functions: next()?,
        };
        (next()? == STREAM_END).then_some(stream)
    }

    /// The snapshot of this state.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let functions = Functions::parse(&self.function_list, &self.functions);
        let mut settings = Vec::new();
        let mut late = Late::default();
        for command in syntax::commands(&self.variables) {
            if let Some(declaration) = Declaration::parse(command).filter(is_carried) {
                late.take_or(declaration, &mut settings);
            }
        }
        functions.render(&mut settings);
        late.render_locale(&mut settings);
        Snapshot {
            origin: Origin::Shell,
            interpreter: interpreter(&self.bash),
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
        let mut posix = false;
        let mut all_exported: &[u8] = b"+o";
        let mut set = b"\\builtin set".to_vec();
        for (state, name) in option_lines(&self.options, b"set ", b"-o", b"+o") {
            match name {
                b"posix" => posix = state == b"-o",
                b"allexport" => all_exported = state,
                _ if is_among(name, OPTIONS_NOT_CARRIED) => {}
                _ => set.extend_from_slice(&[b" ", state, b" ", name].concat()),
            }
        }
        let mut shopts = Vec::new();
        for wanted in [&b"-s"[..], b"-u"] {
            let names: Vec<&[u8]> = option_lines(&self.shopts, b"shopt ", b"-s", b"-u")
                .filter(|(state, name)| *state == wanted && !is_among(name, SHOPTS_NOT_CARRIED))
                .map(|(_, name)| name)
                .collect();
            if !names.is_empty() {
                line(&mut shopts, &[b"\\builtin shopt ", wanted, b" ", &names.join(&b' '), b" 2>/dev/null"]);
            }
        }
        // POSIX mode changes expand_aliases and others, so it comes first.
        if posix {
            out.extend_from_slice(posix_variable);
            line(&mut out, &[b"\\builtin set -o posix"]);
        }
        out.extend_from_slice(&shopts);
        // Before 'set -k', under which every word with an equals sign is an assignment.
        for command in syntax::commands(&self.aliases) {
            if command.starts_with(b"alias ") {
                line(&mut out, &[b"\\builtin ", command]);
            }
        }
        // After shopt: 'shopt -u extdebug' turns errtrace and functrace off (bash's shopt.def).
        if set.len() > b"\\builtin set".len() {
            line(&mut out, &[&set, b" 2>/dev/null"]);
        }
        line(&mut out, &[b"\\builtin set ", all_exported, b" allexport"]);
        out
    }
}

impl Snapshot {
    /// What a process that is no shell can offer: its exported environment. `bash` is the
    /// interpreter to use.
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
        Functions::exported(functions).render(&mut settings);
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
    let rewrites = attributes.iter().any(|a| b"iluc".contains(a));
    let (first, then): (Vec<u8>, Vec<u8>) = if value.is_some() && rewrites && !reference {
        attributes.iter().partition(|a| b"aA".contains(a))
    } else {
        (attributes.to_vec(), Vec::new())
    };
    let flags = |letters: &[u8]| if letters.is_empty() { b"-".to_vec() } else { letters.to_vec() };
    out.extend_from_slice(&[b"declare -", &flags(&first)[..], b" ", name].concat());
    if let Some(value) = value {
        out.push(b'=');
        out.extend_from_slice(value);
    }
    let silent: &[u8] = if reference || declaration.has(b'r') { b" 2>/dev/null\n" } else { b"\n" };
    if then.is_empty() {
        out.extend_from_slice(silent);
    } else {
        line(out, &[b"\ndeclare -", &then, b" ", name]);
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
        line(out, &[b"{\n\\builtin unset -v LC_ALL"]);
        out.extend_from_slice(&self.locale);
        out.extend_from_slice(&self.all_locale);
        line(out, &[b"} 2>/dev/null"]);
    }
}

/// `shopt -s extglob` or `set +o noglob` lines, as (state, name).
fn option_lines<'a>(
    text: &'a [u8],
    command: &'a [u8],
    on: &'a [u8],
    off: &'a [u8],
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    text.split(|&b| b == b'\n').filter_map(move |line| {
        let rest = line.strip_prefix(command)?;
        let space = rest.iter().position(|&b| b == b' ')?;
        let (state, name) = (&rest[..space], &rest[space + 1..]);
        let plain = name.iter().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(b));
        ((state == on || state == off) && plain && !name.is_empty()).then_some((state, name))
    })
}

/// The shell's functions: each one's text, name and attributes, in bash's order.
struct Functions {
    found: Vec<Function>,
}

struct Function {
    name: Vec<u8>,
    attributes: Vec<u8>,
    text: Vec<u8>,
}

impl Functions {
    /// From `declare -F` (one line a function) and `declare -f` (all texts), which bash prints in
    /// the same order. Where one text ends is known by the heading of the next; the body of a
    /// here-document may hold a line like that, and so no single piece is relied upon: see `render`.
    fn parse(list: &[u8], texts: &[u8]) -> Self {
        let named: Vec<(&[u8], &[u8])> = list
            .split(|&b| b == b'\n')
            .filter_map(|line| {
                let rest = line.strip_prefix(b"declare -")?;
                let space = rest.iter().position(|&b| b == b' ')?;
                Some((&rest[..space], &rest[space + 1..]))
            })
            .collect();
        let starts = Self::starts(&named, texts);
        let mut found = Vec::new();
        for (n, (attributes, name)) in named.iter().enumerate() {
            let end = starts[n + 1..].iter().flatten().next().copied().unwrap_or(texts.len());
            if let Some(start) = starts[n] {
                // Behind a function with attributes bash prints the command that sets them. Without
                // it, since by then 'declare' may be a function of the test's.
                let attributes_line = [b"declare -", *attributes, b" ", name, b"\n"].concat();
                let text = &texts[start..end];
                let text = text.strip_suffix(&attributes_line[..]).unwrap_or(text).to_vec();
                let attributes = attributes.iter().copied().filter(|a| *a != b'f').collect();
                found.push(Function { name: name.to_vec(), attributes, text });
            }
        }
        Self { found }.without_script_code()
    }

    fn starts(named: &[(&[u8], &[u8])], texts: &[u8]) -> Vec<Option<usize>> {
        let mut from = 0;
        let mut starts = Vec::with_capacity(named.len());
        for (_, name) in named {
            let heading = [*name, b" () \n"].concat();
            let start = heading_at(texts, from, &heading)
                .or_else(|| heading_at(texts, from, &[b"function ", &heading[..]].concat()));
            if let Some(start) = start {
                from = start + heading.len();
            }
            starts.push(start);
        }
        starts
    }

    fn exported(named: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let found = named.into_iter().map(|(name, text)| Function { name, attributes: vec![b'x'], text });
        Self { found: found.collect() }
    }

    fn without_script_code(mut self) -> Self {
        self.found.retain(|f| {
            let shadow = f.name == b"trap" && contains(&f.text, TRAP_SHADOW);
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
            line(out, &[&quote(&function.text)]);
        }
        line(out, &[b")"]);
        line(out, &[b"\\__rlcx_define"]);
        for attribute in *b"xtr" {
            for function in self.found.iter().filter(|f| f.attributes.contains(&attribute)) {
                let name = quote(&function.name);
                line(out, &[b"\\builtin declare -f", &[attribute], b" -- ", &name, b" 2>/dev/null"]);
            }
        }
    }
}

/// Where `heading` stands at the start of a line, at or behind `from`.
fn heading_at(texts: &[u8], from: usize, heading: &[u8]) -> Option<usize> {
    let mut at = from;
    while let Some(found) = find(texts.get(at..)?, heading) {
        let start = at + found;
        if start == 0 || texts[start - 1] == b'\n' {
            return Some(start);
        }
        at = start + 1;
    }
    None
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut at = 0;
    while let Some(n) = text.get(at..)?.iter().position(|&b| b == first) {
        at += n;
        if text[at..].starts_with(what) {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    find(text, what).is_some()
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

    fn stream(sections: [&str; 9]) -> Vec<u8> {
        format!("noise\0rl-cleanup-stream-1\0{}\0end\0", sections.join("\0")).into_bytes()
    }

    fn of(variables: &str) -> String {
        let bytes = stream(["", "/bin/bash", "0022\n", "", "", "", "", variables, ""]);
        String::from_utf8(Stream::parse(&bytes).unwrap().snapshot().settings).unwrap()
    }

    #[test]
    fn a_stream_cut_short_is_no_stream() {
        let whole = stream(["t", "/bin/bash", "0022\n", "", "", "", "", "", ""]);
        assert_eq!(Stream::parse(&whole).unwrap().text, b"t");
        for end in 0..whole.len() - 1 {
            assert_eq!(Stream::parse(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn values_are_set_before_attributes_that_would_change_them() {
        let text = of("declare -i n=\"\\$(id)\"\ndeclare -Aru m=([a]=\"x\" )\ndeclare -i bare\n");
        assert!(text.contains("declare -- n=\"\\$(id)\"\ndeclare -i n\n"), "{text}");
        assert!(
            text.contains("declare -A m=([a]=\"x\" ) 2>/dev/null")
                || text.contains("declare -A m=([a]=\"x\" )\n"),
            "{text}"
        );
        assert!(text.contains("declare -ru m\n"), "{text}");
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
        assert!(text.contains("mine=\"1\"") && text.contains("__rlcx_keep_failed"), "{text}");
    }

    #[test]
    fn options_that_would_end_a_script_stay_out() {
        let bytes = stream([
            "",
            "/bin/bash",
            "0077\n",
            "shopt -s extglob\nshopt -u login_shell\nshopt -u dotglob\n",
            "set -o errexit\nset -o noglob\nset -o xtrace\nset +o posix\nset -o allexport\n",
            "alias a='b\nc'\n",
            "",
            "",
            "",
        ]);
        let text = String::from_utf8(Stream::parse(&bytes).unwrap().snapshot().options).unwrap();
        assert_eq!(
            text,
            "\\builtin umask 0077\n\\builtin shopt -s extglob 2>/dev/null\n\\builtin shopt -u dotglob 2>/dev/null\n\
             \\builtin alias a='b\nc'\n\\builtin set -o noglob 2>/dev/null\n\\builtin set -o allexport\n"
        );
    }

    #[test]
    fn functions_are_told_apart_by_the_next_heading() {
        let list = b"declare -f a\ndeclare -fx b\ndeclare -f if\ndeclare -f __rlcx_end\ndeclare -f trap\n";
        let texts = b"a () \n{ \n    x b () \n}\nb () \n{ \n    :\n}\ndeclare -fx b\nfunction if () \n{ \n    :\n}\n__rlcx_end () \n{ \n    :\n}\ntrap () \n{ \n    $__rlcx_keep_trap\n}\n";
        let functions = Functions::parse(list, texts);
        let names: Vec<_> = functions.found.iter().map(|f| f.name.clone()).collect();
        assert_eq!(names, [&b"a"[..], b"b", b"if"]);
        assert_eq!(functions.found[0].text, b"a () \n{ \n    x b () \n}\n");
        assert_eq!(functions.found[1].attributes, b"x");
        assert_eq!(functions.found[1].text, b"b () \n{ \n    :\n}\n");
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

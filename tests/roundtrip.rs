//! Nothing a test's shell can hold is lost: random shells, printed by themselves when they add an
//! entry and by the final script when it runs it, must look the same byte for byte.
//!
//! `RL_CLEANUP_ROUNDTRIPS` says how many (default 300), `RL_CLEANUP_SEED` where to start. A failure
//! prints its seed: `RL_CLEANUP_SEED=n RL_CLEANUP_ROUNDTRIPS=1 cargo test --test roundtrip`.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use common::{BINARY, State, shim};
use rl_cleanup::cleanup::syntax::quote;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// splitmix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Ordinary names, names a careless implementation would use itself, and names bash looks at.
const NAMES: &[&str] = &[
    "v",
    "i",
    "n",
    "x",
    "line",
    "text",
    "name",
    "id",
    "dir",
    "status",
    "REPLY",
    "entry",
    "out",
    "key",
    "_a",
    "A1",
    "MAPFILE",
    "arr",
    "map",
    "ref",
    "count",
    "OPTARG",
    "TIMEFORMAT",
    "PS4",
    "HOSTNAME",
    "TERM",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "OLDPWD",
    "PWD",
    "SHLVL",
    "CDPATH",
    "HISTSIZE",
    "COLUMNS",
    "HOME",
    "EDITOR",
    "JOBID",
    "IFS",
    "PATH",
    "LD_PRELOAD",
    "STALE",
    "GLOBIGNORE",
    "COPROC",
    "tmp",
    "f",
    "k",
    "file",
    "rc",
    "ret",
];

const SHOPTS: &[&str] = &[
    "extglob",
    "nullglob",
    "dotglob",
    "failglob",
    "nocasematch",
    "nocaseglob",
    "globstar",
    "lastpipe",
    "expand_aliases",
    "xpg_echo",
    "sourcepath",
    "inherit_errexit",
    "localvar_inherit",
    "assoc_expand_once",
    "patsub_replacement",
    "execfail",
    "cdspell",
    "gnu_errfmt",
    "shift_verbose",
    "localvar_unset",
    "checkhash",
    "extquote",
    "force_fignore",
    "globasciiranges",
    "interactive_comments",
    "huponexit",
    "varredir_close",
];

const OPTIONS: &[&str] = &[
    "noglob",
    "noclobber",
    "allexport",
    "pipefail",
    "errexit",
    "nounset",
    "errtrace",
    "functrace",
    "physical",
    "keyword",
    "braceexpand",
    "hashall",
    "notify",
];

/// Bodies that bash prints in a way of their own.
const BODIES: &[&str] = &[
    "{ :; }",
    "{ cat <<EOF\n$v `id`\nEOF\n}",
    "{ cat <<'A' <<-B\nx () \n{ \n}\nA\n\tb\nB\n}",
    "{ cat <<'EOF'\nzz () \n{ \n    :\n}\nEOF\n}",
    "{ case $1 in a|b) echo 1;; *'x y'*) ;& [[:alpha:]]) ;;& esac; }",
    "{ [[ $1 == @(a|b)+(c) && $2 != !(x) ]] && echo ${1/#@(a|b)/c} ${2%%+([0-9])}; }",
    "{ case $1 in ?(a)b|*(c)) ;; esac; }",
    "{ [[ $1 =~ ^(a|b)\\ \"c\"$ ]]; }",
    "{ local a=$'\\x01\\n' b=\"`echo \\`id\\``\" c='it'\\''s'; echo \"${a@Q}\" \"$b\" ${c:-\"$(echo \"x\")\"}; }",
    "( exec 3>&1; echo sub ) 2>/dev/null",
    "{ for ((i=0;i<3;i++)); do select x in a b; do break 2; done; done; }",
    "{ while read -r l; do echo \"$l\"; done < <(ls) | tee >(cat) &>/dev/null & wait; }",
    "{ inner() { deep() { echo $((1+2)); }; deep; }; inner; unset -f inner; }",
    "{ if ! a; then b; elif c; then d; else e; fi; until false; do break; done; time -p :; coproc C { :; }; }",
    "{ echo {a,b}{1..3} ~ * \"$@\" ${#arr[@]} ${!v} \"${map[a b]}\" $\"tr\"; }",
    "{ echo äöü '\u{1F600}' $'\\377'; }",
    "{ trap 'echo x' USR1; (( a = b ? c : d )); let x=1; [ a = b ]; return 3; }",
];

const FUNCTIONS: &[&str] = &[
    "f",
    "g",
    "zz",
    "yy",
    "a-b",
    "a.b",
    "+",
    "a:b",
    "x@y",
    "Ünïcode",
    "_",
    "do_it",
    "a/b",
    "foo%",
    "if",
    "[[x",
];

/// Builtins and programs that a careless implementation would call by their bare names.
const HIJACKED: &[&str] = &[
    "cat",
    "mv",
    "rm",
    "chmod",
    "echo",
    "printf",
    "declare",
    "command",
    "[",
    "test",
    "read",
    "local",
    "export",
    "unset",
    "set",
    "shopt",
    "eval",
    "type",
    "trap",
    "typeset",
    "alias",
    "exec",
    "exit",
    "return",
    "umask",
    "readonly",
    "mapfile",
    "shift",
    "true",
    "false",
    "cd",
    "mktemp",
    "rl-cleanup",
    "compgen",
    "source",
    ".",
    ":",
];

/// A program that builds one shell, and the names it uses.
struct Shell {
    setup: Vec<u8>,
    variables: Vec<String>,
    functions: Vec<String>,
}

fn value(random: &mut Random) -> Vec<u8> {
    const PIECES: &[&[u8]] = &[
        b"a",
        b"b c",
        b" ",
        b"\t",
        b"\n",
        b"'",
        b"\"",
        b"\\",
        b"$(touch $ROOT/executed)",
        b"`touch $ROOT/executed`",
        b"${v}",
        b"$v",
        b"!",
        b"!!",
        b"*",
        b"?",
        b"[",
        b"]",
        b"~",
        b"#",
        b"=",
        b"\x01",
        b"\x7f",
        b"\x1b[0m",
        b"\xff",
        b"\xc3",
        b"\xc3\xa4",
        b"\xf0\x9f\x98\x80",
        b"-n",
        b"-e",
        b"\r",
        b"declare -- x=\"1\"\n",
        b"}\n",
        b"x () \n{ \n",
        b"EOF\n",
        b"<<EOF",
        b"%s",
        b"\\n",
        b"a[$(touch $ROOT/executed)]",
        b"$'",
        b"{a,b}",
        b";",
        b"&",
        b"|",
        b"(",
        b")",
        b"<",
        b">",
        b"\x80",
        b"\xe2\x82",
        b"\xc2\xa0",
        b"\\\n",
        b"\x02",
        b"\x08",
    ];
    match random.below(20) {
        0 => Vec::new(),
        1 => random.next().to_string().into_bytes(),
        2 => vec![b'y'; random.below(300)],
        3 => (0..random.below(80)).map(|_| u8::try_from(random.below(255) + 1).unwrap()).collect(),
        _ => (0..random.below(9)).flat_map(|_| random.pick(PIECES).to_vec()).collect(),
    }
}

/// A value that a declaration with arithmetic may have without being an error.
fn number(random: &mut Random) -> Vec<u8> {
    let text = match random.below(4) {
        0 => "7*6".into(),
        1 => format!("-{}", random.below(1 << 40)),
        2 => "0x1f".into(),
        _ => random.below(1000).to_string(),
    };
    text.into_bytes()
}

impl Shell {
    fn new(random: &mut Random) -> Self {
        let mut shell = Self { setup: Vec::new(), variables: Vec::new(), functions: Vec::new() };
        for _ in 0..random.below(14) + 1 {
            shell.variable(random);
        }
        for _ in 0..random.below(6) {
            shell.function(random);
        }
        for _ in 0..random.below(3) {
            shell.hijack(random);
        }
        shell
    }

    fn line(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.setup.extend_from_slice(part);
        }
        self.setup.push(b'\n');
    }

    fn variable(&mut self, random: &mut Random) {
        let name = random.pick(NAMES);
        if self.variables.iter().any(|v| v == name) {
            return;
        }
        self.variables.push(name.to_owned());
        // These steer how bash itself goes on, or the loader.
        let plain_only =
            ["IFS", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_PRELOAD", "GLOBIGNORE", "HISTSIZE", "SHLVL"];
        let name = name.as_bytes();
        if plain_only.iter().any(|p| p.as_bytes() == name) {
            return self.special(random, name);
        }
        // A local that hides an exported variable hides it from the shell, not from its children.
        let inherited = [&b"EDITOR"[..], b"JOBID", b"HOME", b"PWD"].contains(&name);
        let place: &[u8] = if random.chance(30) && !inherited { b"local" } else { b"declare -g" };
        // bash 5.2 cannot make an array local and readonly at once without a value.
        match random.below(12) {
            0 => self.line(&[b"builtin unset -v ", name]),
            1 => self.line(&[
                place,
                b" ",
                random.pick(&[&b"-i"[..], b"-a", b"-A", b"-x", b"-u", b"-t", b"-l"]),
                b" ",
                name,
            ]),
            2 => {
                let number = number(random);
                self.line(&[place, b" -i ", name, b"=", &quote(&number)]);
            }
            // Bash 5.2 itself crashes when these are arrays.
            3..=6 if name.ends_with(b"PWD") || name == b"HOME" => {
                self.line(&[b"declare -g -x ", name, b"=", &quote(&value(random))])
            }
            3 | 4 => self.array(random, place, name),
            5 | 6 => self.map(random, place, name),
            7 => {
                let target = random.pick(&["v_target", "arr_target[2]", "never_set"]);
                self.line(&[b"unset -n ", name, b"; ", place, b" -n ", name, b"='", target.as_bytes(), b"'"]);
            }
            8 => {
                // The attribute comes after the value, which it would have changed or evaluated.
                let value = value(random);
                let attribute = random.pick(&[&b"-u"[..], b"-l", b"-i", b"-c"]);
                self.line(&[
                    place,
                    b" ",
                    name,
                    b"=",
                    &quote(&value),
                    b"; ",
                    place,
                    b" ",
                    attribute,
                    b" ",
                    name,
                ]);
            }
            _ => {
                let value = value(random);
                let attribute =
                    random.pick(&[&b""[..], b"", b"-x", b"-u", b"-l", b"-c", b"-t", b"-r", b"-rx", b"-xt"]);
                self.line(&[place, b" ", attribute, b" ", name, b"=", &quote(&value)]);
            }
        }
    }

    fn special(&mut self, random: &mut Random, name: &[u8]) {
        let text: &[u8] = match name {
            b"IFS" => random.pick(&[
                &b"unset -v IFS"[..],
                b"IFS=",
                b"IFS=x",
                b"IFS=$'\\n'",
                b"IFS=:/_",
                b"IFS=' 0a'",
            ]),
            b"PATH" => random.pick(&[&b"PATH="[..], b"unset -v PATH", b"PATH=/nonexistent", b"PATH=:/bin"]),
            b"LC_ALL" | b"LC_CTYPE" | b"LANG" => {
                let value = random.pick(&["C", "C.UTF-8", "POSIX", ""]);
                return self.line(&[
                    name,
                    b"=",
                    value.as_bytes(),
                    b" 2>/dev/null; builtin export ",
                    name,
                    b" 2>/dev/null",
                ]);
            }
            b"LD_PRELOAD" => b"builtin export LD_PRELOAD=",
            b"GLOBIGNORE" => random.pick(&[&b"GLOBIGNORE='*'"[..], b"GLOBIGNORE="]),
            b"HISTSIZE" => b"HISTSIZE=5",
            _ => random.pick(&[&b"SHLVL=7"[..], b"builtin unset -v SHLVL"]),
        };
        self.line(&[text]);
    }

    fn array(&mut self, random: &mut Random, place: &[u8], name: &[u8]) {
        let mut items = Vec::new();
        for _ in 0..random.below(5) {
            let index = random.below(30).to_string();
            items.extend_from_slice(
                &[b"[", index.as_bytes(), b"]=", &quote(&value(random))[..], b" "].concat(),
            );
        }
        let attribute = random.pick(&[&b"-a"[..], b"-a", b"-ax", b"-at"]);
        self.line(&[place, b" ", attribute, b" ", name, b"=(", &items, b")"]);
        if random.chance(15) {
            self.line(&[place, b" -r ", name]);
        }
    }

    fn map(&mut self, random: &mut Random, place: &[u8], name: &[u8]) {
        self.line(&[place, b" -A ", name, b"=()"]);
        for _ in 0..random.below(5) {
            let mut key = value(random);
            if key.is_empty() {
                key.push(b'k');
            }
            self.line(&[b"__t_key=", &quote(&key), b"; ", name, b"[$__t_key]=", &quote(&value(random))]);
        }
        self.line(&[b"builtin unset -v __t_key"]);
    }

    fn function(&mut self, random: &mut Random) {
        let name = random.pick(FUNCTIONS);
        if self.functions.iter().any(|f| f == name) {
            return;
        }
        self.functions.push(name.to_owned());
        let body = random.pick(BODIES);
        let quoted = quote(format!("function {name} {body}").as_bytes());
        // eval: extglob must be on before bash reads the pattern.
        self.line(&[b"builtin eval -- ", &quoted]);
        if random.chance(20) {
            self.line(&[
                b"builtin declare -f",
                random.pick(&[&b"x"[..], b"t", b"r", b"xt"]),
                b" -- '",
                name.as_bytes(),
                b"'",
            ]);
        }
    }

    fn hijack(&mut self, random: &mut Random) {
        let name = random.pick(HIJACKED);
        let body = random.pick(&[
            "{ builtin echo hijacked; return 3; }",
            "{ builtin true; }",
            "{ builtin echo hijacked >&2; }",
        ]);
        self.functions.push(name.to_owned());
        self.setup.extend_from_slice(b"__late+=");
        self.setup.extend_from_slice(&quote(format!("function {name} {body}\n").as_bytes()));
        self.setup.push(b'\n');
    }

    /// Prints everything; the same text on both sides.
    fn printer(&self, target: &str) -> Vec<u8> {
        let mut out = b"{\n".to_vec();
        let names = NAMES.join(" ");
        out.extend_from_slice(
            format!(
                "builtin declare -p {names} v_target arr_target never_set POSIXLY_CORRECT || builtin true\n"
            )
            .as_bytes(),
        );
        for name in &self.functions {
            let name = quote(name.as_bytes());
            out.extend_from_slice(&[b"builtin declare -f -- ", &name[..], b" || builtin true\n"].concat());
            out.extend_from_slice(&[b"builtin declare -pF -- ", &name[..], b" || builtin true\n"].concat());
        }
        out.extend_from_slice(
            b"builtin umask\nbuiltin shopt -p || builtin true\nbuiltin set +o\nbuiltin alias -p || builtin true\n",
        );
        // What a program sees. It may not be found with an odd PATH, or read an odd locale.
        out.extend_from_slice(b"/usr/bin/env -0 | LC_ALL=C /usr/bin/sort -z || builtin true\n");
        out.extend_from_slice(format!("}} >|\"$ROOT/{target}\" 2>/dev/null\n").as_bytes());
        out
    }
}

/// What may differ: options that are never carried, what belongs to the two processes, and a word
/// that bash prints in front of a nested function or not, depending on POSIX mode when it was read.
fn comparable(text: &[u8]) -> Vec<String> {
    let never = ["errexit", "nounset", "noexec", "xtrace", "verbose", "monitor", "history", "histexpand"];
    let never_shopts = ["login_shell", "restricted_shell"];
    let text = String::from_utf8_lossy(text).replace('\0', "\n");
    text.lines()
        .filter(|line| {
            let word = line.split(' ').nth(2).unwrap_or_default();
            let option = line.starts_with("set ") && never.contains(&word);
            let shopt = line.starts_with("shopt ") && never_shopts.contains(&word);
            let process = ["_=", "TESTWATCHER_", "__INTERNAL_", "__rlc", "rlCleanupID="]
                .iter()
                .any(|p| line.starts_with(p));
            !(option || shopt || process)
        })
        .map(|line| {
            sorted_map(
                line.trim_start().trim_start_matches("function ").replacen("{  function ", "{  ", 1).as_str(),
            )
        })
        .collect()
}

/// Two keys of an associative array that share a bucket change places each time it is read back;
/// that order means nothing. So `declare -A m=(["a"]="b" [c]="d" )` is compared as a set.
fn sorted_map(line: &str) -> String {
    let attributes = line.strip_prefix("declare -").and_then(|l| l.split(' ').next()).unwrap_or_default();
    if !attributes.contains('A') || attributes.contains('-') {
        return line.to_owned();
    }
    // An element's end is a space that no quote encloses.
    let (mut items, mut item, mut quoted, mut escaped) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        item.push(c);
        match (quoted, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (None, '"' | '\'') => quoted = Some(c),
            (Some(q), _) if q == c => quoted = None,
            (None, ' ') => items.push(std::mem::take(&mut item)),
            _ => {}
        }
    }
    items.push(item);
    let start = items.iter().position(|i| i.contains("=(")).map_or(0, |n| n + 1);
    let head: String = items.drain(..start).collect();
    let (head, first) = head.split_once("=(").map_or((head.as_str(), ""), |(h, f)| (h, f));
    let mut elements: Vec<String> = items.into_iter().chain([first.to_owned()]).collect();
    elements.sort();
    format!("{head}=({}", elements.concat())
}

fn program(shell: &Shell, random: &mut Random) -> Vec<u8> {
    let mut text =
        b". \"$SHIM\"\nbuiltin shopt -s extglob\nv_target='t t'; arr_target=(1 2 3)\n__t_main() {\n".to_vec();
    text.extend_from_slice(&shell.setup);
    for _ in 0..random.below(5) {
        let switch = if random.chance(60) { "-s" } else { "-u" };
        text.extend_from_slice(
            format!("builtin shopt {switch} {} 2>/dev/null\n", random.pick(SHOPTS)).as_bytes(),
        );
    }
    if random.chance(30) {
        let value = quote(&quote(&value(random).into_iter().filter(|b| *b != b'\\').collect::<Vec<u8>>()));
        text.extend_from_slice(
            &[b"builtin shopt -s expand_aliases; builtin alias ll='ls -l' 'foo=", &b"a\nb'"[..], b"\n"]
                .concat(),
        );
        text.extend_from_slice(&[b"builtin alias odd=", &value[..], b"\n"].concat());
    }
    text.extend_from_slice(
        format!("builtin umask {}\n", random.pick(&["022", "077", "002", "0177", "0777", "0", "027"]))
            .as_bytes(),
    );
    for _ in 0..random.below(4) {
        let switch = if random.chance(70) { "-o" } else { "+o" };
        text.extend_from_slice(format!("builtin set {switch} {}\n", random.pick(OPTIONS)).as_bytes());
    }
    text.extend_from_slice(b"builtin eval -- \"${__late-}\"; builtin unset -v __late\n");
    // Last: in POSIX mode no function may have the name of a special builtin.
    if random.chance(8) {
        text.extend_from_slice(b"builtin set -o posix\n");
    }
    let entry = quote(&shell.printer("there"));
    text.extend_from_slice(&shell.printer("here"));
    text.extend_from_slice(
        &[
            b"rlAppendCleanup ",
            &entry[..],
            b" || builtin printf x >\"$ROOT/refused\"\n}\n__late=''\n__t_main\n",
        ]
        .concat(),
    );
    text
}

fn one(seed: u64) -> Result<(), String> {
    let mut random = Random(seed);
    let shell = Shell::new(&mut random);
    let state = State::new();
    let text = program(&shell, &mut random);
    let file = state.write("test.sh", &text);
    let shown = || {
        format!("seed {seed}\n{}", String::from_utf8_lossy(&text).split("rlAppendCleanup '").next().unwrap())
    };
    let mut test = state.command(common::bash());
    // The watcher is not here, but its file is: no warnings, no EXIT trap.
    std::fs::write(state.path("clpath"), "").unwrap();
    test.arg(&file)
        .env("SHIM", shim())
        .env("RL_CLEANUP", BINARY)
        .env("TESTWATCHER_CLPATH", state.path("clpath"));
    test.env("JOBID", "inherited").env("HOME", "/").env("EDITOR", "vi").current_dir("/");
    let ended = state.run(&mut test);
    if state.path("refused").exists() || !state.script().exists() {
        return Err(format!("refused: {ended:#?}\n{}", shown()));
    }
    let mut cleanup: Command = state.command(state.script());
    // Another day, another environment.
    cleanup.env("STALE", "stale").env("EDITOR", "ed").env("BASH_FUNC_printf%%", "() { echo hijacked; }");
    cleanup
        .env("BASH_FUNC_unset%%", "() { :; }")
        .env("PS4", "@")
        .env("LC_CTYPE", "C.UTF-8")
        .env("v", "outside");
    cleanup.current_dir("/");
    let ended = state.run(&mut cleanup);
    let here = std::fs::read(state.path("here")).unwrap_or_default();
    let there = std::fs::read(state.path("there")).unwrap_or_default();
    if state.path("executed").exists() {
        return Err(format!("a value was executed\n{}", shown()));
    }
    if (ended.status, ended.out.as_str(), ended.err.as_str()) != (Some(0), "", "") {
        return Err(format!("noise: {ended:#?}\n{}", shown()));
    }
    let (before, after) = (comparable(&here), comparable(&there));
    if before != after || here.is_empty() {
        let gone: Vec<_> = before.iter().filter(|l| !after.contains(l)).collect();
        let new: Vec<_> = after.iter().filter(|l| !before.contains(l)).collect();
        return Err(format!("lost {gone:#?}\ncame {new:#?}\n{}", shown()));
    }
    Ok(())
}

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn random_shells_look_the_same_on_both_sides() {
    let count = from_env("RL_CLEANUP_ROUNDTRIPS", 300);
    let first = from_env("RL_CLEANUP_SEED", 1);
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let run = || {
            let mut failures = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count || failures.len() > 2 {
                    return failures;
                }
                failures.extend(one(seed).err());
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    println!("{count} random shells from seed {first}, {} differences", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n----\n"));
}

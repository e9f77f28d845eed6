//! What `rl-cleanup completions` prints: clap's script for the subcommands and options that a person
//! types, and ours (`shell/completions`) for what only the moment knows: the entries there are.

use super::args::{Cli, CompletionsArgs};
use super::print;
use crate::error::Result;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;
use std::collections::BTreeSet;

const BASH: &str = include_str!("../../shell/completions/more.sh");
const ZSH: &str = include_str!("../../shell/completions/more.zsh");
const FISH: &str = include_str!("../../shell/completions/more.fish");

const NAME: &str = "rl-cleanup";
/// With a hyphen in it, clap_complete 4.6 writes the name in two ways, and completes no subcommand.
const BASH_NAME: &str = "rl_cleanup";

/// Stands in our scripts for the options after which the next word is a value.
const OPTIONS: &str = "--options-with-a-value";

/// `rl-cleanup completions`.
pub(super) fn completions(args: &CompletionsArgs) -> Result<()> {
    // Names in clap's tree are static, and so must be what they are copied from.
    let tree = offered(Box::leak(Box::new(Cli::command())));
    let text = match args.shell.as_str() {
        "zsh" => zsh(&tree),
        "fish" => {
            let ours = FISH.replace(OPTIONS, &options_with_a_value(&tree).join(" "));
            generated(Shell::Fish, &tree, NAME) + "\n" + &ours
        }
        _ => bash(&tree),
    };
    print(text.as_bytes())
}

/// The generated function stays; ours is called in its place, and calls it.
fn bash(tree: &Command) -> String {
    let theirs = generated(Shell::Bash, tree, BASH_NAME);
    let function = theirs.rfind("\nif [[ \"${BASH_VERSINFO").map_or(&*theirs, |end| &theirs[..=end]);
    let ours = BASH.replace(OPTIONS, &options_with_a_value(tree).join(" | "));
    format!("{function}\n{ours}")
}

/// The generated functions stay; the last lines, which call them when the file is autoloaded, are ours.
fn zsh(tree: &Command) -> String {
    let theirs =
        generated(Shell::Zsh, tree, NAME).replacen("rl-cleanup\n", "rl-cleanup beakerlib-testwatcher\n", 1);
    let functions = theirs.rfind("\nif [ \"$funcstack").map_or(&*theirs, |end| &theirs[..end]);
    let line = |line: &str| match line.starts_with("'*::ids -- ") {
        true => line.replace(":_default'", ":_rl-cleanup_entries'") + "\n",
        false => line.to_owned() + "\n",
    };
    functions.lines().map(line).collect::<String>() + "\n" + ZSH
}

fn generated(shell: Shell, tree: &Command, name: &str) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut tree.clone(), name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The same command without what is hidden: clap's generators offer that too.
fn offered(command: &'static Command) -> Command {
    let mut visible = Command::new(command.get_name()).disable_help_subcommand(true);
    if let Some(version) = command.get_version() {
        visible = visible.version(version);
    }
    if let Some(about) = command.get_about() {
        visible = visible.about(about.clone());
    }
    visible
        .args(command.get_arguments().filter(|a| !a.is_hide_set()).map(offered_argument))
        .subcommands(command.get_subcommands().filter(|c| !c.is_hide_set()).map(offered))
}

/// The same argument without its ties to hidden ones.
fn offered_argument(arg: &'static Arg) -> Arg {
    let mut visible = Arg::new(arg.get_id().clone())
        .action(arg.get_action().clone())
        .value_hint(arg.get_value_hint())
        .global(arg.is_global_set())
        .trailing_var_arg(arg.is_trailing_var_arg_set());
    if let Some(long) = arg.get_long() {
        visible = visible.long(long);
    }
    if let Some(short) = arg.get_short() {
        visible = visible.short(short);
    }
    if let Some(help) = arg.get_help() {
        visible = visible.help(help.clone());
    }
    if arg.get_action().takes_values() {
        visible = visible
            .value_parser(arg.get_value_parser().clone())
            .value_names(arg.get_value_names().unwrap_or_default().to_vec());
    }
    match arg.get_num_args() {
        Some(number) => visible.num_args(number),
        None => visible,
    }
}

fn options_with_a_value(tree: &Command) -> Vec<String> {
    let of = |command: &Command| -> Vec<String> {
        let takes_one = command.get_arguments().filter(|a| a.get_action().takes_values());
        takes_one.filter_map(|a| Some(format!("--{}", a.get_long()?))).collect()
    };
    let all: BTreeSet<String> = tree.get_subcommands().chain([tree]).flat_map(of).collect();
    all.into_iter().collect()
}

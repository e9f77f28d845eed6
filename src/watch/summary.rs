//! The summary: what a person reads at a glance when everything is over. Pure but for the question
//! whether to colour.

use super::account::{Account, EntryRow};
use super::machine::{Exit, Fate, Outcome, State};
use super::voice::colour_wanted;

/// Columns for the whole line, with `TESTWATCHER: ` in front of it.
const WIDTH: usize = 80 - "TESTWATCHER: ".len();

/// The lines, without the prefix.
pub(super) fn lines(state: &State, account: &Account) -> Vec<String> {
    let colour = colour_wanted();
    let mut lines = vec![test_line(state, account), cleanup_line(state, account)];
    lines.extend(account.entries().iter().map(|entry| row(entry, colour)));
    let left = account.entries().iter().filter(|e| e.status.is_none()).count();
    if left > 0 {
        lines.push(format!(
            "{} not run: {} in the buffer",
            plural(left, "entry was", "entries were"),
            stays(left)
        ));
    }
    if !account.left_behind.is_empty() {
        lines.push(format!("the test left running: {}", super::hunt::list(&account.left_behind)));
    }
    for log in &account.logs {
        lines.push(format!("not all of the output was read: the cleanup wrote to {}", log.display()));
    }
    if let Some(dir) = &account.kept {
        let dir = shell_escape::escape(dir.to_string_lossy());
        lines.push(format!("run what is left with: rl-cleanup --dir {dir} run"));
    }
    lines
}

fn test_line(state: &State, account: &Account) -> String {
    let how = match state.outcome {
        Some(Outcome::Ended(Exit::Code(code))) => format!("ended with {code}"),
        Some(Outcome::Ended(Exit::Signal(signal))) => format!("ended by signal {signal}"),
        Some(Outcome::Ended(Exit::Unknown)) => "ended".to_owned(),
        Some(Outcome::Interrupted) => "interrupted".to_owned(),
        Some(Outcome::Watchdog) => "stopped by the watchdog".to_owned(),
        Some(Outcome::Deadline) => "stopped at its time limit".to_owned(),
        // Nobody knows when it started.
        Some(Outcome::WatcherLost) => return "test:    stopped by the guard".to_owned(),
        None if state.fate == Fate::Postponed => "killed for a reboot".to_owned(),
        None => "still runs".to_owned(),
    };
    format!("test:    {how} after {}", seconds(account.test_nanos()))
}

fn cleanup_line(state: &State, account: &Account) -> String {
    let how = match state.fate {
        Fate::Absent | Fate::Pending => return "cleanup: nothing to do".to_owned(),
        Fate::Unusable => return "cleanup: could not be run".to_owned(),
        Fate::Postponed => return "cleanup: left for the next boot".to_owned(),
        Fate::LeftAlone if account.cleanup_nanos().is_some() => return "cleanup: still runs".to_owned(),
        Fate::LeftAlone => return "cleanup: left for the next boot".to_owned(),
        Fate::Cut if super::time_was_up(state) => "ran out of time".to_owned(),
        Fate::Cut => "cut short".to_owned(),
        Fate::Finished(_) if account.broke_off() => "broke off".to_owned(),
        Fate::Finished(Exit::Signal(signal)) => format!("ended by signal {signal}"),
        Fate::Finished(exit) => finished(account, exit),
    };
    match account.cleanup_nanos() {
        Some(nanos) => format!("cleanup: {how} after {}", seconds(nanos)),
        None => format!("cleanup: {how}"),
    }
}

fn finished(account: &Account, exit: Exit) -> String {
    let entries = account.entries();
    let failed = entries.iter().filter(|e| e.status != Some(0)).count();
    match (entries.len(), failed) {
        (0, _) => format!("ended with {}", exit.shell_status()),
        (n, 0) => format!("{}, all ok,", plural(n, "entry", "entries")),
        (n, failed) => format!("{}, {failed} failed,", plural(n, "entry", "entries")),
    }
}

/// ` ok     0    0.12 s  k3xq9a  umount -f /mnt/x`
fn row(entry: &EntryRow, colour: bool) -> String {
    let (word, paint) = match entry.status {
        Some(0) => ("ok  ", "\x1b[32m"),
        Some(_) => ("FAIL", "\x1b[31m"),
        None => ("left", "\x1b[33m"),
    };
    let (status, time) = match entry.status {
        Some(status) => (status.to_string(), seconds(entry.nanos)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let rest = format!("{status:>4} {time:>9}  {:<6}  {}", entry.id, entry.text);
    let rest = cut(&rest, WIDTH - 1 - word.len());
    if colour { format!(" {paint}{word}\x1b[0m{rest}") } else { format!(" {word}{rest}") }
}

/// At most `width` characters, with a sign that more was there. Control characters show as `?`:
/// an entry's text must not paint the terminal.
fn cut(text: &str, width: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().count() <= width {
        return text;
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `0.01 s`, `12.3 s`, `7 min 5 s`, `2 h 3 min`.
fn seconds(nanos: u64) -> String {
    let secs = nanos / 1_000_000_000;
    match secs {
        0..10 => format!("{:.2} s", std::time::Duration::from_nanos(nanos).as_secs_f64()),
        10..60 => format!("{:.1} s", std::time::Duration::from_nanos(nanos).as_secs_f64()),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        _ => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
    }
}

fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn stays(n: usize) -> &'static str {
    if n == 1 { "it stays" } else { "they stay" }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Reach;
    use super::*;
    use crate::hook::Row;

    fn account(rows: Vec<Row>) -> Account {
        let mut account = Account::new(0);
        account.test_ended(Exit::Code(0), 1_234_000_000);
        account.cleanup_started(2_000_000_000);
        account.finished(2_500_000_000, rows);
        account
    }

    fn state(outcome: Outcome, fate: Fate) -> State {
        State { outcome: Some(outcome), fate, ..State::watching(Reach::Group) }
    }

    #[test]
    fn one_headline_and_one_row_an_entry_within_80_columns() {
        let long = "x".repeat(300);
        let rows = vec![
            Row::Begin { at: 2_000_000_000 },
            Row::Ran {
                at: 2_010_000_000,
                id: "aaaaaa".into(),
                status: 0,
                text: "umount -f /mnt\u{1b}[31m".into(),
            },
            Row::Ran { at: 2_200_000_000, id: "bbbbbb".into(), status: 32, text: long },
            Row::End { at: 2_300_000_000 },
        ];
        let state = state(Outcome::Ended(Exit::Code(0)), Fate::Finished(Exit::Code(0)));
        let lines = lines(&state, &account(rows));
        assert_eq!(lines[0], "test:    ended with 0 after 1.23 s");
        assert_eq!(lines[1], "cleanup: 2 entries, 1 failed, after 0.50 s");
        assert_eq!(lines[2], " ok     0    0.01 s  aaaaaa  umount -f /mnt?[31m");
        assert!(lines[3].starts_with(" FAIL  32    0.19 s  bbbbbb  xxx"), "{}", lines[3]);
        assert!(lines.iter().all(|l| l.chars().count() <= WIDTH), "{lines:#?}");
    }

    #[test]
    fn what_was_not_run_is_named() {
        let plan = |id: &str| Row::Plan { id: id.into(), text: "rm -rf /x".into() };
        let rows = vec![Row::Begin { at: 2_000_000_000 }, plan("a"), plan("b")];
        let lines = lines(&state(Outcome::Interrupted, Fate::Cut), &account(rows));
        assert_eq!(lines[0], "test:    interrupted after 1.23 s");
        assert_eq!(lines[1], "cleanup: cut short after 0.50 s");
        assert!(lines[2].starts_with(" left   -"), "{}", lines[2]);
        assert_eq!(lines[4], "2 entries were not run: they stay in the buffer");
    }

    #[test]
    fn times_read_like_times() {
        for (nanos, text) in [
            (9_990_000_000, "9.99 s"),
            (12_340_000_000, "12.3 s"),
            (425_000_000_000, "7 min 5 s"),
            (7_384_000_000_000, "2 h 3 min"),
        ] {
            assert_eq!(seconds(nanos), text);
        }
    }
}

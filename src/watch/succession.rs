//! A watcher and its guard: how one is made, told where we are, and replaced, and how it goes on. The line
//! between the two is in [`super::guard`].

use super::account::Account;
use super::guard::Word;
use super::machine::{Event, Exit, Fate, Found, Outcome, Phase, State};
use super::ties::Ties;
use super::{GUARDS, Ward, Watcher, guard, script};
use crate::error::errno_text;
use crate::hook::{Hooked, boottime_ns};

impl Watcher {
    /// From now on a SIGKILL of this process is noticed.
    pub(super) fn start_guard(&mut self) {
        match guard::start(&self.clpath) {
            Ok(guard::Side::Watcher(guard)) => self.guard = Some(guard),
            Ok(guard::Side::Guard(ears)) => self.become_guard(&ears),
            Err(errno) => {
                self.guard = None;
                let why = errno_text(errno);
                self.voice.warn(&format!("no guard ({why}): if this watcher is killed, no cleanup will run"));
            }
        }
    }

    /// The copy's way: waits for the watcher's end, takes over if it has to, and never returns.
    fn become_guard(&mut self, ears: &guard::Ears) -> ! {
        let story = self.story();
        // What belongs to the watcher alone: its guard's line, its terminal, its children.
        self.guard = None;
        self.terminal = None;
        self.queue.clear();
        let ties = self.ties.of_guard();
        let status = match guard::listen(ears, &self.clpath, story) {
            None => 0,
            Some(found) => {
                self.inherit(ties);
                self.take_over(found)
            }
        };
        std::process::exit(i32::from(status))
    }

    /// Makes this a watcher for what the one before has left. Nothing here can fail for want of a descriptor
    /// or of memory: the signalfd tells each process of its own signals (signalfd(2)), and the timer, which
    /// the two have in common, was the other's alone until its death.
    fn inherit(&mut self, ties: Ties) {
        let _ = nix::sys::prctl::set_child_subreaper(true);
        self.alarms.clear();
        self.ties = ties;
        self.state = State::watching(self.state.reach);
        self.account = Account::new(boottime_ns());
        (self.test, self.cleanup, self.hunt) = (None, None, None);
        self.guards_left = GUARDS;
        self.start_guard();
    }

    pub(super) fn tell_guard(&self, word: Word) {
        if let Some(guard) = &self.guard {
            guard.tell(word);
        }
    }

    /// Somebody killed the guard: another one, told everything that matters.
    pub(super) fn replace_guard(&mut self) {
        self.guard = None;
        // After a request for a reboot it was told to leave.
        let done = self.state.phase == Phase::Done || self.state.fate == Fate::Postponed;
        if self.guards_left == 0 || done {
            return;
        }
        self.guards_left -= 1;
        self.start_guard();
        self.brief_guard();
    }

    /// Tells a new guard where we are.
    fn brief_guard(&self) {
        self.story().into_iter().for_each(|word| self.tell_guard(word));
    }

    /// Where we are, in a guard's words.
    fn story(&self) -> Vec<Word> {
        let mut story: Vec<Word> = self.test.iter().map(|t| Word::Test(t.group.leader())).collect();
        let outcome = self.state.outcome.unwrap_or(Outcome::WatcherLost);
        match self.state.phase {
            Phase::Test | Phase::Done => {}
            Phase::Killing => story.push(Word::Killing(outcome)),
            Phase::Settling => story.push(Word::Tested(outcome)),
            Phase::Cleanup(_) | Phase::CleanupKilling => {
                story.push(Word::Tested(outcome));
                story.extend(self.cleanup.iter().map(|c| Word::Cleanup(c.group.leader())));
                story.extend(self.ties.place().map(|(from, done)| Word::Copied(from, done)));
                if self.state.phase == Phase::CleanupKilling {
                    story.push(Word::CleanupKilling);
                }
            }
        }
        story
    }

    /// The guard's way in: adopts what is there and goes on.
    fn take_over(&mut self, found: guard::Inheriting) -> u8 {
        self.test = found.test.and_then(Ward::adopted);
        self.cleanup = found.cleanup.and_then(Ward::adopted);
        if let (None, Some(leader)) = (&self.test, found.test) {
            // The leader is gone; members of its group may be left.
            self.test = Some(Ward { ended: true, ..Ward::child(leader) });
        }
        // Killed before it started anything: nothing to say, only to sweep.
        let nothing_started = found.test.is_none()
            && matches!(found.found, Found::Tested(Outcome::WatcherLost))
            && self.clpath.read().is_ok_and(|hooked| hooked == Hooked::Nothing);
        let cleanup_over = self.cleanup.is_none() && matches!(found.found, Found::Cleanup(_));
        self.ties.take_over();
        let (state, actions) = match found.found {
            Found::Cleanup(_) | Found::CleanupKilling(_) => State::taking_over(found.found, self.state.reach),
            _ if self.ties.reboots() => State::watching(self.state.reach).step(Event::Reboot),
            _ => State::taking_over(found.found, self.state.reach),
        };
        self.state = state;
        if nothing_started {
            return self.wind_up();
        }
        self.account.watcher_lost();
        self.voice.warn("the watcher was killed; its guard goes on");
        self.brief_guard();
        self.publish();
        if matches!(found.found, Found::Cleanup(_) | Found::CleanupKilling(_)) {
            self.ties.follow(script::find_logs(&self.clpath), found.copied.unwrap_or_default());
        }
        self.tend();
        for action in actions {
            self.perform(action);
        }
        if cleanup_over {
            self.queue.push_back(Event::CleanupEnded(Exit::Unknown));
        }
        self.run()
    }
}

//! Is the machine about to go down? Cheap: a few files, no bus, no command.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A shutdown that is scheduled for later than this is not under way.
const SOON: Duration = Duration::from_secs(60);

/// Whether a shutdown has begun.
pub(super) fn machine_goes_down() -> bool {
    goes_down_in(Path::new("/"))
}

fn goes_down_in(root: &Path) -> bool {
    init_shuts_down(root) || is_scheduled_soon(root) || logins_are_over(root)
}

/// systemd's last act is to become another program (systemd-shutdown(8)).
fn init_shuts_down(root: &Path) -> bool {
    let name = fs::read_to_string(root.join("proc/1/comm")).unwrap_or_default();
    matches!(name.trim_end(), "systemd-shutdow" | "shutdown")
}

/// `shutdown -r now` and the like (shutdown(8), systemd-logind(8)): `USEC=` is the wall clock's time.
fn is_scheduled_soon(root: &Path) -> bool {
    let text = fs::read_to_string(root.join("run/systemd/shutdown/scheduled")).unwrap_or_default();
    let at =
        text.lines().find_map(|line| line.strip_prefix("USEC=")?.parse().ok()).map(Duration::from_micros);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    at.is_some_and(|at| at <= now + SOON)
}

/// The service that lets users in is among the first that are stopped; the file it leaves says so
/// (systemd-user-sessions.service(8)). It is there while the machine comes up too, with another text.
fn logins_are_over(root: &Path) -> bool {
    fs::read_to_string(root.join("run/nologin")).is_ok_and(|text| text.contains("going down"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> bool {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        goes_down_in(root.path())
    }

    #[test]
    fn a_shutdown_shows_in_files() {
        let in_secs = |secs: u64| {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(secs);
            format!("USEC={}\nWARN_WALL=1\nMODE=reboot\n", at.as_micros())
        };
        assert!(!root(&[]));
        assert!(root(&[("proc/1/comm", "systemd-shutdow\n")]));
        assert!(!root(&[("proc/1/comm", "systemd\n")]));
        assert!(root(&[("run/systemd/shutdown/scheduled", &in_secs(0))]));
        assert!(root(&[("run/systemd/shutdown/scheduled", &in_secs(30))]));
        assert!(!root(&[("run/systemd/shutdown/scheduled", &in_secs(3600))]));
        assert!(!root(&[("run/systemd/shutdown/scheduled", "torn")]));
        assert!(root(&[("run/nologin", "System is going down. Unprivileged users are not permitted …\n")]));
        assert!(!root(&[("run/nologin", "System is booting up. Unprivileged users are not permitted …\n")]));
    }
}

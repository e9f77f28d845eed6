//! Reads `docs/compat.md`: two tables whose first column is a scenario's name. A row of three columns says
//! that both do the same, one of five what the original does, what ours does, and why.

use super::stage;
use std::collections::HashMap;

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    pub what: String,
    /// What both do; or what the original does, and what ours does.
    pub cells: Vec<String>,
}

#[derive(Debug)]
pub struct Compat {
    rows: HashMap<String, Row>,
    order: Vec<String>,
    reasons: HashMap<String, String>,
}

impl Compat {
    pub fn read() -> Self {
        let text = std::fs::read_to_string(stage::repository().join("docs/compat.md")).unwrap();
        let mut compat = Self { rows: HashMap::new(), order: Vec::new(), reasons: HashMap::new() };
        for line in text.lines().filter(|l| l.starts_with("| `")) {
            compat.add(&cells(line));
        }
        compat
    }

    fn add(&mut self, cells: &[String]) {
        let id = cells[0].trim_matches('`').to_owned();
        let seen = match cells.len() {
            3 => &cells[2..3],
            5 => &cells[2..4],
            _ => panic!("docs/compat.md: the row of '{id}' has {} columns", cells.len()),
        };
        if let Some(reason) = cells.get(4) {
            self.reasons.insert(id.clone(), reason.clone());
        }
        self.order.push(id.clone());
        self.rows.insert(id.clone(), Row { id, what: cells[1].clone(), cells: seen.to_vec() });
    }

    /// Whether the document says this.
    pub fn judge(&self, wanted: &Row) -> Result<(), String> {
        let found = self.rows.get(&wanted.id);
        if found == Some(wanted) {
            return Ok(());
        }
        let complaint = match (found.map(|row| row.cells.len()), wanted.cells.len()) {
            (Some(2), 1) => "a listed difference is no longer seen",
            (_, 2) => "a difference that is not listed so",
            _ => "a behaviour that is not listed so",
        };
        Err(format!("{}: {complaint}; docs/compat.md must have:\n{}", wanted.id, self.render(wanted)))
    }

    fn render(&self, row: &Row) -> String {
        let mut cells = vec![format!("`{}`", row.id), row.what.clone()];
        cells.extend(row.cells.iter().cloned());
        if row.cells.len() == 2 {
            cells.push(self.reasons.get(&row.id).cloned().unwrap_or_default());
        }
        format!("| {} |", cells.map_escaped().join(" | "))
    }

    /// Every scenario is there once, and nothing else; every difference has its reason.
    #[track_caller]
    pub fn check(&self, ids: &[&str]) {
        let mut listed = self.order.clone();
        let mut known: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        listed.sort();
        known.sort();
        assert_eq!(listed, known, "docs/compat.md (left) and the list of scenarios (right)");
        for (id, reason) in &self.reasons {
            assert!(reason.len() > 10 && reason.ends_with('.'), "docs/compat.md gives no reason for '{id}'");
        }
    }
}

trait Escaped {
    fn map_escaped(self) -> Vec<String>;
}

impl Escaped for Vec<String> {
    fn map_escaped(self) -> Vec<String> {
        self.into_iter().map(|cell| cell.replace('|', "\\|")).collect()
    }
}

/// The columns of one line; a bar in a cell is written `\|`.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{1}");
    line.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

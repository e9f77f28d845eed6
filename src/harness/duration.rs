//! tmt's grammar of durations (tmt's specification, `/spec/tests/duration`): times that are added,
//! factors that multiply the sum, in any order, rounded up: `1h 30m`, `2h3`, `5m *2`. Pure.

/// What a factor alone multiplies (tmt, `DEFAULT_TEST_DURATION_L1`).
const DEFAULT_SECS: u64 = 300;

/// Whole seconds; `None` if tmt would refuse the text, or nobody would live to see its end.
///
/// # Examples
/// ```
/// use rl_cleanup::harness::duration::parse;
/// assert_eq!(parse("1h 30m"), Some(5400));
/// assert_eq!(parse("5m *2"), Some(600));
/// assert_eq!(parse("soon"), None);
/// ```
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let mut rest = text;
    let (mut sum, mut factor) = (0_u64, 1.0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('*') {
            let (number, after) = decimal(after.trim_start())?;
            // `*2m` multiplies by nothing.
            if after.starts_with(['s', 'm', 'h', 'd']) {
                return None;
            }
            factor *= number;
            rest = separated(after)?;
        } else {
            let (number, after) = digits(rest)?;
            let (secs, after) = unit(after);
            sum = number.checked_mul(secs)?.checked_add(sum)?;
            rest = separated(after)?;
        }
    }
    let sum = if sum == 0 { DEFAULT_SECS } else { sum };
    let product = (sum as f64 * factor).ceil();
    // 2^53: beyond it an f64 has no whole seconds any more.
    (0.0..9_007_199_254_740_992.0).contains(&product).then_some(product as u64)
}

fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn decimal(text: &str) -> Option<(f64, &str)> {
    let (_, after) = digits(text)?;
    let end = match after.strip_prefix('.').and_then(digits) {
        Some((_, rest)) => text.len() - rest.len(),
        None => text.len() - after.len(),
    };
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The unit may stand off: `2 m`.
fn unit(text: &str) -> (u64, &str) {
    let near = text.trim_start();
    let secs = match near.as_bytes().first() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        _ => return (1, text),
    };
    (secs, &near[1..])
}

/// What follows a number or a unit: nothing, a blank, a factor, or, after a unit, a digit.
fn separated(text: &str) -> Option<&str> {
    match text.chars().next() {
        None => Some(text),
        Some(c) if c.is_whitespace() || c == '*' || c.is_ascii_digit() => Some(text.trim_start()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each checked against tmt 1.78's own `duration_to_seconds`.
    #[test]
    fn durations_mean_what_tmt_takes_them_for() {
        for (text, secs) in [
            ("10s", 10),
            ("5m", 300),
            ("1h 3h 2m 3", 14_523),
            ("2h3", 7203),
            ("1d", 86_400),
            ("90", 90),
            ("2 m", 120),
            ("2 1m 4", 66),
            ("5m *2", 600),
            ("*2 5m", 600),
            ("5m*1.5", 450),
            ("1m *1.01", 61),
            ("*2", 600),
            ("* 3 10s *2", 60),
            ("0", 300),
            ("5m ", 300),
        ] {
            assert_eq!(parse(text), Some(secs), "{text}");
        }
        for text in
            ["", " ", "abc", "1.5h", "5x", "*", "*2m", "-5", "5mm", " 5m", "1h,2m", "99999999999999999999"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

//! A row of numbers as one line of blocks, for terminals.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last `width` values as blocks whose heights go from the lowest to the highest of them; a space for one that is not
/// finite. Values that differ by less than a twentieth look the same, so that noise does not look like a storm.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let shown = values.get(values.len().saturating_sub(width)..).unwrap_or_default();
    let fair = shown.iter().copied().filter(|value| value.is_finite());
    let (low, high) =
        fair.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let span = (high - low).max(high.abs().max(low.abs()) * 0.05 * BLOCKS.len() as f64);
    let block = |value: &f64| match value.is_finite() {
        false => ' ',
        true if span > 0.0 && span.is_finite() => {
            let level = ((value - low) / span * (BLOCKS.len() - 1) as f64).round() as usize;
            BLOCKS[level.min(BLOCKS.len() - 1)]
        }
        true => BLOCKS[0],
    };
    shown.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_blocks() {
        let check = |values: &[f64], width: usize, expected: &str| {
            assert_eq!(sparkline(values, width), expected, "{values:?}");
        };
        check(&[], 5, "");
        check(&[1.0, 1.0], 5, "▁▁");
        check(&[0.0, 7.0], 5, "▁█");
        check(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 4, "▁▃▆█");
        check(&[1.0, f64::NAN, 100.0], 9, "▁ █");
        check(&[100.0, 101.0, 100.5], 9, "▁▁▁");
        check(&[f64::MAX, f64::MIN], 9, "▁▁");
    }
}

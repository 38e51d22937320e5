//! Curve metrics of a score against labels: threshold-free.

/// Area under the ROC curve: how often an anomalous reading scores above a normal one, ties counting half
/// (Mann & Whitney 1947). `None` unless both classes are there.
pub fn roc_auc(labels: &[bool], scores: &[f32]) -> Option<f64> {
    let order = descending(scores);
    let positives = labels.iter().filter(|&&label| label).count() as f64;
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let (mut above, mut area) = (0.0, 0.0);
    for ties in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let hits = ties.iter().filter(|&&n| labels[n]).count() as f64;
        area += (ties.len() as f64 - hits) * (above + hits / 2.0);
        above += hits;
    }
    Some(area / (positives * negatives))
}

/// Positions of the scores, highest first; NaN, of which nothing is known, last.
pub(super) fn descending(scores: &[f32]) -> Vec<usize> {
    let key = |n: usize| if scores[n].is_nan() { f32::NEG_INFINITY } else { scores[n] };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    order
}

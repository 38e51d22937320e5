//! Curve metrics of a score against labels: threshold-free.

/// Area under the ROC curve: how often an anomalous reading scores above a normal one, ties counting half
/// (Mann & Whitney 1947). `None` unless both classes are there.
pub fn roc_auc(labels: &[bool], scores: &[f32]) -> Option<f64> {
    let positives = count(labels);
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let (mut above, mut area) = (0.0, 0.0);
    for_each_tie(labels, scores, |hits, misses| {
        area += misses * (above + hits / 2.0);
        above += hits;
    });
    Some(area / (positives * negatives))
}

/// Area under the precision–recall curve as average precision: the precision at each score, weighted by the recall it adds.
/// `None` unless both classes are there.
pub fn pr_auc(labels: &[bool], scores: &[f32]) -> Option<f64> {
    let positives = count(labels);
    if positives == 0.0 || positives == labels.len() as f64 {
        return None;
    }
    let (mut found, mut flagged, mut area) = (0.0, 0.0, 0.0);
    for_each_tie(labels, scores, |hits, misses| {
        found += hits;
        flagged += hits + misses;
        area += hits / positives * found / flagged;
    });
    Some(area)
}

/// The part of the anomalous readings that score higher than all but `far` of the normal ones. `None` unless both classes are there.
pub fn recall_at(far: f64, labels: &[bool], scores: &[f32]) -> Option<f64> {
    let positives = count(labels);
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let (mut found, mut wrong, mut recall) = (0.0, 0.0, 0.0);
    for_each_tie(labels, scores, |hits, misses| {
        found += hits;
        wrong += misses;
        if wrong <= far * negatives {
            recall = found / positives;
        }
    });
    Some(recall)
}

fn count(labels: &[bool]) -> f64 {
    labels.iter().filter(|&&label| label).count() as f64
}

/// Calls `each` for the readings of each score, highest first, with how many of them are anomalous and how many are not.
fn for_each_tie(labels: &[bool], scores: &[f32], mut each: impl FnMut(f64, f64)) {
    let order = descending(scores);
    for ties in order.chunk_by(|&a, &b| key(scores[a]) == key(scores[b])) {
        let hits = ties.iter().filter(|&&n| labels[n]).count() as f64;
        each(hits, ties.len() as f64 - hits);
    }
}

/// NaN, of which nothing is known, scores lowest.
fn key(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score }
}

/// Positions of the scores, highest first.
fn descending(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| key(scores[b]).total_cmp(&key(scores[a])));
    order
}

/// Thresholds at which the surface below is sampled, evenly over the sorted scores, as in the authors' package.
const THRESHOLDS: usize = 250;

/// Volume under the precision–recall surface (Paparrizos et al., VLDB 2022), over label buffers of 0 to `window` readings: near misses
/// count in part, and so does finding each anomaly at all. Follows the authors' Python package `vus` 0.0.6
/// (`RangeAUC_volume_opt`, also in TSB-AD) to the last quirk, so that figures compare; unlike it, in `O(window · n log n)`.
/// `None` unless both classes are there.
pub fn vus_pr(labels: &[bool], scores: &[f32], window: usize) -> Option<f64> {
    let positives = count(labels);
    let n = labels.len();
    if positives == 0.0 || positives == n as f64 {
        return None;
    }
    let anomalies = runs(labels);
    let order = descending(scores);
    // Of each threshold: its score, and how many readings reach it.
    let step = (n - 1) as f64 / (THRESHOLDS - 1) as f64;
    let thresholds: Vec<(f32, usize)> = (0..THRESHOLDS)
        .map(|k| {
            let rank = if k + 1 == THRESHOLDS { n - 1 } else { (k as f64 * step) as usize };
            let threshold = key(scores[order[rank]]);
            (threshold, order.partition_point(|&r| key(scores[r]) >= threshold))
        })
        .collect();
    let mut volume = 0.0;
    for width in 0..=window {
        let soft = soften(&anomalies, width, n);
        // By rank: what the labels weigh so far, and what their buffers do.
        let (mut weight, mut buffered) = (vec![0.0], vec![0.0]);
        for &r in &order {
            weight.push(weight[weight.len() - 1] + soft[r]);
            buffered.push(buffered[buffered.len() - 1] + if labels[r] { 0.0 } else { soft[r] });
        }
        let mut highest: Vec<f32> = segments(&anomalies, width, n)
            .iter()
            .map(|&(start, end)| scores[start..=end].iter().map(|&x| key(x)).fold(f32::NEG_INFINITY, f32::max))
            .collect();
        highest.sort_by(|a, b| b.total_cmp(a));
        let (mut area, mut before) = (0.0, 0.0);
        for &(threshold, reached) in &thresholds {
            let existence = highest.partition_point(|&score| score >= threshold) as f64 / highest.len() as f64;
            let hits = weight[reached];
            // The authors count a buffer as relevant only as far as it is found, and take the mean with the plain labels.
            let relevant = positives + buffered[reached] / 2.0;
            let recall = (hits / relevant).min(1.0) * existence;
            area += (recall - before) * hits / reached as f64;
            before = recall;
        }
        volume += area;
    }
    Some(volume / (window + 1) as f64)
}

/// First and last position of each run of labelled readings.
pub(super) fn runs(labels: &[bool]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (n, _) in labels.iter().enumerate().filter(|&(_, &label)| label) {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == n => *end = n,
            _ => runs.push((n, n)),
        }
    }
    runs
}

/// Labels with a buffer of half of `width` on either side, which fades as a root.
fn soften(anomalies: &[(usize, usize)], width: usize, n: usize) -> Vec<f64> {
    let mut soft = vec![0.0; n];
    let half = width / 2;
    for &(start, end) in anomalies {
        soft[start..=end].iter_mut().for_each(|weight| *weight += 1.0);
        let fade = |away: usize| (1.0 - away as f64 / width as f64).sqrt();
        let after = soft[end + 1..(end + half + 1).min(n)].iter_mut();
        after.enumerate().for_each(|(r, weight)| *weight += fade(r + 1));
        let before = soft[start.saturating_sub(half)..start].iter_mut().rev();
        before.enumerate().for_each(|(r, weight)| *weight += fade(r + 1));
    }
    soft.iter_mut().for_each(|weight| *weight = weight.min(1.0));
    soft
}

/// The anomalies with half of `width` on either side, joined where these meet.
fn segments(anomalies: &[(usize, usize)], width: usize, n: usize) -> Vec<(usize, usize)> {
    let half = width / 2;
    let mut segments: Vec<(usize, usize)> = Vec::new();
    for &(start, end) in anomalies {
        match segments.last_mut() {
            Some(last) if last.1 + 2 * half >= start => last.1 = end,
            _ => segments.push((start, end)),
        }
    }
    for (start, end) in &mut segments {
        *start = start.saturating_sub(half);
        *end = (*end + half).min(n - 1);
    }
    segments
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Labels and scores that any language can repeat: a linear congruence, and three anomalies of which one is at the edge.
    fn golden(n: usize) -> (Vec<bool>, Vec<f32>) {
        let mut x: u64 = 12345;
        let labels: Vec<bool> =
            (0..n).map(|r| r < 3 || (40..52).contains(&r) || (60..61).contains(&r) || r >= n - 20).collect();
        let scores = labels
            .iter()
            .map(|&label| {
                x = (x * 1_103_515_245 + 12345) % (1 << 31);
                ((x >> 16) % 100) as f32 / 100.0 + if label { 0.25 } else { 0.0 }
            })
            .collect();
        (labels, scores)
    }

    #[test]
    fn vus_pr_is_what_the_authors_package_computes() {
        for (n, window, expected) in [
            (100, 0, 0.719559034888),
            (100, 4, 0.741737437163),
            (100, 12, 0.796717436815),
            (100, 40, 0.886323687322),
            (300, 12, 0.438278574765),
            (1000, 12, 0.320265007844),
            (1000, 100, 0.438046422648),
        ] {
            let (labels, scores) = golden(n);
            let found = vus_pr(&labels, &scores, window).unwrap();
            assert!((found - expected).abs() < 1e-9, "{n} readings, window {window}: {found} is not {expected}");
        }
    }

    #[test]
    fn hand_computed_curves() {
        let labels = [true, false, true, false];
        let scores = [0.9, 0.8, 0.7, 0.1];
        assert_eq!(roc_auc(&labels, &scores), Some(0.75));
        assert!((pr_auc(&labels, &scores).unwrap() - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        assert_eq!(recall_at(0.0, &labels, &scores), Some(0.5));
        assert_eq!(recall_at(0.5, &labels, &scores), Some(1.0));
    }

    #[test]
    fn one_class_alone_has_no_curve() {
        for labels in [[true; 3], [false; 3]] {
            assert_eq!(roc_auc(&labels, &[0.1, 0.2, 0.3]), None);
            assert_eq!(pr_auc(&labels, &[0.1, 0.2, 0.3]), None);
            assert_eq!(vus_pr(&labels, &[0.1, 0.2, 0.3], 4), None);
            assert_eq!(recall_at(0.1, &labels, &[0.1, 0.2, 0.3]), None);
        }
        assert_eq!(roc_auc(&[], &[]), None);
    }

    #[test]
    fn a_reading_without_a_score_ranks_lowest() {
        assert_eq!(roc_auc(&[true, false], &[f32::NAN, 0.0]), Some(0.0));
        assert_eq!(roc_auc(&[true, false], &[0.0, f32::NAN]), Some(1.0));
    }

    proptest! {
        #[test]
        fn roc_auc_is_the_share_of_pairs_in_the_right_order(
            readings in proptest::collection::vec((any::<bool>(), 0u8..6), 2..60)
        ) {
            let (labels, scores): (Vec<bool>, Vec<f32>) = readings.iter().map(|&(l, s)| (l, f32::from(s))).unzip();
            let (mut right, mut pairs) = (0.0, 0.0);
            for a in (0..labels.len()).filter(|&a| labels[a]) {
                for b in (0..labels.len()).filter(|&b| !labels[b]) {
                    pairs += 1.0;
                    right += if scores[a] > scores[b] { 1.0 } else if scores[a] == scores[b] { 0.5 } else { 0.0 };
                }
            }
            let auc = roc_auc(&labels, &scores);
            prop_assert_eq!(auc.is_some(), pairs > 0.0);
            if let Some(auc) = auc {
                prop_assert!((auc - right / pairs).abs() < 1e-9);
            }
        }

        #[test]
        fn average_precision_is_the_mean_precision_at_each_anomaly_when_no_scores_tie(
            labels in proptest::collection::vec(any::<bool>(), 2..60)
        ) {
            let scores: Vec<f32> = (0..labels.len()).map(|n| -(n as f32)).collect();
            let mut found = 0.0;
            let precisions: Vec<f64> = labels.iter().enumerate().filter(|(_, l)| **l).map(|(n, _)| {
                found += 1.0;
                found / (n + 1) as f64
            }).collect();
            match pr_auc(&labels, &scores) {
                Some(auc) => prop_assert!((auc - precisions.iter().sum::<f64>() / precisions.len() as f64).abs() < 1e-9),
                None => prop_assert!(found == 0.0 || found == labels.len() as f64),
            }
        }

        #[test]
        fn curves_depend_on_the_order_of_scores_alone(
            readings in proptest::collection::vec((any::<bool>(), 0u16..300), 2..200), window in 0usize..9
        ) {
            let (labels, scores): (Vec<bool>, Vec<f32>) = readings.iter().map(|&(l, s)| (l, f32::from(s))).unzip();
            let stretched: Vec<f32> = scores.iter().map(|s| (s / 100.0).exp() * 7.0 - 3.0).collect();
            prop_assert_eq!(roc_auc(&labels, &scores), roc_auc(&labels, &stretched));
            prop_assert_eq!(pr_auc(&labels, &scores), pr_auc(&labels, &stretched));
            prop_assert_eq!(vus_pr(&labels, &scores, window), vus_pr(&labels, &stretched, window));
        }
    }
}

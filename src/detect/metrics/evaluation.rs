//! Judged and labelled readings, car by car, made into one [`Report`].

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;
use thiserror::Error;

use super::curves::{pr_auc, recall_at, roc_auc, runs, vus_pr};

/// False alarms per normal reading at which [`FailureReport::recall_at_one_in_1000`] is read off.
const ONE_IN_1000: f64 = 0.001;
/// A gap in time longer than this many usual intervals is not time that a car was watched.
const WATCHED: f64 = 2.5;
const DAY_MS: f64 = 86_400_000.0;

/// The sensors responsible for one anomaly of a car, from the outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// The car.
    pub car: String,
    /// Time of its first and last reading, milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// See `start_ms`.
    pub end_ms: i64,
    /// Positions of the sensors responsible.
    pub sensors: Vec<usize>,
}

/// A reading as a detector judged it and as its file labels it.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// Event time, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The score.
    pub score: f32,
    /// Whether an operator is shown this reading as wrong: a breach of an open episode, or bad data.
    pub flag: bool,
    /// Whether anything is open: an episode until it is closed, or bad data.
    pub open: bool,
    /// Whether it is anomalous.
    pub anomalous: bool,
    /// The failures it shows, blank-separated.
    pub failures: &'a str,
    /// How much each sensor is to blame `[S]`, any unit; may be empty.
    pub guilt: &'a [f32],
}

/// Why a reading cannot be taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EvaluationError {
    /// More names than there is any use for.
    #[error("more than {0} different combinations of failures: is this column one of names?")]
    TooManyFailures(usize),
}

/// Collects judged readings; in time order within each car.
#[derive(Debug, Default)]
pub struct Evaluation {
    cars: BTreeMap<String, Car>,
    /// Combinations of failures, by number, as blank-separated text; 0 is none.
    combinations: Vec<String>,
    numbers: FxHashMap<String, u16>,
    causes: Vec<(Cause, Vec<f64>)>,
}

#[derive(Debug, Default)]
struct Car {
    times: Vec<i64>,
    scores: Vec<f32>,
    flags: Vec<bool>,
    open: Vec<bool>,
    /// Combination of failures, and whether anomalous.
    failures: Vec<u16>,
    anomalous: Vec<bool>,
    /// Positions in `Evaluation::causes`.
    causes: Vec<usize>,
}

/// How often the flag was right, reading by reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Anomalous and flagged.
    #[serde(rename = "true_positives")]
    pub hits: u64,
    /// Normal and flagged.
    #[serde(rename = "false_positives")]
    pub false_alarms: u64,
    /// Anomalous and not flagged.
    #[serde(rename = "false_negatives")]
    pub missed: u64,
    /// Normal and not flagged.
    #[serde(rename = "true_negatives")]
    pub quiet: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.hits += other.hits;
        self.false_alarms += other.false_alarms;
        self.missed += other.missed;
        self.quiet += other.quiet;
    }

    fn precision(&self) -> Option<f64> {
        ratio(self.hits as f64, (self.hits + self.false_alarms) as f64)
    }

    fn recall(&self) -> Option<f64> {
        ratio(self.hits as f64, (self.hits + self.missed) as f64)
    }

    /// Harmonic mean of precision and recall; `None` where nothing is anomalous.
    pub fn f1(&self) -> Option<f64> {
        self.recall()?;
        ratio(2.0 * self.hits as f64, (2 * self.hits + self.false_alarms + self.missed) as f64)
    }

    /// False alarm rate: flagged among the normal.
    pub fn far(&self) -> Option<f64> {
        ratio(self.false_alarms as f64, (self.false_alarms + self.quiet) as f64)
    }

    /// Missed alarm rate: not flagged among the anomalous.
    pub fn mar(&self) -> Option<f64> {
        self.recall().map(|recall| 1.0 - recall)
    }
}

/// The metrics of one car, or of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Labelled readings.
    pub rows: u64,
    /// Of these, anomalous.
    pub anomalous: u64,
    /// Area under the ROC curve.
    pub roc_auc: Option<f64>,
    /// Average precision.
    pub pr_auc: Option<f64>,
    /// Volume under the precision–recall surface.
    pub vus_pr: Option<f64>,
    /// Precision of the flag.
    pub precision: Option<f64>,
    /// Recall of the flag.
    pub recall: Option<f64>,
    /// F1 of the flag, reading by reading, nothing adjusted.
    pub f1: Option<f64>,
    /// False alarm rate of the flag.
    pub far: Option<f64>,
    /// Missed alarm rate of the flag.
    pub mar: Option<f64>,
    /// Anomalies: runs of anomalous readings.
    pub events: u64,
    /// Part of them during which the flag was up.
    pub event_recall: Option<f64>,
    /// Readings from an anomaly's first to its first flagged one, the median of those found.
    pub median_delay_readings: Option<f64>,
    /// Episodes (or verdicts of bad data), from opening to close, that touch no anomaly.
    pub false_episodes: u64,
    /// These per car and day watched.
    pub false_episodes_per_car_day: Option<f64>,
}

/// How well one failure is found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FailureReport {
    /// Readings that show it.
    pub rows: u64,
    /// Cars that have it.
    pub cars: u64,
    /// As in [`Summary`], of its readings against the normal ones, mean over the cars that have it.
    pub roc_auc: Option<f64>,
    /// As `roc_auc`.
    pub pr_auc: Option<f64>,
    /// Part of its readings that were flagged.
    pub recall: Option<f64>,
    /// Part of its readings that score above all but one in a thousand of the normal readings of all cars.
    pub recall_at_one_in_1000: Option<f64>,
    /// Runs of readings that show it.
    pub events: u64,
    /// Part of them during which the flag was up.
    pub event_recall: Option<f64>,
    /// As in [`Summary`].
    pub median_delay_readings: Option<f64>,
}

/// Everything `dashlight evaluate` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Cars.
    pub cars: u64,
    /// Curve metrics are means over the cars that have both classes; the others are of all readings together.
    #[serde(flatten)]
    pub all: Summary,
    /// Readings by which the labels were softened for `vus_pr` at the most.
    pub vus_window: usize,
    /// F1 of the flag, mean over the cars with anomalies.
    pub mean_f1_of_cars: Option<f64>,
    /// Part of the causes whose most-blamed sensor is truly responsible.
    pub attribution_top1: Option<f64>,
    /// Part of the responsible sensors that are among as many most-blamed ones, mean over the causes.
    pub attribution_hit_rate: Option<f64>,
    /// By failure, if the labels name them.
    pub by_failure: BTreeMap<String, FailureReport>,
    /// By car.
    pub by_car: BTreeMap<String, Summary>,
}

/// Runs of one label in one car against its flags.
#[derive(Debug, Default)]
struct Found {
    events: u64,
    found: u64,
    delays: Vec<f64>,
}

impl Found {
    fn count(&mut self, labels: &[bool], flags: &[bool]) {
        for (start, end) in runs(labels) {
            self.events += 1;
            if let Some(delay) = flags[start..=end].iter().position(|&flag| flag) {
                self.found += 1;
                self.delays.push(delay as f64);
            }
        }
    }

    fn recall(&self) -> Option<f64> {
        ratio(self.found as f64, self.events as f64)
    }

    fn merge(&mut self, other: &Found) {
        self.events += other.events;
        self.found += other.found;
        self.delays.extend(&other.delays);
    }
}

impl Evaluation {
    /// So many different combinations of failures are taken.
    const MAX_COMBINATIONS: usize = 10_000;

    /// Collects; blame is checked against `causes`.
    pub fn new(causes: Vec<Cause>) -> Self {
        let mut evaluation = Evaluation { combinations: vec![String::new()], ..Evaluation::default() };
        evaluation.numbers.insert(String::new(), 0);
        for (n, cause) in causes.into_iter().enumerate() {
            evaluation.cars.entry(cause.car.clone()).or_default().causes.push(n);
            evaluation.causes.push((cause, Vec::new()));
        }
        evaluation
    }

    /// Takes the next reading of a car.
    pub fn add(&mut self, car: &str, judged: &Judged<'_>) -> Result<(), EvaluationError> {
        let combination = match self.numbers.get(judged.failures) {
            Some(&number) => number,
            None if self.combinations.len() >= Self::MAX_COMBINATIONS => {
                return Err(EvaluationError::TooManyFailures(Self::MAX_COMBINATIONS));
            }
            None => {
                let number = self.combinations.len() as u16;
                self.combinations.push(judged.failures.to_owned());
                self.numbers.insert(judged.failures.to_owned(), number);
                number
            }
        };
        if !self.cars.contains_key(car) {
            self.cars.insert(car.to_owned(), Car::default());
        }
        let Some(record) = self.cars.get_mut(car) else { return Ok(()) };
        record.times.push(judged.time_ms);
        record.scores.push(judged.score);
        record.flags.push(judged.flag);
        record.open.push(judged.open || judged.flag);
        record.failures.push(combination);
        record.anomalous.push(judged.anomalous);
        for &n in &record.causes {
            let (cause, guilt) = &mut self.causes[n];
            if (cause.start_ms..=cause.end_ms).contains(&judged.time_ms) {
                guilt.resize(judged.guilt.len(), 0.0);
                guilt.iter_mut().zip(judged.guilt).for_each(|(sum, &g)| *sum += f64::from(g));
            }
        }
        Ok(())
    }

    /// The report.
    pub fn report(&self, vus_window: usize) -> Report {
        let mut report = Report { vus_window, ..Report::default() };
        let mut counts = Counts::default();
        let (mut found, mut days) = (Found::default(), 0.0);
        for (name, car) in self.cars.iter().filter(|(_, car)| !car.times.is_empty()) {
            let (summary, of_car) = car.summary(vus_window, &mut found, &mut days);
            counts.add(&of_car);
            report.all.rows += summary.rows;
            report.all.anomalous += summary.anomalous;
            report.all.false_episodes += summary.false_episodes;
            report.by_car.insert(name.clone(), summary);
        }
        report.cars = report.by_car.len() as u64;
        let mean_over_cars = |of: fn(&Summary) -> Option<f64>| mean(report.by_car.values().filter_map(of));
        report.all.roc_auc = mean_over_cars(|car| car.roc_auc);
        report.all.pr_auc = mean_over_cars(|car| car.pr_auc);
        report.all.vus_pr = mean_over_cars(|car| car.vus_pr);
        report.mean_f1_of_cars = mean_over_cars(|car| car.f1);
        report.all.set_counts(&counts);
        report.all.events = found.events;
        report.all.event_recall = found.recall();
        report.all.median_delay_readings = median(&mut found.delays);
        report.all.false_episodes_per_car_day = ratio(report.all.false_episodes as f64, days);
        let blamed: Vec<(f64, f64)> = self.causes.iter().filter_map(|(cause, guilt)| blame(cause, guilt)).collect();
        report.attribution_top1 = mean(blamed.iter().map(|&(top1, _)| top1));
        report.attribution_hit_rate = mean(blamed.iter().map(|&(_, hit_rate)| hit_rate));
        report.by_failure = self.by_failure();
        report
    }

    fn by_failure(&self) -> BTreeMap<String, FailureReport> {
        let names: std::collections::BTreeSet<&str> =
            self.combinations.iter().flat_map(|combination| combination.split_whitespace()).collect();
        // The normal readings of all cars, once, for the recall at a common rate of false alarms.
        let normal: Vec<f32> = self
            .cars
            .values()
            .flat_map(|car| car.scores.iter().zip(&car.anomalous).filter(|(_, a)| !**a).map(|(score, _)| *score))
            .collect();
        names.into_iter().map(|name| (name.to_owned(), self.failure(name, &normal))).collect()
    }

    fn failure(&self, name: &str, normal: &[f32]) -> FailureReport {
        let shows: Vec<bool> = self
            .combinations
            .iter()
            .map(|combination| combination.split_whitespace().any(|word| word == name))
            .collect();
        let mut report = FailureReport::default();
        let (mut found, mut flagged) = (Found::default(), 0u64);
        let (mut roc, mut pr, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for car in self.cars.values() {
            let labels: Vec<bool> = car.failures.iter().map(|&n| shows[usize::from(n)]).collect();
            if !labels.contains(&true) {
                continue;
            }
            report.cars += 1;
            found.count(&labels, &car.flags);
            flagged += labels.iter().zip(&car.flags).filter(|(l, f)| **l && **f).count() as u64;
            // Against the normal readings alone: those that show only other failures are neither.
            let of_use = || (0..labels.len()).filter(|&n| labels[n] || !car.anomalous[n]);
            let (own, own_scores): (Vec<bool>, Vec<f32>) = of_use().map(|n| (labels[n], car.scores[n])).unzip();
            scores.extend(own.iter().zip(&own_scores).filter(|(l, _)| **l).map(|(_, score)| *score));
            roc.extend(roc_auc(&own, &own_scores));
            pr.extend(pr_auc(&own, &own_scores));
        }
        report.rows = scores.len() as u64;
        let mut labels = vec![true; scores.len()];
        labels.resize(scores.len() + normal.len(), false);
        scores.extend_from_slice(normal);
        report.recall_at_one_in_1000 = recall_at(ONE_IN_1000, &labels, &scores);
        report.roc_auc = mean(roc);
        report.pr_auc = mean(pr);
        report.recall = ratio(flagged as f64, report.rows as f64);
        report.events = found.events;
        report.event_recall = found.recall();
        report.median_delay_readings = median(&mut found.delays);
        report
    }
}

impl Car {
    fn summary(&self, vus_window: usize, all: &mut Found, days: &mut f64) -> (Summary, Counts) {
        let mut counts = Counts::default();
        for (&anomalous, &flag) in self.anomalous.iter().zip(&self.flags) {
            let count = match (anomalous, flag) {
                (true, true) => &mut counts.hits,
                (true, false) => &mut counts.missed,
                (false, true) => &mut counts.false_alarms,
                (false, false) => &mut counts.quiet,
            };
            *count += 1;
        }
        let mut found = Found::default();
        found.count(&self.anomalous, &self.flags);
        let false_episodes =
            runs(&self.open).into_iter().filter(|&(start, end)| !self.anomalous[start..=end].contains(&true)).count();
        let own_days = self.days();
        let mut summary = Summary {
            rows: self.times.len() as u64,
            anomalous: counts.hits + counts.missed,
            roc_auc: roc_auc(&self.anomalous, &self.scores),
            pr_auc: pr_auc(&self.anomalous, &self.scores),
            vus_pr: vus_pr(&self.anomalous, &self.scores, vus_window),
            events: found.events,
            event_recall: found.recall(),
            false_episodes: false_episodes as u64,
            false_episodes_per_car_day: ratio(false_episodes as f64, own_days),
            ..Summary::default()
        };
        summary.set_counts(&counts);
        all.merge(&found);
        *days += own_days;
        summary.median_delay_readings = median(&mut found.delays);
        (summary, counts)
    }

    /// Days that the car was watched: the time between readings, long gaps left out.
    fn days(&self) -> f64 {
        let mut between: Vec<i64> = self.times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        if between.is_empty() {
            return 0.0;
        }
        let middle = between.len() / 2;
        let (_, &mut usual, _) = between.select_nth_unstable(middle);
        let longest = usual as f64 * WATCHED;
        between.iter().map(|&ms| (ms as f64).clamp(0.0, longest)).sum::<f64>() / DAY_MS
    }
}

impl Summary {
    fn set_counts(&mut self, counts: &Counts) {
        self.precision = counts.precision();
        self.recall = counts.recall();
        self.f1 = counts.f1();
        self.far = counts.far();
        self.mar = counts.mar();
    }
}

/// Whether the most-blamed sensor is responsible, and which part of the responsible ones are among as many most-blamed.
fn blame(cause: &Cause, guilt: &[f64]) -> Option<(f64, f64)> {
    if cause.sensors.is_empty() || guilt.iter().all(|&g| g == 0.0) {
        return None;
    }
    let mut order: Vec<usize> = (0..guilt.len()).collect();
    order.sort_by(|&a, &b| guilt[b].total_cmp(&guilt[a]));
    let top1 = f64::from(u8::from(cause.sensors.contains(&order[0])));
    let hits = order.iter().take(cause.sensors.len()).filter(|sensor| cause.sensors.contains(sensor)).count();
    Some((top1, hits as f64 / cause.sensors.len() as f64))
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn mean(numbers: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = numbers.into_iter().fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    ratio(sum, count)
}

fn median(numbers: &mut [f64]) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let n = numbers.len();
    (n > 0).then(|| (numbers[(n - 1) / 2] + numbers[n / 2]) / 2.0)
}

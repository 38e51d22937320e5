//! A believable fleet: driving, faults with onset and severity, labels.

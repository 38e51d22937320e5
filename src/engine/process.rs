//! What the operating system says of this process.

/// Resident memory in bytes; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    status_kib("VmRSS:").map(|kib| kib * 1024)
}

/// The most resident memory so far, in MiB; `None` where the system does not tell.
pub fn peak_resident_mib() -> Option<u64> {
    status_kib("VmHWM:").map(|kib| kib / 1024)
}

fn status_kib(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn linux_tells_how_much_memory_is_in_use() {
        let now = super::resident_bytes().unwrap();
        assert!(now > 1024 * 1024 && super::peak_resident_mib().unwrap() >= now / 1024 / 1024);
    }
}

//! What a process costs, asked of `/proc`.
//!
//! CPU time is the scheduler's own clock summed over the threads (nanoseconds, exact); the split
//! into user and system is what the kernel sampled at its ticks, so it needs seconds to mean
//! something. Kernel threads that do a server's network work (`ksoftirqd` of its cores) are
//! counted to it: a long batch of sends hands part of the loopback's receive work to them.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// Ticks of `/proc/PID/stat` in nanoseconds: `USER_HZ` is 100 on every Linux there is.
const TICK_NS: u64 = 10_000_000;

/// CPU time of a process at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Cpu {
    /// All threads, exact.
    pub(crate) process_ns: u64,
    /// `ksoftirqd` of the cores it may run on, exact.
    pub(crate) softirq_ns: u64,
    pub(crate) user_ns: u64,
    pub(crate) system_ns: u64,
}

impl Cpu {
    pub(crate) fn total_ns(&self) -> u64 {
        self.process_ns + self.softirq_ns
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            process_ns: self.process_ns.saturating_sub(before.process_ns),
            softirq_ns: self.softirq_ns.saturating_sub(before.softirq_ns),
            user_ns: self.user_ns.saturating_sub(before.user_ns),
            system_ns: self.system_ns.saturating_sub(before.system_ns),
        }
    }
}

/// A process that is watched.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pid: u32,
    /// Kernel threads whose time is counted to it.
    pub(crate) softirq: Vec<u32>,
}

impl Process {
    pub(crate) fn new(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let cores = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .map(|list| core_list(list.trim()))
            .unwrap_or_default();
        Ok(Self { pid, softirq: softirq_threads(&cores) })
    }

    pub(crate) fn itself() -> io::Result<Self> {
        Ok(Self { pid: std::process::id(), softirq: Vec::new() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        let mut cpu = Cpu::default();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A thread may end between the listing and the look.
            cpu.process_ns += run_time(&task?.path().join("schedstat")).unwrap_or(0);
        }
        for pid in &self.softirq {
            cpu.softirq_ns += run_time(format!("/proc/{pid}/schedstat").as_ref()).unwrap_or(0);
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name stands in brackets and may contain anything; fields are counted behind it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        (cpu.user_ns, cpu.system_ns) = (ticks() * TICK_NS, ticks() * TICK_NS);
        Ok(cpu)
    }

    /// Private memory in bytes that the process has written to. Program text is left out: whether
    /// it is shared depends on who else runs the same program.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        let written = ["Private_Dirty:", "Private_Hugetlb:", "Swap:"];
        let kib = rollup.lines().filter_map(|line| {
            let rest = written.iter().find_map(|name| line.strip_prefix(name))?;
            rest.trim().trim_end_matches(" kB").parse::<u64>().ok()
        });
        Ok(kib.sum::<u64>() * 1024)
    }
}

fn run_time(path: &std::path::Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// `0-2,5` as numbers.
fn core_list(list: &str) -> Vec<u32> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
            cores.extend(from..=to.min(from + 4096));
        }
    }
    cores
}

fn softirq_threads(cores: &[u32]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else { return false };
            name.trim()
                .strip_prefix("ksoftirqd/")
                .and_then(|core| core.parse().ok())
                .is_some_and(|core| cores.contains(&core))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read() {
        assert_eq!(core_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(core_list("3"), [3]);
        assert!(core_list("").is_empty());
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let process = Process::itself().unwrap();
        assert!(process.cpu().unwrap().process_ns > 0);
        assert!(process.memory().unwrap() > 100_000);
    }
}

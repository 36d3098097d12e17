//! What is asked of the system: cores, descriptors, timers, signals, memory to share.
//!
//! The only file besides `floor/uring.rs` that holds `unsafe`.

use std::fmt::Arguments;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Failure;

/// Pins this process's calling thread, and what it starts, to one core.
pub(crate) fn pin(core: usize) -> Result<(), Failure> {
    // SAFETY: an all-zero `cpu_set_t` is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(Failure::Usage(format!("there is no core {core}")));
    }
    // SAFETY: `core` lies inside the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` lives through the call, and its size is what is said.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    check(done).map(drop).map_err(Failure::io("pin to a core"))
}

/// Raises the limit of descriptors as far as the system allows, and says how far that was.
pub(crate) fn raise_descriptors(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur < wanted {
        let more = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
        let most = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        for try_it in [more, most] {
            // SAFETY: the limit is only read.
            if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const try_it) } == 0 {
                return Ok(try_it.rlim_cur);
            }
        }
    }
    Ok(limit.rlim_cur)
}

/// A timer that a poller can wait for, exact where a poller's own timeout has milliseconds.
pub(crate) struct Timer(OwnedFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: takes no memory of ours.
        let fd = check(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Fires once after `wait`.
    pub(crate) fn set(&self, wait: Duration) -> io::Result<()> {
        let wait = wait.max(Duration::from_nanos(1));
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: wait.as_secs() as libc::time_t,
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        // SAFETY: `spec` is read during the call only; the old value is not asked for.
        check(unsafe { libc::timerfd_settime(self.fd(), 0, &raw const spec, std::ptr::null_mut()) })
            .map(drop)
    }
}

/// Binds an address now and leaves the port to `connect`, so that ports may be shared between
/// destinations.
pub(crate) fn bind_address_no_port(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is read during the call, and its size is what is said.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
#[inline]
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed since [`catch_interrupts`].
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The first Ctrl-C ends a run with the results so far; the second ends the program.
pub(crate) fn catch_interrupts() -> io::Result<()> {
    extern "C" fn note(_signal: libc::c_int) {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            // SAFETY: `_exit` may be called from a signal handler.
            unsafe { libc::_exit(130) }
        }
    }
    // SAFETY: all zeros is a valid `sigaction` with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler only touches an atomic and `_exit`; `action` lives through the call.
    check(unsafe { libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut()) })
        .map(drop)
}

/// Lets a process that we start end with us and not before: its end follows ours, so that nothing
/// is left behind, and Ctrl-C, which a terminal sends to all at once, is for us alone to answer.
pub(crate) fn leave_with_us(command: &mut Command) {
    // SAFETY: the closure makes two system calls that are safe after fork and touch no memory.
    unsafe {
        command.pre_exec(|| {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))?;
            if libc::signal(libc::SIGINT, libc::SIG_IGN) == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Whether a file can be written; it is left as it was.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    let is_new = !path.try_exists()?;
    OpenOptions::new().append(true).create(true).open(path)?;
    if is_new { std::fs::remove_file(path) } else { Ok(()) }
}

/// Prints to standard output. Who reads it may have had enough (`| head`): then the run goes on
/// for its page and its exit code.
pub(crate) fn print(text: Arguments<'_>) {
    let printed = io::stdout().lock().write_fmt(text);
    if let Err(error) = printed.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }) {
        eprintln!("loadtest: cannot print the results: {error}");
        std::process::exit(2);
    }
}

/// Ports that connections may come from, of one source address to one destination.
pub(crate) fn source_ports() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().filter_map(|end| end.parse::<u32>().ok());
    match (ends.next(), ends.next()) {
        (Some(from), Some(to)) if to >= from => to - from + 1,
        // What the kernel begins with.
        _ => 28_232,
    }
}

pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

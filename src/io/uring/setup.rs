//! Making a ring, and finding out at once whether this kernel can be trusted with it.
//!
//! Containers forbid io_uring, old kernels lack parts of it, and compatibility layers answer yes
//! and do something else. So set-up asks first and then tries: what the driver relies on is done
//! once on a socket pair, and a kernel that fails gets the readiness driver instead.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use io_uring::{Builder, IoUring, Probe, opcode};

use super::Config;
use super::buffers::Buffers;
use super::identity::{Identity, Op};
use super::ring::{BUFFER_GROUP, Completion, Ring};
use crate::io::LinkId;

/// Why there is no ring here. The server falls back to the readiness driver and says so once.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsupported {
    #[error("io_uring is forbidden here (a seccomp profile, or kernel.io_uring_disabled)")]
    Forbidden,
    #[error("this kernel has no io_uring")]
    Missing,
    #[error("io_uring cannot be set up: {0}")]
    Setup(io::Error),
    #[error("this kernel's io_uring lacks {0}")]
    Lacks(&'static str),
    #[error("this kernel's io_uring failed its test: {0}")]
    Failed(&'static str),
    #[error("the listener cannot be used: {0}")]
    Listener(io::Error),
}

/// When the kernel does the part of the work that must run on our thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Only when we come to collect completions. Linux 6.1.
    Deferred,
    /// At whichever system call comes next. Linux 5.19, and 6.0 for what else we need.
    Cooperative,
}

impl Mode {
    fn apply(self, builder: &mut Builder) {
        match self {
            Self::Deferred => {
                // SINGLE_ISSUER: we promise that one thread alone submits, and the kernel spares
                // locks and checks. It binds the ring to the thread that made it.
                builder.setup_single_issuer();
                // DEFER_TASKRUN: receives complete in batches when we ask for completions, instead
                // of interrupting whatever the thread does. With it the ring's own descriptor does
                // not wake a poller, hence the eventfd.
                builder.setup_defer_taskrun();
            }
            Self::Cooperative => {
                // COOP_TASKRUN: no inter-processor interrupt to run such work at once; it can wait
                // until the thread enters the kernel, which it does all the time.
                builder.setup_coop_taskrun();
            }
        }
        // TASKRUN_FLAG: the kernel shows in shared memory that such work waits, so that an idle
        // turn needs no system call to find out.
        builder.setup_taskrun_flag();
        // SUBMIT_ALL: a bad request in a batch fails alone and does not hold up those behind it.
        builder.setup_submit_all();
        // CLAMP: sizes above the kernel's maximum are cut to it instead of refused.
        builder.setup_clamp();
    }
}

/// The best ring this kernel gives, tested, with its buffers registered.
pub(super) fn set_up(config: &Config) -> Result<(Ring, Buffers, Mode), Unsupported> {
    let mut refusal = Unsupported::Missing;
    for mode in [Mode::Deferred, Mode::Cooperative] {
        if config.mode.is_some_and(|only| only != mode) {
            continue;
        }
        match make(config, mode) {
            Ok((ring, buffers)) => return Ok((ring, buffers, mode)),
            // These will not change with the flags.
            Err(why @ (Unsupported::Forbidden | Unsupported::Missing)) => return Err(why),
            Err(why) => refusal = why,
        }
    }
    Err(refusal)
}

fn make(config: &Config, mode: Mode) -> Result<(Ring, Buffers), Unsupported> {
    let mut builder = IoUring::builder();
    mode.apply(&mut builder);
    // CQSIZE: completions come in storms (every link at once), far more than we ever submit at
    // once. A full queue loses nothing but is slow.
    builder.setup_cqsize(config.completions);
    let ring = builder.build(config.submissions).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Unsupported::Forbidden,
        Some(libc::ENOSYS) => Unsupported::Missing,
        _ => Unsupported::Setup(error),
    })?;
    check_features(&ring)?;
    check_operations(&ring)?;

    let mut buffers = Buffers::new(config.buffers, config.buffer_bytes);
    // SAFETY: the entries are `config.buffers` many. Nobody frees them while a receive is in
    // flight, and the kernel looks at them for receives only.
    let registered = unsafe {
        ring.submitter().register_buf_ring_with_flags(
            buffers.address(),
            config.buffers,
            BUFFER_GROUP,
            0,
        )
    };
    registered.map_err(|_| Unsupported::Lacks("provided buffer rings"))?;

    let wake = eventfd().map_err(Unsupported::Setup)?;
    ring.submitter().register_eventfd(wake.as_raw_fd()).map_err(Unsupported::Setup)?;
    let mut ring = Ring::new(ring, wake);
    if let Err(why) = try_out(&mut ring, &mut buffers) {
        // A receive may be in flight on a ring that misbehaves.
        buffers.leak();
        return Err(why);
    }
    Ok((ring, buffers))
}

fn check_features(ring: &IoUring) -> Result<(), Unsupported> {
    let features = ring.params();
    let needed = [
        (features.is_feature_nodrop(), "lossless completions"),
        (features.is_feature_fast_poll(), "internal polling"),
        (features.is_feature_ext_arg(), "bounded waiting"),
        (features.is_feature_skip_cqe_on_success(), "skipping completions of success"),
    ];
    match needed.into_iter().find(|(present, _)| !present) {
        Some((_, name)) => Err(Unsupported::Lacks(name)),
        None => Ok(()),
    }
}

fn check_operations(ring: &IoUring) -> Result<(), Unsupported> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|_| Unsupported::Lacks("a way to ask for operations"))?;
    let needed = [
        (opcode::AcceptMulti::CODE, "accept"),
        (opcode::RecvMulti::CODE, "receive"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "send in parts"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::AsyncCancel::CODE, "cancel"),
    ];
    match needed.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(Unsupported::Lacks(name)),
        None => Ok(()),
    }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; its answer is checked.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Does once what the driver will rely on. Afterwards nothing is in flight.
fn try_out(ring: &mut Ring, buffers: &mut Buffers) -> Result<(), Unsupported> {
    let pair = || {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        io::Result::Ok((ours, theirs))
    };
    let (ours, mut theirs) = pair().map_err(Unsupported::Setup)?;
    let identity = Identity::of(Op::Receive, LinkId { index: 7, generation: 5 });

    ring.receive(ours.as_fd(), identity);
    for word in [b"one", b"two"] {
        if submit_send(ring, &theirs, word)?.is_some() {
            return Err(Unsupported::Failed("a send was not silent"));
        }
        let got = await_completion(ring)?;
        if got.identity != identity || !got.goes_on() {
            return Err(Unsupported::Failed("a receive did not go on"));
        }
        let buffer = got.buffer().ok_or(Unsupported::Failed("a receive used no buffer"))?;
        if buffers.filled(buffer, got.result.max(0) as usize) != Some(&mut Vec::from(word)[..]) {
            return Err(Unsupported::Failed("a receive brought other bytes"));
        }
        buffers.give_back(buffer);
    }

    let much = vec![b'x'; 8 << 20];
    for submit in [submit_send, submit_send_in_parts] {
        let taken = submit(ring, &ours, &much)?
            .ok_or(Unsupported::Failed("a short send was not reported"))?;
        let mut arrived = 0;
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(len) = theirs.read(&mut chunk)
            && len > 0
        {
            arrived += len;
        }
        if usize::try_from(taken) != Ok(arrived) || arrived == 0 || arrived >= much.len() {
            return Err(Unsupported::Failed("a short send was counted wrong"));
        }
    }

    ring.cancel(identity);
    let last = await_completion(ring)?;
    if last.identity != identity || last.result != -libc::ECANCELED || last.goes_on() {
        return Err(Unsupported::Failed("a receive was not cancelled"));
    }

    // All of this must have been announced. The host never reads the counter, but we may.
    let mut counter = [0; 8];
    let mut wake =
        std::fs::File::from(ring.wake().try_clone_to_owned().map_err(Unsupported::Setup)?);
    wake.read_exact(&mut counter).map_err(|_| Unsupported::Failed("no wake-up was signalled"))
}

/// Sends `bytes` and answers the completion's result, if there is one.
fn submit_send(ring: &mut Ring, to: &UnixStream, bytes: &[u8]) -> Result<Option<i32>, Unsupported> {
    // SAFETY: `bytes` is borrowed until after `submit`.
    let queued = unsafe { ring.try_send(to.as_fd(), bytes, 0) };
    debug_assert!(queued, "an empty queue has room");
    the_send(ring)
}

/// [`submit_send`] of the same bytes in two parts.
fn submit_send_in_parts(
    ring: &mut Ring,
    to: &UnixStream,
    bytes: &[u8],
) -> Result<Option<i32>, Unsupported> {
    let (front, back) = bytes.split_at(bytes.len() / 3);
    let parts = [IoSlice::new(front), IoSlice::new(back)];
    let header = super::send::header(&parts);
    // SAFETY: the header and all it points to stay until after `submit`.
    let queued = unsafe { ring.try_send_parts(to.as_fd(), &header, 0) };
    debug_assert!(queued, "an empty queue has room");
    the_send(ring)
}

/// Submits the one send that is queued: its completion's result, if there is one.
fn the_send(ring: &mut Ring) -> Result<Option<i32>, Unsupported> {
    ring.submit().map_err(Unsupported::Setup)?;
    let mut sends = ring.take_sends().map_err(Unsupported::Setup)?;
    Ok(sends.next().map(|(_, result)| result))
}

fn await_completion(ring: &mut Ring) -> Result<Completion, Unsupported> {
    for _ in 0..50 {
        ring.collect(1).map_err(Unsupported::Setup)?;
        if let Some(completion) = ring.pop() {
            return Ok(completion);
        }
        ring.wait_briefly();
    }
    Err(Unsupported::Failed("a completion never came"))
}

//! What the contract suite cannot ask for: set-up, and rings too small for their work.

use super::*;
use crate::io::Bytes;

#[test]
fn a_tiny_ring_survives_more_requests_than_it_holds() {
    let config = Config {
        submissions: 4,
        completions: 8,
        buffers: 2,
        buffer_bytes: 64,
        ..Config::default()
    };
    let Ok(mut driver) = Uring::new(None, &config) else { return };
    let mut pairs: Vec<_> = (0..100)
        .map(|_| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            (driver.attach(Handoff::Fd(ours.into())).unwrap(), theirs)
        })
        .collect();
    let batch: Vec<_> =
        pairs.iter().map(|(link, _)| SendOp { link: *link, bytes: Bytes::One(b"hello") }).collect();
    let mut short = Vec::new();
    driver.send(&batch, &mut short);
    assert!(short.is_empty(), "{short:?}");
    for (_, theirs) in &mut pairs {
        let mut got = [0; 5];
        io::Read::read_exact(theirs, &mut got).unwrap();
        assert_eq!(&got, b"hello");
    }
}

#[test]
fn every_failed_send_is_reported_when_completions_overflow() {
    let config = Config { submissions: 8, completions: 8, buffers: 2, ..Config::default() };
    let Ok(mut driver) = Uring::new(None, &config) else { return };
    let pairs: Vec<_> = (0..64)
        .map(|_| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            (driver.attach(Handoff::Fd(ours.into())).unwrap(), theirs)
        })
        .collect();
    // The receives of all links complete while nobody collects, and fill the queue.
    driver.prepare_wait().unwrap();
    let links: Vec<LinkId> = pairs.iter().map(|(link, _)| *link).collect();
    drop(pairs);
    let batch: Vec<_> =
        links.iter().map(|link| SendOp { link: *link, bytes: Bytes::One(b"x") }).collect();
    let nobody = Identity::indexed(Op::Receive, 9_999);
    for _ in 0..3 {
        // Cancelling nothing completes at once, so that the queue is nearly full already.
        for _ in 0..6 {
            driver.ring.cancel(nobody);
        }
        driver.prepare_wait().unwrap();
        let mut short = Vec::new();
        driver.send(&batch, &mut short);
        short.sort_by_key(|one| one.op);
        assert_eq!(short.iter().map(|one| one.op).collect::<Vec<_>>(), Vec::from_iter(0..64));
        assert!(short.iter().all(|one| one.error.is_some()));
        driver.poll().unwrap(); // the receives' turn to flood the queue, in part
    }
    let mut ended = 0;
    for _ in 0..1000 {
        driver.poll().unwrap();
        while let Some(event) = driver.next() {
            assert!(matches!(event, Event::Ended { .. }), "{event:?}");
            ended += 1;
        }
    }
    assert_eq!(ended, 64);
}

#[test]
fn links_that_found_no_buffer_while_idle_are_armed_before_the_host_sleeps() {
    let config = Config { submissions: 8, completions: 64, buffers: 2, ..Config::default() };
    let Ok(mut driver) = Uring::new(None, &config) else { return };
    let pair = || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        (ours, theirs)
    };
    // Both buffers are taken, their bytes copied out but not looked at.
    let mut senders = Vec::new();
    for _ in 0..2 {
        let (ours, mut theirs) = pair();
        driver.attach(Handoff::Fd(ours.into())).unwrap();
        driver.prepare_wait().unwrap();
        io::Write::write_all(&mut theirs, b"!").unwrap();
        senders.push(theirs);
    }
    driver.poll().unwrap();
    let mut idle = Vec::new();
    for _ in 0..50 {
        let (ours, theirs) = pair();
        idle.push((driver.attach(Handoff::Fd(ours.into())).unwrap(), theirs));
    }
    driver.prepare_wait().unwrap();

    let turn = |driver: &mut Uring| {
        let mut heard = Vec::new();
        loop {
            driver.poll().unwrap();
            while let Some(event) = driver.next() {
                let Event::Received { link, .. } = event else { panic!("{event:?}") };
                heard.push(link);
            }
            driver.prepare_wait().unwrap();
            if !driver.has_more() {
                return heard; // a host would sleep now
            }
        }
    };
    assert_eq!(turn(&mut driver).len(), 2);
    assert!(driver.starved.is_empty());
    for (link, theirs) in &mut idle {
        io::Write::write_all(theirs, b"x").unwrap();
        assert_eq!(turn(&mut driver), [*link]);
    }
}

#[test]
fn a_refused_configuration_is_an_error_that_tells() {
    // More completions than submissions are required; the kernel says so.
    let config = Config { submissions: 64, completions: 1, ..Config::default() };
    match Uring::new(None, &config) {
        Err(Unsupported::Setup(_) | Unsupported::Forbidden | Unsupported::Missing) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn set_up_finds_the_best_mode() {
    match supported() {
        Ok(mode) => assert!(matches!(mode, Mode::Deferred | Mode::Cooperative)),
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

/// Makes `io_uring_setup` fail with `code` on this thread, as a container's seccomp profile does.
fn forbid_io_uring(code: i32) {
    const fn statement(code: u32, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
    }
    let mut filter = [
        // The number of the system call is the first word of what a filter is shown.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jt: 0,
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::SYS_io_uring_setup as u32,
            )
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | code as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` and the filter it points to are valid for the calls, which copy them. They
    // bind this thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn a_container_that_forbids_it_is_recognised() {
    for code in [libc::EPERM, libc::ENOSYS] {
        let why = std::thread::spawn(move || {
            forbid_io_uring(code);
            supported().unwrap_err()
        });
        match (code, why.join().unwrap()) {
            (libc::EPERM, Unsupported::Forbidden) | (libc::ENOSYS, Unsupported::Missing) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}

//! `loadtest worker`, which nobody calls by hand: a share of a run's clients in a process of its
//! own. It reads orders and writes reports on its standard input, a socket; it knows nothing of
//! the other workers, and its end is the end of the run.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::load::link::{Heard, Job, Link, Order, Report};
use crate::load::{Follower, Load, Role};
use crate::swarm::Swarm;

/// How often the leader hears how many clients are in.
const TELL: Duration = Duration::from_millis(100);

pub(crate) fn run() -> Result<(), Failure> {
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let mut link = Link::new(UnixStream::from(input.map_err(Failure::io("use the link"))?))?;
    let job = match link.wait()? {
        Heard::Message(job) => job,
        Heard::Nothing | Heard::Ended => return Err(Failure::Leaderless),
    };
    let mut load = load(&job, link);
    match serve(job, &mut load) {
        // There is nobody to tell.
        Err(Failure::Leaderless) => Ok(()),
        Err(failure) => match &mut load.role {
            Role::Follower(follower) => follower.link.say_last(&Report::Fault(failure.to_string())),
            Role::Alone | Role::Leader(_) => Err(failure),
        },
        Ok(()) => Ok(()),
    }
}

fn load(job: &Job, link: Link) -> Load {
    Load::of(job.share, Role::Follower(Follower::new(link)))
}

/// Carries out orders until the leader goes.
fn serve(job: Job, load: &mut Load) -> Result<(), Failure> {
    let share = job.share;
    let mut swarm = Swarm::new(job.targets, job.seat, move |who| share.rooms_of(who))?;
    swarm.transport = job.transport;
    if let Role::Follower(follower) = &load.role {
        swarm.watch(follower.link.fd())?;
    }
    loop {
        while let Some(order) = load.next_order()? {
            match order {
                Order::Grow(clients) => grow(&mut swarm, load, clients)?,
                Order::Clear => {
                    swarm.clear();
                    load.report(&Report::Ready(0))?;
                    load.report(&Report::Answer)?;
                }
                Order::Prepare => {
                    load.prepare();
                    load.report(&Report::Answer)?;
                }
                Order::Go(started) => {
                    load.follow(&mut swarm, started)?;
                    load.hand_over()?;
                }
                Order::Tell => load.hand_over()?,
                // These are taken as they are heard.
                Order::Flights(_) | Order::Over(_) => {}
            }
        }
        swarm.turn(Some(Duration::from_millis(100)), load)?;
    }
}

fn grow(swarm: &mut Swarm, load: &mut Load, clients: u32) -> Result<(), Failure> {
    let mut told = Instant::now();
    let mut latest = Ok(());
    // The report goes out beside the work that `grow` hands out.
    let Role::Follower(follower) = std::mem::replace(&mut load.role, Role::Alone) else {
        return Ok(());
    };
    let mut follower = follower;
    let grown = swarm.grow(clients, load, |ready| {
        if told.elapsed() > TELL && latest.is_ok() {
            told = Instant::now();
            latest = follower.link.say(&Report::Ready(ready));
        }
    });
    load.role = Role::Follower(follower);
    grown.and(latest)?;
    load.report(&Report::Ready(swarm.ready))?;
    load.report(&Report::Answer)
}

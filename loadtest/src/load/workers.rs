//! The other processes of a run, seen from the one that leads it: started, told, heard, ended.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::link::{Heard, Job, Link, Order, Report, Sighting};
use super::{Share, Window};
use crate::Failure;
use crate::measure::Process;

/// Processes beside the one that leads. Each has source addresses of its own, 127.n.x.y.
pub(crate) const WORKERS_MAX: u32 = 64;
/// A worker that owes an answer speaks several times a second.
const PATIENCE: Duration = Duration::from_secs(30);

struct Worker {
    child: Child,
    link: Link,
    process: Process,
    share: Share,
    ready: u32,
    operations: u64,
    /// It still has to carry out an order.
    owes: bool,
    heard: Instant,
}

pub(crate) struct Workers {
    all: Vec<Worker>,
    /// What they have told of, together.
    pub(super) window: Window,
    /// Deliveries that are told of by workers: a sign of life.
    pub(super) signs: u64,
}

impl Workers {
    /// Starts this very program once per job.
    pub(crate) fn start(jobs: &[Job]) -> Result<Self, Failure> {
        let mut workers = Self { all: Vec::new(), window: Window::default(), signs: 0 };
        let program = std::env::current_exe().map_err(Failure::io("find this program"))?;
        for job in jobs {
            let (ours, theirs) = UnixStream::pair().map_err(Failure::io("make a link"))?;
            let mut command = Command::new(&program);
            command.arg("worker").stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
            crate::system::leave_with_us(&mut command);
            let child = command.spawn().map_err(Failure::io("start a worker"))?;
            let process = Process::new(child.id()).map_err(Failure::io("read /proc"))?;
            workers.all.push(Worker {
                child,
                link: Link::new(ours)?,
                process,
                share: job.share,
                ready: 0,
                operations: 0,
                owes: false,
                heard: Instant::now(),
            });
            workers.all.last_mut().map_or(Ok(()), |worker| worker.link.say(job))?;
        }
        Ok(workers)
    }

    pub(crate) fn fds(&self) -> impl Iterator<Item = i32> {
        self.all.iter().map(|worker| worker.link.fd())
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.all.iter().map(|worker| &worker.process)
    }

    /// Clients that are in, of all workers.
    pub(crate) fn ready(&self) -> u32 {
        self.all.iter().map(|worker| worker.ready).sum()
    }

    pub(super) fn operations(&self) -> u64 {
        self.all.iter().map(|worker| worker.operations).sum()
    }

    /// How many workers have clients in a group.
    pub(super) fn members(&self, group: u32) -> u32 {
        self.all.iter().filter(|worker| worker.share.has_members(group)).count() as u32
    }

    /// Tells everybody something that is carried out and answered.
    pub(crate) fn order(&mut self, order: impl Fn(&Share) -> Order) -> Result<(), Failure> {
        for worker in &mut self.all {
            (worker.owes, worker.heard) = (true, Instant::now());
            worker.link.say(&order(&worker.share))?;
        }
        Ok(())
    }

    pub(super) fn go(&mut self, started: u64) -> Result<(), Failure> {
        for worker in &mut self.all {
            worker.operations = 0;
            worker.link.say(&Order::Go(started))?;
        }
        Ok(())
    }

    /// Tells of broadcasts those who have to wait for them.
    pub(super) fn announce(&mut self, flights: &[Sighting]) -> Result<(), Failure> {
        for worker in &mut self.all {
            let flights = flights.iter().filter(|flight| worker.share.has_members(flight.0));
            let flights: Vec<Sighting> = flights.copied().collect();
            if !flights.is_empty() {
                worker.link.say(&Order::Flights(flights))?;
            }
        }
        Ok(())
    }

    /// Whether all that was said lies with the workers.
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        let mut all = true;
        for worker in &mut self.all {
            all &= worker.link.flush()?;
        }
        Ok(all)
    }

    /// Whether every order has been carried out.
    pub(crate) fn have_answered(&self) -> bool {
        self.all.iter().all(|worker| !worker.owes)
    }

    /// Hears everybody; broadcasts that have landed go to `landed`.
    pub(super) fn hear(
        &mut self,
        mut landed: impl FnMut(Sighting) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for (index, worker) in self.all.iter_mut().enumerate() {
            worker.link.flush()?;
            loop {
                match worker.link.hear::<Report>()? {
                    Heard::Message(report) => {
                        let landed = &mut |sighting| {
                            self.signs += 1;
                            landed(sighting)
                        };
                        worker.report(index, report, &mut self.window, landed)?;
                    }
                    Heard::Nothing => break,
                    Heard::Ended => return Err(worker.lost(index)),
                }
            }
        }
        Ok(())
    }

    /// A worker that owes something and says nothing has failed, too.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let silent = |worker: &Worker| worker.owes && worker.heard.elapsed() > PATIENCE;
        match self.all.iter().position(silent) {
            Some(index) => {
                let why = format!("it has said nothing for {PATIENCE:?}");
                Err(self.all[index].failed(index, why))
            }
            None => Ok(()),
        }
    }
}

impl Worker {
    fn report(
        &mut self,
        index: usize,
        report: Report,
        window: &mut Window,
        landed: &mut impl FnMut(Sighting) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.heard = Instant::now();
        match report {
            Report::Ready(clients) => self.ready = clients,
            Report::Answer => self.owes = false,
            Report::Sample(operations) => self.operations = operations,
            Report::Landed(sightings) => {
                for sighting in sightings {
                    landed(sighting)?;
                }
            }
            Report::Window(seen) => {
                self.owes = false;
                window.add(&seen);
            }
            Report::Fault(why) => return Err(self.failed(index, why)),
        }
        Ok(())
    }

    fn failed(&self, index: usize, why: String) -> Failure {
        Failure::Worker { number: index + 1, pid: self.child.id(), why }
    }

    /// Its end of the link is closed: how did it end?
    fn lost(&mut self, index: usize) -> Failure {
        // Descriptors are closed a moment before the end of a process can be seen.
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(Some(status)) => return self.failed(index, format!("it has ended: {status}")),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => return self.failed(index, format!("it is lost: {error}")),
            }
        }
        self.failed(index, "it has closed its link".to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // What it knew has been told; it has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

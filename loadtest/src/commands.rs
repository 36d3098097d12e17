//! The commands that are a plan and nothing more: `fanout`, `echo`, `rooms`, `churn`, `mixed`.

use clap::Args;

use crate::Failure;
use crate::load::{Pace, Plan};
use crate::runner::{self, Common};

/// How many clients, how much text, how fast.
#[derive(Debug, Clone, Args)]
pub(crate) struct Amount {
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Closed loop: messages outstanding (echo: per client).
    #[arg(long, conflicts_with = "rate", default_value_t = 1)]
    window: u32,
    /// Open loop: messages a second; latency counts from the scheduled send.
    #[arg(long)]
    rate: Option<f64>,
}

impl Amount {
    fn pace(&self) -> Result<Pace, Failure> {
        match self.rate {
            Some(rate) if rate.is_finite() && rate > 0.0 => Ok(Pace::Rate(rate)),
            Some(rate) => Err(Failure::Usage(format!("{rate} messages a second are no rate"))),
            None if self.window == 0 || self.clients == 0 => {
                Err(Failure::Usage("at least one client and one message outstanding".to_owned()))
            }
            None => Ok(Pace::Window(self.window)),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Echo {
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Rooms {
    #[command(flatten)]
    amount: Amount,
    /// Rooms over which the clients are spread; broadcasts go round.
    #[arg(long, default_value_t = 10)]
    rooms: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Churn {
    #[command(flatten)]
    amount: Amount,
    /// Clients a second that come, live for about a second and go, besides those that stay.
    #[arg(long, default_value_t = 100.0)]
    churn: f64,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Mixed {
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Broadcasts a second.
    #[arg(long, default_value_t = 20.0)]
    broadcasts: f64,
    /// Echoes a second, all clients together.
    #[arg(long, default_value_t = 1_000.0)]
    echoes: f64,
    /// Clients a second that come and go.
    #[arg(long, default_value_t = 50.0)]
    churn: f64,
    /// Rooms over which the clients are spread.
    #[arg(long, default_value_t = 1)]
    rooms: u32,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn fanout(options: &Fanout) -> Result<(), Failure> {
    let Amount { clients, payload, .. } = options.amount;
    let plan = Plan::fanout(clients, payload, options.amount.pace()?);
    runner::run("fanout", plan, &options.common)
}

pub(crate) fn echo(options: &Echo) -> Result<(), Failure> {
    let Amount { clients, payload, .. } = options.amount;
    let plan = Plan::echo(clients, payload, options.amount.pace()?);
    runner::run("echo", plan, &options.common)
}

pub(crate) fn rooms(options: &Rooms) -> Result<(), Failure> {
    let Amount { clients, payload, .. } = options.amount;
    let plan = Plan::fanout(clients, payload, options.amount.pace()?);
    let rooms = checked_rooms(options.rooms, clients)?;
    runner::run("rooms", Plan { rooms, ..plan }, &options.common)
}

pub(crate) fn churn(options: &Churn) -> Result<(), Failure> {
    let Amount { clients, payload, .. } = options.amount;
    let plan = Plan::fanout(clients, payload, options.amount.pace()?);
    let churn = checked_rate(options.churn)?;
    runner::run("churn", Plan { churn, ..plan }, &options.common)
}

pub(crate) fn mixed(options: &Mixed) -> Result<(), Failure> {
    let plan = Plan {
        payload: options.payload,
        broadcast: Some(Pace::Rate(checked_rate(options.broadcasts)?)),
        rooms: checked_rooms(options.rooms, options.clients)?,
        echo: Some(Pace::Rate(checked_rate(options.echoes)?)),
        churn: checked_rate(options.churn)?,
        ..Plan::quiet(options.clients)
    };
    runner::run("mixed", plan, &options.common)
}

fn checked_rooms(rooms: u32, clients: u32) -> Result<u32, Failure> {
    match rooms {
        0 => Err(Failure::Usage("no rooms".to_owned())),
        rooms if rooms > clients => Err(Failure::Usage("more rooms than clients".to_owned())),
        rooms => Ok(rooms),
    }
}

fn checked_rate(rate: f64) -> Result<f64, Failure> {
    match rate {
        rate if rate.is_finite() && rate > 0.0 && rate < 1e6 => Ok(rate),
        rate => Err(Failure::Usage(format!("{rate} a second is no rate"))),
    }
}

//! The commands that are a plan and nothing more: `fanout`, `echo`, `rooms`, `churn`, `mixed`.

use clap::Args;

use crate::Failure;
use crate::load::{Pace, Plan};
use crate::runner::{self, Measured};

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
    fn pace(&self) -> Pace {
        self.rate.map_or(Pace::Window(self.window), Pace::Rate)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    run: Measured,
}

#[derive(Debug, Args)]
pub(crate) struct Echo {
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    run: Measured,
}

#[derive(Debug, Args)]
pub(crate) struct Rooms {
    #[command(flatten)]
    amount: Amount,
    /// Rooms over which the clients are spread; broadcasts go round.
    #[arg(long, default_value_t = 10)]
    rooms: u32,
    #[command(flatten)]
    run: Measured,
}

#[derive(Debug, Args)]
pub(crate) struct Churn {
    #[command(flatten)]
    amount: Amount,
    /// Clients a second that come, live for about a second and go, besides those that stay.
    #[arg(long, default_value_t = 100.0)]
    churn: f64,
    #[command(flatten)]
    run: Measured,
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
    run: Measured,
}

pub(crate) fn fanout(options: &Fanout) -> Result<(), Failure> {
    let Amount { clients, payload, .. } = options.amount;
    let plan = Plan::fanout(clients, payload, options.amount.pace());
    runner::run("fanout", plan, &options.run)
}

pub(crate) fn echo(options: &Echo) -> Result<(), Failure> {
    let Amount { clients, payload, .. } = options.amount;
    let plan = Plan::echo(clients, payload, options.amount.pace());
    runner::run("echo", plan, &options.run)
}

pub(crate) fn rooms(options: &Rooms) -> Result<(), Failure> {
    let Amount { clients, payload, .. } = options.amount;
    let plan = Plan::fanout(clients, payload, options.amount.pace());
    runner::run("rooms", Plan { rooms: options.rooms, ..plan }, &options.run)
}

pub(crate) fn churn(options: &Churn) -> Result<(), Failure> {
    let Amount { clients, payload, .. } = options.amount;
    let plan = Plan::fanout(clients, payload, options.amount.pace());
    let churn = checked_churn(options.churn)?;
    runner::run("churn", Plan { churn, ..plan }, &options.run)
}

pub(crate) fn mixed(options: &Mixed) -> Result<(), Failure> {
    let plan = Plan {
        payload: options.payload,
        broadcast: Some(Pace::Rate(options.broadcasts)),
        rooms: options.rooms,
        echo: Some(Pace::Rate(options.echoes)),
        churn: checked_churn(options.churn)?,
        ..Plan::quiet(options.clients)
    };
    runner::run("mixed", plan, &options.run)
}

/// Clients a second.
const CHURN: std::ops::RangeInclusive<f64> = 1e-3..=1e6;

fn checked_churn(rate: f64) -> Result<f64, Failure> {
    match rate {
        rate if CHURN.contains(&rate) => Ok(rate),
        rate => Err(Failure::Usage(format!("{rate} clients a second cannot come and go"))),
    }
}

//! Doing what the core says.

use std::time::{Duration, Instant};

use salver_records::{Assignment, Position, Severity, Slot, Transaction};

use super::Driver;
use crate::core::Effect;
use crate::deliver::Command;
use crate::score::Parcel;
use crate::status::add;
use crate::{Error, ErrorKind, clock};

/// How long the last positions may take to be kept at the end.
const LAST: Duration = Duration::from_secs(5);

/// How long to wait before they are tried again.
const PAUSE: Duration = Duration::from_millis(100);

impl Driver {
    /// Does what is to be done, and what comes of that.
    pub(super) fn act(&mut self, now: Instant) -> Result<(), Error> {
        loop {
            let effects = self.core.effects();
            if self.core.generation() != self.state.generation {
                self.state.generation = self.core.generation();
                self.state.backlog.clear();
                self.command(Command::Renew(self.state.generation));
            }
            if effects.is_empty() {
                return Ok(());
            }
            for effect in effects {
                self.do_one(effect, now)?;
            }
        }
    }

    fn do_one(&mut self, effect: Effect<Parcel>, now: Instant) -> Result<(), Error> {
        match effect {
            Effect::Pause(slots) => self.source.pause(&slots),
            Effect::Resume(slots) => self.resume(&slots),
            Effect::Send(mut sendings) => {
                for alike in sendings.chunk_by(|a, b| a.taken == b.taken) {
                    let took =
                        alike.first().map_or(Duration::ZERO, |one| now.saturating_duration_since(one.taken));
                    let n = u64::try_from(alike.len()).unwrap_or(u64::MAX);
                    self.meter.stages.release.record_n(took, n);
                }
                sendings.retain(|sending| sending.n_outputs > 0);
                if !sendings.is_empty() {
                    self.command(Command::Send(sendings));
                }
            }
            Effect::Commit(positions) => {
                let named =
                    |position: &Position| (self.source.partition(position.slot).clone(), position.next);
                let positions = positions.iter().map(named).collect();
                let group = self.state.member.clone().or_else(|| self.source.group());
                let transaction = Transaction { positions, group };
                self.command(Command::Commit(transaction));
            }
            Effect::Remember(positions) => self.remember(&positions, now)?,
            Effect::Committed(positions) => self.keep_windows(&positions)?,
            Effect::Recall(slots) => self.recall(&slots, now)?,
            Effect::Moved(positions) => self.renew_windows(&positions)?,
            Effect::Rewind(positions) => self.rewind(&positions, now)?,
            Effect::Settle(slots) => self.settle(&slots)?,
            Effect::GiveUp(slots) => self.give_up(&slots, now)?,
        }
        Ok(())
    }

    fn remember(&mut self, positions: &[Position], now: Instant) -> Result<(), Error> {
        match self.source.commit(positions) {
            Ok(()) => {
                self.core.remembered(positions);
                add(&self.meter.counters.commits, 1);
                self.meter.stages.commit.record(clock::now().saturating_duration_since(now));
            }
            Err(error) if error.severity == Severity::Fatal => {
                return Err(Error::new(ErrorKind::Source, error.message));
            }
            Err(error) if error.severity == Severity::Fenced => {
                tracing::warn!("positions were not taken, others may have the partitions: {error}");
                self.core.refused(positions, now);
            }
            // They are committed with the next ones.
            Err(error) => tracing::warn!("positions were not committed: {error}"),
        }
        Ok(())
    }

    fn keep_windows(&mut self, positions: &[Position]) -> Result<(), Error> {
        let Some(windows) = &mut self.windows else { return Ok(()) };
        for Position { slot, next } in positions {
            windows
                .committed(self.source.partition(*slot), *next)
                .map_err(|message| Error::new(ErrorKind::State, message))?;
        }
        Ok(())
    }

    /// Asks the group how far partitions are. Commits are made in the name of who this process was before, until one has
    /// succeeded: what it is told may be of the past by the time that it is a member again.
    fn recall(&mut self, slots: &[Slot], now: Instant) -> Result<(), Error> {
        let member = self.source.group();
        match self.source.committed(slots) {
            Ok(positions) => {
                self.state.member = member;
                self.core.recalled(slots, &positions, now);
            }
            Err(error) if error.severity == Severity::Fatal => {
                return Err(Error::new(ErrorKind::Source, error.message));
            }
            Err(error) => tracing::warn!("the group does not say yet how far it is: {error}"),
        }
        Ok(())
    }

    /// What others have done since, or a commit of which it was not known, is not in the windows as they are.
    fn renew_windows(&mut self, positions: &[Position]) -> Result<(), Error> {
        for Position { slot, next } in positions {
            let partition = self.source.partition(*slot).clone();
            tracing::warn!("{partition} is read on from offset {next}, to where the group has come");
            if let Some(windows) = &mut self.windows {
                windows.release(&partition);
                self.source.pause(&[*slot]);
                self.core.set_aside(*slot);
                self.state.moved.insert(*slot);
                self.restore(Assignment { slot: *slot, next: Some(*next) })?;
            }
        }
        Ok(())
    }

    /// Has the source go back. It is asked again by the core where it does not yet.
    fn rewind(&mut self, positions: &[Position], now: Instant) -> Result<(), Error> {
        if let Some(windows) = &mut self.windows {
            for Position { slot, next } in positions {
                windows
                    .rewind(self.source.partition(*slot), *next)
                    .map_err(|message| Error::new(ErrorKind::State, message))?;
            }
        }
        match self.source.rewind(positions) {
            Ok(()) => self.core.rewound(positions),
            Err(error) if error.severity == Severity::Fenced => self.core.fenced(now),
            Err(error) if error.severity == Severity::Fatal => {
                return Err(Error::new(ErrorKind::Source, error.message));
            }
            Err(error) => tracing::warn!("the source does not go back yet: {error}"),
        }
        Ok(())
    }

    /// Waits until what was committed of partitions lasts, so that nobody else does it again.
    fn settle(&mut self, slots: &[Slot]) -> Result<(), Error> {
        match self.source.settle() {
            Ok(()) => self.core.settled(slots, clock::now()),
            Err(error) if error.severity == Severity::Fatal => {
                return Err(Error::new(ErrorKind::Source, error.message));
            }
            Err(error) => {
                tracing::warn!(
                    "positions of partitions that others shall have are not committed yet: {error}"
                );
                self.core.not_settled(slots, clock::now());
            }
        }
        Ok(())
    }

    /// The same at the end, where there is no other time.
    pub(super) fn settle_last(&mut self) {
        let until = clock::now() + LAST;
        while let Err(error) = self.source.settle() {
            if matches!(error.severity, Severity::Fatal) || clock::now() >= until {
                tracing::warn!("the last positions may not be committed: {error}");
                return;
            }
            tracing::debug!("the last positions are not committed yet: {error}");
            std::thread::park_timeout(PAUSE);
        }
    }

    fn give_up(&mut self, slots: &[Slot], now: Instant) -> Result<(), Error> {
        for slot in slots {
            if let Some(windows) = &mut self.windows {
                windows.release(self.source.partition(*slot));
            }
            tracing::info!("{} is given up", self.source.partition(*slot));
        }
        match self.source.give_up(slots) {
            Err(error) if error.severity == Severity::Fatal => {
                Err(Error::new(ErrorKind::Source, error.message))
            }
            Err(error) => {
                tracing::warn!("partitions were not given up in good order: {error}");
                if error.severity == Severity::Fenced {
                    self.core.fenced(now);
                }
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

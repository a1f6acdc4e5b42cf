//! The sink's thread: what is released is written here, in order, and what lasts is told to the driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use bytes::Bytes;
use salver_records::{
    Delivery, Error as SinkError, Header, Outgoing, Output, Receipt, Severity, Sink, Transaction,
};

use crate::core::{Sending, Ticket};
use crate::driver::Report;
use crate::refuse::{Origin, Outputs};
use crate::score::{Parcel, Scoring};
use crate::status::add;
use crate::{Class, Error, ErrorKind};

/// How long to wait for something to write while it is not known whether all that was written lasts.
const LOOK: Duration = Duration::from_millis(1);

/// What the driver tells the sink's thread. Generations rise with each [`Command::Renew`].
#[derive(Debug)]
pub(crate) enum Command {
    Send(Vec<Sending<Parcel>>),
    /// Also opens the transaction if nothing was sent.
    Commit(Transaction),
    /// Forgets what was sent, aborts what is open, and goes on in this generation.
    Renew(u64),
    /// Writes out what was sent, and ends.
    End,
}

/// What is known of an output for the case that the sink refuses it, as it is too large for where it goes.
#[derive(Debug)]
enum Spare {
    /// It is an answer to this record.
    Answer(Origin),
    /// It is something else, as it was.
    Whole(Box<Outgoing>),
    /// There is nothing less to write.
    Nothing,
}

/// An output of which it is not known whether it lasts.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    spare: Spare,
    n_bytes: usize,
    is_answer: bool,
    is_known: bool,
}

impl Spare {
    fn of(outgoing: &Outgoing) -> Spare {
        let has_less = outgoing.output != Output::Main && outgoing.value.is_some();
        if has_less { Spare::Whole(Box::new(outgoing.clone())) } else { Spare::Nothing }
    }
}

/// The same without its value. A dead letter says how large that was and what its CRC-32C is, so that it can be found where it
/// came from; a key without a value in the changelog has no state, which begins anew when it is restored.
fn emptied(mut outgoing: Outgoing) -> Option<Outgoing> {
    let value = outgoing.value.take()?;
    match outgoing.output {
        // Nothing among the answers means that there is nothing any more under this key.
        Output::Main => return None,
        Output::Dead => {
            for (name, number) in [
                ("salver-error-value-bytes", value.len().to_string()),
                ("salver-error-value-crc32c", crc32c::crc32c(&value).to_string()),
            ] {
                outgoing.headers.push(Header { name: name.into(), value: Some(Bytes::from(number)) });
            }
        }
        Output::Changelog => {}
    }
    Some(outgoing)
}

/// How writing goes on after a trouble.
enum Trouble {
    /// Not in this generation.
    Failed(SinkError),
    /// Not at all.
    Stop(Error),
}

pub(crate) struct Writer {
    sink: Box<dyn Sink>,
    scoring: Arc<Scoring>,
    reports: SyncSender<Report>,
    in_transactions: bool,
    generation: u64,
    /// Whether this generation has failed, and waits for the next.
    has_failed: bool,
    is_open: bool,
    /// By receipt, from the first that is not known to last.
    pending: VecDeque<Pending>,
    first: u64,
    /// Answers, and their bytes, in the transaction.
    written: (usize, usize),
    deliveries: Vec<Delivery>,
}

impl Writer {
    pub(crate) fn new(
        sink: Box<dyn Sink>,
        scoring: Arc<Scoring>,
        reports: SyncSender<Report>,
        in_transactions: bool,
    ) -> Writer {
        Writer {
            sink,
            scoring,
            reports,
            in_transactions,
            generation: 0,
            has_failed: false,
            is_open: false,
            pending: VecDeque::new(),
            first: 0,
            written: (0, 0),
            deliveries: Vec::new(),
        }
    }

    /// Writes until it is told to end. Blocks.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let command = if self.pending.is_empty() {
                commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                commands.recv_timeout(LOOK)
            };
            let done = match command {
                Ok(Command::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Command::Renew(generation)) => self.renew(generation),
                Ok(_) if self.has_failed => Ok(()),
                Ok(Command::Send(sendings)) => self.send_all(sendings),
                Ok(Command::Commit(transaction)) => self.commit(&transaction),
                Err(RecvTimeoutError::Timeout) => Ok(()),
            };
            let done = done.and_then(|()| self.look());
            if done.is_err_and(|trouble| !self.report(trouble)) {
                return;
            }
        }
        self.end();
    }

    fn end(&mut self) {
        let ended = if self.is_open { self.sink.abort() } else { self.sink.flush() };
        if let Err(error) = ended {
            tracing::warn!("the sink does not end well: {error}");
        }
        drop(self.reports.send(Report::Ended));
    }

    /// Tells the driver of a trouble. Gives whether there is still somebody to tell.
    fn report(&mut self, trouble: Trouble) -> bool {
        let report = match trouble {
            Trouble::Stop(error) => Report::Stop(error),
            Trouble::Failed(error) if error.severity == Severity::Fatal => {
                Report::Stop(Error::new(ErrorKind::Sink, error.message))
            }
            Trouble::Failed(error) => {
                // Where this is about an abort already, the next generation tries it again.
                let aborted = if self.is_open && !self.has_failed { self.abort() } else { Ok(()) };
                match aborted {
                    Err(worse) if worse.severity == Severity::Fatal => {
                        Report::Stop(Error::new(ErrorKind::Sink, worse.message))
                    }
                    _ => Report::Failed { generation: self.generation, error },
                }
            }
        };
        self.has_failed = true;
        self.reports.send(report).is_ok()
    }

    /// Throws away what was sent; where the far side is away, that is still to be done.
    fn abort(&mut self) -> Result<(), SinkError> {
        self.written = (0, 0);
        let aborted = self.sink.abort();
        self.is_open = aborted.as_ref().is_err_and(|error| error.severity == Severity::Passing);
        aborted
    }

    fn renew(&mut self, generation: u64) -> Result<(), Trouble> {
        self.generation = generation;
        self.has_failed = true;
        self.first += self.pending.len() as u64;
        self.pending.clear();
        let aborted = if self.is_open { self.abort() } else { Ok(()) };
        // What is fenced here is told by the next transaction as well.
        if let Err(error) =
            aborted.or_else(|error| if error.severity == Severity::Fenced { Ok(()) } else { Err(error) })
        {
            return Err(Trouble::Failed(error));
        }
        self.has_failed = false;
        Ok(())
    }

    // Writing

    fn send_all(&mut self, sendings: Vec<Sending<Parcel>>) -> Result<(), Trouble> {
        self.open()?;
        for sending in sendings {
            let Sending { ticket, payload: Parcel { outputs, origin }, .. } = sending;
            let mut origin = Some(origin);
            for outgoing in outputs {
                let answered = if outgoing.output == Output::Main { origin.take() } else { None };
                let spare = answered.map_or_else(|| Spare::of(&outgoing), Spare::Answer);
                self.send(ticket, outgoing, spare)?;
            }
        }
        Ok(())
    }

    /// Opens the transaction, where there are transactions and none is open.
    fn open(&mut self) -> Result<(), Trouble> {
        if self.in_transactions && !self.is_open {
            self.sink.begin().map_err(Trouble::Failed)?;
            self.is_open = true;
        }
        Ok(())
    }

    fn send(&mut self, ticket: Ticket, outgoing: Outgoing, spare: Spare) -> Result<(), Trouble> {
        let (n_bytes, is_answer) = (outgoing.n_bytes(), outgoing.output == Output::Main);
        let receipt = Receipt(self.first + self.pending.len() as u64);
        match self.sink.send(outgoing, receipt) {
            Ok(()) if self.in_transactions => {
                if is_answer {
                    self.written = (self.written.0 + 1, self.written.1 + n_bytes);
                }
                Ok(())
            }
            Ok(()) => {
                self.pending.push_back(Pending { ticket, spare, n_bytes, is_answer, is_known: false });
                Ok(())
            }
            Err(error) if error.severity == Severity::Record => {
                self.substitute(ticket, spare, &error.message)
            }
            Err(error) => Err(Trouble::Failed(error)),
        }
    }

    /// Sends what is written instead of an output that the sink refuses: what the policy says instead of an answer, and instead
    /// of anything else less of it, or nothing.
    fn substitute(&mut self, ticket: Ticket, spare: Spare, message: &str) -> Result<(), Trouble> {
        let counters = &self.scoring.meter.counters;
        let instead = match spare {
            Spare::Answer(origin) => {
                self.scoring.refusals.refuse(Class::Oversize, message, &origin).map_err(Trouble::Stop)?
            }
            Spare::Whole(outgoing) => match emptied(*outgoing) {
                Some(emptied) => {
                    add(&counters.emptied, 1);
                    tracing::warn!("{message}; it is written without its value");
                    smallvec::smallvec![emptied]
                }
                None => self.left_out(message),
            },
            Spare::Nothing => self.left_out(message),
        };
        if instead.is_empty() {
            self.tell(vec![ticket])?;
        }
        for outgoing in instead {
            let spare = Spare::of(&outgoing);
            self.send(ticket, outgoing, spare)?;
        }
        Ok(())
    }

    fn left_out(&self, message: &str) -> Outputs {
        add(&self.scoring.meter.counters.left_out, 1);
        tracing::error!("{message}; it is left out");
        Outputs::new()
    }

    // What lasts

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Trouble> {
        self.open()?;
        self.sink.commit(transaction).map_err(Trouble::Failed)?;
        self.is_open = false;
        let (n, n_bytes) = std::mem::take(&mut self.written);
        add(&self.scoring.meter.counters.records_out, n);
        add(&self.scoring.meter.counters.bytes_out, n_bytes);
        self.send_report(Report::Committed { generation: self.generation })
    }

    /// Looks at what became of records that were sent one by one.
    fn look(&mut self) -> Result<(), Trouble> {
        if self.in_transactions || self.has_failed || (self.pending.is_empty() && self.deliveries.is_empty())
        {
            return Ok(());
        }
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.sink.deliveries(Duration::ZERO, &mut deliveries);
        let (mut lasting, mut refused) = (Vec::with_capacity(deliveries.len()), Vec::new());
        let (mut n, mut n_bytes) = (0, 0);
        for Delivery { receipt, result } in deliveries.drain(..) {
            let index = receipt.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
            let Some(pending) = index.and_then(|index| self.pending.get_mut(index)) else { continue };
            match result {
                _ if pending.is_known => continue,
                Ok(()) => {
                    lasting.push(pending.ticket);
                    if pending.is_answer {
                        (n, n_bytes) = (n + 1, n_bytes + pending.n_bytes);
                    }
                }
                Err(error) if error.severity == Severity::Record => {
                    let spare = std::mem::replace(&mut pending.spare, Spare::Nothing);
                    refused.push((pending.ticket, spare, error.message));
                }
                Err(error) => return Err(Trouble::Failed(error)),
            }
            pending.is_known = true;
            pending.spare = Spare::Nothing;
        }
        self.deliveries = deliveries;
        while self.pending.front().is_some_and(|pending| pending.is_known) {
            self.pending.pop_front();
            self.first += 1;
        }
        add(&self.scoring.meter.counters.records_out, n);
        add(&self.scoring.meter.counters.bytes_out, n_bytes);
        for (ticket, spare, message) in refused {
            self.substitute(ticket, spare, &message)?;
        }
        if lasting.is_empty() { Ok(()) } else { self.tell(lasting) }
    }

    /// Tells the driver what lasts; in a transaction that is told by its commit.
    fn tell(&mut self, tickets: Vec<Ticket>) -> Result<(), Trouble> {
        if self.in_transactions {
            return Ok(());
        }
        self.send_report(Report::Lasting { generation: self.generation, tickets })
    }

    fn send_report(&mut self, report: Report) -> Result<(), Trouble> {
        let gone = |_| Trouble::Stop(Error::new(ErrorKind::Internal, "the driver of the stream is gone"));
        self.reports.send(report).map_err(gone)
    }
}

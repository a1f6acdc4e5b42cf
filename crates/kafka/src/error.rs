//! What the client reports, as severities and texts.

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use salver_records::{Error, Severity};

/// How bad a code is where nothing more is known. What is not named may pass: the client tries most things again by itself.
pub(crate) fn severity(code: RDKafkaErrorCode) -> Severity {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidTimestamp
        | Code::InvalidRecord => Severity::Record,

        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::UnreleasedInstanceId
        | Code::FencedMemberEpoch
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::TransactionCoordinatorFenced
        | Code::AssignmentLost
        | Code::Fenced => Severity::Fenced,

        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::InvalidTransactionalState
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerIdMapping
        | Code::Inconsistent => Severity::Transaction,

        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::SSL
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::UnknownTopicId
        | Code::InvalidTopic
        | Code::InvalidArgument
        | Code::InvalidConfig
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InvalidTransactionTimeout
        | Code::InvalidRequiredAcks
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidRequest
        | Code::InconsistentGroupProtocol
        | Code::GroupMaxSizeReached
        | Code::UnsupportedAssignor
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::NotImplemented
        | Code::NotConfigured
        | Code::PolicyViolation
        | Code::AutoOffsetReset
        | Code::LogTruncation
        | Code::OffsetOutOfRange
        | Code::GaplessGuarantee
        | Code::Fatal => Severity::Fatal,

        _ => Severity::Passing,
    }
}

/// The client's own text, without the words that it puts before it.
fn text(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        KafkaError::ClientConfig(_, reason, ..) => reason.clone(),
        KafkaError::ClientCreation(reason)
        | KafkaError::AdminOpCreation(reason)
        | KafkaError::PauseResume(reason)
        | KafkaError::Seek(reason)
        | KafkaError::Subscription(reason) => reason.clone(),
        KafkaError::AdminOp(code) => code.to_string(),
        other => match other.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => other.to_string(),
        },
    }
}

/// An error of the client, with what was tried before it: "cannot commit t/3 of group g at a:9092".
pub(crate) fn failed(what: &str, error: &KafkaError) -> Error {
    let severity = match error {
        KafkaError::AdminOp(code) => severity(*code),
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_) => Severity::Fatal,
        KafkaError::MessageConsumptionFatal(code) => worse(severity(*code)),
        other => other.rdkafka_error_code().map_or(Severity::Passing, severity),
    };
    Error::new(severity, format!("{what}: {}", text(error)))
}

/// A code that the client itself says stays.
fn worse(severity: Severity) -> Severity {
    match severity {
        Severity::Fenced => Severity::Fenced,
        _ => Severity::Fatal,
    }
}

/// Whether a code that ends the client's producer ends this one only: the brokers and it have come to disagree about what was
/// sent, as when the broker of a partition dies at a bad moment. Nothing is wrong with what is to be sent, and nobody else has
/// taken its place: another producer may go on.
pub(crate) fn spoils(code: Code) -> bool {
    !matches!(severity(code), Severity::Fenced | Severity::Fatal)
}

/// Whether a code says that a broker or a coordinator is away, or not yet what it is to be.
fn is_away(code: Code) -> bool {
    matches!(
        code,
        Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
    )
}

/// An error of a call about a transaction; the client classifies these itself.
pub(crate) fn failed_transaction(what: &str, error: &KafkaError) -> Error {
    let KafkaError::Transaction(inner) = error else { return failed(what, error) };
    let by_code = severity(inner.code());
    let severity = if inner.is_fatal() && spoils(inner.code()) {
        // What the broker did of what was asked of it is not known.
        Severity::Doubtful
    } else if inner.is_fatal() {
        worse(by_code)
    } else if inner.txn_requires_abort() {
        of_aborted(inner.code())
    } else if inner.is_retriable() {
        Severity::Passing
    } else {
        worse(by_code)
    };
    Error::new(severity, format!("{what}: {}", text(error)))
}

/// What the code means for which a transaction must be aborted.
fn of_aborted(code: Code) -> Severity {
    match code {
        Code::FencedInstanceId => Severity::Fenced,
        // The group has gone on without this process, or in another generation.
        Code::UnknownMemberId | Code::IllegalGeneration | Code::FencedMemberEpoch => Severity::Doubtful,
        code if is_away(code) => Severity::Passing,
        _ => Severity::Transaction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_severities() {
        let check = |code: Code, expected: Severity| {
            assert_eq!(severity(code), expected, "{code:?}");
            let error = failed("cannot x t/3 at h:1", &KafkaError::MessageProduction(code));
            assert_eq!(error.severity, expected, "{code:?}");
            assert!(error.message.starts_with("cannot x t/3 at h:1: "), "{error}");
        };
        check(Code::BrokerTransportFailure, Severity::Passing);
        check(Code::AllBrokersDown, Severity::Passing);
        check(Code::NotEnoughReplicas, Severity::Passing);
        check(Code::NotLeaderForPartition, Severity::Passing);
        check(Code::RebalanceInProgress, Severity::Passing);
        check(Code::MessageTimedOut, Severity::Passing);
        check(Code::MessageSizeTooLarge, Severity::Record);
        check(Code::UnknownTopicOrPartition, Severity::Fatal);
        check(Code::TopicAuthorizationFailed, Severity::Fatal);
        check(Code::IllegalGeneration, Severity::Fenced);
        check(Code::ProducerFenced, Severity::Fenced);
        check(Code::PurgeInflight, Severity::Transaction);
        check(Code::OutOfOrderSequenceNumber, Severity::Transaction);
    }

    #[test]
    fn what_ends_one_producer_does_not_end_the_next() {
        let check = |code: Code, expected: bool| assert_eq!(spoils(code), expected, "{code:?}");
        check(Code::OutOfOrderSequenceNumber, true);
        check(Code::UnknownProducerId, true);
        check(Code::InvalidProducerIdMapping, true);
        check(Code::InvalidTransactionalState, true);
        check(Code::Inconsistent, true);
        check(Code::Fenced, false);
        check(Code::ProducerFenced, false);
        check(Code::InvalidProducerEpoch, false);
        check(Code::TransactionalIdAuthorizationFailed, false);
        check(Code::UnsupportedForMessageFormat, false);
        check(Code::UnsupportedFeature, false);
    }

    #[test]
    fn transactions_that_must_be_aborted_are_for_different_reasons() {
        let check = |code: Code, expected: Severity| assert_eq!(of_aborted(code), expected, "{code:?}");
        check(Code::NotCoordinator, Severity::Passing);
        check(Code::CoordinatorNotAvailable, Severity::Passing);
        check(Code::CoordinatorLoadInProgress, Severity::Passing);
        check(Code::BrokerTransportFailure, Severity::Passing);
        check(Code::OperationTimedOut, Severity::Passing);
        check(Code::IllegalGeneration, Severity::Doubtful);
        check(Code::FencedInstanceId, Severity::Fenced);
        check(Code::UnknownProducerId, Severity::Transaction);
        check(Code::Inconsistent, Severity::Transaction);
        check(Code::TopicAuthorizationFailed, Severity::Transaction);
        check(Code::Unknown, Severity::Transaction);
    }

    #[test]
    fn what_the_client_calls_fatal_does_not_pass() {
        let check = |code: Code, expected: Severity| {
            assert_eq!(
                failed("x", &KafkaError::MessageConsumptionFatal(code)).severity,
                expected,
                "{code:?}"
            );
        };
        check(Code::BrokerTransportFailure, Severity::Fatal);
        check(Code::FencedInstanceId, Severity::Fenced);
    }
}

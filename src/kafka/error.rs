//! What can go wrong with the log, each in a sentence that names the address, topic or property and the way out.

use rdkafka::types::RDKafkaErrorCode as Code;
use thiserror::Error;

use crate::text::harmless;

/// Why a cluster, a topic, a producer or a consumer could not be had.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum KafkaError {
    /// librdkafka does not take this property.
    #[error("kafka.properties: {key:?}: {why}")]
    Property {
        /// The property.
        key: String,
        /// Why, without its value if that is a secret.
        why: String,
    },
    /// A secret that is not where the configuration says.
    #[error("{0}")]
    Secret(String),
    /// No broker answered in time. Retry: see [`KafkaError::is_retriable`].
    #[error("Kafka at {address} does not answer: {why}")]
    Away {
        /// Bootstrap servers.
        address: String,
        /// What librdkafka says.
        why: String,
    },
    /// The cluster does not let us.
    #[error("Kafka at {address} does not let us {what}: grant it, or create the topic {topic:?} beforehand")]
    NotAuthorised {
        /// Bootstrap servers.
        address: String,
        /// The topic.
        topic: String,
        /// What we tried.
        what: &'static str,
    },
    /// The cluster refuses the topic.
    #[error("Kafka at {address} refuses the topic {topic:?}: {why}")]
    Topic {
        /// Bootstrap servers.
        address: String,
        /// The topic.
        topic: String,
        /// What it says.
        why: String,
    },
    /// librdkafka could not make a client.
    #[error("cannot set up a Kafka client: {0}")]
    Client(String),
}

impl KafkaError {
    /// Whether the same may well succeed later, with nothing changed on our side.
    pub fn is_retriable(&self) -> bool {
        matches!(self, KafkaError::Away { .. })
    }

    /// The librdkafka error `error` of setting up a client.
    pub(super) fn client(error: &rdkafka::error::KafkaError) -> Self {
        match error {
            // This one would repeat the property's value; what is checked beforehand has its own sentence.
            rdkafka::error::KafkaError::ClientConfig(_, _, key, _) => {
                KafkaError::Property { key: key.clone(), why: "librdkafka does not take this value".into() }
            }
            rdkafka::error::KafkaError::ClientCreation(why) => KafkaError::Client(harmless(why, 300).into_owned()),
            other => KafkaError::Client(harmless(&other.to_string(), 300).into_owned()),
        }
    }
}

/// Why a record was not accepted. Its token is handed back with this.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum SendError {
    /// No room now: wait for [`super::Producer::room`].
    #[error("no room in the queue to Kafka")]
    Full,
    /// Larger than Kafka takes; it will never be accepted.
    #[error("{bytes} bytes are more than Kafka takes in one record ({max})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The producer will accept nothing any more; open another one.
    #[error("the producer has stopped: {0}")]
    Stopped(String),
    /// Refused for good.
    #[error("not accepted: {0}")]
    Refused(String),
}

/// Why an accepted record did not get into Kafka and won't.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum DeliveryError {
    /// Larger than the broker or topic takes.
    #[error("larger than the topic takes")]
    TooLarge,
    /// We may not write to the topic.
    #[error("not authorised to write to the topic")]
    NotAuthorised,
    /// The topic is gone.
    #[error("the topic does not exist")]
    NoTopic,
    /// The producer was closed before it was delivered.
    #[error("closed before it was delivered")]
    Closed,
    /// Anything else, in librdkafka's words.
    #[error("{0}")]
    Other(String),
}

impl DeliveryError {
    pub(super) fn of(error: &rdkafka::error::KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize) => {
                DeliveryError::TooLarge
            }
            Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => DeliveryError::NotAuthorised,
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => DeliveryError::NoTopic,
            Some(Code::PurgeQueue | Code::PurgeInflight) => DeliveryError::Closed,
            Some(code) => DeliveryError::Other(harmless(&code.to_string(), 200).into_owned()),
            None => DeliveryError::Other(harmless(&error.to_string(), 200).into_owned()),
        }
    }
}

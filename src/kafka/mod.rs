//! The log: an embedded or a remote Kafka cluster, its topics, producer and consumer. The only place that knows rdkafka.

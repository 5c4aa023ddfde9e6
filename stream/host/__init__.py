"""A machine's part of a bank: runs whichever of its workers Kafka assigns here, as processes."""

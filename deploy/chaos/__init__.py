"""Faults under load: a consortium on a real Kafka must end as one that nothing befell."""

"""What a scrape reads of our metrics."""

from prometheus_client.parser import text_string_to_metric_families

from connector.telemetry_metrics import exposition


def sample(name: str, **labels: str) -> float:
    """The value of one sample, 0 if it is not there."""
    families = text_string_to_metric_families(exposition().decode())
    return next((each.value for family in families for each in family.samples if (each.name, each.labels) == (name, labels)), 0.0)

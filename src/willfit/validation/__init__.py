"""Cases, predictions of cases, scoring."""

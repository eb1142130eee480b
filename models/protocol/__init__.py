"""The protocol that models are judged by: fixed splits, metrics with intervals, result cards."""

"""Vocabulary and decisions of a screening: materials, tensors, tasks, filters, acquisition."""

"""Candidates and dielectric tensors from the Materials Project."""

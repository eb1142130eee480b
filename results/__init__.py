"""What is known so far: the ledger (database), tables, plots and the report."""

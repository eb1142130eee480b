"""The order of things: the campaign as a Prefect flow, and the command line."""

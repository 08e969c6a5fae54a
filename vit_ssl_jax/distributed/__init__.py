"""The processes that make up a run: who they are, whether all are there, how they stop."""

"""Results of runs in one table, beside what is published."""

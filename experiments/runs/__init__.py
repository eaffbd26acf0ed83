"""What lies in a run's folder: record, plan, rows, claims."""

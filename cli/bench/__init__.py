"""The load generator behind `headway bench`: workload, load, measures, report."""

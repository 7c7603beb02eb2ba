"""The report: one self-contained HTML file about a finished run, made from what the run stored."""

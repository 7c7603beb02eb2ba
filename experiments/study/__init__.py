"""What is run: methods, rows and their cells, computed once and stored."""
